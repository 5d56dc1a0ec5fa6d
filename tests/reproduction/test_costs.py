"""FLOPs against counts by hand, what is kept of jobs against what they took, and a plan against the sum of its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import netCDF4
import pytest
from click.testing import CliRunner

from benchmarks import training
from benchmarks.training import Size, measure_steps, published_peak
from reproduction.cli.user import cli
from reproduction.contract import Flop
from reproduction.files import FileError
from reproduction.pipeline import costs
from reproduction.pipeline.config import Config, load, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.measured import (
    Measured,
    Speed,
    Steps,
    clock_seconds,
    group_of,
    read_measured,
    read_steps,
    write_measured,
)
from reproduction.pipeline.points import Point, points_of
from reproduction.report.closing import closing_lines
from reproduction.training.flop import DCS, VANILLA, forward_flop, kind_of
from reproduction.training.precision import Wanted

CONFIG = Path(__file__).parents[2] / "config"
PRECISIONS: tuple[Wanted, ...] = ("float32", "auto")
NOWHERE = Layout(Path("no project"))


def at(scale: str, **experiments: Any) -> Config:
    return load(CONFIG, {"scale": scale, "experiments": experiments})


def point_of(experiment: str, scale: str = "quick", **grid: Any) -> Point:
    return next(
        point
        for point in points_of(at(scale), experiment)
        if all(value in point.grid[axis] for axis, value in grid.items())
    )


def counted(point: Point) -> Flop:
    flop = load_experiment(point.module).flop
    assert flop is not None
    return flop(point.settings, point.grid)


def counted_by_hand(width: int, side: int, stem_stride: int, channels: int) -> int:
    """Multiplications with additions of a ResNet18 for small pictures, layer by layer."""
    side = -(-side // stem_stride)
    total = 9 * channels * width * side**2
    inputs = width
    for stage in range(4):
        outputs, stride = width * 2**stage, 1 if stage == 0 else 2
        side = -(-side // stride)
        total += (9 * inputs * outputs + 3 * 9 * outputs**2) * side**2
        if stride == 2:
            total += inputs * outputs * side**2  # the 1x1 convolution beside the first block
        inputs = outputs
    return total + inputs * 128 + 128 * 10


@pytest.mark.parametrize(("width", "side", "stem", "channels"), [(64, 32, 1, 3), (8, 32, 1, 3), (8, 8, 2, 1)])
def test_flops_are_those_counted_by_hand(width: int, side: int, stem: int, channels: int) -> None:
    assert forward_flop(width, stem, (channels, side, side)) == 2 * counted_by_hand(width, side, stem, channels)


def test_a_training_of_the_paper_is_17_petaflop_and_all_of_them_450() -> None:
    flop = counted(point_of("homogeneity", "paper"))
    assert counted_by_hand(64, 32, 1, 3) == pytest.approx(0.556e9, rel=1e-3)
    assert flop.step == 128 * 6 * counted_by_hand(64, 32, 1, 3)
    assert flop.steps == 100 * 390 * flop.step
    assert flop.steps == pytest.approx(16.6e15, rel=0.01)
    assert costs.forecast(at("paper"), NOWHERE).total("flop") == pytest.approx(450e15, rel=0.01)
    assert costs.aim_share(450e15) == pytest.approx(0.126, abs=0.001)


@pytest.mark.parametrize(("experiment", "tested"), [("homogeneity", 2 * 360 + 360), ("dcs_resnet", 360 * (50 + 2))])
def test_each_test_of_a_training_is_counted(experiment: str, tested: int) -> None:
    assert counted(point_of(experiment)).tests == tested * forward_flop(8, 2, (1, 8, 8))


def test_what_is_written_as_products_is_another_kind() -> None:
    kinds = [counted(point_of("dcs_resnet", parameterization=arm)).kind for arm in (VANILLA, DCS)]
    assert kinds == [VANILLA, DCS]
    assert counted(point_of("homogeneity")).kind == VANILLA


def made_up_steps(device: str = "cpu", **changes: Any) -> Steps:
    speed = Speed(step_flop=1e9, seconds_per_flop=5e-15, test_seconds_per_flop=5e-15)
    header = {"device": device, "name": "a processor", "date": "2024-05-01", "code_version": "abc"}
    speeds = {kind: [speed] for kind in (VANILLA, DCS)}
    return Steps.model_validate({**header, "peak_flops": 1e15, "start": 2.0, "speeds": speeds, **changes})


def write_steps(steps: Steps, layout: Layout) -> None:
    path = layout.steps(steps.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(steps.model_dump_json())


def test_training_speed_is_interpolated_between_sizes_and_tests_have_their_own() -> None:
    speeds = [
        Speed(step_flop=1e9, seconds_per_flop=4e-14, test_seconds_per_flop=3e-14),
        Speed(step_flop=1e11, seconds_per_flop=1e-14, test_seconds_per_flop=3e-14),
    ]
    found = made_up_steps(speeds={VANILLA: speeds})

    def flop(step: float) -> Flop:
        return Flop(VANILLA, 1e15, 1e14, step)

    assert found.seconds(flop(1e9)) == pytest.approx(2 + 40 + 3)
    assert found.seconds(flop(1e10)) == pytest.approx(2 + 20 + 3)
    assert found.seconds(flop(1e13)) == pytest.approx(2 + 10 + 3)
    assert found.seconds(Flop(DCS, 1e15, 1e14, 1e9)) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("a GPU of tomorrow", None),
    ],
)
def test_peaks_are_found_by_the_name_that_the_driver_gives(name: str, peak: float | None) -> None:
    assert published_peak(name) == peak


def write_benchmark(path: Path, seconds: float, cpu: float | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\tcpu_time\n{seconds}\t0\t1\t1\t{cpu}\n")
    return path


def test_seconds_are_those_by_the_clock(tmp_path: Path) -> None:
    assert clock_seconds(write_benchmark(tmp_path / "a.tsv", 90.0, 37.5)) == 90.0
    assert clock_seconds(tmp_path / "missing.tsv") is None
    (tmp_path / "empty.tsv").touch()
    assert clock_seconds(tmp_path / "empty.tsv") is None


def finish(point: Point, layout: Layout, seconds: float, device: str = "CPU of a laptop", size: int = 1000) -> None:
    """Leave what a job leaves: its result, as large as asked for, and its benchmark file."""
    path = layout.point(point.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"device": device, "created": "2026-02-03T10:00:00", "code_version": "abc"})
    with open(path, "ab") as file:
        file.write(bytes(size - path.stat().st_size) if size > path.stat().st_size else b"")
    write_benchmark(layout.point_benchmark(point.name), seconds, seconds)


def row_of(name: str, config: Config, layout: Layout, device: str | None = None) -> costs.Row:
    return next(row for row in costs.forecast(config, layout, device).rows if row.name == name)


SIZE = 200_000


def run_all(config: Config, layout: Layout) -> float:
    """Finish all that a scale has, each job in other seconds, and return their sum."""
    total = 0.0
    for number, name in enumerate(config.experiments, start=1):
        for point in points_of(config, name):
            finish(point, layout, number, size=SIZE)
            total += number
    return total


def test_a_plan_foretells_what_jobs_with_the_same_settings_took_elsewhere(tmp_path: Path) -> None:
    """What ran there is kept in one file; another clone with that file alone plans just that, and says whose it is."""
    there, here = Layout(tmp_path / "there"), Layout(tmp_path / "here")
    config = at("quick")
    spent = run_all(config, there)
    write_measured(config, there)
    here.config.mkdir(parents=True)
    there.measured.rename(here.measured)
    plan = costs.forecast(config, here)
    assert plan.total("seconds") == plan.total("seconds_left") == pytest.approx(spent, rel=0.01)
    points = sum(len(points_of(config, name)) for name in config.experiments)
    assert plan.total("storage") == 2 * points * SIZE  # the points, and as much collected
    assert {row.source for row in plan.rows} == {"jobs elsewhere"}
    assert "CPU of a laptop, 2026-02-03, code abc" in plan.sources["jobs elsewhere"]


def test_totals_are_the_sums_of_the_rows(tmp_path: Path) -> None:
    config, layout = at("quick"), Layout(tmp_path)
    spent = run_all(config, layout)
    for point in points_of(config, "plasticity")[:3]:
        layout.point(point.name).unlink()
    found = costs.forecast(config, layout).to_dict()
    rows, total = found["experiments"], found["total"]
    points = sum(len(points_of(config, name)) for name in config.experiments)
    assert total["jobs"] == sum(row["jobs"] for row in rows) == points
    assert total["left"] == sum(row["left"] for row in rows) == 3
    assert total["cpu_seconds"] == pytest.approx(spent)
    assert total["flop"] == sum(row["flop"] for row in rows) > 0
    assert total["storage"] == sum(row["storage"] or 0 for row in rows)
    assert (total["gpu_seconds"], total["not_measured"]) == (0, [])
    for row in rows:
        assert row["seconds"] == pytest.approx(sum(row["seconds_per_job"]))
        assert len(row["seconds_per_job"]) == row["jobs"]
        assert row["seconds_left"] == pytest.approx(row["seconds"] * row["left"] / row["jobs"])


def test_what_is_there_is_not_left_to_run(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for point in points_of(at("quick"), "sparsity")[:4]:
        finish(point, layout, 10.0, size=SIZE)
    row = row_of("sparsity", at("quick"), layout)
    assert (row.jobs, row.left, row.storage) == (10, 6, 20 * SIZE)
    assert (row.seconds, row.seconds_left, row.source) == (100.0, 60.0, "jobs here")


def test_jobs_take_as_long_as_those_of_other_seeds_and_new_values_as_the_others(tmp_path: Path) -> None:
    """One seed that was disturbed says nothing of the others; a decay that never ran takes the mean."""
    layout = Layout(tmp_path)
    for point in points_of(at("quick"), "homogeneity"):
        disturbed = point.seed == 1
        finish(point, layout, 90.0 if disturbed else 10.0 + 2 * (point.grid["weight_decay"] == [0.01]))
    wider = at("quick", homogeneity={"seeds": 4, "sweep": [{"weight_decay": [0, 0.01, 0.1]}]})
    assert row_of("homogeneity", wider, layout).seconds_per_job == [10.0] * 4 + [12.0] * 4 + [11.0] * 4
    changed = at("quick", homogeneity={"settings": {"epochs": 91}})
    assert row_of("homogeneity", changed, layout).source == "not measured"


def test_what_nothing_tells_is_not_measured_and_in_no_sum(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    finish(points_of(at("quick"), "sparsity")[0], layout, 3600.0)
    plan = costs.forecast(at("quick"), layout)
    rows = {row.name: row for row in plan.rows}
    assert (rows["attention"].seconds, rows["attention"].storage) == (None, None)
    assert plan.total("seconds") == 36_000.0
    lines = costs.table(plan)
    assert next(line for line in lines if line.startswith("attention ")).split()[3:5] == ["not", "measured"]
    assert any(line.startswith("not measured, and in no sum of hours: sparsity_long, ") for line in lines)
    assert any(line.startswith("not measured, and in no sum of storage: sparsity_long, ") for line in lines)
    assert "to run: 9.00 core-hours" in lines
    assert next(line for line in lines if line.startswith("all ")).split()[3] == "10.00"


def test_a_training_counts_for_the_device_that_it_ran_on(tmp_path: Path) -> None:
    layout, config = Layout(tmp_path), at("paper")
    point = points_of(config, "homogeneity")[0]
    finish(point, layout, 500.0, device="NVIDIA H100 80GB HBM3")
    assert row_of("homogeneity", config, layout, "cpu").seconds is None
    found = row_of("homogeneity", config, layout)
    assert (found.device, found.seconds, found.source) == ("cuda", 15 * 500.0, "jobs here")
    finish(point, layout, 500.0)
    assert row_of("homogeneity", config, layout).seconds is None


def keep(layout: Layout, **content: Any) -> Measured:
    header = {"processor": "CPU", "date": "2024-05-01", "code_version": "abc", "seconds": {}, "storage": {}}
    found = Measured.model_validate({**header, **content})
    layout.config.mkdir(parents=True, exist_ok=True)
    layout.measured.write_text(found.model_dump_json())
    return found


def test_jobs_here_come_before_those_elsewhere_and_both_before_steps(tmp_path: Path) -> None:
    layout, point = Layout(tmp_path), points_of(at("quick"), "dcs_resnet")[0]
    write_steps(made_up_steps(), layout)
    assert row_of("dcs_resnet", at("quick"), layout).source == "steps"
    keep(layout, seconds={group_of(point): 5.0})
    row = row_of("dcs_resnet", at("quick"), layout)
    assert (row.source, row.seconds) == ("jobs elsewhere", 30.0)
    finish(point, layout, 6.0)
    row = row_of("dcs_resnet", at("quick"), layout)
    assert (row.source, row.seconds) == ("jobs here", 36.0)


def test_steps_of_this_project_come_before_those_that_came_with_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    keep(layout, steps=made_up_steps(start=100.0))
    row = row_of("homogeneity", at("laptop"), layout)
    assert row.source == "steps"
    assert row.seconds == pytest.approx(6 * 100.0, rel=0.01)
    assert row_of("homogeneity", at("paper"), layout).seconds is None  # it asks for a GPU
    write_steps(made_up_steps(start=70.0), layout)
    plan = costs.forecast(at("laptop"), layout)
    assert plan.sources["steps (cpu)"] == f"{layout.steps('cpu')}: a processor, 2024-05-01, code abc"
    assert row_of("homogeneity", at("laptop"), layout).seconds == pytest.approx(6 * 70.0, rel=0.01)


def test_where_no_gpu_was_measured_the_plan_says_so_and_what_would_be() -> None:
    plan = costs.forecast(at("paper"), NOWHERE)
    assert {row.name for row in plan.rows if row.device == "cuda"} == {"homogeneity", "dcs_resnet"}
    flop = sum(row.flop for row in plan.rows if row.device == "cuda")
    lines = costs.aim_lines(plan)
    assert "449 PFLOP" in lines[0]
    assert "python -m benchmarks.training --device cuda" in lines[1]
    assert "not measured" in lines[2]
    assert f"{flop / (0.16 * 989e12) / 3600:.2f} hours at 16 %" in lines[2]


def test_a_measured_gpu_is_held_against_the_aim(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    speed = Speed(step_flop=4e11, seconds_per_flop=1 / (0.25 * 989e12), test_seconds_per_flop=1e-30)
    speeds = {kind_of(arm, precision): [speed] for arm in (VANILLA, DCS) for precision in PRECISIONS}
    write_steps(made_up_steps("cuda", peak_flops=989e12, speeds=speeds, start=0.0, name="NVIDIA H100 80GB"), layout)
    plan = costs.forecast(at("paper"), layout)
    trainings = [row for row in plan.rows if row.device == "cuda"]
    assert plan.total("seconds", "cuda") == pytest.approx(sum(row.flop for row in trainings) / (0.25 * 989e12))
    assert "measured on NVIDIA H100 80GB" in costs.aim_lines(plan)[1]
    assert "25.0 % of its peak; the aim is met" in costs.aim_lines(plan)[1]


@pytest.mark.parametrize("command", ["python -m benchmarks.training --device cpu", "mirrorsym measured"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, command: str) -> None:
    layout = Layout(tmp_path)
    path = layout.measured if command == "mirrorsym measured" else layout.steps("cpu")
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"device": "cpu"\xff')
    with pytest.raises(FileError, match=f"is damaged; {command}"):
        costs.forecast(at("tiny"), layout)


def test_nothing_is_kept_where_nothing_has_run(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no job of the scale quick has run here"):
        write_measured(at("quick"), Layout(tmp_path))
    finish(points_of(at("quick"), "homogeneity")[0], Layout(tmp_path), 5.0, device="NVIDIA H100 80GB HBM3")
    with pytest.raises(FileError, match="on a CPU"):
        write_measured(at("quick"), Layout(tmp_path))


def test_what_came_with_the_project_names_its_experiments_and_its_processor() -> None:
    found = read_measured(Layout(CONFIG.parent))
    assert found.processor.startswith("CPU ")
    assert found.steps is not None
    assert set(found.steps.speeds) == {kind_of(arm, precision) for arm in (VANILLA, DCS) for precision in PRECISIONS}
    assert {name.partition("/")[0] for name in found.seconds} <= set(at("paper").experiments)
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_training_steps_are_timed_with_their_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of made-up length among all that disturbs: a start, and every other run is held up."""
    now, runs = 0.0, 0

    def wait(seconds: float) -> None:
        nonlocal now, runs
        runs += 1
        now += seconds + (0.7 if runs % 2 else 0)

    def train(network: Any, pictures: Any, settings: Any, *rest: Any) -> None:
        wait(0.1 + 0.02 * len(pictures.train_images) / settings.batch_size)

    monkeypatch.setattr(training.loop, "train", train)
    monkeypatch.setattr(training.loop, "accuracy", lambda network, pictures, precision: wait(0.004))
    monkeypatch.setattr(training.time, "process_time", lambda: now)
    forward = forward_flop(8, 1, (3, 32, 32))
    speed = training._StepTimer(Size(8, 64, 1, (3, 32, 32), 1, 3), VANILLA, "cpu").speed()
    assert speed.step_flop == 64 * 3 * forward
    assert speed.seconds_per_flop * speed.step_flop == pytest.approx(0.02)
    assert speed.test_seconds_per_flop * 64 * forward == pytest.approx(0.004)


