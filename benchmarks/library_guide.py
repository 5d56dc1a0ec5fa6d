"""``python -m benchmarks.library_guide``: remake what the library's guides show and print."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GUIDES = tuple(Path(f"docs/{name}.md") for name in ("library", "constrain", "align", "compress", "break", "forecast"))
PICTURE = Path("docs/library.png")
BLOCK = re.compile(r"(?P<head>```python\n)(?P<code>.*?)(?P<middle>```\n\n```text\n)(?P<output>.*?)(?=```)", re.DOTALL)


def run(text: str) -> Iterator[tuple[str, str]]:
    """Run the code of a guide, block after block in one namespace; yield what it prints and what the guide shows."""
    import torch

    torch.manual_seed(0)
    space: dict[str, Any] = {"__name__": "guide"}
    for block in BLOCK.finditer(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], "guide", "exec"), space)
        yield printed.getvalue(), block["output"]


def timeless(text: str) -> str:
    """Return what is printed without how long it took, and without errors, which rounding makes."""
    text = re.sub(r"in \d+\.\d s", "in 0.1 s", text)
    text = re.sub(r"(seconds of a forward) .*", r"\1", text)
    return re.sub(r"\d+e-\d+", "1e-09", text)


def draw() -> None:
    """Draw the neurons of a layer before and after training, and how many different ones are left."""
    import torch
    from torch import nn

    import mirrorsym
    from reproduction.report import plotting

    fig, axes = plotting.figure("page", ratio=0.33, ncols=3)
    for decay, color in ((0.0, plotting.COLORS[0]), (0.03, plotting.COLORS[1])):
        torch.manual_seed(0)
        x = torch.randn(64, 8)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        monitor = mirrorsym.CollapseMonitor(model, mirrorsym.find_symmetries(model, x))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=decay)
        if decay:
            _arrows(axes[0], model, "before training", color)
        for step in range(1001):
            if step % 25 == 0:
                monitor.update(step)
            optimizer.zero_grad()
            (model(x) - x[:, :1]).square().mean().backward()
            optimizer.step()
        if decay:
            _arrows(axes[1], model, "after training", color)
        chosen = [r for r in monitor.records if (r.kind, r.quantity) == ("permutation", "effective_units")]
        label = f"weight decay {decay:g}"
        axes[2].plot([r.step for r in chosen], [r.value for r in chosen], color=color, label=label)
    axes[2].set(xlabel="step", ylabel="different neurons", ylim=(0, 17))
    axes[2].legend()
    fig.savefig(PICTURE, dpi=150, metadata={"Software": None})


def _arrows(ax: Any, model: Any, title: str, color: str) -> None:
    weights = model[0].weight.detach()[:, :2]
    for x, y in weights.tolist():
        ax.annotate("", xy=(x, y), xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": color, "lw": 1})
    ax.set(title=title, xlabel="weight of input 1", ylabel="weight of input 2", xlim=(-0.6, 0.6), ylim=(-0.6, 0.6))


def main() -> None:
    """Write the picture and the outputs."""
    draw()
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        pairs = list(run(text))
        outputs = iter([shown if timeless(printed) == timeless(shown) else printed for printed, shown in pairs])
        text = BLOCK.sub(lambda m, new=outputs: m["head"] + m["code"] + m["middle"] + next(new), text)  # type: ignore[misc]
        guide.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
