"""Rank of matrix factorization trained by SGD, with and without residual connections (Section 3.2, Figure 3 middle)."""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, field_validator

from mirrorsym.measures import rank
from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Value, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Matrices = NDArray[np.float32]

FACTORED, RESIDUAL = "factored", "residual"
STREAM = "matrix_factorization"

CHUNK = 3200
"""Steps whose samples are in memory at once."""


class MatrixFactorizationSettings(Settings):
    """What a sweep of matrix factorization keeps fixed."""

    dimension: int = Field(200, ge=1, description="Size of the input, the hidden layer and the output.")
    measured_steps: tuple[int, ...] = Field(
        (0, 1_000, 10_000, 50_000, 100_000),
        min_length=1,
        description="Numbers of SGD steps after which ranks are measured, ascending; the last one ends the run.",
    )

    label_noise: bool = Field(
        True,
        description="Whether targets are mu x + (1 - mu) noise, or mu x alone.",
        exclude_if=lambda value: value,  # as before there was a choice, so that its points keep their names
    )

    @field_validator("measured_steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if steps[0] < 0 or any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("measured_steps must ascend from 0 or more, each step count once")
        return steps


def run(settings: MatrixFactorizationSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train every combination of the grid on one shared stream of samples, in float32.

    Inputs, unit label noise and unit initial entries depend on the seed only, whatever id the experiment runs under;
    ``signal`` and ``initial_std`` scale them. So all runs of a seed are paired.

    Args:
        settings: what is fixed.
        grid: values of ``parameterization``, ``initial_std``, ``signal`` and ``learning_rate``.
        seed: of the streams.
        context: its ``progress`` is called every few thousand steps.

    Returns:
        The contract's variables with dimensions (parameterization, initial_std, signal, learning_rate, seed, step) and
        ``mode``; NaN at all steps of a run that diverged.
    """
    points = list(product(*(grid[axis.name] for axis in AXES)))
    unit = initial_factors(settings.dimension, seed)
    factors = np.stack([_start(unit, point) for point in points])
    diverged = np.zeros(len(points), bool)
    measured = np.full((len(points), len(settings.measured_steps), len(RANKS) + settings.dimension), np.nan)
    at_start: dict[tuple[Value, ...], NDArray[np.float64]] = {}
    samples = _Samples(settings.dimension, seed, settings.label_noise)
    for place, (done, step) in enumerate(pairwise((0, *settings.measured_steps))):
        _advance(factors, points, diverged, samples, done, step, settings.measured_steps[-1], context)
        for index, point in enumerate(points):
            if diverged[index]:
                measured[index] = np.nan
            elif step == 0:
                # All signals and learning rates start at the same matrices.
                if point[:2] not in at_start:
                    at_start[point[:2]] = _measure(factors[index], point)
                measured[index, place] = at_start[point[:2]]
            else:
                measured[index, place] = _measure(factors[index], point)
    values = {name: measured[..., index] for index, name in enumerate(RANKS)}
    values["singular_value"] = measured[..., len(RANKS) :]
    coords = {"step": np.array(settings.measured_steps), "mode": np.arange(settings.dimension)}
    return EXPERIMENT.dataset(grid, seed, values, coords, diverged)


def initial_factors(dimension: int, seed: int) -> Matrices:
    """Return the unit normal entries from which W and U of a seed start, shape (2, dimension, dimension)."""
    return stream(STREAM, seed, "initial").standard_normal((2, dimension, dimension), dtype=np.float32)


def _start(unit: Matrices, point: tuple[Value, ...]) -> Matrices:
    """The matrices that multiply: scaled normal entries, plus the identity where there is a residual connection."""
    parameterization, initial_std, *_ = point
    identity = np.eye(unit.shape[-1], dtype=np.float32) if parameterization == RESIDUAL else np.float32(0)
    return np.float32(initial_std) * unit + identity


class _Samples:
    """The stream of inputs and label noise of a seed."""

    def __init__(self, dimension: int, seed: int, label_noise: bool = True) -> None:
        self.inputs, self.noises = stream(STREAM, seed, "x"), stream(STREAM, seed, "noise")
        self.noise_std = np.sqrt(2 * label_noise / np.arange(1, dimension + 1)).astype(np.float32)

    def draw(self, count: int) -> tuple[Matrices, Matrices]:
        """Return the next inputs and their noise of variance 2/i in output i from 1, both (count, dimension)."""
        shape = (count, len(self.noise_std))
        x = self.inputs.standard_normal(shape, dtype=np.float32)
        return x, self.noises.standard_normal(shape, dtype=np.float32) * self.noise_std


def _advance(
    factors: Matrices,
    points: list[tuple[Value, ...]],
    diverged: NDArray[np.bool_],
    samples: _Samples,
    done: int,
    until: int,
    total: int,
    context: Context,
) -> None:
    """Advance all runs that have not diverged from step ``done`` to step ``until``, in place."""
    from reproduction.kernels.matrix_factorization import advance

    while done < until and not diverged.all():
        count = min(CHUNK, until - done)
        x, noise = samples.draw(count)
        for index, (_, _, signal, learning_rate) in enumerate(points):
            if not diverged[index]:
                w, u = factors[index]
                diverged[index] = not advance(w, u, x, noise, float(signal), float(learning_rate))
        done += count
        context.progress(done, total, {"diverged": float(diverged.sum())})


def _measure(factors: Matrices, point: tuple[Value, ...]) -> NDArray[np.float64]:
    """Return the five ranks in the order of RANKS, then the singular values of the product."""
    w, u = factors.astype(np.float64)
    spectra = [_singular_values(matrix) for matrix in (w @ u, w, u)]
    if point[0] == RESIDUAL:
        identity = np.eye(len(w))
        spectra += [_singular_values(matrix - identity) for matrix in (w, u)]
    else:
        spectra += spectra[1:]
    return np.concatenate([[float(rank(spectrum)) for spectrum in spectra], spectra[0]])


def _singular_values(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)


RANKS = {
    "rank": "rank of the matrix that multiplies the input, end to end",
    "rank_w": "rank of the second matrix that multiplies: W, or I + W with residual connections",
    "rank_u": "rank of the first matrix that multiplies: U, or I + U with residual connections",
    "rank_raw_w": "rank of W itself",
    "rank_raw_u": "rank of U itself",
}

AXES = (
    Axis("parameterization", "whether the model is W U x or (I + W)(I + U) x", (FACTORED, RESIDUAL), job_each=True),
    Axis("initial_std", "standard deviation of the initial entries of W and U"),
    Axis("signal", "mu, the weight of the input in the target; that of the noise is 1 - mu"),
    Axis("learning_rate", "learning rate of SGD"),
)

EXPERIMENT = Experiment(
    name="matrix_factorization",
    title="Rank of matrix factorization with and without residual connections",
    settings=MatrixFactorizationSettings,
    axes=AXES,
    variables={
        **{name: Variable(("step",), long_name) for name, long_name in RANKS.items()},
        "singular_value": Variable(
            ("step", "mode"), "singular value of the matrix that multiplies the input, largest first"
        ),
    },
    coords={"step": "number of SGD steps taken", "mode": "index of the singular value from the largest"},
    run=run,
)
