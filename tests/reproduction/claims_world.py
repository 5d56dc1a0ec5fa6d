"""Made-up result files, after the contract, of a world in which every claim of the paper holds at scale paper."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from reproduction.analysis.derived import critical_learning_rates
from reproduction.contract import DIVERGED, FINISHED
from reproduction.pipeline.config import load, load_experiment

ROOT = Path(__file__).parents[2]
CONFIG = load(ROOT / "config", {"scale": "paper"})
World = dict[str, xr.Dataset]
JITTER = np.array([-1.0, 0.0, 1.0])


def blank(experiment: str, seeds: int = 3, **trailing: Any) -> xr.Dataset:
    """Return a dataset of the experiment's contract over its whole grid, zeros everywhere and all runs finished."""
    module = load_experiment(CONFIG.module_of(experiment))
    entry = CONFIG.experiments[experiment]
    coords: dict[str, Any] = {}
    for axis in module.axes:
        found = {value for product in entry.sweep for value in product[axis.name]}
        coords[axis.name] = (
            [name for name in axis.choices if name in found]
            if axis.choices
            else sorted(float(value) for value in found)
        )
    coords["seed"] = list(range(seeds))
    sweep = tuple(coords)
    coords |= trailing
    variables = {
        name: (sweep + variable.dims, np.zeros([len(coords[dim]) for dim in sweep + variable.dims]))
        for name, variable in module.variables.items()
    }
    status = (sweep, np.full([len(coords[dim]) for dim in sweep], FINISHED, np.int8))
    settings = CONFIG.settings_of(experiment).model_dump(mode="json")
    attributes = {"experiment": experiment, "settings": json.dumps(settings), "config_hash": f"hash of {experiment}"}
    return xr.Dataset({**variables, "status": status}, coords, attributes)


def put(world: World, experiment: str, variable: str, value: Any, **at: Any) -> None:
    """Set a variable at the given coordinates, to a number or to what a function makes of the old values."""
    array = world[experiment][variable]
    array.loc[at] = value(array.loc[at]) if callable(value) else value


def over_seeds(data: xr.DataArray, step: float) -> xr.DataArray:
    """Add -1, 0, 1 times a step to the values of the seeds."""
    return data + xr.DataArray(step * JITTER[: data.sizes["seed"]], dims="seed")


def collapse(rates: xr.DataArray, critical: Any) -> xr.DataArray:
    return 1 / (1 + (critical / rates) ** 6)


def sparsity(experiment: str) -> xr.Dataset:
    data = blank(experiment, threshold=[1e-6, 1e-3], feature=np.arange(200))
    critical = xr.DataArray(
        [critical_learning_rates(float(n), "learnt", 200)[0] for n in data.noise_std.values],
        dims="noise_std",
    )
    sparse = collapse(data.learning_rate, critical)
    fine, coarse = {"threshold": 1e-6}, {"threshold": 1e-3}
    vanilla, rescaled = {"parameterization": "vanilla"}, {"parameterization": "rescaled"}
    for variable, at, value in (
        ("initial_sparsity", vanilla | coarse, 0.01),
        ("initial_sparsity", rescaled | coarse, 0.42),
        ("sparsity", vanilla | fine, 0.001),
        ("sparsity", vanilla | coarse, 0.05),
    ):
        data[variable].loc[at] = value
    data["sparsity"].loc[rescaled | fine] = over_seeds(sparse.broadcast_like(data.status[0]), 1e-4)
    data["sparsity"].loc[rescaled | coarse] = over_seeds((0.42 + 0.58 * sparse).broadcast_like(data.status[0]), 1e-4)
    risk = {"vanilla": 50 * data.learning_rate, "rescaled": 0.001 + 0 * data.learning_rate}
    drift = 0.01 if experiment == "sparsity_long" else 0.0
    for name, value in risk.items():
        weights = 1 / 200 + np.sqrt(value / 200) + drift
        data["weight"].loc[{"parameterization": name}] = over_seeds(weights.broadcast_like(data.weight[0]), 1e-6)
    data["weight"].loc[rescaled | {"feature": slice(0, 99)}] = 0.0  # half of the product rests on its mirrors
    diverged = {"parameterization": "vanilla", "learning_rate": float(data.learning_rate[-1])}
    for name in ("weight", "sparsity"):
        data[name].loc[diverged] = np.nan
    data["status"].loc[diverged] = DIVERGED
    return data


