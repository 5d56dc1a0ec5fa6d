"""Figures carry what they drew: the same inputs give the same bytes, and a changed result is noticed."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from reproduction.pipeline import store
from reproduction.pipeline.config import load
from reproduction.pipeline.layout import FIGURE_FORMATS
from reproduction.report import plotting
from reproduction.report.trace import TraceError, record_of, trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    shape = (3, 4)
    data = xr.Dataset(
        {"height": (("rate", "seed"), np.arange(12.0).reshape(shape)), "other": (("rate", "seed"), np.ones(shape))},
        {"rate": [0.1, 0.2, 0.3], "seed": range(4)},
    )
    store.write(data, tmp_path / "results" / "made_up.nc")
    return tmp_path / "results"


def draw(results: Path, figures: Path) -> None:
    data = plotting.open_results(results, "made_up")
    fig, ax = plotting.figure()
    drawn = data[["height"]].sel(rate=[0.1, 0.3])
    plotting.band(ax, drawn.rate, drawn.height)
    plotting.title(ax, "Height (“quoted” & <odd>)", data)
    plotting.save(fig, figures, "fig", data=pd.DataFrame({"a": [1.5]}), drawn=[drawn, data[["height"]].sel(seed=2)])


def test_the_same_inputs_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    draw(results, tmp_path / "one")
    draw(results, tmp_path / "two")
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_every_format_carries_the_same_record(results: Path, tmp_path: Path) -> None:
    draw(results, tmp_path)
    records = [record_of(tmp_path / f"fig.{suffix}") for suffix in FIGURE_FORMATS]
    assert records[0] == records[1] == records[2]
    assert records[0]["drawn"][0]["variables"] == ["height"]
    assert records[0]["drawn"][0]["coordinates"]["rate"] == [0.1, 0.3]


@pytest.mark.parametrize(
    ("rate", "variable", "noticed"), [(0.1, "height", True), (0.2, "other", False), (0.3, "height", True)]
)
def test_a_change_of_what_was_drawn_is_noticed(
    results: Path, tmp_path: Path, rate: float, variable: str, noticed: bool
) -> None:
    draw(results, tmp_path)
    assert trace("fig", tmp_path, results) == []
    data = store.read(results / "made_up.nc")
    data[variable].loc[{"rate": rate}] += 1
    store.write(data, results / "made_up.nc")
    assert bool(trace("fig", tmp_path, results)) == noticed


def test_what_is_missing_is_said(results: Path, tmp_path: Path) -> None:
    draw(results, tmp_path)
    store.write(store.read(results / "made_up.nc").drop_sel(rate=0.3), results / "made_up.nc")
    assert "no longer has" in trace("fig", tmp_path, results)[0]
    (results / "made_up.nc").unlink()
    assert "is missing" in trace("fig", tmp_path, results)[0]
    (tmp_path / "fig.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(TraceError, match="no provenance"):
        trace("fig", tmp_path, results)


@pytest.fixture
def swept(results: Path) -> Path:
    data = store.read(results / "made_up.nc")
    store.write(data.assign(status=(("rate", "seed"), np.zeros((3, 4), np.int8))), results / "made_up.nc")
    return results


@pytest.mark.parametrize(
    ("selections", "elsewhere", "says"),
    [
        ([{}], (), ""),
        ([{"rate": [0.1, 0.3]}], (), "rate 0.2"),
        ([{"rate": 0.1}, {"rate": [0.2, 0.3]}], (), ""),
        ([{"rate": 0.1, "seed": [0, 2]}], (), "rate 0.2, 0.3; seed 1, 3"),
        ([{"rate": 0.1}], ("made_up.rate",), ""),
        ([{"rate": 0.1}], ("other.rate",), "rate 0.2, 0.3"),
    ],
)
def test_values_of_the_sweep_that_a_figure_leaves_out_are_said(
    swept: Path,
    tmp_path: Path,
    selections: list[dict[str, Any]],
    elsewhere: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A learning rate that was added and is not drawn: said on the figure and in the log, not passed over."""
    monkeypatch.setenv(plotting.NOTES_VARIABLE, str(tmp_path / "notes.txt"))
    data = plotting.open_results(swept, "made_up")
    fig, _ = plotting.figure()
    drawn = [data[["height"]].sel(selection) for selection in selections]
    plotting.save(fig, tmp_path / "figures", "fig", pd.DataFrame({"a": [1.5]}), drawn, elsewhere)
    note = f"in the results, and not drawn: {says}"
    assert [text.get_text() for text in fig.texts] == ([note] if says else [])
    assert (tmp_path / "notes.txt").exists() == bool(says)
    assert not says or (tmp_path / "notes.txt").read_text() == f"fig: {note}\n"


