"""Homogeneity of a ResNet18's penultimate neurons, with and without weight decay (Section 3.3, Figures 3 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mirrorsym import measures
from reproduction.contract import Axis, Context, Experiment, Flop, Grid, Variable
from reproduction.models import PENULTIMATE
from reproduction.training.flop import SIZES, training_flop
from reproduction.training.recipe import Recipe, together

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from reproduction.data.images import Images
    from reproduction.models.resnet import ResNet18
    from reproduction.training.loop import Pictures
    from reproduction.training.precision import Precision

MATRIX = ("neuron", "neuron_2")


class HomogeneitySettings(Recipe):
    """What a sweep of the homogeneity experiment keeps fixed."""

    epochs: int = Field(100, ge=1, description="Passes over the training pictures.")
    test_points: int = Field(
        2000, ge=2, description="Test pictures to correlate neurons over, the first ones of the split."
    )


def run(settings: HomogeneitySettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train one network for each weight decay and compare the neurons of its penultimate layer.

    The initial weights, the order of the pictures and their augmentation depend on the seed only, so networks of other
    weight decays are paired. Everything is measured in eval mode, before training and after it.

    Args:
        settings: what is fixed.
        grid: values of ``weight_decay`` (PyTorch's number, twice the paper's γ).
        seed: of the streams.
        context: device, pictures, progress and checkpoints.

    Returns:
        The contract's variables with dimensions (weight_decay, seed) and ``neuron``, ``neuron_2`` or ``epoch``; the
        attribute ``precision`` says what the networks computed in.
    """
    images = context.images(settings.dataset)
    trained = [_train(settings, float(decay), seed, context, images) for decay in grid["weight_decay"]]
    runs, precisions = zip(*trained, strict=True)
    values = {name: [np.float32(one.get(name, np.nan)) for one in runs] for name in EXPERIMENT.variables}
    coords = {
        "neuron": np.arange(PENULTIMATE),
        "neuron_2": np.arange(PENULTIMATE),
        "epoch": np.arange(settings.epochs + 1),
    }
    dataset = EXPERIMENT.dataset(grid, seed, values, coords, ["train_loss" not in one for one in runs])
    return dataset.assign_attrs(precision=together(precisions))


def _train(
    settings: HomogeneitySettings, weight_decay: float, seed: int, context: Context, images: Images
) -> tuple[dict[str, Any], Precision]:
    """Train one network; return its variables, where it diverged those of the start alone, and what it computed in."""
    from reproduction.models.resnet import ResNet18
    from reproduction.training import loop

    def build() -> ResNet18:
        return ResNet18(images.train_images.shape[1], images.classes, settings.width, settings.stem_stride)

    with loop.reproducible(context.device, settings.threads):
        pictures = loop.Pictures(images, context.device)
        network = loop.initialized(build, "homogeneity", seed).to(context.device)
        initial = {
            f"initial_{name}": value for name, value in structure(network, pictures, settings.test_points).items()
        }
        trained = loop.train(network, pictures, settings, weight_decay, "homogeneity", seed, context)
        if trained.diverged:
            return initial, trained.precision
        final = structure(network, pictures, settings.test_points)
        measured = {
            **initial,
            **final,
            "order_pre": measures.correlation_order(final["correlation_pre"]),
            "order_post": measures.correlation_order(final["correlation_post"]),
            "test_accuracy": loop.accuracy(network, pictures, trained.precision),
            "train_loss": trained.history["train_loss"],
        }
    return measured, trained.precision


def structure(network: ResNet18, pictures: Pictures, test_points: int) -> dict[str, NDArray[np.float64]]:
    """Return how alike the penultimate neurons of a network are, in eval mode and float32.

    Args:
        network: the network.
        pictures: gives the test pictures.
        test_points: how many of them to use, the first ones.

    Returns:
        ``correlation_pre`` and ``correlation_post``, before and after the activation, and ``weight_distance``, each of
        shape (128, 128).
    """
    import torch

    network.eval()
    with torch.no_grad():
        batches = [network.preactivation(batch) for batch, _ in pictures.test_batches(test_points)]
        before = torch.cat(batches).cpu().numpy()
        weights = torch.cat([network.fc.weight, network.fc.bias[:, None], network.classifier.weight.T], dim=1)
    return {
        "correlation_pre": measures.correlation(before),
        "correlation_post": measures.correlation(np.maximum(before, 0)),
        "weight_distance": measures.weight_distance(weights.cpu().numpy()),
    }


def flop(settings: HomogeneitySettings, grid: Grid) -> Flop:
    """Return the FLOPs of a job: neurons are compared before and after the training, which is then tested."""
    pictures = SIZES[settings.dataset].test
    tested = 2 * min(settings.test_points, pictures) + pictures
    return training_flop(settings, tested, trainings=len(grid["weight_decay"]))


EXPERIMENT = Experiment(
    name="homogeneity",
    title="Correlation of the penultimate neurons of a ResNet18 against weight decay",
    settings=HomogeneitySettings,
    axes=(Axis("weight_decay", "weight decay, PyTorch's number, twice the paper's gamma", job_each=True),),
    variables={
        "correlation_pre": Variable(MATRIX, "correlation of two neurons over test points, before the activation"),
        "correlation_post": Variable(MATRIX, "correlation of two neurons over test points, after the activation"),
        "weight_distance": Variable(
            MATRIX, "distance of two neurons' incoming and outgoing weights relative to their norms"
        ),
        "initial_correlation_pre": Variable(MATRIX, "correlation before the activation, before training"),
        "initial_correlation_post": Variable(MATRIX, "correlation after the activation, before training"),
        "initial_weight_distance": Variable(MATRIX, "relative distance of two neurons' weights before training"),
        "order_pre": Variable(("neuron",), "neuron drawn at this position, by the correlation before the activation"),
        "order_post": Variable(("neuron",), "neuron drawn at this position, by the correlation after the activation"),
        "test_accuracy": Variable((), "fraction of test pictures classified correctly after training"),
        "train_loss": Variable(("epoch",), "mean cross-entropy of the epoch's steps; epoch 0: of the first step"),
    },
    run=run,
    coords={
        "neuron": "neuron of the penultimate layer",
        "neuron_2": "neuron of the penultimate layer",
        "epoch": "passes over the training pictures",
    },
    training=True,
    flop=flop,
)