def sparsity_noise_features() -> xr.Dataset:
    data = blank("sparsity_noise_features", threshold=[1e-6, 1e-3], feature=np.arange(200))
    error = xr.where(data.feature < 20, np.sqrt(0.001 / 20) * data.noise_std, 0.0)
    weights = xr.where(data.feature < 20, 1 / 20, 0.0) + error
    data["weight"] = over_seeds(weights.broadcast_like(data.weight), 1e-6).transpose(*data.weight.dims)
    return data


def sparsity_batch() -> xr.Dataset:
    data = blank("sparsity_batch", threshold=[1e-6, 1e-3])
    sparse = collapse(data.learning_rate, 0.005 * data.batch_size)
    data["sparsity"].loc[{"threshold": 1e-6}] = over_seeds(sparse.broadcast_like(data.status), 1e-4)
    data["sparsity"].loc[{"threshold": 1e-3}] = over_seeds((0.42 + 0.58 * sparse).broadcast_like(data.status), 1e-4)
    return data


def sparsity_phase() -> xr.Dataset:
    data = blank("sparsity_phase", threshold=[1e-6, 1e-3], feature=np.arange(200))
    for noise in data.noise_std.values:
        low, high = critical_learning_rates(float(noise), "learnt", 200)
        inside = (data.learning_rate > low).astype(float).where(data.learning_rate < high)
        at = {"parameterization": "rescaled", "noise_std": noise}
        data["sparsity"].loc[at] = inside.broadcast_like(data["sparsity"].loc[at])
        data["status"].loc[at] = xr.where(inside.notnull(), FINISHED, DIVERGED).broadcast_like(data["status"].loc[at])
    return data


def positive_exponents(data: xr.Dataset) -> xr.DataArray:
    """The rank of this world: it falls with the learning rate and with noise."""
    lost = 180 * ((data.learning_rate - 5e-4) / 5e-3).clip(0, 1) * (1 - data.signal) ** 4
    return (200 - lost).round()


def matrix_factorization(experiment: str, seeds: int = 3) -> xr.Dataset:
    steps = CONFIG.experiments[experiment].settings["measured_steps"]
    data = blank(experiment, seeds, step=steps, mode=np.arange(200))
    factored = over_seeds(positive_exponents(data).expand_dims(seed=data.seed), 1.0).clip(0, 200)
    late = data.step > 0
    still_high = xr.where((data.step > 0) & (data.step < 50000), 2, 0)
    rank = xr.where(late, np.minimum(factored + still_high, 200), 200.0).broadcast_like(data["rank"]).copy()
    rank = rank.transpose(*data["rank"].dims)
    scale = xr.DataArray(np.ones(data.sizes["parameterization"]), coords={"parameterization": data.parameterization})
    if "residual" in data.parameterization:
        rank.loc[{"parameterization": "residual"}] = 200.0
        scale.loc[{"parameterization": "residual"}] = 0.02
    for name in ("rank", "rank_w", "rank_u", "rank_raw_w", "rank_raw_u"):
        data[name] = rank.copy()
    values = xr.where(data.mode < rank, scale, 1e-8).transpose(*data["singular_value"].dims)
    data["singular_value"] = values
    return data


def matrix_factorization_noiseless() -> xr.Dataset:
    data = matrix_factorization("matrix_factorization_noiseless")
    data["rank"][:] = 200.0
    return data


