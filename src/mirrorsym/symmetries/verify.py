"""Whether a transformation is a symmetry: continuous ones by charges of one backward pass, finite ones by the outputs.

What the charges are is in :mod:`mirrorsym.symmetries.noether`. Exchanges and flips change the outputs by no more than
rounding does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.symmetries.acting import Action, transformed
from mirrorsym.symmetries.draw import draw
from mirrorsym.symmetries.noether import NoetherCharges
from mirrorsym.symmetries.symmetry import Symmetry
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
        check = Check(twin, draw(twin, seed)[0])
        if check.usable and check.acts(own):
            check.charge([own])
            if check.alive(own):
                return check.continuous(own) and own in check.unchanged([own])
    return False


class Check:
    """The model at one draw of its parameters, with the charges of a random projection of its outputs.

    Args:
        twin: the model.
        tensors: its parameters and buffers, which it may change: to save memory they are transformed in place.
        seed: picks the projection and the transformations.
        outputs: its outputs at these, where they are known.
    """

    def __init__(self, twin: Twin, tensors: dict[str, Tensor], seed: int = 0, outputs: Any = None) -> None:
        self._twin = twin
        self._generator = torch.Generator().manual_seed(seed)
        self._seed = seed
        self.tensors = tensors
        self._charges = NoetherCharges({}, [], self._generator)
        before = self._outputs() if outputs is None else self._apart(twin.values(outputs))
        for name in twin.trained:
            if tensors[name].is_floating_point():
                self._move_by_a_rounding(tensors[name])
        start = time.perf_counter()
        self._reference = self._outputs()
        self._forward_seconds = time.perf_counter() - start
        self._finite = [out.isfinite() & (out.abs() < LARGEST) for out in self._reference]
        changes = self._changes(before)
        self._floor = [max(change, 4 * torch.finfo(torch.double).eps) for change in changes]
        self.usable = bool(changes) and max(changes) < WORST_ROUNDING

    def _move_by_a_rounding(self, tensor: Tensor) -> None:
        """Move a parameter by one rounding, up or down, along each of its axes."""
        for axis, size in enumerate(tensor.shape):
            shape = [size if place == axis else 1 for place in range(tensor.dim())]
            signs = torch.randint(0, 2, shape, generator=self._generator).double() * 2 - 1
            tensor *= 1 + torch.finfo(torch.double).eps * signs

    @torch.no_grad()
    def _outputs(self) -> list[Tensor]:
        return self._apart(self._twin.values(self._twin.run(self._twin.with_own_buffers(self.tensors))))

    def _apart(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return outputs, copies of those that are parameters themselves, which change their values."""
        own = {tensor.untyped_storage().data_ptr() for tensor in self.tensors.values()}
        return [out.clone() if out.untyped_storage().data_ptr() in own else out for out in outputs]

    def in_training(self, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
        """Return the rescalings whose charges vanish while batch normalizations take the batch's statistics.

        They do up to eps over the variance of what is normalized.
        """
        if not symmetries:
            return []
        try:
            self.charge(symmetries, standardizing=True)
        except ValueError:  # one value per channel has no variance
            return []
        found = []
        for symmetry in symmetries:
            total, size = self._charges.diagonal(symmetry)
            if bool((size > ALIVE).double().mean() >= 0.5) and _cancels(total, size, EPSILON):
                found.append(symmetry)
        return found

    def charge(self, symmetries: Sequence[Symmetry], standardizing: bool = False) -> None:
        """Take the charges of symmetries, by one backward pass.

        Args:
            symmetries: those that will be asked about.
            standardizing: True to let batch normalizations take the batch's statistics, as in training.
        """
        charges = self._charges = NoetherCharges(self.tensors, symmetries, self._generator)
        tensors = self._twin.with_own_buffers(self.tensors)
        leaves = []

        def arrived(leaf: Tensor, name: str) -> None:
            if leaf.grad is not None:
                gradient, leaf.grad = leaf.grad, None
                charges.take(name, gradient)

        for name in self._twin.trained:
            if tensors[name].is_floating_point():
                tensors[name] = leaf = tensors[name].detach().requires_grad_()
                leaf.register_post_accumulate_grad_hook(partial(arrived, name=name))
                leaves.append(leaf)

        def go_back(outputs: Any) -> None:
            total = self._projected(self._twin.values(outputs))
            if total.requires_grad:
                total.backward(inputs=leaves)

        self._twin.run(tensors, standardizing=standardizing, then=go_back)

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
        self.tensors, self._charges = {}, NoetherCharges({}, [], self._generator)

    # What the charges say

    def continuous(self, symmetry: Symmetry) -> bool:
        """Return whether the charges of a continuous symmetry vanish; True for finite kinds.

        Where it acts on statistics of a batch normalization, which have no gradient, the outputs alone tell.
        """
        if any(slot.buffer for slot in symmetry.slots):
            return True
        if symmetry.kind == "rescaling":
            return _cancels(*self._charges.diagonal(symmetry))
        if symmetry.kind == "complex":
            planes = self._charges.planes(symmetry)
            return planes is not None and _cancels(*planes)
        if symmetry.kind in ("rotation", "general_linear"):
            return _cancels(*self._charges.mixed(symmetry))
        return True

    def alive(self, symmetry: Symmetry) -> bool:
        """Return whether the outputs depend on the weights of at least half of the units enough to tell."""
        return bool((self._charges.effects(symmetry) > ALIVE).double().mean() >= 0.5)

    def free(self) -> list[str]:
        """Return the parameters that take part, and on which the outputs do not depend."""
        return self._charges.without_effect(ALIVE / 100)

    # Finite ones

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
        changed = transformed(state, [(symmetry, symmetry.sample(self._seed))])
        return any(not torch.allclose(changed[n], state[n], rtol=1e-9) for n in state if n in self._twin.trained)

    def unchanged(self, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
        """Return those of the symmetries whose random elements leave the outputs unchanged."""
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
        known = {id(symmetry) for symmetry in kept}
        return [symmetry for symmetry in symmetries if id(symmetry) in known]

    def _together(self, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
        if not symmetries or self._passes(symmetries):
            return list(symmetries)
        if len(symmetries) == 1:
            return []
        middle = len(symmetries) // 2
        return self._together(symmetries[:middle]) + self._together(symmetries[middle:])

    def _passes(self, symmetries: Sequence[Symmetry]) -> bool:
        """Return whether the outputs stay, for two elements of each group: of permutations a cycle and an exchange."""
        for turn in range(2):
            action = Action(self.tensors, [(s, self._element(s, turn, number)) for number, s in enumerate(symmetries)])
            action.apply(self.tensors)
            changes = self._changes(self._outputs())
            action.undo(self.tensors)
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


def _cancels(charge: Tensor, size: Tensor, part: float = CANCELLED) -> bool:
    """Return whether charges are 0 but for a part of the sizes of what cancels in them."""
    return bool((charge.abs() <= part * size + 1e-300).all())
