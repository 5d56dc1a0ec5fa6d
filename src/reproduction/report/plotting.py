"""What the figures' notebooks share: sizes, colours, spread over seeds, theory lines, and saving with provenance."""

from __future__ import annotations

import itertools
import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import blended_transform_factory
from numpy.typing import ArrayLike, NDArray
from tueplots import figsizes

from reproduction import formatting
from reproduction.analysis import runs
from reproduction.pipeline import provenance, store
from reproduction.pipeline.layout import FIGURE_FORMATS
from reproduction.pipeline.notes import words

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999"]
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
LINESTYLES = ["-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1))]
CHARACTERS_PER_INCH = 17
"""How many characters of a title's size fit beside each other."""
GLUE = "\N{NO-BREAK SPACE}"
NOTES_VARIABLE = "MIRRORSYM_FIGURE_NOTES"
"""Names the file, of a job that executes a notebook, for what the job's log shall say."""
TABLE_SIZE, TABLE_MARGIN = 6, 3.5
"""Of a table the size of the letters, and the room at both sides, in points."""
KEYWORDS = {"pdf": "Keywords", "svg": "Description", "png": "Description"}
THEORY = {"color": "#222222", "linestyle": "--", "linewidth": 1.0}

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS),
    "image.cmap": "cividis",
    "savefig.dpi": 300,
    "figure.dpi": 150,
    "svg.hashsalt": "mirrorsym",
    "pdf.fonttype": 42,
}
_swept: dict[str, dict[str, list[Any]]] = {}
"""The values of each axis of the sweep of each result file that was opened."""
_fixed: dict[str, dict[str, Any]] = {}
"""What the sweep of each of these files keeps fixed."""

plt.rcdefaults()  # not the user's matplotlibrc
plt.rcParams.update(_STYLE)


def open_results(results: str | Path, experiment: str) -> xr.Dataset:
    """Return an experiment's result file, in memory.

    Raises:
        FileError: if it is missing.
        StoreError: if it cannot be read.
    """
    dataset = store.read(Path(results) / f"{experiment}.nc")
    file = dataset.attrs["result_file"] = f"{experiment}.nc"
    axes = dataset["status"].dims if "status" in dataset else ()
    _swept[file] = {str(axis): dataset[axis].values.tolist() for axis in axes}
    _fixed[file] = store.settings_of(dataset) if "settings" in dataset.attrs else {}
    return dataset


def what_was_run() -> Markdown:
    """Return what each result file that was opened was made with: what was kept fixed, and the values of each axis.

    A notebook shows it in place of numbers in its prose, which would be those of one scale and of one day.
    """
    from IPython.display import Markdown

    lines = (f"- **{Path(file).stem}**: {_made_with(file)}" for file in _swept)
    return Markdown("\n".join(lines))  # type: ignore[no-untyped-call]


def _made_with(file: str) -> str:
    fixed = [words(name, _flat(value)) for name, value in _fixed[file].items()]
    swept = [
        f"{axis.replace('_', ' ')} {formatting.values(values)}"
        for axis, values in _swept[file].items()
        if axis != "seed"
    ]
    seeds = len(_swept[file].get("seed", []))
    return "; ".join([*fixed, *swept, f"{seeds} {'seed' if seeds == 1 else 'seeds'}"])


def _flat(value: Any) -> Any:
    """A setting as it can be said: of a list of places, each place as text."""
    if not isinstance(value, list):
        return value
    return tuple(f"({', '.join(map(formatting.setting, part))})" if isinstance(part, list) else part for part in value)


def colors(number: int) -> list[Any]:
    """Return so many colours: the palette's, or evenly spaced ones of a map where it has too few."""
    if number <= len(COLORS):
        return COLORS[:number]
    return list(plt.get_cmap("turbo")(np.linspace(0.05, 0.95, number)))


def figure(
    width: str = "column",
    ratio: float = 0.75,
    nrows: int = 1,
    ncols: int = 1,
    layout: str = "constrained",
    **subplots: Any,
) -> tuple[Figure, Any]:
    """Return a figure of ICML's column or page width and its axes, as ``plt.subplots`` does.

    Args:
        width: "column" (3.25 in) or "page" (6.75 in).
        ratio: height over width of the whole figure.
        nrows: rows of panels.
        ncols: columns of panels.
        layout: "constrained", or "compressed" for panels of a fixed shape, which then stand close to each other.
        **subplots: passed on to ``plt.subplots``.
    """
    size = figsizes.icml2024_half() if width == "column" else figsizes.icml2024_full()
    inches = size["figure.figsize"][0]
    return plt.subplots(nrows, ncols, figsize=(inches, ratio * inches), layout=layout, **subplots)


def band(ax: Axes, x: ArrayLike, values: xr.DataArray, **line: Any) -> Any:
    """Draw the median over seeds as a line and the range from smallest to largest as a band.

    Args:
        ax: where to draw.
        x: positions, shape (n,).
        values: dimensions ``seed`` and one other of length n; NaN (a diverged run) is left out.
        **line: passed on to ``ax.plot``.

    Returns:
        The line.
    """
    middle, low, high = runs.spread(values)
    line.setdefault("color", ax._get_lines.get_next_color())  # type: ignore[attr-defined]
    (drawn,) = ax.plot(x, middle, **line)
    ax.fill_between(x, low, high, color=line["color"], alpha=0.2, linewidth=0)
    return drawn