def factorization_stability() -> xr.Dataset:
    data = blank("factorization_stability", mode=np.arange(200))
    rank = positive_exponents(data).expand_dims(seed=data.seed)
    growth = 0.5 * np.log1p(2 * data.signal * data.learning_rate)  # half of gradient descent's
    exponents = xr.where(data.mode < np.minimum(rank, 199), growth, -1.0)
    data["lyapunov_exponent"] = exponents.transpose(*data["lyapunov_exponent"].dims)
    data["exponent_error"] = 1e-3 * abs(data["lyapunov_exponent"])
    data["escape_rate"] = data["lyapunov_exponent"].max("mode")
    data["escape_error"] = 1e-3 * data["escape_rate"]
    data["settled"][:] = 1.0
    return data


def theory_checks() -> xr.Dataset:
    data = blank("theory_checks")
    data["violation_control"][:] = 1.0
    return data


def homogeneity() -> xr.Dataset:
    neurons = np.arange(128)
    data = blank("homogeneity", neuron=neurons, neuron_2=neurons, epoch=np.arange(101))
    block = neurons[:, None] // 16 == neurons // 16
    for i, (decay, seed) in enumerate(itertools.product(data.weight_decay.values, data.seed.values)):
        at = {"weight_decay": decay, "seed": seed}
        generator = np.random.default_rng(i)
        for name in ("correlation_pre", "correlation_post", "initial_correlation_pre", "initial_correlation_post"):
            noise = generator.uniform(-0.1, 0.1, (128, 128))
            matrix = (noise + noise.T) / 2
            if decay > 0 and not name.startswith("initial"):
                matrix = np.where(block, 0.9995, matrix)
            np.fill_diagonal(matrix, 1)
            data[name].loc[at] = matrix
        data["weight_distance"].loc[at] = np.where(block & (decay > 0), 0.1, 1.0)
        data["initial_weight_distance"].loc[at] = 1.0
        data["test_accuracy"].loc[at] = 0.93 - decay + 0.001 * seed
    return data


def plasticity(experiment: str) -> xr.Dataset:
    data = blank(experiment, task=np.arange(11), parameter=np.arange(200))
    dead_until = over_seeds((16.0 * data.task).expand_dims(seed=data.seed), 1.0) - 1  # parameters die in their order
    alive = (data.parameter >= dead_until).astype(float)
    for name in ("gradient_max", "gradient_full"):
        data[name][:] = 1.0
        data[name].loc[{"variant": "rescaled"}] = alive
        data[name].loc[{"variant": "vanilla", "parameter": slice(100, None)}] = np.nan
    loss = over_seeds((1 + 0.05 * data.task).expand_dims(seed=data.seed), 0.001)
    data["train_loss"] = loss.broadcast_like(data["train_loss"]).transpose(*data["train_loss"].dims)
    return data


def stationary_conditions() -> xr.Dataset:
    data = blank("stationary_conditions", start=np.arange(8), step=np.arange(401), coordinate=["u", "w"])
    data["position"] = (np.sin(data.step)).broadcast_like(data["position"]).transpose(*data["position"].dims)
    data["distance"].loc[{"start": slice(4, None)}] = 0.5
    data["own_line_distance"].loc[{"landscape": "rescaling", "start": slice(4, None)}] = 0.5
    return data


def dcs_resnet() -> xr.Dataset:
    data = blank("dcs_resnet", epoch=np.arange(201), batch_size=[1, 128])
    data["test_accuracy"] = over_seeds((0.93 * (1 - np.exp(-data.epoch / 5))).broadcast_like(data.test_accuracy), 1e-4)
    data["test_accuracy"] = data["test_accuracy"].transpose("parameterization", "seed", "epoch")
    put({"d": data}, "d", "test_accuracy", lambda old: over_seeds(old + 0.005, 1e-4), parameterization="dcs")
    data["epoch_seconds"][:] = 10.0
    data["epoch_seconds"].loc[{"epoch": 0}] = np.nan
    put({"d": data}, "d", "epoch_seconds", lambda old: over_seeds(old * 1.1, 0.01), parameterization="dcs")
    data["sparsity"].loc[{"parameterization": "dcs"}] = (0.8 * data.epoch / 200).broadcast_like(data["sparsity"][0])
    data["pruned_test_accuracy"] = data["test_accuracy"].isel(epoch=-1, drop=True)
    for (arm, size), value in {
        ("vanilla", 1): 100.0, ("dcs", 1): 200.0, ("vanilla", 128): 1000.0, ("dcs", 128): 1050.0,
    }.items():  # fmt: skip
        data["peak_memory"].loc[{"parameterization": arm, "batch_size": size}] = value
    return data


