"""Statistics that hold results against theory: phase diagrams and the number of positive Lyapunov exponents."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from reproduction.analysis.derived import critical_learning_rates, excess_risk, true_weights
from reproduction.analysis.ranks import predicted_rank, ranks_by
from reproduction.analysis.statistics.selection import At, NoDataError, Results, dataset_of, select
from reproduction.contract import FINISHED
from reproduction.pipeline import store
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
    data = _phase_diagram(dataset, threshold)
    return _balanced_accuracy(data, _collapses(data, dataset.sizes["feature"], background, rule), fraction)


def phase_agreement_over_power_law(
    results: Results, *, experiment: str, threshold: float, fraction: float, background: Background, power: float
) -> xr.DataArray:
    """Return how much better the exponent's sign tells collapsed cells than a power of the noise without theory.

    The power law predicts collapse where ``learning_rate * noise_std**power`` is above a constant, which is fitted to
    each seed's own diagram: of all constants the one with the best balanced accuracy.

    Args: those of :func:`phase_agreement`, and ``power``.
    """
    dataset = dataset_of(results, experiment)
    data = _phase_diagram(dataset, threshold)
    size = data["learning_rate"] * data["noise_std"] ** power
    constants = xr.DataArray(np.unique(size), dims="constant")
    best = _balanced_accuracy(data, size > constants, fraction).max("constant")
    return _balanced_accuracy(data, _collapses(data, dataset.sizes["feature"], background, "exact"), fraction) - best


def collapsed_against_the_exponent(
    results: Results, *, experiment: str, threshold: float, fraction: float, background: Background
) -> xr.DataArray:
    """Return the share of collapsed cells whose exact exponent is positive.

    Args: those of :func:`phase_agreement`.
    """
    dataset = dataset_of(results, experiment)
    data = _phase_diagram(dataset, threshold)
    collapsed = data >= fraction
    against = collapsed & ~_collapses(data, dataset.sizes["feature"], background, "exact")
    share: xr.DataArray = against.sum(CELLS) / collapsed.sum(CELLS).where(collapsed.any(CELLS))
    return share


CELLS = ["noise_std", "learning_rate"]


def _phase_diagram(dataset: xr.Dataset, threshold: float) -> xr.DataArray:
    return select(dataset["sparsity"], {"parameterization": "rescaled", "threshold": threshold})


def _collapses(
    data: xr.DataArray, features: int, background: Background, rule: Literal["exact", "second_order"]
) -> xr.DataArray:
    """Where the exponent of a collapsed feature is negative."""
    rates, predicted = data["learning_rate"], []
    for noise in data["noise_std"].values:
        if rule == "exact":
            low, high = critical_learning_rates(float(noise), background, features)
        else:
            low, high = rescaled_regressor.second_order(float(noise), background, features), np.inf
        predicted.append((rates > low) & (rates < high))
    return xr.concat(predicted, dim=data["noise_std"])


def _balanced_accuracy(data: xr.DataArray, expected: xr.DataArray, fraction: float) -> xr.DataArray:
    collapsed, others = data >= fraction, data < fraction  # both false where a run did not finish
    found = (expected & collapsed).sum(CELLS) / collapsed.sum(CELLS).where(collapsed.any(CELLS))
    left = (~expected & others).sum(CELLS) / others.sum(CELLS).where(others.any(CELLS))
    agreement: xr.DataArray = (found + left) / 2
    return agreement


def rank_against_exponents(
    results: Results, *, experiment: str, stability: str, at: At, relative: float | None = None
) -> xr.DataArray:
    """Return the distance of the measured rank from the number of positive Lyapunov exponents at zero.

    Args:
        results: datasets by experiment.
        experiment: a sweep of matrix factorization.
        stability: the experiment with the exponents, over ``signal`` and ``learning_rate``.
        at: where to read the rank; signal and learning rate are left open, and only those that both have count.
        relative: threshold of the rank; None for the one that it is stored with.
    """
    rank, predicted = _ranks(results, experiment, stability, at, relative)
    # One number a seed: the cells of a sweep share their data and are no independent samples.
    mean: xr.DataArray = abs(rank - predicted).mean(["signal", "learning_rate"])
    return mean


def rank_against_exponents_over_constant(results: Results, *, experiment: str, stability: str, at: At) -> xr.DataArray:
    """Return that distance over the distance from the best constant, the median of the seed's own ranks.

    Args: those of :func:`rank_against_exponents`.
    """
    rank, predicted = _ranks(results, experiment, stability, at)
    cells = ["signal", "learning_rate"]
    constant = abs(rank - rank.median(cells)).mean(cells)
    ratio: xr.DataArray = abs(rank - predicted).mean(cells) / constant.where(constant > 0)
    return ratio


def spread_of_predicted_rank(results: Results, *, experiment: str, stability: str, at: At) -> xr.DataArray:
    """Return the standard deviation of the predicted rank over the cells that finished.

    Args: those of :func:`rank_against_exponents`.
    """
    rank, predicted = _ranks(results, experiment, stability, at)
    spread: xr.DataArray = predicted.where(rank.notnull()).std(["signal", "learning_rate"])
    return spread


def _ranks(
    results: Results, experiment: str, exponents: str, at: At, relative: float | None = None
) -> tuple[xr.DataArray, xr.DataArray]:
    rank = select(ranks_by(dataset_of(results, experiment), relative), at)
    predicted = predicted_rank(dataset_of(results, exponents))
    rank, predicted = xr.align(rank, predicted, join="inner")
    if not rank.size:
        raise NoDataError(f"{experiment} and {exponents} have no signal and learning rate in common")
    return rank, predicted


def escape_over_descent(
    results: Results,
    *,
    experiment: str,
    compared: Literal["escape", "largest", "count", "ten", "all", "mean"] = "escape",
) -> xr.DataArray:
    """Return the share of cells in which the exponents of SGD at zero compare to those of gradient descent.

    Gradient descent's leading exponents at W = U = 0 are all ``log(1 + 2 mu lambda)``, one for each dimension. Cells
    whose averages have not settled are left out.

    Args:
        results: datasets by experiment.
        experiment: the Lyapunov exponents of matrix factorization, over ``signal`` and ``learning_rate``.
        compared: the share in which one vector grows faster than in gradient descent by more than two standard errors,
            in which the largest exponent is above it, in which at least one, ten or all of the exponents are negative
            by more than two standard errors, or in which the mean of the leading ones is below.
    """
    data = dataset_of(results, experiment)
    exponents = data["lyapunov_exponent"]
    descent = np.log1p(2 * exponents["signal"] * exponents["learning_rate"])
    if compared == "escape":
        verdict = data["escape_rate"] - 2 * data["escape_error"] > descent
    elif compared == "largest":
        verdict = exponents.max("mode") > descent
    elif compared == "mean":
        verdict = exponents.mean("mode") < descent
    else:
        least = {"count": 1, "ten": 10, "all": exponents.sizes["mode"]}[compared]
        verdict = (exponents + 2 * data["exponent_error"] < 0).sum("mode") >= least
    share: xr.DataArray = verdict.where(data["settled"] > 0).mean(["signal", "learning_rate"])
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
    settings = store.settings_of(dataset)
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
    4 r**2 d noise_std**2`` at each step of rate r, d the number of features; from zero it starts at the squared norm
    of the true weights.

    Args:
        results: datasets by experiment.
        experiment: a sweep of the regressors.
        noise_std: of the labels.
        start: of the plain regressor: the experiment's, or zero.
    """
    dataset = dataset_of(results, experiment)
    settings = store.settings_of(dataset)
    features, steps = int(settings["features"]), int(settings["steps"])
    rates = np.geomspace(1e-7, 0.9 / (features + 2), 400)
    kept = 1 - 4 * rates + 4 * rates**2 * (features + 2)
    first = float((true_weights(dataset) ** 2).sum())
    first += features * float(settings["initial_variance"]) if start == "own" else 0.0
    settled = 4 * rates**2 * features * noise_std**2 / (1 - kept)
    plain = float((settled + (first - settled) * kept**steps).min())
    own = excess_risk(dataset).where(dataset["status"] == FINISHED)
    best = select(own, {"parameterization": "rescaled", "noise_std": noise_std}).min("learning_rate")
    return best / plain


