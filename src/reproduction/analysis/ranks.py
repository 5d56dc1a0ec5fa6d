"""Ranks of matrices (:func:`mirrorsym.rank` counts them): settled, what theory predicts, how far two are apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from mirrorsym import measures
from reproduction.analysis.runs import median, spread
from reproduction.contract import FINISHED
from reproduction.pipeline import store
from reproduction.theory import factorization

SETTLED = 2
"""A rank has settled where its median moved by no more than this between the last two measurements."""


def rank_at(dataset: xr.Dataset, relative: float) -> xr.DataArray:
    """Return the rank by another relative threshold than :data:`mirrorsym.measures.RELATIVE_RANK_THRESHOLD`."""
    values = dataset["singular_value"]
    counts: xr.DataArray = xr.apply_ufunc(
        lambda spectra: measures.rank(spectra, relative=relative).astype(float), values, input_core_dims=[["mode"]]
    )
    return counts.where(values.notnull().all("mode"))


def ranks_by(dataset: xr.Dataset, relative: float | None) -> xr.DataArray:
    """Return the ranks that are stored, or those by another relative threshold."""
    return dataset["rank"] if relative is None else rank_at(dataset, relative)


def last_move(rank: xr.DataArray) -> xr.DataArray:
    """Return how far the median over seeds moved between the last two measurements."""
    middle = median(rank)
    move: xr.DataArray = middle.isel(step=-1, drop=True) - middle.isel(step=-2, drop=True)
    return move


def unsettled(rank: xr.DataArray) -> xr.DataArray:
    """Return where a rank was still moving at the end."""
    return abs(last_move(rank)) > SETTLED


def predicted_rank(stability: xr.Dataset) -> xr.DataArray:
    """Return the number of positive Lyapunov exponents, mean over seeds."""
    spectra = stability["lyapunov_exponent"]
    positive = xr.apply_ufunc(factorization.predicted_rank, spectra, input_core_dims=[["mode"]])
    mean: xr.DataArray = positive.astype(float).mean("seed").rename("rank")
    return mean


def exact_rank(dataset: xr.Dataset) -> xr.DataArray:
    """Return how many singular values of the exact solution are not 0, NaN where descent did not finish."""
    count: xr.DataArray = (dataset["predicted_singular_value"] > 0).sum("mode")
    return count.where(dataset["status"] == FINISHED)


def converged(dataset: xr.Dataset) -> xr.DataArray:
    """Return which runs of regularized factorization reached the gradient norm at which descent ends."""
    reached: xr.DataArray = dataset["gradient_norm"] < store.settings_of(dataset)["gradient_norm"]
    return reached


def against_prediction(dataset: xr.Dataset) -> xr.Dataset:
    """Return how measured ranks and singular values compare with the exact solution, over the seeds that finished.

    Args:
        dataset: results of the regularized_factorization experiment.

    Returns:
        With dimension ``weight_decay``: medians ``rank``, ``predicted_rank`` (by the same threshold) and
        ``exact_rank``, counts of seeds ``equal`` (in rank) and ``converged``, and the largest ``difference`` of a
        singular value and number of ``steps``.
    """
    difference = abs(dataset["singular_value"] - dataset["predicted_singular_value"]).max("mode")
    return xr.Dataset(
        {
            "rank": median(dataset["rank"]),
            "predicted_rank": median(dataset["predicted_rank"]),
            "exact_rank": median(exact_rank(dataset)),
            "equal": (dataset["rank"] == dataset["predicted_rank"]).sum("seed"),
            "difference": spread(difference).high,
            "converged": converged(dataset).sum("seed"),
            "steps": spread(dataset["steps"]).high,
        }
    )


def at_the_end(run: xr.Dataset) -> dict[str, float]:
    """Return medians over seeds at the last step of one attention layer's training, and whether ranks have settled.

    Args:
        run: the seeds of one model, with dimensions ``seed``, ``step``, ``matrix`` and ``mode``.
    """
    key, query = (run["rank"].sel(matrix=name) for name in ("key", "query"))
    late = int(0.8 * (run.sizes["step"] - 1))
    last = run.isel(step=-1)
    return {
        "last step": int(run["step"][-1]),
        "rank of W_K": float(median(key.isel(step=-1))),
        "rank of W_Q": float(median(query.isel(step=-1))),
        "change over the last fifth": float(median(key.isel(step=-1, drop=True) - key.isel(step=late, drop=True))),
        "relative distance of the spectra": float(median(spectra_distance(last))),
        "loss": float(median(last["train_loss"])),
    }


def spectra_distance(dataset: xr.Dataset) -> xr.DataArray:
    """Return how far the singular values of key and query are apart, relative to the key's."""
    values = dataset["singular_value"]
    return relative_distance(*(values.sel(matrix=name, drop=True) for name in ("key", "query")))


def relative_distance(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return how far two spectra are apart, relative to the norm of the first."""
    distance: xr.DataArray = (((one - other) ** 2).sum("mode") / (one**2).sum("mode")) ** 0.5
    return distance


def within_layer_gap(dataset: xr.Dataset, relative: float | None = None) -> xr.DataArray:
    """Return the distance between the ranks of key and query of a layer, as stored or by another relative threshold."""
    rank = ranks_by(dataset, relative)
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


def distance(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return how far two numbers are apart."""
    return abs(one - other)


def other_seeds(
    one: xr.DataArray, other: xr.DataArray, apart: Callable[[xr.DataArray, xr.DataArray], xr.DataArray] = distance
) -> xr.DataArray:
    """Return the mean distance of each seed's value from the other array's values at the other seeds."""
    far = apart(one, other.rename(seed="other_seed"))
    far = far.where(far["seed"] != far["other_seed"])
    if far.sizes["other_seed"] < 2:
        return far.isel(other_seed=0, drop=True) * np.nan
    mean: xr.DataArray = far.sum("other_seed", min_count=1) / far.notnull().sum("other_seed")
    return mean.transpose(*(dim for dim in one.dims if dim in mean.dims))


def mean_gaps(run: xr.Dataset) -> Iterator[tuple[str, float]]:
    """Yield which two ranks are compared and their mean distance over the measured steps after the start.

    Args:
        run: the seeds of one attention model, with the dimensions ``seed``, ``step``, ``matrix`` and ``layer``.
    """
    layers = run["layer"].values.tolist()
    within = _after_start(within_layer_gap(run))
    between = _after_start(between_layer_gap(run)) if len(layers) > 1 else None
    for seed in run["seed"].values:
        yield from (("key and query", float(within.sel(seed=seed, layer=layer))) for layer in layers)
        if between is not None:
            yield from (("two layers", float(between.sel(seed=seed, matrix=name))) for name in run["matrix"].values)
    for one, other in itertools.combinations(run["seed"].values, 2):
        far = _after_start(abs(run["rank"].sel(seed=one, drop=True) - run["rank"].sel(seed=other, drop=True)))
        for layer, name in itertools.product(layers, run["matrix"].values):
            yield "two seeds", float(far.sel(layer=layer, matrix=name))


def _after_start(gap: xr.DataArray) -> xr.DataArray:
    mean: xr.DataArray = gap.where(gap["step"] > 0).mean("step")
    return mean