def spread(values: xr.DataArray, form: str) -> str:
    """Return the median and the range over seeds as text, such as ``3.1 (2.0–4.5)``; "diverged" where none finished.

    Args:
        values: dimension ``seed``.
        form: of each number, such as ``{:.1f}``.
    """
    middle, low, high = (form.format(float(value)) for value in runs.spread(values))
    if not np.isfinite(values).any():
        return "diverged"
    return middle if low == high else f"{middle} ({low}–{high})"


def edges(values: ArrayLike) -> NDArray[np.float64]:
    """Return the edges of cells on a logarithmic axis, halfway between neighbours, shape (n + 1,)."""
    logs = np.log(np.asarray(values, float))
    if len(logs) == 1:
        return np.asarray(np.exp([logs[0] - 0.5, logs[0] + 0.5]))
    middle = (logs[1:] + logs[:-1]) / 2
    return np.asarray(np.exp([2 * logs[0] - middle[0], *middle, 2 * logs[-1] - middle[-1]]))


def theory(ax: Axes, x: ArrayLike, y: ArrayLike, label: str | None = None, **line: Any) -> Any:
    """Draw a theoretical curve: dashed and dark."""
    (drawn,) = ax.plot(x, y, label=label, **{**THEORY, **line})
    return drawn


def vline(ax: Axes, x: float, label: str | None = None, **line: Any) -> Any:
    """Draw a theoretical value of the horizontal axis: a dashed vertical line."""
    return ax.axvline(x, label=label, **{**THEORY, **line})


def title(target: Any, text: str, dataset: xr.Dataset, **style: Any) -> None:
    """Set the title of axes or of a whole figure; further lines say the scale where it is not the paper's."""
    note = dataset.attrs.get("scale_note", "")
    inches = target.get_figure().get_size_inches()[0]
    if hasattr(target, "get_position"):
        inches *= target.get_position().width
    full = "\n".join([text, *balanced(f"[{note}]" if note else "", max(20, int(CHARACTERS_PER_INCH * inches)))])
    if hasattr(target, "suptitle"):
        target.suptitle(full, fontsize=8, **style)
    else:
        target.set_title(full, **style)


def balanced(text: str, width: int) -> list[str]:
    """Return the text in as few lines of at most ``width`` characters as it takes, all about as long.

    Lines break after commas and colons where that takes no line more.
    """
    whole = re.sub(r"(?<![,:]) ", GLUE, text)
    tried = (_balanced(whole, width), _balanced(text, width))
    fitting = (lines for lines in tried if len(lines) <= len(_wrapped(text, width)) and max(map(len, lines)) <= width)
    return [line.replace(GLUE, " ") for line in next(fitting, tried[-1])] if text else []


def _balanced(text: str, width: int) -> list[str]:
    least = len(_wrapped(text, width))
    return next(lines for limit in range(1, width + 1) if len(lines := _wrapped(text, limit)) <= least)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def table(ax: Axes, rows: Sequence[Sequence[str]], colors: Sequence[str] | None = None) -> None:
    """Write a table in place of a panel, over the whole width of the figure.

    Columns are as wide as their longest cell and the room that is left lies between them; where there is too little,
    the letters are smaller.

    Args:
        ax: the panel.
        rows: the cells; the first row is the heading. The first column is flush left, the others flush right.
        colors: of the heading's cells.
    """
    ax.axis("off")
    fig = ax.get_figure(root=True)
    assert fig is not None
    inches = float(fig.get_size_inches()[0])
    rights, size = _columns(rows, 72 * inches - 2 * TABLE_MARGIN)
    across = blended_transform_factory(fig.dpi_scale_trans, ax.transAxes)
    for (line, row), column in itertools.product(enumerate(rows), range(len(rights))):
        style: dict[str, Any] = {"ha": "right", "weight": "bold" if line == 0 else "normal"}
        if column == 0:
            style = {"ha": "left", "style": "italic" if line == 0 else "normal"}
        if line == 0 and colors:
            style["color"] = colors[column]
        x = (TABLE_MARGIN + (rights[column] if column else 0)) / 72
        y = 1 - (line + 0.5) / len(rows)
        written = ax.text(x, y, row[column], va="center", fontsize=size, transform=across, **style)
        written.set_in_layout(False)


def _columns(rows: Sequence[Sequence[str]], room: float) -> tuple[list[float], float]:
    """Return where each column of a table ends, and the size of its letters, both in points."""
    cells = [[_points(cell, bold=line == 0) for cell in row] for line, row in enumerate(rows)]
    widths = np.array(cells).max(axis=0)
    gaps = len(widths) - 1
    shrink = min(1.0, (room - gaps * TABLE_SIZE) / float(widths.sum()))
    between = (room - shrink * float(widths.sum())) / max(1, gaps)
    return (np.cumsum(shrink * widths + between) - between).tolist(), shrink * TABLE_SIZE


