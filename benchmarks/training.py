"""The speed of training steps on a device: steps/s, FLOP/s and the share of its peak, for steps of several sizes.

On a CPU times are the seconds that one core computes, which a busy machine changes little; on a GPU those by the clock.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reproduction.contract import Context, Flop
from reproduction.data.images import Images
from reproduction.files import FileError, write_atomically
from reproduction.pipeline import provenance
from reproduction.pipeline.layout import Layout
from reproduction.training.flop import BACKWARD, DCS, VANILLA, forward_flop

if TYPE_CHECKING:
    from reproduction.experiments.dcs_resnet import DcsResnetSettings
    from reproduction.models.resnet import ResNet18
    from reproduction.training.loop import Pictures

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


CIFAR10 = (3, 32, 32)
SIZES = {
    "cpu": (Size(8, 128, 2, (1, 8, 8), 5, 55), Size(8, 128, 1, CIFAR10, 1, 5), Size(64, 4, 1, CIFAR10, 1, 3)),
    "cuda": (Size(64, 128, 1, CIFAR10, 20, 120),),
}
"""The scales' own steps, the full network's with a smaller batch on a CPU, where one at batch 128 takes seconds."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Speed(_Model):
    """The speed of training steps of one size, and of tests of the same network."""

    step_flop: float = Field(gt=0, description="FLOPs of a step.")
    seconds_per_flop: float = Field(gt=0, description="Time of a step for each of its FLOPs.")
    test_seconds_per_flop: float = Field(gt=0, description="Time of a test for each of its FLOPs.")


class Steps(_Model):
    """What was measured on one device."""

    device: str = Field(description="cpu or cuda.")
    name: str = Field(description="The processor's or the GPU's model.")
    date: str
    software: str
    code_version: str
    peak_flops: float | None = Field(None, gt=0, description="FLOP/s that the device can reach at most.")
    peak_source: str = Field("", description="Where the peak comes from.")
    start: float = Field(ge=0, description="Seconds that a process computes until it has trained for the first time.")
    speeds: dict[str, list[Speed]] = Field(description="By the kind of network, the smallest size first.")

    def seconds(self, flop: Flop) -> float | None:
        """Return the seconds of a training, or None where its kind was not measured."""
        if flop.kind not in self.speeds:
            return None
        step, test = (self._per_flop(flop, field) for field in ("seconds_per_flop", "test_seconds_per_flop"))
        return self.start + flop.steps * step + flop.tests * test

    def share_of_peak(self, flop: Flop) -> float | None:
        """Return the share of the peak at which steps run, or None where their kind or the peak is not known."""
        if flop.kind not in self.speeds or not self.peak_flops:
            return None
        return 1 / (self._per_flop(flop, "seconds_per_flop") * self.peak_flops)

    def _per_flop(self, flop: Flop, field: str) -> float:
        """Seconds per FLOP between the measured sizes, on a logarithmic scale; beyond them that of the nearest."""
        speeds = self.speeds[flop.kind]
        sizes = np.log([speed.step_flop for speed in speeds])
        times = np.log([getattr(speed, field) for speed in speeds])
        return float(np.exp(np.interp(np.log(flop.step), sizes, times)))

    def lines(self) -> list[str]:
        """Return a line for each size of steps: steps per second, and their share of the device's peak."""
        found = []
        for kind, speeds in self.speeds.items():
            for speed in speeds:
                reached = 1 / speed.seconds_per_flop
                share = f", {100 * reached / self.peak_flops:.1f} % of the peak" if self.peak_flops else ""
                rate = f"{reached / speed.step_flop:.3g} steps/s, {reached / 1e9:.3g} GFLOP/s{share}"
                found.append(f"{kind}: a step of {speed.step_flop / 1e9:.3g} GFLOP: {rate}")
        return found


def published_peak(name: str) -> float | None:
    """Return the published dense peak of a GPU in FLOP/s by its name, None where it is not in the table."""
    return next((peak for gpu, peak in PEAKS.items() if re.search(rf"\b{gpu}\b", name)), None)