def test_real_training_steps_reach_less_than_the_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure_steps("cpu", [Size(8, 8, 1, (3, 32, 32), 1, 3)])
    assert found.peak_flops is not None
    assert found.peak_flops > 1e9
    assert found.start > 0.1
    for kind in (VANILLA, DCS):
        (speed,) = found.speeds[kind]
        assert speed.step_flop == 8 * 3 * forward_flop(8, 1, (3, 32, 32))
        assert 0 < 1 / speed.test_seconds_per_flop < 1.5 * found.peak_flops
    monkeypatch.setattr(training, "measure_steps", lambda device: found)
    training.main(["--device", "cpu", "--directory", str(tmp_path)])
    assert read_steps(Layout(tmp_path), "cpu") == found
    said = capsys.readouterr().out
    assert "steps/s" in said
    assert "% of the peak" in said


def test_the_sizes_that_are_timed_are_those_of_the_scales() -> None:
    """The steps of quick and laptop on a CPU and of paper on a GPU, so that those are measured and not interpolated."""
    scales = {"cpu": ("quick", "laptop", "overnight"), "cuda": ("paper",)}
    for device, names in scales.items():
        timed = {
            3 * size.batch * forward_flop(size.width, size.stem_stride, size.shape) for size in training.SIZES[device]
        }
        wanted = {counted(point_of(name, scale)).step for scale in names for name in ("homogeneity", "dcs_resnet")}
        assert wanted <= timed


