"""What the Hessian on the mirrors shows: blocks that should vanish, and the loss on a line across each (Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from reproduction.analysis.runs import spread


def worst_blocks(dataset: xr.Dataset) -> xr.Dataset:
    """Return the worst over seeds of what should vanish, and the least of what should not.

    Args:
        dataset: results of the hessian_structure experiment.

    Returns:
        ``coupling`` (between a mirror and its complement) and ``displaced_coupling`` (the same off the mirror, the
        smallest), with dimensions (mirror, batch_size), and ``sector_coupling``, ``scalar_formula_error`` and
        ``scalar_eigenvector_error``, with dimension batch_size.
    """
    largest = ("coupling", "sector_coupling", "scalar_formula_error", "scalar_eigenvector_error")
    worst = {name: spread(dataset[name]).high for name in largest}
    return xr.Dataset(worst | {"displaced_coupling": spread(dataset["displaced_coupling"]).low})


def critical_decay(dataset: xr.Dataset) -> xr.DataArray:
    """Return the weight decay γ at which the curvature of loss + γ‖θ‖² across a mirror is zero (Theorem 1, part 4)."""
    critical: xr.DataArray = -0.5 * dataset["curvature_across"]
    return critical


def loss_across(dataset: xr.Dataset, factors: Sequence[float]) -> xr.DataArray:
    """Return the loss with weight decay on a line across each mirror, less that on the mirror.

    Args:
        dataset: results of the hessian_structure experiment.
        factors: weight decays, as multiples of the critical one.

    Returns:
        The dimensions of ``loss_across`` with ``factor`` before ``distance``, the distance s from the mirror.
    """
    loss, distance = dataset["loss_across"], dataset["distance"]
    base = loss - loss.sel(distance=0, method="nearest", drop=True)
    decay = xr.DataArray(list(factors), coords={"factor": list(factors)}, dims="factor") * critical_decay(dataset)
    across: xr.DataArray = base + decay * distance**2
    return across.transpose(..., "factor", "distance")
