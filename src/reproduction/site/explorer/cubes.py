"""Arrays of results as the explorer carries them: quantised, with their dimensions."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from reproduction.report.plotting import edges

if TYPE_CHECKING:
    import xarray as xr

MISSING = 255
"""Stands for a value that is not there: a run that diverged, or that the sweep has none of."""
LEVELS = 254


def cube(values: xr.DataArray, low: float, high: float, levels: int = LEVELS) -> dict[str, Any]:
    """Return an array as bytes: the k-th of ``levels`` equal steps from ``low`` to ``high``.

    What is a multiple of a step, such as a rank out of 200 or a share of 200 weights, comes back exactly; anything else
    within half a step. Values beyond the ends are put on them.

    Args:
        values: any dimensions; NaN for what is not there.
        low: the value of byte 0.
        high: the value of byte ``levels``.
        levels: at most 254.

    Returns:
        ``dims``, of each dimension the name, the values and, where they are positive and rise, the edges of
        cells; ``low``, ``step`` and ``data``, the bytes in C order as base64.
    """
    numbers = np.asarray(values.values, float)
    scaled = np.rint((np.clip(numbers, low, high) - low) / (high - low) * levels)
    whole = np.where(np.isnan(numbers), MISSING, scaled).astype(np.uint8)
    return {
        "dims": [dimension(values, str(name)) for name in values.dims],
        "low": low,
        "step": (high - low) / levels,
        "data": base64.b64encode(whole.tobytes()).decode(),
    }


def dimension(values: xr.DataArray, name: str) -> dict[str, Any]:
    """Return a dimension's name, values and, where they are positive and rise, the edges of its cells."""
    listed = values[name].values.tolist() if name in values.coords else list(range(values.sizes[name]))
    described: dict[str, Any] = {"name": name, "values": listed}
    numbers = [value for value in listed if isinstance(value, int | float)]
    if len(numbers) == len(listed) > 1 and min(numbers) > 0 and sorted(numbers) == numbers:
        described["edges"] = [float(f"{edge:.6g}") for edge in edges(numbers)]
    return described
