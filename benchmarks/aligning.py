"""``python -m benchmarks.aligning``: barriers between networks before and after an alignment, into docs/align.md.

Networks of each kind are trained twice, from two starts, on scikit-learn's digits. Between the two, on the line, lies a
barrier: the largest excess of the test loss over the line between its ends. It is measured as they are, after aligning
by the symmetries found, and after weight matching by a specification of permutations that is written by hand here
(Ainsworth et al. 2023), for networks for which there is one. Batch normalization's statistics are computed anew.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import mirrorsym
from benchmarks.guides import write_measured

GUIDE = Path("docs/align.md")
BEGIN = "<!-- measured by python -m benchmarks.aligning -->"
SHARES = np.linspace(0, 1, 11)
PAIRS, EPOCHS, BATCH = 3, 40, 64
Spec = Mapping[str, list[tuple[str, int]]]
"""The places of each permutation by hand: (parameter or buffer, axis)."""


class Residual(nn.Module):
    """Two residual blocks with batch normalization."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        for i in range(2):
            for j in range(2):
                setattr(self, f"conv{i}{j}", nn.Conv2d(width, width, 3, padding=1, bias=False))
                setattr(self, f"norm{i}{j}", nn.BatchNorm2d(width))
        self.read = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x.reshape(-1, 1, 8, 8))))
        for i in range(2):
            hidden = torch.relu(getattr(self, f"norm{i}0")(getattr(self, f"conv{i}0")(x)))
            x = torch.relu(x + getattr(self, f"norm{i}1")(getattr(self, f"conv{i}1")(hidden)))
        return self.read(x.mean(dim=(2, 3)))


class Transformer(nn.Module):
    """The rows of a picture as tokens, through two layers of attention."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, width), nn.Parameter(0.1 * torch.randn(8, width))
        layers = [nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
        self.layers, self.read = nn.ModuleList(layers), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.reshape(-1, 8, 8)) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.read(x.mean(dim=1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def vgg() -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for before, after in ((1, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if before == after else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


NORM = ("weight", "bias", "running_mean", "running_var")
MLP_SPEC: Spec = {
    "first": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)],
    "second": [("2.weight", 0), ("2.bias", 0), ("4.weight", 1)],
}
VGG_SPEC: Spec = {
    f"{conv}": [
        (f"{conv}.weight", 0),
        (f"{conv}.bias", 0),
        *((f"{conv + 1}.{n}", 0) for n in NORM),
        (f"{after}.weight", 1),
    ]
    for conv, after in ((1, 4), (4, 8), (8, 11), (11, 16))
}
RESIDUAL_SPEC: Spec = {
    "stream": [
        ("stem.weight", 0),
        *((f"stem_norm.{n}", 0) for n in NORM),
        *((f"conv{i}0.weight", 1) for i in range(2)),
        *((f"conv{i}1.weight", 0) for i in range(2)),
        *((f"norm{i}1.{n}", 0) for i in range(2) for n in NORM),
        ("read.weight", 1),
    ],
    **{
        f"block{i}": [(f"conv{i}0.weight", 0), *((f"norm{i}0.{n}", 0) for n in NORM), (f"conv{i}1.weight", 1)]
        for i in range(2)
    },
}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Spec | None]] = {
    "MLP": (mlp, MLP_SPEC),
    "VGG": (vgg, VGG_SPEC),
    "ResNet": (Residual, RESIDUAL_SPEC),
    "transformer": (Transformer, None),
}


def digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1797 digits in a random order, each picture with mean 0 over all."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return torch.from_numpy(x[order] / 8 - 1).float(), torch.from_numpy(y[order])


def train(build: Callable[[], nn.Module], seed: int, x: Tensor, y: Tensor) -> nn.Module:
    """Train a network with Adam, as in the comparison's source."""
    torch.manual_seed(seed)
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for picked in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[picked]), y[picked]).backward()
            optimizer.step()
    return model.eval()


