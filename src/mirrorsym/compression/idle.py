"""Modules that did not run on the batch, such as experts to which no token was sent, and which units they may read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from mirrorsym.compression.edit import tensor_of
from mirrorsym.compression.groups import Group

Place = tuple[str, int]
"""A parameter and an axis of it."""


class Idle:
    """What did not run. No forward pass says which units it reads; modules that are numbered beside it do.

    Args:
        model: the model.
        unused: its parameters that had no part in the outputs.
    """

    def __init__(self, model: nn.Module, unused: Sequence[str]) -> None:
        self._model = model
        self._unused = unused
        self._used = {name: p for name, p in model.named_parameters() if name not in set(unused)}
        self.modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in unused))

    def reader(self, group: Group) -> str | None:
        """Return a module that may read or give the units of a group; None if there is none.

        Args:
            group: of a permutation.
        """
        slots = [slot for symmetry in group.symmetries for slot in symmetry.slots]
        places = {(slot.name, axis) for slot in slots for axis in slot.axes}
        lengths = {tensor_of(self._model, name).shape[axis] for name, axis in places}
        for name in self._unused:
            tensor = tensor_of(self._model, name)
            for axis, length in enumerate(tensor.shape):
                if length in lengths and self._may_be(name, tensor, axis, places):
                    return name.rpartition(".")[0] or name
        return None

    def _may_be(self, name: str, tensor: Tensor, axis: int, places: set[Place]) -> bool:
        """Return whether all that are numbered beside a parameter lie in a group, or whether nothing is."""
        families = list(self._families(name, tensor))
        return not families or any(all((one, axis) in places for one in family) for family in families)

    def _families(self, name: str, tensor: Tensor) -> Iterator[list[str]]:
        """Yield the parameters in use that differ from one in one number of their names, for each number."""
        for number in re.finditer(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", name):
            pattern = re.compile(re.escape(name[: number.start()]) + r"\d+" + re.escape(name[number.end() :]))
            family = [n for n, p in self._used.items() if pattern.fullmatch(n) and p.shape == tensor.shape]
            if family:
                yield family
