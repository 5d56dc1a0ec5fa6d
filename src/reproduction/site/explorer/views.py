"""What the explorer shows: for each view its words, its knobs, its arrays and its charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from reproduction.contract import FINISHED, NOT_IN_SWEEP
from reproduction.experiments import stationary_conditions
from reproduction.formatting import setting
from reproduction.pipeline import store
from reproduction.pipeline.config import SCALES, Config
from reproduction.pipeline.layout import Layout
from reproduction.site.explorer import charts
from reproduction.site.explorer.cubes import cube
from reproduction.theory import rescaled_regressor, two_neurons

View = dict[str, Any]
STEP_SIZES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
SMALLEST, LARGEST = -20.0, 2.0
"""Powers of ten of a weight: what is smaller or larger is drawn there."""


@dataclass(frozen=True)
class Results:
    """The result files of a project, those of one scale before others."""

    layout: Layout
    scale: str

    def read(self, experiment: str, scale: str = "") -> xr.Dataset:
        """Return the results of an experiment, of the page's scale if nothing else is said."""
        return store.read(self.layout.result(scale or self.scale, experiment))

    def scales(self, experiment: str) -> list[str]:
        """Return the scales at which an experiment was run, the page's first."""
        others = [scale for scale in SCALES if scale not in (self.scale, "tiny")]
        return [self.scale, *(scale for scale in others if self.layout.result(scale, experiment).is_file())]


def slider(name: str, label: str, values: Iterable[Any], initial: Any) -> dict[str, Any]:
    """Return a knob that goes through values in their order and begins at the one nearest to ``initial``."""
    listed = [value.item() if isinstance(value, np.generic) else value for value in values]
    place = int(np.argmin([abs(value - initial) for value in listed]))
    return {"name": name, "label": label, "kind": "slider", "values": listed, "initial": place}


def choice(name: str, label: str, values: Iterable[Any], words: dict[Any, str] | None = None) -> dict[str, Any]:
    """Return a knob that picks one of a few values, of which it begins at the first."""
    listed = [value.item() if isinstance(value, np.generic) else value for value in values]
    named = [(words or {}).get(value, setting(value)) for value in listed]
    return {"name": name, "label": label, "kind": "choice", "values": listed, "words": named, "initial": 0}


def status_of(data: xr.Dataset) -> dict[str, Any]:
    """Return the state of each run as a cube: finished, diverged or not in the sweep."""
    return cube(data["status"].astype(float), FINISHED, NOT_IN_SWEEP, NOT_IN_SWEEP)


def stacked(parts: Mapping[str, xr.DataArray], name: str) -> xr.DataArray:
    """Return arrays of the same dimensions as one, with a further dimension of their names in front."""
    listed: Any = list(parts.values())
    found: xr.DataArray = xr.concat(listed, name, join="outer").assign_coords({name: list(parts)})
    return found


