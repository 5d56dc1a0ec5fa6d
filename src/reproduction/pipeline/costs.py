"""What a scale takes: jobs, hours, FLOPs and storage by experiment, known before anyone spends it.

The seconds of a job come from the first of these that tells them:

* jobs that have run here with the same settings: their benchmark files;
* jobs that have run elsewhere with the same settings, kept in ``config/measured.json``: on a CPU;
* for a training, the FLOPs of its steps and tests at the speed that ``benchmarks/training.py`` measured.

What none of them tells is not measured, and in no sum. Collecting, figures, claims and the report, minutes at any
scale, are in the time by the clock alone (``clock.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from reproduction.formatting import duration
from reproduction.pipeline import measured
from reproduction.pipeline.clock import Wall, goal_of, wall
from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.measured import Measured, Steps, look_up, rules_here
from reproduction.pipeline.points import points_of

AIM_GPU, AIM_PEAK, AIM_SECONDS = "H100", 989e12, 3600.0
"""The aim: all trainings of the scale paper in one hour of one of these; dense bfloat16 FLOP/s of its data sheet."""

DEVICES = {"cpu": "core", "cuda": "GPU"}
WHAT_IF_SHARES = (0.16, 0.40)
HERE, KEPT, STEPS, NOTHING = "jobs here", "jobs elsewhere", "steps", "not measured"


@dataclass(frozen=True)
class Row:
    """What one experiment takes.

    Args:
        name: the experiment's id.
        jobs: number of jobs.
        left: those of them whose file is not there.
        device: "cpu" or "cuda": where the jobs run.
        seconds: of all jobs together, None where those of one are not known.
        seconds_left: of those that are left.
        seconds_per_job: of each job in the sweep's order.
        flop: FLOPs of training steps.
        storage: bytes of the points and of the collected file, at most as large; None where not known.
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
    storage: int | None
    source: str


@dataclass(frozen=True)
class Forecast:
    """The plan of a scale.

    Args:
        scale: its name.
        rows: one an experiment.
        steps: the speed of training steps by device, as far as it was measured.
        sources: what was measured, where and when, by what the rows call it.
        wall: what a run on this machine takes by the clock.
    """

    scale: str
    rows: list[Row]
    steps: dict[str, Steps]
    sources: dict[str, str]
    wall: Wall

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
            "wall": asdict(self.wall),
            "total": {
                "jobs": self.total("jobs"),
                "left": self.total("left"),
                "cpu_seconds": self.total("seconds", "cpu"),
                "gpu_seconds": self.total("seconds", "cuda"),
                "flop": self.total("flop"),
                "storage": self.total("storage"),
                "not_measured": self.unknown("seconds"),
            },
        }


def forecast(
    config: Config, layout: Layout, device: str | None = None, targets: Sequence[str] = (), cores: int = 1
) -> Forecast:
    """Return the plan of a scale, or of what targets need.

    Args:
        config: the configuration at the scale.
        layout: the project's paths.
        device: "cpu" or "cuda" for trainings; None takes a GPU for those that ask for one.
        targets: figures or rules, as Snakemake takes them; none for all.
        cores: of this machine, for the time by the clock.

    Raises:
        ConfigError: if the sweep of an experiment is not valid, or there is no such target.
        FileError: if a file of what was measured is damaged.
    """
    kept, steps, sources = measured.read_measured(layout), {}, {}
    for name in DEVICES:
        path, found = layout.steps(name), measured.read_steps(layout, name)
        if found is None and kept.steps and kept.steps.device == name:
            path, found = layout.measured, kept.steps
        if found:
            steps[name] = found
            sources[f"{STEPS} ({name})"] = f"{path}: {found.name}, {found.date}, code {found.code_version}"
    if kept.processor:
        sources[KEPT] = f"{layout.measured}: {kept.processor}, {kept.date}, code {kept.code_version}"
    goal = goal_of(config, layout, targets)
    rows = [_row(config, name, layout, device, steps, kept) for name in goal.experiments]
    seconds = {row.name: row.seconds_per_job for row in rows}
    rules = kept.rules | rules_here(config, layout)
    return Forecast(config.scale, rows, steps, sources, wall(config, layout, goal, seconds, rules, cores))


