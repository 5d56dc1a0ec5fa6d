"""When a symmetric solution attracts: Lyapunov exponents, critical learning rates and critical weight decays.

Near a symmetric solution one symmetry-breaking direction ``s`` evolves under SGD as ``s <- (1 - lambda h) s``, where
``h`` is the curvature of the sample just drawn (Eq. 4). It collapses if and only if ``E log|1 - lambda h| < 0``
(Section 2.4). Several directions at once are a product of random matrices, whose exponents QR factorizations give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from mirrorsym.mirrors import Mirror

Array = NDArray[np.float64]


def lyapunov_exponent(
    learning_rate: ArrayLike, curvature: ArrayLike, probability: ArrayLike | None = None, weight_decay: float = 0.0
) -> Array:
    """Return ``E log|1 - learning_rate (curvature + weight_decay)|``, the growth of a direction per step (Section 2.4).

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


def lyapunov_spectrum(matrices: Iterable[Array], basis: Array | None = None) -> Array:
    """Return the Lyapunov exponents of a product of random matrices, by a QR factorization after each factor.

    For a direction alone it is the exponent of Section 2.4; a space that collapses has several.

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
        columns, growth = orthonormalize(matrix @ columns)
        total = growth if steps == 0 else total + growth
        steps += 1
    if not steps:
        raise ValueError("matrices is empty; a Lyapunov spectrum needs at least one factor")
    return np.sort(total / steps)[::-1]


def orthonormalize(columns: Array) -> tuple[Array, Array]:
    """Return an orthonormal basis of the columns and the logarithm of each one's new length.

    Args:
        columns: shape (n, k), k at most n.

    Returns:
        Basis of shape (n, k) and logarithms of shape (k,), minus infinity where a column depends on those before it.
    """
    basis, triangle = np.linalg.qr(columns)
    with np.errstate(divide="ignore"):
        return basis, np.log(np.abs(np.diagonal(triangle)))


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
