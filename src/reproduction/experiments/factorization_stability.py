"""Lyapunov exponents of matrix factorization at W = U = 0, the prediction beside Figure 3 middle (Section 2.4)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr


class FactorizationStabilitySettings(Settings):
    """What a sweep of the exponents keeps fixed."""

    dimension: int = Field(200, ge=1, description="Size of the input, the hidden layer and the output.")
    steps: int = Field(
        65536,
        ge=32,
        description="SGD steps at most; it ends earlier where the exponents have settled, from a sixteenth on.",
    )


def run(settings: FactorizationStabilitySettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Estimate the exponents at every point of the grid, all from the same samples.

    Args:
        settings: what is fixed.
        grid: values of ``signal`` and ``learning_rate``.
        seed: of the samples.
        context: its ``progress`` is called once a point.

    Returns:
        The exponents and what is known of them, with dimensions (signal, learning_rate, seed) and, where there is one
        of each, mode, largest first.
    """
    from reproduction.theory import factorization

    points = list(product(grid["signal"], grid["learning_rate"]))
    spectra = []
    for index, (signal, learning_rate) in enumerate(points):
        samples = stream("factorization_stability", seed, "samples")
        spectra.append(
            factorization.spectrum(float(learning_rate), float(signal), samples, settings.steps, settings.dimension)
        )
        context.progress(index + 1, len(points), {})
    values: dict[str, list[Any]] = {
        "lyapunov_exponent": [one.exponents for one in spectra],
        "exponent_error": [one.errors for one in spectra],
        "escape_rate": [one.escape for one in spectra],
        "escape_error": [one.escape_error for one in spectra],
        "count_error": [factorization.count_error(one) for one in spectra],
        "steps": [float(one.steps) for one in spectra],
        "settled": [float(one.settled) for one in spectra],
    }
    return EXPERIMENT.dataset(grid, seed, values, {"mode": np.arange(settings.dimension)})


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
        ),
        "exponent_error": Variable(("mode",), "standard error of the exponent"),
        "escape_rate": Variable((), "growth per step of the logarithm of one vector, which settles at the largest"),
        "escape_error": Variable((), "standard error of this growth"),
        "count_error": Variable((), "standard error of the number of positive exponents"),
        "steps": Variable((), "steps of the run, over whose second half all is averaged"),
        "settled": Variable((), "1 where the exponents agree with those over the half before, else 0"),
    },
    coords={"mode": "index of the exponent from the largest"},
    run=run,
)
