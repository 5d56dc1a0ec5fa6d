"""``python -m benchmarks.forecasting``: forecasts beside plain trainings, into docs/forecast.md.

Networks are trained on scikit-learn's digits. From each a forecast is made in float32; then plain trainings by
``torch.optim.SGD`` in float64 start 1e-8 off the mirrors, each with an order of the batches of its own. A unit that is
forecast to come far away leaves alone, since it changes the network in which the others are, and from 1e-12, since the
forecast is for small distances. What is tried in which way was settled on networks of seed 0; the table is of others.
A case is a mirror of one network at one setting. In how many runs does the growth lie
in the interval of the forecast, and which answers have the wrong sign? A run that has come to the order of 1 has left,
and agrees with any forecast beyond.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import mirrorsym
from benchmarks.guides import write_measured
from mirrorsym.reflections import Reflection
from mirrorsym.tangents import trained
from reproduction.files import write_atomically

GUIDE = Path("docs/forecast.md")
RESULTS = Path("results/forecasting")
BEGIN = "<!-- measured by python -m benchmarks.forecasting -->"
BEFORE, STEPS, RUNS, BATCH = 400, 300, 3, 64
SEED, FIRST_RUN = 1, 2000
FAR, LEFT = 6.0, 23.0
"""Logarithms of growths: of a unit that leaves alone, and of one that has left."""
NEAR, VERY_NEAR = 1e-8, 1e-12
SETTINGS = (
    {"lr": 0.1, "weight_decay": 1e-4, "momentum": 0.0},
    {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.0},
    {"lr": 0.01, "weight_decay": 1e-3, "momentum": 0.9},
    {"lr": 0.2, "weight_decay": 0.03, "momentum": 0.0},
)
Batch = tuple[Tensor, Tensor]


class Transformer(nn.Module):
    """A picture's rows are its tokens; one block, with RMS normalization."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.places = nn.Linear(8, width), nn.Parameter(0.3 * torch.randn(8, width))
        self.norm, self.attend, self.project = nn.RMSNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.hidden, self.back = nn.RMSNorm(width), nn.Linear(width, 32), nn.Linear(32, width)
        self.read = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for pictures, shape (samples, 1, 8, 8)."""
        x = self.embed(x[:, 0]) + self.places
        q, k, v = self.attend(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.back(functional.gelu(self.hidden(self.norm2(x))))
        logits: Tensor = self.read(x.mean(1))
        return logits


def perceptron(activation: nn.Module) -> nn.Module:
    """Return a network of one hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), activation, nn.Linear(24, 10))


def convolutional() -> nn.Module:
    """Return two convolutions with batch normalization, in training mode."""
    first = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    second = (nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*first, nn.MaxPool2d(2), *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP, tanh": lambda: perceptron(nn.Tanh()),
    "MLP, ReLU": lambda: perceptron(nn.ReLU()),
    "convolutional": convolutional,
    "transformer": Transformer,
}


class Shuffled:
    """Batches of the digits in a new order each time, whole ones alone."""

    def __init__(self, dtype: torch.dtype) -> None:
        pictures, labels = load_digits(return_X_y=True)
        self.x = torch.from_numpy(pictures).to(dtype).reshape(-1, 1, 8, 8) / 16
        self.y = torch.from_numpy(labels)

    def __iter__(self) -> Iterator[Batch]:
        for chosen in torch.randperm(len(self.y)).split(BATCH)[:-1]:
            yield self.x[chosen], self.y[chosen]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy."""
    return functional.cross_entropy(model(batch[0]), batch[1])


def train(model: nn.Module, loader: Shuffled, setting: dict[str, float], steps: int) -> None:
    """Train in the plain way."""
    optimizer = torch.optim.SGD(model.parameters(), **setting)
    done = 0
    while done < steps:
        for batch in loader:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            done += 1
            if done == steps:
                return


@dataclass(frozen=True)
class Case:
    """A forecast, and what runs did."""

    network: str
    setting: str
    kind: str
    where: str
    answer: str
    exponent: float
    low: float
    high: float
    runs: list[float]
    cost: float
    """Seconds of the core for a run of the forecast, over those of as many steps of training."""

    @property
    def covered(self) -> int:
        """Runs that lie in the interval."""
        return sum(min(self.low, LEFT) <= growth <= self.high or min(growth, self.high) > LEFT for growth in self.runs)

    @property
    def wrong(self) -> int:
        """Runs whose sign is not the answer's."""
        return sum((self.answer, growth > 0) in (("yes", False), ("no", True)) for growth in self.runs)


