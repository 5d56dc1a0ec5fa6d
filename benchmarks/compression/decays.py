"""``python -m benchmarks.compression.decays``: how much products leave to cut as decay grows, into docs/compress.md.

Some minutes of one core; what is trained is kept, and not trained again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

import mirrorsym
from benchmarks.compression.__main__ import GUIDE, OUT, place
from benchmarks.compression.networks import NETWORKS, tested, trained
from benchmarks.guides import write_measured
from mirrorsym import effective_parameters, measures

BEGIN = "<!-- measured by python -m benchmarks.compression.decays -->"
PRODUCTS = {
    "every entry": ("ResNet18 on digits, DCS by entry", (0.001, 0.003, 0.008, 0.02)),
    "every channel": ("ResNet18 on digits, DCS by channel", (0.01, 0.03)),
}
MOMENTUM = 0.9


def rows(product: str) -> Iterator[str]:
    """Yield a line for each decay, of networks that are trained alike in all else."""
    name, decays = PRODUCTS[product]
    for decay in decays:
        network = replace(NETWORKS[name], decay=decay)
        data, model = network.data(), trained(network, place(f"{name}, {decay:g}").with_suffix(".decay.pt"))
        accuracy = tested(model, data)[0]
        small, report = mirrorsym.compress(model, data.inputs[:32])
        assert abs(tested(small, data)[0] - accuracy) < 2e-3, "the cut has changed what is computed"
        # The learning rate falls to zero on a cosine.
        exponent = network.learning_rate / 2 * decay * network.steps / (1 - MOMENTUM)
        before, after = report.parameters
        percent = 100 * zeros(model)
        cells = [product, f"{decay:g}", f"{exponent:.2g}", f"{percent:{'.0f' if percent >= 10 else '.2g'}} %"]
        cells += [f"{before:,} → {after:,}", f"{report.flops[1] / report.flops[0]:.0%}", f"{accuracy:.3f}"]
        yield "| " + " | ".join(cells) + " |"


def zeros(model: nn.Module) -> float:
    """Return the share of a model's numbers, products where they have factors, below 1e-6."""
    with torch.no_grad():
        values = torch.cat([value.flatten() for *_, value in effective_parameters(model)])
    return float(measures.sparsity(values.numpy()))


def main() -> None:
    """Measure, print the table and write it into the guide."""
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    lines = [
        "| product for | decay | exponent | numbers below 1e-6 | parameters | FLOPs left | accuracy |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for product in PRODUCTS:
        for line in rows(product):
            print(line, flush=True)
            lines.append(line)
    write_measured(GUIDE, BEGIN, lines)


if __name__ == "__main__":
    main()
