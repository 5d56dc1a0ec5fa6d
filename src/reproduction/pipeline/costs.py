"""What a scale takes: jobs, hours, FLOPs and storage by experiment, known before anyone spends it.

The seconds of a job come from the first of these that tells them:

* jobs that have run here with the same settings: their benchmark files;
* jobs that have run elsewhere with the same settings, kept in ``config/measured.json``: on a CPU;
* for a training, the FLOPs of its steps and tests at the speed that ``mirrorsym steps`` measured, here or there;
* for a simulation that counts its FLOPs, the seconds per FLOP of such jobs with other settings, kept there too.

What none of them tells is not measured, and in no sum.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from reproduction.contract import Flop
from reproduction.pipeline import measured
from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.measured import COLLECT, FIGURES, Measured, flop_of, look_up
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.steps import PEAKS, Steps, read_steps

AIM_GPU, AIM_SECONDS = "H100", 3600.0
"""The aim: all trainings of the scale paper in one hour of one of these."""

DEVICES = {"cpu": "core", "cuda": "GPU"}
WHAT_IF_SHARES = (0.16, 0.40)
HERE, KEPT, STEPS, FLOPS = "jobs here", "jobs elsewhere", "steps", "FLOPs"


@dataclass(frozen=True)
class Row:
    """What one experiment takes, or all collections, or all figures.

    Args:
        name: the experiment's id, "collect" or "figures".
        jobs: number of jobs.
        left: those of them whose file is not there.
        device: "cpu" or "cuda": where the jobs run.
        seconds: of all jobs together, None where those of one are not known.
        seconds_left: of those that are left.
        seconds_per_job: of each job in the sweep's order.
        flop: FLOPs of training steps, or of simulations that count theirs.
        test_flop: FLOPs of the tests before, between and after the epochs.
        storage: bytes of the result files, None where not known.
        share: of the device's peak at which training steps run, None where not known or no training.
        source: what the seconds come from, or "not measured".
    """

    name: str
    jobs: int
    left: int
    device: str
    seconds: float | None
    seconds_left: float | None
    seconds_per_job: list[float]
    flop: float
    test_flop: float
    storage: int | None
    share: float | None
    source: str


@dataclass(frozen=True)
class Forecast:
    """The plan of a scale.

    Args:
        scale: its name.
        rows: one an experiment, then collections and figures.
        steps: the speed of training steps by device, as far as it was measured.
        sources: what was measured, where and when, by what the rows call it.
    """

    scale: str
    rows: list[Row]
    steps: dict[str, Steps]
    sources: dict[str, str]

    def total(self, field: str, device: str | None = None) -> float:
        """Return the sum of a field over the rows, or the rows of a device; rows where it is not known count 0."""
        rows = [row for row in self.rows if device in (None, row.device)]
        return sum(getattr(row, field) or 0 for row in rows)

    def unknown(self, field: str) -> list[str]:
        """Return the names of the rows where a field is not known."""
        return [row.name for row in self.rows if getattr(row, field) is None]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for machines; hours, FLOPs and bytes are plain numbers in the units of the fields' names."""
        return {
            "scale": self.scale,
            "sources": self.sources,
            "experiments": [asdict(row) for row in self.rows],
            "total": {
                "jobs": int(self.total("jobs")),
                "left": int(self.total("left")),
                "cpu_seconds": self.total("seconds", "cpu"),
                "gpu_seconds": self.total("seconds", "cuda"),
                "flop": self.total("flop"),
                "test_flop": self.total("test_flop"),
                "storage": int(self.total("storage")),
                "not_measured": self.unknown("seconds"),
            },
        }


