"""Variables that follow from those of the result files, by the names that the files of claims use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from reproduction.analysis import neurons, ranks, runs
from reproduction.analysis.statistics.selection import StatisticError
from reproduction.contract import FINISHED
from reproduction.pipeline import store
from reproduction.theory import rescaled_regressor
from reproduction.theory.rescaled_regressor import Background

Rule = Literal["exact", "second_order"]
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


def sparsity_gain(dataset: xr.Dataset) -> xr.DataArray:
    """Return the fraction of weights below each threshold, less that before training."""
    gain: xr.DataArray = dataset["sparsity"] - dataset["initial_sparsity"]
    return gain


def excess_risk(dataset: xr.Dataset) -> xr.DataArray:
    """Return the squared distance of the regressor to the true weights: its risk above the noise."""
    weight = dataset["weight"].astype(float)
    squares: xr.DataArray = ((weight - true_weights(dataset)) ** 2).sum("feature", skipna=False)
    return squares


def true_weights(dataset: xr.Dataset) -> xr.DataArray:
    """Return the true weight of each feature of a regressor: 1/n for the n informative ones, which come first."""
    informative = store.settings_of(dataset).get("informative") or dataset.sizes["feature"]
    weights: xr.DataArray = (dataset["feature"] < informative) / informative
    return weights


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


def prediction_over_onset(
    dataset: xr.Dataset, fraction: float, background: Background, rule: Rule = "exact"
) -> xr.DataArray:
    """Return the predicted critical learning rate over that of :func:`inverse_onset`; 0 where no run is sparse.

    Args:
        dataset: a sweep of the rescaled regressor.
        fraction: of weights that makes a run sparse.
        background: whether the other features are at zero or at their targets.
        rule: the zero of the exact exponent, or of its expansion to second order (Eq. 5).
    """
    features = dataset.sizes["feature"]
    critical = [
        critical_learning_rates(noise, background, features)[0]
        if rule == "exact"
        else rescaled_regressor.second_order(noise, background, features)
        for noise in map(float, dataset["noise_std"].values)
    ]
    return inverse_onset(dataset, fraction) * xr.DataArray(critical, coords={"noise_std": dataset["noise_std"].values})


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


def smallest_rise_of_dead(dataset: xr.Dataset, gradient: str, threshold: float) -> xr.DataArray:
    """Return the smallest change of the fraction of dead parameters from one task to the next."""
    share = dead_fraction(dataset, gradient, threshold).isel(task=slice(1, None))
    smallest: xr.DataArray = share.diff("task").min("task", skipna=False)
    return smallest


DERIVED: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        runs.finished,
        sparsity_gain,
        excess_risk,
        inverse_onset,
        prediction_over_onset,
        ranks.rank_at,
        dead_fraction,
        dead_that_stay,
        smallest_rise_of_dead,
        neurons.homogeneous_pairs,
        neurons.alive_fraction,
        neurons.groups,
        neurons.copies,
        neurons.matrix_similarity,
        neurons.representation_rank,
        ranks.within_layer_gap,
        ranks.between_layer_gap,
        ranks.between_seed_gap,
    )
}

SIGNED = frozenset(
    {"sparsity_gain", "smallest_rise_of_dead", "curvature_across", "position", "lyapunov_exponent", "matrix_similarity"}
)
"""Variables, derived or of the result files, that can be negative."""
