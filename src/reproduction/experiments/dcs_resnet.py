"""A ResNet18 with every parameter written as w⊙u, beside a plain one (Section 2.6, Appendix B.4, Figure 7)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from mirrorsym import measures
from mirrorsym.measures import ZERO_THRESHOLD
from reproduction.contract import Axis, Context, Experiment, Flop, Grid, Variable
from reproduction.training.flop import DCS, SIZES, VANILLA, training_flop
from reproduction.training.recipe import Recipe, together

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from reproduction.data.images import Images
    from reproduction.models.resnet import ResNet18
    from reproduction.training.precision import Precision

MEMORY_BATCHES = (1, 128)


class DcsResnetSettings(Recipe):
    """What a sweep of the dcs_resnet experiment keeps fixed."""

    epochs: int = Field(200, ge=1, description="Passes over the training pictures.")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="Learning rate over the steps.")
    weight_decay: float = Field(
        5e-4, ge=0, description="PyTorch's number, twice the paper's gamma; on w and u, or on the plain parameters."
    )


def run(settings: DcsResnetSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Train a plain ResNet18 and one whose parameters are products w⊙u that start at the same values.

    Sparsity is the fraction of parameters below 10⁻⁶ in magnitude, of the products where there are factors. All is
    reproducible bit for bit but ``epoch_seconds`` and ``peak_memory``, which are measurements of the machine: the time
    of an epoch's steps without the tests between epochs, and the peak over one training step with gradients and
    momentum. On a GPU the latter is the allocator's, on a CPU the largest resident size of a process of its own above
    what it had before the network was built. Parameters, gradients and momentum are float32.

    Args:
        settings: what is fixed.
        grid: values of ``parameterization``.
        seed: of the streams; both parameterizations see the same pictures in the same order.
        context: device, pictures, progress and checkpoints.

    Returns:
        The contract's variables with dimensions (parameterization, seed) and ``epoch`` or ``batch_size``; the
        attribute ``precision`` says what the networks computed in.
    """
    images = context.images(settings.dataset)
    shape = images.train_images.shape[1:]
    memory = [  # before any training: on a CPU, memory that a training has freed would hide what a step needs
        peak_memory(settings, str(arm), shape, images.classes, context.device) for arm in grid["parameterization"]
    ]
    trained = [_train(settings, str(arm), seed, context, images) for arm in grid["parameterization"]]
    precisions = [precision for _, precision in trained]
    runs = [{**one, "peak_memory": peaks} if one else one for (one, _), peaks in zip(trained, memory, strict=True)]
    values = {name: [one.get(name, np.nan) for one in runs] for name in EXPERIMENT.variables}
    coords = {"epoch": np.arange(settings.epochs + 1), "batch_size": MEMORY_BATCHES}
    dataset = EXPERIMENT.dataset(grid, seed, values, coords, [not one for one in runs])
    return dataset.assign_attrs(precision=together(precisions))


def build(settings: DcsResnetSettings, parameterization: str, channels: int, classes: int) -> ResNet18:
    """Return the network of one arm, with random initial values."""
    from mirrorsym.constraining import constrain_all
    from reproduction.models.resnet import ResNet18

    network = ResNet18(channels, classes, settings.width, settings.stem_stride)
    return constrain_all(network, imbalance=0.0) if parameterization == DCS else network


def _train(
    settings: DcsResnetSettings, parameterization: str, seed: int, context: Context, images: Images
) -> tuple[dict[str, Any], Precision]:
    """Train one arm; return its variables but ``peak_memory``, none where it diverged, and what it computed in."""
    from reproduction.training import loop

    channels = images.train_images.shape[1]
    with loop.reproducible(context.device, settings.threads):
        network = loop.initialized(
            lambda: build(settings, parameterization, channels, images.classes), "dcs_resnet", seed
        ).to(context.device)
        pictures = loop.Pictures(images, context.device)

        def measure(precision: Precision) -> Mapping[str, float]:
            return {"test_accuracy": loop.accuracy(network, pictures, precision), "sparsity": sparsity(network)}

        trained = loop.train(
            network, pictures, settings, settings.weight_decay, "dcs_resnet", seed, context, measure, parameterization
        )
        if trained.diverged:
            return {}, trained.precision
        prune(network)
        pruned = loop.accuracy(network, pictures, trained.precision)
    return {**trained.history, "pruned_test_accuracy": pruned}, trained.precision


