"""When a feature of the rescaled regressor stays collapsed: the law of its curvature (Figure 3, left)."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirrorsym import stability
from reproduction.theory import exponents

Background = Literal["collapsed", "learnt"]
"""Whether all other features of a rescaled regressor are at zero or at their target."""

Array = NDArray[np.float64]
_SERIES_FROM = 8.0


def moments(noise_std: float, background: Background = "collapsed", dimension: int = 200) -> tuple[float, float]:
    """Return ``E[h]`` and ``E[h**2]`` of one collapsed feature of the rescaled regressor (Figure 3, left).

    The per-sample loss is ``((w * u) @ x - y)**2`` with standard normal ``x`` and ``y = mean(x) + noise_std * eps``.
    Where ``w_i = u_i = 0`` its curvature along (1, 1) is ``h = -2 x_i (x_i / dimension + r)``, with ``r`` the part of
    the residual that does not depend on ``x_i``. Along (1, -1) it is ``-h``, which collapses more easily.

    Args:
        noise_std: standard deviation of the label noise, at least 0.
        background: ``"collapsed"`` where all other features are at zero, ``"learnt"`` where they are at their target.
        dimension: number of features.
    """
    variance = _rest_variance(noise_std, background, dimension)
    return -2 / dimension, 4 * (variance + 3 / dimension**2)


def _rest_variance(noise_std: float, background: Background, dimension: int) -> float:
    if background == "collapsed":
        return noise_std**2 + (dimension - 1) / dimension**2
    if background == "learnt":
        return noise_std**2
    raise ValueError(f"background is {background!r}; choose 'collapsed' or 'learnt'")


def exponent(
    learning_rate: ArrayLike, noise_std: float, background: Background = "collapsed", dimension: int = 200
) -> Array:
    """Return the exact Lyapunov exponent of one collapsed feature of the rescaled regressor, at batch size 1.

    The law of the curvature is in :func:`moments`. Given ``x_i`` the mean over the residual is a
    closed form in Dawson's integral; the mean over ``x_i`` is a trapezoidal sum, exact to about 1e-13.

    Args:
        learning_rate: 0 or larger, any shape.
        noise_std: standard deviation of the label noise, at least 0.
        background: ``"collapsed"`` where all other features are at zero, ``"learnt"`` where they are at their target.
        dimension: number of features.

    Returns:
        Exponents in the shape of ``learning_rate``. Negative: the feature collapses.

    Raises:
        ValueError: if ``background`` is neither of the two.
    """
    rates = np.asarray(learning_rate, dtype=float)
    std = np.sqrt(_rest_variance(noise_std, background, dimension))
    # x = exp(t): the trapezoidal rule converges geometrically, also at learning rates far beyond divergence.
    step = 1 / 8
    log_feature = np.arange(-34.0, 3.75, step)
    feature = np.exp(log_feature)
    weight = step * feature * 2 * np.exp(-(feature**2) / 2) / np.sqrt(2 * np.pi)
    flat = rates.reshape(-1, 1)
    drift = 2 * flat * feature**2 / dimension
    spread = 2 * flat * feature * std
    growth = np.log1p(drift) + _log_mean_of_noise(spread / (1 + drift))
    return np.reshape(growth @ weight, rates.shape)


def critical_learning_rates(
    noise_std: float, background: Background = "collapsed", dimension: int = 200
) -> tuple[float, float]:
    """Return the learning rates between which one collapsed feature of the rescaled regressor stays collapsed.

    Both are zeros of :func:`exponent`, to about 1e-9 relative; (nan, nan) where the noise is too
    weak for a collapse at any learning rate. Eq. 5 approximates the lower one.

    Raises:
        ValueError: if ``background`` is neither of the two.
    """
    if _rest_variance(noise_std, background, dimension) == 0:
        return float("nan"), float("nan")
    _, mean_square = moments(noise_std, background, dimension)
    return exponents.critical_learning_rates(
        lambda rate: float(exponent(rate, noise_std, background, dimension)),
        scale=1 / float(np.sqrt(mean_square)),
    )


def second_order(noise_std: float, background: Background = "collapsed", dimension: int = 200) -> float:
    """Return the learning rate from which Eq. 5, the expansion to second order, lets one feature collapse."""
    return float(stability.second_order_critical_learning_rate(*moments(noise_std, background, dimension)))


def slowest_learning_rate(steps: int, dimension: int = 200) -> float:
    """Return the learning rate below which steps are too few to learn: the factors grow by less than e."""
    return dimension / (2 * steps)


def _log_mean_of_noise(ratio: Array) -> Array:
    """Return ``E log|1 + ratio z|`` for standard normal ``z`` and ratios of 0 or larger."""
    from numpy.polynomial.polynomial import polyval

    small = ratio < 1 / _SERIES_FROM
    # The asymptotic series keeps its relative precision where the exponent is tiny; from 8 on its error is below 1e-13.
    order = np.arange(1, 28)
    coefficient = -np.cumprod(2.0 * order - 1) / (2 * order)
    square = np.where(small, ratio, 0.0) ** 2
    series = square * polyval(square, coefficient)
    large = np.where(small, 1.0, ratio)
    return np.where(small, series, np.log(large) + _mean_log_shifted_normal()(1 / large))


@cache
def _mean_log_shifted_normal() -> np.polynomial.Chebyshev:
    """Return ``m -> E log|z + m|`` on [0, 8], z standard normal.

    Its derivative is ``sqrt(2) D(m / sqrt(2))`` with D Dawson's integral; at 0 it is ``-(log 2 + Euler's gamma) / 2``.
    """
    from scipy.special import dawsn

    derivative = np.polynomial.Chebyshev.interpolate(
        lambda m: np.sqrt(2) * dawsn(m / np.sqrt(2)), deg=90, domain=[0.0, _SERIES_FROM]
    )
    return derivative.integ(lbnd=0.0, k=[-(np.log(2) + np.euler_gamma) / 2])