def _row(
    config: Config, name: str, layout: Layout, wanted: str | None, steps: Mapping[str, Steps], kept: Measured
) -> Row:
    points = points_of(config, name)
    experiment = load_experiment(points[0].module)
    asks = "cuda" if config.experiments[name].resources.gpu else "cpu"
    device = (wanted or asks) if experiment.training else "cpu"
    flops = [experiment.flop(point.settings, point.grid) if experiment.flop else None for point in points]
    speed = steps.get(device)
    ways = {HERE: measured.seconds_here(points, layout, device), KEPT: kept.seconds if device == "cpu" else {}}
    told: list[tuple[float | None, str]] = []
    for point, flop in zip(points, flops, strict=True):
        known = [(look_up(found, point), source) for source, found in ways.items()]
        known.append((speed.seconds(flop) if speed and flop else None, STEPS))
        told.append(next((one for one in known if one[0] is not None), (None, NOTHING)))
    here = measured.storage_here(points, layout)
    sizes = [look_up(here, point) or look_up(kept.storage, point) for point in points]
    seconds = [one for one, _ in told if one is not None]
    left = [not layout.point(point.name).is_file() for point in points]
    complete = len(seconds) == len(points)
    return Row(
        name=name,
        jobs=len(points),
        left=sum(left),
        device=device,
        seconds=sum(seconds) if complete else None,
        seconds_left=sum(one for one, todo in zip(seconds, left, strict=True) if todo) if complete else None,
        seconds_per_job=seconds if complete else [],
        flop=sum(flop.steps for flop in flops if flop),
        storage=None if None in sizes else 2 * round(sum(size or 0 for size in sizes)),
        source=", ".join(dict.fromkeys(source for _, source in told)) if complete else NOTHING,
    )


def aim_share(flop: float) -> float:
    """Return the share of its peak that the aim's GPU needs to do these FLOPs in the aim's time."""
    return flop / (AIM_SECONDS * AIM_PEAK)


def table(plan: Forecast) -> list[str]:
    """Return the plan as lines for a terminal."""
    cells = []
    for row in plan.rows:
        hours = {row.device: NOTHING if row.seconds is None else f"{row.seconds / 3600:.2f}"}
        source = "" if row.seconds is None else row.source
        cells.append([*_cells(row.name, row.jobs, row.left, hours, row.flop, row.storage), source])
    devices = [device for device in DEVICES if device in {row.device for row in plan.rows}]
    hours = {device: f"{plan.total('seconds', device) / 3600:.2f}" for device in devices}
    jobs, left, flop, storage = map(plan.total, ("jobs", "left", "flop", "storage"))
    cells.append([*_cells("all", jobs, left, hours, flop, storage), ""])
    heads = ["", "jobs", "to run", "core-hours", "GPU-hours", "PFLOP", "storage", "from"]
    aligned = ("left", *["right"] * 6, "left")
    lines = tabulate(cells, heads, "plain", colalign=aligned, disable_numparse=True).splitlines()
    to_run = [f"{plan.total('seconds_left', device) / 3600:.2f} {DEVICES[device]}-hours" for device in devices]
    lines.append(f"to run: {', '.join(to_run)}")
    lines.append(wall_line(plan.wall))
    for what, field in (("hours", "seconds"), ("storage", "storage")):
        if unknown := plan.unknown(field):
            lines.append(f"not measured, and in no sum of {what}: {', '.join(unknown)}")
    lines += [f"{source}: {text}" for source, text in plan.sources.items()]
    return [line.rstrip() for line in lines + aim_lines(plan)]


def _cells(
    name: str, jobs: float, left: float, hours: Mapping[str, str], flop: float, storage: float | None
) -> list[str]:
    petaflop = f"{flop / 1e15:.4g}" if flop else "-"
    size = "?" if storage is None else f"{storage / 1e6:.1f} MB"
    return [name, str(jobs), str(left), hours.get("cpu", "-"), hours.get("cuda", "-"), petaflop, size]


def wall_line(wall: Wall) -> str:
    """Return what a run takes by the clock, in a sentence."""
    cores = f"{wall.cores} core{'s' if wall.cores > 1 else ''}"
    if not wall.jobs:
        return f"on {cores}: nothing to run"
    least = f"more than {duration(wall.seconds)}" if wall.unknown else duration(wall.seconds)
    without = f"; not measured, and not in it: {len(wall.unknown)} of them" if wall.unknown else ""
    return f"on {cores}: {least} by the clock, {wall.jobs} jobs with collecting and figures{without}"


def aim_lines(plan: Forecast) -> list[str]:
    """Return how far the trainings are from the aim, as measured, or the hours at stated shares of the peak."""
    rows = [row for row in plan.rows if row.device == "cuda" and row.flop]
    if not rows:
        return []
    flop, hours = sum(row.flop for row in rows), sum(row.seconds or 0 for row in rows) / 3600
    work = f"{flop / 1e15:.0f} PFLOP of training steps"
    aim = f"aim: {work} in one hour of one {AIM_GPU}, {100 * aim_share(flop):.0f} % of its peak"
    if any(row.seconds is None for row in rows):
        what_if = [f"{flop / (share * AIM_PEAK) / 3600:.2f} hours at {100 * share:.0f} %" for share in WHAT_IF_SHARES]
        return [
            aim,
            "not every training was measured on a GPU; python -m benchmarks.training --device cuda does it on one",
            f"what if, not measured: {', '.join(what_if)} of an {AIM_GPU}'s peak",
        ]
    steps = plan.steps.get("cuda")
    share = f", {flop / (36 * hours * steps.peak_flops):.1f} % of its peak" if steps and steps.peak_flops else ""
    verdict = "the aim is met" if hours <= 1 else f"{hours:.2f} times the aim's hour"
    return [aim, f"measured on {steps.name if steps else 'a GPU'}: {hours:.2f} hours{share}; {verdict}"]
