"""Candidates for symmetries, from what a forward pass has tied, written as places in parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mirrorsym.symmetries.atoms import Atoms, Ids, oriented
from mirrorsym.symmetries.charges import Solved, generators, reduced
from mirrorsym.symmetries.elements import Kind
from mirrorsym.symmetries.exchanges import Exchanges
from mirrorsym.symmetries.symmetry import Slot, Symmetry

STATISTIC = 3
"""So much a buffer weighs, against a parameter, in the choice between solutions."""


@dataclass(frozen=True)
class Axis:
    """The atoms along some axes of one parameter, or buffer.

    Args:
        name: the parameter's name.
        axes: the axes, in order.
        atoms: atoms at all places along the axes, flattened.
        buffer: whether it is a buffer.
    """

    name: str
    axes: tuple[int, ...]
    atoms: Ids
    buffer: bool

    @property
    def tag(self) -> str:
        """A name for what units have in common."""
        return f"{self.name}:{self.axes}"


class Candidates:
    """All candidates for the symmetries of a network.

    Args:
        atoms: what a forward pass has tied.
        axes: where atoms lie in parameters and buffers, in the network's order.
    """

    def __init__(self, atoms: Atoms, axes: Sequence[Axis]) -> None:
        self._atoms = atoms
        self._axes = axes

    def mixed(self) -> Iterator[tuple[Kind, Symmetry]]:
        """Yield candidates for permutations, those that may be rotations or more as such.

        Yields:
            The strongest kind that the operations allow, and the units as a permutation.
        """
        exchanges = Exchanges(self._atoms)
        entries = defaultdict(list)
        holders: dict[int, list[int]] = defaultdict(list)  # not sets, which take three times the memory
        for index, axis in enumerate(self._axes):
            tag = axis.tag
            for name in exchanges.own[axis.atoms].tolist():
                entries[name].append(tag)
                if holders[name][-1:] != [index]:
                    holders[name].append(index)
        entries.pop(0, None)
        bent = set(exchanges.own[_all(self._atoms.bent)].tolist())
        normed = set(exchanges.own[_all(self._atoms.normed)].tolist())
        _, orientation, both = oriented(self._atoms.count, self._atoms.linear)
        for family in exchanges.families(entries):
            own, first = exchanges.own, family.units[0]
            held = sorted(set().union(*(holders[name] for name in first if name in holders)))
            slots = self._slots([self._axes[index] for index in held], own, family.units, orientation)
            if not any(not slot.buffer for slot in slots):
                continue
            kind: Kind = "permutation"
            if not any(name in bent for name in first):
                curved = any(name in normed for name in first) or self._crossed(slots, both)
                kind = "rotation" if curved else "general_linear"
            yield kind, Symmetry("permutation", len(family.units), slots)

    def _crossed(self, slots: Sequence[Slot], both: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> bool:
        """Return whether a parameter lies on both sides, so that only orthogonal matrices act on it."""
        names = {(slot.name, slot.axes) for slot in slots}
        return any(bool(both[axis.atoms].any()) for axis in self._axes if (axis.name, axis.axes) in names)

    def in_training(self, rescalings: Sequence[Symmetry]) -> list[Symmetry]:
        """Return candidates for rescalings that hold in training mode alone, before batch normalizations.

        Args:
            rescalings: those of evaluation mode.
        """
        if not self._atoms.standardized:
            return []
        always = {_trained(symmetry) for symmetry in rescalings}
        candidates = [
            replace(symmetry, slots=tuple(slot for slot in symmetry.slots if not slot.buffer))
            for symmetry in self.diagonal("rescaling", training=True)
        ]
        return [symmetry for symmetry in candidates if _trained(symmetry) not in always]

    def diagonal(self, kind: Kind, training: bool = False) -> list[Symmetry]:
        """Return candidates for rescalings or sign flips of single units."""
        signs = kind == "sign_flip"
        equations = self._atoms.signs if signs else self._atoms.scales_in(training)
        solved = reduced(self._atoms.count, equations, signs)
        places = _Places(self._axes, solved)
        groups: dict[object, list[tuple[tuple[int, float], ...]]] = defaultdict(list)
        for charges in generators(solved, places.weights, signs):
            acting = places.acting(charges.items())
            if acting:
                alike = tuple(sorted((key, len(found)) for key, found in acting.items()))
                groups[alike].append(tuple(charges.items()))
        return [found for alike in groups.values() for found in self._grouped(kind, alike, places)]

    def _grouped(
        self, kind: Kind, alike: Sequence[tuple[tuple[int, float], ...]], places: _Places
    ) -> Iterator[Symmetry]:
        """Yield a candidate for units that differ by their places alone, several where they share some."""
        for units in _disjoint([places.acting(charges) for charges in alike]):
            slots = []
            for index, power in sorted(units[0], key=lambda key: key[0]):
                places_of = [sorted(unit[index, power]) for unit in units]
                slot = _slot(self._axes[index], places_of)
                slots.append(replace(slot, inverse=power < 0, degree=_whole(abs(power))))
            if any(not slot.buffer for slot in slots):
                yield Symmetry(kind, len(units), tuple(slots))

    def _slots(
        self, axes: Sequence[Axis], own: Ids, units: Sequence[tuple[int, ...]], orientation: Ids
    ) -> tuple[Slot, ...]:
        """Return where units, given as classes of atoms, lie along some axes."""
        unit_of = {name: (number, rank) for number, names in enumerate(units) for rank, name in enumerate(names)}
        wanted = np.array(list(unit_of))
        slots: list[Slot] = []
        first = 0
        for axis in axes:
            classes = own[axis.atoms]
            inside = np.flatnonzero(np.isin(classes, wanted))
            # Where whole groups of a grouped convolution change places, its rows move with their columns.
            if not inside.size or (len(axis.axes) > 1 and any(slot.name == axis.name for slot in slots)):
                continue
            sides: dict[int, list[list[int]]] = {}
            names = classes[inside].tolist()
            placed = sorted((*unit_of[name], place) for place, name in zip(inside.tolist(), names, strict=True))
            ways = orientation[axis.atoms].tolist()
            for number, _, place in placed:
                if ways[place] not in sides:
                    sides[ways[place]] = [[] for _ in units]
                sides[ways[place]][number].append(place)
            for way, order in sides.items():
                if len({len(found) for found in order}) > 1:
                    return ()
                first = first or way
                slots.append(replace(_slot(axis, order), inverse=way != first))
        return tuple(slots)


class _Places:
    """Where classes of charges lie: the axis, the place on it and the orientation there, sorted by class.

    ``weights`` has the number of parameters for each class.
    """

    def __init__(self, axes: Sequence[Axis], solved: Solved) -> None:
        parts = [np.zeros((4, 0), np.int64)]
        for index, axis in enumerate(axes):
            own, ways = solved.own[axis.atoms], solved.orientation[axis.atoms]
            kept = np.flatnonzero((own != 0) & ~solved.zero[axis.atoms])
            parts.append(np.stack([own[kept], np.full(len(kept), index), ways[kept], kept]))
        names, index, way, place = np.concatenate(parts, axis=1)
        order = np.argsort(names, kind="stable")
        self._index, self._way, self._place = index[order], way[order], place[order]
        count = len(solved.own)
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(names, minlength=count))])
        # Statistics follow the parameters in training: a solution without them holds there as well.
        weight = np.array([STATISTIC if axis.buffer else 1 for axis in axes], np.int64)
        once = np.unique(np.stack([names, index, way]), axis=1)
        self.weights = np.bincount(once[0], weight[once[1]], minlength=count).astype(np.int64)

    def acting(self, charges: Iterable[tuple[int, float]]) -> dict[tuple[int, float], list[int]]:
        """Return the places at which charges by class act, by axis and power."""
        acting: dict[tuple[int, float], list[int]] = defaultdict(list)
        for name, charge in charges:
            part = slice(self._starts[name], self._starts[name + 1])
            rows = zip(self._index[part].tolist(), self._way[part].tolist(), self._place[part].tolist(), strict=True)
            for index, way, place in rows:
                acting[index, float(charge * way)].append(place)
        return acting


def _trained(symmetry: Symmetry) -> frozenset[Slot]:
    return frozenset(slot for slot in symmetry.slots if not slot.buffer)


def _disjoint(
    alike: Sequence[dict[tuple[int, float], list[int]]],
) -> list[list[dict[tuple[int, float], list[int]]]]:
    """Put units that share places into different families."""
    families: list[tuple[list[dict[tuple[int, float], list[int]]], set[tuple[int, int]]]] = []
    for unit in alike:
        own = {(index, place) for (index, _), places in unit.items() for place in places}
        for units, taken in families:
            if not own & taken:
                units.append(unit)
                taken |= own
                break
        else:
            families.append(([unit], own))
    return [units for units, _ in families]


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _slot(axis: Axis, order: Sequence[Sequence[int]]) -> Slot:
    repeat = len(order[0])
    flat = [place for places in order for place in places]
    where = axis.axes[0] if len(axis.axes) == 1 else axis.axes
    whole = len(flat) == len(axis.atoms)
    if flat == list(range(flat[0], flat[0] + len(flat))) and (whole or flat[0]):
        return Slot(axis.name, where, flat[0], repeat, buffer=axis.buffer)
    return Slot(axis.name, where, repeat=repeat, buffer=axis.buffer, places=tuple(flat))


def _all(arrays: Sequence[Ids]) -> Ids:
    return np.unique(np.concatenate([np.zeros(1, np.int64), *arrays]))
