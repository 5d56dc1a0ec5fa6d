"""A statistic for what two matrices share by a symmetry: they are held against the same two of other networks."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from reproduction.analysis.ranks import other_seeds
from reproduction.analysis.statistics import selection
from reproduction.analysis.statistics.selection import At, Reduce, Results, dataset_of


def key_query_across_seeds(results: Results, *, experiment: str, at: At, reduce: Reduce | None = None) -> xr.DataArray:
    """Return the gap between the ranks of key and query of one network over the gap across networks.

    Across: the key of each seed against the queries of the other seeds, which no symmetry ties to it. Where ranks
    depend on the decay alone, both gaps are alike and the ratio is about 1.

    Args:
        results: datasets by experiment.
        experiment: a sweep of attention.
        at: where to read the ranks.
        reduce: what to do with the other dimensions, of each gap.
    """
    rank = selection.select(dataset_of(results, experiment)["rank"], at)
    key, query = (rank.sel(matrix=name, drop=True) for name in ("key", "query"))
    own = selection.reduce(abs(key - query), reduce or {})
    across = selection.reduce(other_seeds(key, query), reduce or {})
    return own / across.where(across > 0)


STATISTICS: dict[str, Callable[..., xr.DataArray]] = {"key_query_across_seeds": key_query_across_seeds}
