"""Symmetries of any network, found from one forward pass and confirmed numerically.

:func:`find_symmetries` follows one forward pass for candidates and keeps those that leave the outputs unchanged, in
double precision and at random parameters. What it returns are symmetries of the model in evaluation mode, whatever loss
is made from the outputs and with L2 decay on all parameters. It does not claim to find all. It follows linear and
convolutional layers, matrix products, normalizations, embeddings, elementwise functions, sums, products, residual
connections and the heads of ``nn.MultiheadAttention``. It does not look into channels that are concatenated, split or
reshaped into heads, into recurrent layers, at exchanges of whole heads, nor at symmetries that only the loss has, such
as a rotation of the outputs. :func:`holds` checks a symmetry that was written down by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mirrorsym.mirrors import Mirror

State = Mapping[str, Tensor]
"""Parameters and buffers by name."""
Kind = Literal["permutation", "sign_flip", "rescaling", "rotation"]

TOLERANCE = 1e-10
"""Relative change of the outputs, in double precision, up to which a candidate counts as a symmetry."""


@dataclass(frozen=True)
class Slot:
    """Where the units of a layer lie in one parameter: a run of its entries along one axis.

    Args:
        name: the parameter's or buffer's name.
        axis: the axis along which its units lie.
        start: the first unit's place on that axis.
        repeat: consecutive entries of each unit, more than one behind a flattened picture.
        inverse: True where a rescaling divides, on the other side of the layer's output.
        squared: True for variances.
        buffer: True for what the model keeps and does not train, such as a running mean.
    """

    name: str
    axis: int
    start: int = 0
    repeat: int = 1
    inverse: bool = False
    squared: bool = False
    buffer: bool = False

    def take(self, tensor: Tensor, units: int) -> Tensor:
        """Return the entries of each unit, shape (units, entries)."""
        moved = tensor.movedim(self.axis, 0)
        return moved[self.start : self.start + units * self.repeat].reshape(units, -1)

    def put(self, tensor: Tensor, block: Tensor) -> Tensor:
        """Return a copy of the tensor with other entries of each unit, shape (units, entries)."""
        result = tensor.clone()
        moved = result.movedim(self.axis, 0)
        part = moved[self.start : self.start + len(block) * self.repeat]
        part.copy_(block.reshape(part.shape))
        return result


@dataclass(frozen=True)
class Symmetry:
    """A transformation of a layer's units that leaves the model's outputs unchanged.

    - ``permutation``: two units are exchanged. On the mirror they are copies of each other (Theorem 4).
    - ``sign_flip``: all weights of a unit change their sign, a rescaling by -1. On the mirror they are 0 (Theorem 2).
    - ``rotation``: the units are rotated or reflected along any direction n. On the mirror the weights have no part
      along n, so their rank is lower (Theorem 3 and the double rotation of Section 3.2).
    - ``rescaling``: a unit's incoming weights are multiplied by a positive number and its outgoing ones divided, as
      with ReLU. This alone is no mirror. L2 decay still acts on such a unit as the lasso does.

    Args:
        kind: one of these.
        units: the number of units.
        slots: where their parameters lie.
    """

    kind: Kind
    units: int
    slots: tuple[Slot, ...]

    @property
    def name(self) -> str:
        """The modules whose parameters take part, in the network's order."""
        modules = dict.fromkeys(slot.name.rpartition(".")[0] or slot.name for slot in self.slots)
        first = self.slots[0].start
        # The units of an attention head are only some of those of its projection.
        return ", ".join(modules) + (f" [{first}:{first + self.units}]" if any(s.start for s in self.slots) else "")

    def matrix(self, state: State) -> Tensor:
        """Return the weights of each unit, incoming and outgoing ones together, shape (units, weights).

        The order parameters are functions of it: differences of rows, rows, and singular values.

        Args:
            state: the parameters by name, such as ``dict(model.named_parameters())``.
        """
        trained = [slot for slot in self.slots if not slot.buffer]
        return torch.cat([slot.take(state[slot.name], self.units) for slot in trained], dim=1)

    def reflect(self, state: State, normal: Tensor) -> dict[str, Tensor]:
        """Return all parameters and buffers after the reflection ``I - 2 n nᵀ`` of the units.

        Args:
            state: parameters and buffers by name, as ``model.state_dict()`` has them.
            normal: a vector along n, shape (units,): for a permutation ±1 at two units, for a sign flip 1 at one.

        Raises:
            ValueError: if the symmetry has no such mirror.
        """
        unit = normal / normal.norm()
        self._check(unit)
        return self.transform(state, torch.eye(self.units).to(unit) - 2 * torch.outer(unit, unit))

    def transform(self, state: State, matrix: Tensor) -> dict[str, Tensor]:
        """Return all parameters and buffers after a linear transformation of the units.

        Args:
            state: parameters and buffers by name.
            matrix: shape (units, units), an element of the symmetry's group.
        """
        result = dict(state)
        inverse = torch.linalg.inv(matrix).T
        for slot in self.slots:
            factor = (inverse if slot.inverse else matrix).to(result[slot.name])
            factor = factor**2 if slot.squared else factor
            result[slot.name] = slot.put(result[slot.name], factor @ slot.take(result[slot.name], self.units))
        return result

    def sample(self, seed: int = 0) -> Tensor:
        """Return a random element of the symmetry's group, shape (units, units), in double precision."""
        rng = np.random.default_rng(seed)
        if self.kind == "permutation":
            order = rng.permutation(self.units)  # as one cycle, which leaves no unit in its place
            matrix = np.zeros((self.units, self.units))
            matrix[order, np.roll(order, 1)] = 1
        elif self.kind == "sign_flip":
            signs = rng.choice([-1.0, 1.0], self.units)
            signs[0] = -1
            matrix = np.diag(signs)
        elif self.kind == "rescaling":
            matrix = np.diag(rng.uniform(0.5, 2, self.units))
        else:
            matrix = np.linalg.qr(rng.standard_normal((self.units, self.units)))[0]
        return torch.from_numpy(matrix)

    def mirror(self, model: nn.Module, normal: Tensor) -> Mirror:
        """Return one mirror of the symmetry as a matrix O over all parameters. For small models: O is dense.

        Args:
            model: the model.
            normal: as in :meth:`reflect`.

        Returns:
            A mirror for vectors as ``torch.nn.utils.parameters_to_vector(model.parameters())`` makes them.

        Raises:
            ValueError: if the symmetry has no such mirror, or acts on one parameter twice, as with shared layers.
        """
        unit = normal / normal.norm()
        self._check(unit)
        places, count = {}, 0
        for name, parameter in model.named_parameters():
            places[name] = torch.arange(count, count + parameter.numel()).reshape(parameter.shape)
            count += parameter.numel()
        entries = self.matrix(places).numpy()
        if len(np.unique(entries)) != entries.size:
            raise ValueError(f"the symmetry of {self.name} acts on some parameters from two sides; use reflect")
        directions = np.zeros((count, entries.shape[1]))
        directions[entries, np.arange(entries.shape[1])] = unit.double().cpu().numpy()[:, None]
        return Mirror(directions[:, np.abs(directions).sum(axis=0) > 0])

    def difference(self, model: nn.Module, loss: Callable[[nn.Module], Tensor], seed: int = 0) -> float:
        """Return the relative change of a loss when the parameters are transformed: about rounding for a symmetry.

        The model is left as it was.

        Args:
            model: the model; take it in double precision and in evaluation mode for a sharp answer.
            loss: what computes a number from the model, such as ``lambda model: criterion(model(x), y)``.
            seed: picks the transformation.
        """
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            with _holding(model, state, state):
                before = float(loss(model))
            with _holding(model, self.transform(state, self.sample(seed)), state):
                after = float(loss(model))
        return abs(after - before) / max(abs(before), torch.finfo(torch.double).tiny)

    def _check(self, unit: Tensor) -> None:
        entries = unit.detach().double().cpu()
        size = entries[entries != 0].abs()
        allowed = {
            "permutation": len(size) == 2 and bool((entries.sum().abs() < 1e-6).item()),
            "sign_flip": len(size) == 1,
            "rescaling": False,
            "rotation": True,
        }
        if entries.shape != (self.units,) or not allowed[self.kind]:
            raise ValueError(
                f"the {self.kind} of {self.name} has no mirror along a vector of shape {tuple(unit.shape)} with "
                f"{len(size)} entries that are not 0; it acts on {self.units} units, a permutation along ±1 at two of "
                "them, a sign flip along one, a rotation along any direction, and a rescaling has none"
            )


