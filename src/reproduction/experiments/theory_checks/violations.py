"""How far a statement of the paper is from what an instance shows: 0 where it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Violation:
    """The violation of a statement as printed, and with the conditions or factors that it turns out to need.

    Args:
        printed: relative residual, or fraction of the instances that contradict the statement; 0 where it holds.
        mended: the same for the mended statement, NaN where there is none.
        control: the same measure where the statement cannot hold, so that it is seen to tell; NaN where there is none.
    """

    printed: float
    mended: float = float("nan")
    control: float = float("nan")


def worst(values: Iterable[float]) -> float:
    """Return the largest value; NaN if one is NaN."""
    return float(np.max(list(values)))


def fraction(verdicts: Iterable[bool]) -> float:
    """Return the fraction of the verdicts that are true."""
    return float(np.mean(list(verdicts)))


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


def ratio(part: object, whole: object) -> float:
    """Return the ratio of two lengths, 0 where both vanish."""
    numerator, denominator = float(part), float(whole)  # type: ignore[arg-type]
    return numerator / denominator if denominator else float(numerator > 0)
