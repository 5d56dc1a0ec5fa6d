"""What a search has found, and what it did not understand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import overload

from mirrorsym.symmetries.elements import KINDS, Kind
from mirrorsym.symmetries.follow import Unfollowed
from mirrorsym.symmetries.symmetry import Symmetry
from mirrorsym.tables import table


class Symmetries(Sequence[Symmetry]):
    """The symmetries of a model, as a sequence, with what the search says of itself. Printed, it is a table.

    Args:
        found: the symmetries.
        unfollowed: operations that were not understood; symmetries of what goes through them are missing.
        unused_parameters: parameters that took no part in the forward pass, of which nothing is said.
        free_parameters: parameters that took part and on which the outputs do not depend, such as a key's bias.
        in_training: rescalings that hold in training mode alone, up to eps over the variance: of what a batch
            normalization standardizes.
        refuted: candidates that the check refused, or about which it could not tell.
        seconds: how long it took.
    """

    def __init__(
        self,
        found: Iterable[Symmetry],
        unfollowed: tuple[Unfollowed, ...] = (),
        unused_parameters: tuple[str, ...] = (),
        free_parameters: tuple[str, ...] = (),
        in_training: tuple[Symmetry, ...] = (),
        refuted: tuple[Symmetry, ...] = (),
        seconds: float = 0.0,
    ) -> None:
        self._found = tuple(found)
        self.unfollowed = unfollowed
        self.unused_parameters = unused_parameters
        self.free_parameters = free_parameters
        self.in_training = in_training
        self.refuted = refuted
        self.seconds = seconds

    @overload
    def __getitem__(self, index: int) -> Symmetry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Symmetry, ...]: ...
    def __getitem__(self, index: int | slice) -> Symmetry | tuple[Symmetry, ...]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def of_kind(self, *kinds: Kind) -> list[Symmetry]:
        """Return the symmetries of some kinds."""
        return [symmetry for symmetry in self._found if symmetry.kind in kinds]

    def __str__(self) -> str:
        between = [symmetry for symmetry in self._found if not symmetry.factored]
        alike = Counter((s.kind, str(s.units), s.name.partition(" [")[0]) for s in between)
        rows = [("kind", "units", "where")]
        for symmetry in between:
            row = (symmetry.kind, str(symmetry.units), symmetry.name.partition(" [")[0])
            count = alike.pop(row, 0)
            if count:  # the heads or groups of one layer are one line
                rows.append((*row[:2], symmetry.name if count == 1 else f"{row[2]} ({count} times)"))
        rows += self._of_factors()
        lines = table(rows, numbers=[1])
        lines += [f"not followed: {u.operation} in {u.module or 'the model'}: {u.why}" for u in self.unfollowed]
        lines += [f"in training alone: {s.kind} of {s.units} units of {s.name}" for s in self.in_training]
        for what, names in (("not used", self.unused_parameters), ("without effect", self.free_parameters)):
            if names:
                lines.append(f"{what}: {_short(names)}")
        lines.append(f"{len(self)} symmetries in {self.seconds:.1f} s")
        return "\n".join(lines)

    def _of_factors(self) -> list[tuple[str, str, str]]:
        """Return a line of the table for each kind within constrained parameters, of which each has its own."""
        rows: list[tuple[str, str, str]] = []
        for kind in KINDS:
            own = [s for s in self._found if s.kind == kind and s.factored]
            if own:
                units = [s.units for s in own]
                several = f"{min(units)}-{max(units)}" if min(units) < max(units) else str(units[0])
                rows.append((kind, several, f"within {_short(list(dict.fromkeys(s.factored for s in own)))}"))
        return rows

    __repr__ = __str__


def _short(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)} parameters)"
