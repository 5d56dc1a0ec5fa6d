"""Statistics of what a symmetry does: to two matrices that share one, and to the loss across a mirror."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from reproduction.analysis.ranks import distance, other_seeds, relative_distance
from reproduction.analysis.statistics import selection
from reproduction.analysis.statistics.selection import At, Reduce, Results, dataset_of


def key_query_across_seeds(
    results: Results,
    *,
    experiment: str,
    at: At,
    reduce: Reduce | None = None,
    variable: Literal["rank", "singular_value"] = "rank",
) -> xr.DataArray:
    """Return how far key and query of one network are apart, over how far they are across networks.

    Across: the key of each seed against the queries of the other seeds, which no symmetry ties to it. Where both
    depend on the decay alone the ratio is about 1.

    Args:
        results: datasets by experiment.
        experiment: a sweep of attention.
        at: where to compare.
        reduce: what to do with the other dimensions, of each gap.
        variable: what is compared: the ranks, or the spectra, relative to the key's norm.
    """
    apart = distance if variable == "rank" else relative_distance
    values = selection.select(dataset_of(results, experiment)[variable], at)
    key, query = (values.sel(matrix=name, drop=True) for name in ("key", "query"))
    own = selection.reduce(apart(key, query), reduce or {})
    across = selection.reduce(other_seeds(key, query, apart), reduce or {})
    return own / across.where(across > 0)


def at_rest_before_the_model(
    results: Results, *, experiment: str, longer: str, at: At, threshold: float
) -> xr.DataArray:
    """Return the share of weights that have come to rest on their mirror while others of the model still move.

    At rest is what is below the threshold at the end of a training and at that of a longer one with the same first
    steps; the share is 0 where no other weight moves by more than the threshold between the two.

    Args:
        results: datasets by experiment.
        experiment: a sweep of the regressors.
        longer: the same with more steps; seeds that both have are compared.
        at: where to read the weights.
        threshold: below which a weight counts as zero.
    """
    pair = (selection.select(dataset_of(results, name)["weight"], at) for name in (experiment, longer))
    before, after = xr.align(*pair, join="inner")
    rest = (abs(before) < threshold) & (abs(after) < threshold)
    moves = (~rest & (abs(after - before) > threshold)).any("feature")
    share: xr.DataArray = rest.mean("feature").where(moves, 0.0).where(after.notnull().all("feature"))
    return share


def well_off_the_mirror(results: Results, *, experiment: str, variable: str, decay: float) -> xr.DataArray:
    """Return how far from a mirror the loss across it is lowest: of all mirrors the nearest, with decay the farthest.

    Args:
        results: datasets by experiment.
        experiment: one with a loss over ``distance`` from each ``mirror`` and its curvature there.
        variable: the loss without decay.
        decay: gamma, in units of the absolute curvature at the mirror.
    """
    dataset = dataset_of(results, experiment).isel(batch_size=-1)
    across = dataset[variable] + decay * abs(dataset["curvature_across"]) * dataset["distance"] ** 2
    lowest = abs(dataset["distance"].isel(distance=across.argmin("distance")))
    nearest: xr.DataArray = lowest.min("mirror") if decay == 0 else lowest.max("mirror")
    return nearest


def small_negative_eigenvalues(results: Results, *, experiment: str, relative: float) -> xr.DataArray:
    """Return the share of a full-batch Hessian's eigenvalues that are negative and small beside the largest.

    Args:
        results: datasets by experiment.
        experiment: one with a ``hessian`` over batch sizes, the largest of which is the training set.
        relative: small is an absolute value below this share of the largest; of rounding are those below 1e-10 of it.
    """
    hessians = dataset_of(results, experiment)["hessian"].isel(batch_size=-1)

    def share(matrix: NDArray[np.float64]) -> float:
        values = np.linalg.eigvalsh(matrix) / np.linalg.norm(matrix, 2)
        return float(((values < -1e-10) & (values > -relative)).mean())

    core = [["parameter", "parameter_2"]]
    found: xr.DataArray = xr.apply_ufunc(share, hessians, input_core_dims=core, vectorize=True)
    return found


STATISTICS: dict[str, Callable[..., xr.DataArray]] = {
    "at_rest_before_the_model": at_rest_before_the_model,
    "key_query_across_seeds": key_query_across_seeds,
    "small_negative_eigenvalues": small_negative_eigenvalues,
    "well_off_the_mirror": well_off_the_mirror,
}
