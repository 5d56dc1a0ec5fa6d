"""Put constraints (:mod:`mirrorsym.constraints`) on the parameters of a network, train it, and take them off again.

::

    mirrorsym.constrain_all(model)  # every parameter a product of two
    optimizer = torch.optim.SGD(mirrorsym.parameter_groups(model, weight_decay=1e-3), lr=0.1)
    ...
    torch.save(mirrorsym.plain_state_dict(model), path)  # as the model without constraints saves itself
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from mirrorsym.constraints import DCS, IMBALANCE, Hadamard, MirrorDCS, Unit

Module = TypeVar("Module", bound=nn.Module)
Place = tuple[nn.Module, str]
"""The module that owns a parameter, and the parameter's name in it."""
Kind = Literal["sparse", "unit"]
CONSTRAINTS = (Hadamard, Unit, DCS, MirrorDCS)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def constrain(
    module: Module,
    name: str | Sequence[str],
    constraint: nn.Module | Kind = "sparse",
    imbalance: float = IMBALANCE,
) -> Module:
    """Put a constraint on parameters of a module, whose values stay what they are; return the module (Section 2.6).

    Parameters that are one (tied) within the module stay one, and may be named by any or all of their names.

    Args:
        module: the module, which is changed; a whole network for parameters that it ties.
        name: the parameter's name in it, such as ``"weight"`` or ``"head.weight"``; of several, each is constrained,
            and by ``"unit"`` all together.
        constraint: ``"sparse"`` for :class:`Hadamard`, ``"unit"`` for a :class:`Unit` along the first axis, or a
            constraint.
        imbalance: of the constraints that are given by their kind.

    Raises:
        ValueError: if there is no such parameter, it has a parametrization already, or the constraint does not fit it;
            the module is as it was then.
    """
    names = [name] if isinstance(name, str) else list(name)
    for one in names:
        _require_plain(module, one)
    if isinstance(constraint, str) and constraint not in get_args(Kind):
        raise ValueError(f"there is no constraint {constraint!r}; there are {', '.join(get_args(Kind))}")
    values = {id(value): value for value in (_value(module, one) for one in names)}
    if constraint == "unit":
        constraint = Unit(list(values.values()), imbalance=imbalance)
    own = {id(_value(module, one)): [_place(module, one)] for one in names}
    places = own | {key: tied for key, tied in _places(module).items() if key in own}
    _register_all([(places[key], Hadamard(imbalance) if isinstance(constraint, str) else constraint) for key in values])
    return module


def constrain_all(module: Module, kind: Kind = "sparse", imbalance: float = IMBALANCE) -> Module:
    """Constrain every parameter of a module and its submodules, values kept; return the module (Fig. 7).

    Args:
        module: the module; it is changed. Parameters that are one (tied) stay one.
        kind: ``"sparse"`` writes every parameter as w⊙u; ``"unit"`` every unit of a layer, its row of the weight and
            its entry of the bias together, as one number times a vector.
        imbalance: u² - w² at the start; 0 for a balanced one (:class:`Hadamard`).

    Raises:
        ValueError: if there is no such kind, a parameter has a parametrization already, or is not real; the module is
            as it was then.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"there is no constraint {kind!r}; there are {', '.join(get_args(Kind))}")
    _require_none_constrained(module)
    places = _places(module)
    if kind == "sparse":
        _register_all([(tied, Hadamard(imbalance)) for tied in places.values()])
        return module
    pairs: list[tuple[list[Place], nn.Module]] = []
    for group in _units(list(places.values())):
        axis = 1 if isinstance(group[0][0][0], TRANSPOSED) else 0
        unit = Unit([getattr(*tied[0]) for tied in group], axis, imbalance)
        pairs += [(tied, unit) for tied in group]
    _register_all(pairs)
    return module


def release(module: Module) -> Module:
    """Take all constraints (Section 2.6) off a module and its submodules, values and ties kept; return the module.

    Its parameters are in the order that they had, in which optimizers and averages of weights count them.

    Args:
        module: the module; it is changed.
    """
    orders = {owner: _order(owner) for (owner, _), _ in _constrained(module)}
    tied: dict[int, list[tuple[Place, Tensor, bool]]] = {}
    for (owner, name), stored in _constrained(module):
        value = getattr(owner, name).detach().clone()
        trained = any(tensor.requires_grad for tensor in stored.parameters())
        tied.setdefault(id(stored), []).append(((owner, name), value, trained))
    for places in tied.values():
        parameter = nn.Parameter(places[0][1], requires_grad=places[0][2])
        for (owner, name), *_ in places:
            _take_own_class(owner)
            parametrize.remove_parametrizations(owner, name)
            setattr(owner, name, parameter)
    for owner, order in orders.items():
        for name in [n for n in dict.fromkeys((*order, *owner._parameters)) if n in owner._parameters]:
            owner._parameters[name] = owner._parameters.pop(name)
    return module


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return what an optimizer takes, with decay on the factors of constrained parameters and on nothing else.

    Args:
        module: the module, constrained.
        weight_decay: PyTorch's, twice the α of Eq. 7.

    Returns:
        Two groups with the names ``"factors"`` and ``"others"`` under the key ``name``; the latter has the free parts
        of DCS too, and no decay.

    Raises:
        ValueError: if nothing in the module is constrained.
    """
    factors: dict[int, Tensor] = {}
    for _, stored in _constrained(module):
        constraint = stored[0]
        originals = [stored.original] if stored.is_tensor else [stored.original0, stored.original1]
        factors |= {id(tensor): tensor for tensor in (*originals, *constraint.parameters())}
    if not factors:
        raise ValueError(f"{type(module).__name__} has no constrained parameter; constrain or constrain_all come first")
    others = [parameter for parameter in module.parameters() if id(parameter) not in factors]
    return [
        {"name": "factors", "params": list(factors.values()), "weight_decay": weight_decay},
        {"name": "others", "params": others, "weight_decay": 0.0},
    ]