def sparsity(results: Results) -> View:
    """Rescaling symmetry: how many weights vanish, over learning rate and label noise."""
    data = results.read("sparsity_phase").isel(parameterization=0, drop=True)
    features = data.sizes["feature"]
    rates, noises, thresholds = (data[name].values for name in ("learning_rate", "noise_std", "threshold"))
    with np.errstate(divide="ignore"):
        powers: xr.DataArray = xr.apply_ufunc(np.log10, abs(data["weight"].astype(float))).clip(SMALLEST, LARGEST)
    by_size = xr.DataArray(
        np.sort(powers.values, -1), {**powers.coords, "feature": range(1, features + 1)}, powers.dims
    )
    critical = [rescaled_regressor.critical_learning_rates(float(noise), "collapsed", features) for noise in noises]
    ends = [
        {"noise_std": float(noise), "end": end, "rate": float(rate)}
        for noise, pair in zip(noises, critical, strict=True)
        for end, rate in zip(("collapse begins", "collapse ends"), pair, strict=True)
    ]
    return {
        "id": "sparsity",
        "title": "Rescaling: when do weights vanish?",
        "text": "Each weight of a linear regressor is a product of two. Move noise and learning rate, or click into "
        "the diagram: the red mark is where you are. Nothing is drawn where no run finished; orange lines are theory.",
        "controls": [
            slider("noise_std", "label noise σ", noises, 0.5),
            slider("learning_rate", "learning rate λ", rates, 0.01),
            choice("threshold", "a weight has vanished below", thresholds),
        ],
        "cubes": {
            "share": cube(data["sparsity"], 0, 1, features if features <= 254 else 200),
            "weights": cube(by_size.rename(feature="order"), SMALLEST, LARGEST),
            "status": status_of(data),
        },
        "tables": {"ends": ends, "thresholds": [{"threshold": float(np.log10(value))} for value in thresholds]},
        "charts": [
            {
                "title": "Share of vanished weights, median over seeds",
                "spec": charts.phase_diagram(),
                "columns": {"value": "share_of_vanished_weights"},
                "rows": {"cube": "share", "where": ["threshold"]},
                "theory": {"table": "ends", "where": [], "within": "learning_rate"},
            },
            {
                "title": "The same along the learning rate, every seed",
                "spec": charts.curves("learning_rate", "learning rate λ", "share", log=True, top=1, theory=True),
                "columns": {"value": "share_of_vanished_weights"},
                "rows": {"cube": "share", "where": ["noise_std", "threshold"]},
                "theory": {"table": "ends", "where": ["noise_std"], "within": "learning_rate"},
            },
            {
                "title": "The weights here, by size",
                "spec": charts.spectrum(),
                "columns": {"value": "log10|weight|", "order": "place_by_size"},
                "rows": {"cube": "weights", "where": ["noise_std", "learning_rate"]},
                "theory": {"table": "thresholds", "where": []},
            },
        ],
        "readout": {
            "cube": "share",
            "what": "share of vanished weights",
            "along": "learning_rate",
            "onset": {"along": "learning_rate", "level": 0.5, "label": "half of the weights have vanished from λ ="},
            "theory": {"table": "ends", "end": "collapse begins", "label": "theory: from λ ="},
        },
    }


def plane(results: Results) -> View:
    """Stationary conditions: stochastic gradient descent from any start, computed in the page."""
    fixed = store.settings_of(results.read("stationary_conditions"))
    settings = stationary_conditions.StationaryConditionsSettings(**fixed)
    landscapes: dict[str, dict[str, Any]] = {}
    for name in stationary_conditions.LANDSCAPES:
        lines = stationary_conditions.frame(name, settings).tolist()
        lowest = 0.0 if name == "rescaling" else -0.25 * settings.mean**2
        landscapes[name] = {"lines": lines, "normals": lines, "samples": [settings.mean], "lowest": lowest}
    half = float(np.sqrt(0.5))
    samples = np.stack([two_neurons.INPUTS, two_neurons.TARGETS], axis=-1).tolist()
    exchange = {"lines": [[half, half]], "normals": [[half, -half]], "samples": samples, "lowest": 0.0}
    landscapes["exchange"] = exchange
    grid = np.round(np.linspace(-2, 2, 81), 6)
    words = {
        "rescaling": "(wu − 1)², rescaling (Figure 5)",
        "rotation": "−‖θ‖² + ‖θ‖⁴, rotation (Figure 5)",
        "exchange": "two tanh neurons, exchange (Figure 1)",
    }
    return {
        "id": "plane",
        "title": "Does SGD stay where it starts?",
        "text": "Put the start anywhere: by the sliders, or by a click. What starts on a dashed line (u = w, say) "
        "stays on it to rounding; what starts off it comes nearer at best. The page computes the steps itself.",
        "controls": [
            choice("landscape", "mean loss", list(landscapes), words),
            slider("u", "start u", grid, 1.2),
            slider("w", "start w", grid, 1.2),
            slider("learning_rate", "learning rate λ", STEP_SIZES, settings.learning_rate),
            slider("noise_std", "noise of the samples", np.round(np.linspace(0, 2, 21), 6), settings.noise_std),
            slider("seed", "seed", list(range(20)), 0),
        ],
        "cubes": {},
        "tables": {},
        "plane": {"landscapes": landscapes, "steps": settings.steps},
        "charts": [
            {"title": "The path, from the red mark", "spec": charts.plane(), "renderer": "svg", "square": True},
            {"title": "Distance to the nearer dashed line", "spec": charts.distance()},
        ],
    }


