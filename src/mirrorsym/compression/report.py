"""What was cut from a network, what was not, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass

from mirrorsym.tables import table


@dataclass(frozen=True)
class Cut:
    """What was cut from the units of one group.

    Args:
        where: the modules whose parameters became smaller.
        what: what the units are: ``units``, ``heads``, ``groups``, or ``rank`` for the inner dimension of a product.
        before: how many there were.
        after: how many are left.
        zero: how many were zero, or were not read (Theorem 2).
        constant: how many were the same for all inputs, and went into the bias of what reads them.
        copies: how many were multiples of another unit (Theorem 4).
        promised: what it changes at most in an output, to first order, relative to the outputs' root mean square; for
            ``rank`` the part of the product that was cut, relative to its largest singular value, or what it changes in
            the logits of attention if that is less.
    """

    where: str
    what: str
    before: int
    after: int
    zero: int = 0
    constant: int = 0
    copies: int = 0
    promised: float = 0.0


@dataclass(frozen=True)
class Kept:
    """What was not cut although it might have been, and why.

    Args:
        where: the modules.
        why: one sentence.
    """

    where: str
    why: str


@dataclass(frozen=True)
class Compression:
    """What :func:`mirrorsym.compress` did (the mirrors of Theorems 2 to 4). Printed, it is a table.

    Args:
        cuts: what was cut, in the network's order.
        kept: what was not, and why.
        tolerance: the error that was allowed.
        promised: the sum of what the cuts promised.
        found: the largest change of an output on the batch, relative to the outputs' root mean square.
        held_out: the same on inputs that no judgement saw, drawn in the batch's range; nan if the model takes none.
        parameters: their numbers before and after; before, parametrizations count as what they compute.
        flops: floating-point operations of a forward on the batch, before and after.
        seconds: median time of a forward on the batch, before and after, measured in turns.
    """

    cuts: tuple[Cut, ...]
    kept: tuple[Kept, ...]
    tolerance: float
    promised: float
    found: float
    held_out: float
    parameters: tuple[int, int]
    flops: tuple[int, int]
    seconds: tuple[float, float]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("what", "before", "after", "zero", "constant", "copies", "promised", "where")]
        for cut in self.cuts:
            counts = [str(count or "") for count in (cut.zero, cut.constant, cut.copies)]
            rows.append((cut.what, str(cut.before), str(cut.after), *counts, _short(cut.promised), cut.where))
        lines = (
            table(rows, numbers=range(1, 7))
            if self.cuts
            else ["Nothing was cut." if self.kept else "Nothing was cut: the network has not collapsed."]
        )
        lines += [f"not cut: {kept.where}: {kept.why}" for kept in self.kept]
        if self.cuts:
            lines += table(
                [
                    ("", "before", "after"),
                    ("parameters", f"{self.parameters[0]:,}", f"{self.parameters[1]:,}"),
                    ("FLOPs of a forward", f"{self.flops[0]:,}", f"{self.flops[1]:,}"),
                    ("seconds of a forward", f"{self.seconds[0]:.4f}", f"{self.seconds[1]:.4f}"),
                ],
                numbers=(1, 2),
            )
            lines.append(
                f"error: {_short(self.promised)} promised, {_short(self.found)} found on the batch, "
                f"{_short(self.held_out)} on inputs held out; {_short(self.tolerance)} allowed"
            )
        return "\n".join(lines)

    __repr__ = __str__


def _short(error: float) -> str:
    return f"{error:.0e}" if error else "0"