@torch.no_grad()
def plain_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Return the ``state_dict`` of the module without constraints (Section 2.6): values under their plain names.

    Args:
        module: the module, constrained or not.
    """
    plain: dict[str, Tensor] = {}
    names = {prefix: (owner, name) for prefix, owner, name, _ in _named(module)}
    for key, tensor in module.state_dict().items():
        head = _plain_name(key)
        if head in names:
            plain.setdefault(head, getattr(*names[head]).detach().clone())
        else:
            plain[key] = tensor
    order = [
        f"{prefix}.{name}" if prefix else name
        for prefix, owner in module.named_modules(remove_duplicate=False)
        for name in (*_order(owner), *owner._buffers)
    ]
    return {key: plain[key] for key in order if key in plain} | plain


@torch.no_grad()
def load_plain_state_dict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what a model without constraints has saved; factors start anew, as :func:`constrain` does (Section 2.6).

    Args:
        module: the module, constrained or not.
        state: as :func:`plain_state_dict` returns it, or as the model saved itself before it was constrained; names and
            shapes are the plain model's.

    Raises:
        ValueError: if a constrained parameter is missing in the state, or has another shape there.
        RuntimeError: PyTorch's, if other parameters are missing, too many or of another shape; nothing is loaded then.
    """
    new = dict(state)
    units: dict[Unit, list[tuple[str, Tensor]]] = {}
    for full, owner, name, stored in _named(module):
        if full not in new:
            raise ValueError(
                f"the state has no {full!r}, which the module has; it has {', '.join(list(state)[:5])}, ..."
            )
        value, shape = new.pop(full), getattr(owner, name).shape
        if value.shape != shape:
            raise ValueError(f"{full} has shape {tuple(value.shape)} in the state, and {tuple(shape)} in the module")
        head = f"{full[: len(full) - len(name)]}parametrizations.{name}"
        constraint = stored[0]
        if isinstance(constraint, Unit):
            units.setdefault(constraint, []).append((head, value))
        else:
            new |= {f"{head}.original{i}": tensor for i, tensor in enumerate(constraint.right_inverse(value))}
            new |= {f"{head}.0.{key}": tensor for key, tensor in constraint.state_dict().items()}
    for unit, members in units.items():
        g = unit.start([value for _, value in members])
        for head, value in members:
            new |= {f"{head}.0.g": g, f"{head}.original": value / unit.along(value, g)}
    module.load_state_dict(new)