def _points(text: str, bold: bool) -> float:
    """How wide a cell is at most, in points: hinting draws small letters up to a tenth wider than their outlines."""
    if not text:
        return 0.0
    font = FontProperties(weight="bold" if bold else "normal")
    return 1.12 * float(TextPath((0, 0), text, size=TABLE_SIZE, prop=font).get_extents().width)


def end_labels(ax: Axes, ends: Iterable[tuple[float, float, str, str]], spacing: float = 7) -> None:
    """Write a label behind the end of each of several lines; labels that would overlap are moved apart.

    The axes' limits must stand before.

    Args:
        ax: where the lines are.
        ends: of each line the position of its end in data coordinates (x, y), its label and its colour.
        spacing: the least distance of two labels, in points.
    """
    fig = ax.get_figure(root=True)
    assert fig is not None
    fig.draw_without_rendering()  # the layout decides how far two values are apart
    points_per_pixel = 72 / fig.dpi
    placed = sorted(
        (float(ax.transData.transform((x, y))[1]) * points_per_pixel, x, y, label, color) for x, y, label, color in ends
    )
    below = -np.inf
    for height, x, y, label, color in placed:
        at = max(height, below + spacing)
        below = at
        shift: dict[str, Any] = {"xytext": (4, at - height), "textcoords": "offset points", "annotation_clip": False}
        ax.annotate(label, (x, y), color=color, va="center", fontsize=6.5, **shift)


def save(
    fig: Figure,
    figures: str | Path,
    name: str,
    data: pd.DataFrame,
    drawn: Sequence[xr.Dataset],
    elsewhere: Sequence[str] = (),
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Save a figure as PDF, SVG and PNG, and the numbers behind it as CSV beside them.

    The files carry, in their metadata, which variables of which result files were drawn and a hash of their values,
    so that ``mirrorsym trace`` can check them; no date, so that the same inputs give the same bytes. Values of a sweep
    that are in no part that was drawn are named on the figure, and in the job's log.

    Args:
        fig: the figure.
        figures: the folder.
        name: the figure's id.
        data: the numbers behind the figure, one tidy table of one kind of row.
        drawn: the parts of results that were drawn, as cut from :func:`open_results`.
        elsewhere: axes of which other figures show the other values, such as ``attention.layers``.
        tables: numbers of other kinds, such as theory; each goes to ``NAME_TABLE.csv``, as configured.
    """
    folder = Path(figures)
    folder.mkdir(parents=True, exist_ok=True)
    if missing := not_drawn(drawn, elsewhere):
        note = f"in the results, and not drawn: {'; '.join(missing)}"
        fig.text(0.995, 0.003, textwrap.shorten(note, 110), ha="right", va="bottom", fontsize=5, color="#aa0000")
        _tell(f"{name}: {note}")
    record = json.dumps({"figure": name, "drawn": [_drawn_record(part) for part in drawn]}, sort_keys=True)
    for suffix in FIGURE_FORMATS:
        metadata: dict[str, Any] = {KEYWORDS[suffix]: record, "Title": name}
        if suffix == "pdf":
            metadata |= {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "mirrorsym"}
        if suffix == "svg":
            metadata |= {"Date": None, "Creator": "mirrorsym"}
        if suffix == "png":
            metadata |= {"Software": "mirrorsym"}
        fig.savefig(folder / f"{name}.{suffix}", metadata=metadata)
    for stem, numbers in {name: data, **{f"{name}_{table}": frame for table, frame in (tables or {}).items()}}.items():
        numbers.to_csv(folder / f"{stem}.csv", index=False, float_format="%.9g")


def not_drawn(drawn: Sequence[xr.Dataset], elsewhere: Sequence[str] = ()) -> list[str]:
    """Return, for each axis of a sweep, the values that the result files have and no part of them shows, in words."""
    found = []
    for file, axes in _swept.items():
        parts = [part for part in drawn if part.attrs.get("result_file") == file]
        for axis, values in axes.items():
            shown = {
                value for part in parts for value in np.ravel(part[axis].values if axis in part.coords else values)
            }
            if (
                parts
                and f"{Path(file).stem}.{axis}" not in elsewhere
                and (left := [value for value in values if value not in shown])
            ):
                found.append(f"{axis} {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in left)}")
    return found


def _tell(note: str) -> None:
    """Say something in the notebook and, where a job executes it, in the job's log."""
    print(note)
    if place := os.environ.get(NOTES_VARIABLE):
        with open(place, "a", encoding="utf-8") as file:
            file.write(f"{note}\n")


def _drawn_record(part: xr.Dataset) -> dict[str, Any]:
    """What a figure file says of one part of a result file."""
    return {
        "file": part.attrs.get("result_file", ""),
        "variables": sorted(str(name) for name in part.data_vars),
        "coordinates": {str(name): part[name].values.tolist() for name in part.coords},
        "sha256": provenance.content_hash([part]),
    }
