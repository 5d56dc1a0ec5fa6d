"""What jobs took: what Snakemake's benchmark files say of those that have run here, and what was kept of others.

Jobs that differ in the seed alone, a *group*, take the same; a group is named as the file of a point, without the seed.
"""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reproduction.contract import Flop
from reproduction.data.sizes import sizes_of
from reproduction.files import FileError, write_atomically
from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.steps import Steps, read_steps

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


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Measured(BaseModel):
    """What is kept of jobs that have run, for the plan of a scale before its first run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processor: str = Field(description="The processor that they ran on.")
    date: str = Field(description="The day on which the last of them ended.")
    code_version: str
    seconds: dict[str, Seconds] = Field(description="Of a job, by its group; of a collection, and of a figure.")
    storage: dict[str, int] = Field(description="Bytes of a point's file, by its group.")
    seconds_per_flop: dict[str, Seconds] = Field({}, description="Of simulations, by module and kind.")
    steps: Steps | None = Field(None, description="The speed of training steps there.")


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
    name = _attributes(layout.point(point.name)).get("device")
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


def flop_of(point: Point, layout: Layout) -> Flop | None:
    """Return the FLOPs of a point, None where its module does not count them."""
    experiment = load_experiment(point.module)
    if experiment.flop is None:
        return None
    return experiment.flop(point.settings, point.grid, lambda dataset: sizes_of(dataset, layout.cifar10))


def read_measured(layout: Layout) -> Measured | None:
    """Return what came with the project, or None.

    Raises:
        FileError: if the file is damaged.
    """
    try:
        return Measured.model_validate_json(layout.measured.read_bytes()) if layout.measured.is_file() else None
    except ValidationError:
        raise FileError(f"{layout.measured} is damaged; mirrorsym measured writes it anew") from None


def write_measured(config: Config, layout: Layout) -> tuple[Measured, Path]:
    """Keep what the jobs of a scale took that have run here on a CPU, and return it and its file.

    Raises:
        FileError: if none has run, or the file cannot be written.
    """
    points = [point for name in config.experiments for point in points_of(config, name)]
    ran = [point for point in points if ran_on(point, layout) == "cpu"]
    seconds = seconds_here(ran, layout)
    if not seconds:
        raise FileError(f"no job of the scale {config.scale} has run here on a CPU; run snakemake first")
    said = [_attributes(layout.point(point.name)) for point in ran]
    rates: dict[str, list[float]] = defaultdict(list)
    for point in ran:
        flop = flop_of(point, layout)
        if flop and not flop.step and group_of(point) in seconds:
            rates[f"{point.module}/{flop.kind}"].append(seconds[group_of(point)] / flop.steps)
    shared = {COLLECT: collections(config, layout), FIGURES: figures(config, layout)}
    means = {name: mean_seconds(list(files.values())) for name, files in shared.items()}
    found = Measured(
        processor="; ".join(sorted({one["device"] for one in said})),
        date=max(one["created"] for one in said)[:10],
        code_version="; ".join(sorted({one["code_version"] for one in said})),
        seconds={name: _rounded(value) for name, value in (seconds | means).items() if value is not None},
        storage={group: round(size) for group, size in storage_here(ran, layout).items()},
        seconds_per_flop={kind: _rounded(statistics.median(values)) for kind, values in rates.items()},
        steps=read_steps(layout, "cpu"),
    )
    write_atomically(layout.measured, found.model_dump_json(indent=1) + "\n")
    return found, layout.measured


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _attributes(path: Path) -> dict[str, str]:
    """What a point's file says of how it was made; empty where it cannot be read."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            return {name: str(file.getncattr(name)) for name in ("device", "created", "code_version")}
    except (OSError, AttributeError):
        return {}
