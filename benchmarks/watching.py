"""``python -m benchmarks.watching``: what a measurement of the watch costs on a ResNet18, into docs/library.md.

Seconds that one core computes, against those of a training step of SGD with momentum at batch 128.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import torch

import mirrorsym
from benchmarks.constraining import Stepper
from reproduction.files import write_atomically

GUIDE = Path("docs/library.md")
WIDTHS, STEPS = (8, 16, 64), 3
SENTENCE = re.compile(r"On a ResNet18 of the widths .* of a training step of batch 128\.")


def share(width: int) -> float:
    """Seconds of a measurement over those of a step."""
    stepper = Stepper(width, "plain")
    monitor = mirrorsym.watch(stepper.network, stepper.pictures[:16])
    stepper.seconds()
    step = min(stepper.seconds() for _ in range(STEPS))
    begin = time.process_time()
    monitor.update(1)
    return (time.process_time() - begin) / step


def main() -> None:
    """Print the shares and write them into the guide."""
    torch.set_num_threads(1)
    shares = [share(width) for width in WIDTHS]
    widths, times = (
        ", ".join(values[:-1]) + f" and {values[-1]}"
        for values in ([f"{width}" for width in WIDTHS], [f"{one:.2f}" for one in shares])
    )
    sentence = f"On a ResNet18 of the widths {widths} a measurement takes {times} of a training step of batch 128."
    print(sentence)
    write_atomically(GUIDE, SENTENCE.sub(sentence, GUIDE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
