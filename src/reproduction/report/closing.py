"""The closing lines of a run: what was made, where the figures are, and how long each part took."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from reproduction.analysis.verdict_file import counts, read_verdicts
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.measured import clock_seconds
from reproduction.pipeline.points import points_of


def seconds_by_part(config: Config, layout: Layout) -> dict[str, tuple[int, float]]:
    """Return for each part of a scale its number of jobs and their wall seconds, from their benchmark files."""
    parts: dict[str, list[float]] = defaultdict(list)
    for name in config.experiments:
        for point in points_of(config, name):
            parts[f"run {name}"] += _listed(layout.point_benchmark(point.name))
        parts["collect"] += _listed(layout.benchmark(config.scale, f"collect_{name}"))
    for figure in config.figures:
        parts["figures"] += _listed(layout.benchmark(config.scale, figure))
    parts["claims"] += _listed(layout.benchmark(config.scale, "claims"))
    return {part: (len(seconds), sum(seconds)) for part, seconds in parts.items() if seconds}


def closing_lines(config: Config, layout: Layout) -> list[str]:
    """Return what ``make quick`` says at its end."""
    made = [name for name in config.figures if layout.figure(config.scale, name, "pdf").is_file()]
    parts = seconds_by_part(config, layout)
    counted, spent = (sum(column) for column in zip(*parts.values(), strict=True)) if parts else (0, 0.0)
    cells = [[part, *numbers] for part, numbers in {**parts, "all": (counted, spent)}.items()]
    lines = tabulate(cells, ["part", "jobs", "job seconds"], "plain", floatfmt=".1f").splitlines()
    figures, results = layout.figures(config.scale), layout.scale(config.scale)
    lines.append(f"scale {config.scale}: {len(made)} of {len(config.figures)} figures in {figures}/: {', '.join(made)}")
    lines.append(f"result files are in {results}/, executed notebooks in {results}/notebooks/")
    if (verdicts := layout.claims(config.scale)).is_file():
        lines.append(f"claims: {counts(read_verdicts(verdicts))}; mirrorsym claims says why")
    if (pdf := layout.pdf(config.scale)).is_file():
        lines.append(f"the report is {pdf}, and {layout.page(config.scale)} for a browser")
    return lines


def _listed(benchmark: Path) -> list[float]:
    seconds = clock_seconds(benchmark)
    return [] if seconds is None else [seconds]
