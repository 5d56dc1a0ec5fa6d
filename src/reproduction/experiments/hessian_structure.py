"""The Hessian at symmetric solutions (Figure 2): blocks for every sample, and the loss across the mirror.

A network of one hidden tanh layer has a mirror for each pair of neurons (their exchange, Eq. 11) and one for each
neuron (the flip of all its signs, since tanh is odd). It is trained on one of each: neurons 0 and 1 are equal, and
neuron 2 is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mirrorsym.mirrors import Mirror, coupling, identity_mirror, permutation_mirror, rescaling_mirrors, sectors
from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable, whole_number
from reproduction.streams import stream

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    import xarray as xr
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MIRRORS = ("permutation", "sign")


class HessianStructureSettings(Settings):
    """The network, its training set, and where the loss is looked at."""

    inputs: int = Field(3, ge=1, description="Inputs of the network.")
    hidden: int = Field(5, ge=3, description="Hidden neurons: 0 and 1 are equal, 2 is zero, the others are free.")
    outputs: int = Field(2, ge=1, description="Outputs of the network.")
    samples: int = Field(64, ge=1, description="Training samples, from a network of the same size plus noise.")
    noise_std: float = Field(0.1, ge=0, description="Standard deviation of the noise on each label.")
    learning_rate: float = Field(0.1, gt=0, description="Learning rate of full-batch gradient descent.")
    steps: int = Field(1500, ge=1, description="Steps of gradient descent on the mirrors.")
    displacement: float = Field(0.3, gt=0, description="Distance from both mirrors at which the control is taken.")
    profile_range: float = Field(1.5, gt=0, description="Largest distance from a mirror at which the loss is taken.")
    profile_points: int = Field(121, ge=3, description="Points on the line across a mirror.")
    scalar_neurons: int = Field(4, ge=1, description="Neurons of the scalar tanh network of Eq. 2, d there.")


def neuron(index: int, settings: HessianStructureSettings) -> list[int]:
    """Return the places of one neuron's parameters in the flat vector of W, b and U, in that order."""
    inputs, hidden = settings.inputs, settings.hidden
    incoming = [index * inputs + i for i in range(inputs)]
    outgoing = [hidden * inputs + hidden + output * hidden + index for output in range(settings.outputs)]
    return [*incoming, hidden * inputs + index, *outgoing]


def parameters(settings: HessianStructureSettings) -> int:
    """Return the number of parameters of the network."""
    return settings.hidden * (settings.inputs + 1 + settings.outputs)


def network_mirrors(settings: HessianStructureSettings) -> tuple[Mirror, Mirror]:
    """Return the mirrors that exchange neurons 0 and 1 and that flip the signs of neuron 2."""
    size = len(neuron(0, settings))
    exchange = permutation_mirror(size).embed([*neuron(0, settings), *neuron(1, settings)], parameters(settings))
    return exchange, identity_mirror(size).embed(neuron(2, settings), parameters(settings))


def predict(theta: torch.Tensor, x: torch.Tensor, settings: HessianStructureSettings) -> torch.Tensor:
    """Return ``U tanh(W x + b)`` for inputs of shape (..., inputs)."""
    inputs, hidden = settings.inputs, settings.hidden
    weight = theta[: hidden * inputs].reshape(hidden, inputs)
    bias = theta[hidden * inputs : hidden * (inputs + 1)]
    outgoing = theta[hidden * (inputs + 1) :].reshape(settings.outputs, hidden)
    return (x @ weight.T + bias).tanh() @ outgoing.T


def sample_loss(
    theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor, settings: HessianStructureSettings
) -> torch.Tensor:
    """Return the squared error, summed over the outputs, shape (...) for inputs of shape (..., inputs)."""
    return ((predict(theta, x, settings) - y) ** 2).sum(-1)


