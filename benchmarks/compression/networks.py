"""Networks that collapse while they train, by weight decay or by a constraint, on pictures and on text."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mirrorsym import constrain, constrain_all, parameter_groups

BATCH = 64
PICTURES = 4000
CONTEXT = 32
CHARACTERS = 200_000
ARCHIVE = "MIRRORSYM_TEST_ARCHIVE"
"""The environment variable with the place of CIFAR-10's archive (python version)."""


@dataclass(frozen=True)
class Data:
    """What a network learns, and what it is tested on.

    Args:
        inputs: shape (samples, …).
        targets: shape (samples,), or (samples, tokens).
        test_inputs: as ``inputs``.
        test_targets: as ``targets``.
    """

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


@dataclass(frozen=True)
class Network:
    """A network and how it is trained.

    Args:
        make: builds it.
        data: loads what it learns.
        decay: weight decay, of SGD with momentum 0.9; of a constrained network on what is constrained alone.
        learning_rate: falls to zero on a cosine.
        steps: of training.
    """

    make: Callable[[], nn.Module]
    data: Callable[[], Data]
    decay: float
    learning_rate: float
    steps: int


@functools.cache
def pictures() -> Data:
    """Return CIFAR-10's first training pictures and 2,000 test pictures, normalized."""
    from reproduction.data.cifar10 import read_archive

    train, test = read_archive(Path(os.environ[ARCHIVE]))
    x, y = torch.from_numpy(train.images[:PICTURES]).float() / 255, torch.from_numpy(train.labels[:PICTURES]).long()
    test_x, test_y = torch.from_numpy(test.images[:2000]).float() / 255, torch.from_numpy(test.labels[:2000]).long()
    mean, spread = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    return Data((x - mean) / spread, y, (test_x - mean) / spread, test_y)


@functools.cache
def digits() -> Data:
    """Return scikit-learn's digits, 1,300 to learn and 497 to test on, of shape (1, 8, 8)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = torch.from_numpy(x)[order].float().reshape(-1, 1, 8, 8) / 8 - 1, torch.from_numpy(y)[order].long()
    return Data(x[:1300], y[:1300], x[1300:], y[1300:])


@functools.cache
def text() -> Data:
    """Return pieces of Python's own documentation, by character, and the next characters."""
    from pydoc_data.topics import topics

    words = "".join(topics[name] for name in sorted(topics))[:CHARACTERS]
    characters = sorted({c for c in words if c.isascii()})
    place = {c: i for i, c in enumerate(characters)}
    codes = torch.tensor([place[c] for c in words if c in place])
    pieces = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    test = torch.arange(len(pieces)) % 10 == 0
    return Data(pieces[~test, :-1], pieces[~test, 1:], pieces[test, :-1], pieces[test, 1:])


class Block(nn.Module):
    """One layer of a decoder, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        q, k, v = (
            part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        z = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))
        return out


class GPT(nn.Module):
    """A small decoder of characters."""

    def __init__(self, tokens: int, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(tokens, width), nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.read = nn.RMSNorm(width, eps=1e-6), nn.Linear(width, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next characters, shape (samples, tokens, characters)."""
        logits: Tensor = self.read(self.norm(self.blocks(self.embed(tokens) + self.place)))
        return logits


def resnet(width: int = 8) -> nn.Module:
    """Return a ResNet18 for small pictures."""
    from reproduction.models.resnet import ResNet18

    return ResNet18(3, 10, width, stem_stride=2)


def product_resnet() -> nn.Module:
    """Return a ResNet18 whose every parameter is a product of two (Section 2.6)."""
    return constrain_all(resnet())


def digits_resnet() -> nn.Module:
    """Return a ResNet18 for digits."""
    from reproduction.models.resnet import ResNet18

    return ResNet18(1, 10, 8, stem_stride=1)


def entries() -> nn.Module:
    """Return a ResNet18 for digits whose every parameter is a product of two."""
    return constrain_all(digits_resnet())


def channels() -> nn.Module:
    """Return a ResNet18 for digits with one number for each channel: the gain and bias of its normalization share it.

    What a convolution before a normalization writes has no size, so decay on its weights takes no channel away.
    """
    model = digits_resnet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            constrain(module, ["weight", "bias"], "unit")
    return model


def gpt() -> nn.Module:
    """Return a small decoder with a RMSNorm stream."""
    return GPT(int(text().inputs.max()) + 1)


def vit() -> nn.Module:
    """Return torchvision's ViT, small."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 4, 3, 4, 64, 128, num_classes=10)


NETWORKS = {
    "ResNet18, weight decay": Network(resnet, pictures, 0.02, 0.1, 1500),
    "ResNet18, DCS": Network(product_resnet, pictures, 0.005, 0.1, 1000),
    "ResNet18 on digits, DCS by entry": Network(entries, digits, 0.008, 0.1, 1500),
    "ResNet18 on digits, DCS by channel": Network(channels, digits, 0.03, 0.1, 1500),
    "GPT, weight decay": Network(gpt, text, 6e-3, 0.3, 1500),
    "ViT, weight decay": Network(vit, pictures, 0.02, 0.1, 600),
}


def trained(network: Network, kept: Path) -> nn.Module:
    """Return a network after training, from a file where it lies there already."""
    torch.manual_seed(0)
    data, model = network.data(), network.make()
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model.eval()
    constrained = any(parametrize.is_parametrized(module) for module in model.modules())
    groups = parameter_groups(model, network.decay) if constrained else model.parameters()
    optimizer = torch.optim.SGD(groups, network.learning_rate, 0.9, weight_decay=network.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, network.steps)
    for _ in range(network.steps):
        chosen = torch.randint(len(data.inputs), (BATCH,))
        optimizer.zero_grad()
        loss_of(model, data.inputs[chosen], data.targets[chosen]).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    torch.save(model.state_dict(), kept)
    return model.eval()


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy."""
    return nn.functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


@torch.no_grad()
def tested(model: nn.Module, data: Data) -> tuple[float, float]:
    """Return a model's accuracy and loss on what it did not learn."""
    logits = torch.cat([model(part) for part in data.test_inputs[:2000].split(500)]).flatten(0, -2)
    targets = data.test_targets[:2000].flatten()
    right = (logits.argmax(-1) == targets).double().mean()
    return float(right), float(nn.functional.cross_entropy(logits, targets))