def boxes_of(fig: Figure) -> list[Bbox]:
    fig.draw_without_rendering()
    return [text.get_window_extent() for ax in fig.axes for text in ax.texts if text.get_text()]


@pytest.mark.parametrize("longest", ["0", "0.092 (0.066–0.13)", "128 (125–128) and then some more"])
def test_the_cells_of_a_table_do_not_overlap(longest: str) -> None:
    fig, ax = plotting.figure("column", ratio=0.4)
    plotting.table(ax, [["median (range) over seeds", "start", "decay 0"], ["pairs, %", longest, longest]])
    boxes = boxes_of(fig)
    assert all(box.x0 >= 0 and box.x1 <= fig.bbox.width for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert boxes[1].x1 == pytest.approx(boxes[4].x1, abs=1)  # a column is flush right


def test_labels_behind_lines_that_end_close_together_are_moved_apart() -> None:
    fig, ax = plotting.figure()
    ax.set(xlim=(0, 1), ylim=(0, 100))
    plotting.end_labels(ax, [(1, 50, "b", "red"), (1, 50.1, "c", "green"), (1, 10, "a", "blue")])
    low, middle, high = sorted(boxes_of(fig), key=lambda box: box.y0)
    assert not middle.overlaps(high)
    assert low.y0 + low.height / 2 == pytest.approx(ax.transData.transform((1, 10))[1], abs=2)


@pytest.mark.parametrize("width", range(22, 60))
def test_no_word_stands_alone_on_the_last_line_of_a_title(width: int) -> None:
    words = "quick: scikit-learn's digits, width 8, λ 0.3, decay 0.0065"
    lines = plotting.balanced(words, width)
    assert " ".join(lines) == words
    assert max(map(len, lines)) <= width
    assert len(lines) == 1 + len(words) // (width + 1)  # no line more than the letters need
    assert len(lines[-1].split()) > 1


def test_the_lines_of_a_title_break_between_settings() -> None:
    words = "quick: scikit-learn's digits, width 8, stem stride 2, 90 epochs, crop padding 0, no flip, weight decay 0"
    lines = plotting.balanced(words, 55)
    assert " ".join(lines) == words
    assert [line[-1] for line in lines[:-1]] == [","] * (len(lines) - 1)
    assert plotting.balanced("", 55) == []


def test_every_figure_says_in_a_line_what_to_see_in_it() -> None:
    for name, figure in load(ROOT / "config", {}).figures.items():
        assert 40 < len(figure.see) < 150, name
        assert figure.see.endswith("."), name


def saved_tables(notebook: Path) -> list[str]:
    """The keys of ``tables`` in a notebook's call of ``plotting.save``, or of the mapping of that name."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    given = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "tables"]
    named = [node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "tables"]
    return [ast.literal_eval(key) for one in [*given, *named] if isinstance(one, ast.Dict) for key in one.keys if key]


def test_the_tables_of_a_figure_are_those_that_its_notebook_saves() -> None:
    for name, figure in load(ROOT / "config", {}).figures.items():
        assert saved_tables(ROOT / "notebooks" / f"{name}.ipynb") == figure.tables, name


def test_numbers_of_another_kind_go_to_a_file_of_their_own(results: Path, tmp_path: Path) -> None:
    data = plotting.open_results(results, "made_up")
    fig, _ = plotting.figure()
    measured, theory = pd.DataFrame({"a": [1.5]}), pd.DataFrame({"b": [2.5, 3.5]})
    plotting.save(fig, tmp_path / "figures", "fig", measured, [data[["height"]]], tables={"theory": theory})
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures" / "fig.csv"), measured)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures" / "fig_theory.csv"), theory)
