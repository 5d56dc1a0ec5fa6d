"""Compiled training loop of continual regression: Adam without momentum on a linear model of one or two factors.

Section 3.4 and Appendix B.3 of the paper. The dtype of ``x`` and ``weights`` decides the precision of everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[Any]

# Only sums over features are reordered. Adam's own arithmetic is not: whether a collapsed weight can come back depends
# on where learning_rate * gradient underflows, so the product comes before the division, as in torch.optim.Adam.
_SUMS = {"reassoc", "contract", "nsz"}
_EXACT = {"contract"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)  # type: ignore[untyped-decorator]
def _product_gradient(x: Floats, y: Floats, batch: NDArray[np.int32], product: Floats, gradient: Floats) -> None:
    """Set ``gradient`` to that of the batch's mean squared error by ``product``; four samples share one pass."""
    size, dimension = batch.size, x.shape[1]
    zero, scale = x.dtype.type(0), x.dtype.type(2 / size)
    blocked = size - size % 4
    gradient[:] = zero
    for start in range(0, blocked, 4):
        k0, k1, k2, k3 = batch[start], batch[start + 1], batch[start + 2], batch[start + 3]
        e0, e1, e2, e3 = zero, zero, zero, zero
        for i in range(dimension):
            e0 += x[k0, i] * product[i]
            e1 += x[k1, i] * product[i]
            e2 += x[k2, i] * product[i]
            e3 += x[k3, i] * product[i]
        e0 = scale * (e0 - y[k0])
        e1 = scale * (e1 - y[k1])
        e2 = scale * (e2 - y[k2])
        e3 = scale * (e3 - y[k3])
        for i in range(dimension):
            gradient[i] += e0 * x[k0, i] + e1 * x[k1, i] + e2 * x[k2, i] + e3 * x[k3, i]
    for start in range(blocked, size):
        k = batch[start]
        e = zero
        for i in range(dimension):
            e += x[k, i] * product[i]
        e = scale * (e - y[k])
        for i in range(dimension):
            gradient[i] += e * x[k, i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)  # type: ignore[untyped-decorator]
def _adam(
    weights: Floats,
    second_moment: Floats,
    gradient: Floats,
    learning_rate: Any,
    beta2: Any,
    rest: Any,
    epsilon: Any,
    correction: Any,
) -> None:
    for i in range(weights.size):
        slope = gradient[i]
        moment = beta2 * second_moment[i] + rest * slope * slope
        second_moment[i] = moment
        weights[i] -= learning_rate * slope / (np.sqrt(moment) * correction + epsilon)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)  # type: ignore[untyped-decorator]
def train(
    x: Floats,
    y: Floats,
    batches: NDArray[np.int32],
    noise: NDArray[np.float32],
    noise_std: float,
    bias: Floats,
    learning_rate: float,
    beta2: float,
    epsilon: float,
    corrections: Floats,
    weights: Floats,
    second_moment: Floats,
) -> None:
    """Train on one task, in place, by ``torch.optim.Adam``'s update at β₁ = 0 on the mean squared error of each batch.

    The model is ``x @ (weights + bias).prod(axis=0)``: one row of weights is plain linear regression, two rows are
    the regression with rescaling symmetry.

    Args:
        x: inputs, shape (points, dimension).
        y: targets, shape (points,).
        batches: indices of the points of each step's batch, shape (steps, batch_size).
        noise: standard normal numbers, shape (steps, factors, dimension), read where ``noise_std`` is not 0.
        noise_std: standard deviation of the noise added to each gradient before Adam normalizes it.
        bias: fixed constants added to the weights, shape (factors, dimension).
        learning_rate: step length λ.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        corrections: (1 - beta2^t)^(-1/2) at each step's count t, shape (steps,).
        weights: trained in place, shape (factors, dimension), one or two factors.
        second_moment: Adam's state, in place, of the weights' shape.
    """
    kind = x.dtype.type
    factors, dimension = weights.shape
    strength, rate, decay, rest, small = (
        kind(noise_std), kind(learning_rate), kind(beta2), kind(1 - beta2), kind(epsilon),
    )  # fmt: skip
    product = np.empty(dimension, x.dtype)
    shared = np.empty(dimension, x.dtype)
    gradient = np.empty((factors, dimension), x.dtype)
    for step in range(batches.shape[0]):
        for i in range(dimension):
            product[i] = weights[0, i] + bias[0, i]
            if factors == 2:
                product[i] *= weights[1, i] + bias[1, i]
        _product_gradient(x, y, batches[step], product, shared)
        if factors == 2:
            for i in range(dimension):
                gradient[0, i] = shared[i] * (weights[1, i] + bias[1, i])
                gradient[1, i] = shared[i] * (weights[0, i] + bias[0, i])
        else:
            gradient[0] = shared
        if noise_std > 0:
            for row in range(factors):
                for i in range(dimension):
                    gradient[row, i] += strength * noise[step, row, i]
        for row in range(factors):
            _adam(weights[row], second_moment[row], gradient[row], rate, decay, rest, small, corrections[step])
