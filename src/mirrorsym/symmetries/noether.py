"""Noether charges: what gradients say about continuous symmetries, taken of each gradient as it arrives.

A one-parameter group of transformations leaves a function unchanged if the gradient has no part along it: Σ w∇ᵀ, over
all places where the units lie and with a minus on the other side, is 0 on the diagonal for a rescaling, has no
antisymmetric part for a rotation, and is 0 for any matrix. A gradient takes as much memory as its parameter: each is
given up before the next one is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mirrorsym.symmetries.symmetry import Slot, State, Symmetry

PROBES = 4
"""So many pairs of random vectors probe the matrix Σ w∇ᵀ."""
AT_ONCE = 100_000
"""So many entries of a parameter are multiplied with their gradients at a time."""


class NoetherCharges:
    """The charges of some symmetries, and the sizes of what cancels in them.

    Args:
        tensors: the parameters by name.
        symmetries: those that will be asked about.
        generator: draws the probes.
    """

    def __init__(self, tensors: State, symmetries: Sequence[Symmetry], generator: torch.Generator) -> None:
        self._tensors = tensors
        self._sums: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._largest: dict[str, float] = {}
        self._axes: dict[str, dict[tuple[int, ...], None]] = defaultdict(dict)
        self._probes: dict[tuple[Slot, ...], _Probes] = {}
        self._planes: dict[tuple[Slot, ...], _Planes] = {}
        self._asking: dict[str, list[tuple[Slot, _Probes | _Planes]]] = defaultdict(list)
        for symmetry in symmetries:
            for slot in symmetry.slots:
                self._axes[slot.name].setdefault(slot.axes)
            asking: _Probes | _Planes
            if symmetry.kind in ("rotation", "general_linear"):
                asking = self._probes[symmetry.slots] = _Probes(symmetry.units, generator)
            elif symmetry.kind in ("rescaling", "complex") and all(slot.repeat % 2 == 0 for slot in symmetry.slots):
                asking = self._planes[symmetry.slots] = _Planes(symmetry.units)
            else:
                continue
            for slot in symmetry.slots:
                self._asking[slot.name].append((slot, asking))

    def take(self, name: str, gradient: Tensor) -> None:
        """Add what the gradient of one parameter says; of one that comes in parts, each part is taken.

        Args:
            name: the parameter's name.
            gradient: of the parameter's shape.
        """
        weight = self._tensors[name]
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        largest = self._largest.get(name, 0.0)
        for axes in self._axes[name] or ((0,),):
            parts = []
            for product in _products(weight, gradient, axes):
                sizes = product.abs()
                largest = max(largest, float(sizes.max()) if sizes.numel() else 0.0)
                parts.append(torch.stack([product.sum(1), sizes.sum(1), product.square_().sum(1)]))
            self._sums[name, axes] = torch.cat(parts, dim=1) + self._sums.get((name, axes), 0)
        self._largest[name] = largest
        for slot, asking in self._asking[name]:
            asking.add(slot, weight, gradient)

    def without_effect(self, below: float) -> list[str]:
        """Return the parameters that have a gradient, of which no entry moves the function by so much."""
        return [name for name, size in self._largest.items() if self._tensors[name].numel() and size < below]

    def diagonal(self, symmetry: Symmetry) -> tuple[Tensor, Tensor]:
        """Return a rescaling's charge of each unit and the size of what cancels in it, shapes (units,)."""
        total = torch.zeros(symmetry.units, dtype=torch.double)
        size = torch.zeros_like(total)
        for slot in symmetry.slots:
            if slot.name in self._largest:
                sums, sizes, _ = self._of(slot, symmetry.units)
                total += slot.power * sums
                size += abs(slot.power) * sizes
        return total, size

    def effects(self, symmetry: Symmetry) -> Tensor:
        """Return how much each unit's weights move the function, shape (units,)."""
        squares = torch.zeros(symmetry.units, dtype=torch.double)
        for slot in symmetry.slots:
            if slot.name in self._largest:
                squares += self._of(slot, symmetry.units)[2]
        return squares.sqrt()

    def mixed(self, symmetry: Symmetry) -> tuple[Tensor, Tensor]:
        """Return probes of the charge of a rotation or of any matrix, and the sizes of what cancels in them."""
        return self._probes[symmetry.slots].charges(symmetry.kind == "rotation")

    def planes(self, symmetry: Symmetry) -> tuple[Tensor, Tensor] | None:
        """Return the complex charge of each unit and its size, shapes (units,); None where the units are no planes."""
        found = self._planes.get(symmetry.slots)
        return (found.total, found.size) if found else None

    def _of(self, slot: Slot, units: int) -> Tensor:
        """Return for each unit Σ w∇, Σ |w∇| and Σ (w∇)² over its entries in one slot, shape (3, units)."""
        return self._sums[slot.name, slot.axes][:, slot.indices(units).reshape(units, slot.repeat)].sum(2)


