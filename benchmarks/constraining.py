"""``python -m benchmarks.constraining``: what constraints cost a training step of the ResNet18, into docs/constrain.md.

For each width a step of SGD with momentum at batch 128 on 32x32 pictures, on one core: the plain network, every
parameter as a product of two, and every unit as one. Times are the seconds that the core computes; rounds of all kinds
follow each other, and the median of the ratios counts. Memory is the peak of a step of its own process.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.guides import write_measured
from mirrorsym.constraining import constrain_all
from reproduction.models.resnet import ResNet18
from reproduction.pipeline import provenance
from reproduction.training.memory import step_peak

GUIDE = Path("docs/constrain.md")
BEGIN = "<!-- measured by python -m benchmarks.constraining -->"
SHAPE, BATCH, ROUNDS = (3, 32, 32), 128, 5
WIDTHS, KINDS = (16, 64), ("plain", "sparse", "unit")


def build(width: int, kind: str) -> nn.Module:
    """The network, constrained by one of the kinds or not."""
    network = ResNet18(3, 10, width)
    return network if kind == "plain" else constrain_all(network, kind)  # type: ignore[arg-type]


class Stepper:
    """A network in training; each call is a step."""

    def __init__(self, width: int, kind: str) -> None:
        self.network = build(width, kind).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True
        )
        self.pictures, self.labels = torch.randn(BATCH, *SHAPE), torch.arange(BATCH) % 10
        self.pictures = self.pictures.to(memory_format=torch.channels_last)

    def seconds(self) -> float:
        """Seconds that the core computes in one step."""
        begin = time.process_time()
        self.optimizer.zero_grad()
        functional.cross_entropy(self.network(self.pictures), self.labels).backward()
        self.optimizer.step()
        return time.process_time() - begin


def row(width: int) -> str:
    """Measure one width; return its row of the table."""
    peaks = {
        (kind, batch): step_peak(functools.partial(build, width, kind), SHAPE, batch, "cpu", "float32")
        for kind in KINDS
        for batch in (1, BATCH)
    }
    steppers = {kind: Stepper(width, kind) for kind in KINDS}
    rounds = [{kind: stepper.seconds() for kind, stepper in steppers.items()} for _ in range(ROUNDS + 1)][1:]
    cells = [f"{width}", f"{1000 * statistics.median(one['plain'] for one in rounds):.0f}"]
    for kind in KINDS[1:]:
        cells.append(f"{statistics.median(one[kind] / one['plain'] for one in rounds):.3f}")
        cells += [f"{peaks[kind, batch] / peaks['plain', batch]:.2f}" for batch in (1, BATCH)]
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it into the guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    torch.set_num_threads(1)
    lines = [
        "| width | plain, ms a step | sparse time | memory, batch 1 | at 128 | unit time | memory, batch 1 | at 128 |",
        "|---|---|---|---|---|---|---|---|",
        *(row(width) for width in parser.parse_args(arguments).widths),
        "",
        f"One core, {provenance.device('cpu')}, float32, batch {BATCH}; ratios to the plain step of the same run.",
    ]
    print("\n".join(lines))
    write_measured(GUIDE, BEGIN, lines)


if __name__ == "__main__":
    main()