@contextmanager
def _holding(model: nn.Module, state: State, before: State) -> Iterator[None]:
    model.load_state_dict(dict(state))
    try:
        yield
    finally:
        model.load_state_dict(dict(before))


def find_symmetries(model: nn.Module, *inputs: Tensor) -> list[Symmetry]:
    """Find symmetries of a model's outputs, each confirmed numerically.

    A layer with a rotation is listed with that alone: it includes the permutations and sign flips of its units.

    Args:
        model: any module. It is copied, and left as it is.
        *inputs: what its forward takes, a small batch of two or more samples.

    Returns:
        The symmetries, in the order in which the network uses their parameters.
    """
    twin, arguments = _twin(model, inputs)
    follower = _Follower(twin)
    with torch.no_grad(), follower:
        outputs = twin(*arguments)
    follower.give_up(outputs)
    return _confirmed(twin, arguments, follower.spaces)


def holds(model: nn.Module, symmetry: Symmetry, *inputs: Tensor) -> bool:
    """Return whether a transformation leaves the model's outputs unchanged, at random parameters.

    Args:
        model: any module. It is copied, and left as it is.
        symmetry: what to check, for instance one written down by hand.
        *inputs: what the model's forward takes.

    Raises:
        ValueError: if the model has no such parameters.
    """
    twin, arguments = _twin(model, inputs)
    missing = {slot.name for slot in symmetry.slots} - set(twin.state_dict())
    if missing:
        raise ValueError(f"the model has no parameter {min(missing)!r}; model.named_parameters() has their names")
    _randomize(twin)
    return _invariance(twin, arguments)(symmetry)


