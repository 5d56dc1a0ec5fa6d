"""A scale before anyone spends time on it: jobs, hours, FLOPs and storage by experiment, from measured rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reproduction.pipeline.benchmarks import busy_seconds
from reproduction.pipeline.config import Config
from reproduction.pipeline.costs import Work, pictures_of, result_bytes, work_of
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.rates import PEAKS, Rates, read_rates

AIM_GPU, AIM_SECONDS = "H100", 3600.0
"""The aim: all trainings of the scale paper in one hour of one of these."""

DEVICES = {"cpu": "core", "cuda": "GPU"}
WHAT_IF_SHARES = (0.16, 0.40)
COLLECT, FIGURES = "collect", "figures"


@dataclass(frozen=True)
class Row:
    """What one experiment takes, or all collections, or all figures.

    Args:
        name: the experiment's id, "collect" or "figures".
        jobs: number of jobs.
        left: those of them whose file is not there.
        device: "cpu" or "cuda": where the jobs run.
        seconds: of all jobs together, None where no rate was measured.
        seconds_left: of those that are left.
        seconds_per_job: of each job in the sweep's order where they differ, or of all where they do not.
        flop: FLOPs of training steps; 0 for simulations.
        test_flop: FLOPs of the tests before, between and after the epochs.
        storage: bytes of the result files, None where not known.
        share: of the device's peak at which training steps run, None where not known or no training.
        source: "rates" or "benchmarks" (of jobs already run), or "not measured".
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
        rates: by device, as far as there are any.
        sources: the files of these rates, and the processors that they were measured on.
    """

    scale: str
    rows: list[Row]
    rates: dict[str, Rates]
    sources: dict[str, str]

    def total(self, field: str, device: str | None = None) -> float:
        """Return the sum of a field over the rows, or the rows of a device; rows where it is not known count 0."""
        rows = [row for row in self.rows if device in (None, row.device)]
        return sum(getattr(row, field) or 0 for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for machines; hours, FLOPs and bytes are plain numbers in the units of the fields' names."""
        return {
            "scale": self.scale,
            "rates": self.sources,
            "experiments": [asdict(row) for row in self.rows],
            "total": {
                "jobs": int(self.total("jobs")),
                "left": int(self.total("left")),
                "cpu_seconds": self.total("seconds", "cpu"),
                "gpu_seconds": self.total("seconds", "cuda"),
                "flop": self.total("flop"),
                "test_flop": self.total("test_flop"),
                "storage": int(self.total("storage")),
                "not_measured": [row.name for row in self.rows if row.seconds is None],
            },
        }


def forecast(config: Config, directory: Path, device: str | None = None) -> Forecast:
    """Return the plan of a scale.

    Args:
        config: the configuration at the scale.
        directory: the project's folder: rates, results, pictures.
        device: "cpu" or "cuda" for trainings; None takes a GPU for those that ask for one.

    Raises:
        ConfigError: if the sweep of an experiment is not valid.
        FileError: if a file of rates is damaged.
    """
    found = {name: read_rates(directory, name) for name in ("cpu", "cuda")}
    rates = {name: pair[0] for name, pair in found.items() if pair}
    sources = {name: f"{pair[1]}: {pair[0].name}, {pair[0].date}" for name, pair in found.items() if pair}
    rows = [_row(config, name, directory, device, rates) for name in config.experiments]
    results = directory / "results" / config.scale
    figures = directory / "paper" / "figures" / config.scale
    cpu = rates.get("cpu")
    collections = {f"collect_{name}": results / f"{name}.nc" for name in config.experiments}
    drawn = {name: figures / f"{name}.pdf" for name in config.figures}
    points = sum(row.storage or 0 for row in rows)  # a collected file is about as large as its points
    collect = _shared_row(COLLECT, collections, config, directory, cpu.starts.get("collect") if cpu else None)
    rows.append(collect if collect.storage is not None else replace(collect, storage=points))
    rows.append(_shared_row(FIGURES, drawn, config, directory, cpu.starts.get("notebook") if cpu else None))
    return Forecast(config.scale, [row for row in rows if row.jobs], rates, sources)


def _row(config: Config, name: str, directory: Path, wanted: str | None, rates: dict[str, Rates]) -> Row:
    results = directory / "results"
    points = points_of(config, name)
    works = [_work(point, directory / "data") for point in points]
    training = bool(works[0] and works[0].arm)
    asks = "cuda" if config.experiments[name].resources.gpu else "cpu"
    device = (wanted or asks) if training else "cpu"
    seconds = [rates[device].seconds(work) if work and device in rates else None for work in works]
    source = "rates"
    if None in seconds and device == "cpu":
        seconds, source = _from_benchmarks(points, seconds, results), "benchmarks"
    known = [value for value in seconds if value is not None]
    measured = len(known) == len(points)
    left = [not (results / "points" / point.name).is_file() for point in points]
    shares = [rates[device].share_of_peak(work) for work in works if work and work.arm and device in rates]
    reached = [share for share in shares if share]
    return Row(
        name=name,
        jobs=len(points),
        left=sum(left),
        device=device,
        seconds=sum(known) if measured else None,
        seconds_left=sum(value for value, todo in zip(known, left, strict=True) if todo) if measured else None,
        seconds_per_job=known if measured else [],
        flop=sum(work.amounts["training"] for work in works if work and work.arm),
        test_flop=sum(work.amounts["evaluation"] for work in works if work and work.arm),
        storage=_storage(points, results),
        share=len(reached) / sum(1 / share for share in reached) if reached else None,
        source=source if measured else "not measured",
    )


