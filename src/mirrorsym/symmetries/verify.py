"""Whether a transformation is a symmetry: continuous ones by charges of one backward pass, finite ones by the outputs.

A one-parameter group of transformations leaves a function unchanged if the gradient has no part along it: Σ w∇ᵀ, over
all places where the units lie and with a minus on the other side, is 0 on the diagonal for a rescaling, has no
antisymmetric part for a rotation, and is 0 for any matrix. Exchanges and flips change the outputs by no more than
rounding does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.symmetries.draw import draw
from mirrorsym.symmetries.symmetry import Slot, Symmetry, transformed
from mirrorsym.symmetries.twin import LARGEST, Twin

ROUNDINGS = 1000.0
"""The outputs may change by as many times what they change when all parameters move by one rounding."""
WORST_ROUNDING = 1e-9
"""A network whose outputs change by more than this when all parameters move by one rounding tells nothing."""
CANCELLED = 1e-8
"""Charges count as 0 up to this part of the sizes that cancel."""
EPSILON = 1e-2
"""Charges of what is standardized count as 0 up to this part: eps over a variance is far below it."""
ALIVE = 1e-10
"""A unit whose weights move the outputs by less than this part tells nothing."""
DRAWS = 3
"""So often parameters are drawn anew, where they tell nothing."""
FEW = 8
"""Groups of so few units are checked one by one: two that hold together alone would often move alike by chance."""
PATIENCE = 5.0
"""Seconds for checks one by one; where they take longer, random halves of the groups are checked together."""
HALVES = 8
AT_ONCE = 1_000_000
"""So many entries of a parameter are multiplied with their gradients at a time."""


def holds(model: nn.Module, symmetry: Symmetry, *args: Any, **kwargs: Any) -> bool:
    """Return whether a transformation leaves the model's outputs unchanged, at random parameters (Definition 2).

    Args:
        model: any module. It is left as it is.
        symmetry: what to check, for instance one written down by hand.
        *args: what the model's forward takes.
        **kwargs: what it takes by name.

    Raises:
        ValueError: if the model has no such parameters, or cannot be run (see :func:`find_symmetries`).
    """
    twin = Twin(model, args, kwargs)
    own = replace(symmetry, slots=tuple(replace(s, name=twin.name_of(s.name)) for s in symmetry.slots))
    for seed in range(DRAWS):
        check = Check(twin, draw(twin, seed))
        if check.usable and check.alive(own) and check.acts(own):
            return check.continuous(own) and own in check.unchanged([own])
    return False


class Check:
    """The model at one draw of its parameters, with the gradient of a random projection of its outputs.

    Args:
        twin: the model.
        tensors: its parameters and buffers.
        seed: picks the projection and the transformations.
        outputs: its outputs at these, where they are known.
    """

    def __init__(self, twin: Twin, tensors: dict[str, Tensor], seed: int = 0, outputs: Any = None) -> None:
        self._twin = twin
        self._generator = torch.Generator().manual_seed(seed)
        self._seed = seed
        self._sums: dict[tuple[str, tuple[int, ...]], tuple[Tensor, Tensor, Tensor]] = {}
        self._room: dict[str, Tensor] = {}
        self.tensors = tensors
        self._reference = self._outputs(tensors) if outputs is None else twin.values(outputs)
        self._finite = [out.isfinite() & (out.abs() < LARGEST) for out in self._reference]
        with torch.no_grad():
            moved = {
                name: self._rounded(tensor) if name in twin.trained and tensor.is_floating_point() else tensor
                for name, tensor in tensors.items()
            }
            start = time.perf_counter()
            changes = self._changes(self._outputs(moved))
            self._forward_seconds = time.perf_counter() - start
            del moved
        self._floor = [max(change, 4 * torch.finfo(torch.double).eps) for change in changes]
        self.usable = bool(changes) and max(changes) < WORST_ROUNDING
        self.gradients = self._gradients() if self.usable else {}

    def _rounded(self, tensor: Tensor) -> Tensor:
        """Return a parameter moved by one rounding, up or down."""
        result = tensor.clone()
        for axis, size in enumerate(tensor.shape):
            shape = [size if place == axis else 1 for place in range(tensor.dim())]
            signs = torch.randint(0, 2, shape, generator=self._generator).double() * 2 - 1
            result *= 1 + torch.finfo(torch.double).eps * signs
        return result

    @torch.no_grad()
    def _outputs(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        return self._twin.values(self._twin.run(self._twin.with_own_buffers(tensors)))

    def in_training(self, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
        """Return the rescalings whose charges vanish while batch normalizations take the batch's statistics.

        They do up to eps over the variance of what is normalized.
        """
        if not symmetries:
            return []
        self._sums.clear()
        try:
            self.gradients = self._gradients(standardizing=True)
        except ValueError:  # one value per channel has no variance
            return []
        found = []
        for symmetry in symmetries:
            total, size = self._diagonal(symmetry)
            if bool((size > ALIVE).double().mean() >= 0.5) and bool((total.abs() <= EPSILON * size + 1e-300).all()):
                found.append(symmetry)
        return found

    def _gradients(self, standardizing: bool = False) -> dict[str, Tensor]:
        tensors = self._twin.with_own_buffers(self.tensors)
        names = [name for name in self._twin.trained if tensors[name].is_floating_point()]
        for name in names:
            tensors[name] = tensors[name].detach().requires_grad_()

        def found(outputs: Any) -> Sequence[Tensor | None]:
            total = self._projected(self._twin.values(outputs))
            leaves = [tensors[name] for name in names]
            return torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(names)

        gradients = self._twin.run(tensors, standardizing=standardizing, then=found)
        return {
            name: g.to_dense() if g.is_sparse else g for name, g in zip(names, gradients, strict=True) if g is not None
        }

    def _projected(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return a random projection of the outputs, of each relative to its size."""
        total = torch.zeros(())
        for out in outputs:
            finite = out.detach().isfinite() & (out.detach().abs() < LARGEST)
            values = torch.where(finite, out, torch.zeros_like(out))
            weights = torch.randn(out.shape, generator=self._generator, dtype=torch.double)
            size = values.detach().norm()
            if float(size) > 0:
                total = total + (values * weights).sum() / size
        return total

    def _changes(self, outputs: Sequence[Tensor]) -> list[float]:
        """Return the relative change of each output."""
        changes = []
        for out, reference, finite in zip(outputs, self._reference, self._finite, strict=True):
            before, after = reference[finite], out[finite]
            size = float(before.norm())
            difference = float((after - before).norm())
            if size > 0:
                changes.append(difference / size if difference == difference else float("inf"))
        return changes

    def forget(self) -> None:
        """Give up all that takes memory."""
        self.tensors, self.gradients, self._sums = {}, {}, {}

    # Continuous ones

    def continuous(self, symmetry: Symmetry) -> bool:
        """Return whether the charges of a continuous symmetry vanish; True for finite kinds.

        Where it acts on statistics of a batch normalization, which have no gradient, the outputs alone tell.
        """
        if any(slot.buffer for slot in symmetry.slots):
            return True
        if symmetry.kind == "rescaling":
            total, size = self._diagonal(symmetry)
            return bool((total.abs() <= CANCELLED * size + 1e-300).all())
        if symmetry.kind == "complex":
            return self._planes(symmetry)
        if symmetry.kind in ("rotation", "general_linear"):
            return self._mixed(symmetry)
        return True

    def _parts(self, symmetry: Symmetry) -> Iterator[tuple[Slot, Tensor, Tensor]]:
        """Yield the slots with a gradient, the weights and the gradients, shapes (units, entries)."""
        for slot in symmetry.slots:
            if slot.name in self.gradients:
                units = symmetry.units
                yield slot, slot.take(self.tensors[slot.name], units), slot.take(self.gradients[slot.name], units)

    def _diagonal(self, symmetry: Symmetry) -> tuple[Tensor, Tensor]:
        total = torch.zeros(symmetry.units, dtype=torch.double)
        size = torch.zeros(symmetry.units, dtype=torch.double)
        for slot in symmetry.slots:
            if slot.name in self.gradients:
                sums, sizes, _ = self._products(slot, symmetry.units)
                total += slot.power * sums
                size += abs(slot.power) * sizes
        return total, size

    def _products(self, slot: Slot, units: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each unit Σ w∇, Σ |w∇| and Σ (w∇)² over its entries in one slot."""
        key = (slot.name, slot.axes)
        if key not in self._sums:
            parts = [
                (product.sum(1), product.abs().sum(1), product.square().sum(1))
                for product in self._along(slot.name, slot.axes)
            ]
            sums, sizes, squares = (torch.cat(part) for part in zip(*parts, strict=True))
            self._sums[key] = (sums, sizes, squares)
        places = slot.indices(units).reshape(units, slot.repeat)
        sums, sizes, squares = self._sums[key]
        return sums[places].sum(1), sizes[places].sum(1), squares[places].sum(1)

    def _along(self, name: str, axes: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield a parameter times its gradient, shape (places along the axes, entries), some places at a time."""
        first = tuple(range(len(axes)))
        weights, gradients = (
            tensor.reshape(tensor.shape or (1,)).movedim(axes, first).flatten(0, len(axes) - 1)
            for tensor in (self.tensors[name], self.gradients[name])
        )
        rows = max(1, AT_ONCE * len(weights) // max(1, weights.numel()))
        for some, others in zip(weights.split(rows), gradients.split(rows), strict=True):
            product = some * others
            yield product.flatten(1) if product.dim() > 1 else product[:, None]

    def _planes(self, symmetry: Symmetry) -> bool:
        if any(slot.repeat % 2 for slot in symmetry.slots):
            return False
        total = torch.zeros(symmetry.units, dtype=torch.complex128)
        size = torch.zeros(symmetry.units, dtype=torch.double)
        for slot, weights, gradients in self._parts(symmetry):
            x, y = weights.reshape(symmetry.units, slot.repeat // 2, 2, -1).unbind(2)
            p, q = gradients.reshape(symmetry.units, slot.repeat // 2, 2, -1).unbind(2)
            stretch, turn = (x * p + y * q), (x * q - y * p)
            way = -1 if slot.inverse else 1
            total += torch.complex(way * stretch.sum((1, 2)), turn.sum((1, 2)))
            size += ((x * p).abs() + (y * q).abs() + (x * q).abs() + (y * p).abs()).sum((1, 2))
        return bool((total.abs() <= CANCELLED * size + 1e-300).all())

    def _mixed(self, symmetry: Symmetry) -> bool:
        """Probe the matrix M = Σ ∇wᵀ with random vectors, without making it."""
        left, right = torch.randn(2, symmetry.units, 4, generator=self._generator, dtype=torch.double)
        straight = torch.zeros(4, dtype=torch.double)
        crossed, size = torch.zeros_like(straight), torch.zeros_like(straight)
        for slot, weights, gradients in self._parts(symmetry):
            wl, wr, gl, gr = (
                m.T @ v for m, v in ((weights, left), (weights, right), (gradients, left), (gradients, right))
            )
            one, other = (gl * wr).sum(0), (gr * wl).sum(0)  # leftᵀ M right, rightᵀ M left
            sizes = gl.norm(dim=0) * wr.norm(dim=0) + gr.norm(dim=0) * wl.norm(dim=0)
            if symmetry.kind == "general_linear" and slot.inverse:
                one, other = -other, -one
            straight, crossed, size = straight + one, crossed + other, size + sizes
        if symmetry.kind == "rotation":
            return bool(((straight - crossed).abs() <= CANCELLED * size + 1e-300).all())
        return bool((torch.maximum(straight.abs(), crossed.abs()) <= CANCELLED * size + 1e-300).all())

    def alive(self, symmetry: Symmetry) -> bool:
        """Return whether the outputs depend on the weights of at least half of the units enough to tell."""
        slots = [slot for slot in symmetry.slots if slot.name in self.gradients]
        if not slots:
            return False
        squares = torch.zeros(symmetry.units, dtype=torch.double)
        for slot in slots:
            squares += self._products(slot, symmetry.units)[2]
        return bool(((squares.sqrt() > ALIVE).double().mean() >= 0.5).item())

    def acts(self, symmetry: Symmetry) -> bool:
        """Return whether the transformation changes any parameter: two places in one may cancel."""
        names = [slot.name for slot in symmetry.slots]
        if len(set(names)) == len(names):
            return True
        state = {}
        for name in names:
            tensor = self.tensors[name]
            acting = {axis for slot in symmetry.slots if slot.name == name for axis in slot.axes}
            for axis in range(tensor.dim()):
                if axis not in acting:  # what it does is the same all along this one
                    tensor = tensor.narrow(axis, 0, 1)
            state[name] = tensor
        changed = symmetry.transform(state, symmetry.sample(self._seed))
        return any(not torch.allclose(changed[n], state[n], rtol=1e-9) for n in state if n in self._twin.trained)

    def free(self) -> list[str]:
        """Return the parameters that take part, and on which the outputs do not depend."""
        return [
            name
            for name, gradient in self.gradients.items()
            if gradient.numel() and max(float(part.abs_().max()) for part in self._along(name, (0,))) < ALIVE / 100
        ]

    # Finite ones

    def unchanged(self, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
        """Return those of the symmetries whose random elements leave the outputs unchanged.

        It comes last: to save memory, the gradients are given up before the parameters are transformed.
        """
        self.gradients = {}
        names = {slot.name for symmetry in symmetries for slot in symmetry.slots}
        self._room = {name: torch.empty_like(self.tensors[name]) for name in names}
        few = [s for s in symmetries if s.units < FEW]
        kept = self._together([s for s in symmetries if s.units >= FEW])
        if len(few) * 2 * self._forward_seconds <= PATIENCE:
            kept += [s for s in few if self._passes([s])]
        else:
            left = self._together(few)
            for _ in range(HALVES):
                chosen = (torch.rand(len(left), generator=self._generator) < 0.5).tolist()
                half = [s for s, inside in zip(left, chosen, strict=True) if inside]
                rest = [s for s, inside in zip(left, chosen, strict=True) if not inside]
                left = [*self._together(half), *rest]
            kept += left
        self._room = {}
        known = {id(symmetry) for symmetry in kept}
        return [symmetry for symmetry in symmetries if id(symmetry) in known]

    def _together(self, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
        if not symmetries or self._passes(symmetries):
            return list(symmetries)
        if len(symmetries) == 1:
            return []
        middle = len(symmetries) // 2
        return self._together(symmetries[:middle]) + self._together(symmetries[middle:])

    @torch.no_grad()
    def _passes(self, symmetries: Sequence[Symmetry]) -> bool:
        """Return whether the outputs stay, for two elements of each group: of permutations a cycle and an exchange."""
        for turn in range(2):
            elements = [(s, self._element(s, turn, number)) for number, s in enumerate(symmetries)]
            state = transformed(self.tensors, elements, self._room)
            changes = self._changes(self._outputs(state))
            if any(not change <= ROUNDINGS * floor for change, floor in zip(changes, self._floor, strict=True)):
                return False
        return True

    def _element(self, symmetry: Symmetry, turn: int, number: int) -> Tensor:
        if turn == 0 and symmetry.kind not in ("rotation", "general_linear"):
            return symmetry.sample(1000 * self._seed + number)
        a, b = (torch.randperm(symmetry.units, generator=self._generator)[:2].tolist() * 2)[:2]
        if symmetry.kind == "permutation":
            order = torch.arange(symmetry.units)
            order[a], order[b] = b, a
            return order
        if symmetry.kind in ("sign_flip", "rotation", "general_linear"):
            signs = torch.ones(symmetry.units, dtype=torch.double)
            signs[a] = -1
            return signs
        return symmetry.sample(1000 * self._seed + number + 500)