def _twin(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a copy of the model, and inputs for it, in double precision and evaluation mode."""
    arguments = tuple(x.detach().double() if x.is_floating_point() else x for x in inputs)
    return copy.deepcopy(model).double().eval(), arguments


@torch.no_grad()
def _randomize(model: nn.Module) -> None:
    """Give the model generic parameters: at collapsed ones more transformations than the symmetries change nothing."""
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.double) / fan_in**0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=rng, dtype=torch.double) / 10)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=rng, dtype=torch.double) + 0.5)


def _confirmed(model: nn.Module, inputs: tuple[Tensor, ...], spaces: _Spaces) -> list[Symmetry]:
    _randomize(model)
    unchanged = _invariance(model, inputs)
    found = []
    for units, slots in spaces.continuous():
        kinds: tuple[Kind, ...] = ("rotation", "sign_flip", "rescaling") if units > 1 else ("sign_flip", "rescaling")
        candidates = (Symmetry(kind, units, slots) for kind in kinds)
        found += list(islice(filter(unchanged, candidates), 1))
    rotated = {slot for symmetry in found if symmetry.kind == "rotation" for slot in symmetry.slots}
    for units, slots in spaces.tied():
        permutation = Symmetry("permutation", units, slots)
        if units > 1 and not rotated & set(slots) and unchanged(permutation):
            found.append(permutation)
    order = {name: index for index, name in enumerate(spaces.used)}
    found = [replace(s, slots=tuple(sorted(s.slots, key=lambda slot: order[slot.name]))) for s in found]
    return sorted(found, key=lambda symmetry: order[symmetry.slots[0].name])


@torch.no_grad()
def _invariance(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[Symmetry], bool]:
    """Return a function that says whether a transformation leaves the outputs unchanged."""
    state = dict(model.state_dict())
    reference = _outputs(model, state, inputs)

    @torch.no_grad()
    def unchanged(symmetry: Symmetry) -> bool:
        matrix = symmetry.sample()
        if not _close(_outputs(model, symmetry.transform(state, matrix), inputs), reference):
            return False
        # A layer whose parameters may change in any way and nothing happens, such as an unused one, is no finding.
        part = replace(symmetry, slots=symmetry.slots[:1])
        return not _close(_outputs(model, part.transform(state, matrix), inputs), reference)

    return unchanged


def _outputs(model: nn.Module, state: State, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return all floating-point outputs as one vector."""
    results = torch.func.functional_call(model, dict(state), inputs)
    return torch.cat([out.reshape(-1) for out in _tensors(results) if out.is_floating_point()])


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= TOLERANCE * b.norm())


