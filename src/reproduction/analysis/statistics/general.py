"""Statistics of any variable: its value, the difference or the ratio of two of its values, its trend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from pydantic import TypeAdapter, ValidationError

from reproduction.analysis.derived import Named, variable_of
from reproduction.analysis.statistics import selection
from reproduction.analysis.statistics.selection import At, Reduce, Results, StatisticError, dataset_of

Side = dict[str, Any]
"""Places laid over those of ``at``; beside them ``experiment``, ``variable`` and ``reduce`` of this side alone."""


def value(
    results: Results, *, experiment: str, variable: Named, at: At | None = None, reduce: Reduce | None = None
) -> xr.DataArray:
    """Return a variable at one place."""
    return _side(results, {}, experiment, variable, at, reduce)


def difference(
    results: Results,
    *,
    of: Side,
    minus: Side,
    experiment: str | None = None,
    variable: Named | None = None,
    at: At | None = None,
    absolute: bool = False,
    reduce: Reduce | None = None,
) -> xr.DataArray:
    """Return what the variable is on one side more than on the other.

    The sides share their places in ``at``. What both keep is subtracted place by place, so ``reduce`` sees only places
    at which both finished.
    """
    left = _side(results, of, experiment, variable, at, None)
    right = _side(results, minus, experiment, variable, at, None)
    found = left - right
    return _reduced(abs(found) if absolute else found, reduce)


def ratio(
    results: Results,
    *,
    of: Side,
    by: Side,
    experiment: str | None = None,
    variable: Named | None = None,
    at: At | None = None,
    reduce: Reduce | None = None,
) -> xr.DataArray:
    """Return how many times the variable is on one side what it is on the other; NaN where that is 0."""
    left = _side(results, of, experiment, variable, at, None)
    right = _side(results, by, experiment, variable, at, None)
    return _reduced(left / right.where(right != 0), reduce)


def trend(
    results: Results,
    *,
    experiment: str,
    variable: Named,
    along: str,
    at: At | None = None,
    reduce: Reduce | None = None,
) -> xr.DataArray:
    """Return Spearman's rank correlation of a variable with a coordinate, 0 where the variable is constant."""
    data = _side(results, {}, experiment, variable, at, reduce)
    if along not in data.dims:
        raise StatisticError(f"{data.name} has no dimension {along!r} to follow")

    def correlation(values: Any) -> float:
        from scipy.stats import spearmanr

        places = np.flatnonzero(np.isfinite(values))
        if places.size < 3:
            return float("nan")
        if np.ptp(values[places]) == 0:
            return 0.0
        return float(spearmanr(places, values[places]).statistic)

    followed: xr.DataArray = xr.apply_ufunc(correlation, data.sortby(along), input_core_dims=[[along]], vectorize=True)
    return followed


def _side(
    results: Results, side: Side, experiment: str | None, variable: Named | None, at: At | None, how: Reduce | None
) -> xr.DataArray:
    places: dict[str, Any] = {**(at or {}), **side}
    experiment = places.pop("experiment", experiment)
    variable = places.pop("variable", variable)
    how = places.pop("reduce", how)
    if experiment is None or variable is None:
        raise StatisticError("a difference or ratio needs an experiment and a variable, its own or of each side")
    try:
        checked = TypeAdapter(At).validate_python(places)
        order = TypeAdapter(Reduce).validate_python(how or {})
    except ValidationError as error:
        raise StatisticError(f"{places or how!r} does not fit: {error.errors()[0]['msg']}") from None
    data = variable_of(dataset_of(results, experiment), variable)
    return selection.reduce(selection.select(data, checked), order)


def _reduced(data: xr.DataArray, how: Reduce | None) -> xr.DataArray:
    return selection.reduce(data.rename("the comparison"), how or {})


STATISTICS: dict[str, Callable[..., xr.DataArray]] = {
    "value": value,
    "difference": difference,
    "ratio": ratio,
    "trend": trend,
}
