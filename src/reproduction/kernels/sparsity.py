"""SGD on a linear regressor with 200 inputs, one online sample (or batch) a step, for all runs of a sweep at once.

Each run is a loop of its own over a shared block of samples, and SIMD works across the features. So the arithmetic of
a run, and with it every bit of its result, is the same whatever other runs are in the job. The dtype of the arrays
decides the precision. ``status`` holds one of RUNNING, DIVERGED and ABSORBED for each run; only running ones advance.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reproduction.contract import DIVERGED

RUNNING, ABSORBED = 0, 2
"""States of a run beside the contract's ``DIVERGED``."""

BLOCK = 50
"""Steps between two looks at a run: whether it diverged, and which weights have collapsed for good."""

DIVERGED_NORM = 1e6
"""A run has diverged when the norm of its regressor is above this or not a number; the target's norm is 0.07."""

COLLAPSED = 1e-30
"""Two factors below this become exactly zero.

Their product is below 1e-60, which is under the smallest float32, so the prediction and the sparsity already ignore it;
to matter again both would have to grow 10^27-fold. It keeps float32 out of its subnormal numbers, which are slow.
"""

_FASTMATH = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")
def advance_vanilla(
    x: NDArray[np.floating],
    signal: NDArray[np.floating],
    noise: NDArray[np.floating],
    learning_rate: NDArray[np.floating],
    noise_std: NDArray[np.floating],
    weight: NDArray[np.floating],
    status: NDArray[np.int8],
) -> None:
    """Advance w by SGD on (w·x - signal - noise_std * noise)², one sample a step (Section 3.1, without rescaling).

    Args:
        x: inputs, shape (steps, features).
        signal: the noiseless labels, shape (steps,).
        noise: unit noise of the labels, shape (steps,).
        learning_rate: shape (runs,).
        noise_std: shape (runs,).
        weight: w, shape (runs, features), changed in place.
        status: shape (runs,), changed in place.
    """
    steps, features = x.shape
    zero = x.dtype.type(0)
    groups = (steps + 3) // 4
    # Rows of zeros behind the last sample: they move nothing, and the last group needs a next one.
    samples = np.zeros((4 * groups + 4, features), x.dtype)
    targets = np.zeros((4 * groups, 2), x.dtype)
    for step in range(steps):
        targets[step, 0] = signal[step]
        targets[step, 1] = noise[step]
        for i in range(features):
            samples[step, i] = x[step, i]
    products = _products_within_groups(samples)
    for run in range(status.size):
        if status[run] != RUNNING:
            continue
        w = weight[run]
        rate = learning_rate[run] + learning_rate[run]
        sigma = noise_std[run]
        p0, p1, p2, p3 = zero, zero, zero, zero
        for i in range(features):
            p0 += w[i] * samples[0, i]
            p1 += w[i] * samples[1, i]
            p2 += w[i] * samples[2, i]
            p3 += w[i] * samples[3, i]
        # Four steps share one pass over the weights: what earlier steps of a group add to a prediction is a product of
        # samples, the same for every run. The pass also makes the predictions for the next group.
        for group in range(groups):
            t = 4 * group
            g = products[group]
            c0 = rate * (targets[t, 0] + sigma * targets[t, 1] - p0)
            c1 = rate * (targets[t + 1, 0] + sigma * targets[t + 1, 1] - p1 - c0 * g[0])
            c2 = rate * (targets[t + 2, 0] + sigma * targets[t + 2, 1] - p2 - c0 * g[1] - c1 * g[2])
            c3 = rate * (targets[t + 3, 0] + sigma * targets[t + 3, 1] - p3 - c0 * g[3] - c1 * g[4] - c2 * g[5])
            p0, p1, p2, p3 = zero, zero, zero, zero
            for i in range(features):
                wi = (
                    w[i] + c0 * samples[t, i] + c1 * samples[t + 1, i] + c2 * samples[t + 2, i] + c3 * samples[t + 3, i]
                )
                w[i] = wi
                p0 += wi * samples[t + 4, i]
                p1 += wi * samples[t + 5, i]
                p2 += wi * samples[t + 6, i]
                p3 += wi * samples[t + 7, i]
        total = zero
        for i in range(features):
            total += w[i] * w[i]
        if not total < DIVERGED_NORM * DIVERGED_NORM:
            status[run] = DIVERGED


@njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _products_within_groups(samples: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the inner products of the samples of each group of four: 01, 02, 12, 03, 13, 23; shape (groups, 6)."""
    products = np.zeros((len(samples) // 4, 6), samples.dtype)
    for group in range(len(products)):
        place = 0
        for later in range(1, 4):
            for earlier in range(later):
                total = samples.dtype.type(0)
                for i in range(samples.shape[1]):
                    total += samples[4 * group + earlier, i] * samples[4 * group + later, i]
                products[group, place] = total
                place += 1
    return products


@njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _settle(w: NDArray[np.floating], u: NDArray[np.floating]) -> int:
    """Set collapsed pairs of factors to zero and return the status of a run."""
    total = w.dtype.type(0)
    largest = w.dtype.type(0)
    for i in range(w.size):
        size = abs(w[i]) + abs(u[i])
        keep = w.dtype.type(1) if size > COLLAPSED else w.dtype.type(0)
        w[i] *= keep
        u[i] *= keep
        largest = max(largest, keep)
        total += (w[i] * u[i]) * (w[i] * u[i])
    if not total < DIVERGED_NORM * DIVERGED_NORM:
        return DIVERGED
    return RUNNING if largest > 0 else ABSORBED


@njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")
def advance_rescaled(
    x: NDArray[np.floating],
    signal: NDArray[np.floating],
    noise: NDArray[np.floating],
    learning_rate: NDArray[np.floating],
    noise_std: NDArray[np.floating],
    w: NDArray[np.floating],
    u: NDArray[np.floating],
    status: NDArray[np.int8],
) -> None:
    """Advance w and u by SGD on ((w⊙u)·x - signal - noise_std * noise)², one sample a step (Section 3.1).

    Args:
        x: inputs, shape (steps, features).
        signal: the noiseless labels, shape (steps,).
        noise: unit noise of the labels, shape (steps,).
        learning_rate: shape (runs,).
        noise_std: shape (runs,).
        w: first factor, shape (runs, features), changed in place.
        u: second factor, likewise.
        status: shape (runs,), changed in place.
    """
    steps, features = x.shape
    zero = x.dtype.type(0)
    for run in range(status.size):
        if status[run] != RUNNING:
            continue
        a = w[run]
        b = u[run]
        rate = learning_rate[run] + learning_rate[run]
        sigma = noise_std[run]
        prediction = zero
        for i in range(features):
            prediction += a[i] * b[i] * x[0, i]
        for step in range(steps):
            gradient = rate * (signal[step] + sigma * noise[step] - prediction)
            following = min(step + 1, steps - 1)
            prediction = zero
            for i in range(features):
                slope = gradient * x[step, i]
                ai = a[i] + slope * b[i]
                bi = b[i] + slope * a[i]
                a[i] = ai
                b[i] = bi
                prediction += ai * bi * x[following, i]
        status[run] = _settle(a, b)


@njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")
def advance_rescaled_batch(
    normal: NDArray[np.floating],
    along: NDArray[np.floating],
    noise: NDArray[np.floating],
    learning_rate: NDArray[np.floating],
    noise_std: float,
    w: NDArray[np.floating],
    u: NDArray[np.floating],
    status: NDArray[np.int8],
) -> None:
    """Advance w and u by SGD on the mean loss of a fresh batch a step, for standard normal inputs.

    With δ = 1/features - w⊙u, a batch X with unit label noise ε enters the gradient only through Xᵀe, e = Xδ + σε. For
    standard normal X, the part of X along δ is ζ = Xδ/|δ|, a standard normal vector with one entry a sample, and the
    part orthogonal to it, projected on e, is |e| times a standard normal vector z without its component along δ, drawn
    apart from ζ and ε. Hence Xᵀe = (ζ·e) δ/|δ| + |e| (z - δ (z·δ)/|δ|²) has exactly the law of SGD with that batch, at
    features + 2 batch_size normal numbers a step in place of (features + 1) batch_size.

    Args:
        normal: z, shape (steps, features).
        along: ζ, shape (steps, batch_size).
        noise: ε, shape (steps, batch_size).
        learning_rate: shape (runs,).
        noise_std: σ.
        w: first factor, shape (runs, features), changed in place.
        u: second factor, likewise.
        status: shape (runs,), changed in place.
    """
    steps, features = normal.shape
    batch = along.shape[1]
    zero = normal.dtype.type(0)
    target = normal.dtype.type(1 / features)
    sigma = normal.dtype.type(noise_std)
    per_sample = normal.dtype.type(2 / batch)
    sums = np.empty((steps, 3), normal.dtype)
    for step in range(steps):
        along_along = zero
        along_noise = zero
        noise_noise = zero
        for j in range(batch):
            along_along += along[step, j] * along[step, j]
            along_noise += along[step, j] * noise[step, j]
            noise_noise += noise[step, j] * noise[step, j]
        sums[step, 0] = along_along
        sums[step, 1] = along_noise
        sums[step, 2] = noise_noise
    for run in range(status.size):
        if status[run] != RUNNING:
            continue
        a = w[run]
        b = u[run]
        rate = per_sample * learning_rate[run]
        square = zero
        overlap = zero
        for i in range(features):
            delta = target - a[i] * b[i]
            square += delta * delta
            overlap += delta * normal[0, i]
        for step in range(steps):
            length = np.sqrt(square)
            along_error = length * sums[step, 0] + sigma * sums[step, 1]
            # Never negative but by rounding: it is a sum of squares written out.
            error_square = max(length * (along_error + sigma * sums[step, 1]) + sigma * sigma * sums[step, 2], zero)
            across = rate * np.sqrt(error_square)
            inward = rate * along_error / length - across * overlap / square
            following = min(step + 1, steps - 1)
            square = zero
            overlap = zero
            for i in range(features):
                slope = inward * (target - a[i] * b[i]) + across * normal[step, i]
                ai = a[i] + slope * b[i]
                bi = b[i] + slope * a[i]
                a[i] = ai
                b[i] = bi
                delta = target - ai * bi
                square += delta * delta
                overlap += delta * normal[following, i]
        status[run] = _settle(a, b)
