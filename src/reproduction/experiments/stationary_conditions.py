"""Stationary conditions (Figure 5): SGD that starts on one stays on it, beside SGD that starts off it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LANDSCAPES = ("rescaling", "rotation")


class StationaryConditionsSettings(Settings):
    """What all trajectories share."""

    steps: int = Field(400, ge=1, description="SGD steps of batch size 1.")
    learning_rate: float = Field(0.05, gt=0, description="Learning rate of SGD.")
    mean: float = Field(1.0, description="Mean of the sample's label y, and of its coefficient a.")
    noise_std: float = Field(0.5, ge=0, description="Standard deviation of y and of a.")
    angle: float = Field(0.4, description="Angle of the line drawn through the rotation landscape, in radians.")
    starts: tuple[tuple[float, float], ...] = Field(
        ((0.15, 0.0), (1.7, 0.0), (-1.4, 0.0), (0.0, 1.3), (0.2, 0.5), (1.2, 0.9), (-0.5, 1.4), (-1.2, -0.4)),
        min_length=1,
        description="Starts (along, across) in the frame of two stationary conditions: a zero puts the start on one.",
    )


def frame(landscape: str, settings: StationaryConditionsSettings) -> Array:
    """Return two stationary conditions at a right angle, lines through the origin, as unit vectors in rows.

    For the rescaling landscape these are ``u = w`` and ``u = -w``, all that there are. In the rotation landscape every
    line through the origin is one; ``settings.angle`` picks a pair.
    """
    if landscape == "rescaling":
        return np.asarray(np.array([[1.0, 1.0], [1.0, -1.0]]) * np.sqrt(0.5))
    cos, sin = np.cos(settings.angle), np.sin(settings.angle)
    return np.array([[cos, sin], [-sin, cos]])


def gradient(landscape: str, theta: Array, sample: float) -> Array:
    """Return the gradient of one sample's loss at ``theta = (u, w)``, shape (..., 2).

    The losses are ``(w u - y)**2`` and ``-a ||theta||**2 + ||theta||**4``, with ``sample`` for y or a; their means are
    the paper's up to a constant.
    """
    if landscape == "rescaling":
        error = theta[..., :1] * theta[..., 1:] - sample
        return np.asarray(2 * error * theta[..., ::-1])
    squared_norm = (theta**2).sum(-1, keepdims=True)
    return np.asarray((4 * squared_norm - 2 * sample) * theta)


def run(settings: StationaryConditionsSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Follow SGD from every start in every landscape; all starts of a landscape see the same samples.

    Args:
        settings: what is fixed.
        grid: values of ``landscape``.
        seed: of the samples.
        context: not used.

    Returns:
        ``position``, ``distance`` (to the nearer of the two conditions of :func:`frame`), ``own_line_distance`` and
        ``status``, with dimensions (landscape, seed) and start, step, coordinate. A landscape in which one start
        diverges is NaN as a whole.
    """
    positions = np.stack([_trajectories(settings, str(landscape), seed) for landscape in grid["landscape"]])
    diverged = ~np.isfinite(positions).all(axis=(1, 2, 3))
    positions[diverged] = np.nan
    frames = np.stack([frame(str(landscape), settings) for landscape in grid["landscape"]])
    distance = np.abs(np.einsum("lnst,lft->lnsf", positions, frames)).min(axis=-1)
    unit = positions[:, :, :1] / np.linalg.norm(positions[:, :, :1], axis=-1, keepdims=True)
    own_line_distance = np.abs(positions[..., 0] * unit[..., 1] - positions[..., 1] * unit[..., 0])
    values = {"position": positions, "distance": distance, "own_line_distance": own_line_distance}
    coords = {
        "start": np.arange(len(settings.starts)),
        "step": np.arange(settings.steps + 1),
        "coordinate": ["u", "w"],
    }
    return EXPERIMENT.dataset(grid, seed, values, coords, diverged)


def _trajectories(settings: StationaryConditionsSettings, landscape: str, seed: int) -> Array:
    """Return positions, shape (starts, steps + 1, 2)."""
    noise = stream("stationary_conditions", seed, landscape).standard_normal(settings.steps)
    theta = np.array(settings.starts) @ frame(landscape, settings)
    positions = np.empty((len(theta), settings.steps + 1, 2))
    positions[:, 0] = theta
    with np.errstate(over="ignore", invalid="ignore"):
        for step, sample in enumerate(settings.mean + settings.noise_std * noise):
            theta = theta - settings.learning_rate * gradient(landscape, theta, float(sample))
            positions[:, step + 1] = theta
    return positions


EXPERIMENT = Experiment(
    name="stationary_conditions",
    title="SGD on and off the stationary conditions of two landscapes",
    settings=StationaryConditionsSettings,
    axes=(Axis("landscape", "symmetry of the loss", choices=LANDSCAPES),),
    variables={
        "position": Variable(("start", "step", "coordinate"), "parameters u and w"),
        "distance": Variable(("start", "step"), "distance to the nearer of the two stationary conditions drawn"),
        "own_line_distance": Variable(("start", "step"), "distance to the line through the origin and the start"),
    },
    coords={"start": "number of the start", "step": "SGD steps taken", "coordinate": "parameter"},
    run=run,
)
