"""docs/results.md: the trainings of a scale, with what made them, beside what the paper reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mirrorsym import measures
from reproduction.analysis import derived
from reproduction.analysis.verdicts import read_verdicts
from reproduction.contract import FINISHED
from reproduction.files import FileError, write_atomically
from reproduction.formatting import duration, number, setting
from reproduction.pipeline import store
from reproduction.pipeline.config import Config
from reproduction.pipeline.costs import forecast, table
from reproduction.pipeline.layout import Layout
from reproduction.report.gallery import shrunk
from reproduction.report.headlines import over_seeds

if TYPE_CHECKING:
    import xarray as xr

FIGURES = ("fig3_right", "fig6", "fig7")
EXPERIMENTS = ("homogeneity", "dcs_resnet")
CLOSE = 0.1
"""Distance in weight, relative to the norms, under which two neurons count as the same."""
PAPER = {
    "homogeneity": "The paper (Figures 3 right and 6; a full ResNet18, 100 epochs) shows matrices and no numbers: "
    "homogeneous blocks at weight decay 0.001, rare without decay, alike before and after the activation.",
    "dcs_resnet": "The paper (Figure 7; a full ResNet18, 200 epochs, decay 5e-4) reports about 93 % for both, DCS a "
    "little higher, parameters that can be set to zero where they are below 1e-6, a similar time, twice the memory at "
    "batch 1 and under 10 % more at batch 128.",
}


def write_page(config: Config, layout: Layout) -> Path:
    """Write ``docs/results.md`` and its pictures from a scale's results and return its path.

    Raises:
        FileError: if a result file or a figure is missing, or a file cannot be written.
    """
    docs = layout.root / "docs"
    data = {name: _read(layout.result(config.scale, name)) for name in EXPERIMENTS}
    lines = [
        f"# Measured: the trainings at scale `{config.scale}`",
        "",
        f"Made by `mirrorsym results --scale {config.scale}` from result files; no number is typed. Medians over "
        "seeds, with the range in brackets. The paper's statements are in our words. Seconds by the clock include what "
        "else the machine did.",
        "",
        *_provenance(data),
        *_section(
            "homogeneity", "Figures 3 (right) and 6: neurons become alike", homogeneity_rows(data["homogeneity"])
        ),
        *_section("dcs_resnet", "Figure 7: every parameter as a product", dcs_rows(data["dcs_resnet"])),
    ]
    for figure in FIGURES:
        source = layout.figure(config.scale, figure, "png")
        if not source.is_file():
            raise FileError(f"{source} is missing; make it with snakemake")
        write_atomically(docs / "results" / f"{figure}.png", shrunk(source))
        lines += [f"![{figure} at scale {config.scale}](results/{figure}.png)", ""]
    lines += [*_verdicts(layout.claims(config.scale)), *_cost(config, layout)]
    write_atomically(docs / "results.md", "\n".join(lines).rstrip() + "\n")
    return docs / "results.md"


def homogeneity_rows(data: xr.Dataset) -> list[list[str]]:
    """Return the table of the homogeneity experiment, its head first: a column for the start, then one a decay.

    Args:
        data: the result file.
    """
    finished = data.where(data["status"] == FINISHED)
    decays = data["weight_decay"].values

    def row(what: str, measure: Callable[[np.ndarray], float], variable: str, scale: float = 1.0) -> list[str]:
        start, end = (derived.of_matrices(measure, finished[name]) for name in (f"initial_{variable}", variable))
        ends = [over_seeds(end.sel(weight_decay=decay), scale=scale) for decay in decays]
        return [what, over_seeds(start.isel(weight_decay=0), scale=scale), *ends]

    accuracy = [over_seeds(finished["test_accuracy"].sel(weight_decay=decay), scale=100) for decay in decays]
    alike = number(measures.HOMOGENEOUS_CORRELATION)
    return [
        ["", "at the start", *(f"decay {setting(float(decay))}" for decay in decays)],
        ["test accuracy, %", "", *accuracy],
        row(f"pairs correlated above {alike} before the activation, %", _pairs, "correlation_pre", 100),
        row("the same after it, %", _pairs, "correlation_post", 100),
        row("groups of neurons before the activation", _groups, "correlation_pre"),
        row("constant neurons before the activation", _constant, "correlation_pre"),
        row(f"pairs closer than {number(CLOSE)} in weight, %", _close, "weight_distance", 100),
    ]


def dcs_rows(data: xr.Dataset) -> list[list[str]]:
    """Return the table of the DCS experiment, its head first: a column for each parameterization.

    Args:
        data: the result file.
    """
    finished = data.where(data["status"] == FINISHED)
    arms = [str(name) for name in data["parameterization"].values]

    def row(what: str, values: xr.DataArray, scale: float = 1.0) -> list[str]:
        return [what, *(over_seeds(values.sel(parameterization=arm), scale=scale) for arm in arms)]

    last = finished.isel(epoch=-1)
    return [
        ["", *({"vanilla": "plain", "dcs": "w⊙u"}[arm] for arm in arms)],
        row("test accuracy, %", last["test_accuracy"], 100),
        row("the same with parameters below 1e-6 set to zero, %", finished["pruned_test_accuracy"], 100),
        row("parameters below 1e-6, %", last["sparsity"], 100),
        row(
            "seconds of the median epoch's steps, by the clock",
            finished["epoch_seconds"].isel(epoch=slice(1, None)).median("epoch"),
        ),
        *(
            row(f"peak memory at batch {int(size)}, MB", finished["peak_memory"].sel(batch_size=size), 1e-6)
            for size in data["batch_size"].values
        ),
    ]


# A run that did not finish has no matrices, and what is measured of it is NaN.
def _pairs(correlations: np.ndarray) -> float:
    return measures.homogeneous_pairs(correlations) if np.isfinite(correlations).any() else np.nan


def _groups(correlations: np.ndarray) -> float:
    return float(measures.clusters(correlations)) if np.isfinite(correlations).any() else np.nan


def _constant(correlations: np.ndarray) -> float:
    return float(np.isnan(np.diagonal(correlations)).sum()) if np.isfinite(correlations).any() else np.nan


def _close(distances: np.ndarray) -> float:
    pairs = distances[np.triu_indices(len(distances), k=1)]
    return float((pairs < CLOSE).mean()) if np.isfinite(pairs).any() else np.nan


def _read(path: Path) -> xr.Dataset:
    if not path.is_file():
        raise FileError(f"{path} is missing; make it with snakemake")
    return store.read(path)


def _provenance(data: dict[str, xr.Dataset]) -> list[str]:
    lines = []
    for name, dataset in data.items():
        chosen = json.loads(dataset.attrs["settings"])
        listed = ", ".join(f"{key} {setting(value)}" for key, value in chosen.items())
        note = dataset.attrs["scale_note"] or dataset.attrs["scale"]
        lines += [
            f"- `{name}` ({note}; {dataset.sizes['seed']} seeds): {listed}",
            f"  - data: {dataset.attrs['data_source']}",
            f"  - device: {dataset.attrs['device']}; code {dataset.attrs['code_version']}",
            f"  - {dataset.attrs['software']}",
        ]
    return [*lines, ""]


def _section(name: str, title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    return [f"## {title}", "", PAPER[name], "", *lines, ""]


def _verdicts(path: Path) -> list[str]:
    """The verdicts on the claims that rest on the trainings."""
    judged = [claim for claim in read_verdicts(path).claims if set(claim.experiments) & set(EXPERIMENTS)]
    lines = [f"- **{claim.verdict}**: {claim.statement} ({claim.place}) {claim.reason}" for claim in judged]
    return ["## What these data say of the paper's claims", "", *lines, ""]


def _cost(config: Config, layout: Layout) -> list[str]:
    """What it took here, and the plan of the scale paper."""
    from reproduction.pipeline.config import load
    from reproduction.pipeline.measured import busy_seconds
    from reproduction.pipeline.points import points_of

    spent = []
    for name in EXPERIMENTS:
        files = [layout.point_benchmark(point.name) for point in points_of(config, name)]
        known = [seconds for seconds in map(busy_seconds, files) if seconds]
        if known:
            spent.append(f"`{name}`: {len(known)} of {len(files)} trainings, {duration(sum(known))} of one core")
    paper = forecast(load(layout.config, {"scale": "paper"}), layout)
    return [
        "## Cost",
        "",
        *([f"Timed here: {'; '.join(spent)}.", ""] if spent else []),
        "The scale `paper`, by `mirrorsym plan --scale paper`:",
        "",
        "```",
        *table(paper),
        "```",
        "",
    ]
