"""Training of two layers of self-attention on in-context regression (Section B.6), without the work nobody reads.

The loss reads the second layer's last row only, and that row reads the first layer's output ``H = X + P X V₁ᵀ`` through
``H a``, ``H v`` and the last row of H alone. With ``b = V₁ᵀ a`` and ``c = V₁ᵀ v`` these are ``X a + P (X b)`` and
``X v + P (X c)``: neither the value product nor the attended sums of the other rows are formed. Backwards, the
gradient at the attention P is ``g (X b)ᵀ + f (X c)ᵀ``, two outer products, and a row of its own for the last token.
What remains is four products per point: scores ``X C Xᵀ`` and ``Xᵀ S' X``, with ``C = W_Qᵀ W_K / √d``.

Points are processed in blocks that stay in the cache. Arrays decide the precision; widths are padded as in
:mod:`reproduction.kernels.attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from reproduction.kernels.attention import (
    FASTMATH,
    Array,
    Problem,
    add_two_sums,
    softmax,
    two_products,
)

BLOCK = 20
"""Points in a block. Part of the result's bits: sums over points are taken block by block."""


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _shift_rows(scores):  # type: ignore[no-untyped-def]
    """Subtract from every row of ``scores``, shape (rows, tokens), its maximum."""
    for i in range(scores.shape[0]):
        largest = scores[i, 0]
        for j in range(scores.shape[1]):
            largest = max(largest, scores[i, j])
        for j in range(scores.shape[1]):
            scores[i, j] -= largest


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _normalize(attention, tokens, read):  # type: ignore[no-untyped-def]
    """Divide the rows of ``attention`` by their sums; write what each point's last row of it reads of ``tokens``."""
    points, count, width = tokens.shape
    for n in range(points):
        for i in range(count):
            total = tokens.dtype.type(0.0)
            for j in range(count):
                total += attention[n, i, j]
            inverse = tokens.dtype.type(1.0) / total
            for j in range(count):
                attention[n, i, j] *= inverse
        for k in range(width):
            read[n, k] = tokens.dtype.type(0.0)
        for j in range(count):
            for k in range(width):
                read[n, k] += attention[n, count - 1, j] * tokens[n, j, k]


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _second_layer(  # type: ignore[no-untyped-def]
    tokens, attention, a, b, v, c, skip, targets, weight, by_token, errors, sums_a, sums_b, sum_v, sum_c
):
    """Run the second layer forwards, and backwards up to sums of the tokens; return the sum of squared errors.

    Args:
        tokens: X, shape (points, tokens, width).
        attention: P of the first layer, shape (points, tokens, tokens).
        a: as in the module's docstring, shape (points, width).
        b: as in the module's docstring, shape (points, width).
        v: as in the module's docstring, shape (width,).
        c: as in the module's docstring, shape (width,).
        skip: what the skip connections carry to the predictions, shape (points,).
        targets: shape (points,).
        weight: 2/points of the whole data set.
        by_token: written, shape (points, 6, tokens): X b, P X b, X c, P X c, and the gradients g at H a, f at H v.
        errors: written, the gradient at the predictions, shape (points,).
        sums_a: written, ``Xᵀ g``, shape (points, width).
        sums_b: written, ``Xᵀ Pᵀ g``, shape (points, width).
        sum_v: increased by ``Xᵀ f``, shape (width,).
        sum_c: increased by ``Xᵀ Pᵀ f``, shape (width,).
    """
    points, count, _ = tokens.shape
    zero = tokens.dtype.type(0.0)
    scores, values = np.empty(count, tokens.dtype), np.empty(count, tokens.dtype)
    back_g, back_f = np.empty(count, tokens.dtype), np.empty(count, tokens.dtype)
    loss = 0.0
    for n in range(points):
        xb, pxb, xc, pxc, g, f = by_token[n]
        two_products(tokens[n], a[n], b[n], scores, xb)
        two_products(tokens[n], v, c, values, xc)
        two_products(attention[n], xb, xc, pxb, pxc)
        for i in range(count):
            scores[i] += pxb[i]
            values[i] += pxc[i]
        softmax(scores)
        read = zero
        for i in range(count):
            read += scores[i] * values[i]
        error = skip[n] + read - targets[n]
        loss += float(error) * float(error)
        error *= weight
        errors[n] = error
        for i in range(count):
            f[i] = error * scores[i]
            g[i] = f[i] * (values[i] - read)
        back_g[:], back_f[:], sums_a[n], sums_b[n] = zero, zero, zero, zero
        add_two_sums(attention[n], g, f, back_g, back_f)
        add_two_sums(tokens[n], g, f, sums_a[n], sum_v)
        add_two_sums(tokens[n], back_g, back_f, sums_b[n], sum_c)
    return loss


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def _to_score_gradient(attention, tokens, last_slope, by_token):  # type: ignore[no-untyped-def]
    """Replace the first layer's ``attention`` by the gradient at its scores.

    Args:
        attention: P, shape (points, tokens, tokens).
        tokens: X, shape (points, tokens, width).
        last_slope: gradient at what the last row of P reads, ``Xᵀ P[-1]``, shape (points, width).
        by_token: as :func:`_second_layer` wrote it.
    """
    points, count, width = tokens.shape
    for n in range(points):
        xb, pxb, xc, pxc, g, f = by_token[n]
        last = attention[n, count - 1]
        mean = tokens.dtype.type(0.0)
        slope = np.empty(count, tokens.dtype)
        for j in range(count):
            total = tokens.dtype.type(0.0)
            for k in range(width):
                total += tokens[n, j, k] * last_slope[n, k]
            slope[j] = total
            mean += last[j] * total
        for j in range(count):
            slope[j] = last[j] * (slope[j] - mean)
        for i in range(count):
            for j in range(count):
                attention[n, i, j] *= g[i] * (xb[j] - pxb[i]) + f[i] * (xc[j] - pxc[i])
        for j in range(count):
            last[j] += slope[j]