def regularized_factorization() -> xr.Dataset:
    data = blank("regularized_factorization", mode=np.arange(1, 51))
    ranks = xr.DataArray([50.0, 48, 45, 40, 36, 30, 24, 18, 12, 6, 2, 0], coords={"weight_decay": data.weight_decay})
    for name in ("rank", "predicted_rank"):
        data[name] = ranks.broadcast_like(data[name]).copy()
    for name in ("singular_value", "predicted_singular_value"):
        data[name] = (data.mode <= ranks).astype(float).broadcast_like(data[name]).transpose(*data[name].dims)
    data["gradient_norm"][:] = 1e-9
    return data


def attention(experiment: str) -> xr.Dataset:
    data = blank(
        experiment, step=np.arange(0, 4001, 500), layer=[1, 2], matrix=["key", "query"], mode=np.arange(1, 102)
    )
    ends = xr.DataArray(
        np.interp(data.weight_decay, [0, 1e-3, 1e-2, 0.1, 1, 3], [100, 98, 55, 24, 9, 9]), dims="weight_decay"
    )
    at_end = over_seeds(ends.expand_dims(seed=data.seed), 4.0)
    at_end = at_end + xr.DataArray([0.0, 25.0], coords={"layer": [1, 2]})
    at_end = at_end + xr.DataArray(
        [0.0, 1.0 if experiment == "attention" else 0.0], coords={"matrix": ["key", "query"]}
    )
    rank = xr.where(data.step > 0, at_end, 101).broadcast_like(data["rank"]).transpose(*data["rank"].dims).copy()
    rank.loc[{"layers": 1, "layer": 2}] = np.nan
    data["rank"] = rank
    spectrum = over_seeds(xr.ones_like(data["singular_value"]), 0.1)
    spectrum = spectrum + xr.DataArray([0.0, 0.01], coords={"matrix": ["key", "query"]})
    data["singular_value"] = spectrum.transpose(*data["singular_value"].dims)
    data["singular_value"].loc[{"layers": 1, "layer": 2}] = np.nan
    data["train_loss"] = xr.where(data.step > 0, 50.0, 100.0).broadcast_like(data["train_loss"]).copy()
    return data


def make_world() -> World:
    return {
        "sparsity": sparsity("sparsity"),
        "sparsity_long": sparsity("sparsity_long"),
        "sparsity_noisy": sparsity("sparsity_noisy"),
        "sparsity_noise_features": sparsity_noise_features(),
        "sparsity_batch": sparsity_batch(),
        "sparsity_phase": sparsity_phase(),
        "matrix_factorization": matrix_factorization("matrix_factorization"),
        "matrix_factorization_phase": matrix_factorization("matrix_factorization_phase"),
        "matrix_factorization_noiseless": matrix_factorization_noiseless(),
        "factorization_stability": factorization_stability(),
        "homogeneity": homogeneity(),
        "theory_checks": theory_checks(),
        "plasticity": plasticity("plasticity"),
        "plasticity_damped": plasticity("plasticity_damped"),
        "stationary_conditions": stationary_conditions(),
        "dcs_resnet": dcs_resnet(),
        "regularized_factorization": regularized_factorization(),
        "attention": attention("attention"),
        "attention_gradient_descent": attention("attention_gradient_descent"),
    }
