"""What jobs took that have run here, by Snakemake's benchmark files and their results.

Jobs that differ in the seed alone, a *group*, take the same; a group is named as the file of a point, without the seed.
"""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point

COLLECT, FIGURES = "collect", "figures"
"""What the collections and the figures of a scale are called among its experiments."""

SHORT, SAMPLES, LONG = 0.5, 30, 30.0
"""Snakemake looks at a job this many times in steps of SHORT seconds, and in steps of LONG seconds after that."""

LATE = 1.04
"""Each look takes a while, so that the timer runs late: by 0.5 to 4 % for spinning jobs of 20 and 50 s."""


def clock_seconds(path: Path) -> float | None:
    """Return the seconds by the clock, None where the file is missing or holds none."""
    row = _row(path)
    return None if row is None else float(row["s"])


def busy_seconds(path: Path) -> float | None:
    """Return the seconds that a core computed for a job, None where the file is missing or holds none.

    ``cpu_time`` is what was computed when Snakemake last looked, which may be half a minute before the end. What came
    after it is added at the same share of a core. On a machine with a free core for each job the result is the seconds
    by the clock; on a busy one it is what they would be with a free core.
    """
    row = _row(path)
    if row is None:
        return None
    seconds = float(row["s"])
    looked = last_look(seconds / LATE)
    return (
        seconds if looked == 0 or row["cpu_time"] == "NA" else min(seconds, float(row["cpu_time"]) * seconds / looked)
    )


def last_look(seconds: float) -> float:
    """Return when Snakemake last looked at a job that took ``seconds``."""
    early = SHORT * SAMPLES
    return SHORT * (seconds // SHORT) if seconds < early + SHORT else early + LONG * ((seconds - early) // LONG)


def _row(path: Path) -> dict[str, str] | None:
    try:
        with open(path) as file:
            return next(csv.DictReader(file, delimiter="\t"), None)
    except OSError:
        return None


def group_of(point: Point) -> str:
    """Return the name of a point's group."""
    labels = ",".join(f"{name}~{text}" for name, text in point.labels.items() if name != "seed")
    return str(point.name.parent / labels)


def look_up(found: Mapping[str, float], point: Point) -> float | None:
    """Return what is known of a point's group, else the mean of its experiment's groups with the same settings."""
    if (group := group_of(point)) in found:
        return found[group]
    same = [value for name, value in found.items() if name.startswith(f"{point.name.parent}/")]
    return statistics.fmean(same) if same else None


def seconds_here(points: Sequence[Point], layout: Layout, device: str = "cpu") -> dict[str, float]:
    """Return the seconds of a job by its group, the median over the seeds that have run on such a device here."""
    found: dict[str, list[float]] = defaultdict(list)
    for point in points:
        seconds = (busy_seconds if device == "cpu" else clock_seconds)(layout.point_benchmark(point.name))
        if seconds is not None and (not load_experiment(point.module).training or ran_on(point, layout) == device):
            found[group_of(point)].append(seconds)
    return {group: statistics.median(values) for group, values in found.items()}


def storage_here(points: Sequence[Point], layout: Layout) -> dict[str, float]:
    """Return the bytes of a point's file by its group, the median over those that are here."""
    found: dict[str, list[int]] = defaultdict(list)
    for point in points:
        if (path := layout.point(point.name)).is_file():
            found[group_of(point)].append(path.stat().st_size)
    return {group: statistics.median(values) for group, values in found.items()}


def ran_on(point: Point, layout: Layout) -> str | None:
    """Return "cpu" or "cuda" by what a point's file says, None where there is no such file."""
    name = attributes_of(layout.point(point.name)).get("device")
    return name and ("cpu" if name.startswith("CPU") else "cuda")


def mean_seconds(benchmarks: Sequence[Path]) -> float | None:
    """Return the mean of the seconds that a core computed for those jobs that have run, None where none has."""
    known = [seconds for seconds in map(busy_seconds, benchmarks) if seconds is not None]
    return statistics.fmean(known) if known else None


def collections(config: Config, layout: Layout) -> dict[Path, Path]:
    """Return the output of each collection of a scale, and its benchmark file."""
    return {
        layout.result(config.scale, name): layout.benchmark(config.scale, f"collect_{name}")
        for name in config.experiments
    }


def figures(config: Config, layout: Layout) -> dict[Path, Path]:
    """Return the PDF of each figure of a scale, and its benchmark file."""
    return {layout.figure(config.scale, name, "pdf"): layout.benchmark(config.scale, name) for name in config.figures}


def attributes_of(path: Path) -> dict[str, str]:
    """Return what a point's file says of how it was made; empty where it cannot be read."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            return {name: str(file.getncattr(name)) for name in ("device", "created", "code_version")}
    except (OSError, AttributeError):
        return {}
