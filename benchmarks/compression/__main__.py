"""``python -m benchmarks.compression``: train networks that collapse, compress them, write docs/compress.md's table.

Each network runs in a process of its own, on one thread: ``python -m benchmarks.compression NAME`` does one, and keeps
it and its numbers in results/compression/. The pictures are CIFAR-10's, of the archive that the environment's
MIRRORSYM_TEST_ARCHIVE names.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

OUT, GUIDE = Path("results/compression"), Path("docs/compress.md")
TABLE = re.compile(
    r"(?<=<!-- table: made by `python -m benchmarks.compression` -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL
)
HEAD = (
    "| network | parameters | MFLOPs | ms | largest change of an output | accuracy | loss | "
    "Torch-Pruning: parameters | accuracy | loss |\n|---|---|---|---|---:|---|---|---:|---:|---:|"
)


def run_one(name: str) -> dict[str, Any]:
    """Train one network, compress it, prune it to the same number of parameters, and return what came of it."""
    import torch

    import mirrorsym
    from benchmarks.compression.networks import NETWORKS, tested, trained
    from benchmarks.compression.pruned import pruned
    from mirrorsym.compression.compress import plain_parameters

    torch.set_num_threads(1)
    network = NETWORKS[name]
    data, model = network.data(), trained(network, place(name).with_suffix(".pt"))
    small, report = mirrorsym.compress(model, data.inputs[:32])
    print(report)
    plain_parameters(model)
    outputs = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    other = (float("nan"), float("inf"), 0)
    try:
        for rival in pruned(model, data.inputs[:8], report.parameters[1], outputs):
            numbers = (*tested(rival, data), sum(p.numel() for p in rival.parameters()))
            print("Torch-Pruning:", numbers)
            other = min(other, numbers, key=lambda numbers: numbers[1])
    except Exception as error:  # whatever Torch-Pruning raises is the answer
        print(f"Torch-Pruning: {type(error).__name__}: {error}")
    with torch.no_grad():
        logits, again = model(data.test_inputs[:500]), small(data.test_inputs[:500])
    return {
        "parameters": report.parameters,
        "flops": report.flops,
        "seconds": report.seconds,
        "change": float((logits - again).abs().max() / logits.square().mean().sqrt()),
        "tested": (tested(model, data), tested(small, data), other),
        "cuts": str(report),
    }


def row(name: str, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    before, after, other = found["tested"]

    def change(values: list[float], form: str, scale: float = 1.0) -> str:
        return " → ".join(format(value * scale, form) for value in values)

    cells = [
        name,
        change(found["parameters"], ",.0f"),
        change(found["flops"], ".0f", 1e-6),
        change(found["seconds"], ".1f", 1e3),
        f"{found['change']:.0e}",
        change([before[0], after[0]], ".3f"),
        change([before[1], after[1]], ".4f"),
        f"{other[2]:,}",
        f"{other[0]:.3f}",
        f"{other[1]:.4f}",
    ]
    return "| " + " | ".join(cells) + " |"


def write() -> None:
    """Write the table into the guide."""
    from benchmarks.compression.networks import NETWORKS

    found = {name: json.loads(place(name).read_text(encoding="utf-8")) for name in NETWORKS if place(name).exists()}
    table = "\n".join([HEAD, *(row(name, numbers) for name, numbers in found.items())])
    GUIDE.write_text(TABLE.sub(lambda _: table, GUIDE.read_text(encoding="utf-8")), encoding="utf-8")


def place(name: str) -> Path:
    """Return where the numbers of a network lie."""
    return OUT / f"{name.replace(', ', '_').replace(' ', '_')}.json"


def main() -> None:
    """Run one network or all."""
    from benchmarks.compression.networks import NETWORKS

    OUT.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 1:
        name = sys.argv[1]
        place(name).write_text(json.dumps(run_one(name)), encoding="utf-8")
    else:
        for name in NETWORKS:
            subprocess.run([sys.executable, "-m", "benchmarks.compression", name], check=True)
    write()


if __name__ == "__main__":
    main()