def match(a: nn.Module, b: nn.Module, spec: Spec) -> nn.Module:
    """Weight matching: one permutation after the other by assignment, until nothing changes."""
    from scipy.optimize import linear_sum_assignment

    target = a.state_dict()
    state = {name: tensor.clone() for name, tensor in b.state_dict().items()}
    for _ in range(100):
        moved = False
        for places in spec.values():
            trained = [(name, axis) for name, axis in places if "running" not in name]
            sides = [[_rows(s[name], axis, places, target) for name, axis in trained] for s in (target, state)]
            likeness = sum(one @ other.T for one, other in zip(*sides, strict=True))
            order = torch.from_numpy(linear_sum_assignment(torch.as_tensor(likeness).numpy(), maximize=True)[1])
            if not torch.equal(order, torch.arange(len(order))):
                moved = True
                repeats = {name: state[name].shape[axis] // len(order) for name, axis in places}
                for name, axis in places:
                    wide = (order[:, None] * repeats[name] + torch.arange(repeats[name])).flatten()
                    state[name] = state[name].index_select(axis, wide)
        if not moved:
            break
    matched = copy.deepcopy(b)
    matched.load_state_dict(state)
    return matched


def _rows(tensor: Tensor, axis: int, places: list[tuple[str, int]], target: Mapping[str, Tensor]) -> Tensor:
    units = target[places[0][0]].shape[places[0][1]]
    return tensor.movedim(axis, 0).reshape(units, -1)


@torch.no_grad()
def barrier(a: nn.Module, b: nn.Module, train_x: Tensor, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the largest excess of the test loss over the line between its ends, and the accuracy at the midpoint."""
    between = [mirrorsym.interpolate(a, b, float(share), [train_x]) for share in SHARES]
    outputs = [model.eval()(x) for model in between]
    losses = np.array([float(functional.cross_entropy(output, y)) for output in outputs])
    middle = outputs[len(outputs) // 2].argmax(dim=1)
    line = losses[0] + SHARES * (losses[-1] - losses[0])
    return float((losses - line).max()), float((middle == y).double().mean())


def measure(name: str) -> list[str]:
    """Return the rows of one kind of network: medians over pairs."""
    build, spec = NETWORKS[name]
    x, y = digits()
    train_x, train_y, test_x, test_y = x[:1300], y[:1300], x[1300:], y[1300:]
    found: dict[str, list[tuple[float, float, float]]] = {}
    for pair in range(PAIRS):
        a, b = (train(build, 2 * pair + i, train_x, train_y) for i in range(2))
        symmetries = mirrorsym.find_symmetries(a, train_x[:8])
        ways: dict[str, Callable[[], nn.Module]] = {"as they are": lambda b=b: b}  # type: ignore[misc]
        ways["aligned"] = lambda a=a, b=b, s=symmetries: mirrorsym.align(a, b, s)  # type: ignore[misc]
        if spec is not None:
            ways["matched by hand"] = lambda a=a, b=b: match(a, b, spec)  # type: ignore[misc]
        for way, make in ways.items():
            began = time.process_time()
            other = make()
            seconds = time.process_time() - began
            found.setdefault(way, []).append((*barrier(a, other, train_x, test_x, test_y), seconds))
    rows = []
    for way, numbers in found.items():
        loss, accuracy, seconds = (statistics.median(column) for column in zip(*numbers, strict=True))
        rows.append(f"| {name} | {way} | {loss:.3f} | {accuracy:.3f} | {seconds:.1f} |")
    return rows


def main() -> None:
    """Print the table and write it into the guide."""
    torch.set_num_threads(1)
    lines = ["| network | the second network | barrier of the test loss | accuracy at the midpoint | seconds |"]
    lines.append("|---|---|---|---|---|")
    for name in NETWORKS:
        lines += measure(name)
        print("\n".join(lines[-3:]), flush=True)
    write_measured(GUIDE, BEGIN, lines)


if __name__ == "__main__":
    main()
