"""When a symmetric solution attracts: Lyapunov exponents, critical learning rates and critical weight decays.

Near a symmetric solution one symmetry-breaking direction ``s`` evolves under SGD as ``s <- (1 - lambda h) s``, where
``h`` is the curvature of the sample just drawn (Eq. 4). It collapses if and only if ``E log|1 - lambda h| < 0``
(Section 2.4). Several directions at once are a product of random matrices, whose exponents QR factorizations give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from mirrorsym.mirrors import Mirror

Background = Literal["collapsed", "learnt"]
"""Whether all other features of a rescaled regressor are at zero or at their target."""

Array = NDArray[np.float64]


def lyapunov_exponent(
    learning_rate: ArrayLike, curvature: ArrayLike, probability: ArrayLike | None = None, weight_decay: float = 0.0
) -> Array:
    """Return ``E log|1 - learning_rate (curvature + weight_decay)|``, the growth per step of one direction.

    Args:
        learning_rate: any shape.
        curvature: the values that the per-sample curvature takes, or samples of it, shape (values,).
        probability: weight of each value, shape (values,), summing to 1; None for equal weights.
        weight_decay: what the decay adds to every curvature: 2 gamma for ``loss + gamma ||theta||**2``, which is the
            number that PyTorch calls ``weight_decay``.

    Returns:
        Exponents in the shape of ``learning_rate``; minus infinity where a step can land on zero exactly.

    Raises:
        ValueError: if ``probability`` has another shape than ``curvature`` or does not sum to 1.
    """
    values = np.asarray(curvature, dtype=float).reshape(-1) + weight_decay
    rates = np.asarray(learning_rate, dtype=float)
    weights = np.full(values.shape, 1 / values.size)
    if probability is not None:
        weights = np.asarray(probability, dtype=float)
        if weights.shape != values.shape or not np.isclose(weights.sum(), 1):
            raise ValueError(
                f"probability has shape {weights.shape} and sum {weights.sum():g}; "
                f"it needs shape {values.shape}, one weight for each curvature, and sum 1"
            )
    with np.errstate(divide="ignore"):
        growth = [weights @ np.log(np.abs(1 - rate * values)) for rate in rates.reshape(-1)]
    return np.reshape(growth, rates.shape)


def lyapunov_exponent_of_density(
    learning_rate: float, density: Callable[[float], float], support: tuple[float, float], weight_decay: float = 0.0
) -> float:
    """Return ``E log|1 - learning_rate (h + weight_decay)|`` for a curvature ``h`` with a given density.

    Adaptive quadrature, split where the logarithm diverges.

    Args:
        learning_rate: larger than 0.
        density: probability density of the curvature, finite inside ``support``.
        support: where the density lives; finite bounds, far enough out that the rest has no weight.
        weight_decay: what the decay adds to every curvature (see :func:`lyapunov_exponent`).
    """
    from scipy.integrate import quad

    lower, upper = support
    pole = 1 / learning_rate - weight_decay
    cuts = sorted({lower, upper, *(point for point in (pole, 0.0) if lower < point < upper)})

    def integrand(curvature: float) -> float:
        return density(curvature) * float(np.log(abs(1 - learning_rate * (curvature + weight_decay)) or 1e-300))

    parts = (quad(integrand, a, b, limit=500, epsabs=1e-12)[0] for a, b in pairwise(cuts))
    return float(sum(parts))


def second_order_critical_learning_rate(mean: ArrayLike, mean_square: ArrayLike, weight_decay: float = 0.0) -> Array:
    """Return the critical learning rate of Eq. 5, ``-2 E[h] / E[h**2]`` with ``h = curvature + weight_decay``.

    Args:
        mean: first moment of the per-sample curvature without the decay, any shape.
        mean_square: its second moment, same shape.
        weight_decay: what the decay adds to every curvature: 2 gamma for ``loss + gamma ||theta||**2``. The paper
            writes ``xi + gamma``, which holds for PyTorch's ``weight_decay``.

    Returns:
        Learning rates above which the direction collapses; 0 where it collapses at every small learning rate.
    """
    first, second = np.asarray(mean, dtype=float), np.asarray(mean_square, dtype=float)
    shifted_second = second + 2 * weight_decay * first + weight_decay**2
    return np.maximum(-2 * (first + weight_decay) / shifted_second, 0.0)


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


def rescaled_regressor_moments(
    noise_std: float, background: Background = "collapsed", dimension: int = 200
) -> tuple[float, float]:
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


def rescaled_regressor_exponent(
    learning_rate: ArrayLike, noise_std: float, background: Background = "collapsed", dimension: int = 200
) -> Array:
    """Return the exact Lyapunov exponent of one collapsed feature of the rescaled regressor, at batch size 1.

    The law of the curvature is in :func:`rescaled_regressor_moments`. Given ``x_i`` the mean over the residual is a
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