def forecast(config: Config, layout: Layout, device: str | None = None) -> Forecast:
    """Return the plan of a scale.

    Args:
        config: the configuration at the scale.
        layout: the project's paths.
        device: "cpu" or "cuda" for trainings; None takes a GPU for those that ask for one.

    Raises:
        ConfigError: if the sweep of an experiment is not valid.
        FileError: if a file of what was measured is damaged.
    """
    kept = measured.read_measured(layout)
    steps, sources = {}, {}
    for name in DEVICES:
        path, found = layout.steps(name), read_steps(layout, name)
        if found is None and kept and kept.steps and kept.steps.device == name:
            path, found = layout.measured, kept.steps
        if found:
            steps[name] = found
            sources[f"{STEPS} ({name})"] = f"{path}: {found.name}, {found.date}, code {found.code_version}"
    if kept:
        sources[KEPT] = f"{layout.measured}: {kept.processor}, {kept.date}, code {kept.code_version}"
    rows = [_row(config, name, layout, device, steps, kept) for name in config.experiments]
    points = None if any(row.storage is None for row in rows) else sum(row.storage or 0 for row in rows)
    # A collected file is about as large as its points.
    rows.append(_shared_row(COLLECT, measured.collections(config, layout), kept, points))
    rows.append(_shared_row(FIGURES, measured.figures(config, layout), kept, None))
    return Forecast(config.scale, [row for row in rows if row.jobs], steps, sources)


def _row(
    config: Config, name: str, layout: Layout, wanted: str | None, steps: Mapping[str, Steps], kept: Measured | None
) -> Row:
    points = points_of(config, name)
    asks = "cuda" if config.experiments[name].resources.gpu else "cpu"
    device = (wanted or asks) if load_experiment(points[0].module).training else "cpu"
    flops = [flop_of(point, layout) for point in points]
    ways = _ways(points, layout, device, steps.get(device), kept)
    told = [_first(ways, point, flop) for point, flop in zip(points, flops, strict=True)]
    known = [seconds for seconds, _ in told if seconds is not None]
    complete = len(known) == len(points)
    left = [not layout.point(point.name).is_file() for point in points]
    shares = [steps[device].share_of_peak(flop) for flop in flops if flop and flop.step and device in steps]
    reached = [share for share in shares if share]
    return Row(
        name=name,
        jobs=len(points),
        left=sum(left),
        device=device,
        seconds=sum(known) if complete else None,
        seconds_left=sum(value for value, todo in zip(known, left, strict=True) if todo) if complete else None,
        seconds_per_job=known if complete else [],
        flop=sum(flop.steps for flop in flops if flop),
        test_flop=sum(flop.tests for flop in flops if flop),
        storage=_storage(points, layout, kept),
        share=statistics.harmonic_mean(reached) if reached else None,
        source=", ".join(dict.fromkeys(source for _, source in told)) if complete else "not measured",
    )


_Way = Callable[[Point, Flop | None], float | None]


def _ways(
    points: list[Point], layout: Layout, device: str, steps: Steps | None, kept: Measured | None
) -> dict[str, _Way]:
    """What may tell the seconds of one of these points on a device, the surest first."""
    here = measured.seconds_here(points, layout, device)
    ways: dict[str, _Way] = {HERE: lambda point, flop: look_up(here, point)}
    if kept and device == "cpu":
        ways[KEPT] = lambda point, flop: look_up(kept.seconds, point)
    if steps:
        ways[STEPS] = lambda point, flop: steps.seconds(flop) if flop and flop.step else None
    if kept and device == "cpu":
        ways[FLOPS] = lambda point, flop: _by_flop(kept, point, flop)
    return ways


def _first(ways: Mapping[str, _Way], point: Point, flop: Flop | None) -> tuple[float | None, str]:
    told = ((way(point, flop), source) for source, way in ways.items())
    return next(((seconds, source) for seconds, source in told if seconds is not None), (None, ""))


def _by_flop(kept: Measured, point: Point, flop: Flop | None) -> float | None:
    rate = kept.seconds_per_flop.get(f"{point.module}/{flop.kind}") if flop else None
    return None if rate is None or flop is None else rate * flop.steps


def _storage(points: list[Point], layout: Layout, kept: Measured | None) -> int | None:
    """The bytes of the points' files: as large as those that are here, else as those that were measured elsewhere."""
    here = measured.storage_here(points, layout)
    found = [look_up(here, point) or (look_up(kept.storage, point) if kept else None) for point in points]
    known = [size for size in found if size is not None]
    return round(sum(known)) if len(known) == len(points) else None


