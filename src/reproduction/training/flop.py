"""The floating-point operations of a ResNet18's training, counted on the network; no machine is asked."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from reproduction.contract import Flop
from reproduction.training.recipe import Recipe

if TYPE_CHECKING:
    from reproduction.training.precision import Wanted

VANILLA, DCS = "vanilla", "dcs"
"""How parameters are written: as they are, or as products w⊙u."""

BACKWARD = 2
"""FLOPs of the gradients relative to the forward pass: one product for the inputs, one for the weights."""


class Sizes(NamedTuple):
    """The numbers of a data set's pictures, and the shape of one: (channels, height, width)."""

    train: int
    test: int
    shape: tuple[int, int, int]


SIZES = {"cifar10": Sizes(50_000, 10_000, (3, 32, 32)), "digits": Sizes(1_437, 360, (1, 8, 8))}


def training_flop(recipe: Recipe, tested: int, parameterization: str = VANILLA, trainings: int = 1) -> Flop:
    """Return the FLOPs of trainings: 3 forward passes for a picture that is learnt from, 1 for one that is tested.

    Writing parameters as products adds an elementwise operation for each parameter and step, which is not counted.

    Args:
        recipe: gives the network and the steps.
        tested: number of pictures that one training is tested on, each as often as it is.
        parameterization: how parameters are written.
        trainings: number of trainings in the job.
    """
    sizes = SIZES[recipe.dataset]
    forward = forward_flop(recipe.width, recipe.stem_stride, sizes.shape)
    step = (1 + BACKWARD) * forward * recipe.batch_size
    steps = sizes.train // recipe.batch_size * recipe.epochs
    kind = kind_of(parameterization, recipe.precision)
    return Flop(kind, float(trainings * steps * step), float(trainings * tested * forward), float(step))


def kind_of(parameterization: str, precision: Wanted) -> str:
    """Return what steps are called that take about the same time for each operation: ``"dcs"``, ``"dcs, auto"``."""
    return parameterization if precision == "float32" else f"{parameterization}, {precision}"


@functools.cache
def forward_flop(width: int, stem_stride: int, shape: tuple[int, int, int]) -> int:
    """Return the FLOPs of one picture's way through the ResNet18, two for each multiplication with its addition.

    Counted by torch on the meta device: nothing is computed.

    Args:
        width: channels of the first stage.
        stem_stride: stride of the first convolution.
        shape: of a picture, (channels, height, width).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from reproduction.models.resnet import ResNet18

    with torch.device("meta"), torch.no_grad():
        network = ResNet18(shape[0], 10, width, stem_stride).eval()
        picture = torch.empty(1, *shape)
        with FlopCounterMode(display=False) as counter:
            network(picture)
    return int(counter.get_total_flops())