def scalar_sample_loss(theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return Eq. 2's loss, with its half, for ``theta = (w_1, u_1, w_2, u_2, ...)``."""
    return 0.5 * ((theta[1::2] * (theta[::2] * x).tanh()).sum() - y) ** 2


def training_set(settings: HessianStructureSettings, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return standard normal inputs, shape (samples, inputs), and noisy labels, shape (samples, outputs)."""
    import torch

    x = stream("hessian_structure", seed, "x").standard_normal((settings.samples, settings.inputs))
    noise = stream("hessian_structure", seed, "noise").standard_normal((settings.samples, settings.outputs))
    teacher = torch.from_numpy(stream("hessian_structure", seed, "teacher").standard_normal(parameters(settings)))
    inputs = torch.from_numpy(x)
    return inputs, predict(teacher, inputs, settings) + settings.noise_std * torch.from_numpy(noise)


def train(
    settings: HessianStructureSettings, x: torch.Tensor, y: torch.Tensor, seed: int
) -> tuple[torch.Tensor, float, float]:
    """Run gradient descent from a random point of both mirrors.

    Returns:
        The parameters; the norm of the gradient there; and the largest part of a gradient across the mirrors on the
        way, relative to that gradient.
    """
    import torch

    both = Mirror(np.concatenate([mirror.O for mirror in network_mirrors(settings)], axis=1))
    across = torch.from_numpy(both.P)
    start = stream("hessian_structure", seed, "initial").standard_normal(parameters(settings))
    theta = torch.from_numpy(both.project(0.7 * start))
    gradient_of = torch.func.grad(lambda point: sample_loss(point, x, y, settings).mean())
    largest = 0.0
    for _ in range(settings.steps):
        gradient = gradient_of(theta)
        sideways = across @ gradient
        largest = max(largest, float(sideways.norm() / gradient.norm()))
        # The symmetric solution is a saddle: rounding errors across the mirror would grow, so they are taken out.
        theta = theta - settings.learning_rate * (gradient - sideways)
    return theta, float(gradient_of(theta).norm()), largest


def batch_means(values: Array, batch_size: int) -> Array:
    """Average over batches: shape (samples, ...) to (samples // batch_size, ...)."""
    count = len(values) // batch_size
    return np.asarray(values[: count * batch_size].reshape(count, batch_size, *values.shape[1:]).mean(1))


def run(settings: HessianStructureSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train on the mirrors and take Hessians of single samples, batches and the whole training set there.

    Args:
        settings: what is fixed.
        grid: values of ``batch_size``, whole numbers up to the number of samples.
        seed: of the data, the start and the control's displacement.
        context: not used.

    Returns:
        The variables listed in ``EXPERIMENT`` with dimensions (batch_size, seed) and their own; Hessians and losses are
        those of the first batch.

    Raises:
        SettingError: if a batch size is no whole number between 1 and the number of samples.
    """
    import torch

    sizes = [whole_number("batch_size", value, settings.samples) for value in grid["batch_size"]]
    x, y = training_set(settings, seed)
    theta, gradient_norm, gradient_across = train(settings, x, y, seed)
    finished = bool(torch.isfinite(theta).all())
    mirrors = network_mirrors(settings)
    parts = sectors(mirrors)
    basis = np.concatenate(parts, axis=1)
    at_solution, off_mirror = (
        _sample_hessians(lambda point, a, b: sample_loss(point, a, b, settings), place, x, y)
        for place in (theta, theta + _displacement(mirrors, settings, seed))
    )
    scalar = _scalar_hessians(settings, seed)
    pair = np.kron(np.eye(settings.scalar_neurons), np.stack([mirror.O[:, 0] for mirror in rescaling_mirrors()], 1))
    distances = np.linspace(-settings.profile_range, settings.profile_range, settings.profile_points)
    lines = [_steepest(mirror, at_solution.mean(0)) for mirror in mirrors] if finished else []
    points = [[theta + s * torch.from_numpy(line) for s in distances] for line in lines]
    losses = [[sample_loss(point, x, y, settings).numpy() for point in line] for line in points]
    profiles = np.array(losses).transpose(2, 0, 1) if finished else np.full((len(x), 2, distances.size), np.nan)

    columns: dict[str, list[Any]] = {name: [] for name in EXPERIMENT.variables}
    for size in sizes:
        hessians, scalars = batch_means(at_solution, size), batch_means(scalar, size)
        rotated = basis.T @ hessians[0] @ basis
        scalar_rotated = pair.T @ scalars @ pair
        expected = _scalar_formula(settings, seed, size)
        values = {
            "hessian": hessians[0],
            "rotated_hessian": rotated,
            "sector": np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts]),
            "coupling": np.array([mirror.off_block(hessians).max() for mirror in mirrors]),
            "sector_coupling": coupling(hessians, parts).max(),
            "displaced_coupling": np.array(
                [mirror.off_block(batch_means(off_mirror, size)).min() for mirror in mirrors]
            ),
            "loss_across": batch_means(profiles, size)[0],
            "curvature_across": np.array([line @ hessians[0] @ line for line in lines] or [np.nan, np.nan]),
            "scalar_hessian": scalars[0],
            "scalar_formula_error": np.abs(scalars - expected).max(),
            "scalar_eigenvector_error": np.abs(
                scalar_rotated - np.einsum("bij,ij->bij", scalar_rotated, np.eye(len(pair)))
            ).max(),
            "gradient_norm": gradient_norm,
            "gradient_across": gradient_across,
        }
        for name, value in values.items():
            columns[name].append(value if finished else np.nan)
    every, scalar_every = np.arange(parameters(settings)), np.arange(2 * settings.scalar_neurons)
    coords = {
        **dict.fromkeys(("parameter", "parameter_2", "direction", "direction_2"), every),
        "mirror": MIRRORS,
        "distance": distances,
        **dict.fromkeys(("scalar_parameter", "scalar_parameter_2"), scalar_every),
    }
    return EXPERIMENT.dataset(grid, seed, columns, coords, not finished)


def _sample_hessians(
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    theta: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
) -> Array:
    """Return the Hessian of each sample's loss, shape (samples, parameters, parameters)."""
    import torch

    # Reverse over reverse: torch.func.hessian's forward mode sets off a deprecation warning inside torch.
    hessian = torch.func.jacrev(torch.func.grad(loss))
    return np.asarray(torch.vmap(hessian, in_dims=(None, 0, 0))(theta, x, y).numpy())


def _displacement(mirrors: tuple[Mirror, Mirror], settings: HessianStructureSettings, seed: int) -> torch.Tensor:
    """Return a step of the control's length away from each of the mirrors."""
    import torch

    generator = stream("hessian_structure", seed, "displacement")
    steps = [mirror.O @ generator.standard_normal(mirror.codimension) for mirror in mirrors]
    return torch.from_numpy(sum(settings.displacement * step / np.linalg.norm(step) for step in steps))


def _steepest(mirror: Mirror, hessian: Array) -> Array:
    """Return the direction across the mirror in which the loss bends down most, a unit vector."""
    direction = mirror.O @ np.linalg.eigh(mirror.O.T @ hessian @ mirror.O)[1][:, 0]
    return np.asarray(direction)


def _scalar_data(settings: HessianStructureSettings, seed: int) -> tuple[Array, Array]:
    x, noise = stream("hessian_structure", seed, "scalar").standard_normal((2, settings.samples))
    return x, x + 0.5 * noise


def _scalar_hessians(settings: HessianStructureSettings, seed: int) -> Array:
    """Return the Hessian of Eq. 2's loss at zero for each sample, by automatic differentiation."""
    import torch

    x, y = (torch.from_numpy(values) for values in _scalar_data(settings, seed))
    origin = torch.zeros(2 * settings.scalar_neurons, dtype=torch.float64)
    return _sample_hessians(scalar_sample_loss, origin, x, y)


def _scalar_formula(settings: HessianStructureSettings, seed: int, batch_size: int) -> Array:
    """Return Eq. 2's matrix for each batch: blocks of 2 by 2 with -xy, averaged, off the diagonal."""
    x, y = _scalar_data(settings, seed)
    blocks = np.kron(np.eye(settings.scalar_neurons), [[0.0, 1.0], [1.0, 0.0]])
    return np.asarray(batch_means(-x * y, batch_size)[:, None, None] * blocks)


EXPERIMENT = Experiment(
    name="hessian_structure",
    title="Blocks of the Hessian of a small network at a symmetric solution",
    settings=HessianStructureSettings,
    axes=(Axis("batch_size", "samples averaged in the loss"),),
    variables={
        "hessian": Variable(("parameter", "parameter_2"), "Hessian of the first batch's loss, order W, b, U"),
        "rotated_hessian": Variable(("direction", "direction_2"), "the same in a basis of the mirrors' sectors"),
        "sector": Variable(("direction",), "number of the sector of a direction"),
        "coupling": Variable(("mirror",), "largest relative norm of the blocks between im P and ker P in any batch"),
        "sector_coupling": Variable((), "largest relative norm of the blocks between sectors in any batch"),
        "displaced_coupling": Variable(("mirror",), "smallest such norm in any batch, off the mirrors"),
        "loss_across": Variable(("mirror", "distance"), "loss of the first batch on a line across the mirror"),
        "curvature_across": Variable(("mirror",), "second derivative of that loss at the mirror"),
        "scalar_hessian": Variable(
            ("scalar_parameter", "scalar_parameter_2"), "Hessian of the scalar network of Eq. 2 at zero"
        ),
        "scalar_formula_error": Variable((), "largest difference from Eq. 2 in any batch"),
        "scalar_eigenvector_error": Variable((), "largest entry off the diagonal in the basis (1, 1), (1, -1)"),
        "gradient_norm": Variable((), "norm of the gradient at the end of training"),
        "gradient_across": Variable((), "largest relative part of a gradient across the mirrors in training"),
    },
    coords={
        "parameter": "number of the parameter",
        "parameter_2": "number of the parameter",
        "direction": "number of the basis vector",
        "direction_2": "number of the basis vector",
        "mirror": "symmetry",
        "distance": "distance from the mirror, with a sign",
        "scalar_parameter": "number of the parameter, w and u of each neuron",
        "scalar_parameter_2": "number of the parameter, w and u of each neuron",
    },
    run=run,
)