@dataclass(frozen=True)
class Matrices:
    """Views of a flat parameter (or gradient) vector: five width × width matrices and the second value matrix's row."""

    key1: Array
    query1: Array
    value1: Array
    key2: Array
    query2: Array
    value2: Array

    @classmethod
    def of(cls, flat: Array, width: int) -> Matrices:
        """Split ``flat``, shape (5 width² + width,)."""
        end = 5 * width * width
        key1, query1, value1, key2, query2 = flat[:end].reshape(5, width, width)
        return cls(key1, query1, value1, key2, query2, flat[end:])


def loss_and_gradient(problem: Problem, parameters: Array, gradient: Array) -> float:
    """Return the mean squared error and write its gradient.

    Args:
        problem: the data.
        parameters: W_K, W_Q, W_V of the first layer, W_K, W_Q of the second, each width × width, and the last row of
            the second W_V, flat.
        gradient: of the same shape, overwritten.
    """
    points, count, width = problem.tokens.shape
    dtype = parameters.dtype
    scale, weight = dtype.type(problem.scale), dtype.type(2 / points)
    weights, slopes = Matrices.of(parameters, width), Matrices.of(gradient, width)
    gradient[:] = 0
    scores1 = weights.query1.T @ weights.key1 * scale
    scores2 = weights.query2.T @ weights.key2 * scale
    c = weights.value2 @ weights.value1
    scores1_slope, scores2_slope = np.zeros_like(scores1), np.zeros_like(scores2)
    c_slope = np.zeros_like(c)
    space = np.empty((BLOCK, count, width), dtype)
    attention_space = np.empty((BLOCK, count, count), dtype)
    loss = 0.0
    for first in range(0, points, BLOCK):
        x = problem.tokens[first : first + BLOCK]
        size = len(x)
        product, attention = space[:size], attention_space[:size]
        flat_x, flat_product = x.reshape(-1, width), product.reshape(-1, width)
        np.dot(flat_x, scores1, out=flat_product)
        np.matmul(product, x.transpose(0, 2, 1), out=attention)
        _shift_rows(attention.reshape(-1, count))
        np.exp(attention, out=attention)
        read = np.empty((size, width), dtype)
        _normalize(attention, x, read)

        hidden = x[:, -1] + read @ weights.value1.T
        a = hidden @ scores2
        b = a @ weights.value1
        by_token, errors = np.empty((size, 6, count), dtype), np.empty(size, dtype)
        a_slope, b_slope = np.empty_like(a), np.empty_like(b)
        loss += _second_layer(
            x, attention, a, b, weights.value2, c, np.ascontiguousarray(hidden[:, problem.label]),
            problem.targets[first : first + BLOCK], weight, by_token, errors, a_slope, b_slope,
            slopes.value2, c_slope,
        )  # fmt: skip
        a_slope += b_slope @ weights.value1.T
        hidden_slope = a_slope @ scores2.T
        hidden_slope[:, problem.label] += errors
        scores2_slope += hidden.T @ a_slope
        slopes.value1[...] += a.T @ b_slope
        slopes.value1[...] += hidden_slope.T @ read

        _to_score_gradient(attention, x, hidden_slope @ weights.value1, by_token)
        np.matmul(attention, x, out=product)
        scores1_slope += flat_x.T @ flat_product
    slopes.value1[...] += np.outer(weights.value2, c_slope)
    slopes.value2[...] += weights.value1 @ c_slope
    for key, query, key_slope, query_slope, score_slope in (
        (weights.key1, weights.query1, slopes.key1, slopes.query1, scores1_slope),
        (weights.key2, weights.query2, slopes.key2, slopes.query2, scores2_slope),
    ):
        score_slope *= scale
        np.dot(query, score_slope, out=key_slope)
        np.dot(key, score_slope.T, out=query_slope)
    return float(loss / points)
