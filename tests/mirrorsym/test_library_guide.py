"""The library's guides show what their code prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.library_guide import BLOCK, GUIDES, run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("guide", GUIDES)
def test_the_code_of_a_guide_prints_what_the_guide_shows(guide: str) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    assert text.count("```python") == len(BLOCK.findall(text)) >= 2, "all code is run"
    for printed, shown in run(text):
        assert printed == shown, "python -m benchmarks.library_guide remakes the guides' outputs"


def test_the_guide_names_every_kind_of_symmetry_and_what_the_result_says() -> None:
    from mirrorsym.symmetries.symmetry import KINDS

    guide = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    for name in (*KINDS, "unfollowed", "unused_parameters", "free_parameters", "refuted"):
        assert name in guide
    assert (ROOT / "docs" / "library.png").exists()
