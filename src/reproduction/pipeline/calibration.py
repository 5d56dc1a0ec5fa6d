"""Measure the rates of this machine: the workflow's own points, shortened, and training steps of several sizes.

Points run as the workflow's jobs run them: in processes of one thread, as many at a time as there are cores. All points
of a module share a process, since a start-up takes longer than they do: what the first of them takes besides its work
is the start-up, the others tell the rates. On a CPU the time is what the core computed, the operating system's count
for the process and its children. On a busy machine the seconds by the clock measure the others; the computed ones are
the same, and with a core for each job both agree.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reproduction.contract import Value
from reproduction.errors import ConfigError, UserError
from reproduction.pipeline import costs, provenance
from reproduction.pipeline.config import Config, load
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Plan, Point, points_of
from reproduction.pipeline.process import run_measured
from reproduction.pipeline.rates import Arm, Rates, Speed, fit, published_peak, rates_file, write_rates

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Snakemake sets these to a job's threads, one."""

CPU_SIZES = ((8, 128, 1, 5), (64, 4, 1, 3))
"""Width, batch size and two numbers of training steps on pictures of 32 by 32, beside those of the digits."""

GPU_SIZES = ((64, 128, 20, 120),)
"""The paper's network and batch."""

EPOCHS = (1, 7)
FIGURE = "fig5"
"""The figure whose notebook stands for all: it draws results, those of a fast experiment."""

REPEATS = 2
"""Each number of training steps is timed so often; the least counts, since what disturbs a step only adds to it."""


@dataclass(frozen=True)
class Timed:
    """A job: its command below ``mirrorsym job``, and what it is of."""

    name: str
    arguments: list[str]


@dataclass(frozen=True)
class Session:
    """Short points of a module that one process runs.

    Args:
        start: what runs first and starts the process up, all its kernels among it.
        measured: what then tells the rates of the terms; the first is a short one again, for what each job takes.
    """

    start: list[Point]
    measured: list[Point]

    @property
    def module(self) -> str:
        """The module of the points."""
        return self.start[0].module

    def amounts(self) -> list[dict[str, float]]:
        """Return the amounts of work of the start, then of each measured point; "start" and "job" count as terms."""
        works = [_amounts(point) for point in self.start]
        first = {term: sum(work[term] for work in works) for term in works[0]}
        return [{**first, "start": 1.0}, *map(_amounts, self.measured)]


def _amounts(point: Point) -> dict[str, float]:
    work = costs.work_of(point)
    terms = {} if work is None else {"flop": work.flop} if work.arm else work.amounts
    return {"start": 0.0, "job": 1.0, **terms}


class CalibrationError(UserError, RuntimeError):
    """A job of the calibration failed."""


def calibrate(directory: Path, device: str, minutes: float, say: Callable[[str], None]) -> tuple[Rates, Path]:
    """Measure the rates of this machine and write them to ``results/rates/``.

    Args:
        directory: the project's folder.
        device: "cpu" or "cuda".
        minutes: about how long it may take; the jobs are lengthened or shortened by it.
        say: called with a line for each thing that is measured.

    Raises:
        ConfigError: if minutes is not above zero.
        CalibrationError: if a job fails.
        FileError: if the file of rates cannot be written.
    """
    if not 0 < minutes < 1000:
        raise ConfigError(f"--minutes {minutes:g}: choose a number above 0 and below 1000")
    measure = _gpu_rates if device == "cuda" else _cpu_rates
    with tempfile.TemporaryDirectory(prefix="mirrorsym-") as scratch:
        rates = measure(_Runner(directory.resolve(), Path(scratch)), minutes, say)
    path = rates_file(directory, device)
    write_rates(rates, path)
    for line in training_lines(rates):
        say(line)
    return rates, path


def training_lines(rates: Rates) -> list[str]:
    """Return a line for each size of training steps: steps per second, and their share of the device's peak."""
    lines = []
    for arm, trained in rates.trainings.items():
        for speed in trained.speeds:
            seconds = speed.step_flop * speed.seconds_per_flop
            reached = 1 / speed.seconds_per_flop
            share = f", {100 * reached / rates.peak_flops:.1f} % of the peak" if rates.peak_flops else ""
            work = f"{arm}: a step of {speed.step_flop / 1e9:.3g} GFLOP"
            lines.append(f"{work}: {1 / seconds:.3g} steps/s, {reached / 1e9:.3g} GFLOP/s{share}")
    return lines


