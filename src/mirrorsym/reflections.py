"""One mirror of a symmetry as a map of the parameters: what lies off it, and which unit lies nearest to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mirrorsym.symmetries import Slot, Symmetry
from mirrorsym.symmetries.names import lookup, plain
from mirrorsym.units import distances

LINEAR = ("rotation", "general_linear")
DEAD = 1e-6
"""A unit of less than this share of the largest one's norm has no copy: it is zero."""
Place = tuple[str, int, int]
"""A parameter's plain name, an axis of it, and an index along that axis."""


@dataclass(frozen=True, eq=False)
class Reflection:
    """The mirror of a symmetry along a direction of its units (Definition 2).

    Of a rescaling, which has none, it is the unit at zero: gradients do not leave it, since invariance under every
    factor a demands g = a g there.

    Args:
        symmetry: the symmetry.
        normal: n of unit length, shape (units,).
    """

    symmetry: Symmetry
    normal: Tensor

    @cached_property
    def units(self) -> tuple[int, ...]:
        """The units that it moves: two that it exchanges, one that it flips; along a direction all."""
        if self.symmetry.kind in LINEAR:
            return tuple(range(self.symmetry.units))
        return tuple(int(i) for i in self.normal.nonzero()[:, 0])

    @cached_property
    def names(self) -> frozenset[str]:
        """The parameters that it moves."""
        return frozenset(name for name, slots in self._slots.items() if not slots[0][0].buffer)

    def places(self) -> set[Place]:
        """Return what it moves: mirrors that share no place commute, so the Hessian has no block between them."""
        return {
            (name, axis, index)
            for name, slots in self._slots.items()
            for slot, moved in slots
            for axis in slot.axes
            for index in (moved.flatten().tolist() if len(slot.axes) == 1 else [-1])
        }

    @cached_property
    def _slots(self) -> dict[str, list[tuple[Slot, Tensor]]]:
        """Where it acts by parameter, with the places of the units that it moves, shape (units, repeat).

        An even power of a flip stays as it is.
        """
        found: dict[str, list[tuple[Slot, Tensor]]] = {}
        for slot in self.symmetry.slots:
            if self.symmetry.kind != "sign_flip" or slot.degree % 2:
                places = slot.indices(self.symmetry.units).reshape(self.symmetry.units, -1)
                found.setdefault(plain(slot.name), []).append((slot, places[list(self.units)]))
        return found

    def odd(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return O Oᵀ of the tensors that it moves: the part that changes its sign.

        Args:
            tensors: by name, such as parameters, a gradient or a tangent; of those that are missing nothing is said.
        """
        return {name: (tensor - image) / 2 for name, tensor, image in self._images(tensors)}

    def even(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors that it moves, put on the mirror: copies become the same bits, a unit becomes zero."""
        return {name: (tensor + image) / 2 for name, tensor, image in self._images(tensors)}

    def _images(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, slots in self._slots.items():
            if name in tensors:
                image = tensors[name]
                for slot, moved in slots:
                    image = self._reflected(slot, moved.to(image.device), image)
                yield name, tensors[name], image

    def _reflected(self, slot: Slot, moved: Tensor, tensor: Tensor) -> Tensor:
        if self.symmetry.kind in LINEAR or len(slot.axes) > 1:
            block, normal = slot.take(tensor, self.symmetry.units), self.normal.to(tensor)
            return slot.put(tensor, block - 2 * torch.outer(normal, normal @ block))
        rows = tensor.index_select(slot.axes[0], moved.flatten())
        if len(moved) == 2:
            return tensor.index_copy(slot.axes[0], moved.flip(0).flatten(), rows)
        return tensor.index_copy(slot.axes[0], moved.flatten(), -rows)


def nearest(
    symmetry: Symmetry, tensors: Mapping[str, Tensor], taken: Collection[Place] = ()
) -> tuple[Reflection, float] | None:
    """Return the mirror of a symmetry that the parameters lie nearest to, and how near, relative to its units.

    That is the pair of living units with the smallest difference, the smallest unit or plane, or the direction of the
    smallest singular value (Theorems 2 to 4).

    Args:
        symmetry: the symmetry.
        tensors: parameters by name.
        taken: places that other mirrors move, where this one may not.

    Returns:
        None where no mirror is free of the places taken.
    """
    matrix = symmetry.matrix(tensors).detach().double()
    free = torch.tensor([_is_free(symmetry, unit, taken) for unit in range(symmetry.units)])
    sizes = matrix.norm(dim=1).cpu()
    if symmetry.kind in LINEAR:
        if not bool(free.all()):
            return None
        return along_smallest(symmetry, tensors)
    if symmetry.kind == "permutation":
        rows = (free & (sizes > DEAD * sizes.max())).nonzero()[:, 0]
        if len(rows) < 2:
            return None
        apart = torch.from_numpy(distances(matrix[rows.to(matrix.device)])).fill_diagonal_(float("inf"))
        pair = divmod(int(apart.argmin()), len(rows))
        normal = torch.zeros(symmetry.units, dtype=torch.double)
        normal[rows[pair[0]]], normal[rows[pair[1]]] = 0.5**0.5, -(0.5**0.5)
        return Reflection(symmetry, normal), float(apart.min())
    if not bool(free.any()):
        return None
    unit = int(torch.where(free, sizes, float("inf")).argmin())
    normal = torch.nn.functional.one_hot(torch.tensor(unit), symmetry.units).double()
    return Reflection(symmetry, normal), float(sizes[unit] / sizes.max().clamp_min(1e-300))


def along_smallest(symmetry: Symmetry, tensors: Mapping[str, Tensor], place: int = 0) -> tuple[Reflection, float]:
    """Return the mirror along the smallest singular value of a rotation's units, and the value over the largest.

    Args:
        symmetry: a rotation, or a general linear symmetry.
        tensors: parameters by name.
        place: 1 for the next larger one.
    """
    left, values, _ = torch.linalg.svd(symmetry.matrix(tensors).detach().double().cpu())
    padded = torch.cat([values, values.new_zeros(symmetry.units - len(values))])
    return Reflection(symmetry, left[:, -1 - place]), float(padded[-1 - place] / padded[0].clamp_min(1e-300))


def _is_free(symmetry: Symmetry, unit: int, taken: Collection[Place]) -> bool:
    if not taken:
        return True
    normal = torch.nn.functional.one_hot(torch.tensor(unit), symmetry.units).double()
    return Reflection(symmetry, normal).places().isdisjoint(taken)


def fixed(symmetry: Symmetry, tensors: Mapping[str, Tensor]) -> str:
    """Return why a symmetry has no place that gradients cannot leave, nothing if it has one.

    Args:
        symmetry: the symmetry.
        tensors: the parameters that are trained, by name.
    """
    trained = [slot for slot in symmetry.slots if not slot.buffer]
    try:
        [lookup(tensors, slot.name) for slot in trained]
    except KeyError:
        return "some of its parameters are not trained"
    if symmetry.kind == "rescaling":
        if len(trained) < len(symmetry.slots):
            return "it scales running statistics, and has no unit at zero"
        if {slot.power > 0 for slot in trained} != {True, False}:
            return "its units have no incoming or no outgoing weights"
    if symmetry.kind == "permutation" and symmetry.units < 2:
        return "it has one unit"
    return ""
