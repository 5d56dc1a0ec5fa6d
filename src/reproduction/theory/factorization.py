"""When matrix factorization leaves zero: the Lyapunov spectrum at W = U = 0 (Figure 3, middle)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirrorsym.stability import second_order_critical_learning_rate

Array = NDArray[np.float64]
Columns = NDArray[np.floating]
"""Of either precision."""
BATCHES = 8
"""Into how many parts an average is cut to know its standard error."""
BLOCK = 64
"""Steps that are multiplied together with matrix products."""
LOG_SPREAD = float(np.log(1e3))
"""By how much, in logarithms, columns may grow apart before they are made orthogonal: float32 has seven digits."""


@dataclass(frozen=True)
class Spectrum:
    """Leading Lyapunov exponents of a product of random matrices, per step, with their standard errors.

    Args:
        exponents: in decreasing order.
        errors: the standard error of each.
        escape: growth of a single direction, which settles at the largest exponent: from below, and without the upward
            bias of a largest of many estimates.
        escape_error: its standard error.
        steps: factors of the product; the exponents are averages over the second half of them.
        settled: whether number and size of the exponents have stopped moving, within their standard errors.
    """

    exponents: Array
    errors: Array
    escape: float
    escape_error: float
    steps: int
    settled: bool


def spectrum(
    learning_rate: float,
    signal: float,
    generator: np.random.Generator,
    steps: int = 65536,
    dimension: int = 200,
) -> Spectrum:
    """Return the leading Lyapunov exponents of matrix factorization at ``W = U = 0`` (Figure 3, middle).

    Batch size 1, loss ``||W U x - y||**2`` with ``y = signal x + (1 - signal) noise`` and noise of variance ``2 / i``
    in output i from 1. Linearized, each hidden unit's outgoing weights a and incoming weights b follow the same product
    of random matrices, ``a += 2 learning_rate y (x @ b)`` and ``b += 2 learning_rate x (y @ a)``. The number of
    positive exponents is the number of directions that leave zero, and so the predicted rank.

    The basis turns towards its final one for long, so that the product grows by doubling until the averages over its
    second half agree with those over the half before, and the number of positive exponents is known to a hundredth of
    the dimension, or to one.

    Args:
        learning_rate: larger than 0.
        signal: the paper's mu, between 0 and 1.
        generator: source of the inputs and the noise.
        steps: factors at most; it starts from a sixteenth of them.
        dimension: of input, hidden layer and output.

    Returns:
        The ``dimension`` largest exponents.
    """
    growing = _Product(learning_rate, signal, generator, dimension)
    length = max(steps // 32, BATCHES)
    growing.run(length)
    found = growing.average(length)
    while 2 * found.steps <= steps and not found.settled:
        longer = growing.average(found.steps)
        found = replace(longer, settled=_agree(found, longer))
    return found


def _agree(before: Spectrum, after: Spectrum) -> bool:
    """Return whether two averages of a spectrum differ by no more than two standard errors."""
    allowed = 2 * np.hypot(count_error(before), count_error(after))
    moved = abs(predicted_rank(before.exponents) - predicted_rank(after.exponents))
    drift = abs(before.escape - after.escape) <= 2 * np.hypot(before.escape_error, after.escape_error)
    return bool(moved <= allowed and drift and count_error(after) <= max(1, len(after.exponents) / 100))


def count_error(spectrum: Spectrum) -> float:
    """Return the standard error of the number of positive exponents, as if each were off by itself."""
    from scipy.special import ndtr

    errors = np.maximum(spectrum.errors, np.finfo(float).tiny)
    positive = ndtr(spectrum.exponents / errors)
    return float(np.sqrt((positive * (1 - positive)).sum()))


class _Product:
    """A growing product of random matrices, on columns that are kept apart; in float32, whose digits suffice."""

    def __init__(self, learning_rate: float, signal: float, generator: np.random.Generator, dimension: int) -> None:
        self.rate, self.signal, self.generator = np.float32(learning_rate), np.float32(signal), generator
        variance = 2 / np.arange(1, dimension + 1)
        self.noise_std = np.sqrt(variance).astype(np.float32)
        # Start at the modes of the diagonal approximation, those with the least noise first: little is left to turn.
        order = np.arange(dimension)[::-1]
        self.columns: Columns = np.zeros((2 * dimension, dimension), np.float32)
        self.columns[order, np.arange(dimension)] = self.columns[dimension + order, np.arange(dimension)] = np.sqrt(0.5)
        # Steps between two factorizations: first what no product exceeds, then by how fast columns turn out to part.
        output_norm = np.sqrt((signal**2 + (1 - signal) ** 2 * variance).sum())
        self.period = max(1.0, LOG_SPREAD / float(np.log1p(2 * learning_rate * np.sqrt(dimension) * output_norm)))

    def run(self, steps: int) -> Array:
        """Multiply by so many factors; return how the logarithm of each column grew, shape (dimension,)."""
        total = np.zeros(self.columns.shape[1])
        while steps:
            count = min(int(self.period), steps)
            for start in range(0, count, BLOCK):
                self._advance(min(BLOCK, count - start))
            self.columns, triangle = np.linalg.qr(self.columns)
            growth = np.log(np.abs(np.diagonal(triangle)))
            total += growth
            steps -= count
            spread = float(np.ptp(np.append(growth, 0)))  # with 0: what all columns share must not overflow either
            wanted = count * LOG_SPREAD / max(spread, 1e-9)
            self.period = float(np.clip(wanted, 1, 2 * self.period))
        return total

    def _advance(self, count: int) -> None:
        dimension = len(self.noise_std)
        x, noise = np.split(self.generator.standard_normal((count, 2 * dimension), dtype=np.float32), 2, axis=1)
        y = self.signal * x + (1 - self.signal) * self.noise_std * noise
        self.columns = advance(self.columns, x, y, self.rate)

    def average(self, steps: int) -> Spectrum:
        """Multiply by as many factors as there were; return averages over these, whose batches give their errors."""
        edges = np.linspace(0, steps, BATCHES + 1).astype(int)
        growth = np.array([self.run(int(count)) / count for count in np.diff(edges)])
        mean, error = growth.mean(axis=0), growth.std(axis=0, ddof=1) / np.sqrt(BATCHES)
        order = np.argsort(-mean)
        return Spectrum(mean[order], error[order], float(mean[0]), float(error[0]), 2 * steps, settled=False)


def advance(columns: Columns, x: Columns, y: Columns, learning_rate: float | np.floating) -> Columns:
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
    system = np.eye(len(x), dtype=columns.dtype) - rate**2 * earlier_x @ earlier_y
    along_y = solve_triangular(
        system, rate * (x_b + rate * earlier_x @ y_a), lower=True, unit_diagonal=True, check_finite=False
    )
    along_x = rate * (y_a + earlier_y @ along_y)
    return np.concatenate([a + y.T @ along_y, b + x.T @ along_x])


def predicted_rank(exponents: ArrayLike) -> NDArray[np.intp]:
    """Return the number of positive exponents, the predicted rank; the last axis holds the exponents."""
    return np.asarray((np.asarray(exponents) > 0).sum(axis=-1))


def diagonal_rank(signal: float, learning_rate: ArrayLike, dimension: int = 200) -> NDArray[np.intp]:
    """Return how many modes stay by the diagonal approximation, in the shape of ``learning_rate``."""
    rates = np.asarray(learning_rate)[..., None]
    return np.asarray((diagonal_critical_learning_rates(signal, dimension) > rates).sum(axis=-1))


def diagonal_critical_learning_rates(signal: float, dimension: int = 200) -> Array:
    """Return Eq. 5 for each mode of matrix factorization, as if the modes did not mix.

    Mode i has the curvature ``-2 x_i y_i`` and so the learning rate ``mu / (3 mu**2 + (1 - mu)**2 2 / i)``; the number
    of modes with one above the learning rate in use approximates :func:`predicted_rank`.

    Returns:
        Learning rates in the order i = 1 to ``dimension``, shape (dimension,).
    """
    noise_variance = 2 / np.arange(1, dimension + 1)
    return second_order_critical_learning_rate(
        np.full(dimension, -2 * signal), 4 * (3 * signal**2 + (1 - signal) ** 2 * noise_variance)
    )
