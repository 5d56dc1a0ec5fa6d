"""When matrix factorization leaves zero: the Lyapunov spectrum at W = U = 0 (Figure 3, middle)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirrorsym.stability import orthonormalize, second_order_critical_learning_rate

Array = NDArray[np.float64]


def spectrum(
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
        columns, growth = orthonormalize(advance(columns, x, y, learning_rate))
        if done >= burn_in:
            total += growth
        done += count
    return np.sort(total / steps)[::-1]


def _block_length(learning_rate: float, signal: float, noise_std: Array) -> int:
    """Return how many steps may pass between two factorizations before the columns lose their directions."""
    dimension = len(noise_std)
    output_norm = np.sqrt((signal**2 + (1 - signal) ** 2 * noise_std**2).sum())
    return int(np.clip(np.log(1e10) / np.log1p(2 * learning_rate * np.sqrt(dimension) * output_norm), 1, 64))


def advance(columns: Array, x: Array, y: Array, learning_rate: float) -> Array:
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