def sparsity(network: nn.Module, threshold: float = ZERO_THRESHOLD) -> float:
    """Return the fraction of a network's parameters, products where they have factors, below a magnitude."""
    import torch

    from mirrorsym.constraining import effective_parameters

    with torch.no_grad():
        values = torch.cat([value.flatten() for *_, value in effective_parameters(network)])
    return float(measures.sparsity(values.cpu().numpy(), threshold))


def prune(network: nn.Module, threshold: float = ZERO_THRESHOLD) -> None:
    """Set the parameters below a magnitude to zero, both factors where they have factors."""
    import torch

    from mirrorsym.constraining import effective_parameters

    with torch.no_grad():
        for owner, name, value in list(effective_parameters(network)):
            keep = value.abs() >= threshold
            parametrizations: Any = getattr(owner, "parametrizations", {})
            stored = parametrizations[name].parameters() if name in parametrizations else [value]
            for tensor in stored:
                tensor.mul_(keep)


def peak_memory(
    settings: DcsResnetSettings, parameterization: str, shape: tuple[int, ...], classes: int, device: str
) -> list[int]:
    """Return the peak memory of a training step at each batch size, in bytes.

    See :func:`reproduction.training.memory.step_peak`.

    Args:
        settings: gives the network.
        parameterization: the arm.
        shape: of a picture, (channels, height, width).
        classes: number of classes.
        device: ``"cpu"`` or ``"cuda"``.
    """
    import reproduction.models.resnet  # noqa: F401, imported once here and not in each process that measures
    from reproduction.training.loop import reproducible
    from reproduction.training.memory import step_peak
    from reproduction.training.precision import chosen

    network = functools.partial(build, settings, parameterization, shape[0], classes)
    with reproducible(device, settings.threads):
        precision = chosen(settings.precision, device)
        return [step_peak(network, shape, batch_size, device, precision) for batch_size in MEMORY_BATCHES]


def flop(settings: DcsResnetSettings, grid: Grid) -> Flop:
    """Return the FLOPs of a job, which is tested at its start, after each epoch and after pruning."""
    arms, tests = [str(arm) for arm in grid["parameterization"]], settings.epochs + 2
    return training_flop(settings, tests * SIZES[settings.dataset].test, arms[0], len(arms))


EXPERIMENT = Experiment(
    name="dcs_resnet",
    title="A ResNet18 with every parameter as a Hadamard product, beside a plain one",
    settings=DcsResnetSettings,
    axes=(Axis("parameterization", "how parameters are written", choices=(VANILLA, DCS), job_each=True),),
    variables={
        "test_accuracy": Variable(("epoch",), "fraction of test pictures classified correctly"),
        "train_loss": Variable(("epoch",), "mean cross-entropy of the epoch's steps; epoch 0: of the first step"),
        "sparsity": Variable(
            ("epoch",), "fraction of parameters below 1e-6 in magnitude, of the products where there are any"
        ),
        "epoch_seconds": Variable(("epoch",), "time of the epoch's training steps, without tests between epochs", "s"),
        "pruned_test_accuracy": Variable((), "test accuracy after setting parameters below 1e-6 to zero"),
        "peak_memory": Variable(("batch_size",), "peak memory of a training step with gradients and momentum", "byte"),
    },
    run=run,
    coords={"epoch": "passes over the training pictures", "batch_size": "pictures a step, for the peak memory"},
    training=True,
    flop=flop,
)
