"""``python -m benchmarks``: run every benchmark, write results/bench.json and results/bench.png.

Each runs in a process of its own, one after the other, on one thread: numba's and PyTorch's threads do not meet.
``python -m benchmarks sparsity`` runs one and prints it.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

from reproduction.files import write_atomically

BENCHMARKS = {
    "sparsity": "sparsity:bench",
    "matrix_factorization": "matrix_factorization:bench",
    "plasticity": "plasticity:bench",
    "attention_1": "attention:bench_1",
    "attention_2": "attention:bench_2",
}
OUT = Path("results/bench.json")


def run_one(name: str) -> None:
    """Print one benchmark's numbers as JSON."""
    module, _, function = BENCHMARKS[name].partition(":")
    print(json.dumps(getattr(importlib.import_module(f"benchmarks.{module}"), function)()))


def run_all() -> None:
    """Run all in turn and write the numbers and their figure."""
    found = {}
    for name in BENCHMARKS:
        command = [sys.executable, "-m", "benchmarks", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"benchmark {name} failed:\n{done.stderr}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:<22}" + "  ".join(f"{key} {value:.4g}" for key, value in found[name].items()), flush=True)
        write_atomically(OUT, json.dumps(found, indent=1))
    draw(found)
    print(f"written to {OUT} and {OUT.with_suffix('.png')}")


def draw(found: dict[str, dict[str, float]]) -> None:
    """Draw the times a step as bars: plain loop, batched program, ours, and the machine's limit."""
    import numpy as np

    from reproduction.report import plotting

    kinds = {
        "torch_us": "plain PyTorch loop",
        "batched_us": "batched PyTorch",
        "ours_us": "mirrorsym",
        "limit_us": "limit",
    }
    fig, ax = plotting.figure("page", ratio=0.4)
    positions = np.arange(len(found))
    for shift, (key, label) in enumerate(kinds.items()):
        heights = [numbers.get(key, np.nan) for numbers in found.values()]
        ax.bar(positions + 0.2 * (shift - 1.5), heights, width=0.18, label=label, color=plotting.COLORS[shift])
    ax.set_yscale("log")
    ax.set_xticks(positions, [name.replace("_", " ") for name in found])
    ax.set_ylabel("time per run and step (µs)")
    ax.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    fig.savefig(OUT.with_suffix(".png"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_one(sys.argv[1])
    else:
        run_all()
