"""How far a statement of the paper is from what an instance shows: 0 where it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Violation:
    """The violation of a statement as printed, with what it turns out to need, and where it is put to the test.

    Args:
        printed: relative residual, or fraction of the instances that contradict the statement; 0 where it holds.
        mended: the same for the mended statement, NaN where there is none.
        control: the same measure where the statement cannot hold, so that it is seen to tell; NaN where there is none.
        edge: the same at a degenerate or extreme case that its words take in and its use does not; NaN without one.
        registered: the measure that was written down first, where it was amended after results; NaN elsewhere.
    """

    printed: float
    mended: float = float("nan")
    control: float = float("nan")
    edge: float = float("nan")
    registered: float = float("nan")


def worst(values: Iterable[float]) -> float:
    """Return the largest value; NaN if one is NaN."""
    return float(np.max(list(values)))


class Share(float):
    """A fraction with the number of instances that it is of."""

    instances: int

    def __new__(cls, value: float, instances: int) -> Share:
        share = super().__new__(cls, value)
        share.instances = instances
        return share


def fraction(verdicts: Iterable[bool]) -> Share:
    """Return the fraction of the verdicts that are true, NaN without any."""
    listed = list(verdicts)
    return Share(float(np.mean(listed)) if listed else float("nan"), len(listed))


def instances(value: float) -> float:
    """Return the number of instances behind a fraction, NaN for what is none."""
    return float(value.instances) if isinstance(value, Share) else float("nan")


def order(far: float, near: float, ratio: float) -> float:
    """Return the power of a small quantity with which a remainder vanishes.

    Args:
        far: the remainder at some value of the quantity.
        near: the remainder at a value that is smaller by ``ratio``.
        ratio: larger than 1.
    """
    return float(np.log(abs(far) / abs(near)) / np.log(ratio))


def missing_order(expected: float, found: float) -> float:
    """Return by how much an order falls short of what is expected, cut to [0, 1]."""
    return float(np.clip(expected - found, 0.0, 1.0))


DISTANCES = (1e-1, 3e-2, 1e-2, 1e-3)
"""From a mirror, falling towards it: where a critical decay is asked whether it stays bounded."""


def divergence(critical: Sequence[float]) -> float:
    """Return the power of 1/s with which a critical decay grows from a distance of 0.01 to a mirror to one of 0.001.

    What it grows from is its largest size at 0.01 and beyond, since at one distance it may be near 0 by chance; the
    power is cut to [0, 1]. It is 0 for a loss that is even across the mirror, whose critical decay tends to minus half
    of a curvature, and 1 for one with a slope across it.

    Args:
        critical: its values at :data:`DISTANCES`.
    """
    *far, near = (abs(value) for value in critical)
    growth = near / max(far) if max(far) else float(near > 0)
    return float(np.clip(np.log10(growth), 0, 1)) if growth > 0 else 0.0


def ratio(part: object, whole: object) -> float:
    """Return the ratio of two lengths, 0 where both vanish."""
    numerator, denominator = float(part), float(whole)  # type: ignore[arg-type]
    return numerator / denominator if denominator else float(numerator > 0)
