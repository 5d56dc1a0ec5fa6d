"""ResNet18 for small pictures, with the fully connected penultimate layer that Figs. 3 and 6 look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from reproduction.models import PENULTIMATE


class ResNet18(ResNet):
    """torchvision's ResNet18 with a stem for small pictures and a 128-wide penultimate layer.

    Stem: a 3x3 convolution, no pooling. Its stride is 1 for CIFAR-10's 32x32 pictures; 2 makes every layer four times
    cheaper. Later stages halve the picture three times, and a picture of one pixel stays one pixel, so pictures as
    small as 8x8 go through. Head: global average, Linear(8 width, 128), ReLU, Linear(128, classes). At width 64 it has
    11.24 million parameters.

    Args:
        channels: channels of the pictures.
        classes: number of classes.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        stem_stride: stride of the first convolution.
    """

    def __init__(self, channels: int, classes: int, width: int = 64, stem_stride: int = 1) -> None:
        with torch.device("meta"):  # every layer with parameters is replaced below, so none is allocated here
            super().__init__(BasicBlock, [2, 2, 2, 2])
        self.inplanes = width
        self.conv1 = nn.Conv2d(channels, width, kernel_size=3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(BasicBlock, width, 2)
        self.layer2 = self._make_layer(BasicBlock, 2 * width, 2, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 4 * width, 2, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 8 * width, 2, stride=2)
        self.fc = nn.Linear(8 * width, PENULTIMATE)
        self.classifier = nn.Linear(PENULTIMATE, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def preactivation(self, pictures: Tensor) -> Tensor:
        """Return the penultimate layer before its activation, shape (pictures, 128).

        Args:
            pictures: shape (pictures, channels, height, width).
        """
        preactivation: Tensor = self._forward_impl(pictures)
        return preactivation

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (pictures, classes)."""
        logits: Tensor = self.classifier(torch.relu(self.preactivation(x)))
        return logits
