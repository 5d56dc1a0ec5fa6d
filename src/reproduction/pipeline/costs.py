"""What a point's job has to do, in units that its time is linear in: updates of weights, spectra, FLOPs.

A job takes ``start + sum(rate * amount)`` seconds; :mod:`reproduction.pipeline.rates` holds the rates of a device.
Amounts follow the loops of kernels and trainings and know nothing of any machine. Runs that diverge stop early: a rate
is measured on the configured sweep, so the share of them is in the rate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.pipeline.config import load_experiment
from reproduction.pipeline.points import Point

BACKWARD = 2
"""FLOPs of the gradients relative to the forward pass: one product for the inputs, one for the weights."""

DESCENT_STEPS = 11_000
"""Steps, on average over the decays of the sweep at scale quick, until gradient descent of fig8 meets its tolerance."""


@dataclass(frozen=True)
class Work:
    """The work of one job.

    Args:
        module: the experiment's module, whose start-up it has.
        amounts: terms and their amounts; "training" and "evaluation" are FLOPs.
        arm: "vanilla" or "dcs" for a training of a ResNet, empty for a simulation.
        step_flop: FLOPs of one training step, which the speed of a device depends on; 0 for a simulation.
    """

    module: str
    amounts: Mapping[str, float]
    arm: str = ""
    step_flop: float = 0.0

    @property
    def flop(self) -> float:
        """FLOPs of a training, evaluations included; 0 for a simulation."""
        return sum(self.amounts.values()) if self.arm else 0.0


@dataclass(frozen=True)
class PictureSet:
    """Sizes of a set of pictures: their numbers and the shape of one, (channels, height, width)."""

    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int = 10


PICTURES = {
    "cifar10": PictureSet(50_000, 10_000, (3, 32, 32)),
    "digits": PictureSet(1_437, 360, (1, 8, 8)),
}


def pictures_of(dataset: str, data: Path) -> PictureSet:
    """Return the sizes of a data set: the official ones, or those of ``data/cifar10.nc`` where it lies there."""
    path = data / "cifar10.nc"
    if dataset != "cifar10" or not path.is_file():
        return PICTURES[dataset]
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            sizes = {name: len(dimension) for name, dimension in file.dimensions.items()}
        return PictureSet(sizes["train_sample"], sizes["test_sample"], PICTURES[dataset].shape)
    except (OSError, KeyError):  # damaged: the workflow says so before it trains
        return PICTURES[dataset]


def work_of(point: Point, pictures: PictureSet | None = None) -> Work | None:
    """Return the work of a point's job, or None where the module is not known here.

    Args:
        point: the job.
        pictures: of a training; the official sizes of its data set where None is given.
    """
    if point.module in ("homogeneity", "dcs_resnet"):
        return _training(point, pictures or PICTURES[dict(point.settings)["dataset"]])
    count = AMOUNTS.get(point.module)
    return None if count is None else Work(point.module, count(dict(point.settings), point))


def forward_flop(width: int, stem_stride: int, shape: tuple[int, int, int], classes: int = 10) -> int:
    """Return the FLOPs of one picture's way through the ResNet18, two for each multiplication with its addition.

    Counted by torch on the meta device: nothing is computed.

    Args:
        width: channels of the first stage.
        stem_stride: stride of the first convolution.
        shape: of a picture, (channels, height, width).
        classes: number of classes.
    """
    return _forward_flop(width, stem_stride, tuple(shape), classes)


@functools.cache
def _forward_flop(width: int, stem_stride: int, shape: tuple[int, ...], classes: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from reproduction.models.resnet import ResNet18

    with torch.device("meta"), torch.no_grad():
        network = ResNet18(shape[0], classes, width, stem_stride).eval()
        picture = torch.empty(1, *shape)
        with FlopCounterMode(display=False) as counter:
            network(picture)
    return int(counter.get_total_flops())


def _training(point: Point, pictures: PictureSet) -> Work:
    """The FLOPs of a training: 3 forward passes for a picture that it learns from, 1 for one that it is tested on.

    Writing parameters as products adds an elementwise operation for each parameter and step, which is not counted.
    """
    settings = dict(point.settings)
    forward = forward_flop(settings["width"], settings["stem_stride"], pictures.shape, pictures.classes)
    steps = pictures.train // settings["batch_size"] * settings["epochs"]
    step_flop = float((1 + BACKWARD) * forward * settings["batch_size"])
    if point.module == "homogeneity":
        trainings, arm = len(point.grid["weight_decay"]), "vanilla"
        tested = 2 * min(settings["test_points"], pictures.test) + pictures.test
    else:
        trainings, arm = len(point.grid["parameterization"]), str(point.grid["parameterization"][0])
        tested = pictures.test * (settings["epochs"] + 2)  # at the start, after each epoch, after pruning
    amounts = {"training": trainings * steps * step_flop, "evaluation": float(trainings * tested * forward)}
    return Work(point.module, amounts, arm, step_flop)


def _runs(point: Point) -> int:
    return math.prod(len(values) for values in point.grid.values())


def _sparsity(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Samples are drawn once for all runs; each run updates its one or two weights per feature."""
    updates = settings["steps"] * settings["features"]
    runs = len(point.grid["noise_std"]) * len(point.grid["learning_rate"])
    parts = {name: float(updates * runs) for name in map(str, point.grid["parameterization"])}
    return {"draws": float(updates), "vanilla": 0.0, "rescaled": 0.0} | parts


