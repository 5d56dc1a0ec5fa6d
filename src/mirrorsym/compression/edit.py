"""Make the modules of a model smaller: their parameters, and what they say of their own shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from mirrorsym.compression.probe import Reading, is_rms_norm, reading_axis
from mirrorsym.compression.units import Plan, Reader
from mirrorsym.symmetries.symmetry import Slot, Symmetry

Axis = tuple[str, tuple[int, ...]]
"""A parameter or buffer and one axis of it, or several."""
HEAD_COUNTS = ("num_heads", "n_heads", "n_head", "heads", "nheads", "nhead", "num_attention_heads")
"""What modules call their number of heads."""
HEAD_SIZES = ("head_dim", "head_size", "d_head", "dim_head", "attention_head_size", "size_per_head")
"""What modules call the size of a head."""
HEADS_TOGETHER = ("all_head_size", "inner_dim", "hidden", "split_size")
"""What modules call the number of heads times their size."""


class UncuttableError(Exception):
    """A module cannot hold fewer units, and why."""


class Places:
    """Which of the places that a search found are left, on each axis of each parameter."""

    def __init__(self) -> None:
        self._left: dict[Axis, Tensor] = {}

    def now(self, slot: Slot, units: int, size: int) -> Tensor:
        """Return where a slot's places lie now, shape (units, repeat); -1 where they are gone.

        Args:
            slot: as it was found.
            units: the number of its units.
            size: the length of its axis now.
        """
        wanted = slot.indices(units).reshape(units, -1)
        left = self._left.get((slot.name, slot.axes))
        if left is None:
            return wanted
        where = torch.full((int(max(wanted.max(), left.max())) + 1,), -1)
        where[left] = torch.arange(size)
        return where[wanted]

    def remove(self, axis: Axis, places: Tensor, size: int) -> Tensor:
        """Take places, as they are now, off an axis of some length now; return those that stay, as they are now."""
        keep = torch.ones(size, dtype=torch.bool)
        keep[places.flatten()] = False
        left = self._left.get(axis, torch.arange(size))
        self._left[axis] = left[keep]
        return keep.nonzero()[:, 0]

    def copy(self) -> Places:
        """Return the same, to be changed apart."""
        other = Places()
        other._left = dict(self._left)
        return other


def holders(model: nn.Module, name: str) -> list[tuple[str, nn.Module, str]]:
    """Return all modules that hold a tensor, by name, and what they call it: several where it is tied."""
    tensor = tensor_of(model, name)
    return [
        (owner, module, attribute)
        for owner, module in model.named_modules()
        for attribute, held in (*module._parameters.items(), *module._buffers.items())
        if held is tensor
    ]


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by its name."""
    owner, _, attribute = name.rpartition(".")
    tensor = getattr(model.get_submodule(owner), attribute)
    assert isinstance(tensor, Tensor)
    return tensor


def replace_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Give all modules that hold a tensor another one."""
    old = tensor_of(model, name)
    new = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    for _, module, attribute in holders(model, name):
        setattr(module, attribute, new)


def places_of(model: nn.Module, places: Places, symmetry: Symmetry) -> list[tuple[Slot, Tensor]]:
    """Return the slots of a symmetry with the places of the units that are left, shape (units, repeat)."""
    found = []
    for slot in symmetry.slots:
        shape = tensor_of(model, slot.name).shape
        found.append((slot, places.now(slot, symmetry.units, math.prod(shape[axis] for axis in slot.axes))))
    alive = torch.stack([(where >= 0).all(1) for _, where in found]).all(0)
    return [(slot, where[alive]) for slot, where in found]


def readers_of(model: nn.Module, slots: Sequence[tuple[Slot, Tensor]]) -> list[Reader]:
    """Return the modules that read the units, those among them that only a zero unit can be taken from included."""
    features: dict[str, list[Tensor]] = {}
    tied: set[str] = set()
    for slot, where in slots:
        owners = holders(model, slot.name)
        for owner, module, attribute in owners:
            reads = attribute == "weight" and (reading_axis(module) == slot.axis or is_rms_norm(module))
            if reads:
                features.setdefault(owner, []).append(where)
                if len(owners) > 1:
                    tied.add(owner)
    found = []
    for owner, parts in features.items():
        module = model.get_submodule(owner)
        merges = reading_axis(module) is not None and owner not in tied
        found.append(Reader(owner, torch.cat(parts, 1), merges, merges and not _pads(module)))
    return found


def _pads(module: nn.Module) -> bool:
    """Return whether a module reads zeros beside what it is given, or gives its bias to no place alone."""
    padding = getattr(module, "padding", 0)
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return True
    if isinstance(padding, str):
        padded = padding == "same" and max(module.kernel_size) > 1  # type: ignore[arg-type, type-var]
    else:
        padded = any(padding) if isinstance(padding, tuple) else bool(padding)
    return padded and getattr(module, "padding_mode", "zeros") == "zeros"


def fold(model: nn.Module, readers: Sequence[Reader], readings: Mapping[str, Reading], plan: Plan) -> None:
    """Give what constants and copies were to those that read them: to their biases, and to the weights of others."""
    if not plan.constant and not plan.copies:
        return
    for reader in readers:
        module = model.get_submodule(reader.module)
        weight = module.weight
        axis = reading_axis(module)
        assert isinstance(weight, Tensor)
        assert axis is not None
        columns = weight.detach().double().movedim(axis, 0).clone()
        if plan.constant:
            places = reader.features[plan.constant].flatten()
            reading = readings[reader.module]
            value = ((reading.lowest + reading.highest) / 2)[places]
            outputs = columns.shape[1]
            shift = (columns[places] * value.reshape(-1, *[1] * (columns.dim() - 1))).sum(0).reshape(outputs, -1).sum(1)
            old = module.bias
            bias = shift.to(weight) if old is None else old.detach() + shift.to(weight)  # type: ignore[operator]
            module.bias = nn.Parameter(bias, weight.requires_grad)
        for unit, (other, factors) in plan.copies.items():
            columns[reader.features[other]] += factors[reader.module] * columns[reader.features[unit]]
        module.weight = nn.Parameter(columns.movedim(0, axis).to(weight).contiguous(), weight.requires_grad)


def remove(model: nn.Module, places: Places, slots: Sequence[tuple[Slot, Tensor]], gone: Sequence[int]) -> None:
    """Take units out of all parameters and buffers, and say so in the modules' own attributes."""
    removed: dict[Axis, list[Tensor]] = {}
    for slot, where in slots:
        removed.setdefault((slot.name, slot.axes), []).append(where[list(gone)].flatten())
    touched: dict[str, tuple[nn.Module, dict[str, torch.Size]]] = {}
    for (name, axes), taken in removed.items():
        for owner, module, _ in holders(model, name):
            touched.setdefault(owner, (module, _shapes(module)))
        tensor = tensor_of(model, name)
        stay = places.remove((name, axes), torch.cat(taken), tensor.shape[axes[0]])
        replace_tensor(model, name, tensor.detach().index_select(axes[0], stay.to(tensor.device)))
    for module, before in touched.values():
        _resize(module, before)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    held = (*module._parameters.items(), *module._buffers.items())
    return {name: tensor.shape for name, tensor in held if tensor is not None}