def rescaled_regressor_critical_learning_rates(
    noise_std: float, background: Background = "collapsed", dimension: int = 200
) -> tuple[float, float]:
    """Return the learning rates between which one collapsed feature of the rescaled regressor stays collapsed.

    Both are zeros of :func:`rescaled_regressor_exponent`, to about 1e-9 relative; (nan, nan) where the noise is too
    weak for a collapse at any learning rate. Eq. 5 approximates the lower one.

    Raises:
        ValueError: if ``background`` is neither of the two.
    """
    if _rest_variance(noise_std, background, dimension) == 0:
        return float("nan"), float("nan")
    _, mean_square = rescaled_regressor_moments(noise_std, background, dimension)
    return critical_learning_rates(
        lambda rate: float(rescaled_regressor_exponent(rate, noise_std, background, dimension)),
        scale=1 / float(np.sqrt(mean_square)),
    )


_SERIES_FROM = 8.0


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


def lyapunov_spectrum(matrices: Iterable[Array], basis: Array | None = None) -> Array:
    """Return the Lyapunov exponents of a product of random matrices, by a QR factorization after each factor.

    Args:
        matrices: the factors in the order in which they act, each of shape (n, n); at least one.
        basis: orthonormal columns to start from, shape (n, k), for the k largest exponents; None for all n.

    Returns:
        Exponents per factor in decreasing order, shape (k,).

    Raises:
        ValueError: if there is no factor, or one has another shape than the first.
    """
    columns, total, steps = basis, np.zeros(0), 0
    for matrix in matrices:
        if columns is None:
            columns = np.eye(len(matrix))
        if matrix.shape != (len(columns), len(columns)):
            raise ValueError(f"factor {steps} has shape {matrix.shape}; it needs {(len(columns), len(columns))}")
        columns, growth = _orthonormalize(matrix @ columns)
        total = growth if steps == 0 else total + growth
        steps += 1
    if not steps:
        raise ValueError("matrices is empty; a Lyapunov spectrum needs at least one factor")
    return np.sort(total / steps)[::-1]


def _orthonormalize(columns: Array) -> tuple[Array, Array]:
    """Return an orthonormal basis of the columns and the logarithm of each one's new length."""
    basis, triangle = np.linalg.qr(columns)
    with np.errstate(divide="ignore"):
        return basis, np.log(np.abs(np.diagonal(triangle)))


def factorization_spectrum(
    learning_rate: float,
    signal: float,
    generator: np.random.Generator,
    steps: int = 4000,
    dimension: int = 200,
) -> Array:
    """Return the leading Lyapunov exponents of matrix factorization at ``W = U = 0`` (Figure 3, middle).

    Batch size 1, loss ``||W U x - y||**2`` with ``y = signal x + (1 - signal) noise`` and noise of variance ``2 / i``
    in output i from 1. Linearized, each hidden unit's outgoing weights a and incoming weights b follow the same product
    of random matrices, ``a += 2 learning_rate y (x @ b)`` and ``b += 2 learning_rate x (y @ a)``. The number of
    positive exponents is the number of directions that leave zero, and so the predicted rank.

    Args:
        learning_rate: larger than 0.
        signal: the paper's mu, between 0 and 1.
        generator: source of the inputs and the noise.
        steps: factors in the product after a quarter as many that only turn the basis.
        dimension: of input, hidden layer and output.

    Returns:
        The ``dimension`` largest exponents per step in decreasing order.
    """
    noise_std = np.sqrt(2 / np.arange(1, dimension + 1))
    # Start at the modes of the diagonal approximation, those with the least noise first: little is left to turn.
    order = np.arange(dimension)[::-1]
    columns = np.zeros((2 * dimension, dimension))
    columns[order, np.arange(dimension)] = columns[dimension + order, np.arange(dimension)] = np.sqrt(0.5)
    total = np.zeros(dimension)
    block = _block_length(learning_rate, signal, noise_std)
    done, burn_in = 0, steps // 4
    while done < burn_in + steps:
        count = min(block, burn_in - done if done < burn_in else burn_in + steps - done)
        x = generator.standard_normal((count, dimension))
        y = signal * x + (1 - signal) * noise_std * generator.standard_normal((count, dimension))
        columns, growth = _orthonormalize(factorization_block(columns, x, y, learning_rate))
        if done >= burn_in:
            total += growth
        done += count
    return np.sort(total / steps)[::-1]


