"""What the paper counts: rank, sparsity, homogeneity, dead parameters. One definition each, for every experiment."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELATIVE_RANK_THRESHOLD = 1e-2
ABSOLUTE_RANK_THRESHOLD = 1e-6
ZERO_THRESHOLD = 1e-6
"""Magnitude below which a parameter or a gradient counts as zero (Fig. 7)."""
IDENTICAL_DISTANCE = 0.1
"""Distance in weight, relative to the norms, below which two neurons count as copies."""


def rank(
    singular_values: ArrayLike,
    relative: float = RELATIVE_RANK_THRESHOLD,
    absolute: float = ABSOLUTE_RANK_THRESHOLD,
) -> NDArray[np.intp]:
    """Count the singular values above ``max(relative * largest, absolute)`` (the ranks of Figs. 3, 8, 9 and 10).

    The absolute part is there for matrices that have collapsed: relative alone finds rank 1 at a norm of 1e-20.

    Args:
        singular_values: shape (..., modes), in any order.
        relative: threshold relative to the largest singular value.
        absolute: threshold in the matrix's own units.

    Returns:
        Ranks, shape (...).
    """
    values = np.asarray(singular_values, dtype=float)
    threshold = np.maximum(relative * values.max(axis=-1, keepdims=True), absolute)
    return np.asarray((values > threshold).sum(axis=-1))


def sparsity(parameters: ArrayLike, threshold: float = ZERO_THRESHOLD) -> NDArray[np.float64]:
    """Return the fraction of parameters with a magnitude below ``threshold`` (the paper's definition, Fig. 7).

    Args:
        parameters: shape (..., parameters).
        threshold: magnitude under which a parameter counts as zero.

    Returns:
        Fractions between 0 and 1, shape (...).
    """
    return np.asarray((np.abs(np.asarray(parameters)) < threshold).mean(axis=-1))


CONSTANT_THRESHOLD = 1e-3
HOMOGENEOUS_CORRELATION = 0.95


def correlation(activations: ArrayLike, constant: float = CONSTANT_THRESHOLD) -> NDArray[np.float64]:
    """Return the correlation matrix of neurons over data points (Fig. 6); constant neurons' entries are NaN.

    A neuron is constant where its standard deviation is at most ``constant`` times the largest one: what is left of a
    neuron that has decayed to 10⁻²⁰ still has a direction, and it says nothing.

    Args:
        activations: shape (points, neurons).
        constant: standard deviation, relative to the largest one, up to which a neuron is constant.

    Returns:
        Shape (neurons, neurons).
    """
    values = np.asarray(activations, dtype=float)
    centred = values - values.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    alive = norms > constant * norms.max()
    unit = centred[:, alive] / norms[alive]
    result = np.full((values.shape[1],) * 2, np.nan)
    result[np.ix_(alive, alive)] = np.clip(unit.T @ unit, -1, 1)
    return result


def correlation_order(correlations: ArrayLike) -> NDArray[np.intp]:
    """Return the paper's order of neurons: by the top eigenvector of the matrix (Appendix B.2), constant ones last.

    The eigenvector's sign is chosen so that its entries sum to a positive number.

    Args:
        correlations: shape (neurons, neurons), NaN for constant neurons.

    Returns:
        The neuron drawn at each position, shape (neurons,).
    """
    matrix = np.asarray(correlations, dtype=float)
    alive = np.flatnonzero(~np.isnan(np.diagonal(matrix)))
    constant = np.flatnonzero(np.isnan(np.diagonal(matrix)))
    if alive.size == 0:
        return constant
    top = np.linalg.eigh(matrix[np.ix_(alive, alive)])[1][:, -1]
    top = -top if top.sum() < 0 else top
    return np.concatenate([alive[np.argsort(-top, kind="stable")], constant])


def homogeneous_pairs(correlations: ArrayLike, threshold: float = HOMOGENEOUS_CORRELATION) -> float:
    """Return the fraction of pairs of neurons correlated above a threshold (Section 3.3); NaN without two neurons.

    Args:
        correlations: shape (neurons, neurons); constant neurons, whose entries are NaN, are left out.
        threshold: correlation from which a pair counts.
    """
    matrix = np.asarray(correlations, dtype=float)
    pairs = matrix[np.triu_indices(len(matrix), k=1)]
    pairs = pairs[~np.isnan(pairs)]
    return float((pairs > threshold).mean()) if pairs.size else float("nan")


def clusters(correlations: ArrayLike, threshold: float = HOMOGENEOUS_CORRELATION) -> int:
    """Return the number of groups of neurons that chains of correlations above a threshold connect (Section 3.3).

    A neuron that is like no other is a group of its own, so there are as many groups as neurons where none are alike.

    Args:
        correlations: shape (neurons, neurons); constant neurons, whose entries are NaN, are left out.
        threshold: correlation from which two neurons belong together.
    """
    matrix = np.asarray(correlations, dtype=float)
    alive = ~np.isnan(np.diagonal(matrix))
    linked = matrix[np.ix_(alive, alive)] > threshold
    np.fill_diagonal(linked, True)
    labels = np.arange(len(linked))
    while True:
        smallest = np.where(linked, labels, len(linked)).min(axis=1, initial=len(linked))
        if np.array_equal(smallest, labels):
            return len(np.unique(labels))
        labels = smallest


def weight_distance(weights: ArrayLike) -> NDArray[np.float64]:
    """Return how far each pair of neurons is from the mirror of its exchange, relative to their norms (Eq. 11).

    For neurons with weights a and b it is ‖a - b‖ / √(‖a‖² + ‖b‖²), √2 ‖Pθ‖ / ‖θ‖ for θ = (a, b) and P of Eq. 11: 0 for
    identical neurons, 1 for orthogonal ones, at most √2. NaN where both are zero.

    Args:
        weights: the weights of one neuron a row, incoming, bias and outgoing, shape (neurons, weights).

    Returns:
        Shape (neurons, neurons).
    """
    rows = np.asarray(weights, dtype=float)
    squares = (rows**2).sum(axis=1)
    norms = np.sqrt(squares[:, None] + squares)
    distances = np.array([np.linalg.norm(rows - row, axis=1) for row in rows])
    return np.asarray(np.divide(distances, norms, out=np.full_like(norms, np.nan), where=norms > 0))