def require_cuttable(module: nn.Module, slot: Slot) -> None:
    """Refuse modules that cannot hold fewer units.

    Raises:
        UncuttableError: why not.
    """
    if isinstance(module, nn.LayerNorm | nn.GroupNorm) or "LayerNorm" in type(module).__name__:
        raise UncuttableError(f"{type(module).__name__} takes the mean over the units, those that are zero among them")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        raise UncuttableError(f"the gates of {type(module).__name__} are not cut")
    if isinstance(module, nn.MultiheadAttention):
        raise UncuttableError("nn.MultiheadAttention with added keys or values is not replaced")
    if len(slot.axes) > 1:
        raise UncuttableError("units inside of a grouped convolution's groups, which have to stay of one size")


def _resize(module: nn.Module, before: Mapping[str, torch.Size]) -> None:
    """Set a module's attributes by the shapes of its parameters."""
    after = _shapes(module)
    shape = after.get("weight", after.get("running_mean"))
    if shape is None:
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if module.groups > 1:
            module.groups = module.groups * shape[0] // before["weight"][0]
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shape[0]
    elif is_rms_norm(module) and shape != before["weight"]:
        _shrink_rms_norm(module, before["weight"][0], shape[0])
    elif type(module).__name__ == "Conv1D":
        module.nx, module.nf = shape  # type: ignore[assignment]


def _shrink_rms_norm(module: nn.Module, before: int, after: int) -> None:
    """Let a norm over fewer entries compute what it did over more of which the others are zero."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    module.weight = nn.Parameter(weight.detach() * (before / after) ** 0.5, weight.requires_grad)
    for name in ("eps", "variance_epsilon", "epsilon"):
        if hasattr(module, name):
            eps = getattr(module, name)
            setattr(module, name, (torch.finfo(weight.dtype).eps if eps is None else eps) * before / after)
    if isinstance(module, nn.RMSNorm):
        module.normalized_shape = (after,)


def attribute_edits(
    model: nn.Module, slots: Sequence[Slot], counts: tuple[int, int], sizes: tuple[int, int]
) -> Iterator[list[tuple[str, str, int]]]:
    """Yield changes to try of what modules say of their heads: nothing first.

    Args:
        model: the model.
        slots: where heads, or parts of them, were cut.
        counts: the number of heads before and after.
        sizes: their size before and after.
    """
    yield []
    owners = dict.fromkeys(part for slot in slots for part in _ancestors(slot.name))
    changes = []
    products = (counts[0] * sizes[0], counts[1] * sizes[1])
    for names, (before, after) in ((HEAD_COUNTS, counts), (HEAD_SIZES, sizes), (HEADS_TOGETHER, products)):
        changes += [
            (owner, name, after)
            for owner in owners
            for name in names
            if before != after and getattr(model.get_submodule(owner), name, None) == before
        ]
    if changes:
        yield changes


def _ancestors(name: str) -> list[str]:
    """Return the module that holds a parameter, its parent and its grandparent."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: len(parts) - up]) for up in range(min(3, len(parts) + 1))]