def test_the_commands_write_print_and_plan(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    for name in ("config.yaml", "cluster.yaml", "scales"):
        (tmp_path / "config" / name).symlink_to(CONFIG / name)
    run_all(at("tiny"), Layout(tmp_path))

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--scale", "tiny", "--directory", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done.output

    assert "CPU of a laptop, 2026-02-03" in said("measured")
    assert (tmp_path / "config/measured.json").is_file()
    assert json.loads(said("plan", "--json"))["total"]["not_measured"] == []
    assert "jobs here" in said("plan")


def test_the_closing_lines_sum_the_seconds_of_each_part_by_the_clock(tmp_path: Path) -> None:
    layout, config = Layout(tmp_path), at("tiny")
    assert closing_lines(config, layout)[1].split() == ["all", "0", "0.0"]
    for number, point in enumerate(points_of(config, "sparsity"), start=1):
        write_benchmark(layout.point_benchmark(point.name), 10.5 * number, 1.0)
    write_benchmark(layout.benchmark("tiny", "fig1"), 2.0, 1.0)
    count = len(points_of(config, "sparsity"))
    seconds = 10.5 * count * (count + 1) / 2
    lines = [line.split() for line in closing_lines(config, layout)]
    assert lines[0] == ["part", "jobs", "job", "seconds"]
    assert lines[1] == ["run", "sparsity", str(count), f"{seconds:.1f}"]
    assert lines[2:4] == [["figures", "1", "2.0"], ["all", str(count + 1), f"{seconds + 2:.1f}"]]
