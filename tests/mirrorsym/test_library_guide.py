"""The library's guides show what their code prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.library_guide import BLOCK, GUIDES, run, timeless

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_the_code_of_a_guide_prints_what_the_guide_shows(guide: Path) -> None:
    for printed, shown in run((ROOT / guide).read_text(encoding="utf-8")):
        assert timeless(printed) == timeless(shown), "python -m benchmarks.library_guide remakes the guide's outputs"


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_all_code_of_a_guide_is_run(guide: Path) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    assert text.count("```python") == len(BLOCK.findall(text)) >= 2


def test_the_guide_names_every_kind_of_symmetry_and_what_the_result_says() -> None:
    from mirrorsym.symmetries.elements import KINDS

    guide = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    for name in (*KINDS, "unfollowed", "unused_parameters", "free_parameters", "refuted"):
        assert name in guide
    assert (ROOT / "docs" / "library.png").exists()
