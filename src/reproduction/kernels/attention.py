"""Compiled training of one layer of self-attention on in-context regression (Section B.6).

Only the last token's output enters the loss, so with ``a = W_Kᵀ W_Q x_last / √d`` and the one row ``v`` of the value
matrix that writes the label, a data point X needs ``X a``, ``X v`` and, backwards, two sums of its rows: one pass while
X is in the first-level cache. The other rows of the value matrix never receive a gradient and are left out.

Arrays decide the precision. Every width is padded with zeros to a multiple of 8, one vector register of float32; the
padding never receives a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
"""Lets sums vectorize; infinities and NaN keep their meaning, since a diverged run is recognized by them."""

Array = NDArray[Any]


class Problem(NamedTuple):
    """A data set in the form that the loops read.

    Args:
        tokens: X of every point, shape (points, tokens, padded width); the last entry of the last token, the masked
            label, is 0.
        last: the last token of every point, shape (points, padded width).
        targets: shape (points,).
        label: the column of a token that holds its label.
        scale: 1/√d, d the width before padding.
    """

    tokens: Array
    last: Array
    targets: Array
    label: int
    scale: float

    @classmethod
    def of(cls, tokens: Array, targets: Array) -> Problem:
        """Pad ``tokens``, shape (points, tokens, width), whose last column is the label."""
        wide = pad(tokens, (2,))
        return cls(wide, wide[:, -1].copy(), targets, tokens.shape[2] - 1, tokens.shape[2] ** -0.5)


class Descent(NamedTuple):
    """How parameters move.

    Args:
        learning_rate: λ.
        weight_decay: PyTorch's number, 2γ.
        adam: Adam with β = (0.9, 0.999), or plain gradient descent.
        decoupled: Adam's decay acts on the parameters, as in torch.optim.AdamW, or on the gradient, as in Adam.
    """

    learning_rate: float
    weight_decay: float
    adam: bool = True
    decoupled: bool = False


def pad(array: Array, axes: Sequence[int]) -> Array:
    """Return a copy of ``array`` whose ``axes`` are padded with zeros to a multiple of 8."""
    shape = [-(-size // 8) * 8 if axis in axes else size for axis, size in enumerate(array.shape)]
    wide = np.zeros(shape, array.dtype)
    wide[tuple(slice(size) for size in array.shape)] = array
    return wide


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def descend(parameters, gradient, moments, step, descent):  # type: ignore[no-untyped-def]
    """Take step number ``step``, counted from 1, in place; ``moments`` are Adam's averages, shape (2, parameters)."""
    real = parameters.dtype.type
    shrunk = real(1.0 - descent.learning_rate * descent.weight_decay)
    if not descent.adam:
        rate = real(descent.learning_rate)
        for i in range(parameters.size):
            parameters[i] = shrunk * parameters[i] - rate * gradient[i]
        return
    beta1, beta2 = 0.9, 0.999
    rate = real(descent.learning_rate / (1.0 - beta1**step))
    spread = real(1.0 / np.sqrt(1.0 - beta2**step))
    keep = shrunk if descent.decoupled else real(1.0)
    pull = real(0.0) if descent.decoupled else real(descent.weight_decay)
    new1, new2, old2, epsilon = real(1.0 - beta1), real(1.0 - beta2), real(beta2), real(1e-8)
    first, second = moments
    for i in range(parameters.size):
        slope = gradient[i] + pull * parameters[i]
        first[i] += new1 * (slope - first[i])
        second[i] = old2 * second[i] + new2 * slope * slope
        parameters[i] = keep * parameters[i] - rate * first[i] / (np.sqrt(second[i]) * spread + epsilon)


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def softmax(scores):  # type: ignore[no-untyped-def]
    """Replace ``scores``, one-dimensional, by their softmax."""
    largest = scores[0]
    for i in range(scores.size):
        largest = max(largest, scores[i])
    total = scores.dtype.type(0.0)
    for i in range(scores.size):
        scores[i] = np.exp(scores[i] - largest)
        total += scores[i]
    for i in range(scores.size):
        scores[i] /= total


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def two_products(rows, a, b, rows_a, rows_b):  # type: ignore[no-untyped-def]
    """Write ``rows @ a`` and ``rows @ b``; four rows at a time, so that a and b are loaded once for them."""
    count, width = rows.shape
    zero = rows.dtype.type(0.0)
    for i in range(0, count - 3, 4):
        a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
        for j in range(width):
            x0, x1, x2, x3 = rows[i, j], rows[i + 1, j], rows[i + 2, j], rows[i + 3, j]
            a0 += x0 * a[j]
            a1 += x1 * a[j]
            a2 += x2 * a[j]
            a3 += x3 * a[j]
            b0 += x0 * b[j]
            b1 += x1 * b[j]
            b2 += x2 * b[j]
            b3 += x3 * b[j]
        rows_a[i], rows_a[i + 1], rows_a[i + 2], rows_a[i + 3] = a0, a1, a2, a3
        rows_b[i], rows_b[i + 1], rows_b[i + 2], rows_b[i + 3] = b0, b1, b2, b3
    for i in range(count - count % 4, count):
        a0, b0 = zero, zero
        for j in range(width):
            a0 += rows[i, j] * a[j]
            b0 += rows[i, j] * b[j]
        rows_a[i], rows_b[i] = a0, b0


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def add_two_sums(rows, a, b, sum_a, sum_b):  # type: ignore[no-untyped-def]
    """Add ``a @ rows`` to ``sum_a`` and ``b @ rows`` to ``sum_b``."""
    count, width = rows.shape
    for i in range(0, count - 3, 4):
        a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
        b0, b1, b2, b3 = b[i], b[i + 1], b[i + 2], b[i + 3]
        for j in range(width):
            x0, x1, x2, x3 = rows[i, j], rows[i + 1, j], rows[i + 2, j], rows[i + 3, j]
            sum_a[j] += (a0 * x0 + a1 * x1) + (a2 * x2 + a3 * x3)
            sum_b[j] += (b0 * x0 + b1 * x1) + (b2 * x2 + b3 * x3)
    for i in range(count - count % 4, count):
        for j in range(width):
            sum_a[j] += a[i] * rows[i, j]
            sum_b[j] += b[i] * rows[i, j]


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _points(tokens, targets, value, by_point, value_slope):  # type: ignore[no-untyped-def]
    """Run every point forwards and backwards while its tokens are in the cache; return the sum of squared errors.

    Args:
        tokens: X, shape (points, tokens, width).
        targets: shape (points,).
        value: v, shape (width,).
        by_point: a of every point, shape (points, width); overwritten by the loss's gradient at it.
        value_slope: overwritten by the loss's gradient at v, shape (width,).
    """
    points, count, _ = tokens.shape
    zero, weight = tokens.dtype.type(0.0), tokens.dtype.type(2.0 / points)
    attention, read = np.empty(count, tokens.dtype), np.empty(count, tokens.dtype)
    value_slope[:] = zero
    squares = 0.0
    for n in range(points):
        two_products(tokens[n], by_point[n], value, attention, read)
        softmax(attention)
        prediction = zero
        for i in range(count):
            prediction += attention[i] * read[i]
        error = prediction - targets[n]
        squares += float(error) * float(error)
        for i in range(count):
            attention[i] *= weight * error
            read[i] = attention[i] * (read[i] - prediction)
        by_point[n] = zero
        add_two_sums(tokens[n], read, attention, by_point[n], value_slope)
    return squares


