"""The closing lines of a run: what was made, where the figures are, and how long each part took."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mirrorsym.benchmarks import clock_seconds
from mirrorsym.config import Config
from mirrorsym.points import points_of
from mirrorsym.verdicts import counts, read_verdicts


def seconds_by_part(config: Config, results: Path) -> dict[str, tuple[int, float]]:
    """Return for each part of a scale its number of jobs and their wall seconds, from Snakemake's benchmark files."""
    parts: dict[str, list[float]] = defaultdict(list)
    benchmarks = results / "benchmarks"
    for name in config.experiments:
        for point in points_of(config, name):
            parts[f"run {name}"] += _listed(benchmarks / "points" / point.name.with_suffix(".tsv"))
        parts["collect"] += _listed(benchmarks / config.scale / f"collect_{name}.tsv")
    for figure in config.figures:
        parts["figures"] += _listed(benchmarks / config.scale / f"{figure}.tsv")
    parts["claims"] += _listed(benchmarks / config.scale / "claims.tsv")
    return {part: (len(seconds), sum(seconds)) for part, seconds in parts.items() if seconds}


def closing_lines(config: Config, results: Path, figures: Path) -> list[str]:
    """Return what ``make quick`` says at its end."""
    made = [name for name in config.figures if (figures / f"{name}.pdf").is_file()]
    parts = seconds_by_part(config, results)
    lines = [f"{'part':<28} jobs  job seconds"]
    lines += [f"{part:<28} {count:4d}  {seconds:11.1f}" for part, (count, seconds) in parts.items()]
    lines.append(f"{'all':<28} {sum(c for c, _ in parts.values()):4d}  {sum(s for _, s in parts.values()):11.1f}")
    lines.append(f"scale {config.scale}: {len(made)} of {len(config.figures)} figures in {figures}/: {', '.join(made)}")
    lines.append(
        f"result files are in {results / config.scale}/, executed notebooks in {results / config.scale}/notebooks/"
    )
    if (verdicts := results / config.scale / "claims.json").is_file():
        lines.append(f"claims: {counts(read_verdicts(verdicts))}; mirrorsym claims says why")
    report = figures.parent.parent / config.scale
    if (report / "paper.pdf").is_file():
        lines.append(f"the report is {report / 'paper.pdf'}, and {report / 'index.html'} for a browser")
    return lines


def _listed(benchmark: Path) -> list[float]:
    seconds = clock_seconds(benchmark)
    return [] if seconds is None else [seconds]
