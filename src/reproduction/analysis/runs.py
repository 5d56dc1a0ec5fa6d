"""Which runs of a sweep finished, which diverged, and what is said of several seeds."""

from __future__ import annotations

from typing import NamedTuple

import xarray as xr

from reproduction.analysis.statistics.selection import reduce
from reproduction.contract import DIVERGED, FINISHED, NOT_IN_SWEEP


def finished(dataset: xr.Dataset) -> xr.DataArray:
    """Return 1 where a run finished, 0 where it diverged, NaN where the sweep has none."""
    status = dataset["status"]
    ended: xr.DataArray = (status == FINISHED).astype(float)
    return ended.where(status != NOT_IN_SWEEP)


def of_finished(dataset: xr.Dataset) -> xr.Dataset:
    """Return the results with NaN where a run did not finish."""
    return dataset.where(dataset["status"] == FINISHED)


def finished_seeds(run: xr.Dataset) -> xr.Dataset:
    """Return the seeds of one model of a sweep that finished.

    Args:
        run: the seeds of one model; its ``status`` has the dimension ``seed`` alone.
    """
    return run.isel(seed=(run["status"] == FINISHED).values)


def diverged_share(dataset: xr.Dataset) -> xr.DataArray:
    """Return which share of the seeds diverged, NaN where the sweep has none."""
    status = dataset["status"]
    share: xr.DataArray = (status == DIVERGED).astype(float).where(status != NOT_IN_SWEEP).mean("seed")
    return share


def diverged_count(dataset: xr.Dataset) -> str:
    """Return how many runs diverged, such as ``3 of 40``."""
    status = dataset["status"]
    return f"{int((status == DIVERGED).sum())} of {int((status != NOT_IN_SWEEP).sum())}"


class Spread(NamedTuple):
    """The median of several seeds, the smallest and the largest."""

    middle: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray


def spread(values: xr.DataArray, dim: str = "seed") -> Spread:
    """Return median and range over seeds; NaN, a run that diverged, is left out."""
    return Spread(*(reduce(values, {dim: word}) for word in ("median", "min", "max")))


def median(values: xr.DataArray) -> xr.DataArray:
    """Return the median over the seeds that finished."""
    return spread(values).middle