def read_steps(layout: Layout, device: str) -> Steps | None:
    """Return what was measured on a device of this project, or None.

    Raises:
        FileError: if the file is damaged.
    """
    path = layout.steps(device)
    try:
        return Steps.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        raise FileError(f"{path} is damaged; delete it and run mirrorsym steps --device {device}") from None


def measure_steps(device: str, sizes: Sequence[Size] | None = None) -> Steps:
    """Time training steps and tests of ResNets on random pictures, plain and with parameters as products.

    Args:
        device: "cpu", where one core computes, or "cuda".
        sizes: of the steps; those of the scales where None is given.
    """
    from reproduction.training.loop import reproducible

    sizes = sizes or SIZES[device]
    with reproducible(device, 1):
        _StepTimer(sizes[0], VANILLA, device).train(sizes[0].short)
        start = time.process_time()
        speeds = {kind: [_StepTimer(size, kind, device).speed() for size in sizes] for kind in (VANILLA, DCS)}
        peak = _product_peak() if device == "cpu" else published_peak(provenance.device(device))
    source = "measured: a product of float32 matrices on one core" if device == "cpu" else "NVIDIA's data sheet"
    return Steps(
        device=device,
        name=provenance.device(device),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        software=provenance.software(),
        code_version=provenance.code_version(),
        peak_flops=peak,
        peak_source=source if peak else "",
        start=round(start, 3),
        speeds=speeds,
    )


def write_steps(steps: Steps, layout: Layout) -> Path:
    """Write what was measured where :func:`read_steps` finds it, and return the path.

    Raises:
        FileError: if the file cannot be written.
    """
    path = layout.steps(steps.device)
    write_atomically(path, steps.model_dump_json(indent=1) + "\n")
    return path


class _StepTimer:
    """Trains a network of one size and kind on random pictures, and takes the time."""

    def __init__(self, size: Size, kind: str, device: str) -> None:
        from reproduction.experiments.dcs_resnet import DcsResnetSettings, build

        self._size, self._device = size, device
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self._settings = DcsResnetSettings(
            width=size.width, stem_stride=size.stem_stride, epochs=1, batch_size=size.batch
        )
        self._network = build(self._settings, kind, size.shape[0], 10).to(device)

    def speed(self) -> Speed:
        """Return the speed of steps and of tests."""
        from reproduction.training.loop import accuracy

        size = self._size
        self.train(size.short)  # the first steps choose algorithms and fill caches
        step = (self.train(size.long) - self.train(size.short)) / (size.long - size.short)
        tested = size.batch if self._device == "cpu" else 20 * size.batch
        pictures = self._pictures(1, tested)
        test = self._least(lambda: accuracy(self._network, pictures))
        forward = forward_flop(size.width, size.stem_stride, size.shape)
        flop = (1 + BACKWARD) * forward * size.batch
        return Speed(
            step_flop=flop, seconds_per_flop=max(step, 1e-9) / flop, test_seconds_per_flop=test / (forward * tested)
        )

    def train(self, steps: int) -> float:
        """Return the seconds of an epoch of so many steps."""
        pictures = self._pictures(steps, 1)
        return self._least(lambda: _train(self._network, pictures, self._settings, self._device))

    def _least(self, compute: Callable[[], object]) -> float:
        times = []
        for _ in range(REPEATS):
            began = self._clock()
            compute()
            times.append(self._clock() - began)
        return min(times)

    def _pictures(self, steps: int, tested: int) -> Pictures:
        from reproduction.training.loop import Pictures

        random, count = np.random.default_rng(0), steps * self._size.batch
        train, test = (random.integers(0, 256, (n, *self._size.shape), np.uint8) for n in (count, tested))
        labels = [np.arange(n, dtype=np.int64) % 10 for n in (count, tested)]
        return Pictures(Images(train, labels[0], test, labels[1], "random pictures"), self._device)


def _train(network: ResNet18, pictures: Pictures, settings: DcsResnetSettings, device: str) -> None:
    from reproduction.training.loop import train

    train(network, pictures, settings, 0.0, "steps", 0, Context(device=device))


def _product_peak(size: int = 1024, repeats: int = 40) -> float:
    """The most FLOP/s of a product of two float32 matrices on one thread."""
    import torch

    a, b = torch.rand(2, size, size)
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best
