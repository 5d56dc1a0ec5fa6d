"""What jobs took: here, by their benchmark files, and elsewhere, by ``config/measured.json``.

Jobs that differ in the seed alone, a *group*, take the same; a group is named as the file of a point, without the seed.
"""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reproduction.contract import Flop
from reproduction.files import FileError, write_atomically
from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Speed(_Kept):
    """The speed of training steps of one size, and of tests of the same network."""

    step_flop: _Positive = Field(description="FLOPs of a step.")
    seconds_per_flop: _Positive = Field(description="Time of a step for each of its FLOPs.")
    test_seconds_per_flop: _Positive = Field(description="Time of a test for each of its FLOPs.")


class Steps(_Kept):
    """The speed of training steps on one device, as ``python -m benchmarks.training`` measures it."""

    device: str = Field(description="cpu or cuda.")
    name: str = Field(description="The processor's or the GPU's model.")
    date: str
    code_version: str
    peak_flops: float | None = Field(None, gt=0, description="FLOP/s that the device can reach at most.")
    start: float = Field(ge=0, description="Seconds that a process computes until it has trained for the first time.")
    speeds: dict[str, list[Speed]] = Field(description="By the kind of network, the smallest size first.")

    def seconds(self, flop: Flop) -> float | None:
        """Return the seconds of a training, None where its kind was not measured.

        Times for each FLOP are taken between the measured sizes, on a logarithmic scale; beyond them, the nearest's.
        """
        if flop.kind not in self.speeds:
            return None
        sizes = np.log([speed.step_flop for speed in self.speeds[flop.kind]])
        times = np.log([(speed.seconds_per_flop, speed.test_seconds_per_flop) for speed in self.speeds[flop.kind]])
        step, test = (np.exp(np.interp(np.log(flop.step), sizes, column)) for column in times.T)
        return float(self.start + flop.steps * step + flop.tests * test)


class Measured(_Kept):
    """What jobs took on a processor, kept for the plan of a scale before its first run."""

    processor: str = ""
    date: str = Field("", description="The day on which the last of them ended.")
    code_version: str = ""
    seconds: dict[str, _Seconds] = Field({}, description="Of a job, by its group.")
    rules: dict[str, _Seconds] = Field({}, description="Of collecting, a figure, the claims and the report, by rule.")
    storage: dict[str, int] = Field({}, description="Bytes of a point's file, by its group.")
    steps: Steps | None = Field(None, description="The speed of training steps there.")


_Model = TypeVar("_Model", Steps, Measured)


def read_measured(layout: Layout) -> Measured:
    """Return what is kept in ``config/measured.json``; nothing where there is no such file.

    Raises:
        FileError: if the file is damaged.
    """
    return _read(Measured, layout.measured, "mirrorsym measured") or Measured()


def read_steps(layout: Layout, device: str) -> Steps | None:
    """Return the speed of training steps on a device of this project, None where it was not measured.

    Raises:
        FileError: if the file is damaged.
    """
    return _read(Steps, layout.steps(device), f"python -m benchmarks.training --device {device}")


def _read(model: type[_Model], path: Path, command: str) -> _Model | None:
    try:
        return model.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        raise FileError(f"{path} is damaged; {command} writes it anew") from None


def write_measured(config: Config, layout: Layout) -> Measured:
    """Keep what the jobs of a scale took that have run here on a CPU, and return it.

    Raises:
        FileError: if none has run, or the file cannot be written.
    """
    points = [point for name in config.experiments for point in points_of(config, name)]
    said = [attributes for point in points if (attributes := _said(point, layout)).get("device", "").startswith("CPU")]
    seconds = seconds_here(points, layout, "cpu")
    if not said or not seconds:
        raise FileError(f"no job of the scale {config.scale} has run here on a CPU; run snakemake first")
    found = Measured(
        processor="; ".join(sorted({one["device"] for one in said})),
        date=max(one["created"] for one in said)[:10],
        code_version="; ".join(sorted({one["code_version"] for one in said})),
        seconds=_rounded(seconds),
        rules=_rounded(rules_here(config, layout)),
        storage={group: round(size) for group, size in storage_here(points, layout).items()},
        steps=read_steps(layout, "cpu"),
    )
    write_atomically(layout.measured, found.model_dump_json(indent=1) + "\n")
    return found


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in seconds.items()}


def clock_seconds(benchmark: Path) -> float | None:
    """Return the seconds by the clock that a job took, None where the file is missing or holds none."""
    try:
        with open(benchmark, encoding="utf-8") as file:
            row = next(csv.DictReader(file, delimiter="\t"), None)
    except OSError:
        return None
    return None if row is None else float(row["s"])


def rules_here(config: Config, layout: Layout) -> dict[str, float]:
    """Return the seconds of the jobs that are no points, by their rule, as far as they have run here at the scale."""
    rules = [*(f"collect_{name}" for name in config.experiments), *config.figures, "claims", "paper"]
    told = {rule: clock_seconds(layout.benchmark(config.scale, rule)) for rule in rules}
    return {rule: seconds for rule, seconds in told.items() if seconds is not None}


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


def seconds_here(points: Iterable[Point], layout: Layout, device: str) -> dict[str, float]:
    """Return the seconds of a job by its group, the median over the seeds that have run on such a device here."""
    found: dict[str, list[float]] = defaultdict(list)
    for point in points:
        seconds = clock_seconds(layout.point_benchmark(point.name))
        if seconds is None:
            continue
        name = _said(point, layout).get("device", "") if load_experiment(point.module).training else "CPU"
        if name and name.startswith("CPU") == (device == "cpu"):
            found[group_of(point)].append(seconds)
    return {group: statistics.median(values) for group, values in found.items()}


def storage_here(points: Iterable[Point], layout: Layout) -> dict[str, float]:
    """Return the bytes of a point's file by its group, the median over those that are here."""
    found: dict[str, list[int]] = defaultdict(list)
    for point in points:
        if (path := layout.point(point.name)).is_file():
            found[group_of(point)].append(path.stat().st_size)
    return {group: statistics.median(values) for group, values in found.items()}


def _said(point: Point, layout: Layout) -> dict[str, str]:
    """What a point's file says of how it was made; nothing where it cannot be read."""
    import netCDF4

    try:
        with netCDF4.Dataset(layout.point(point.name)) as file:
            return {name: str(file.getncattr(name)) for name in ("device", "created", "code_version")}
    except (OSError, AttributeError):
        return {}
