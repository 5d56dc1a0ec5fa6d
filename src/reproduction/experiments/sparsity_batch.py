"""Small batches favour collapse (Section 2.4): the rescaled regressor trained with batches of several sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from mirrorsym.measures import ZERO_THRESHOLD, sparsity
from reproduction.contract import DIVERGED, Axis, Context, Experiment, Grid, Settings, Variable, whole_number
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


class SparsityBatchSettings(Settings):
    """What a sweep of the batch size keeps fixed."""

    features: int = Field(200, ge=1, description="Inputs of the regressor; every one has the true weight 1/features.")
    steps: int = Field(100_000, ge=1, description="SGD steps, each on a fresh batch, whatever its size.")
    initial_variance: float = Field(1 / 200, gt=0, description="Variance of the normal start of both factors.")
    noise_std: float = Field(1.0, ge=0, description="Standard deviation of the label noise.")
    thresholds: tuple[float, ...] = Field(
        (ZERO_THRESHOLD, 1e-3), min_length=1, description="Magnitudes below which a weight counts as zero."
    )


def run(settings: SparsityBatchSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train the rescaled regressor at every batch size and learning rate for the same number of steps, in float32.

    Batches are drawn in law rather than sample by sample: what a batch adds to a step is determined by few enough
    normal numbers (see :func:`reproduction.kernels.sparsity.advance_rescaled_batch`). The initial factors and the part
    orthogonal to the current error are shared by all batch sizes, so their curves are paired.

    Args:
        settings: what is fixed.
        grid: values of ``batch_size`` (whole numbers) and ``learning_rate``.
        seed: of the streams.
        context: its ``progress`` is called every few hundred steps.

    Returns:
        ``sparsity`` and ``status`` with dimensions (batch_size, learning_rate, seed) and ``threshold``.

    Raises:
        SettingError: if a batch size is no whole number above zero.
    """
    sizes = [whole_number("batch_size", value) for value in grid["batch_size"]]
    w, u, status = _train(settings, sizes, np.array(grid["learning_rate"], np.float32), seed, context)
    diverged = status.ravel() == DIVERGED
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (w * u).reshape(len(diverged), -1)
    columns = np.stack([sparsity(weight, threshold) for threshold in settings.thresholds], axis=-1)
    values = {"sparsity": np.where(diverged[:, None], np.nan, columns)}
    return EXPERIMENT.dataset(grid, seed, values, {"threshold": np.array(settings.thresholds, float)}, diverged)


def batch_curvature(
    batch_size: int, noise_std: float, others_learnt: bool, features: int = 200
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the law of a batch's curvature at a collapsed feature, as values with their probabilities.

    Along (1, 1) in the plane of w_i = u_i = 0 the curvature is h = -(2/B) Σ_b x_b (x_b/features + r_b), with r the part
    of the residual that does not depend on the feature. Given q = Σ_b x_b², it is normal with mean -2q/(B features) and
    standard deviation 2 std(r) √q / B, and √q follows the chi law with B degrees of freedom.

    Args:
        batch_size: samples in a batch.
        noise_std: standard deviation of the label noise.
        others_learnt: True where all other features are at their targets, False where they are at zero.
        features: number of inputs.

    Returns:
        Values and probabilities, both of shape (n,), for :func:`mirrorsym.stability.lyapunov_exponent`.
    """
    from scipy.stats import chi

    rest_std = np.sqrt(noise_std**2 + (0 if others_learnt else (features - 1) / features**2))
    nodes, weights = np.polynomial.legendre.leggauss(240)
    normal, normal_weight = 9 * nodes, 9 * weights * np.exp(-((9 * nodes) ** 2) / 2) / np.sqrt(2 * np.pi)
    low, high = max(np.sqrt(batch_size) - 7, 0), np.sqrt(batch_size) + 7
    root = low + (high - low) * (nodes + 1) / 2
    root_weight = (high - low) / 2 * weights * chi.pdf(root, batch_size)
    values = -2 / batch_size * root[:, None] * (root[:, None] / features + rest_std * normal)
    probability = root_weight[:, None] * normal_weight
    return values.ravel(), probability.ravel() / probability.sum()


def _train(
    settings: SparsityBatchSettings, sizes: list[int], rates: NDArray[np.float32], seed: int, context: Context
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int8]]:
    """Return w and u, shape (batch sizes, learning rates, features), and the runs' status."""
    from reproduction.kernels.sparsity import BLOCK, advance_rescaled_batch

    name = "sparsity_batch"
    start = stream(name, seed, "initial").standard_normal((2, settings.features), dtype=np.float32)
    start *= np.float32(np.sqrt(settings.initial_variance))
    w, u = (np.tile(factor, (len(sizes), rates.size, 1)) for factor in start)
    status = np.zeros((len(sizes), rates.size), np.int8)
    normals = stream(name, seed, "orthogonal")
    # A stream for each batch size: its numbers must not depend on which other sizes share the job.
    along = [stream(name, seed, f"along/{size}") for size in sizes]
    noise = [stream(name, seed, f"noise/{size}") for size in sizes]
    for done in range(0, settings.steps, BLOCK):
        count = min(BLOCK, settings.steps - done)
        normal = normals.standard_normal((count, settings.features), dtype=np.float32)
        for i, size in enumerate(sizes):
            zeta = along[i].standard_normal((count, size), dtype=np.float32)
            epsilon = noise[i].standard_normal((count, size), dtype=np.float32)
            advance_rescaled_batch(normal, zeta, epsilon, rates, settings.noise_std, w[i], u[i], status[i])
        if done % (20 * BLOCK) == 0:
            context.progress(done + count, settings.steps, {})
    context.progress(settings.steps, settings.steps, {})
    return w, u, status


EXPERIMENT = Experiment(
    name="sparsity_batch",
    title="Sparsity of the rescaled regressor against batch size",
    settings=SparsityBatchSettings,
    axes=(
        Axis("batch_size", "samples averaged in one step"),
        Axis("learning_rate", "learning rate of SGD"),
    ),
    variables={"sparsity": Variable(("threshold",), "fraction of weights with a magnitude below the threshold")},
    coords={"threshold": "magnitude below which a weight counts as zero"},
    run=run,
)
