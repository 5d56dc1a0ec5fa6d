"""``make gpu``: all that a day with a GPU should bring, in one command and one folder, within minutes.

For a machine that nobody prepared: its Python and torch may be other ones than the lock's, and nothing is downloaded.
In this order, for as long as time is left: the tests of tests/gpu, the rate of training steps, plain and with every
parameter as a product, with its share of the device's peak, the peak memory of a step at batch 1 and 128, then whole
trainings of the scale in the order of their worth: homogeneity at the decay nearest to 0.001, at 0, then the ResNet of
products and the plain one, the first seed of all before the second. A training begins only where its forecast fits, and
is ended where it outlasts the time.

In the folder lie ``table.txt``, ``log.txt``, ``steps.json`` and, for each training that ended, a point, which
``mirrorsym import`` takes. Failing tests end nothing; the exit code tells of them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproduction.pipeline.config import Config
    from reproduction.pipeline.measured import Steps
    from reproduction.pipeline.points import Point

ROOT = Path(__file__).parents[1]
TESTS_AT_MOST = 0.3
"""Share of the time that the tests may take."""
RESERVE = 10.0
"""Seconds kept for writing the table."""
MARGIN = 1.15
"""A training begins where this many times its forecast fits."""


class Session:
    """The time that is left, the folder, and what is said, which goes to the terminal and into the log."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out, self._end = out, time.monotonic() + seconds - RESERVE
        self._log = (out / "log.txt").open("a", encoding="utf-8")
        self.rows: list[str] = []

    def left(self) -> float:
        return self._end - time.monotonic()

    def say(self, text: str) -> None:
        print(text, flush=True)
        print(text, file=self._log, flush=True)

    def row(self, text: str) -> None:
        """Say a line that belongs into the table, and write the table as it is by now."""
        self.say(text)
        self.rows.append(text)
        (self.out / "table.txt").write_text("\n".join(self.rows) + "\n", encoding="utf-8")

    def run(self, command: Sequence[str], seconds: float, folder: Path = ROOT) -> int | None:
        """Return the exit code of a command whose output goes into the log, None where it was ended by the time."""
        self._log.flush()
        try:
            done = subprocess.run(
                command, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, timeout=max(seconds, 0.1), check=False
            )
        except subprocess.TimeoutExpired:
            return None
        return done.returncode


def worth(config: Config) -> list[Point]:
    """Return the trainings in the order of their worth."""
    from reproduction.pipeline.points import points_of

    def place(point: Point) -> tuple[int, int]:
        if point.experiment == "homogeneity":
            decays = sorted({one.grid["weight_decay"][0] for one in points_of(config, "homogeneity")})
            wanted = [min(decays, key=lambda decay: abs(float(decay) - 1e-3)), 0.0]
            decay = point.grid["weight_decay"][0]
            return point.seed, wanted.index(decay) if decay in wanted else 4
        return point.seed, 2 if point.grid["parameterization"] == ["dcs"] else 3

    return sorted([*points_of(config, "homogeneity"), *points_of(config, "dcs_resnet")], key=place)


def forecast(point: Point, steps: Steps) -> float:
    """Return the seconds that a training should take by the measured rate."""
    from reproduction.pipeline.config import load_experiment

    experiment = load_experiment(point.module)
    assert experiment.flop is not None
    seconds = steps.seconds(experiment.flop(point.settings, point.grid))
    assert seconds is not None
    return seconds


def run_tests(session: Session) -> bool:
    """Run the tests of tests/gpu; True where none failed."""
    began = time.monotonic()
    code = session.run([sys.executable, "-m", "pytest", "-q", "-rs", "tests/gpu"], TESTS_AT_MOST * session.left())
    said = "passed" if code == 0 else "outlasted their time" if code is None else f"FAILED (exit code {code})"
    session.row(f"tests: {said}, {time.monotonic() - began:.0f} s; log.txt says which")
    return code == 0


def measure(session: Session, config: Config, device: str) -> Steps:
    """Measure the rate of steps and the peak memory of one."""
    from benchmarks import training
    from reproduction.experiments.dcs_resnet import MEMORY_BATCHES, peak_memory
    from reproduction.training.flop import SIZES

    settings: Any = config.settings_of("dcs_resnet")
    sizes = SIZES[settings.dataset]
    short, long = (20, 120) if device == "cuda" else (1, 3)
    recipe = settings.width, settings.batch_size, settings.stem_stride
    steps = training.measure_steps(device, [training.Size(*recipe, sizes.shape, short, long, settings.precision)])
    (session.out / "steps.json").write_text(steps.model_dump_json(indent=1), encoding="utf-8")
    for line in training.lines(steps):
        session.row(line)
    for arm in ("vanilla", "dcs"):
        peaks = peak_memory(settings, arm, sizes.shape, 10, device)
        said = ", ".join(
            f"batch {size}: {peak / 2**20:.1f} MiB" for size, peak in zip(MEMORY_BATCHES, peaks, strict=True)
        )
        session.row(f"peak memory of a step, {arm}: {said}")
    return steps