def _block_length(learning_rate: float, signal: float, noise_std: Array) -> int:
    """Return how many steps may pass between two factorizations before the columns lose their directions."""
    dimension = len(noise_std)
    output_norm = np.sqrt((signal**2 + (1 - signal) ** 2 * noise_std**2).sum())
    return int(np.clip(np.log(1e10) / np.log1p(2 * learning_rate * np.sqrt(dimension) * output_norm), 1, 64))


def factorization_block(columns: Array, x: Array, y: Array, learning_rate: float) -> Array:
    """Apply several steps of linearized matrix factorization to a set of columns with matrix products only.

    The steps change ``a`` within the span of the outputs and ``b`` within that of the inputs, by coefficients that
    solve a unit lower triangular system.

    Args:
        columns: each column is (a, b), shape (outputs + inputs, k).
        x: inputs in the order of the steps, shape (steps, inputs).
        y: targets, shape (steps, outputs).
        learning_rate: of SGD on the squared loss without a half.

    Returns:
        The columns after the steps, same shape.
    """
    from scipy.linalg import solve_triangular

    rate = 2 * learning_rate
    a, b = columns[: y.shape[1]], columns[y.shape[1] :]
    earlier_x, earlier_y = np.tril(x @ x.T, -1), np.tril(y @ y.T, -1)
    x_b, y_a = x @ b, y @ a
    system = np.eye(len(x)) - rate**2 * earlier_x @ earlier_y
    along_y = solve_triangular(
        system, rate * (x_b + rate * earlier_x @ y_a), lower=True, unit_diagonal=True, check_finite=False
    )
    along_x = rate * (y_a + earlier_y @ along_y)
    return np.concatenate([a + y.T @ along_y, b + x.T @ along_x])


def factorization_rank(exponents: ArrayLike) -> NDArray[np.intp]:
    """Return the number of positive exponents, the predicted rank; the last axis holds the exponents."""
    return np.asarray((np.asarray(exponents) > 0).sum(axis=-1))


def diagonal_factorization_critical_learning_rates(signal: float, dimension: int = 200) -> Array:
    """Return Eq. 5 for each mode of matrix factorization, as if the modes did not mix.

    Mode i has the curvature ``-2 x_i y_i`` and so the learning rate ``mu / (3 mu**2 + (1 - mu)**2 2 / i)``; the number
    of modes with one above the learning rate in use approximates :func:`factorization_rank`.

    Returns:
        Learning rates in the order i = 1 to ``dimension``, shape (dimension,).
    """
    noise_variance = 2 / np.arange(1, dimension + 1)
    return second_order_critical_learning_rate(
        np.full(dimension, -2 * signal), 4 * (3 * signal**2 + (1 - signal) ** 2 * noise_variance)
    )


def gamma_0(loss: Callable[[Any], Any], mirror: Mirror, w: Any) -> float:
    """Return the weight decay above which projecting ``w`` onto the mirror lowers the loss (Theorem 1, part 3).

    Args:
        loss: the loss without decay, parameter vector to number.
        mirror: a mirror that the loss has.
        w: parameters off the mirror, shape (parameters,).

    Returns:
        gamma_0 of ``loss + gamma ||w||**2``: the rise of the loss over the squared distance to the mirror. Negative
        where the projection is better without any decay.

    Raises:
        ValueError: if ``w`` lies on the mirror, where both sides are equal at every decay.
    """
    distance = float(mirror.distance(w))
    if distance <= 1e-14 * float((w**2).sum() ** 0.5):
        raise ValueError("w lies on the mirror, so gamma_0 is not defined; pass parameters off the mirror")
    return (float(loss(mirror.project(w))) - float(loss(w))) / distance**2


def gamma_1(smallest_eigenvalue: float) -> float:
    """Return a weight decay above which every minimum lies on the mirror (Theorem 1, part 4).

    Above it ``loss + gamma ||w||**2``, whose Hessian is that of the loss plus ``2 gamma``, is strictly convex.

    Args:
        smallest_eigenvalue: lower bound of the eigenvalues of the Hessian of the loss over all parameters
            (Assumption 1), without decay.
    """
    return max(-smallest_eigenvalue / 2, 0.0)