def _work(point: Point, data: Path) -> Work | None:
    dataset = getattr(point.settings, "dataset", None)
    return work_of(point, pictures_of(str(dataset), data) if dataset else None)


def _from_benchmarks(points: Sequence[Point], seconds: list[float | None], results: Path) -> list[float | None]:
    """Fill what no rate tells with the mean of the experiment's jobs with these settings that have run."""
    benchmarks = results / "benchmarks" / "points"
    folder = benchmarks / points[0].name.parent
    found = [busy_seconds(path) for path in sorted(folder.glob("*.tsv"))]
    known = [value for value in found if value is not None]
    mean = sum(known) / len(known) if known else None
    return [mean if value is None else value for value in seconds]


def _shared_row(name: str, files: dict[str, Path], config: Config, directory: Path, each: float | None) -> Row:
    """All collections, or all figures: the rate is one of each kind, else the mean of those that have run."""
    source = "rates"
    if each is None:
        folder = directory / "results" / "benchmarks" / config.scale
        found = [busy_seconds(folder / f"{job}.tsv") for job in files]
        known = [value for value in found if value is not None]
        each, source = (sum(known) / len(known), "benchmarks") if known else (None, "not measured")
    left = sum(not path.is_file() for path in files.values())
    sizes = [path.stat().st_size for path in files.values() if path.is_file()]
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
        storage=round(sum(sizes) / len(sizes) * len(files)) if sizes else None,
        share=None,
        source=source,
    )


def _storage(points: Sequence[Point], results: Path) -> int | None:
    """The bytes of the points' files: as large as those that are there on average, else by their variables."""
    sizes = [path.stat().st_size for path in (results / "points" / points[0].name.parent).glob("*.nc")]
    if sizes:
        return round(sum(sizes) / len(sizes) * len(points))
    counted = [result_bytes(point) for point in points]
    return None if None in counted else sum(size for size in counted if size is not None)


def aim_share(flop: float) -> float:
    """Return the share of its peak that the aim's GPU needs to do these FLOPs in the aim's time."""
    return flop / (AIM_SECONDS * PEAKS[AIM_GPU])


def table(plan: Forecast) -> list[str]:
    """Return the plan as lines for a terminal."""
    lines = [f"{'':<28} jobs  to run  core-hours     GPU-hours      PFLOP   storage  share of peak"]
    for row in plan.rows:
        share = "" if row.share is None else f"{100 * row.share:.1f} %"
        hours = {row.device: "not measured" if row.seconds is None else f"{row.seconds / 3600:.2f}"}
        lines.append(_line(row.name, row.jobs, row.left, hours, row.flop, row.storage) + f"  {share:>13}")
    devices = {row.device for row in plan.rows}
    hours = {device: f"{plan.total('seconds', device) / 3600:.2f}" for device in devices}
    jobs, left, storage = (int(plan.total(field)) for field in ("jobs", "left", "storage"))
    lines.append(_line("all", jobs, left, hours, plan.total("flop"), storage))
    to_run = [f"{plan.total('seconds_left', d) / 3600:.2f} {n}-hours" for d, n in DEVICES.items() if d in devices]
    unknown = [row.name for row in plan.rows if row.seconds is None]
    lines.append(f"to run: {', '.join(to_run)}")
    if unknown:
        lines.append(f"not measured, and in no sum of hours: {', '.join(unknown)}")
    lines += [f"rates ({device}): {text}" for device, text in plan.sources.items()]
    return [line.rstrip() for line in lines + aim_lines(plan)]


def _line(name: str, jobs: int, left: int, hours: dict[str, str], flop: float, storage: int | None) -> str:
    petaflop = f"{flop / 1e15:.4g}" if flop else "-"
    columns = f"{hours.get('cpu', '-'):>10}  {hours.get('cuda', '-'):>12}  {petaflop:>9}  {_size(storage):>8}"
    return f"{name:<28} {jobs:4d}  {left:6d}  {columns}"


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def aim_lines(plan: Forecast) -> list[str]:
    """Return how far the trainings are from the aim, by a measured rate, or the hours at stated shares of the peak."""
    rows = [row for row in plan.rows if row.device == "cuda" and row.flop]
    flop = sum(row.flop for row in rows)
    if not rows:
        return []
    needed = aim_share(flop)
    work = f"{flop / 1e15:.0f} PFLOP of training steps"
    aim = f"aim: {work} in one hour of one {AIM_GPU}, {100 * needed:.0f} % of its peak"
    seconds = [row.seconds for row in rows]
    if "cuda" in plan.rates and None not in seconds:
        hours = sum(value for value in seconds if value is not None) / 3600
        rates = plan.rates["cuda"]
        share = "" if not rates.peak_flops else f", {100 * flop / (hours * 3600 * rates.peak_flops):.1f} % of its peak"
        verdict = "the aim is met" if hours <= 1 else f"{hours:.2f} times the aim's hour"
        return [aim, f"measured on {rates.name}: {hours:.2f} hours{share}; {verdict}"]
    what_if = [f"{flop / (share * PEAKS[AIM_GPU]) / 3600:.2f} hours at {100 * share:.0f} %" for share in WHAT_IF_SHARES]
    return [
        aim,
        "no GPU was ever measured here; mirrorsym calibrate --device cuda does it on one",
        f"what if, not measured: {', '.join(what_if)} of an {AIM_GPU}'s peak",
    ]
