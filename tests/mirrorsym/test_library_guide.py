"""docs/library.md shows what its code prints."""

from __future__ import annotations

from pathlib import Path

from benchmarks.library_guide import BLOCK, run

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")


def test_the_code_of_the_guide_prints_what_the_guide_shows() -> None:
    for printed, shown in run(GUIDE):
        assert printed == shown, "python -m benchmarks.library_guide remakes the guide's outputs"


def test_all_code_of_the_guide_is_run() -> None:
    assert GUIDE.count("```python") == len(BLOCK.findall(GUIDE)) >= 4


def test_the_guide_names_every_kind_of_symmetry_and_what_the_result_says() -> None:
    from mirrorsym.symmetries.symmetry import KINDS

    for name in (*KINDS, "unfollowed", "unused_parameters", "free_parameters", "refuted"):
        assert name in GUIDE
    assert (ROOT / "docs" / "library.png").exists()
