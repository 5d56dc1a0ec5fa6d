"""The prose of the notebooks types no number that the configuration has: it would stay when that one changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from reproduction.pipeline import store
from reproduction.report import plotting

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
OF_THE_PAPER = re.compile(
    r"\*\*(?:What the paper|The paper) fixes.*?(?=\n\n|\Z)|Fixed by the paper:.*?(?=Open:|\n\n|\Z)", re.DOTALL
)
"""These paragraphs cite the paper."""
NAME = re.compile(
    r"(?:Figures?|Fig\.|Eqs?\.|Sections?|Theorem|Corollary|Appendix|footnote|part)\s+[A-Z]?\.?\d+(?:\.\d+)*"
    r"|b?float\d+|ResNet\d+",
    re.IGNORECASE,
)
"""Numbers that are names."""
ALLOWED = {
    r"variance $10^{-4}$": "the paper's words, in the table of what it says",
    r"near $10^{-43}$": "the smallest number of single precision, about",
    r"near $10^{-322}$": "the smallest number of double precision, about",
    "below 100 %": "all of them",
    "from 10⁻² to 10⁻⁶ takes s ≥ 4.6": "an example of the formula before it",
    "μ/(3μ² + (1-μ)² 2/i)": "a formula",
    r"\rVert^4": "a formula",
}
"""What stands in prose with good reason."""
WORDS = "three|four|five|six|seven|eight|nine|ten|eleven|twelve|tenth|hundred|hundredth|thousand|thousandth"
NUMBER = re.compile(rf"(?<![\d.,/])[=∈]\s*\{{?[12](?![\d.,])|\d[\d.,]*(?:e-?\d+)?[⁻⁰¹²³⁴-⁹]*|\b(?:{WORDS})\b")


def typed_numbers(text: str) -> list[str]:
    """Return the numbers of a text but names, citations and what is allowed; 0, 1 and 2 make formulas, not settings."""
    text = NAME.sub("", OF_THE_PAPER.sub("", text))
    for words in ALLOWED:
        text = text.replace(words, "")
    return [found for one in NUMBER.findall(text) if (found := one.strip(".,")) not in ("0", "1", "2")]


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_prose_types_no_number(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert prose
    assert [found for text in prose for found in typed_numbers(text)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10 seeds and 10⁵ steps", ["10", "10⁵"]),
        ("λ = 0.01, σ = 1", ["0.01", "= 1"]),
        ("five values of 2e-3, or 25,000", ["five", "2e-3", "25,000"]),
        ("Figure 3, Section 3.4 and Theorem 1, part 3 at w = 0 with (1, -1)", []),
        ("Fixed by the paper: 200 points. Open: 30 steps", ["30"]),
        ("**The paper fixes** 200 points.\nAnd 100.\n\nWe take 24.", ["24"]),
    ],
)
def test_typed_numbers_are_found(text: str, found: list[str]) -> None:
    assert typed_numbers(text) == found


def test_every_exception_is_needed() -> None:
    everything = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob("*.ipynb"))
    assert [words for words in ALLOWED if json.dumps(words, ensure_ascii=False)[1:-1] not in everything] == []


def test_a_notebook_says_what_its_results_were_made_with(tmp_path: Path) -> None:
    axes = {"rate": [0.1, 1e-5], "seed": range(3)}
    data = xr.Dataset({"status": (("rate", "seed"), np.zeros((2, 3), np.int8))}, axes)
    settings = {"steps": 100000, "starts": [[1.5, -2], [0, 1]], "flip": False}
    store.write(data.assign_attrs(settings=json.dumps(settings)), tmp_path / "spins.nc")
    plotting.open_results(tmp_path, "spins")
    lines = plotting.what_was_run().data.splitlines()
    said = "100,000 steps; starts (1.5, −2) and (0, 1); no flip; rate 0.1 and 10⁻⁵; 3 seeds"
    assert f"- **spins**: {said.replace('100,000', '10⁵')}" in lines


def test_many_curves_have_colours_of_their_own() -> None:
    assert plotting.colors(3) == plotting.COLORS[:3]
    assert len({tuple(color) for color in plotting.colors(14)}) == 14