def effective_parameters(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield (owner, name, value) of all that a module computes with, tied ones once: T of Eq. 7 where constrained.

    Args:
        module: the module, constrained or not.
    """
    seen: set[int] = set()
    for owner in _owners(module):
        found: list[tuple[str, object]] = list(_parametrizations(owner).items())
        found += [(name, parameter) for name, parameter in owner.named_parameters(recurse=False)]
        for name, stored in found:
            if id(stored) not in seen:
                seen.add(id(stored))
                yield owner, name, getattr(owner, name)


def _owners(module: nn.Module) -> Iterator[nn.Module]:
    """All submodules but those that belong to a parametrization."""
    inside = {
        id(part) for m in module.modules() if isinstance(m, parametrize.ParametrizationList) for part in m.modules()
    }
    return (m for m in module.modules() if id(m) not in inside)


def _parametrizations(owner: nn.Module) -> dict[str, Any]:
    return dict(owner.parametrizations.items()) if parametrize.is_parametrized(owner) else {}  # type: ignore[union-attr, operator]


def _constrained(module: nn.Module) -> Iterator[tuple[Place, Any]]:
    """Where the constraints are, tied places too, each with the list that stores its tensors."""
    for owner in _owners(module):
        for name, stored in _parametrizations(owner).items():
            if isinstance(stored[0], CONSTRAINTS):
                yield (owner, name), stored


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """The same, with the parameters' plain names in the ``state_dict``, of which a repeated module has several."""
    for prefix, owner in module.named_modules(remove_duplicate=False):
        if "parametrizations" not in prefix.split("."):
            for name, stored in _parametrizations(owner).items():
                if isinstance(stored[0], CONSTRAINTS):
                    yield f"{prefix}.{name}" if prefix else name, owner, name, stored


def _plain_name(key: str) -> str:
    """Return ``a.weight`` for ``a.parametrizations.weight.original0``."""
    words = key.split(".")
    if "parametrizations" not in words:
        return key
    at = words.index("parametrizations")
    return ".".join([*words[:at], words[at + 1]])


def _places(module: nn.Module) -> dict[int, list[Place]]:
    """All plain parameters by identity, each with every place where the module has it."""
    places: dict[int, list[Place]] = {}
    for owner in _owners(module):
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((owner, name))
    return places


def _units(parameters: list[list[Place]]) -> list[list[list[Place]]]:
    """Group a layer's weight with its bias, as ``weight_ih_l0`` with ``bias_ih_l0``."""
    groups: dict[tuple[int, str], list[list[Place]]] = {}
    for tied in parameters:
        owner, name = tied[0]
        groups.setdefault((id(owner), name.replace("weight", "").replace("bias", "")), []).append(tied)
    return list(groups.values())


def _register_all(pairs: Sequence[tuple[Sequence[Place], nn.Module]]) -> None:
    """Register each constraint where its parameter is, once all of them are known to fit."""
    with torch.no_grad():
        for tied, constraint in pairs:
            if callable(inverse := getattr(constraint, "right_inverse", None)):
                inverse(getattr(*tied[0]))
    for tied, constraint in pairs:
        _register(tied, constraint)


def _register(tied: Sequence[Place], constraint: nn.Module) -> None:
    owner, name = tied[0]
    for other, alias in tied[1:]:  # torch writes into the tensor that it registers
        other.register_parameter(alias, nn.Parameter(getattr(owner, name).detach().clone()))
    _parametrize(owner, name, constraint)
    for other, alias in tied[1:]:
        _parametrize(other, alias, constraint)
        other.parametrizations[alias] = owner.parametrizations[name]  # type: ignore[index, operator]


def _parametrize(owner: nn.Module, name: str, constraint: nn.Module) -> None:
    order = _order(owner)
    if parametrize.is_parametrized(owner):
        _take_own_class(owner)
    parametrize.register_parametrization(owner, name, constraint)
    owner.parametrizations.order = order  # type: ignore[union-attr]


def _take_own_class(owner: nn.Module) -> None:
    """Part a module from its deep copies, with which it shares the class in which torch keeps its parametrizations."""
    shared = type(owner)
    kept = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    owner.__class__ = type(shared.__name__, shared.__bases__, kept)


def _order(owner: nn.Module) -> list[str]:
    """The names of a module's parameters, in the order from before its first constraint."""
    return list(getattr(getattr(owner, "parametrizations", None), "order", owner._parameters))


def _place(module: nn.Module, name: str) -> Place:
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last


def _value(module: nn.Module, name: str) -> Tensor:
    value = getattr(*_place(module, name))
    assert isinstance(value, Tensor)
    return value


def _require_plain(module: nn.Module, name: str) -> None:
    try:
        owner, last = _place(module, name)
    except AttributeError:
        owner, last = module, name
    if last in _parametrizations(owner):
        what = type(_parametrizations(owner)[last][0]).__name__
        raise ValueError(f"{name} has a parametrization already, {what}; release takes ours off")
    parameter = owner._parameters.get(last)
    if parameter is None:
        own = ", ".join(one for one, _ in module.named_parameters())
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}; it has {own or 'none of its own'}")
    if is_lazy(parameter):
        raise ValueError(f"{name} of {type(module).__name__} has no shape yet; let the module see a batch first")


def _require_none_constrained(module: nn.Module) -> None:
    for prefix, owner in module.named_modules():
        if "parametrizations" not in prefix.split("."):
            for name in (*_parametrizations(owner), *(n for n, p in owner._parameters.items() if p is not None)):
                _require_plain(module, f"{prefix}.{name}" if prefix else name)
