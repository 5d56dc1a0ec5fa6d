"""Statistics that hold results against theory: phase diagrams and the number of positive Lyapunov exponents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr

from reproduction.analysis.derived import critical_learning_rates
from reproduction.analysis.ranks import predicted_rank
from reproduction.analysis.statistics.selection import At, NoDataError, Results, dataset_of, select
from reproduction.theory import rescaled_regressor
from reproduction.theory.rescaled_regressor import Background


def phase_agreement(
    results: Results,
    *,
    experiment: str,
    threshold: float,
    fraction: float,
    background: Background,
    rule: Literal["exact", "second_order"],
) -> xr.DataArray:
    """Return how well the sign of the Lyapunov exponent tells collapsed cells of the phase diagram from the others.

    It is the balanced accuracy, the mean of the shares of collapsed and of other cells that are predicted right, over
    cells that finished: 1 for all right, 1/2 for any constant answer.

    Args:
        results: datasets by experiment.
        experiment: a sweep of the rescaled regressor over label noise and learning rate.
        threshold: below which a weight counts as zero.
        fraction: of weights that makes a cell collapsed.
        background: whether the other features are at zero or at their targets (see :mod:`mirrorsym.stability`).
        rule: the exact exponent, or its expansion to second order (Eq. 5).
    """
    dataset = dataset_of(results, experiment)
    data = select(dataset["sparsity"], {"parameterization": "rescaled", "threshold": threshold})
    rates = data["learning_rate"]
    predicted = []
    for noise in data["noise_std"].values:
        if rule == "exact":
            low, high = critical_learning_rates(float(noise), background, dataset.sizes["feature"])
        else:
            features = dataset.sizes["feature"]
            low, high = rescaled_regressor.second_order(float(noise), background, features), np.inf
        predicted.append((rates > low) & (rates < high))
    expected = xr.concat(predicted, dim=data["noise_std"])
    collapsed, others = data >= fraction, data < fraction  # both false where a run did not finish
    cells = ["noise_std", "learning_rate"]
    found = (expected & collapsed).sum(cells) / collapsed.sum(cells).where(collapsed.any(cells))
    left = (~expected & others).sum(cells) / others.sum(cells).where(others.any(cells))
    agreement: xr.DataArray = (found + left) / 2
    return agreement


def rank_against_exponents(
    results: Results, *, experiment: str, stability: str, at: At, samples: Literal["seed", "cell"]
) -> xr.DataArray:
    """Return the distance of the measured rank from the number of positive Lyapunov exponents at zero.

    Args:
        results: datasets by experiment.
        experiment: a sweep of matrix factorization.
        stability: the experiment with the exponents, over ``signal`` and ``learning_rate``.
        at: where to read the rank; signal and learning rate are left open, and only those that both have count.
        samples: a number a seed, the mean over cells, or a number a cell.
    """
    rank, predicted = _ranks(results, experiment, stability, at)
    distance = abs(rank - predicted)
    if samples == "seed":
        mean: xr.DataArray = distance.mean(["signal", "learning_rate"])
        return mean
    cells: xr.DataArray = distance.stack(cell=distance.dims).dropna("cell")
    return cells


def spread_of_predicted_rank(results: Results, *, experiment: str, stability: str, at: At) -> xr.DataArray:
    """Return the standard deviation of the predicted rank over the cells that finished.

    Args: those of :func:`rank_against_exponents`.
    """
    rank, predicted = _ranks(results, experiment, stability, at)
    spread: xr.DataArray = predicted.where(rank.notnull()).std(["signal", "learning_rate"])
    return spread


def _ranks(results: Results, experiment: str, exponents: str, at: At) -> tuple[xr.DataArray, xr.DataArray]:
    rank = select(dataset_of(results, experiment)["rank"], at)
    predicted = predicted_rank(dataset_of(results, exponents))
    rank, predicted = xr.align(rank, predicted, join="inner")
    if not rank.size:
        raise NoDataError(f"{experiment} and {exponents} have no signal and learning rate in common")
    return rank, predicted


STATISTICS: dict[str, Callable[..., xr.DataArray]] = {
    "phase_agreement": phase_agreement,
    "rank_against_exponents": rank_against_exponents,
    "spread_of_predicted_rank": spread_of_predicted_rank,
}
