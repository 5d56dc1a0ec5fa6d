"""Self-attention on in-context regression (fig. 9, fig. 10): ranks of keys and queries (Section B.6).

Turning W_K and W_Q by one orthogonal matrix leaves a layer unchanged. By that double rotation symmetry the paper
expects weight decay to lower both ranks, and to lower them together.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[Any]
LAYERS = 2
MATRICES = ("key", "query")


class AttentionSettings(Settings):
    """What Section B.6 fixes: 50 tokens of 100 features, 500 points, Adam at 4e-3. The rest is open."""

    features: int = Field(100, gt=0, description="Features of a token; its label makes it one longer.")
    tokens: int = Field(50, gt=1, description="Tokens of a data point, the one to predict included.")
    points: tuple[PositiveInt, PositiveInt] = Field((500, 500), description="Data points, for one layer and for two.")
    steps: tuple[PositiveInt, PositiveInt] = Field(
        (4000, 4000), description="Full-batch steps, for one layer and for two."
    )
    measure_every: int = Field(50, gt=0, description="Steps between measurements; divides both numbers of steps.")
    learning_rate: float = Field(4e-3, gt=0, description="λ.")
    optimizer: Literal["adam", "gradient_descent"] = Field("adam", description="Adam (β 0.9, 0.999), or its control.")

    @model_validator(mode="after")
    def _measurements_fall_on_steps(self) -> AttentionSettings:
        if any(steps % self.measure_every for steps in self.steps):
            raise ValueError(f"measure_every is {self.measure_every} and does not divide the steps {self.steps}")
        return self


def in_context_data(settings: AttentionSettings, points: int, seed: int) -> tuple[Floats, Floats]:
    """Draw the data points of a seed (Eq. 12): labels ``x·w``, with a fresh w ~ N(0, I) for each data point.

    Returns:
        Tokens, shape (points, tokens, features + 1), whose last column is the label, masked by 0 in the last token;
        and the masked labels, shape (points,).
    """
    tokens = np.empty((points, settings.tokens, settings.features + 1))
    x = tokens[:, :, :-1]
    x[...] = stream("attention", seed, "x").standard_normal(x.shape)
    w = stream("attention", seed, "w").standard_normal((points, settings.features))
    tokens[:, :, -1] = np.einsum("ntf,nf->nt", x, w)
    targets = tokens[:, -1, -1].copy()
    tokens[:, -1, -1] = 0
    return tokens, targets


def initial_weights(width: int, layer: int, seed: int) -> Floats:
    """Draw W_K, W_Q and W_V, shape (3, width, width), of a layer counted from 1; entries are N(0, 1/width)."""
    entries: Floats = stream("attention", seed, f"initial_{layer}").standard_normal((3, width, width))
    return entries * float(width**-0.5)


def initial_parameters(width: int, layers: int, seed: int) -> Floats:
    """Return the weights that the loops of one and of two layers train, padded and flat, in float32."""
    from reproduction.kernels.attention import pad

    weights = [pad(initial_weights(width, layer, seed), (1, 2)) for layer in range(1, layers + 1)]
    *lower, top = weights
    return np.concatenate([*(matrices.ravel() for matrices in lower), top[:2].ravel(), top[2, width - 1]]).astype("f4")


def singular_values(parameters: Floats, width: int, layers: int) -> Floats:
    """Return the spectra of W_K and W_Q, shape (2 layers, 2 matrices, width), NaN for a layer that is not there."""
    padded = -(-width // 8) * 8
    spectra = np.full((LAYERS, len(MATRICES), width), np.nan)
    for layer in range(layers):
        start = 3 * layer * padded**2
        both = parameters[start : start + 2 * padded**2].reshape(2, padded, padded)[:, :width, :width]
        spectra[layer] = np.linalg.svd(both.astype(float), compute_uv=False)
    return spectra


def run_one(
    settings: AttentionSettings, layers: int, decoupled: bool, weight_decay: float, seed: int, context: Context
) -> tuple[Floats, Floats]:
    """Train one network, and measure it on the way.

    Returns:
        Spectra, shape (measurements, 2 layers, 2 matrices, width), and losses, shape (measurements,), for all steps
        of the result; NaN after this network's last one and from where it diverged.
    """
    from reproduction.kernels import attention, attention_two_layers

    loss_and_gradient = (attention if layers == 1 else attention_two_layers).loss_and_gradient
    width = settings.features + 1
    tokens, targets = in_context_data(settings, settings.points[layers - 1], seed)
    problem = attention.Problem.of(tokens.astype("f4"), targets.astype("f4"))
    descent = attention.Descent(settings.learning_rate, weight_decay, settings.optimizer == "adam", decoupled)
    parameters = initial_parameters(width, layers, seed)
    moments = np.zeros((2, parameters.size), parameters.dtype)
    measured = range(0, max(settings.steps) + 1, settings.measure_every)
    spectra = np.full((len(measured), LAYERS, len(MATRICES), width), np.nan)
    losses = np.full(len(measured), np.nan)
    for k, step in enumerate(measured):
        if step > settings.steps[layers - 1]:
            break
        if step:
            before = step - settings.measure_every
            attention.train(loss_and_gradient, problem, parameters, moments, before, settings.measure_every, descent)
        loss = loss_and_gradient(problem, parameters, np.empty_like(parameters))
        if not (np.isfinite(loss) and np.isfinite(parameters).all()):
            spectra[:], losses[:] = np.nan, np.nan
            break
        spectra[k], losses[k] = singular_values(parameters, width, layers), loss
        context.progress(step, settings.steps[layers - 1], {"loss": loss})
    return spectra, losses


def run(settings: AttentionSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train every network of the grid, on one data set."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from mirrorsym.measures import rank

    runs = []
    with threadpool_limits(1), np.errstate(all="ignore"):
        for layers, decay, weight_decay in itertools.product(*(grid[axis.name] for axis in EXPERIMENT.axes)):
            runs.append(run_one(settings, int(layers), decay == "decoupled", float(weight_decay), seed, context))
    spectra = np.stack([spectrum for spectrum, _ in runs])
    losses = np.stack([loss for _, loss in runs])
    ranks = np.where(np.isnan(spectra[..., 0]), np.nan, rank(spectra))
    values = {"rank": ranks, "singular_value": spectra.astype(np.float32), "train_loss": losses}
    coords = {
        "step": np.arange(0, max(settings.steps) + 1, settings.measure_every),
        "layer": np.arange(1, LAYERS + 1),
        "matrix": MATRICES,
        "mode": np.arange(1, settings.features + 2),
    }
    return EXPERIMENT.dataset(grid, seed, values, coords, np.isnan(losses[:, 0]))


EXPERIMENT = Experiment(
    name="attention",
    title="Ranks of key and query matrices of self-attention in an in-context regression",
    settings=AttentionSettings,
    axes=(
        Axis("layers", "number of attention layers", minimum=1, job_each=True),
        Axis("decay", "weight decay on the gradient or on the weights", ("coupled", "decoupled"), job_each=True),
        Axis("weight_decay", "weight decay (PyTorch's number)"),
    ),
    variables={
        "rank": Variable(("step", "layer", "matrix"), "rank of the matrix"),
        "singular_value": Variable(("step", "layer", "matrix", "mode"), "singular values of the matrix"),
        "train_loss": Variable(("step",), "mean squared error over the data points"),
    },
    run=run,
    coords={
        "step": "optimization steps taken",
        "layer": "layer, counted from the input",
        "matrix": "which matrix of the layer",
        "mode": "place in the order of singular values, the largest first",
    },
)
