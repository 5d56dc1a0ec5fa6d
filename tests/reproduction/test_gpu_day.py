"""``make gpu``, as far as a CPU can run it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu
from reproduction.contract import Flop
from reproduction.pipeline import config
from reproduction.pipeline.config import load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.measured import Speed, Steps
from reproduction.pipeline.points import Point
from reproduction.pipeline.transfer import import_files

ROOT = Path(__file__).parents[2]
PACKAGES = {"click", "netCDF4", "numpy", "pandas", "pydantic", "torch", "torchvision", "tqdm", "xarray", "yaml"}
"""What docs/cluster.md says has to be there; what these need comes with them."""
ALONE = """
import json, sys
from benchmarks import gpu
order = gpu.worth
gpu.run_tests = lambda session: True
gpu.worth = lambda config: order(config)[:1]
code = gpu.main(["--out", sys.argv[1], "--scale", "tiny", "--device", "cpu", "--minutes", "5"])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def at(scale: str) -> config.Config:
    return config.load(ROOT / "config", {"scale": scale})


def test_trainings_come_in_the_order_of_their_worth() -> None:
    points = gpu.worth(at("paper"))
    said = [(point.seed, point.experiment, *(str(values[0]) for values in point.grid.values())) for point in points]
    first = [("homogeneity", "0.001"), ("homogeneity", "0.0"), ("dcs_resnet", "dcs"), ("dcs_resnet", "vanilla")]
    assert said[:4] == [(0, *what) for what in first]
    assert [seed for seed, *_ in said] == sorted(seed for seed, *_ in said)
    assert len(said) == 3 * 5 + 3 * 2
    assert {decay for _, name, decay in said[4:7] if name == "homogeneity"} == {"0.0001", "0.0005", "0.005"}


def test_one_command_leaves_a_table_a_log_rates_and_points_that_import_takes(tmp_path: Path) -> None:
    """In a process of its own, which shows that it needs no package of the pipeline."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", ALONE, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not {"snakemake", "papermill", "matplotlib", "pooch", "jinja2", "numba", "sklearn"} & set(loaded)
    assert PACKAGES - {"click", "tqdm"} <= set(loaded)
    (point,) = out.glob("*.nc")
    assert sorted(path.name for path in out.iterdir()) == [point.name, "log.txt", "steps.json", "table.txt"]
    table = (out / "table.txt").read_text().splitlines()
    assert [line for line in table if line.startswith("peak memory of a step, dcs: batch 1: ")]
    assert [line for line in table if line.startswith(f"{point.name}: ") and "test accuracy" in line]
    assert table[-1].startswith("1 trainings ended; ")
    Steps.model_validate_json((out / "steps.json").read_text())
    project = tmp_path / "project"
    (project / "config").parent.mkdir()
    (project / "config").symlink_to(ROOT / "config")
    (said,) = import_files([point], Layout(project))
    assert "results/points/homogeneity/" in said


def steps_of(seconds: float) -> Steps:
    """A rate at which each training takes so long."""
    header = {"device": "cpu", "name": "a processor", "date": "2024-05-01", "code_version": "abc", "start": seconds}
    speed = Speed(step_flop=1e9, seconds_per_flop=1e-30, test_seconds_per_flop=1e-30)
    return Steps.model_validate({**header, "speeds": {"vanilla": [speed], "dcs": [speed]}})


def test_a_training_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    session = gpu.Session(tmp_path, 600 + gpu.RESERVE)
    points = gpu.worth(at("tiny"))[:2]
    assert list(gpu.train(session, points, steps_of(590.0), "cpu", tmp_path)) == []
    assert "not begun, its 590 s do not fit into the " in session.rows[0]
    assert len(session.rows) == 2


def test_a_training_that_outlasts_the_time_is_ended_and_leaves_no_point(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    session = gpu.Session(out, 0.5 + gpu.RESERVE)
    longer = at("tiny").model_dump(mode="json")["experiments"]["homogeneity"]["settings"] | {"epochs": 100_000}
    settings = load_experiment("homogeneity").settings.model_validate(longer)
    point = Point("homogeneity", "homogeneity", settings, None, {"weight_decay": [0.0]}, 0)
    began = time.monotonic()
    assert list(gpu.train(session, [point], steps_of(0.0), "cpu", work)) == []
    assert time.monotonic() - began < 60
    assert "its time was over" in session.rows[0]
    assert not list(out.glob("*.nc*"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pydantic'] = None; from benchmarks.gpu import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--out", str(tmp_path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "pydantic is missing here; give it as a wheel" in done.stdout


def test_without_a_gpu_it_says_what_a_cpu_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reproduction.pipeline.devices.gpu_count", lambda: 0)
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert "--device cpu tries what a CPU can run of it" in capsys.readouterr().out


def test_a_forecast_is_the_rate_times_the_work() -> None:
    point = gpu.worth(at("paper"))[0]
    flop = load_experiment("homogeneity").flop
    assert flop is not None
    counted: Flop = flop(point.settings, point.grid)
    speed = Speed(step_flop=counted.step, seconds_per_flop=1e-14, test_seconds_per_flop=2e-14)
    steps = steps_of(3.0).model_copy(update={"speeds": {"vanilla, auto": [speed]}})
    assert gpu.forecast(point, steps) == pytest.approx(3.0 + 1e-14 * counted.steps + 2e-14 * counted.tests)