def _shared_row(name: str, files: Mapping[Path, Path], kept: Measured | None, storage: int | None) -> Row:
    """All collections, or all figures: each takes as long as those that have run on average."""
    each, source = measured.mean_seconds(list(files.values())), HERE
    if each is None and kept:
        each, source = kept.seconds.get(name), KEPT
    left = sum(not path.is_file() for path in files)
    sizes = [path.stat().st_size for path in files if path.is_file()]
    return Row(
        name=name,
        jobs=len(files),
        left=left,
        device="cpu",
        seconds=None if each is None else each * len(files),
        seconds_left=None if each is None else each * left,
        seconds_per_job=[] if each is None else [each] * len(files),
        flop=0.0,
        test_flop=0.0,
        storage=round(statistics.fmean(sizes) * len(files)) if sizes else storage,
        share=None,
        source="not measured" if each is None else source,
    )


def aim_share(flop: float) -> float:
    """Return the share of its peak that the aim's GPU needs to do these FLOPs in the aim's time."""
    return flop / (AIM_SECONDS * PEAKS[AIM_GPU])


def table(plan: Forecast) -> list[str]:
    """Return the plan as lines for a terminal."""
    heads = ["", "jobs", "to run", "core-hours", "GPU-hours", "PFLOP", "storage", "share of peak", "from"]
    cells = []
    for row in plan.rows:
        hours = {row.device: "not measured" if row.seconds is None else f"{row.seconds / 3600:.2f}"}
        share = "" if row.share is None else f"{100 * row.share:.1f} %"
        source = "" if row.seconds is None else row.source
        cells.append([*_cells(row.name, row.jobs, row.left, hours, row.flop, row.storage), share, source])
    devices = [device for device in DEVICES if device in {row.device for row in plan.rows}]
    hours = {device: f"{plan.total('seconds', device) / 3600:.2f}" for device in devices}
    jobs, left, storage = (int(plan.total(field)) for field in ("jobs", "left", "storage"))
    cells.append([*_cells("all", jobs, left, hours, plan.total("flop"), storage), "", ""])
    aligned = ("left", *["right"] * 7, "left")
    lines = tabulate(cells, heads, "plain", colalign=aligned, disable_numparse=True).splitlines()
    to_run = [f"{plan.total('seconds_left', device) / 3600:.2f} {DEVICES[device]}-hours" for device in devices]
    lines.append(f"to run: {', '.join(to_run)}")
    for what, field in (("hours", "seconds"), ("storage", "storage")):
        if unknown := plan.unknown(field):
            lines.append(f"not measured, and in no sum of {what}: {', '.join(unknown)}")
    lines += [f"{source}: {text}" for source, text in plan.sources.items()]
    return [line.rstrip() for line in lines + aim_lines(plan)]


def _cells(name: str, jobs: int, left: int, hours: Mapping[str, str], flop: float, storage: int | None) -> list[str]:
    petaflop = f"{flop / 1e15:.4g}" if flop else "-"
    return [name, str(jobs), str(left), hours.get("cpu", "-"), hours.get("cuda", "-"), petaflop, _size(storage)]


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def aim_lines(plan: Forecast) -> list[str]:
    """Return how far the trainings are from the aim, as measured, or the hours at stated shares of the peak."""
    rows = [row for row in plan.rows if row.device == "cuda" and row.flop]
    flop = sum(row.flop for row in rows)
    if not rows:
        return []
    needed = aim_share(flop)
    work = f"{flop / 1e15:.0f} PFLOP of training steps"
    aim = f"aim: {work} in one hour of one {AIM_GPU}, {100 * needed:.0f} % of its peak"
    seconds = [row.seconds for row in rows if row.seconds is not None]
    if len(seconds) == len(rows):
        hours, steps = sum(seconds) / 3600, plan.steps.get("cuda")
        share = (
            f", {100 * flop / (sum(seconds) * steps.peak_flops):.1f} % of its peak"
            if steps and steps.peak_flops
            else ""
        )
        verdict = "the aim is met" if hours <= 1 else f"{hours:.2f} times the aim's hour"
        return [aim, f"measured on {steps.name if steps else 'a GPU'}: {hours:.2f} hours{share}; {verdict}"]
    what_if = [f"{flop / (share * PEAKS[AIM_GPU]) / 3600:.2f} hours at {100 * share:.0f} %" for share in WHAT_IF_SHARES]
    return [
        aim,
        "not every training was measured on a GPU; mirrorsym steps --device cuda does it on one",
        f"what if, not measured: {', '.join(what_if)} of an {AIM_GPU}'s peak",
    ]