def train(session: Session, points: Sequence[Point], steps: Steps, device: str, work: Path) -> Iterator[Point]:
    """Train one point after the other in a process of its own while its forecast fits; yield those that ended."""
    for point in points:
        name = f"{point.experiment}-{'-'.join(point.labels.values())}.nc"
        expected = forecast(point, steps)
        if MARGIN * expected > session.left():
            session.row(f"{name}: not begun, its {expected:.0f} s do not fit into the {session.left():.0f} s left")
            continue
        began = time.monotonic()
        command = [sys.executable, "-m", "reproduction", "job", "point", point.to_json(), "--device", device]
        code = session.run([*command, "--out", str((session.out / name).resolve())], session.left(), work)
        took = time.monotonic() - began
        if code == 0:
            session.row(f"{name}: {took:.0f} s ({expected:.0f} s expected){numbers(session.out / name)}")
            yield point
        else:
            session.row(f"{name}: {'ended, its time was over' if code is None else 'FAILED'} after {took:.0f} s")


def numbers(path: Path) -> str:
    """Return the accuracies at the end of a training, for the table."""
    from reproduction.pipeline import store

    point = store.read(path)
    accuracy = point["test_accuracy"]
    last = accuracy.isel(epoch=-1) if "epoch" in accuracy.dims else accuracy
    return f", test accuracy {100 * float(last.squeeze()):.2f} %, {point.attrs['precision']}"


def prepare(archive: Path | None, work: Path) -> None:
    """Give the project in ``work`` its configuration and its pictures, which come from the archive alone."""
    (work / "config").symlink_to(ROOT / "config")
    if archive:
        os.environ["MIRRORSYM_CIFAR10_ARCHIVE"] = str(archive.resolve())
        with archive.open("rb") as file:
            os.environ["MIRRORSYM_CIFAR10_CHECKSUM"] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        from reproduction.data import cifar10
        from reproduction.pipeline.config import load
        from reproduction.pipeline.layout import Layout

        data = load(work / "config").cifar10
        cifar10.prepare(data.url, data.checksum, data.label, data.archive, Layout(work).cifar10, work)


def again_with(wheels: Path, arguments: Sequence[str]) -> int:
    """Run this command once more, with the packages of a folder of wheels before those of the machine."""
    with tempfile.TemporaryDirectory() as site:
        install = ["install", "--quiet", "--no-index", "--no-deps", "--target", site, *map(str, wheels.glob("*.whl"))]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        paths = [site, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What a day with a GPU should bring.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for points, table and log.")
    parser.add_argument("--archive", type=Path, help="CIFAR-10 in the layout of cifar-10-python.tar.gz.")
    parser.add_argument("--wheels", type=Path, help="Folder of wheels that this machine lacks.")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    if asked.wheels:
        rest = ["--out", str(asked.out.resolve()), "--scale", asked.scale, "--device", asked.device]
        rest += ["--archive", str(asked.archive.resolve())] if asked.archive else []
        return again_with(asked.wheels, [*rest, "--minutes", str(asked.minutes)])
    asked.out.mkdir(parents=True, exist_ok=True)
    session = Session(asked.out, 60 * asked.minutes)
    try:
        from reproduction.pipeline import provenance
        from reproduction.pipeline.config import load
        from reproduction.pipeline.devices import gpu_count
    except ModuleNotFoundError as error:
        session.say(f"{error.name} is missing here; give it as a wheel: make gpu WHEELS=folder")
        return 1
    if asked.device == "cuda" and not gpu_count():
        session.say("this machine has no GPU; --device cpu tries what a CPU can run of it")
        return 1
    session.row(f"{provenance.device(asked.device)}; {provenance.software()}; code {provenance.code_version()}")
    passed = run_tests(session)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(asked.archive, work)
        config = load(work / "config", {"scale": asked.scale})
        steps = measure(session, config, asked.device)
        ended = len(list(train(session, worth(config), steps, asked.device, work)))
    session.row(f"{ended} trainings ended; {time.monotonic() - began:.0f} s in all")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