def loss_and_gradient(problem: Problem, parameters: Array, gradient: Array) -> float:
    """Return the mean squared error and write its gradient.

    Args:
        problem: the data.
        parameters: W_K, W_Q, each width × width, and the last row of W_V, flat.
        gradient: of the same shape, overwritten.
    """
    width = problem.last.shape[1]
    end = 2 * width * width
    key, query = parameters[:end].reshape(2, width, width)
    key_slope, query_slope = gradient[:end].reshape(2, width, width)
    scale = parameters.dtype.type(problem.scale)
    by_point = problem.last @ (query.T @ key * scale)
    squares = _points(problem.tokens, problem.targets, parameters[end:], by_point, gradient[end:])
    product_slope = problem.last.T @ by_point * scale
    np.dot(query, product_slope, out=key_slope)
    np.dot(key, product_slope.T, out=query_slope)
    return float(squares / len(problem.targets))


def train(
    loss_and_gradient: Callable[[Problem, Array, Array], float],
    problem: Problem,
    parameters: Array,
    moments: Array,
    first: int,
    steps: int,
    descent: Descent,
) -> None:
    """Take full-batch steps in place.

    Args:
        loss_and_gradient: of this module, or of :mod:`reproduction.kernels.attention_two_layers`.
        problem: the data.
        parameters: flat, as ``loss_and_gradient`` wants them.
        moments: Adam's two averages, shape (2, parameters.size); zeros before the first step.
        first: number of steps taken before.
        steps: number of steps to take.
        descent: how.
    """
    gradient = np.empty_like(parameters)
    for step in range(first + 1, first + steps + 1):
        loss_and_gradient(problem, parameters, gradient)
        descend(parameters, gradient, moments, step, descent)