def cases(name: str, setting: dict[str, float]) -> Iterator[Case]:
    """Forecast one network at one setting and train it beside."""
    torch.manual_seed(SEED)
    model, loader = NETWORKS[name](), Shuffled(torch.float32)
    train(model, loader, setting, BEFORE)
    symmetries = mirrorsym.find_symmetries(model, loader.x[:4])
    begin = time.process_time()
    outlook = mirrorsym.forecast(model, loss, loader, symmetries, steps=STEPS, **setting)
    middle = time.process_time()
    train(copy.deepcopy(model), loader, setting, STEPS)
    passes = 1 + max(one.run for one in outlook)
    cost = (middle - begin) / passes / (time.process_time() - middle)
    print(f"{name} {setting}: {passes} runs, {cost:.1f} times the training\n{outlook}", flush=True)
    said = " ".join(f"{key} {value:g}" for key, value in setting.items())
    for number in range(passes):
        mirrors = [one for one in outlook if one.run == number]
        near = [one for one in mirrors if one.interval[1] < FAR]
        for leaving in [near, *([one] for one in mirrors if one not in near)]:
            if not leaving:
                continue
            growths = [grown(model, mirrors, leaving, setting, seed) for seed in range(FIRST_RUN, FIRST_RUN + RUNS)]
            for place, one in enumerate(leaving):
                runs, symmetry = [found[place] for found in growths], one.symmetry
                print(f"{symmetry.kind} {symmetry.name}: {one.interval} {runs}", flush=True)
                yield Case(
                    name, said, symmetry.kind, symmetry.name, one.answer, one.exponent, *one.interval, runs, cost
                )


def grown(
    model: nn.Module,
    together: Sequence[mirrorsym.Forecast],
    leaving: Sequence[mirrorsym.Forecast],
    setting: dict[str, float],
    seed: int,
) -> list[float]:
    """Train in the plain way from very near to the mirrors that are left; return how ln of the distance has grown."""
    start = VERY_NEAR if leaving[0].interval[1] > FAR else NEAR
    torch.manual_seed(seed)
    run = copy.deepcopy(model).double()
    mirrors = {one: Reflection(one.symmetry, one.normal) for one in together}
    tensors = trained(run)
    state = {**tensors, **dict(run.named_buffers())}

    def off(one: mirrorsym.Forecast) -> dict[str, Tensor]:
        odd = mirrors[one].odd(tensors)
        for other in together:
            if other is not one:
                odd |= {name: odd[name] - shared for name, shared in mirrors[other].odd(odd).items()}
        return odd

    def distance(one: mirrorsym.Forecast) -> float:
        return math.sqrt(sum(float(tensor.square().sum()) for tensor in off(one).values()))

    with torch.no_grad():
        apart = [(off(one), distance(one)) for one in leaving]
        for mirror in mirrors.values():
            for name, tensor in mirror.even(state).items():
                state[name].copy_(tensor)
        for odd, size in apart:
            for name, tensor in odd.items():
                tensors[name].add_(tensor, alpha=start / size)
        before = [distance(one) for one in leaving]
        with torch.enable_grad():
            train(run, Shuffled(torch.float64), setting, STEPS)
        return [math.log(distance(one) / first) for one, first in zip(leaving, before, strict=True)]


def table(found: Sequence[Case]) -> list[str]:
    """Return the lines of the guide."""
    lines = [
        "| network | cases | yes | no | undecided | runs in their interval | wrong signs | exponents a step | cost |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for name in (*NETWORKS, "all"):
        own = [case for case in found if name in (case.network, "all")]
        answers = [sum(case.answer == answer for case in own) for answer in ("yes", "no", "undecided")]
        runs, covered = sum(len(case.runs) for case in own), sum(case.covered for case in own)
        exponents = [case.exponent for case in own]
        cells = [name, len(own), *answers, f"{covered} of {runs}", sum(case.wrong for case in own)]
        cells.append(f"{min(exponents):+.4f} to {max(exponents):+.4f}")
        cells.append(f"{statistics.median(case.cost for case in own):.1f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    width = statistics.median(case.high - case.low for case in found)
    lines += [
        "",
        f"{STEPS} steps, {RUNS} runs of each case; the median width of an interval is {width:.2f}. Cost: of one run of",
    ]
    lines += ["the forecast, on one core, in trainings of as many steps."]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks that are named, and write the table once all are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    torch.set_num_threads(1)
    for name in parser.parse_args(arguments).networks:
        found = [asdict(case) for setting in SETTINGS for case in cases(name, setting)]
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomically(RESULTS / f"{name}.json", json.dumps(found, indent=1))
    files = [RESULTS / f"{name}.json" for name in NETWORKS]
    if not all(file.exists() for file in files):
        return
    measured = [Case(**case) for file in files for case in json.loads(file.read_text(encoding="utf-8"))]
    lines = table(measured)
    print("\n".join(lines))
    if GUIDE.exists():
        write_measured(GUIDE, BEGIN, lines)


if __name__ == "__main__":
    main()
