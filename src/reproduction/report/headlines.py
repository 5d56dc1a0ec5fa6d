"""The report's headline numbers: one a result, computed from the result files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mirrorsym import measures
from reproduction.analysis import derived
from reproduction.contract import FINISHED
from reproduction.formatting import number, spread, with_unit

if TYPE_CHECKING:
    import xarray as xr

Row = dict[str, str]

STAYS = 1e-12
"""Distance under which a trajectory counts as being on its stationary condition."""


def headlines(results: Mapping[str, xr.Dataset]) -> list[Row]:
    """Return the headline numbers of the experiments that are there, each with the figure that shows it.

    Args:
        results: result files by experiment.

    Returns:
        Rows with ``figure`` (its id), ``what`` and ``value`` (formatted; median and range over seeds where it has any).
    """
    rows: list[Row] = []
    for experiment, figure, compute in _HEADLINES:
        # A sweep may lack the value that a number is about: without float32, say, there is no such count.
        with contextlib.suppress(KeyError):
            found = compute(results[experiment])
            rows += [{"figure": figure, "what": what, "value": value} for what, value in found]
    return rows


def over_seeds(values: xr.DataArray, unit: str = "1", scale: float = 1.0) -> str:
    """Return the median and the range over all finite values, formatted; "none" where every run diverged."""
    array = np.asarray(values, dtype=float).ravel() * scale
    array = array[np.isfinite(array)]
    if not array.size:
        return "none"
    return with_unit(spread(float(np.median(array)), float(array.min()), float(array.max())), unit)


Found = list[tuple[str, str]]


def _hessian(data: xr.Dataset) -> Found:
    return [
        (
            "Hessian block between a mirror and its normal space, largest, on the mirror",
            number(float(data["coupling"].max())),
        ),
        ("The same, smallest, off the mirror", number(float(data["displaced_coupling"].min()))),
    ]


def _stationary(data: xr.Dataset) -> Found:
    start, end = data["own_line_distance"].isel(step=0), data["own_line_distance"].isel(step=-1)
    stays = end.sel(landscape="rotation").where(start.sel(landscape="rotation") < STAYS)
    return [("Rotation landscape: largest distance at the end from the line of the start", number(float(stays.max())))]


def _sparsity(data: xr.Dataset) -> Found:
    """Both regressors at the largest learning rate where no vanilla run diverged; the rescaled one at its own, too."""
    data = data.isel(noise_std=-1, threshold=0)
    finished = (data["status"] == FINISHED).all("seed")
    places = [("vanilla", "vanilla"), ("rescaled", "vanilla"), ("rescaled", "rescaled")]
    found = []
    for name, limit in places:
        rates = data["learning_rate"].values[finished.sel(parameterization=limit).values]
        if rates.size:
            chosen = data["sparsity"].sel(parameterization=name, learning_rate=rates[-1])
            where = f"σ = {number(float(data['noise_std']))}, λ = {number(float(rates[-1]))}"
            what = f"Weights below {number(float(data['threshold']))}, {name} regressor ({where})"
            found.append((what, over_seeds(chosen, "%", 100)))
    return list(dict.fromkeys(found))


def _factorization(data: xr.Dataset) -> Found:
    found = []
    data = data.isel(signal=0, step=-1)
    for name, words in (("factored", "WUx"), ("residual", "(I+W)(I+U)x")):
        median = data["rank"].sel(parameterization=name).median("seed", skipna=False)
        if np.isfinite(median).any():
            lowest = median.argmin(dim=...)  # type: ignore[arg-type]
            place: Any = {dim: int(index) for dim, index in lowest.items()}  # type: ignore[union-attr]
            run = data.sel(parameterization=name).isel(place)
            where = f"μ = {number(float(data['signal']))}, λ = {number(float(run['learning_rate']))}"
            found.append((f"Lowest rank of {words}, end to end ({where})", over_seeds(run["rank"])))
    return found


def _homogeneity(data: xr.Dataset) -> Found:
    pairs = derived.of_matrices(measures.homogeneous_pairs, data["correlation_pre"])
    return [
        (
            f"Pairs of neurons correlated above {number(measures.HOMOGENEOUS_CORRELATION)}, "
            f"weight decay {number(float(decay))}",
            over_seeds(pairs.sel(weight_decay=decay), "%", 100),
        )
        for decay in sorted({float(data["weight_decay"].min()), _nearest_decay(data)})
    ]


def _nearest_decay(data: xr.Dataset) -> float:
    """The weight decay nearest to the paper's 0.001, as the figures choose it."""
    decays = data["weight_decay"].values
    return float(min(decays[decays > 0], key=lambda value: abs(np.log(value / 1e-3)), default=decays[0]))


def _plasticity(data: xr.Dataset) -> Found:
    words = {
        "vanilla": "plain regressor",
        "rescaled": "rescaled",
        "rescaled_gradient_noise": "rescaled, gradient noise",
        "rescaled_bias": "rescaled, random bias",
    }
    last = data["dead_parameters"].sel(precision="float32").isel(adam_state=0, noise_std=0, learning_rate=-1, task=-1)
    return [
        (f"Dead parameters after the last task, {words[name]}", over_seeds(last.sel(variant=name)))
        for name in words
        if name in data["variant"]
    ]


def _dcs(data: xr.Dataset) -> Found:
    found = []
    for name, words in (("vanilla", "plain"), ("dcs", "w⊙u")):
        run = data.sel(parameterization=name)
        found.append(
            (f"Test accuracy of the ResNet18, {words}", over_seeds(run["test_accuracy"].isel(epoch=-1), "%", 100))
        )
        found.append(
            (f"Parameters at zero in the ResNet18, {words}", over_seeds(run["sparsity"].isel(epoch=-1), "%", 100))
        )
    memory = data["peak_memory"].sel(parameterization="dcs") / data["peak_memory"].sel(parameterization="vanilla")
    for batch in data["batch_size"].values:
        found.append((f"Peak memory, w⊙u over plain, batch {batch}", over_seeds(memory.sel(batch_size=batch))))
    return found


def _regularized(data: xr.Dataset) -> Found:
    gap = abs(data["rank"] - data["predicted_rank"]).max("weight_decay")
    return [("Regularized factorization: largest gap of measured and predicted rank", over_seeds(gap))]


def _attention(data: xr.Dataset) -> Found:
    ranks_over_time = data["rank"].sel(layers=1.0, decay="coupled", layer=1).dropna("step", how="all")
    if not ranks_over_time.sizes["step"]:
        return []
    last = ranks_over_time.isel(step=-1)
    found = []
    for decay in (last["weight_decay"].values[0], last["weight_decay"].values[-1]):
        ranks = [over_seeds(last.sel(matrix=name, weight_decay=decay)) for name in ("query", "key")]
        found.append((f"Ranks of query and key, one layer, weight decay {number(float(decay))}", ", ".join(ranks)))
    return found


_HEADLINES: list[tuple[str, str, Callable[[Any], Found]]] = [
    ("hessian_structure", "fig2", _hessian),
    ("sparsity", "fig3_left", _sparsity),
    ("matrix_factorization", "fig3_mid", _factorization),
    ("homogeneity", "fig3_right", _homogeneity),
    ("plasticity", "fig4", _plasticity),
    ("stationary_conditions", "fig5", _stationary),
    ("dcs_resnet", "fig7", _dcs),
    ("regularized_factorization", "fig8", _regularized),
    ("attention", "fig9", _attention),
]
