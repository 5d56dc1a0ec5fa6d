"""Whether a symmetry that was found truly holds: an independent check, which shares nothing with how they are found.

Group elements of its own are applied to networks with living parameters, and outputs compared in double precision. What
holds must also be more than nothing: where a random half of the same transformation moves no output, the parameters do
not matter, and that they may be transformed says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.zoo.living import Living, State
from mirrorsym import Symmetry
from mirrorsym.symmetries.acting import transformed

HELD = 1e-9
"""Relative change of the outputs up to which a transformation changes nothing, above rounding that is larger."""
MOVED = 1e-7
"""Relative change of the outputs from which on half of a transformation moves something."""


@dataclass(frozen=True)
class Wrong:
    """A symmetry that does not hold, or holds of parameters that do not matter.

    Args:
        symmetry: the symmetry.
        why: in words.
        change: relative change of the outputs.
    """

    symmetry: Symmetry
    why: str
    change: float

    def __str__(self) -> str:
        return (
            f"{self.symmetry.kind} of {self.symmetry.name} ({self.symmetry.units} units): {self.why}, {self.change:.1e}"
        )


def check(found: Sequence[Symmetry], living: Living, singly: int = 10**9, seed: int = 0) -> list[Wrong]:
    """Return what is wrong with symmetries.

    Args:
        found: the symmetries.
        living: the network at living parameters.
        singly: of so many, drawn at random, it is also asked whether a half of them moves the outputs.
        seed: picks the elements.
    """
    rng = torch.Generator().manual_seed(seed)
    wrong = list({(one.symmetry, one.why): one for one in _violated(found, living, rng)}.values())
    chosen = torch.randperm(len(found), generator=rng)[:singly].tolist()
    for symmetry in (found[index] for index in sorted(chosen)):
        moved = max(_half(symmetry, living, rng) for _ in range(2))
        if moved < MOVED:
            moved = max(_half(symmetry, living, rng) for _ in range(8))
        if moved < MOVED:
            wrong.append(Wrong(symmetry, "half of it moves nothing", moved))
    return wrong


def _violated(found: Sequence[Symmetry], living: Living, rng: torch.Generator) -> Iterator[Wrong]:
    """Yield what does not hold. All are tried one after the other on one state; where that moves, halves of them."""
    for turn in range(2):
        elements = [list(ELEMENTS[s.kind](s.units, rng))[turn] for s in found]
        yield from _search(found, elements, living)


def _search(found: Sequence[Symmetry], elements: Sequence[Tensor], living: Living) -> Iterator[Wrong]:
    state: State = living.state
    for symmetry, element in zip(found, elements, strict=True):
        state = transformed(state, [(symmetry, element)])  # as symmetry.transform, without a copy of the rest
    change = living.change(state)
    if change <= max(HELD, 1e4 * living.floor):
        return
    if len(found) == 1:
        yield Wrong(found[0], "changes the outputs", change)
    else:
        middle = len(found) // 2
        yield from _search(found[:middle], elements[:middle], living)
        yield from _search(found[middle:], elements[middle:], living)


def _half(symmetry: Symmetry, living: Living, rng: torch.Generator) -> float:
    element = next(ELEMENTS[symmetry.kind](symmetry.units, rng))
    half = dict(living.state)
    for name, after in transformed(living.state, [(symmetry, element)]).items():
        before = living.state[name]
        if after is not before:
            half[name] = torch.where(torch.rand(before.shape, generator=rng) < 0.5, after, before)
    return living.change(half)


# --- two elements of each group: for exchanges and flips all units at once and one alone ---


def _permutations(units: int, rng: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(units, generator=rng)
    cycle = torch.empty_like(order)
    cycle[order] = order.roll(1)
    yield cycle
    exchange = torch.arange(units)
    exchange[order[:2]] = order[:2].flip(0)
    yield exchange


def _signs(units: int, rng: torch.Generator) -> Iterator[Tensor]:
    signs = torch.randint(0, 2, (units,), generator=rng).double() * 2 - 1
    signs[0] = -1
    yield signs
    single = torch.ones(units, dtype=torch.double)
    single[torch.randint(units, (1,), generator=rng)] = -1
    yield single


def _factors(units: int, rng: torch.Generator) -> Iterator[Tensor]:
    yield (2 * torch.rand(units, generator=rng, dtype=torch.double) - 1).exp() * 1.3
    single = torch.ones(units, dtype=torch.double)
    single[torch.randint(units, (1,), generator=rng)] = 50
    yield single


def _orthogonal(units: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield a reflection and a rotation."""
    matrix, _ = torch.linalg.qr(torch.randn(units, units, generator=rng, dtype=torch.double))
    if torch.linalg.det(matrix) > 0:
        matrix[0] *= -1
    yield matrix
    rotation = matrix.clone()
    rotation[0] *= -1
    yield rotation


def _invertible(units: int, rng: torch.Generator) -> Iterator[Tensor]:
    for orthogonal in _orthogonal(units, rng):
        stretch = 0.5 + 1.5 * torch.rand(units, generator=rng, dtype=torch.double)
        other, _ = torch.linalg.qr(torch.randn(units, units, generator=rng, dtype=torch.double))
        yield orthogonal @ (stretch[:, None] * other)


def _complex(units: int, rng: torch.Generator) -> Iterator[Tensor]:
    for _ in range(2):
        angle = 6.3 * torch.rand(units, generator=rng, dtype=torch.double)
        yield torch.polar(0.5 + 1.5 * torch.rand(units, generator=rng, dtype=torch.double), angle)


ELEMENTS: dict[str, Callable[[int, torch.Generator], Iterator[Tensor]]] = {
    "permutation": _permutations,
    "sign_flip": _signs,
    "rescaling": _factors,
    "rotation": _orthogonal,
    "general_linear": _invertible,
    "complex": _complex,
}
