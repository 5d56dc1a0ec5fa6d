"""Continual regression (fig. 4): parameters whose gradient vanishes, task after task (Section 3.4, Appendix B.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mirrorsym.measures import ZERO_THRESHOLD
from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[Any]

VARIANTS = ("vanilla", "rescaled", "rescaled_gradient_noise", "rescaled_bias")


class PlasticitySettings(Settings):
    """What the paper fixes in Appendix B.3, and what it leaves open (initial_std, beta2, epsilon, dead_threshold)."""

    tasks: int = Field(10, gt=0, description="Number of tasks, each starting from the last one's weights.")
    steps: int = Field(25000, gt=0, description="Adam steps on each task.")
    dimension: int = Field(100, gt=0, description="Number of features.")
    points: int = Field(100, gt=0, description="Number of points of a task.")
    batch_size: int = Field(16, gt=0, description="Points in a batch, drawn with replacement.")
    initial_std: float = Field(0.1, ge=0, description="Standard deviation of every initial weight.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of Adam's second moment; its beta1 is 0.")
    epsilon: float = Field(1e-8, gt=0, description="Adam's epsilon.")
    gradient_noise_variance: float = Field(1e-4, ge=0, description="Variance of the noise of rescaled_gradient_noise.")
    bias_variance: float = Field(1e-4, ge=0, description="Variance of the fixed biases of rescaled_bias.")
    dead_threshold: float = Field(
        ZERO_THRESHOLD, gt=0, description="Gradients below it on every point of a task count as zero."
    )


@dataclass
class _Run:
    """One point of the grid while it trains: weights, biases and second moments, shape (factors, dimension)."""

    variant: str
    precision: str
    adam_state: str
    noise_std: float
    learning_rate: float
    weights: Floats
    bias: Floats
    second_moment: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.second_moment = np.zeros_like(self.weights)

    @property
    def factors(self) -> Floats:
        """The factors of the model as the training sees them, biases included and rounded to its precision."""
        return self.weights + self.bias


@dataclass(frozen=True)
class _Task:
    """The data of one task, the batches of its steps and the noise of their gradients."""

    inputs: Floats
    unit_noise: Floats
    batches: NDArray[np.int32]
    gradient_noise: NDArray[np.float32]

    def targets(self, noise_std: float) -> Floats:
        return np.asarray(self.inputs.mean(axis=1) + noise_std * self.unit_noise)


def _tasks(settings: PlasticitySettings, seed: int, with_gradient_noise: bool) -> Iterator[_Task]:
    """Yield the tasks of a seed, whose streams all its runs share; the gradient noise lies in one reused array."""
    inputs, noise, batches, gradient_noise = (
        stream("plasticity", seed, purpose) for purpose in ("x", "noise", "batches", "gradient_noise")
    )
    drawn = np.empty((settings.steps if with_gradient_noise else 0, 2, settings.dimension), np.float32)
    for _ in range(settings.tasks):
        gradient_noise.standard_normal(out=drawn, dtype=np.float32)
        yield _Task(
            inputs.standard_normal((settings.points, settings.dimension)),
            noise.standard_normal(settings.points),
            batches.integers(settings.points, size=(settings.steps, settings.batch_size), dtype=np.int32),
            drawn,
        )


def _start(settings: PlasticitySettings, grid: Grid, seed: int) -> list[_Run]:
    shape = (2, settings.dimension)
    weights = settings.initial_std * stream("plasticity", seed, "initial").standard_normal(shape)
    biases = np.sqrt(settings.bias_variance) * stream("plasticity", seed, "bias").standard_normal(shape)
    runs = []
    for variant, precision, adam_state, noise_std, learning_rate in itertools.product(*(grid[a.name] for a in AXES)):
        rows = 1 if variant == "vanilla" else 2
        bias = biases if variant == "rescaled_bias" else np.zeros(shape)
        runs.append(
            _Run(
                str(variant),
                str(precision),
                str(adam_state),
                float(noise_std),
                float(learning_rate),
                weights[:rows].astype(str(precision)),
                bias[:rows].astype(str(precision)),
            )
        )
    return runs


def _train(run: _Run, task: _Task, number: int, settings: PlasticitySettings) -> None:
    from reproduction.kernels.plasticity import train

    first = 1
    if run.adam_state == "kept":
        first += number * settings.steps
    else:
        run.second_moment[:] = 0
    counts = np.arange(first, first + settings.steps)
    noisy = run.variant == "rescaled_gradient_noise"
    train(
        task.inputs.astype(run.precision),
        task.targets(run.noise_std).astype(run.precision),
        task.batches,
        task.gradient_noise,
        float(np.sqrt(settings.gradient_noise_variance)) if noisy else 0.0,
        run.bias,
        run.learning_rate,
        settings.beta2,
        settings.epsilon,
        ((1 - settings.beta2**counts) ** -0.5).astype(run.precision),
        run.weights,
        run.second_moment,
    )


def gradients(factors: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, float]:
    """Measure the gradients of the squared error by each weight, in double precision.

    Args:
        factors: the model's one or two factors, whose product predicts, shape (factors, dimension).
        x: inputs, shape (points, dimension).
        y: targets, shape (points,).

    Returns:
        The largest magnitude over the points and the magnitude of the mean over them, both of shape
        (factors * dimension,), and the mean squared error.
    """
    factors = factors.astype(float)
    error = x @ factors.prod(axis=0) - y
    partners = np.ones_like(factors) if len(factors) == 1 else factors[::-1]
    largest = np.abs(2 * error[:, np.newaxis] * x).max(axis=0)
    full = np.abs(2 * error @ x / len(x))
    return np.abs(partners * largest).ravel(), np.abs(partners * full).ravel(), float((error**2).mean())


def _run(settings: PlasticitySettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    runs = _start(settings, grid, seed)
    moments, parameters = settings.tasks + 1, 2 * settings.dimension
    largest = np.full((len(runs), moments, parameters), np.nan)
    full = np.full_like(largest, np.nan)
    loss = np.full((len(runs), moments), np.nan)
    noisy = any(run.variant == "rescaled_gradient_noise" for run in runs)
    for number, task in enumerate(_tasks(settings, seed, noisy)):
        for index, run in enumerate(runs):
            targets = task.targets(run.noise_std)
            for moment in (0, 1) if number == 0 else (number + 1,):
                if moment:
                    _train(run, task, number, settings)
                if not np.isfinite(run.weights).all():
                    continue
                size = run.weights.size
                with np.errstate(over="ignore", invalid="ignore"):
                    measured = gradients(run.factors, task.inputs, targets)
                largest[index, moment, :size], full[index, moment, :size], loss[index, moment] = measured
        dead = (largest[:, number + 1] < settings.dead_threshold).sum(axis=-1).max()
        context.progress(number + 1, settings.tasks, {"most dead parameters": float(dead)})
    diverged = ~np.isfinite(loss).all(axis=1)
    dead = (largest < settings.dead_threshold).sum(axis=-1, dtype=float)
    values = {"dead_parameters": dead, "gradient_max": largest, "gradient_full": full, "train_loss": loss}
    for array in values.values():
        array[diverged] = np.nan
    coords = {"task": np.arange(moments), "parameter": np.arange(parameters)}
    return EXPERIMENT.dataset(grid, seed, values, coords, diverged)


AXES = (
    Axis("variant", "parameterization of the regressor and remedy", choices=VARIANTS),
    Axis("precision", "floating point type of the training", choices=("float32", "float64")),
    Axis("adam_state", "Adam's second moment at the start of a task", choices=("reset", "kept")),
    Axis("noise_std", "standard deviation of the label noise"),
    Axis("learning_rate", "learning rate"),
)

EXPERIMENT = Experiment(
    name="plasticity",
    title="Loss of plasticity in continual linear regression (fig. 4)",
    settings=PlasticitySettings,
    axes=AXES,
    variables={
        "dead_parameters": Variable(("task",), "number of parameters whose gradient vanishes on every point"),
        "gradient_max": Variable(
            ("task", "parameter"), "largest magnitude of the gradient over the points of the task, no noise injected"
        ),
        "gradient_full": Variable(("task", "parameter"), "magnitude of the full-batch gradient, no noise injected"),
        "train_loss": Variable(("task",), "mean squared error on the points of the task"),
    },
    run=_run,
    coords={
        "task": "number of tasks trained on; 0 is the start, measured on the first task's points",
        "parameter": "index of the parameter, w before u; a plain regressor has only w",
    },
)