def noise_features_ignored(results: Results, *, experiment: str, noise_std: float, threshold: float) -> xr.DataArray:
    """Return the share of features without a true weight that the product ignores, less that of those with one.

    Ignored is a weight below the threshold, at the learning rate of the product's smallest excess risk.

    Args:
        results: datasets by experiment.
        experiment: a sweep of the regressors in which some features are noise.
        noise_std: of the labels.
        threshold: below which a weight counts as zero.
    """
    dataset = dataset_of(results, experiment)
    at: At = {"parameterization": "rescaled", "noise_std": noise_std}
    risk = select(excess_risk(dataset).where(dataset["status"] == FINISHED), at)
    best = risk.fillna(np.inf).argmin("learning_rate")
    ignored = abs(select(dataset["weight"], at).isel(learning_rate=best)) < threshold
    is_noise = true_weights(dataset) == 0
    gap: xr.DataArray = ignored.where(is_noise).mean("feature") - ignored.where(~is_noise).mean("feature")
    return gap.drop_vars("learning_rate")


STATISTICS: dict[str, Callable[..., xr.DataArray]] = {
    "collapsed_against_the_exponent": collapsed_against_the_exponent,
    "descent_sparsity": descent_sparsity,
    "escape_over_descent": escape_over_descent,
    "noise_features_ignored": noise_features_ignored,
    "phase_agreement": phase_agreement,
    "phase_agreement_over_power_law": phase_agreement_over_power_law,
    "rank_against_exponents": rank_against_exponents,
    "rank_against_exponents_over_constant": rank_against_exponents_over_constant,
    "risk_over_plain": risk_over_plain,
    "spread_of_predicted_rank": spread_of_predicted_rank,
}
