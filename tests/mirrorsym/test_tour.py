"""The tour shows the notebook and what its cells print, and the notebook runs: here on narrow networks, a few steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.tour import cells, page, run
from benchmarks.zoo.models import SMALL

ROOT = Path(__file__).parents[2]
NOTEBOOK, PAGE = ROOT / "docs" / "tour.ipynb", ROOT / "docs" / "tour.md"
OUTPUT = re.compile(r"\n\n```text\n.*?\n```", re.DOTALL)


def test_the_page_shows_the_notebook_and_what_each_cell_prints() -> None:
    text = PAGE.read_text(encoding="utf-8")
    silent = page(NOTEBOOK, [""] * sum(kind != "markdown" for kind, _ in cells(NOTEBOOK)))
    assert OUTPUT.sub("", text) == silent, "python -m benchmarks.tour remakes the page"
    blocks = re.findall(r"```python\n(.*?)\n```(\n\n```text\n.*?\n```)?", text, re.DOTALL)
    assert [bool(output) for _, output in blocks] == ["print(" in source for source, _ in blocks]
    assert (ROOT / "docs" / "tour.png").exists()


@torch.no_grad()
def apart(one: nn.Module, other: nn.Module, batch: torch.Tensor) -> float:
    first, second = (getattr(outputs, "logits", outputs) for outputs in (one(batch), other(batch)))
    return float((first - second).abs().max() / first.square().mean().sqrt())


def test_the_notebook_runs_and_its_networks_compute_what_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("matplotlib", "scipy", "sklearn", "torchvision", "transformers"):
        pytest.importorskip(package, reason="the notebook needs it, the library does not")
    monkeypatch.setattr("torchvision.models.resnet18", lambda num_classes: SMALL["resnet18 ×1/8"].build())
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space: dict[str, Any] = {"__name__": "tour"}
    few = {"steps": 6, "text_steps": 8, "ahead": 20, "twin_steps": 3, "letters_read": 8000, "width": 16, "every": 3}
    printed = list(run(NOTEBOOK, space, few))
    assert [bool(output) for output in printed] == ["print(" in s for k, s in cells(NOTEBOOK) if k != "markdown"]
    assert (tmp_path / "tour.png").stat().st_size > 1000
    assert {record.step for record in space["resnet_watch"].records} == {0, 3, 6}
    assert len(space["outlook"]) == len(space["mirrors"]) == 2 * (2 * 2 + 1), (
        "pairs of two layers' two heads, and units"
    )
    assert apart(space["resnet"], space["small"], space["x"][:8]) < 2e-3
    assert apart(space["gpt"], space["small_gpt"], space["pieces"][:4]) < 2e-3
    assert apart(space["other"], space["aligned"], space["x"][:8]) < 1e-2