class _Runner:
    """Runs jobs of the workflow in an empty project and takes their times."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory, self.scratch = directory, scratch
        self.cache = Path(os.environ.get("MIRRORSYM_CACHE", directory / "results" / ".cache")).resolve()
        self.cache.mkdir(parents=True, exist_ok=True)
        (scratch / "results").mkdir()
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.busy = os.getloadavg()[0] > self.cores + 1

    @contextlib.contextmanager
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that wait for jobs, one for each core."""
        pool = ThreadPoolExecutor(self.cores)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)  # where one failed, or on ^C, the others need not start

    def session(self, session: Session) -> list[float]:
        """Run a session; return the seconds that its start computed, then those of each measured point.

        Where others compute on the machine, it runs twice and the lower numbers count: in shared caches others cost
        even the seconds that are computed.
        """
        rounds = [self._session(session) for _ in range(2 if self.busy else 1)]
        return [min(seconds) for seconds in zip(*rounds, strict=True)]

    def _session(self, session: Session) -> list[float]:
        computed, _, said = self.run(self.points([*session.start, *session.measured]))
        measured = json.loads(said.splitlines()[-1])[len(session.start) :]
        return [computed - sum(measured), *measured]

    def run(self, job: Timed) -> tuple[float, float, str]:
        """Run one job; return the seconds that it computed, its seconds by the clock, and what it printed.

        Raises:
            CalibrationError: if it fails.
        """
        environment = {
            **os.environ,
            **dict.fromkeys(THREADS, "1"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "MIRRORSYM_CACHE": str(self.cache),
            "NUMBA_CACHE_DIR": str(self.cache / "numba"),
            "MPLCONFIGDIR": str(self.cache / "matplotlib"),
            "MIRRORSYM_PARENT": str(os.getpid()),
        }
        command = [sys.executable, "-m", "reproduction", "job", *job.arguments]
        ended = run_measured(command, self.scratch, environment)
        if ended.code != 0:
            last = next((line for line in reversed(ended.said.splitlines()) if line.strip()), "it left no message")
            raise CalibrationError(f"the job {job.name} of the calibration failed: {last.removeprefix('mirrorsym: ')}")
        return ended.cpu_seconds, ended.seconds, ended.said

    def compiled(self) -> set[Path]:
        """The files of compiled code in the cache."""
        return set((self.cache / "numba").rglob("*.nbc"))

    def points(self, points: Sequence[Point], device: str = "cpu") -> Timed:
        """A job of several points."""
        arguments = ["points", json.dumps([point.to_json() for point in points]), "--device", device]
        return Timed(points[0].module, arguments)


def _cpu_rates(runner: _Runner, minutes: float, say: Callable[[str], None]) -> Rates:
    config = load(runner.directory / "config", {"scale": "quick"})
    sessions = shortened(config, minutes)
    say(f"{sum(len(session.measured) for session in sessions)} shortened jobs of {len(sessions)} kinds")
    say(f"training steps of {1 + len(CPU_SIZES)} sizes, and the most that a core reaches")
    say("collecting, and executing notebooks")
    compiled = runner.compiled()
    with runner.pool() as pool:
        steps = pool.submit(_steps, runner, "cpu", CPU_SIZES, minutes)
        analysis = pool.submit(_collect_and_notebook, runner, config)
        seconds = list(pool.map(runner.session, sessions))
        measured, analysis_starts = steps.result(), analysis.result()
        if runner.compiled() != compiled:  # once a machine, not once a job: no part of the rates
            say("kernels are compiled now; the shortened jobs again")
            seconds = list(pool.map(runner.session, sessions))
    starts, terms, trainings = _fitted(sessions, seconds)
    for arm, speeds in measured["speeds"].items():
        more = [Speed(step_flop=size, seconds_per_flop=time_) for size, time_, _ in speeds]
        trainings[arm] = sorted([*trainings.get(arm, []), *more], key=lambda speed: speed.step_flop)
    return Rates(
        **_header("cpu", measured),
        peak_flops=measured["peak"],
        peak_source="measured: the fastest product of two float32 matrices on one core",
        starts=starts | analysis_starts,
        terms=terms,
        trainings={arm: Arm(speeds=speeds) for arm, speeds in trainings.items()},
    )


def _gpu_rates(runner: _Runner, minutes: float, say: Callable[[str], None]) -> Rates:
    """Training steps of the paper's network on a GPU, by the clock, and the start-up of its trainings."""
    config = load(runner.directory / "config", {"scale": "quick"})
    say("training steps of the full ResNet18, plain and as products")
    measured = _steps(runner, "cuda", GPU_SIZES, minutes)
    trainings = {
        arm: Arm(
            speeds=[Speed(step_flop=size, seconds_per_flop=time_) for size, time_, _ in speeds],
            evaluation=speeds[-1][2],
        )
        for arm, speeds in measured["speeds"].items()
    }
    starts = {}
    for point in _trainings(config, 1):
        say(f"start-up of {point.experiment}")
        starts[point.module] = runner.run(runner.points([point], "cuda"))[1]
    peak = published_peak(measured["name"])
    return Rates(
        **_header("cuda", measured),
        peak_flops=peak,
        peak_source="NVIDIA's data sheet, dense bfloat16 (V100: float16)" if peak else "",
        starts=starts,
        trainings=trainings,
    )


def _header(device: str, measured: Mapping[str, Any]) -> dict[str, str]:
    return {
        "device": device,
        "name": measured["name"],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "software": measured["software"],
        "code_version": provenance.code_version(),
    }


def _fitted(
    sessions: Sequence[Session], seconds: Sequence[list[float]]
) -> tuple[dict[str, float], dict[str, dict[str, float]], dict[str, list[Speed]]]:
    """Start-ups by module, rates of the terms of simulations, and the speed of each arm's steps on digits."""
    starts, terms = {}, {}
    trainings: dict[str, list[Speed]] = {}
    for session, times in zip(sessions, seconds, strict=True):
        rates = fit(session.amounts(), times)
        starts[session.module] = rates.pop("start") + rates.pop("job")
        work = costs.work_of(session.start[0])
        if work and work.arm:
            trainings[work.arm] = [Speed(step_flop=work.step_flop, seconds_per_flop=max(rates["flop"], 1e-15))]
        else:
            terms[session.module] = rates
    return starts, terms, trainings


def measure_points(points: Sequence[Point], device: str) -> list[float]:
    """Run points one after the other, below the working directory; return the seconds that each of them computed.

    Those of the first begin with the process.
    """
    from reproduction.pipeline.run import run_point

    ends = [0.0]
    for point in points:
        run_point(point, Layout(), Layout().point(point.name), device)
        ends.append(time.process_time())
    return [after - before for before, after in itertools.pairwise(ends)]


def _steps(runner: _Runner, device: str, sizes: Sequence[tuple[int, int, int, int]], minutes: float) -> dict[str, Any]:
    scaled = [
        (width, batch, short, short + max(1, round((long - short) * minutes))) for width, batch, short, long in sizes
    ]
    said = runner.run(Timed("steps", ["steps", json.dumps(scaled), "--device", device]))[2]
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def measure_steps(sizes: Sequence[tuple[int, int, int, int]], device: str) -> dict[str, Any]:
    """Time training steps and evaluations of ResNets on random pictures of 32 by 32, on this process's device.

    Args:
        sizes: width, batch size and two numbers of steps, whose difference is what counts.
        device: "cpu" or "cuda".

    Returns:
        ``name`` and ``software``; ``peak``, the most that one core reaches in FLOP/s (0 on a GPU); and ``speeds``, for
        each parameterization a list of (FLOPs of a step, seconds per FLOP, seconds per FLOP of an evaluation).
    """
    from reproduction.training.loop import reproducible

    with reproducible(device, 1):
        speeds = {arm: [_step_speed(arm, *size, device) for size in sizes] for arm in ("vanilla", "dcs")}
        peak = _matmul_peak() if device == "cpu" else 0.0
    return {"name": provenance.device(device), "software": provenance.software(), "peak": peak, "speeds": speeds}


def _step_speed(arm: str, width: int, batch: int, short: int, long: int, device: str) -> tuple[float, float, float]:
    import numpy as np

    from reproduction.data.images import Images
    from reproduction.experiments.dcs_resnet import DcsResnetSettings, build
    from reproduction.training.loop import Pictures, accuracy

    shape, clock = (3, 32, 32), time.process_time if device == "cpu" else time.perf_counter
    random = np.random.default_rng(0)
    tested = 20 * batch if device != "cpu" else batch

    def images(count: int) -> Images:
        train, test = (random.integers(0, 256, (n, *shape), np.uint8) for n in (count * batch, tested))
        labels = np.arange(count * batch) % 10, np.arange(tested) % 10
        return Images(train, labels[0].astype(np.int64), test, labels[1].astype(np.int64), "random pictures")

    def seconds(steps: int) -> float:
        pictures = Pictures(images(steps), device)
        return least(lambda: _train(network, pictures, settings, device))

    def least(compute: Callable[[], object]) -> float:
        times = []
        for _ in range(REPEATS):
            began = clock()
            compute()
            times.append(clock() - began)
        return min(times)

    settings = DcsResnetSettings(width=width, epochs=1, batch_size=batch)
    network = build(settings, arm, shape[0], 10).to(device)
    seconds(short)  # the first steps choose algorithms and fill caches
    step = (seconds(long) - seconds(short)) / (long - short)
    forward = costs.forward_flop(width, 1, shape)
    pictures = Pictures(images(1), device)
    evaluation = least(lambda: accuracy(network, pictures)) / (forward * tested)
    flop = (1 + costs.BACKWARD) * forward * batch
    return flop, max(step, 1e-9) / flop, evaluation


def _train(network: Any, pictures: Any, settings: Any, device: str) -> None:
    from reproduction.contract import Context
    from reproduction.training.loop import train

    train(network, pictures, settings, 0.0, "calibration", 0, Context(device=device))


def _matmul_peak(size: int = 1024, repeats: int = 5) -> float:
    """The most FLOP/s of a product of two float32 matrices on one thread."""
    import torch

    a, b = torch.rand(2, size, size)
    best = float("inf")
    for _ in range(repeats + 1):
        began = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best


def shortened(config: Config, minutes: float = 1.0) -> list[Session]:
    """Return short points of each module of a configuration, as many as tell its start-up and its terms apart.

    They are blocks of the configured sweeps with fewer steps, so that the runs which diverge are among them.
    """

    def steps(count: int) -> int:
        return max(2, round(count * minutes))

    trainings = zip(*(_trainings(config, max(1, round(epochs * minutes))) for epochs in EPOCHS), strict=True)
    found = [_session([short], long) for short, long in trainings]
    for module, vary in _VARIATIONS.items():
        point = _reference(config, module)
        if point is not None:
            found.append(vary(point, steps))
    return found


def _session(start: list[Point], *longer: Point) -> Session:
    checked = [_checked(point) for point in start]
    return Session(checked, [checked[0], *map(_checked, longer)])


def _reference(config: Config, module: str, **grid: Value) -> Point | None:
    """The first job of the first experiment of a module, with these values on its axes."""
    for name in config.experiments:
        if config.module_of(name) == module:
            for point in points_of(config, name):
                if all(value in point.grid[axis] for axis, value in grid.items()):
                    return point
    return None


def _trainings(config: Config, epochs: int) -> list[Point]:
    """A training on digits of each module, its network that of scale quick; of the arms the products."""
    changed: dict[str, Any] = {
        "dataset": "digits", "width": 8, "stem_stride": 2, "epochs": epochs, "crop_padding": 0, "flip": False,
    }  # fmt: skip
    points = [_reference(config, "homogeneity"), _reference(config, "dcs_resnet", parameterization="dcs")]
    return [_checked(replace(_with(point, changed), data=None)) for point in points if point is not None]


def _with(point: Point, settings: Mapping[str, Any], **grid: Sequence[Value]) -> Point:
    return replace(point, settings=point.settings.model_copy(update=dict(settings)), grid={**point.grid, **grid})


def _checked(point: Point) -> Point:
    """The point with its settings validated, in the form that a job reads."""
    return replace(point, settings=type(point.settings).model_validate(dict(point.settings)))


_Lengthen = Callable[[int], int]


def _sparsity(point: Point, steps: _Lengthen) -> Session:
    one = {"noise_std": point.grid["noise_std"][-1:], "learning_rate": point.grid["learning_rate"][:1]}
    long = {"steps": steps(200_000)}
    return _session(
        [_with(point, {"steps": 100})],
        _with(point, long, parameterization=["rescaled"], **one),
        _with(point, long, parameterization=["vanilla"]),
        _with(point, long, parameterization=["rescaled"]),
    )


def _sparsity_batch(point: Point, steps: _Lengthen) -> Session:
    return _session([_with(point, {"steps": 100})], _with(point, {"steps": steps(50_000)}))


def _matrix_factorization(point: Point, steps: _Lengthen) -> Session:
    one = {"signal": point.grid["signal"][:1], "learning_rate": point.grid["learning_rate"][:1]}
    return _session(
        [_with(point, {"measured_steps": [0, 16]}, **one)],
        _with(point, {"measured_steps": [0, 16, 32]}),
        _with(point, {"measured_steps": [steps(25_000)]}, signal=point.grid["signal"][2:3]),
    )


def _plasticity(point: Point, steps: _Lengthen) -> Session:
    def trained(tasks: int, count: int, precision: str) -> Point:
        return _with(point, {"tasks": tasks, "steps": count}, precision=[precision])

    return _session(
        [trained(1, 50, "float32"), trained(1, 50, "float64")],
        trained(3, steps(15_000), "float32"),
        trained(5, steps(15_000), "float64"),
    )


def _regularized_factorization(point: Point, steps: _Lengthen) -> Session:
    first = point.grid["weight_decay"][:1]
    return _session(
        [_with(point, {"max_steps": 50}, weight_decay=first)],
        _with(point, {"max_steps": min(steps(10_000), costs.DESCENT_STEPS)}, weight_decay=first),
        _with(point, {"max_steps": 50}),
    )


def _factorization_stability(point: Point, steps: _Lengthen) -> Session:
    return _session([_with(point, {"steps": 20})], _with(point, {"steps": steps(250)}))


def _stationary_conditions(point: Point, steps: _Lengthen) -> Session:
    return _session([_with(point, {"steps": 20})], _with(point, {"steps": steps(8_000)}))


def _hessian_structure(point: Point, steps: _Lengthen) -> Session:
    return _session([_with(point, {"steps": 20})], _with(point, {"steps": steps(500)}))


def _attention(point: Point, steps: _Lengthen) -> Session:
    def measured(count: int) -> int:
        return max(1, round(count / 50)) * 50

    decay = {"weight_decay": point.grid["weight_decay"][-1:]}
    short, one, two = (measured(count) for count in (50, steps(800), steps(200)))
    small = {"points": [50, 50], "steps": [50, 50]}
    return _session(
        [_with(point, small, layers=[1.0], **decay), _with(point, small, layers=[2.0], **decay)],
        _with(point, {"points": [500, 50], "steps": [one, short]}, layers=[1.0], **decay),
        _with(point, {"points": [50, 100], "steps": [short, two]}, layers=[2.0], **decay),
    )


def _theory_checks(point: Point, steps: _Lengthen) -> Session:
    return _session([_with(point, {}, check=point.grid["check"][:1])], point)


_VARIATIONS: dict[str, Callable[[Point, _Lengthen], Session]] = {
    "theory_checks": _theory_checks,
    "hessian_structure": _hessian_structure,
    "attention": _attention,
    "plasticity": _plasticity,
    "sparsity": _sparsity,
    "matrix_factorization": _matrix_factorization,
    "factorization_stability": _factorization_stability,
    "regularized_factorization": _regularized_factorization,
    "sparsity_batch": _sparsity_batch,
    "stationary_conditions": _stationary_conditions,
}
"""The longest first, so that no core is left with one of them."""


def _collect_and_notebook(runner: _Runner, config: Config) -> dict[str, float]:
    """Seconds of a collection and of a notebook, from the points and the figure of a small experiment."""
    tiny = load(runner.directory / "config", {"scale": "tiny"})
    name = next((name for name in tiny.experiments if tiny.module_of(name) == "stationary_conditions"), None)
    if name is None or FIGURE not in config.figures:
        return {}
    plan = Plan.of(tiny, name)
    (runner.scratch / "plan.json").write_text(plan.to_json())
    runner.run(runner.points(plan.points()))
    out = f"results/tiny/{name}.nc"
    collected, _, _ = runner.run(Timed("collect", ["collect", "plan.json", "--out", out]))
    notebook = str(runner.directory / "notebooks" / f"{FIGURE}.ipynb")
    folders = ["--results", "results/tiny", "--figures", "figures", "--executed", f"executed/{FIGURE}.ipynb"]
    executed, _, _ = runner.run(Timed(FIGURE, ["notebook", notebook, *folders, "--expect", f"{FIGURE}.pdf"]))
    return {"collect": collected, "notebook": executed}
