"""Atoms: the places along axes of parameters and values, and what a network's operations tie of them.

An atom is one place along an axis, such as one row of a matrix or one channel of a value. Operations tie atoms in two
ways. As *units*: atoms of one unit move together when units are exchanged, and a relation moves as a whole. As
*charges*: a rescaling multiplies what lies at an atom by a power of a number, and a flip by a sign; sums need equal
charges, products add them, and most functions fix them. Atom 0 stands for zeros, which nothing ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass
class Charges:
    """Equations between charges, as arrays of rows: x = ±y, and x = k₁ y₁ + k₂ y₂, where 0 is no atom."""

    equal: list[tuple[Ids, Ids, int]] = field(default_factory=list)
    sums: list[tuple[Ids, Ids, Ids, float, float]] = field(default_factory=list)
    zero: list[Ids] = field(default_factory=list)


class Atoms:
    """All atoms of a network, and what ties them.

    ``standardized`` are atoms behind and before a batch normalization, whose scales are equal in evaluation mode; in
    training mode those behind it have none.
    """

    def __init__(self) -> None:
        self.count = 1
        self.scales, self.signs = Charges(), Charges()
        self.joined: list[tuple[Ids, Ids]] = []
        self.relations: list[tuple[Ids, ...]] = []
        self.immovable: list[Ids] = []
        self.standardized: list[tuple[Ids, Ids]] = []
        self.linear: list[tuple[Ids, Ids, int]] = []
        self.bent: list[Ids] = []
        self.normed: list[Ids] = []
        self._squares: list[Ids] = []

    def new(self, count: int) -> Ids:
        """Return new atoms."""
        ids = np.arange(self.count, self.count + count)
        self.count += count
        return ids

    def scales_in(self, training: bool) -> Charges:
        """Return the equations between scales in evaluation or in training mode."""
        equal, zero = list(self.scales.equal), list(self.scales.zero)
        for behind, before in self.standardized:
            if training:
                zero.append(behind)
            else:
                equal.append((behind, before, 1))
        return Charges(equal, self.scales.sums, zero)

    def unite(self, a: Ids, b: Ids, merge: bool = True) -> None:
        """Let atoms move together; ``merge`` where several atoms of one side that meet one of the other are one."""
        a, b = pairs(a, b)
        several, others = len(np.unique(a)), len(np.unique(b))
        if merge or several == others == len(a):
            self.joined.append((a, b))
        else:
            self.relate(*((a, b) if several >= others else (b, a)))

    def relate(self, *atoms: Ids) -> None:
        """Let exchanges of units map tuples of atoms to tuples; the first of each moves if another does."""
        kept = np.unique(np.stack(atoms), axis=1)
        kept = kept[:, (kept != 0).all(axis=0)]
        if kept.size and len(np.unique(kept[0])) + len(np.unique(kept[-1])) > 2:
            self.relations.append(tuple(kept))

    def equal(self, a: Ids, b: Ids, inverse: bool = False) -> None:
        """Let charges be equal, or opposite."""
        a, b = pairs(a, b)
        self.scales.equal.append((a, b, -1 if inverse else 1))
        self.signs.equal.append((a, b, 1))

    def total(self, result: Ids, a: Ids, b: Ids, ka: float = 1, kb: float = 1) -> None:
        """Let a charge be a sum of two."""
        rows = np.unique(np.stack([result, a, b]), axis=1)
        self.scales.sums.append((rows[0], rows[1], rows[2], ka, kb))
        self.signs.sums.append((rows[0], rows[1], rows[2], abs(ka) % 2, abs(kb) % 2))

    def along(self, a: Ids, b: Ids, inverse: bool = False) -> None:
        """Note that a linear transformation of the one goes with that of the other, or with its inverse transpose."""
        a, b = pairs(a, b)
        self.linear.append((a, b, -1 if inverse else 1))

    def fix(self, atoms: Ids) -> None:
        """Let nothing change here."""
        ids = np.unique(atoms)
        for ledger in (self.scales.zero, self.signs.zero, self.immovable, self.bent):
            ledger.append(ids)

    def uncharge(self, atoms: Ids, scale: bool = True, sign: bool = True) -> None:
        """Let no rescaling, or no flip, pass."""
        ids = np.unique(atoms)
        if scale:
            self.scales.zero.append(ids)
        if sign:
            self.signs.zero.append(ids)

    def bend(self, atoms: Ids) -> None:
        """Let no rotation pass."""
        self.bent.append(np.unique(atoms))

    def note_squares(self, atoms: Ids) -> None:
        """Remember atoms whose values are squares: sums of them allow rotations."""
        self._squares.append(np.unique(atoms))

    def are_squares(self, atoms: Ids) -> bool:
        """Return whether all values at these atoms are squares."""
        wanted = np.unique(atoms)
        return any(len(squares) >= len(wanted) and bool(np.isin(wanted, squares).all()) for squares in self._squares)


def pairs(a: Ids, b: Ids) -> tuple[Ids, Ids]:
    """Return the different pairs, without those of zeros."""
    both = np.unique(a[(a != 0) & (b != 0)] << 32 | b[(a != 0) & (b != 0)])
    return both >> 32, both & (2**32 - 1)


def components(count: int, edges: Iterable[tuple[Ids, Ids]]) -> Ids:
    """Return for each of ``count`` nodes the smallest node that edges connect it with."""
    label = np.arange(count)
    for a, b in _batches(edges, max(count // 8, 1000)):
        _connect(label, a, b)
    return label


def _batches(edges: Iterable[tuple[Ids, Ids]], size: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield edges in batches of about a size: all at once would take more memory than the atoms do."""
    batch: list[tuple[Ids, Ids]] = []
    waiting = 0
    for edge in edges:
        batch.append(edge)
        waiting += len(edge[0])
        if waiting >= size:
            joined, batch, waiting = _joined(batch), [], 0
            yield joined
    if batch:
        yield _joined(batch)


def _joined(edges: Sequence[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
    return np.concatenate([edge[0] for edge in edges]), np.concatenate([edge[1] for edge in edges])


def _connect(label: Ids, a: Ids, b: Ids) -> None:
    """Connect nodes in the labels, which name the smallest node of each component."""
    while True:
        first, second = label[a], label[b]
        apart = first != second
        if not apart.any():
            return
        a, b = a[apart], b[apart]
        low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
        np.minimum.at(label, high, low)
        while True:
            shorter = label[label]
            if (shorter == label).all():
                break
            label[:] = shorter


def oriented(count: int, edges: Sequence[tuple[Ids, Ids, int]]) -> tuple[Ids, Ids, NDArray[np.bool_]]:
    """Return each node's class, its orientation in it (±1), and whether the class is its own opposite.

    Args:
        count: number of nodes.
        edges: pairs of nodes and 1 where their orientations are equal, -1 where opposite.
    """
    label = components(2 * count, _doubled(count, edges))
    plus, minus = label[:count], label[count:]
    own = np.minimum(plus % count, minus % count)
    return own, np.where(plus <= minus, 1, -1), plus == minus


def _doubled(count: int, edges: Sequence[tuple[Ids, Ids, int]]) -> Iterator[tuple[Ids, Ids]]:
    """Yield edges between nodes of both orientations."""
    for a, b, orientation in edges:
        yield a, (b if orientation == 1 else b + count)
        yield a + count, (b + count if orientation == 1 else b)