def plasticity(results: Results) -> View:
    """Loss of plasticity: parameters that stop to learn, one change at a time."""
    data = results.read("plasticity")
    main = {"precision": "float32", "adam_state": "reset", "noise_std": 0.1, "learning_rate": 0.01}
    changes: dict[str, dict[str, Any]] = {
        "none": {},
        "learning rate 0.001": {"learning_rate": 0.001},
        "label noise 1": {"noise_std": 1.0},
        "double precision": {"precision": "float64"},
        "Adam's state kept": {"adam_state": "kept"},
    }
    parts = {}
    for name, change in changes.items():
        at = {**main, **change}
        if all(value in data[axis].values for axis, value in at.items()):
            part = data[["dead_parameters", "status"]].sel(at).drop_vars(list(main))
            if bool((part["status"] != NOT_IN_SWEEP).any()):
                parts[name] = part
    dead = stacked({name: part["dead_parameters"] for name, part in parts.items()}, "change")
    status = stacked({name: part["status"] for name, part in parts.items()}, "change")
    size = data.sizes["parameter"]
    sizes = {name: size // 2 if name == "vanilla" else size for name in VARIANTS}
    return {
        "id": "plasticity",
        "title": "Which parameters stop to learn?",
        "text": "A regressor learns one task after the other. A parameter is dead where its gradient is below a "
        "millionth on every point. Change one thing at a time. The plain model has half as many parameters.",
        "controls": [
            choice("change", "one change", list(parts)),
            choice("variant", "model, for the numbers below", sorted(dead["variant"].values.tolist()), VARIANTS),
            slider("task", "after task", dead["task"].values, int(dead["task"].max())),
        ],
        "cubes": {
            "dead": cube(dead, 0, size, size if size <= 254 else 200),
            "status": status_of(status.to_dataset(name="status")),
        },
        "tables": {},
        "charts": [
            {
                "title": "Dead parameters after each task",
                "spec": charts.curves(
                    "task", "tasks trained on", "dead parameters", color="variant", top=size, words=VARIANTS
                ),
                "columns": {"value": "dead_parameters"},
                "rows": {"cube": "dead", "where": ["change"]},
            }
        ],
        "readout": {"cube": "dead", "what": "dead parameters", "of": sizes},
    }


VARIANTS = {
    "vanilla": "plain",
    "rescaled": "product",
    "rescaled_gradient_noise": "product, noise on the gradient",
    "rescaled_bias": "product, fixed random bias",
}
MODELS = {"factored": "product WU", "residual": "with residual connections"}
DEFINITIONS = {
    "rank": "of WU on data",
    "rank_w": "of W, relative threshold",
    "rank_u": "of U, relative threshold",
    "rank_raw_w": "of W, absolute threshold",
    "rank_raw_u": "of U, absolute threshold",
}


def rank(results: Results) -> View:
    """Rotation symmetry: the rank that SGD leaves of a matrix factorization."""
    data = results.read("matrix_factorization")
    ranks = stacked({name: data[name] for name in DEFINITIONS}, "definition")
    size = data.sizes["mode"]
    return {
        "id": "rank",
        "title": "Which rank does SGD leave?",
        "text": "A matrix is learnt as a product of two, W and U. The smaller the signal μ beside the noise and the "
        "larger the learning rate, the lower the rank; residual connections change where it starts.",
        "controls": [
            slider("learning_rate", "learning rate λ", data["learning_rate"].values, 0.004),
            slider("signal", "signal μ", data["signal"].values, 0.02),
            slider("step", "after steps", data["step"].values, int(data["step"].max())),
            choice("parameterization", "model", data["parameterization"].values.tolist(), MODELS),
            choice("initial_std", "size of the start", data["initial_std"].values),
            choice("definition", "rank", list(DEFINITIONS), DEFINITIONS),
        ],
        "cubes": {"rank": cube(ranks, 0, size, size if size <= 254 else 250), "status": status_of(data)},
        "tables": {},
        "charts": [
            {
                "title": "Rank along the learning rate, every seed",
                "spec": charts.curves("learning_rate", "learning rate λ", "rank", log=True, top=size),
                "columns": {"value": f"rank_of_{size}"},
                "rows": {
                    "cube": "rank",
                    "where": ["signal", "step", "parameterization", "initial_std", "definition"],
                },
            }
        ],
        "readout": {"cube": "rank", "what": "rank", "of": size, "along": "learning_rate"},
    }


def neurons(results: Results) -> View:
    """Permutation symmetry: correlations of the penultimate neurons of a ResNet18, at each scale that was run."""
    scales = {scale: results.read("homogeneity", scale) for scale in results.scales("homogeneity")}
    matrices = stacked({scale: _matrices(data) for scale, data in scales.items()}, "scale")
    notes = " ".join(f"Scale {data.attrs['scale_note'] or scale}." for scale, data in scales.items())
    return {
        "id": "neurons",
        "title": "Do neurons become copies of each other?",
        "text": "Correlations of the neurons of a ResNet18’s last hidden layer, in one order for all pictures of a "
        f"network. Blocks are groups that fire alike; what is not drawn are constant neurons. {notes}",
        "controls": [
            choice("scale", "scale", list(scales)),
            choice("weight_decay", "weight decay", matrices["weight_decay"].values[::-1]),
            choice("seed", "seed", matrices["seed"].values),
            choice("side", "activation", ["before", "after"]),
            choice("when", "training", ["end", "start"]),
        ],
        "cubes": {"correlation": cube(matrices, -1, 1)},
        "tables": {},
        "charts": [
            {
                "title": "Correlations",
                "spec": charts.matrix(),
                "columns": {"value": "correlation"},
                "below": charts.LEGEND_BELOW,
                "rows": {"cube": "correlation", "where": ["scale", "weight_decay", "seed", "side", "when"]},
                "renderer": "canvas",
                "square": True,
            }
        ],
        "readout": {"pairs": "correlation", "above": 0.95},
    }


def _matrices(data: xr.Dataset) -> xr.DataArray:
    """The correlations at the end and the start, before and after the activation, in the order of each network."""
    parts = {}
    for when, prefix in (("end", ""), ("start", "initial_")):
        sides = {"before": data[f"{prefix}correlation_pre"], "after": data[f"{prefix}correlation_post"]}
        parts[when] = stacked({side: _ordered(one, data["order_pre"]) for side, one in sides.items()}, "side")
    return stacked(parts, "when")


def _ordered(matrices: xr.DataArray, order: xr.DataArray) -> xr.DataArray:
    """The matrices with the neurons of each network in its order."""
    values, places = matrices.values.copy(), order.values
    for at in np.ndindex(values.shape[:-2]):
        if np.isfinite(places[at]).all():
            chosen = places[at].astype(int)
            values[at] = values[at][np.ix_(chosen, chosen)]
    return matrices.copy(data=values)


def attention(results: Results) -> View:
    """Double rotation symmetry: ranks of keys and queries while attention trains."""
    data = results.read("attention")
    size = data.sizes["mode"]
    return {
        "id": "attention",
        "title": "How do ranks of keys and queries fall?",
        "text": "One or two layers of self-attention learn regression in context under Adam. Coupled decay passes "
        "through the optimizer, decoupled decay (AdamW) does not.",
        "controls": [
            choice("layers", "layers of the model", data["layers"].values, {1.0: "1", 2.0: "2"}),
            choice("layer", "layer shown", data["layer"].values) | {"within": "layers"},
            choice("matrix", "matrix", data["matrix"].values.tolist()),
            choice("decay", "decay", data["decay"].values.tolist()),
            choice("weight_decay", "weight decay, for the numbers below", data["weight_decay"].values[::-1]),
            slider("step", "after steps", data["step"].values, int(data["step"].max())),
        ],
        "cubes": {
            "rank": cube(data["rank"], 0, size, size if size <= 254 else 250),
            "status": status_of(data),
        },
        "tables": {},
        "charts": [
            {
                "title": "Rank over training",
                "spec": charts.curves("step", "step", "rank", color="weight_decay", top=size),
                "columns": {"value": f"rank_of_{size}"},
                "rows": {"cube": "rank", "where": ["layers", "layer", "matrix", "decay"]},
            }
        ],
        "readout": {"cube": "rank", "what": "rank", "of": size, "along": "weight_decay"},
    }


VIEWS: dict[str, tuple[Callable[[Results], View], str]] = {
    "sparsity": (sparsity, "sparsity_phase"),
    "plane": (plane, "stationary_conditions"),
    "plasticity": (plasticity, "plasticity"),
    "rank": (rank, "matrix_factorization"),
    "neurons": (neurons, "homogeneity"),
    "attention": (attention, "attention"),
}
"""Each view and the experiment that it reads."""


def views(config: Config, layout: Layout) -> list[View]:
    """Return the views of the experiments that the configuration has.

    Raises:
        FileError: if a result file is missing.
        StoreError: if one cannot be read.
    """
    results = Results(layout, config.scale)
    made = [make(results) for make, experiment in VIEWS.values() if experiment in config.experiments]
    for chart in (chart for view in made for chart in view["charts"]):
        chart["sets"] = charts.sets(chart["spec"])
    return made