class _Probes:
    """Random vectors l and r of the units, and lᵀMr, rᵀMl and their sizes for M = Σ ∇wᵀ, apart on both sides."""

    def __init__(self, units: int, generator: torch.Generator) -> None:
        self._vectors = torch.randn(units, 2 * PROBES, generator=generator, dtype=torch.double)
        self._sums = torch.zeros(2, 3, PROBES, dtype=torch.double)

    def add(self, slot: Slot, weight: Tensor, gradient: Tensor) -> None:
        """Add a parameter's part."""
        units = len(self._vectors)
        w, g = torch.zeros(()), torch.zeros(())
        for some, weights, gradients in _blocks(slot, units, weight, gradient):
            w, g = w + weights.T @ self._vectors[some], g + gradients.T @ self._vectors[some]
        (wl, wr), (gl, gr) = w.split(PROBES, dim=1), g.split(PROBES, dim=1)
        sizes = gl.norm(dim=0) * wr.norm(dim=0) + gr.norm(dim=0) * wl.norm(dim=0)
        self._sums[int(slot.inverse)] += torch.stack([(gl * wr).sum(0), (gr * wl).sum(0), sizes])

    def charges(self, antisymmetric: bool) -> tuple[Tensor, Tensor]:
        """Return the charges of all probes and the sizes of what cancels in them, shapes (·, probes) and (probes,)."""
        (straight, crossed, size), (other_straight, other_crossed, other_size) = self._sums
        if antisymmetric:
            return (straight + other_straight - crossed - other_crossed)[None], size + other_size
        # What goes with the inverse transpose has the charge -Mᵀ.
        return torch.stack([straight - other_crossed, crossed - other_straight]), size + other_size


class _Planes:
    """The charges of complex factors: of stretching as the real part, of turning as the imaginary one."""

    def __init__(self, units: int) -> None:
        self.total = torch.zeros(units, dtype=torch.complex128)
        self.size = torch.zeros(units, dtype=torch.double)

    def add(self, slot: Slot, weight: Tensor, gradient: Tensor) -> None:
        """Add a parameter's part."""
        for some, weights, gradients in _blocks(slot, len(self.total), weight, gradient):
            shape = (len(some), slot.repeat // 2, 2, -1)
            (x, y), (p, q) = weights.reshape(shape).unbind(2), gradients.reshape(shape).unbind(2)
            stretch, turn = (x * p + y * q).sum((1, 2)), (x * q - y * p).sum((1, 2))
            self.total[some] += torch.complex(-stretch if slot.inverse else stretch, turn)
            self.size[some] += ((x * p).abs() + (y * q).abs() + (x * q).abs() + (y * p).abs()).sum((1, 2))


def _blocks(slot: Slot, units: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield some units at a time, and what each of them has in some tensors, shapes (some units, entries)."""
    places = slot.indices(units).reshape(units, slot.repeat)
    fronts = [_front(tensor, slot.axes) for tensor in tensors]
    each = slot.repeat * fronts[0].numel() // max(1, len(fronts[0]))
    for some in torch.arange(units).split(max(1, AT_ONCE // max(1, each))):
        rows = places[some].flatten()
        yield some, *(front[rows].reshape(len(some), -1) for front in fronts)


def _products(weight: Tensor, gradient: Tensor, axes: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield a parameter times its gradient, shape (places along the axes, entries), some places at a time."""
    weights, gradients = _front(weight, axes), _front(gradient, axes)
    rows = max(1, AT_ONCE * len(weights) // max(1, weights.numel()))
    for some, others in zip(weights.split(rows), gradients.split(rows), strict=True):
        product = some * others
        yield product.flatten(1) if product.dim() > 1 else product[:, None]


def _front(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return a tensor with some axes in front, flattened."""
    whole = tensor.reshape(tensor.shape or (1,))
    return whole.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
