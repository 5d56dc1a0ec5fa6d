"""Variables that claims need and that follow from those of the result files: dead fractions, pairs alike, onsets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mirrorsym import measures
from reproduction.analysis.statistics.selection import StatisticError
from reproduction.contract import DIVERGED, FINISHED
from reproduction.theory import rescaled_regressor
from reproduction.theory.rescaled_regressor import Background

Named = str | dict[str, float | str]
"""A variable's name, or ``name`` with the options of a derived one."""


def variable_of(dataset: xr.Dataset, variable: Named) -> xr.DataArray:
    """Return a variable of a result file or a derived one, NaN where the run did not finish.

    Raises:
        StatisticError: if there is no such variable, or its options do not fit.
    """
    options = {"name": variable} if isinstance(variable, str) else dict(variable)
    name = str(options.pop("name", ""))
    if name in dataset.data_vars and not options:
        return dataset[name]
    if name not in DERIVED:
        known = [*map(str, dataset.data_vars), *DERIVED]
        raise StatisticError(f"there is no variable {name!r} (known: {', '.join(known)})")
    try:
        found: xr.DataArray = DERIVED[name](dataset, **options)
    except (KeyError, TypeError) as error:
        raise StatisticError(f"variable {name!r} cannot be derived with {options}: {error}") from None
    if name != "finished" and set(dataset["status"].dims) <= set(found.dims):
        found = found.where(dataset["status"] == FINISHED)
    return found.rename(name)


def finished(dataset: xr.Dataset) -> xr.DataArray:
    """Return 1 where a run finished, 0 where it diverged, NaN where the sweep has none."""
    status = dataset["status"]
    ended: xr.DataArray = (status == FINISHED).astype(float)
    return ended.where((status == FINISHED) | (status == DIVERGED))


def sparsity_gain(dataset: xr.Dataset) -> xr.DataArray:
    """Return the fraction of weights below each threshold, less that before training."""
    gain: xr.DataArray = dataset["sparsity"] - dataset["initial_sparsity"]
    return gain


def excess_risk(dataset: xr.Dataset) -> xr.DataArray:
    """Return the squared distance of the regressor to the true weights, 1/features each: its risk above the noise."""
    weight = dataset["weight"].astype(float)
    squares: xr.DataArray = ((weight - 1 / weight.sizes["feature"]) ** 2).sum("feature", skipna=False)
    return squares


def inverse_onset(dataset: xr.Dataset, fraction: float) -> xr.DataArray:
    """Return one over the learning rate from which a fraction of the weights is sparse; 0 where none that finishes is.

    The learning rate is interpolated, in its logarithm, between the last one below and the first one above.
    """
    data = dataset["sparsity"].sortby("learning_rate")
    rates = data["learning_rate"].values

    def inverse(values: NDArray[np.float64]) -> float:
        places = np.flatnonzero(np.isfinite(values))
        if not places.size:
            return float("nan")
        above = places[values[places] >= fraction]
        if not above.size:
            return 0.0
        first = above[0]
        below = places[places < first]
        if not below.size:
            return 1 / float(rates[first])
        last = below[-1]
        share = (fraction - values[last]) / (values[first] - values[last])
        return float(1 / np.exp(np.log(rates[last]) + share * np.log(rates[first] / rates[last])))

    found: xr.DataArray = xr.apply_ufunc(inverse, data, input_core_dims=[["learning_rate"]], vectorize=True)
    return found


critical_learning_rates = functools.cache(rescaled_regressor.critical_learning_rates)


def prediction_over_onset(dataset: xr.Dataset, fraction: float, background: Background) -> xr.DataArray:
    """Return the exact critical learning rate over that of :func:`inverse_onset`; 0 where no run is sparse."""
    features = dataset.sizes["feature"]
    critical = [critical_learning_rates(float(noise), background, features)[0] for noise in dataset["noise_std"].values]
    return inverse_onset(dataset, fraction) * xr.DataArray(critical, coords={"noise_std": dataset["noise_std"].values})


def rank_at(dataset: xr.Dataset, relative: float) -> xr.DataArray:
    """Return the rank by another relative threshold than :data:`mirrorsym.measures.RELATIVE_RANK_THRESHOLD`."""
    values = dataset["singular_value"]
    counts: xr.DataArray = xr.apply_ufunc(
        lambda spectra: measures.rank(spectra, relative=relative).astype(float), values, input_core_dims=[["mode"]]
    )
    return counts.where(values.notnull().all("mode"))


def dead_fraction(dataset: xr.Dataset, gradient: str, threshold: float) -> xr.DataArray:
    """Return the fraction of a model's parameters whose gradient is below a threshold, after each task."""
    values = dataset[gradient]
    exists = values.notnull()
    count = exists.sum("parameter")
    share: xr.DataArray = ((values < threshold) & exists).sum("parameter") / count.where(count > 0)
    return share


