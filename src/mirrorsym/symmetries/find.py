"""Symmetries of any network, found from one forward pass and confirmed numerically.

One forward pass is followed operation by operation (:mod:`mirrorsym.symmetries.follow`); what the operations tie gives
candidates, and each of them is confirmed at random parameters (:mod:`mirrorsym.symmetries.verify`). No candidate is
listed that was not confirmed. What stays out of reach, by operation, is reported in ``unfollowed`` when it is met:

- ``sort``, ``topk``, ``cumsum``, ``cumprod``, ``argmax`` and ``prod`` along units, and with them exchanges of experts
  behind a router;
- complex values (``view_as_complex``, ``fft``), ``scatter``, ``scatter_add``, ``as_strided``, writing along units;
- pooling, resampling and convolving along an axis on which units lie, transposed convolutions in groups, grouped
  convolutions of an input;
- buffers that are read and not written anew, at whose values units keep their places;
- any function of several values that is no sum, product, quotient, extremum, choice or contraction.

Not looked for: exchanges of units of one expert alone, where all experts lie in one tensor; mixtures of rotary planes
of equal frequency; sums of several terms that are summed over units together, whose terms may be exchanged apart; flips
of more than fifty channels at once through layer norms; and symmetries that only the loss has, such as a rotation
of the outputs. :func:`holds` checks a symmetry that was written down by hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mirrorsym.symmetries.candidates import Axis, Candidates
from mirrorsym.symmetries.draw import draw
from mirrorsym.symmetries.elements import KINDS, Kind
from mirrorsym.symmetries.factors import axes_of
from mirrorsym.symmetries.follow import Follower, Unfollowed
from mirrorsym.symmetries.result import Symmetries
from mirrorsym.symmetries.symmetry import Symmetry
from mirrorsym.symmetries.twin import Twin
from mirrorsym.symmetries.verify import DRAWS, Check


@torch.inference_mode(False)
@torch.enable_grad()
def find_symmetries(model: nn.Module, *args: Any, **kwargs: Any) -> Symmetries:
    """Find symmetries of a model's outputs (Definition 2 and Section 3), each confirmed numerically.

    What it returns are symmetries of the model in evaluation mode, whatever loss is made from the outputs and with L2
    decay on all parameters. It does not claim to find all: what it did not understand is in ``unfollowed``.

    Args:
        model: any module. It is left as it is, and runs on the CPU.
        *args: what its forward takes, a small batch of two or more samples.
        **kwargs: what its forward takes by name, such as ``**batch``.

    Returns:
        The symmetries, in the order in which the network uses their parameters, and what was not understood.

    Raises:
        ValueError: if the model is lazy, traced, scripted, complex or on the meta device, or returns no floating-point
            numbers.
    """
    start = time.perf_counter()
    twin = Twin(model, args, kwargs)
    tensors, statistics = draw(twin, 0)
    follower = Follower(twin.model, tensors, [*twin.trained, *statistics])
    with torch.no_grad():
        before = twin.with_own_buffers(tensors)
        outputs = twin.run(tensors, follower)
    tensors = before
    twin.values(outputs)
    follower.end(outputs)
    axes = [
        Axis(name, along, atoms, name not in twin.trained)
        for name in follower.used
        for along, atoms in axes_of(follower.parameters.get(name, []))
    ]
    finder = _Finder(Candidates(follower.atoms, axes))
    used, unfollowed = follower.used, list(follower.unfollowed)
    del follower, axes  # their atoms take memory, as do two of each of what follows
    check = Check(twin, tensors, 0, outputs)
    del tensors, before, outputs
    for seed in range(DRAWS):
        if seed > 0:
            check.forget()
            check = Check(twin, draw(twin, seed)[0], seed)
        if check.usable:
            finder.decide(check)
            if not finder.open:
                break
    in_training = check.in_training(finder.in_training) if check.usable else []
    if finder.waits:
        unfollowed.append(Unfollowed("", "outputs", "rounding changes them too much to tell a symmetry from none"))
    order = {name: index for index, name in enumerate(used)}
    found = sorted(finder.found, key=lambda s: (order[s.slots[0].name], KINDS.index(s.kind)))
    return Symmetries(
        found,
        unfollowed=tuple(unfollowed),
        unused_parameters=tuple(name for name in twin.trained if name not in used),
        free_parameters=tuple(finder.free),
        in_training=tuple(in_training),
        refuted=(*finder.refuted, *finder.open),
        seconds=time.perf_counter() - start,
    )


class _Finder:
    """Decides which candidates hold; those that one draw of parameters tells nothing about wait for another."""

    def __init__(self, candidates: Candidates) -> None:
        self.found: list[Symmetry] = []
        self.refuted: list[Symmetry] = []
        self.free: list[str] = []
        rescalings = candidates.diagonal("rescaling")
        mixed = [replace(symmetry, kind=kind) for kind, symmetry in candidates.mixed()]
        self.open = [*mixed, *rescalings, *candidates.diagonal("sign_flip")]
        self.in_training = candidates.in_training(rescalings)
        self.waits = True

    def decide(self, check: Check) -> None:
        """Sort the candidates by what one draw of the parameters says."""
        waiting = [s for s in self.open if check.acts(s)] if self.waits else self.open
        check.charge(waiting)
        if self.waits:
            self.waits = False
            self.free = check.free()
        alive = [s for s in waiting if check.alive(s)]
        self.open = _without(waiting, alive)
        linear = self._strongest(check, [s for s in alive if s.kind in ("rotation", "general_linear")])
        taken = {_places(s) for s in linear}
        permutations = [s for s in alive if s.kind == "permutation"]
        permutations += [
            replace(s, kind="permutation")
            for s in alive
            if s.kind in ("rotation", "general_linear") and _places(s) not in taken
        ]
        rotated = _covered(s for s in [*self.found, *linear] if s.kind == "general_linear")
        turned = _covered(s for s in [*self.found, *linear] if s.kind in ("rotation", "general_linear"))
        rescalings = [s for s in alive if s.kind == "rescaling" and not _inside(s, rotated)]
        rescalings = [self._plane(check, s) for s in rescalings]
        kept = [s for s in rescalings if check.continuous(s)]
        self.refuted += _without(rescalings, kept)
        planes = _covered(s for s in [*self.found, *kept] if s.kind == "complex")
        flips = [s for s in alive if s.kind == "sign_flip" and not _inside(s, turned) and not _inside(s, planes)]
        rest = [*linear, *permutations, *kept, *flips]
        confirmed = check.unchanged(rest)
        self.refuted += _without(rest, confirmed)
        self.found += confirmed

    def _strongest(self, check: Check, candidates: Sequence[Symmetry]) -> list[Symmetry]:
        found = []
        for symmetry in candidates:
            kinds: tuple[Kind, ...] = ("general_linear", "rotation")
            for kind in kinds if symmetry.kind == "general_linear" else kinds[1:]:
                if check.continuous(replace(symmetry, kind=kind)):
                    found.append(replace(symmetry, kind=kind))
                    break
        return found

    def _plane(self, check: Check, symmetry: Symmetry) -> Symmetry:
        plane = replace(symmetry, kind="complex")
        paired = all(slot.repeat % 2 == 0 for slot in symmetry.slots)
        return plane if paired and check.continuous(plane) else symmetry


def _without(symmetries: Sequence[Symmetry], others: Sequence[Symmetry]) -> list[Symmetry]:
    """Return those that are none of the others, themselves and not by what they hold, which may be long."""
    known = {id(symmetry) for symmetry in others}
    return [symmetry for symmetry in symmetries if id(symmetry) not in known]


def _places(symmetry: Symmetry) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset((s.name, tuple(s.indices(symmetry.units).tolist())) for s in symmetry.slots)


def _covered(symmetries: Iterable[Symmetry]) -> dict[tuple[str, tuple[int, ...]], set[int]]:
    covered: dict[tuple[str, tuple[int, ...]], set[int]] = {}
    for symmetry in symmetries:
        for slot in symmetry.slots:
            covered.setdefault((slot.name, slot.axes), set()).update(slot.indices(symmetry.units).tolist())
    return covered


def _inside(symmetry: Symmetry, covered: dict[tuple[str, tuple[int, ...]], set[int]]) -> bool:
    return bool(covered) and all(
        set(slot.indices(symmetry.units).tolist()) <= covered.get((slot.name, slot.axes), set())
        for slot in symmetry.slots
        if not slot.buffer
    )