# Candidates: the spaces of units in a network
#
# Every axis of a parameter is a space of units. A sum of two values makes their spaces one, a contraction makes them
# one in which one side transforms inversely, an elementwise product makes a third that only permutations tie to both.
# Spaces that reach an input, an output or an operation that is not understood are fixed.


@dataclass
class _Space:
    units: int
    slots: list[Slot]
    fixed: bool = False


@dataclass(frozen=True)
class _Axis:
    """The units along one axis of a value."""

    space: int
    repeat: int = 1


_Axes = list["_Axis | None"]


class _Spaces:
    """Spaces of units, which grow together while a forward pass is followed."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names
        self.used: list[str] = []
        self._spaces: list[_Space] = []
        self._parents: list[int] = []
        self._parameters: dict[str, _Axes] = {}
        self._products: list[tuple[int, int, int]] = []

    def new(self, units: int, slots: Sequence[Slot] = ()) -> _Axis:
        self._spaces.append(_Space(units, list(slots)))
        self._parents.append(len(self._parents))
        self.used += [slot.name for slot in slots if slot.name not in self.used]
        return _Axis(len(self._parents) - 1)

    def parameter(self, tensor: Tensor) -> _Axes:
        """Return the axes of a parameter, the same ones each time it is used."""
        name = self.names.get(id(tensor))
        if name is None:
            return [None] * tensor.dim()
        if name not in self._parameters:
            self._parameters[name] = [self.new(size, [Slot(name, axis)]) for axis, size in enumerate(tensor.shape)]
        return list(self._parameters[name])

    def at(self, axis: _Axis) -> _Space:
        return self._spaces[self._root(axis.space)]

    def fix(self, *axes: _Axis | None) -> None:
        for axis in axes:
            if axis is not None:
                self.at(axis).fixed = True

    def join(self, a: _Axis | None, b: _Axis | None, inverse: bool = False) -> _Axis | None:
        """Make two spaces one; ``inverse`` where what rescales one divides the other."""
        if a is None or b is None or not self._fit(a, b):
            self.fix(a, b)
            return a
        first, second = self._root(a.space), self._root(b.space)
        if first != second:
            kept, gone = self._spaces[first], self._spaces[second]
            kept.slots += [replace(s, inverse=s.inverse != inverse) for s in gone.slots]
            kept.fixed |= gone.fixed
            self._parents[second] = first
        return a

    def multiply(self, a: _Axis | None, b: _Axis | None) -> _Axis | None:
        """Return the axis of an elementwise product."""
        if a is None or b is None or not self._fit(a, b):
            self.fix(a, b)
            return None
        product = self.new(self.at(a).units)
        self._products.append((a.space, b.space, product.space))
        return replace(product, repeat=a.repeat)

    def _fit(self, a: _Axis, b: _Axis) -> bool:
        """Give both the same number of units, where one is a parameter's axis behind a flattened value."""
        for axis, other in ((a, b), (b, a)):
            space, model = self.at(axis), self.at(other)
            alone = len(space.slots) == 1 and axis.repeat == 1 and space.slots[0].repeat == 1
            if alone and other.repeat > 1 and space.units == model.units * other.repeat:
                space.units, space.slots = model.units, [replace(space.slots[0], repeat=other.repeat)]
                return True
        return self.at(a).units == self.at(b).units

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def continuous(self) -> Iterator[tuple[int, tuple[Slot, ...]]]:
        """Yield candidates for rotations, flips and rescalings: spaces, and two of the three at a product."""
        seen = set()
        groups: list[tuple[tuple[int, bool], ...]] = [((space, False),) for space in range(len(self._spaces))]
        for a, b, c in self._products:
            # Of a product, one factor goes with the result, or the factors go against each other.
            groups += [((a, False), (c, False)), ((b, False), (c, False)), ((a, False), (b, True))]
        for group in groups:
            roots = {self._root(space): inverse for space, inverse in group}
            members = [(self._spaces[root], inverse) for root, inverse in roots.items()]
            slots = tuple(
                replace(slot, inverse=slot.inverse != inverse) for space, inverse in members for slot in space.slots
            )
            if _trained(slots) < 2 or any(space.fixed for space, _ in members) or slots in seen:
                continue
            seen.add(slots)
            yield members[0][0].units, slots

    def tied(self) -> Iterator[tuple[int, tuple[Slot, ...]]]:
        """Yield candidates for permutations: all spaces that products tie together."""
        group = {root: {root} for root in range(len(self._spaces)) if self._root(root) == root}
        for spaces in self._products:
            whole = set().union(*(group[self._root(space)] for space in spaces))
            group |= dict.fromkeys(whole, whole)
        for members in {id(whole): whole for whole in group.values()}.values():
            parts = [self._spaces[root] for root in sorted(members)]
            slots = tuple(slot for space in parts for slot in space.slots)
            if _trained(slots) > 1 and not any(space.fixed for space in parts):
                yield parts[0].units, slots


