"""Rank against weight decay in matrix factorization by gradient descent (Figure 8), with the exact prediction.

``W U`` with ``gamma (||W||**2 + ||U||**2)`` is regression on ``V = W U`` with the penalty ``2 gamma ||V||_*``, which is
convex. Its solution, by proximal gradient, is the prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from mirrorsym.measures import rank
from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CHECK_EVERY = 50


class RegularizedFactorizationSettings(Settings):
    """What a sweep of the weight decay keeps fixed."""

    dimension: int = Field(50, ge=1, description="Width of input, hidden layer and output.")
    points: int = Field(200, ge=1, description="Training points, all of them in every step.")
    spectrum_power: float = Field(1.0, ge=0, description="Singular value i of the target map is i to minus this power.")
    noise_std: float = Field(0.1, ge=0, description="Standard deviation of the noise on each label.")
    initial_std: float = Field(0.05, gt=0, description="Standard deviation of the entries of W and U at the start.")
    learning_rate: float = Field(0.2, gt=0, description="Learning rate of gradient descent.")
    gradient_norm: float = Field(1e-8, gt=0, description="Descent ends below this norm of the gradient.")
    max_steps: int = Field(30_000, ge=1, description="Descent ends after this many steps in any case.")
    prediction_tolerance: float = Field(
        1e-12, gt=0, description="The proximal gradient method ends when V moves by less than this."
    )


def problem(settings: RegularizedFactorizationSettings, seed: int) -> tuple[Array, Array]:
    """Return the training set, inputs and labels of shape (points, dimension) each.

    Inputs are standard normal (the paper's); labels come from a random linear map with a decaying spectrum, plus noise.
    """
    size = (settings.dimension, settings.dimension)
    generator = stream("regularized_factorization", seed, "target")
    left, right = (np.linalg.qr(generator.standard_normal(size))[0] for _ in range(2))
    target = left * np.arange(1.0, settings.dimension + 1) ** -settings.spectrum_power @ right.T
    x = stream("regularized_factorization", seed, "x").standard_normal((settings.points, settings.dimension))
    noise = stream("regularized_factorization", seed, "noise").standard_normal((settings.points, settings.dimension))
    return x, x @ target.T + settings.noise_std * noise


def descend(
    input_gram: Array, cross: Array, w: Array, u: Array, weight_decay: float, settings: RegularizedFactorizationSettings
) -> tuple[Array, Array, float, int]:
    """Run plain gradient descent on ``mean ||W U x - y||**2 + weight_decay / 2 (||W||**2 + ||U||**2)``.

    The data enter only through second moments, so a step is four products of small matrices.

    Args:
        input_gram: ``mean x x^T``, shape (dimension, dimension).
        cross: ``mean y x^T``, shape (dimension, dimension).
        w: start of the outgoing weights, shape (dimension, dimension).
        u: start of the incoming weights, same shape.
        weight_decay: PyTorch's number, 2 gamma.
        settings: learning rate and when to end.

    Returns:
        W, U, the norm of the gradient there and the number of steps. Not finite where descent diverged.
    """
    from scipy.linalg.blas import dgemm

    # In column-major order BLAS adds the product to the scaled weights in place: a step is four calls.
    w, u, spare, v, slope = (np.array(matrix, order="F") for matrix in (w, u, u, u, u))
    input_gram, cross = np.asfortranarray(input_gram), np.asfortranarray(cross)
    rate, kept = settings.learning_rate, 1 - settings.learning_rate * weight_decay
    steps = 0
    while True:
        dgemm(1.0, w, u, c=v, overwrite_c=1)
        slope[:] = cross
        dgemm(2.0, v, input_gram, beta=-2.0, c=slope, overwrite_c=1)
        if steps % CHECK_EVERY == 0 or steps == settings.max_steps:
            norm = float(np.linalg.norm([slope @ u.T + weight_decay * w, w.T @ slope + weight_decay * u]))
            if not settings.gradient_norm <= norm < np.inf or steps == settings.max_steps:
                return w, u, norm, steps
        spare[:] = u
        dgemm(-rate, w, slope, beta=kept, c=spare, trans_a=1, overwrite_c=1)
        dgemm(-rate, slope, u, beta=kept, c=w, trans_b=1, overwrite_c=1)
        u, spare = spare, u
        steps += 1


def nuclear_norm_regression(input_gram: Array, cross: Array, penalty: float, tolerance: float) -> tuple[Array, Array]:
    """Minimize ``mean ||V x - y||**2 + penalty ||V||_*``.

    Accelerated proximal gradient with the step and momentum of a strongly convex loss.

    Args:
        input_gram: ``mean x x^T``, shape (dimension, dimension), of full rank.
        cross: ``mean y x^T``, shape (dimension, dimension).
        penalty: 2 gamma.
        tolerance: ends when no step moves V by more than this in Frobenius norm.

    Returns:
        V and its singular values, largest first, in which the zeros are exact.
    """
    curvatures = 2 * np.linalg.eigvalsh(input_gram)
    step, root = 1 / curvatures[-1], np.sqrt(curvatures[0] / curvatures[-1])
    momentum = (1 - root) / (1 + root)
    v = ahead = np.zeros_like(cross)
    while True:
        left, values, right = np.linalg.svd(ahead - step * 2 * (ahead @ input_gram - cross))
        values = np.maximum(values - step * penalty, 0.0)
        new = left * values @ right
        if np.linalg.norm(new - ahead) < tolerance and np.linalg.norm(new - v) < tolerance:
            return new, values
        v, ahead = new, new + momentum * (new - v)


def run(settings: RegularizedFactorizationSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Descend to convergence at every weight decay, from one start, and solve the convex problem beside it.

    Args:
        settings: what is fixed.
        grid: values of ``weight_decay``.
        seed: of the data and the start.
        context: its ``progress`` is called after each weight decay.

    Returns:
        The contract's variables with dimensions (weight_decay, seed) and ``mode``.
    """
    x, y = problem(settings, seed)
    input_gram, cross = x.T @ x / settings.points, y.T @ x / settings.points
    initial = stream("regularized_factorization", seed, "initial")
    w, u = settings.initial_std * initial.standard_normal((2, settings.dimension, settings.dimension))
    decays = np.array(grid["weight_decay"], float)
    measured, predicted = np.full((2, decays.size, settings.dimension), np.nan)
    norms, steps = np.full((2, decays.size), np.nan)
    for i, decay in enumerate(decays):
        with np.errstate(over="ignore", invalid="ignore"):
            end_w, end_u, norm, taken = descend(input_gram, cross, w, u, float(decay), settings)
        predicted[i] = nuclear_norm_regression(input_gram, cross, float(decay), settings.prediction_tolerance)[1]
        if np.isfinite(norm):
            norms[i], steps[i] = norm, taken
            measured[i] = np.linalg.svd(end_w @ end_u, compute_uv=False)
        context.progress(i + 1, decays.size, {"weight_decay": float(decay), "gradient_norm": norm})
    diverged = np.isnan(norms)
    values = {
        "rank": np.where(diverged, np.nan, rank(measured)),
        "singular_value": measured,
        "predicted_rank": rank(predicted),
        "predicted_singular_value": predicted,
        "gradient_norm": norms,
        "steps": steps,
    }
    return EXPERIMENT.dataset(grid, seed, values, {"mode": np.arange(1, settings.dimension + 1)}, diverged)


EXPERIMENT = Experiment(
    name="regularized_factorization",
    title="Rank of matrix factorization by gradient descent against weight decay",
    settings=RegularizedFactorizationSettings,
    axes=(Axis("weight_decay", "weight decay as PyTorch counts it, 2 gamma for loss + gamma ||theta||^2"),),
    variables={
        "rank": Variable((), "rank of W U at the end of descent"),
        "singular_value": Variable(("mode",), "singular value of W U at the end of descent"),
        "predicted_rank": Variable((), "rank of the nuclear-norm solution, by the same threshold"),
        "predicted_singular_value": Variable(("mode",), "singular value of the nuclear-norm solution, exact zeros"),
        "gradient_norm": Variable((), "norm of the gradient at the end of descent"),
        "steps": Variable((), "steps of gradient descent"),
    },
    coords={"mode": "number of the singular value, largest first"},
    run=run,
)
