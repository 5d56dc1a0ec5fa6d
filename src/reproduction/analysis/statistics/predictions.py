"""Statistics that hold results against theory: phase diagrams and the number of positive Lyapunov exponents."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from reproduction.analysis.derived import critical_learning_rates
from reproduction.analysis.ranks import predicted_rank
from reproduction.analysis.statistics.selection import At, NoDataError, Results, dataset_of, select
from reproduction.contract import FINISHED
from reproduction.streams import stream
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


def rank_against_exponents(results: Results, *, experiment: str, stability: str, at: At) -> xr.DataArray:
    """Return the distance of the measured rank from the number of positive Lyapunov exponents at zero.

    Args:
        results: datasets by experiment.
        experiment: a sweep of matrix factorization.
        stability: the experiment with the exponents, over ``signal`` and ``learning_rate``.
        at: where to read the rank; signal and learning rate are left open, and only those that both have count.
    """
    rank, predicted = _ranks(results, experiment, stability, at)
    # One number a seed: the cells of a sweep share their data and are no independent samples.
    mean: xr.DataArray = abs(rank - predicted).mean(["signal", "learning_rate"])
    return mean


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


def escape_over_descent(
    results: Results, *, experiment: str, compared: Literal["escape", "largest", "count", "mean"] = "escape"
) -> xr.DataArray:
    """Return the share of cells in which the exponents of SGD at zero compare to those of gradient descent.

    Gradient descent's leading exponents at W = U = 0 are all ``log(1 + 2 mu lambda)``, one for each dimension.

    Args:
        results: datasets by experiment.
        experiment: the Lyapunov exponents of matrix factorization, over ``signal`` and ``learning_rate``.
        compared: the share in which one vector grows faster than in gradient descent by more than two standard errors,
            in which the largest exponent is above it, in which fewer are positive, none of them within two standard
            errors, or in which the mean of the leading ones is below.
    """
    data = dataset_of(results, experiment)
    exponents = data["lyapunov_exponent"]
    descent = np.log1p(2 * exponents["signal"] * exponents["learning_rate"])
    if compared == "escape":
        verdict = data["escape_rate"] - 2 * data["escape_error"] > descent
    elif compared == "largest":
        verdict = exponents.max("mode") > descent
    elif compared == "count":
        verdict = (exponents + 2 * data["exponent_error"] > 0).sum("mode") < exponents.sizes["mode"]
    else:
        verdict = exponents.mean("mode") < descent
    share: xr.DataArray = verdict.mean(["signal", "learning_rate"])
    return share


def descent_sparsity(results: Results, *, experiment: str, learning_rate: float, threshold: float) -> xr.DataArray:
    """Return the fraction of weights below a threshold after gradient descent of the rescaled regressor's mean loss.

    The mean over samples of ``((w * u) @ x - y)**2`` is ``sum (w u - 1/features)**2`` and the noise, so that each
    feature descends by itself. Features, steps, start and seeds are the experiment's.

    Args:
        results: datasets by experiment.
        experiment: a sweep of the rescaled regressor.
        learning_rate: of the descent.
        threshold: below which a weight counts as zero.
    """
    dataset = dataset_of(results, experiment)
    settings = json.loads(dataset.attrs["settings"])
    features, variance = int(settings["features"]), float(settings["initial_variance"])
    seeds = tuple(int(seed) for seed in dataset["seed"].values)
    ends = _descent(features, variance, int(settings["steps"]), learning_rate, seeds)
    return xr.DataArray((np.abs(ends) < threshold).mean(axis=1), coords={"seed": dataset["seed"].values}, dims="seed")


@functools.cache
def _descent(features: int, variance: float, steps: int, rate: float, seeds: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the products after gradient descent, shape (seeds, features)."""
    # The starts of the experiment, whose module the claims do not depend on.
    draws = [stream("sparsity", seed, "initial").standard_normal((2, features), dtype=np.float32) for seed in seeds]
    w, u = (np.sqrt(variance) * np.asarray(factor, float) for factor in np.moveaxis(np.asarray(draws), 1, 0))
    slope, change = np.empty_like(w), np.empty_like(w)
    for _ in range(steps):
        np.multiply(w, u, out=slope)
        slope -= 1 / features
        slope *= 2 * rate
        np.multiply(slope, u, out=change)
        slope *= w
        w -= change
        u -= slope
    ends: NDArray[np.float64] = w * u
    return ends


def risk_over_plain(
    results: Results, *, experiment: str, noise_std: float, start: Literal["own", "zero"]
) -> xr.DataArray:
    """Return the product's smallest excess risk over learning rates over the plain regressor's at any learning rate.

    The plain regressor's is exact: with normal inputs its mean ``e`` obeys ``e' = (1 - 4 r + 4 r**2 (d + 2)) e +
    4 r**2 d noise_std**2`` at each step of rate r, d the number of features.

    Args:
        results: datasets by experiment.
        experiment: a sweep of the regressors.
        noise_std: of the labels.
        start: of the plain regressor: the experiment's, or zero.
    """
    from reproduction.analysis.derived import excess_risk

    dataset = dataset_of(results, experiment)
    settings = json.loads(dataset.attrs["settings"])
    features, steps = int(settings["features"]), int(settings["steps"])
    rates = np.geomspace(1e-7, 0.9 / (features + 2), 400)
    kept = 1 - 4 * rates + 4 * rates**2 * (features + 2)
    first = 1 / features + (features * float(settings["initial_variance"]) if start == "own" else 0.0)
    settled = 4 * rates**2 * features * noise_std**2 / (1 - kept)
    plain = float((settled + (first - settled) * kept**steps).min())
    own = excess_risk(dataset).where(dataset["status"] == FINISHED)
    best = select(own, {"parameterization": "rescaled", "noise_std": noise_std}).min("learning_rate")
    return best / plain


STATISTICS: dict[str, Callable[..., xr.DataArray]] = {
    "descent_sparsity": descent_sparsity,
    "escape_over_descent": escape_over_descent,
    "phase_agreement": phase_agreement,
    "rank_against_exponents": rank_against_exponents,
    "risk_over_plain": risk_over_plain,
    "spread_of_predicted_rank": spread_of_predicted_rank,
}
