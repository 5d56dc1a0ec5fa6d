"""Pick cells of a result file by what the files of claims write, and reduce the dimensions that are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from reproduction.errors import UserError

Place = float | str | list[float | str] | dict[Literal["nearest", "above", "below"], float]
"""A coordinate; several, which are kept; the first or the last one; or the ones near, above or below a number."""

At = dict[str, Place]
Reducer = Literal["mean", "median", "max", "min", "sum", "first", "last"]
Reduce = dict[str, Reducer]
Results = Mapping[str, xr.Dataset]

TOLERANCE = 1e-9


class StatisticError(UserError, ValueError):
    """A statistic of a claim does not exist or does not fit the data."""


class NoDataError(UserError, LookupError):
    """The results hold no data for a statistic: no such experiment, no such value in the sweep."""


def dataset_of(results: Results, experiment: str) -> xr.Dataset:
    """Return an experiment's dataset.

    Raises:
        NoDataError: if there is none.
    """
    if experiment not in results:
        raise NoDataError(f"there is no result of {experiment}")
    return results[experiment]


def select(data: xr.DataArray, at: At) -> xr.DataArray:
    """Return the data at the named places; picked dimensions are gone, lists and bounds keep theirs.

    Raises:
        StatisticError: if the data have no such dimension.
        NoDataError: if the dimension has no such value.
    """
    for dim, place in at.items():
        if dim not in data.dims:
            raise StatisticError(f"{data.name} has no dimension {dim!r}; it has {', '.join(map(str, data.dims))}")
        data = data.isel({dim: _index(data[dim], place)}, drop=True)
    return data


def _index(coordinate: xr.DataArray, place: Place) -> int | list[int]:
    values, name = coordinate.values, coordinate.name
    if place in ("first", "last"):
        return 0 if place == "first" else -1
    if isinstance(place, list):
        return [_exact(values, one, name) for one in place]
    if not isinstance(place, dict):
        return _exact(values, place, name)
    (word, bound), numbers = next(iter(place.items())), values.astype(float)
    if word == "nearest":
        return nearest(coordinate, bound)
    kept = np.flatnonzero(numbers > bound if word == "above" else numbers < bound)
    if not kept.size:
        raise NoDataError(f"no {name} {word} {bound:g} was run")
    return [int(i) for i in kept]


def nearest(coordinate: xr.DataArray, wanted: float) -> int:
    """Return the place of the value above 0 that is nearest to a number, by their ratio.

    Raises:
        NoDataError: if there is none above 0.
    """
    values = coordinate.values.astype(float)
    if not (values > 0).any():
        raise NoDataError(f"no {coordinate.name} above 0 was run")
    with np.errstate(divide="ignore"):
        return int(np.argmin(np.abs(np.log(values / wanted))))


def _exact(values: Any, wanted: float | str, name: Any) -> int:
    if values.dtype.kind in "iuf":
        if isinstance(wanted, str):
            raise StatisticError(f"{name} {wanted!r} is no number")
        found = np.flatnonzero(np.isclose(values.astype(float), wanted, rtol=TOLERANCE, atol=0))
    else:
        found = np.flatnonzero(values == wanted)
    if not found.size:
        text = wanted if isinstance(wanted, str) else f"{wanted:g}"
        raise NoDataError(f"{name} {text} was not run")
    return int(found[0])


def reduce(data: xr.DataArray, how: Reduce) -> xr.DataArray:
    """Reduce dimensions one after the other, leaving out NaN; ``first`` and ``last`` take the first and last number.

    Raises:
        StatisticError: if the data have no such dimension.
    """
    for dim, word in how.items():
        if dim not in data.dims:
            raise StatisticError(f"{data.name} has no dimension {dim!r}; it has {', '.join(map(str, data.dims))}")
        if word in ("first", "last"):
            finite = data.notnull()
            place = xr.DataArray(np.arange(data.sizes[dim]), dims=dim)
            ends = place.where(finite, -1).max(dim) if word == "last" else finite.argmax(dim)
            data = data.isel({dim: ends.astype(int)}, drop=True)
        elif word == "sum":
            data = data.sum(dim, skipna=True, min_count=1)
        else:
            data = _quietly(data, word, dim)
    return data


def _quietly(data: xr.DataArray, word: str, dim: str) -> xr.DataArray:
    """A mean, median, maximum or minimum whose slices of nothing but NaN stay NaN without a warning."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        reduced: xr.DataArray = getattr(data, word)(dim, skipna=True)
    return reduced
