"""Critical learning rates of any law of the curvature: the zeros of its Lyapunov exponent (Section 2.4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def critical_learning_rates(
    exponent: Callable[[float], float], scale: float, ratio: float = 1e8
) -> tuple[float, float]:
    """Return both learning rates at which an exponent changes sign: collapse begins, and collapse ends.

    Args:
        exponent: learning rate to Lyapunov exponent, with a single minimum.
        scale: a learning rate of the right order, such as one over the root mean square curvature.
        ratio: the search runs from ``scale / ratio`` to ``scale * ratio``.

    Returns:
        The lower and the upper zero; (nan, nan) where the exponent is never negative. The lower one is 0 where the
        exponent is negative from the start of the search, the upper one infinite where it is negative at its end.
    """
    from scipy.optimize import brentq

    start, end = np.log(scale / ratio), np.log(scale * ratio)

    # Divided by the learning rate the exponent keeps its sign and has a finite slope at zero.
    def slope(log_rate: float) -> float:
        rate = float(np.exp(log_rate))
        return float(exponent(rate)) / rate

    lowest = _lowest_point(lambda log_rate: float(exponent(float(np.exp(log_rate)))), start, end)
    if not slope(lowest) < 0:
        return float("nan"), float("nan")
    lower = float(np.exp(brentq(slope, start, lowest, xtol=1e-13))) if slope(start) > 0 else 0.0
    upper = float(np.exp(brentq(slope, lowest, end, xtol=1e-13))) if slope(end) > 0 else float("inf")
    return lower, upper


def _lowest_point(function: Callable[[float], float], start: float, end: float) -> float:
    """Return where a function of one minimum is lowest: a coarse scan, then Brent's method around its best point."""
    from scipy.optimize import minimize_scalar

    points = np.linspace(start, end, 65)
    best = int(np.argmin([function(float(point)) for point in points]))
    bounds = float(points[max(best - 1, 0)]), float(points[min(best + 1, len(points) - 1)])
    return float(minimize_scalar(function, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
