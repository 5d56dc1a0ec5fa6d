"""Sparsity of a linear regressor trained by SGD, with and without rescaling symmetry (Section 3.1, Figure 3 left)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from mirrorsym.measures import ZERO_THRESHOLD, sparsity
from reproduction.contract import DIVERGED, Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

VANILLA, RESCALED = "vanilla", "rescaled"


class SparsitySettings(Settings):
    """What a sweep of the sparsity experiment keeps fixed."""

    features: int = Field(
        200, ge=1, description="Inputs of the regressor; each has the true weight 1/features where all inform."
    )
    steps: int = Field(100_000, ge=1, description="SGD steps, each on one fresh sample.")
    initial_variance: float = Field(1 / 200, gt=0, description="Variance of the normal start of every factor.")
    thresholds: tuple[float, ...] = Field(
        (ZERO_THRESHOLD, 1e-3), min_length=1, description="Magnitudes below which a weight counts as zero."
    )
    informative: int | None = Field(
        None,
        ge=1,
        description="Only the first so many features have a true weight, 1/informative each; the others are noise.",
        exclude_if=lambda value: value is None,  # as before there was a choice, so that its points keep their names
    )


def run(settings: SparsitySettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train every combination of the grid on one shared stream of samples, in float32.

    Inputs, unit label noise and initial factors depend on the seed only, so runs of other learning rates, noise and
    parameterizations are paired. The streams bear this module's name whatever id it runs under: a longer control has
    the same first steps.

    Args:
        settings: what is fixed.
        grid: values of ``parameterization``, ``noise_std`` and ``learning_rate``.
        seed: of the streams.
        context: its ``progress`` is called every few hundred steps.

    Returns:
        The contract's variables with dimensions (parameterization, noise_std, learning_rate, seed) and ``feature`` or
        ``threshold``.
    """
    points = list(product(grid["parameterization"], grid["noise_std"], grid["learning_rate"]))
    start = initial_factors("sparsity", settings.features, settings.initial_variance, seed)
    weight = np.empty((len(points), settings.features), np.float32)
    initial = np.empty_like(weight)
    diverged = np.empty(len(points), bool)
    groups = {name: [i for i, point in enumerate(points) if point[0] == name] for name in (VANILLA, RESCALED)}
    factors = {VANILLA: start[:1], RESCALED: start}
    runs = {name: _Runs.start(factors[name], [points[i] for i in groups[name]]) for name in groups}
    _train(settings, list(runs.values()), seed, context)
    for name, places in groups.items():
        weight[places], diverged[places] = runs[name].regressor(), runs[name].diverged()
        initial[places] = factors[name].prod(axis=0)

    def fractions(factors: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.stack([sparsity(factors, threshold) for threshold in settings.thresholds], axis=-1)

    gone = diverged[:, None]
    after = np.where(gone, np.nan, fractions(weight))
    shown = np.where(gone, np.float32(np.nan), weight)
    values = {"weight": shown, "sparsity": after, "initial_sparsity": fractions(initial)}
    coords = {"threshold": np.array(settings.thresholds, float), "feature": np.arange(settings.features)}
    return EXPERIMENT.dataset(grid, seed, values, coords, diverged)


def initial_factors(experiment: str, features: int, variance: float, seed: int) -> NDArray[np.float32]:
    """Return the initial w and u of a seed, shape (2, features), normal with the given variance."""
    draws = stream(experiment, seed, "initial").standard_normal((2, features), dtype=np.float32)
    return draws * np.float32(np.sqrt(variance))


class _Runs:
    """All runs of one parameterization: their factors (w, or w and u), shape (factors, runs, features), and states."""

    def __init__(self, factors: NDArray[np.float32], learning_rate: list[float], noise_std: list[float]) -> None:
        self.factors = factors
        self.learning_rate = np.array(learning_rate, np.float32)
        self.noise_std = np.array(noise_std, np.float32)
        self.status = np.zeros(len(learning_rate), np.int8)

    @classmethod
    def start(cls, factors: NDArray[np.float32], points: list[tuple[float | str, ...]]) -> _Runs:
        repeated = np.repeat(factors[:, None], len(points), axis=1)
        return cls(repeated, [float(point[2]) for point in points], [float(point[1]) for point in points])

    def advance(self, x: NDArray[np.float32], signal: NDArray[np.float32], noise: NDArray[np.float32]) -> None:
        from reproduction.kernels.sparsity import advance_rescaled, advance_vanilla

        fixed = x, signal, noise, self.learning_rate, self.noise_std
        if len(self.factors) == 1:
            advance_vanilla(*fixed, self.factors[0], self.status)
        else:
            advance_rescaled(*fixed, self.factors[0], self.factors[1], self.status)

    def regressor(self) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.factors.prod(axis=0))

    def diverged(self) -> NDArray[np.bool_]:
        return np.asarray(self.status == DIVERGED)


def _train(settings: SparsitySettings, groups: list[_Runs], seed: int, context: Context) -> None:
    from reproduction.kernels.sparsity import BLOCK

    inputs, noises = stream("sparsity", seed, "x"), stream("sparsity", seed, "noise")
    groups = [group for group in groups if group.status.size]
    for done in range(0, settings.steps, BLOCK):
        count = min(BLOCK, settings.steps - done)
        x = inputs.standard_normal((count, settings.features), dtype=np.float32)
        noise = noises.standard_normal(count, dtype=np.float32)
        signal = x[:, : settings.informative].mean(axis=1)
        for group in groups:
            group.advance(x, signal, noise)
        if done % (20 * BLOCK) == 0:
            context.progress(done + count, settings.steps, {})
    context.progress(settings.steps, settings.steps, {})


AXES = (
    Axis("parameterization", "whether the regressor is w or the elementwise product of w and u", (VANILLA, RESCALED)),
    Axis("noise_std", "standard deviation of the label noise"),
    Axis("learning_rate", "learning rate of SGD"),
)

EXPERIMENT = Experiment(
    name="sparsity",
    title="Sparsity of linear regression with and without rescaling symmetry",
    settings=SparsitySettings,
    axes=AXES,
    variables={
        "weight": Variable(("feature",), "weight of the regressor after training"),
        "sparsity": Variable(("threshold",), "fraction of weights with a magnitude below the threshold"),
        "initial_sparsity": Variable(("threshold",), "fraction of such weights before training"),
    },
    coords={"threshold": "magnitude below which a weight counts as zero", "feature": "index of the input"},
    run=run,
)
