"""How alike the penultimate neurons of a network are, in their firing and in their weights (Figures 3 and 6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mirrorsym import measures
from reproduction.analysis.statistics.selection import nearest
from reproduction.contract import FINISHED

PAPER_DECAY = 1e-3
"""The weight decay of the paper's figures, PyTorch's number."""
Matrix = NDArray[np.float64]


def decay_shown(dataset: xr.Dataset) -> float:
    """Return the weight decay of a sweep that is nearest to the paper's.

    Raises:
        NoDataError: if there is none above 0.
    """
    return float(dataset["weight_decay"][nearest(dataset["weight_decay"], PAPER_DECAY)])


def counts(dataset: xr.Dataset, activation: str = "pre") -> xr.Dataset:
    """Return what figures and tables count of each network; of the end NaN where a run did not finish.

    Args:
        dataset: results of the homogeneity experiment.
        activation: ``"pre"`` or ``"post"``, the side of the activation on which neurons are correlated.

    Returns:
        ``homogeneous_pairs``, ``clusters``, ``constant_neurons``, ``close_pairs`` and ``test_accuracy`` (of the end
        alone) with dimensions (weight_decay, seed, when), ``when`` being ``"start"`` or ``"end"`` of the training.
    """
    moments, accuracy = [], dataset["test_accuracy"].astype(float)
    for prefix in ("initial_", ""):
        matrix = f"{prefix}correlation_{activation}"
        variables = {
            "homogeneous_pairs": homogeneous_pairs(dataset, matrix),
            "clusters": clusters(dataset, matrix),
            "constant_neurons": constant_neurons(dataset, matrix),
            "close_pairs": close_pairs(dataset, matrix, f"{prefix}weight_distance"),
            "test_accuracy": accuracy if not prefix else accuracy * np.nan,
        }
        has_weights = dataset[f"{prefix}weight_distance"].notnull().any(["neuron", "neuron_2"])
        measured = has_weights if prefix else dataset["status"] == FINISHED  # a network that diverged had a start
        moments.append(xr.Dataset(variables).where(measured))
    return xr.concat(moments, xr.Variable("when", ["start", "end"])).transpose(..., "when")


def homogeneous_pairs(
    dataset: xr.Dataset, matrix: str, threshold: float = measures.HOMOGENEOUS_CORRELATION
) -> xr.DataArray:
    """Return the fraction of pairs of non-constant neurons correlated above a threshold."""
    return of_matrices(lambda one: measures.homogeneous_pairs(one, threshold), dataset[matrix])


def constant_neurons(dataset: xr.Dataset, matrix: str) -> xr.DataArray:
    """Return the number of constant neurons."""
    return of_matrices(lambda one: float(np.isnan(np.diagonal(one)).sum()), dataset[matrix])


def alive_fraction(dataset: xr.Dataset, matrix: str) -> xr.DataArray:
    """Return the fraction of neurons that are not constant."""
    return 1 - constant_neurons(dataset, matrix) / dataset.sizes["neuron"]


def clusters(dataset: xr.Dataset, matrix: str, threshold: float = measures.HOMOGENEOUS_CORRELATION) -> xr.DataArray:
    """Return the number of groups of correlated neurons."""
    return of_matrices(lambda one: float(measures.clusters(one, threshold)), dataset[matrix])


def groups(dataset: xr.Dataset, matrix: str, threshold: float) -> xr.DataArray:
    """Return the number of groups of correlated neurons as a share of the non-constant ones; NaN without any."""
    alive = dataset.sizes["neuron"] - constant_neurons(dataset, matrix)
    return clusters(dataset, matrix, threshold) / alive.where(alive > 0)


def close_pairs(
    dataset: xr.Dataset, matrix: str, distances: str, distance: float = measures.IDENTICAL_DISTANCE
) -> xr.DataArray:
    """Return the fraction of pairs of non-constant neurons whose weights are within a distance; NaN without any."""

    def share(one: Matrix, apart: Matrix) -> float:
        alive = np.isfinite(np.diagonal(one))
        between = apart[np.ix_(alive, alive)]
        pairs = between[np.triu_indices(len(between), k=1)]
        return float((pairs < distance).mean()) if pairs.size else float("nan")

    return of_matrices(share, dataset[matrix], dataset[distances])


def copies(dataset: xr.Dataset, matrix: str, threshold: float, distance: float) -> xr.DataArray:
    """Return of the pairs of neurons correlated above a threshold the share whose weights are within a distance."""

    def share(one: Matrix, apart: Matrix) -> float:
        pairs = np.triu_indices(len(one), k=1)
        alike = one[pairs] > threshold
        return float((apart[pairs][alike] <= distance).mean()) if alike.any() else float("nan")

    return of_matrices(share, dataset[matrix], dataset["weight_distance"])


def matrix_similarity(dataset: xr.Dataset, first: str, second: str) -> xr.DataArray:
    """Return the correlation between the entries off the diagonal of two matrices, over the neurons that both have."""

    def similarity(one: Matrix, other: Matrix) -> float:
        pairs = np.triu_indices(len(one), k=1)
        left, right = one[pairs], other[pairs]
        both = np.isfinite(left) & np.isfinite(right)
        if both.sum() < 3 or np.ptp(left[both]) == 0 or np.ptp(right[both]) == 0:
            return float("nan")
        return float(np.corrcoef(left[both], right[both])[0, 1])

    return of_matrices(similarity, dataset[first], dataset[second])


def representation_rank(dataset: xr.Dataset, matrix: str, relative: float) -> xr.DataArray:
    """Return the rank of what the layer says of the test pictures, each neuron scaled to variance 1.

    Its singular values are the roots of the correlation matrix's eigenvalues; a constant neuron adds none.
    """

    def count(one: Matrix) -> float:
        alive = np.isfinite(np.diagonal(one))
        if not alive.any():
            return 0.0
        eigenvalues = np.linalg.eigvalsh(one[np.ix_(alive, alive)])
        return float(measures.rank(np.sqrt(np.maximum(eigenvalues, 0)), relative))

    return of_matrices(count, dataset[matrix])


def of_matrices(function: Callable[..., float], *matrices: xr.DataArray) -> xr.DataArray:
    """Return a function of matrices with dimensions (…, neuron, neuron_2), place by place."""
    core = [["neuron", "neuron_2"]] * len(matrices)
    found: xr.DataArray = xr.apply_ufunc(function, *matrices, input_core_dims=core, vectorize=True)
    return found
