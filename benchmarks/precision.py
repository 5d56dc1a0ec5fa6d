"""``python -m benchmarks.precision``: training steps in float32 and bfloat16 on one core, beside a plain PyTorch loop.

For each width: milliseconds of a step at batch 128 on 32x32 pictures, the share of the rate of a product of two square
matrices in the same precision, and the same network in a loop as PyTorch's tutorials have it (default memory layout,
default optimizer, the same autocast). Last, a whole epoch of ours, with augmentation and evaluation, against its steps
alone. Times are the seconds that one core computes; printed, and written to results/steps/precision.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.training import least, product_rate, random_pictures
from reproduction.contract import Context
from reproduction.experiments.homogeneity import HomogeneitySettings
from reproduction.files import write_atomically
from reproduction.models.resnet import ResNet18
from reproduction.pipeline import provenance
from reproduction.pipeline.layout import Layout
from reproduction.training import loop
from reproduction.training.flop import BACKWARD, forward_flop
from reproduction.training.precision import Precision, computing

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
SHAPE, BATCH = (3, 32, 32), 128
WIDTHS = (8, 16, 32, 64)


def step_flop(width: int) -> float:
    """FLOPs of a training step."""
    return (1 + BACKWARD) * forward_flop(width, 1, SHAPE) * BATCH


def our_step(width: int, precision: Precision) -> float:
    """Seconds of a step of our loop, which cuts, augments and normalizes its batch."""
    settings = HomogeneitySettings(width=width, epochs=1, precision=precision)
    network = ResNet18(3, 10, width)

    def steps(count: int) -> float:
        pictures = random_pictures(SHAPE, count * BATCH, 1, "cpu")
        return least(lambda: loop.train(network, pictures, settings, 1e-3, "steps", 0, Context()), 4)

    return (steps(3) - steps(1)) / 2


def plain_step(width: int, precision: Precision) -> float:
    """Seconds of a step as PyTorch's tutorials write it, on a batch that lies ready."""
    network = ResNet18(3, 10, width)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    pictures, labels = torch.randn(BATCH, *SHAPE), torch.arange(BATCH) % 10

    def step() -> None:
        optimizer.zero_grad()
        with computing(precision, "cpu"):
            loss = functional.cross_entropy(network(pictures), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return least(step, 6)


def epoch_over_steps(width: int, precision: Precision, steps: int = 20) -> float:
    """A whole epoch, with its draws and a test on a fifth as many pictures as it learns from, over its steps alone."""
    settings = HomogeneitySettings(width=width, epochs=1, precision=precision)
    network = ResNet18(3, 10, width)
    pictures = random_pictures(SHAPE, steps * BATCH, steps * BATCH // 5, "cpu")

    def epoch() -> None:
        loop.train(network, pictures, settings, 1e-3, "steps", 0, Context())
        loop.accuracy(network, pictures, precision)

    return least(epoch, 3) / bare_steps(width, precision, steps)


def bare_steps(width: int, precision: Precision, steps: int) -> float:
    """Seconds of steps of our loop on a batch that lies ready."""
    network = ResNet18(3, 10, width).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True)
    run = loop._Run(network, optimizer, "cpu", torch.channels_last, precision, "")
    pictures, labels = torch.randn(BATCH, *SHAPE), torch.arange(BATCH) % 10
    return least(lambda: [run.advance(pictures, labels) for _ in range(steps)], 3)


def measure(widths: Sequence[int] = WIDTHS) -> dict[str, Any]:
    """Return all numbers, by width and precision."""
    with loop.reproducible("cpu", 1):
        rates = {precision: product_rate(precision) for precision in PRECISIONS}
        rows = []
        for width in widths:
            for precision in PRECISIONS:
                ours, plain = our_step(width, precision), plain_step(width, precision)
                share = step_flop(width) / ours / rates[precision]
                rows.append(
                    {"width": width, "precision": precision, "step_ms": 1e3 * ours, "plain_ms": 1e3 * plain}
                    | {"share_of_the_product": share}
                )
        epochs = {precision: epoch_over_steps(min(16, max(widths)), precision) for precision in PRECISIONS}
    device = provenance.device("cpu")
    return {"device": device, "product_flops": rates, "steps": rows, "epoch_over_its_steps": epochs}


def lines(found: dict[str, Any]) -> list[str]:
    """Return the numbers as lines for a terminal."""
    said = [f"{found['device']}, one core, batch {BATCH}"]
    said += [
        f"product of matrices in {name}: {rate / 1e9:.0f} GFLOP/s" for name, rate in found["product_flops"].items()
    ]
    said.append("width  precision   ms a step   of the product   plain loop, ms   float32 / this")
    float32 = {row["width"]: row["step_ms"] for row in found["steps"] if row["precision"] == "float32"}
    for row in found["steps"]:
        times = float32[row["width"]] / row["step_ms"]
        share = 100 * row["share_of_the_product"]
        first = f"{row['width']:5}  {row['precision']:<9} {row['step_ms']:11.1f} {share:14.0f} %"
        said.append(f"{first} {row['plain_ms']:16.1f} {times:16.2f}")
    over = found["epoch_over_its_steps"].items()
    return [*said, *(f"a whole epoch in {name} takes {ratio:.3f} times its steps" for name, ratio in over)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description="Time steps in two precisions.")
    parser.add_argument("--width", type=int, action="append", help="Of the network; 8, 16, 32 and 64 if not given.")
    parser.add_argument("--directory", type=Path, default=Path(), help="The project's folder.")
    asked = parser.parse_args(arguments)
    found = measure(asked.width or WIDTHS)
    print(*lines(found), sep="\n")
    write_atomically(Layout(asked.directory).steps("precision"), json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
