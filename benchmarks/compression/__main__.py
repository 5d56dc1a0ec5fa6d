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
OTHERS = re.compile(r"(?<=<!-- others: made by the same -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)
HEAD = (
    "| network | parameters | MFLOPs | ms | largest change of an output | accuracy | loss | "
    "Torch-Pruning: parameters | accuracy | loss |\n|---|---|---|---|---:|---|---|---:|---:|---:|"
)
OTHERS_HEAD = (
    "| network | parameters left | zero without a cut | loss: compressed | smallest weights at zero | "
    "smallest rows at zero | layers with an α, cut by half or more | their α, that of the others | α above 6 |\n"
    "|---|---:|---:|---:|---:|---:|---:|---|---|"
)


def run_one(name: str) -> dict[str, Any]:
    """Train one network, compress it, prune it to the same number of parameters, and return what came of it."""
    from dataclasses import asdict

    import torch

    import mirrorsym
    from benchmarks.compression.networks import NETWORKS, tested, trained
    from benchmarks.compression.pruned import pruned
    from benchmarks.compression.rivals import masked, spectra
    from mirrorsym import measures
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
    watched = spectra(model, small)
    values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    with torch.no_grad():
        logits, again = model(data.test_inputs[:500]), small(data.test_inputs[:500])
    return {
        "parameters": report.parameters,
        "flops": report.flops,
        "seconds": report.seconds,
        "change": float((logits - again).abs().max() / logits.square().mean().sqrt()),
        "tested": (tested(model, data), tested(small, data), other),
        "cuts": str(report),
        "zeros": float(measures.sparsity(values.numpy())),
        "masked": [tested(rival, data)[1] for rival in masked(model, report.parameters[1], outputs)],
        "spectra": None if watched is None else asdict(watched),
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


def other_row(name: str, found: dict[str, Any]) -> str:
    """Return a line of the table of other tools."""
    cells = [name, f"{found['parameters'][1]:,}", f"{found['zeros']:.0%}", f"{found['tested'][1][1]:.4f}"]
    cells += [f"{loss:.4f}" for loss in found["masked"]]
    seen = found["spectra"]
    pairs = (("layers", "collapsed"), ("alpha_collapsed", "alpha_others"), ("flagged", "flagged_others"))
    cells += [f"{seen[one]:.2g}, {seen[other]:.2g}" if seen else "" for one, other in pairs]
    return "| " + " | ".join(cells) + " |"


def write() -> None:
    """Write the tables into the guide; networks that were not run keep their lines."""
    from benchmarks.compression.networks import NETWORKS

    found = {name: json.loads(place(name).read_text(encoding="utf-8")) for name in NETWORKS if place(name).exists()}
    text = GUIDE.read_text(encoding="utf-8")
    for table, head, line in ((TABLE, HEAD, row), (OTHERS, OTHERS_HEAD, other_row)):
        kept = {text_line.split(" | ")[0][2:]: text_line for text_line in table.findall(text)[0].split("\n")[2:]}
        rows = kept | {name: line(name, numbers) for name, numbers in found.items()}
        lines = "\n".join([head, *(rows[name] for name in NETWORKS if name in rows)])
        text = table.sub(lambda _, lines=lines: lines, text)  # type: ignore[misc]
    GUIDE.write_text(text, encoding="utf-8")


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
