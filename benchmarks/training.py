"""``python -m benchmarks.training``: the speed of training steps on this machine, for ``mirrorsym plan``.

Steps of the scales' networks, plain and with parameters as products, and tests of the same networks are timed, printed
(steps/s, GFLOP/s, share of the peak) and written to results/steps/{device}.json. On a CPU times are the seconds that
one core computes, which a busy machine changes little; on a GPU those by the clock.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from reproduction.contract import Context
from reproduction.data.images import Images
from reproduction.experiments.dcs_resnet import DcsResnetSettings, build
from reproduction.files import write_atomically
from reproduction.pipeline import provenance
from reproduction.pipeline.devices import gpu_count
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.measured import Speed, Steps
from reproduction.training import loop
from reproduction.training.flop import BACKWARD, DCS, VANILLA, forward_flop, kind_of
from reproduction.training.precision import Precision, Wanted, chosen

PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "V100": 125e12}
"""Published dense peaks in FLOP/s, bfloat16 (V100: float16), of NVIDIA's data sheets."""

REPEATS = 3
"""Each number of steps is timed so often; the least counts, since what disturbs a step only adds to it."""


class Size(NamedTuple):
    """A training step: the network, the pictures, and two numbers of steps, whose difference is what counts."""

    width: int
    batch: int
    stem_stride: int
    shape: tuple[int, int, int]
    short: int
    long: int
    precision: Wanted = "float32"


CIFAR10 = (3, 32, 32)
SIZES = {
    "cpu": (
        Size(8, 128, 2, (1, 8, 8), 5, 55),
        Size(8, 128, 1, CIFAR10, 1, 5),
        Size(64, 4, 1, CIFAR10, 1, 3),
        Size(16, 128, 1, CIFAR10, 1, 3, "auto"),
        Size(64, 4, 1, CIFAR10, 1, 3, "auto"),
    ),
    "cuda": (Size(64, 128, 1, CIFAR10, 20, 120), Size(64, 128, 1, CIFAR10, 20, 120, "auto")),
}
"""The scales' own steps, the full network's with a smaller batch on a CPU, where one at batch 128 takes seconds."""


def published_peak(name: str) -> float | None:
    """Return the published dense peak of a GPU in FLOP/s by its name, None where it is not in the table."""
    return next((peak for gpu, peak in PEAKS.items() if re.search(rf"\b{gpu}\b", name)), None)


def measure_steps(device: str, sizes: Sequence[Size] | None = None) -> Steps:
    """Time training steps and tests of ResNets on random pictures, plain and with parameters as products.

    Args:
        device: "cpu", where one core computes, or "cuda".
        sizes: of the steps; those of the scales where None is given.
    """
    sizes = sizes or SIZES[device]
    with loop.reproducible(device, 1):
        _StepTimer(sizes[0], VANILLA, device).train(sizes[0].short)
        start = time.process_time()
        speeds: dict[str, list[Speed]] = {}
        for arm, size in itertools.product((VANILLA, DCS), sizes):
            speeds.setdefault(kind_of(arm, size.precision), []).append(_StepTimer(size, arm, device).speed())
        speeds = {kind: sorted(found, key=lambda speed: speed.step_flop) for kind, found in speeds.items()}
        peak = product_rate("float32") if device == "cpu" else published_peak(provenance.device(device))
    return Steps(
        device=device,
        name=provenance.device(device),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        code_version=provenance.code_version(),
        peak_flops=peak,
        start=round(start, 3),
        speeds=speeds,
    )


def lines(steps: Steps) -> list[str]:
    """Return a line for each size of steps: steps per second, and their share of the device's peak."""
    found = []
    for kind, speeds in steps.speeds.items():
        for speed in speeds:
            reached = 1 / speed.seconds_per_flop
            peak = (
                steps.peak_flops if steps.device == "cuda" or kind in (VANILLA, DCS) else None
            )  # a CPU's is float32's
            share = f", {100 * reached / peak:.1f} % of the peak" if peak else ""
            rate = f"{reached / speed.step_flop:.3g} steps/s, {reached / 1e9:.3g} GFLOP/s{share}"
            found.append(f"{kind}: a step of {speed.step_flop / 1e9:.3g} GFLOP: {rate}")
    return found


class _StepTimer:
    """Trains a network of one size and kind on random pictures, and takes the time."""

    def __init__(self, size: Size, parameterization: str, device: str) -> None:
        self._size, self._device = size, device
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self._settings = DcsResnetSettings(
            width=size.width,
            stem_stride=size.stem_stride,
            epochs=1,
            batch_size=size.batch,
            precision=size.precision,
        )
        self._precision = chosen(size.precision, device)
        self._network = build(self._settings, parameterization, size.shape[0], 10).to(device)

    def speed(self) -> Speed:
        """Return the speed of steps and of tests."""
        size = self._size
        self.train(size.short)  # the first steps choose algorithms and fill caches
        step = (self.train(size.long) - self.train(size.short)) / (size.long - size.short)
        tested = size.batch if self._device == "cpu" else 20 * size.batch
        pictures = random_pictures(size.shape, size.batch, tested, self._device)
        test = least(lambda: loop.accuracy(self._network, pictures, self._precision), clock=self._clock)
        forward = forward_flop(size.width, size.stem_stride, size.shape)
        flop = (1 + BACKWARD) * forward * size.batch
        return Speed(
            step_flop=flop, seconds_per_flop=max(step, 1e-9) / flop, test_seconds_per_flop=test / (forward * tested)
        )

    def train(self, steps: int) -> float:
        """Return the seconds of an epoch of so many steps."""
        pictures = random_pictures(self._size.shape, steps * self._size.batch, 1, self._device)
        context, run = Context(device=self._device), (0.0, "steps", 0)
        return least(lambda: loop.train(self._network, pictures, self._settings, *run, context), clock=self._clock)


def least(
    compute: Callable[[], object], repeats: int = REPEATS, clock: Callable[[], float] = time.process_time
) -> float:
    """Return the least seconds that a call takes; what disturbs it only adds to it."""
    times = []
    for _ in range(repeats):
        began = clock()
        compute()
        times.append(clock() - began)
    return min(times)


def random_pictures(shape: tuple[int, int, int], train: int, test: int, device: str) -> loop.Pictures:
    """Return so many random pictures to train on and to be tested on."""
    random = np.random.default_rng(0)
    parts = [random.integers(0, 256, (count, *shape), np.uint8) for count in (train, test)]
    labels = [np.arange(count, dtype=np.int64) % 10 for count in (train, test)]
    return loop.Pictures(Images(parts[0], labels[0], parts[1], labels[1], "random pictures"), device)


def product_rate(precision: Precision, size: int = 1024) -> float:
    """Return the most FLOP/s of a product of two square matrices on one thread."""
    a, b = torch.rand(2, size, size).to(getattr(torch, precision))
    return 2 * size**3 / least(lambda: torch.mm(a, b), 40)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Time steps of the trainings.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--directory", type=Path, default=Path(), help="The project's folder.")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not gpu_count():
        sys.exit("--device cuda: this machine has no GPU; use --device cpu")
    steps = measure_steps(("cuda" if gpu_count() else "cpu") if asked.device == "auto" else asked.device)
    print(*lines(steps), sep="\n")
    path = Layout(asked.directory).steps(steps.device)
    write_atomically(path, steps.model_dump_json(indent=1) + "\n")
    print(f"{steps.name}: written to {path}")


if __name__ == "__main__":
    main()
