"""Exchanges of units: which atoms have to move when two of them change places."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mirrorsym.symmetries.atoms import Atoms, Ids, components


@dataclass(frozen=True)
class Family:
    """Units that may be exchanged.

    Args:
        units: of each unit the classes of atoms that move with it, in an order that is the same for all.
    """

    units: tuple[tuple[int, ...], ...]


class Exchanges:
    """The exchanges that what a network ties allows.

    Args:
        atoms: what a forward pass has tied.
        entries: by class of atoms the places in parameters, each as a tag of parameter and axis.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.own = components(atoms.count, atoms.joined)
        self.immovable = set(np.unique(self.own[np.concatenate(atoms.immovable)]).tolist())
        self._relations = [self._classes(relation) for relation in atoms.relations]
        ties: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, relation in enumerate(self._relations):
            for role, column in enumerate(relation):
                for place, name in enumerate(column):
                    if name not in self.immovable:
                        ties[name][index, role].append(place)
        self._ties = {name: dict(places) for name, places in ties.items()}

    def _classes(self, relation: tuple[Ids, ...]) -> list[list[int]]:
        """Return a relation's different rows as classes, those of immovable ones alone left out."""
        rows = np.unique(np.stack([self.own[column] for column in relation]), axis=1)
        return [column.tolist() for column in rows]

    def families(self, entries: Mapping[int, list[str]]) -> list[Family]:
        """Return the families of units, the smaller ones before those whose units contain them."""
        groups: dict[object, list[int]] = defaultdict(list)
        for name in sorted(entries):
            if name not in self.immovable:
                groups[self._signature(name, entries[name])].append(name)
        found: dict[tuple[tuple[int, ...], ...], None] = {}
        for members in groups.values():
            if members[0] not in self._ties:
                found.setdefault(tuple((name,) for name in members))
            elif len(members) > 1:
                for family in self._explored(members):
                    found.setdefault(family)
        unique: dict[frozenset[int], Family] = {}
        for units in found:
            if len(units) > 1:
                unique.setdefault(frozenset(name for unit in units for name in unit), Family(units))
        return list(unique.values())

    def _signature(self, name: int, tags: Iterable[str]) -> object:
        ties: Counter[tuple[object, ...]] = Counter()
        for (index, role), places in self._ties.get(name, {}).items():
            for place in places:
                fixed = tuple(c[place] if c[place] in self.immovable else -1 for c in self._relations[index])
                ties[index, role, fixed] += 1
        return tuple(sorted(Counter(tags).items())), tuple(sorted(ties.items()))

    def _explored(self, members: list[int]) -> list[tuple[tuple[int, ...], ...]]:
        """Try to exchange members with each other; what else has to move tells to which family two belong."""
        found = []
        covered: set[int] = set()
        for seed in members:
            if seed in covered:
                continue
            covered.add(seed)
            by_unit: dict[tuple[int, ...], list[dict[int, int]]] = defaultdict(list)
            for other in members:
                if other != seed and other not in covered:
                    moved = self._exchanged(seed, other)
                    if moved is not None:
                        by_unit[tuple(moved[0])].append(moved[1])
            mine: list[tuple[tuple[int, ...], ...]] = []
            for unit, maps in sorted(by_unit.items(), key=lambda item: len(item[0])):
                family = (unit, *(tuple(image[name] for name in unit) for image in maps))
                if len({name for names in family for name in names}) < len(family) * len(unit):
                    continue
                if not mine:
                    covered |= {names[unit.index(seed)] for names in family}
                # What moves with a unit has families of its own, which are those of its image.
                copies = []
                for image in maps:
                    for inner in mine:
                        copies.append(tuple(tuple(image.get(name, name) for name in names) for names in inner))
                        covered |= {image.get(names[0], names[0]) for names in inner if names[0] in covered}
                mine += [*copies, family]
            found += mine
        return found

    def _exchanged(self, a: int, b: int) -> tuple[list[int], dict[int, int]] | None:
        """Return which classes move with the first, and where all go, or None where the two cannot change places."""
        image = {a: b, b: a}
        moved = [a]
        queue = [(a, b)]
        while queue:
            x, y = queue.pop()
            mine, yours = self._ties.get(x, {}), self._ties.get(y, {})
            if mine.keys() != yours.keys():
                return None
            for key, places in mine.items():
                others = yours[key]
                if len(places) != len(others):
                    return None
                finest = self._relations[key[0]][0]
                if key[1] and any(finest[p] == finest[q] for p, q in zip(places, others, strict=True)):
                    return None
                for column in self._relations[key[0]]:
                    for p, q in zip(places, others, strict=True):
                        u, v = column[p], column[q]
                        if image.get(u, v) != v or image.get(v, u) != u:
                            return None
                        if u in image:
                            continue
                        if u == v:
                            image[u] = u
                            continue
                        if u in self.immovable or v in self.immovable:
                            return None
                        image[u], image[v] = v, u
                        moved.append(u)
                        queue.append((u, v))
        return moved, image