def _trained(slots: Sequence[Slot]) -> int:
    """Return how many parameters take part."""
    return len({slot.name for slot in slots if not slot.buffer})


_GET = {torch.Tensor.T.__get__, torch.Tensor.mT.__get__}  # type: ignore[attr-defined]
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_MATMUL = {"matmul", "__matmul__", "mm", "bmm", "mv"}
_MULTIPLY = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
_UNKNOWN = {"cat", "concat", "stack", "einsum", "tensordot", "addmm", "baddbmm", "roll", "flip", "gather", "sort"}


class _Follower(TorchFunctionMode):
    """Notes, while a model runs, which axes of its values are units of which space."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        names = {id(tensor): name for name, tensor in model.named_buffers()}
        self.spaces = _Spaces(names | {id(tensor): name for name, tensor in model.named_parameters()})
        self._axes: dict[int, _Axes] = {}
        self._alive: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shapes = {id(tensor): tuple(tensor.shape) for tensor in _tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        axes = self._followed(func, list(args), kwargs or {}, shapes, result)
        if axes is not None and isinstance(result, Tensor):
            self._note(result, axes)
        return result

    def give_up(self, values: Any) -> None:
        """Fix whatever goes into an operation that is not understood, or out of the model."""
        for tensor in _tensors(values):
            self.spaces.fix(*self._of(tensor))

    def _note(self, tensor: Tensor, axes: _Axes) -> None:
        self._axes[id(tensor)] = axes
        self._alive.append(tensor)  # or another tensor could get its id

    def _of(self, tensor: Any) -> _Axes:
        """Return the axes of a value; of None, as a missing bias, no axes."""
        if not isinstance(tensor, Tensor):
            return []
        if id(tensor) in self._axes:
            return list(self._axes[id(tensor)])
        return self.spaces.parameter(tensor) if isinstance(tensor, nn.Parameter) else [None] * tensor.dim()

    def _followed(
        self, func: Any, args: list[Any], kwargs: dict[str, Any], shapes: dict[int, tuple[int, ...]], result: Any
    ) -> _Axes | None:
        """Return the axes of an operation's result, None where it has none."""
        name = getattr(func, "__name__", "")
        if name == "multi_head_attention_forward":
            self._attention(args, kwargs, result)
            return None
        if not isinstance(result, Tensor):
            if any(True for _ in _tensors(result)):
                self.give_up((args, kwargs))
            return None
        if name == "linear":
            return self._linear(*(self._of(x) for x in _bound(args, kwargs, "input", "weight", "bias")))
        if name in _CONVOLUTIONS | _TRANSPOSED:
            return self._convolution(args, kwargs, name in _TRANSPOSED)
        if name in _MATMUL:
            return self._matmul(self._of(args[0]), self._of(args[1]))
        if name in ("batch_norm", "layer_norm", "group_norm", "rms_norm"):
            return self._norm(name, args, kwargs)
        if name == "embedding":
            rows, columns = self._of(_bound(args, kwargs, "input", "weight")[1])
            self.spaces.fix(rows)
            return [*[None] * (result.dim() - 1), columns]
        if name == "prelu":
            return self._prelu(*(self._of(x) for x in args))
        if name == "scaled_dot_product_attention":
            query, key, value = (self._of(x) for x in _bound(args, kwargs, "query", "key", "value"))
            self.spaces.join(query[-1], key[-1], inverse=True)
            return [*[None] * (result.dim() - 1), value[-1]]
        if func in _GET or name in ("t", "transpose", "swapaxes", "swapdims", "permute"):
            return self._moved(func, args, kwargs)
        if name in _UNKNOWN:
            self.give_up((args, kwargs))
            return None
        return self._elementwise((args, kwargs), shapes, result, multiplies=name in _MULTIPLY)

    def _moved(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> _Axes:
        """Move the axes as an operation that only moves them does: it is asked on a tensor whose sizes are numbered."""
        axes = self._of(args[0])
        numbered = torch.empty(tuple(range(len(axes))), device="meta")
        return [axes[place] for place in func(numbered, *args[1:], **kwargs).shape]

    def _linear(self, x: _Axes, weight: _Axes, bias: _Axes) -> _Axes:
        self.spaces.join(x[-1], weight[1], inverse=True)
        if bias:
            self.spaces.join(weight[0], bias[0])
        return [*x[:-1], weight[0]]

    def _matmul(self, a: _Axes, b: _Axes) -> _Axes:
        rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else []
        self.spaces.join(a[-1], b[-2] if len(b) > 1 else b[-1], inverse=True)
        self.spaces.fix(*a[:-2], *b[:-2])
        return [*[None] * (max(len(a), len(b), 2) - 2), *rows, *columns]

    def _convolution(self, args: list[Any], kwargs: dict[str, Any], transposed: bool) -> _Axes:
        x, weight, bias = (self._of(value) for value in _bound(args, kwargs, "input", "weight", "bias"))
        places = ("output_padding", "groups") if transposed else ("dilation", "groups")
        groups = _bound(args, kwargs, "input", "weight", "bias", "stride", "padding", *places)[6] or 1
        self.spaces.fix(*x[:-3], *x[-2 if len(x) < 4 else 2 :], *weight[2:])
        out, into = (weight[1], weight[0]) if transposed else (weight[0], weight[1])
        if groups == 1:
            self.spaces.join(x[1], into, inverse=True)
        elif weight[1] is not None and self.spaces.at(weight[1]).units == 1 and not transposed:
            out = self.spaces.multiply(x[1], out)
        else:
            self.spaces.fix(x[1], out, into)
            out = None
        if bias:
            self.spaces.join(out, bias[0])
        return [None, out, *[None] * (len(x) - 2)]

    def _norm(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> _Axes:
        second = {"batch_norm": ("running_mean", "running_var"), "group_norm": ("num_groups",)}
        between = second.get(name, ("normalized_shape",))
        source, *values = _bound(args, kwargs, "input", *between, "weight", "bias")
        place = 1 if name in ("batch_norm", "group_norm") else -1
        bias = values.pop() if name != "rms_norm" else None
        weight = values.pop(len(between))
        x = self._of(source)
        if any(isinstance(tensor, Tensor) and tensor.dim() > 1 for tensor in (weight, bias)):
            self.give_up((source, weight, bias))
            return [None] * len(x)
        units = x[place]
        for slot_name, buffer in zip(between, values, strict=False):
            if isinstance(buffer, Tensor) and id(buffer) in self.spaces.names:
                slot = Slot(self.spaces.names[id(buffer)], 0, squared=slot_name == "running_var", buffer=True)
                self.spaces.join(units, self.spaces.new(len(buffer), [slot]))
        if isinstance(weight, Tensor):
            units = self.spaces.multiply(units, self._of(weight)[0])
        if isinstance(bias, Tensor):
            self.spaces.join(units, self._of(bias)[0])
        x[place] = units
        return x

    def _prelu(self, x: _Axes, weight: _Axes) -> _Axes:
        slopes = weight[0] if weight else None
        if slopes is not None and self.spaces.at(slopes).units > 1:
            self.spaces.multiply(x[1], slopes)
        return x

    def _attention(self, args: list[Any], kwargs: dict[str, Any], result: Any) -> None:
        names = ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias")
        more = ("bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias")
        query, key, value, width, heads, weight, bias, bias_k, *_, out, out_bias = _bound(args, kwargs, *names, *more)
        known = self.spaces.names
        if any(id(p) not in known for p in (weight, out)) or bias_k is not None:
            self.give_up((args, kwargs))
            return
        self._heads([known[id(p)] for p in (weight, bias) if p is not None], known[id(out)], width, width // heads)
        for x in (query, key, value):
            self.spaces.join(self._of(x)[-1], self._of(weight)[1], inverse=True)
        if out_bias is not None:
            self.spaces.join(self._of(out)[0], self._of(out_bias)[0])
        self._note(result[0], [*[None] * (result[0].dim() - 1), self._of(out)[0]])

    def _heads(self, rows: list[str], columns: str, width: int, size: int) -> None:
        """Add the spaces inside of attention heads: of each head's queries and keys, and of its values."""
        for start in range(0, width, size):
            query, key, value = ([Slot(name, 0, start + k * width) for name in rows] for k in range(3))
            self.spaces.new(size, query + [replace(slot, inverse=True) for slot in key])
            self.spaces.new(size, [*value, Slot(columns, 1, start, inverse=True)])

    def _elementwise(
        self, arguments: Any, shapes: dict[int, tuple[int, ...]], result: Tensor, multiplies: bool
    ) -> _Axes | None:
        """Follow each axis through a function of one tensor, or of several that broadcast."""
        sources = [tensor for tensor in {id(t): t for t in _tensors(arguments)}.values() if tensor.dim() > 0]
        if len(sources) == 1:
            return self._single(self._of(sources[0]), shapes[id(sources[0])], tuple(result.shape))
        axes: _Axes = []
        for place in range(-result.dim(), 0):
            # A size of 1 is broadcast: it neither carries units nor tells them apart.
            present = [t for t in sources if len(shapes[id(t)]) >= -place and shapes[id(t)][place] > 1]
            if any(shapes[id(t)][place] != result.shape[place] for t in present):
                self.give_up(arguments)
                return None
            found = [self._of(tensor)[place] for tensor in present]
            axis = found[0] if found else None
            for other in found[1:]:
                axis = (self.spaces.multiply if multiplies else self.spaces.join)(axis, other)
            axes.append(axis)
        return axes

    def _single(self, axes: _Axes, before: tuple[int, ...], after: tuple[int, ...]) -> _Axes:
        """Follow axes through a function of one tensor that acts on each unit, pools, takes a part or flattens."""
        result: _Axes = [None] * len(after)
        for place, axis in enumerate(axes):
            rest = int(np.prod(before[place + 1 :]))
            if axis is None:
                continue
            if len(before) == len(after) and before[place] == after[place]:
                result[place] = axis
            elif after == (*before[:place], before[place] * rest):
                result[place] = replace(axis, repeat=axis.repeat * rest)
            elif place == len(before) - 1 and after and before[-1] == after[-1]:
                result[-1] = axis
            elif len(after) > place and before[: place + 1] == after[: place + 1]:
                result[place] = axis
            else:
                self.spaces.fix(axis)
        return result


def _bound(args: list[Any], kwargs: dict[str, Any], *names: str) -> list[Any]:
    """Return the arguments of these names, in the order of the function's signature, None where one is missing."""
    return [args[place] if place < len(args) else kwargs.get(name) for place, name in enumerate(names)]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
