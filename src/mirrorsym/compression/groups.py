"""Which symmetries are cut together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mirrorsym.symmetries import Symmetry


@dataclass(frozen=True)
class Group:
    """One symmetry of units, or several that have to be cut alike, such as those of a layer's heads.

    Args:
        symmetries: the symmetries.
        products: in how many products each head takes part here.
    """

    symmetries: tuple[Symmetry, ...]
    products: int = 1

    @property
    def where(self) -> str:
        return self.symmetries[0].name.partition(" [")[0]

    @property
    def permutation(self) -> bool:
        return self.symmetries[0].kind == "permutation"


def groups_of(found: Sequence[Symmetry]) -> Iterator[Group]:
    """Yield what is cut together, in the network's order: heads of one layer are.

    Where keys, queries and values lie in one parameter, they are also yielded as one, after each product by itself: a
    forward may take no keys and values of different sizes.
    """
    together: dict[Any, list[Symmetry]] = {}
    for symmetry in found:
        if symmetry.kind == "permutation":
            together[id(symmetry)] = [symmetry]
        elif symmetry.kind == "general_linear":
            key = (symmetry.units, tuple((slot.name, slot.axes, slot.inverse) for slot in symmetry.slots))
            together.setdefault(key, []).append(symmetry)
    alike: dict[Any, list[list[Symmetry]]] = {}
    for symmetries in together.values():
        yield Group(tuple(symmetries))
        first = symmetries[0]
        if first.kind == "general_linear":
            alike.setdefault((first.units, first.slots[0].name, first.slots[0].axes), []).append(symmetries)
    for several in alike.values():
        if len(several) > 1 and len({len(symmetries) for symmetries in several}) == 1:
            yield Group(tuple(symmetry for symmetries in several for symmetry in symmetries), len(several))
