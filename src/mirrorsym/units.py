"""Compare the units of a layer: what is left of them where those count as one that a symmetry maps onto each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirrorsym.symmetries import Slot, State, Symmetry
from mirrorsym.symmetries.names import lookup, plain

EXACT_PAIRS = 32
"""So many of the nearest pairs are compared entry by entry: a Gram matrix does not tell distances below 1e-8 from 0."""


@dataclass(frozen=True, eq=False)
class Units:
    """Units that can change places, with the rescalings and sign flips of the same units (Theorems 2 and 4).

    Args:
        symmetry: a permutation.
        others: all symmetries of the model, of which those that act on each of its units apart are used.
    """

    symmetry: Symmetry
    others: Sequence[Symmetry]

    def rows(self, state: State) -> tuple[Tensor, Tensor]:
        """Return each unit in its normal form, and its size.

        Where units can be rescaled, the incoming weights of each are brought to norm 1 and the outgoing ones are left
        out, so two that are one function up to a factor are equal. Where their signs can change, these are fixed.

        Args:
            state: parameters by name.

        Returns:
            Shapes (units, weights) and (units,), in double precision. A size is the norm of a unit's weights, or with a
            rescaling the geometric mean of its sides.
        """
        blocks = {place(slot): self._block(slot, state) for slot in self._trained}
        sizes = torch.cat(list(blocks.values()), dim=1).norm(dim=1)
        if self._rescalings:
            alive = torch.ones_like(sizes, dtype=torch.bool)
            for rescaling in [slots for _ in self._rescalings for slots in self._rescalings]:
                alive &= _absorb(blocks, rescaling)
            sinks = torch.cat([blocks[key] for key in self._sinks], dim=1).norm(dim=1).sqrt()
            sizes = torch.where(alive, sinks, 0.0)
            blocks = {key: block for key, block in blocks.items() if key not in self._sinks}
        for flip in self._flips:
            _orient(blocks, flip)
        return torch.cat(list(blocks.values()), dim=1), sizes

    @cached_property
    def _trained(self) -> list[Slot]:
        return [slot for slot in self.symmetry.slots if not slot.buffer]

    def _companions(self, kind: str) -> list[list[Slot]]:
        """The slots of each symmetry of a kind that acts on these units and on no others."""
        own = {place(slot) for slot in self._trained}
        found = []
        for other in self.others:
            slots = [slot for slot in other.slots if not slot.buffer]
            if other.kind == kind and other.units == self.symmetry.units and {place(slot) for slot in slots} <= own:
                found.append(slots)
        return found

    @cached_property
    def _rescalings(self) -> list[list[Slot]]:
        """Those that have both sides, each with one power."""
        both = [slots for slots in self._companions("rescaling") if {slot.power > 0 for slot in slots} == {True, False}]
        return [slots for slots in both if len({slot.power for slot in slots if slot.power > 0}) == 1]

    @cached_property
    def _flips(self) -> list[list[Slot]]:
        return [[slot for slot in slots if slot.degree % 2] for slots in self._companions("sign_flip")]

    @cached_property
    def _sinks(self) -> set[tuple[object, ...]]:
        """What only divides: the last outgoing weights, to which all factors are moved."""
        divided = {place(slot) for slots in self._rescalings for slot in slots if slot.power < 0}
        return divided - {place(slot) for slots in self._rescalings for slot in slots if slot.power > 0}

    def _block(self, slot: Slot, state: State) -> Tensor:
        return slot.take(lookup(state, slot.name), self.symmetry.units).double()


def distances(rows: Tensor) -> NDArray[np.float64]:
    """Return how far each pair of rows is apart, as :func:`mirrorsym.measures.weight_distance`, by one Gram matrix.

    Args:
        rows: shape (units, weights). Distances below 1e-8 may come out as 0.

    Returns:
        Shape (units, units).
    """
    gram = rows @ rows.T
    squares = gram.diagonal()
    norms = squares[:, None] + squares
    apart = ((norms - 2 * gram).clamp_min(0) / norms).sqrt()
    return np.asarray(apart.cpu().numpy())


def smallest_distance(rows: Tensor, apart: NDArray[np.float64]) -> float:
    """Return the distance of the nearest pair, entry by entry; NaN without two rows.

    Args:
        rows: shape (units, weights).
        apart: their distances by a Gram matrix, shape (units, units).
    """
    first, second = np.triu_indices(len(rows), k=1)
    if not first.size:
        return float("nan")
    pairs = apart[first, second]
    nearest = np.argpartition(pairs, min(EXACT_PAIRS, pairs.size) - 1)[:EXACT_PAIRS]
    one, other = rows[torch.from_numpy(first[nearest])], rows[torch.from_numpy(second[nearest])]
    norms = (one.square().sum(dim=1) + other.square().sum(dim=1)).sqrt()
    return float(((one - other).norm(dim=1) / norms).min())


def place(slot: Slot) -> tuple[object, ...]:
    """Return what two slots have in common that hold the same entries, whatever acts on them."""
    return plain(slot.name), slot.axes, slot.start, slot.repeat, slot.places


def _absorb(blocks: dict[tuple[object, ...], Tensor], slots: Sequence[Slot]) -> Tensor:
    """Bring one side of a rescaling to norm 1, and the factor to the other; return which units have that side."""
    sources = [blocks[place(slot)] for slot in slots if slot.power > 0]
    norm: Tensor = torch.cat(sources, dim=1).norm(dim=1)
    (power,) = {slot.power for slot in slots if slot.power > 0}
    factor = torch.where(norm > 0, norm, 1.0) ** (-1 / power)
    for slot in slots:
        blocks[place(slot)] = blocks[place(slot)] * factor[:, None] ** slot.power
    return norm > 0


def _orient(blocks: dict[tuple[object, ...], Tensor], slots: Sequence[Slot]) -> None:
    """Give each unit the sign at which its first weights point to one side of a plane that is drawn at random."""
    keys = [place(slot) for slot in slots if place(slot) in blocks]
    if keys:
        first = blocks[keys[0]]
        normal = torch.randn(first.shape[1], dtype=first.dtype, generator=torch.Generator().manual_seed(0))
        sign = torch.where(first @ normal.to(first.device) < 0, -1.0, 1.0)
        for key in keys:
            blocks[key] = blocks[key] * sign[:, None]