def _sparsity_batch(settings: dict[str, Any], point: Point) -> dict[str, float]:
    return {"updates": float(settings["steps"] * settings["features"] * _runs(point))}


def _matrix_factorization(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Steps over both matrices, and spectra: of the product and both factors, with residuals of the raw ones too."""
    dimension, measured = settings["dimension"], settings["measured_steps"]
    updates = measured[-1] * _runs(point) * dimension**2
    starts = len(point.grid["parameterization"]) * len(point.grid["initial_std"]) if measured[0] == 0 else 0
    spectra = _runs(point) * (len(measured) - (measured[0] == 0)) + starts
    each = 5 if "residual" in point.grid["parameterization"] else 3
    return {"updates": float(updates), "spectra": float(spectra * each * dimension**3)}


def _plasticity(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Updates of one factor (vanilla) or two, for each feature of each point in a batch."""
    factors = sum(1 if variant == "vanilla" else 2 for variant in point.grid["variant"])
    others = _runs(point) // len(point.grid["variant"]) // len(point.grid["precision"])
    steps = settings["tasks"] * settings["steps"] * settings["batch_size"] * settings["dimension"]
    parts = {str(precision): float(steps * factors * others) for precision in point.grid["precision"]}
    return {"float32": 0.0, "float64": 0.0} | parts


def _regularized_factorization(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Steps of descent, which end at a tolerance, and one convex problem for each decay."""
    decays, cube = len(point.grid["weight_decay"]), settings["dimension"] ** 3
    steps = min(settings["max_steps"], DESCENT_STEPS)
    return {"descent": float(decays * steps * cube), "prediction": float(decays * cube)}


def _factorization_stability(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Steps with their factorizations, a quarter of them before the exponents are averaged."""
    return {"steps": 1.25 * settings["steps"] * _runs(point) * settings["dimension"] ** 2}


def _stationary_conditions(settings: dict[str, Any], point: Point) -> dict[str, float]:
    return {"steps": float(settings["steps"] * _runs(point))}


def _hessian_structure(settings: dict[str, Any], point: Point) -> dict[str, float]:
    return {"steps": float(settings["steps"])}


def _attention(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Passes over the tokens: linear in the width for one layer, two products of each point's matrices for two."""
    others = _runs(point) // len(point.grid["layers"])
    amounts = {"one_layer": 0.0, "two_layers": 0.0}
    for layers in point.grid["layers"]:
        index = int(layers) - 1
        tokens, width = settings["tokens"], settings["features"] + 1
        entries = settings["points"][index] * settings["steps"][index] * tokens * width * others
        amounts["two_layers" if index else "one_layer"] = float(entries * (width + tokens if index else 1))
    return amounts


def _theory_checks(settings: dict[str, Any], point: Point) -> dict[str, float]:
    """Checks, of an average cost: their list is always run whole."""
    return {"checks": float(_runs(point))}


AMOUNTS: dict[str, Callable[[dict[str, Any], Point], dict[str, float]]] = {
    "sparsity": _sparsity,
    "sparsity_batch": _sparsity_batch,
    "matrix_factorization": _matrix_factorization,
    "plasticity": _plasticity,
    "regularized_factorization": _regularized_factorization,
    "factorization_stability": _factorization_stability,
    "stationary_conditions": _stationary_conditions,
    "hessian_structure": _hessian_structure,
    "attention": _attention,
    "theory_checks": _theory_checks,
}
"""Each simulation's terms. A term that a point does not have is there with 0, so that rates are always complete."""


def result_bytes(point: Point) -> int | None:
    """Return the bytes of a point's variables without compression, or None where a dimension is not known.

    An upper bound, 8 bytes for each number, without the few kB that a netCDF file takes for its own.
    """
    lengths = _lengths(dict(point.settings))
    total = 0
    for variable in load_experiment(point.module).variables.values():
        if any(dim not in lengths for dim in variable.dims):
            return None
        total += 8 * math.prod(lengths[dim] for dim in variable.dims)
    return total * _runs(point)


def _lengths(settings: dict[str, Any]) -> dict[str, int]:
    """The lengths of the trailing dimensions of results, as far as settings have them."""
    found = {"neuron": 128, "neuron_2": 128, "batch_size": 2, "layer": 2, "matrix": 2, "mirror": 2, "coordinate": 2}
    for dim, name in (("feature", "features"), ("mode", "dimension"), ("distance", "profile_points")):
        if name in settings:
            found[dim] = settings[name]
    if "thresholds" in settings:
        found["threshold"] = len(settings["thresholds"])
    if "epochs" in settings:
        found["epoch"] = settings["epochs"] + 1
    if "measured_steps" in settings:
        found["step"] = len(settings["measured_steps"])
    elif "measure_every" in settings:
        found["step"] = max(settings["steps"]) // settings["measure_every"] + 1
        found["mode"] = settings["features"] + 1
    elif "starts" in settings:
        found |= {"step": settings["steps"] + 1, "start": len(settings["starts"])}
    if "tasks" in settings:
        found |= {"task": settings["tasks"] + 1, "parameter": 2 * settings["dimension"]}
    if "hidden" in settings:
        parameters = settings["hidden"] * (settings["inputs"] + 1 + settings["outputs"])
        found |= dict.fromkeys(("parameter", "parameter_2", "direction", "direction_2"), parameters)
        found |= dict.fromkeys(("scalar_parameter", "scalar_parameter_2"), 2 * settings["scalar_neurons"])
    return found
