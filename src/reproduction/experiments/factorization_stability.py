"""Lyapunov exponents of matrix factorization at W = U = 0, the prediction beside Figure 3 middle (Section 2.4)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr


class FactorizationStabilitySettings(Settings):
    """What a sweep of the exponents keeps fixed."""

    dimension: int = Field(200, ge=1, description="Size of the input, the hidden layer and the output.")
    steps: int = Field(4000, ge=1, description="SGD steps over which the exponents are averaged.")


def run(settings: FactorizationStabilitySettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Estimate the exponents at every point of the grid, all from the same samples.

    Args:
        settings: what is fixed.
        grid: values of ``signal`` and ``learning_rate``.
        seed: of the samples.
        context: its ``progress`` is called once a point.

    Returns:
        The exponents with dimensions (signal, learning_rate, seed, mode), largest first.
    """
    from reproduction.theory import factorization

    points = list(product(grid["signal"], grid["learning_rate"]))
    exponents = np.empty((len(points), settings.dimension))
    for index, (signal, learning_rate) in enumerate(points):
        samples = stream("factorization_stability", seed, "samples")
        exponents[index] = factorization.spectrum(
            float(learning_rate), float(signal), samples, settings.steps, settings.dimension
        )
        context.progress(index + 1, len(points), {})
    return EXPERIMENT.dataset(grid, seed, {"lyapunov_exponent": exponents}, {"mode": np.arange(settings.dimension)})


EXPERIMENT = Experiment(
    name="factorization_stability",
    title="Lyapunov exponents of matrix factorization at zero",
    settings=FactorizationStabilitySettings,
    axes=(
        Axis("signal", "mu, the weight of the input in the target; that of the noise is 1 - mu"),
        Axis("learning_rate", "learning rate of SGD"),
    ),
    variables={
        "lyapunov_exponent": Variable(
            ("mode",), "growth per step of the logarithm of a direction at W = U = 0, largest first"
        )
    },
    coords={"mode": "index of the exponent from the largest"},
    run=run,
)
