"""Whether a transformation of parameters, written down by hand or by others, is among the symmetries that were found.

Exchanges and flips are taken apart: as long as an entry is not where it should be, some symmetry that was found has to
bring more entries to their places. A continuous one has to have its tangent in the span of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mirrorsym import Symmetry
from mirrorsym.symmetries.acting import transformed

State = Mapping[str, Tensor]
EXCHANGING = ("permutation", "rotation", "general_linear")
FLIPPING = ("sign_flip", "rotation", "general_linear")
STEP = 1e-4


def distinct(state: State) -> dict[str, Tensor]:
    """Return a state in which entries are told by their values: different ones in each tensor, in double precision."""
    rng = torch.Generator().manual_seed(0)
    return {name: torch.rand(t.shape, generator=rng, dtype=torch.double) + 0.5 for name, t in state.items()}


def reached(found: Sequence[Symmetry], state: State, target: State) -> bool:
    """Return whether exchanges and flips of units that were found, one after the other, lead from a state to another.

    Args:
        found: the symmetries.
        state: entries that are told by their values, as of :func:`distinct`.
        target: the same, after the transformation.
    """
    left = _misplaced(state, target)
    while left:
        steps = (step for step in _steps(found, state, target, min(left, key=lambda name: left[name])) if step)
        for step in steps:
            after = _misplaced(step, target)
            if sum(after.values()) < sum(left.values()):
                state, left = step, after
                break
        else:
            return False
    return True


def spanned(found: Sequence[Symmetry], state: State, path: Callable[[float], State]) -> bool:
    """Return whether the tangent of a path of states is a sum of tangents of symmetries that were found.

    Args:
        found: the symmetries.
        state: parameters and buffers, where the path is at 0.
        path: the states, by a number.
    """
    wanted = _sparse(_tangent(path))
    columns = [
        column
        for symmetry in found
        if any(
            slot.name in wanted and bool(slot.take(wanted[slot.name], symmetry.units).any()) for slot in symmetry.slots
        )
        for column in map(_sparse, map(_tangent, _paths(symmetry, state)))
        if any(name in wanted and bool((column[name] * wanted[name]).any()) for name in column)
    ]
    if not columns:
        return False
    names = sorted(set(wanted).union(*columns))

    def vector(tangent: State) -> Tensor:
        zeros = torch.zeros(1, dtype=torch.double)
        return torch.cat([tangent.get(name, zeros.expand_as(state[name])).reshape(-1) for name in names])

    basis, right = torch.stack([vector(column) for column in columns], dim=1), vector(wanted)
    solution = torch.linalg.lstsq(basis.T @ basis, basis.T @ right[:, None], driver="gelsd").solution[:, 0]
    return bool((basis @ solution - right).norm() < 1e-5 * right.norm())


def _sparse(tangent: State) -> State:
    """Return the tensors that change."""
    found = {name: torch.where(t.abs() > 1e-7, t, 0.0) for name, t in tangent.items()}
    return {name: t for name, t in found.items() if bool(t.any())}


def _misplaced(state: State, target: State) -> dict[str, int]:
    """Return how many entries of each tensor are not where they should be."""
    wrong = {name: int(((state[name] - target[name]).abs() > 1e-9).sum()) for name in target}
    return {name: count for name, count in wrong.items() if count}


def _steps(found: Sequence[Symmetry], state: State, target: State, name: str) -> Iterator[State]:
    """Yield states in which the first misplaced entry of a tensor has come to its place."""
    now, then = state[name].reshape(-1), target[name].reshape(-1)
    place = int(((now - then).abs() > 1e-9).nonzero()[0, 0])
    came_from = ((now.abs() - then[place].abs()).abs() < 1e-9).nonzero()[:, 0]
    if len(came_from) != 1:
        return
    places = (place, int(came_from[0]))
    for symmetry in found:
        for first, second in _units(symmetry, name, state[name], places):
            if first == second and symmetry.kind in FLIPPING:
                signs = torch.ones(symmetry.units, dtype=torch.double)
                signs[first] = -1
                element = signs if symmetry.kind == "sign_flip" else torch.diag(signs)
                yield transformed(state, [(symmetry, element)])
            elif first != second and symmetry.kind in EXCHANGING:
                order = torch.arange(symmetry.units)
                order[[first, second]] = order[[second, first]]
                element = order if symmetry.kind == "permutation" else torch.eye(symmetry.units).double()[order]
                yield transformed(state, [(symmetry, element)])


def _units(symmetry: Symmetry, name: str, tensor: Tensor, places: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the units in which two entries of a tensor lie."""
    numbers = torch.arange(tensor.numel()).reshape(tensor.shape)
    for slot in symmetry.slots:
        if slot.name == name:
            rows = slot.take(numbers, symmetry.units)
            units = [(rows == place).nonzero()[:, 0].tolist() for place in places]
            if all(units):
                yield units[0][0], units[1][0]


def _tangent(path: Callable[[float], State]) -> dict[str, Tensor]:
    after, before = path(STEP), path(-STEP)
    changed = [name for name in after if after[name] is not before[name]]
    return {name: (after[name] - before[name]) / (2 * STEP) for name in changed}


def _paths(symmetry: Symmetry, state: State) -> Iterator[Callable[[float], State]]:
    """Yield a path of states through each direction of the symmetry's group."""
    units, one = symmetry.units, torch.eye(symmetry.units, dtype=torch.double)
    directions: list[Tensor] = []
    if symmetry.kind == "rescaling":
        directions = list(one)
    elif symmetry.kind == "complex":
        directions = [*one.to(torch.cdouble), *(1j * one)]
    elif symmetry.kind == "general_linear":
        directions = [torch.outer(one[a], one[b]) for a in range(units) for b in range(units)]
    elif symmetry.kind == "rotation":
        planes = [torch.outer(one[a], one[b]) for a in range(units) for b in range(a)]
        directions = [plane - plane.T for plane in planes]
    start = torch.ones(units, dtype=torch.double) if symmetry.kind in ("rescaling", "complex") else one
    for direction in directions:
        yield lambda amount, direction=direction: transformed(state, [(symmetry, start + amount * direction)])
