"""What jobs took elsewhere: kept in ``config/measured.json``, for the plan of a scale before its first run."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reproduction.contract import Flop
from reproduction.data.sizes import sizes_of
from reproduction.files import FileError, write_atomically
from reproduction.pipeline import measured
from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.steps import Steps, read_steps

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
    ran = [point for point in points if measured.ran_on(point, layout) == "cpu"]
    seconds = measured.seconds_here(ran, layout)
    if not seconds:
        raise FileError(f"no job of the scale {config.scale} has run here on a CPU; run snakemake first")
    said = [measured.attributes_of(layout.point(point.name)) for point in ran]
    rates: dict[str, list[float]] = defaultdict(list)
    for point in ran:
        flop = flop_of(point, layout)
        if flop and not flop.step and measured.group_of(point) in seconds:
            rates[f"{point.module}/{flop.kind}"].append(seconds[measured.group_of(point)] / flop.steps)
    shared = {
        measured.COLLECT: measured.collections(config, layout),
        measured.FIGURES: measured.figures(config, layout),
    }
    means = {name: measured.mean_seconds(list(files.values())) for name, files in shared.items()}
    found = Measured(
        processor="; ".join(sorted({one["device"] for one in said})),
        date=max(one["created"] for one in said)[:10],
        code_version="; ".join(sorted({one["code_version"] for one in said})),
        seconds={name: _rounded(value) for name, value in (seconds | means).items() if value is not None},
        storage={group: round(size) for group, size in measured.storage_here(ran, layout).items()},
        seconds_per_flop={kind: _rounded(statistics.median(values)) for kind, values in rates.items()},
        steps=read_steps(layout, "cpu"),
    )
    write_atomically(layout.measured, found.model_dump_json(indent=1) + "\n")
    return found, layout.measured


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