def dead_that_stay(dataset: xr.Dataset, gradient: str, threshold: float) -> xr.DataArray:
    """Return of the parameters that are dead after a task the fraction that is after the next; NaN without any."""
    dead = dataset[gradient].isel(task=slice(1, None)) < threshold
    before, after = dead.isel(task=slice(None, -1), drop=True), dead.isel(task=slice(1, None), drop=True)
    after = after.assign_coords(task=before["task"].values)
    count = before.sum(["task", "parameter"])
    share: xr.DataArray = (before & after).sum(["task", "parameter"]) / count.where(count > 0)
    return share


def homogeneous_pairs(dataset: xr.Dataset, matrix: str, threshold: float) -> xr.DataArray:
    """Return the fraction of pairs of non-constant neurons correlated above a threshold."""
    return of_matrices(lambda one: measures.homogeneous_pairs(one, threshold), dataset[matrix])


def alive_fraction(dataset: xr.Dataset, matrix: str) -> xr.DataArray:
    """Return the fraction of neurons that are not constant."""
    return of_matrices(lambda one: float(np.isfinite(np.diagonal(one)).mean()), dataset[matrix])


def groups(dataset: xr.Dataset, matrix: str, threshold: float) -> xr.DataArray:
    """Return the number of groups of correlated neurons as a share of the non-constant ones."""

    def share(one: NDArray[np.float64]) -> float:
        alive = int(np.isfinite(np.diagonal(one)).sum())
        return measures.clusters(one, threshold) / alive if alive else float("nan")

    return of_matrices(share, dataset[matrix])


def copies(dataset: xr.Dataset, matrix: str, threshold: float, distance: float) -> xr.DataArray:
    """Return of the pairs of neurons correlated above a threshold the share whose weights are within a distance."""

    def share(one: NDArray[np.float64], apart: NDArray[np.float64]) -> float:
        pairs = np.triu_indices(len(one), k=1)
        alike = one[pairs] > threshold
        return float((apart[pairs][alike] <= distance).mean()) if alike.any() else float("nan")

    return of_matrices(share, dataset[matrix], dataset["weight_distance"])


def matrix_similarity(dataset: xr.Dataset, first: str, second: str) -> xr.DataArray:
    """Return the correlation between the entries off the diagonal of two matrices, over the neurons that both have."""

    def similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        pairs = np.triu_indices(len(one), k=1)
        left, right = one[pairs], other[pairs]
        both = np.isfinite(left) & np.isfinite(right)
        if both.sum() < 3 or np.ptp(left[both]) == 0 or np.ptp(right[both]) == 0:
            return float("nan")
        return float(np.corrcoef(left[both], right[both])[0, 1])

    return of_matrices(similarity, dataset[first], dataset[second])


def within_layer_gap(dataset: xr.Dataset) -> xr.DataArray:
    """Return the distance between the ranks of key and query of a layer."""
    rank = dataset["rank"]
    gap: xr.DataArray = abs(rank.sel(matrix="key", drop=True) - rank.sel(matrix="query", drop=True))
    return gap


def between_layer_gap(dataset: xr.Dataset) -> xr.DataArray:
    """Return the distance between the ranks of the two layers, for keys and for queries."""
    rank = dataset["rank"]
    gap: xr.DataArray = abs(rank.sel(layer=1, drop=True) - rank.sel(layer=2, drop=True))
    return gap


def between_seed_gap(dataset: xr.Dataset) -> xr.DataArray:
    """Return the distance of each rank from that of the other seeds, mean over them; NaN with one seed."""
    return other_seeds(dataset["rank"], dataset["rank"])


def other_seeds(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return the mean distance of each seed's value from the other array's values at the other seeds."""
    far = abs(one - other.rename(seed="other_seed"))
    far = far.where(far["seed"] != far["other_seed"])
    if far.sizes["other_seed"] < 2:
        return one * np.nan
    mean: xr.DataArray = far.sum("other_seed", min_count=1) / far.notnull().sum("other_seed")
    return mean.transpose(*one.dims)


def of_matrices(function: Callable[..., float], *matrices: xr.DataArray) -> xr.DataArray:
    """Return a function of matrices with dimensions (…, neuron, neuron_2), place by place."""
    core = [["neuron", "neuron_2"]] * len(matrices)
    found: xr.DataArray = xr.apply_ufunc(function, *matrices, input_core_dims=core, vectorize=True)
    return found


DERIVED: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        finished,
        sparsity_gain,
        excess_risk,
        inverse_onset,
        prediction_over_onset,
        rank_at,
        dead_fraction,
        dead_that_stay,
        homogeneous_pairs,
        alive_fraction,
        groups,
        copies,
        matrix_similarity,
        within_layer_gap,
        between_layer_gap,
        between_seed_gap,
    )
}
