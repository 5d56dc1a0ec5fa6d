"""Which trajectories of SGD start on a stationary condition, which stay on it, and which reach it (Figure 5)."""

from __future__ import annotations

import xarray as xr

STAYS = 1e-12
"""A distance below this counts as on the condition."""


def starts_on(dataset: xr.Dataset) -> xr.DataArray:
    """Return which starts lie on a stationary condition, dimensions (landscape, start, seed)."""
    on: xr.DataArray = dataset["distance"].isel(step=0, drop=True) < STAYS
    return on


def trajectories(dataset: xr.Dataset) -> xr.Dataset:
    """Return how many trajectories of all starts and seeds do what Corollary 1 says.

    Args:
        dataset: results of the stationary_conditions experiment.

    Returns:
        With dimension ``landscape``: ``starts_on`` a condition and of these ``stayed`` there at every step,
        ``starts_off`` it and of these ``reached`` it at any step, and ``on_own_line``, those that stayed on the line
        through the origin and their start.
    """
    on, distance = starts_on(dataset), dataset["distance"]
    own_line = dataset["own_line_distance"].max("step", skipna=False) < STAYS
    which = {
        "starts_on": on,
        "stayed": on & (distance.max("step", skipna=False) < STAYS),
        "starts_off": ~on,
        "reached": ~on & (distance.min("step") < STAYS),
        "on_own_line": own_line,
    }
    return xr.Dataset({name: mask.sum(["start", "seed"]) for name, mask in which.items()})
