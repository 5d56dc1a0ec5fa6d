"""What a training of a picture classifier keeps fixed: the settings that the ResNet experiments share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from reproduction.contract import Settings


class Recipe(Settings):
    """Network, data, augmentation and optimizer of a training."""

    dataset: Literal["cifar10", "digits"] = Field(
        default="cifar10", description="pictures to train on: cifar10 or digits"
    )
    width: int = Field(default=64, ge=1, description="channels of the ResNet's first stage (64 is the full ResNet18)")
    stem_stride: int = Field(default=1, ge=1, le=2, description="stride of the ResNet's first convolution")
    epochs: int = Field(ge=1, description="passes over the training pictures")
    batch_size: int = Field(default=128, ge=2, description="pictures a step; what is left of an epoch is dropped")
    learning_rate: float = Field(default=0.1, gt=0, description="learning rate λ, the first one of a schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, without dampening or Nesterov")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="learning rate over the steps: constant, or half a cosine down to 0"
    )
    crop_padding: int = Field(default=4, ge=0, description="pixels of zeros around a picture that is cropped at random")
    flip: bool = Field(default=True, description="flip pictures left to right at random")
    precision: Literal["float32", "auto", "bfloat16"] = Field(
        default="float32",
        description="what the network computes in; auto: bfloat16 where the processor multiplies it natively",
        exclude_if=lambda value: (
            value == "float32"
        ),  # as before there was a choice, so that its points keep their names
    )
    threads: int = Field(default=1, ge=1, description="CPU threads of one training; the last bits depend on it")

    @field_validator("precision")
    @classmethod
    def _defined(cls, precision: str, given: ValidationInfo) -> str:
        """Refuse what torch 2.14.1 gets wrong on a CPU: it leaves part of a gradient unset.

        Digits after a stem of stride 2 reach the last stage as one pixel, and there the weight gradient of a strided
        3x3 convolution in bfloat16 holds whatever the memory held.
        """
        shrunk = given.data.get("dataset") == "digits" and given.data.get("stem_stride", 1) > 1
        if shrunk and precision != "float32":
            raise ValueError("digits after a stem of stride 2 need float32")
        return precision


def together(precisions: Iterable[str]) -> str:
    """Return what several trainings computed in, each different answer once: ``"bfloat16; float32"``."""
    return "; ".join(sorted(set(precisions)))
