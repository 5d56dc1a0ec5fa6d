"""The work of jobs against counts by hand, rates against made-up ones, and a plan against the sum of its rows."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from reproduction.cli.user import cli
from reproduction.contract import Context
from reproduction.files import FileError
from reproduction.pipeline import benchmarks, calibration, costs, planning
from reproduction.pipeline.calibration import Session, measure_points, measure_steps, shortened
from reproduction.pipeline.config import Config, load, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.rates import Arm, Rates, Speed, fit, published_peak, rates_file, read_rates, write_rates
from reproduction.pipeline.run import run_point

CONFIG = Path(__file__).parents[2] / "config"


def point_of(experiment: str, scale: str = "quick", settings: dict[str, Any] | None = None, **grid: Any) -> Point:
    point = next(
        point
        for point in points_of(load(CONFIG, {"scale": scale}), experiment)
        if all(value in point.grid[axis] for axis, value in grid.items())
    )
    return dataclasses.replace(
        point, settings=point.settings.model_validate({**dict(point.settings), **(settings or {})})
    )


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
    assert costs.forward_flop(width, stem, (channels, side, side)) == 2 * counted_by_hand(width, side, stem, channels)


def test_a_training_of_the_paper_is_17_petaflop_and_all_of_them_450() -> None:
    work = costs.work_of(point_of("homogeneity", "paper"))
    assert work is not None
    assert counted_by_hand(64, 32, 1, 3) == pytest.approx(0.556e9, rel=1e-3)
    assert work.amounts["training"] == 100 * 390 * 128 * 6 * counted_by_hand(64, 32, 1, 3)
    assert work.amounts["training"] == pytest.approx(16.6e15, rel=0.01)
    plan = planning.forecast(load(CONFIG, {"scale": "paper"}), Path("no project"))
    assert plan.total("flop") == pytest.approx(450e15, rel=0.01)
    assert planning.aim_share(450e15) == pytest.approx(0.126, abs=0.001)


LINEAR = [
    ("sparsity", "steps"),
    ("sparsity_batch", "steps"),
    ("plasticity", "steps"),
    ("plasticity", "tasks"),
    ("factorization_stability", "steps"),
    ("stationary_conditions", "steps"),
    ("hessian_structure", "steps"),
    ("attention", "steps"),
    ("attention", "points"),
]


@pytest.mark.parametrize(("experiment", "name"), LINEAR)
def test_work_is_linear_in_steps_and_sizes(experiment: str, name: str) -> None:
    point = point_of(experiment)
    value = getattr(point.settings, name)
    twice = [2 * part for part in value] if isinstance(value, tuple) else 2 * value
    once, double = costs.work_of(point), costs.work_of(point_of(experiment, settings={name: twice}))
    assert once is not None
    assert double is not None
    assert any(once.amounts.values())
    assert double.amounts == {term: 2 * amount for term, amount in once.amounts.items()}


@pytest.mark.parametrize("experiment", ["sparsity_batch", "matrix_factorization", "factorization_stability"])
def test_work_is_linear_in_the_runs_of_a_block(experiment: str) -> None:
    point = point_of(experiment, settings={"measured_steps": [100]} if experiment == "matrix_factorization" else None)
    rates = point.grid["learning_rate"]
    double = dataclasses.replace(point, grid={**point.grid, "learning_rate": [*rates, *rates]})
    once, twice = costs.work_of(point), costs.work_of(double)
    assert once is not None
    assert twice is not None
    assert twice.amounts == {term: 2 * amount for term, amount in once.amounts.items()}


def test_matrix_factorization_counts_each_spectrum_that_it_takes() -> None:
    point = point_of("matrix_factorization", settings={"dimension": 20, "measured_steps": [0, 5, 10]})
    runs = len(point.grid["signal"]) * len(point.grid["learning_rate"])
    work = costs.work_of(point)
    assert work is not None
    assert work.amounts == {"updates": 10 * runs * 400, "spectra": (2 * runs + 1) * 3 * 8000}


@pytest.mark.parametrize(
    "experiment",
    [
        "sparsity",
        "plasticity",
        "stationary_conditions",
        "regularized_factorization",
        "matrix_factorization",
        "attention",
    ],
)
def test_the_bytes_of_a_result_are_those_of_its_variables(experiment: str) -> None:
    point = point_of(experiment, "tiny")
    module = load_experiment(point.module)
    dataset = module.run(point.settings, point.grid, point.seed, Context())
    assert costs.result_bytes(point) == 8 * sum(dataset[name].size for name in module.variables)


def test_every_experiment_of_the_configuration_has_its_work_and_its_bytes_counted() -> None:
    config = load(CONFIG, {"scale": "paper"})
    for name in config.experiments:
        for point in points_of(config, name):
            assert costs.work_of(point) is not None
            assert (costs.result_bytes(point) or 0) > 0


def test_a_fit_finds_the_rates_that_made_the_times() -> None:
    amounts = [{"a": 0.0, "b": 1e6}, {"a": 5e9, "b": 1e6}, {"a": 1e9, "b": 4e7}, {"a": 0.0, "b": 0.0}]
    seconds = [0.7 + 3e-10 * job["a"] + 2e-8 * job["b"] for job in amounts]
    terms = fit([{"start": 1.0, **job} for job in amounts], seconds)
    assert terms == pytest.approx({"start": 0.7, "a": 3e-10, "b": 2e-8})


def test_a_fit_of_noisy_times_gives_no_negative_rate() -> None:
    terms = fit([{"start": 1.0, "a": 1.0}, {"start": 1.0, "a": 100.0}], [1.0, 0.9])
    assert terms["a"] == 0
    assert 0.9 <= terms["start"] <= 1.0


def made_up_rates(device: str = "cpu", **changes: Any) -> Rates:
    config = load(CONFIG, {"scale": "paper"})
    works = [costs.work_of(point) for name in config.experiments for point in points_of(config, name)]
    content = {
        "device": device,
        "name": "a processor",
        "date": "2024-05-01",
        "software": "",
        "code_version": "",
        "peak_flops": 1e15,
        "starts": {work.module: 2.0 for work in works if work} | {"collect": 1.0, "notebook": 5.0},
        "terms": {work.module: dict.fromkeys(work.amounts, 1e-9) for work in works if work and not work.arm},
        "trainings": {arm: Arm(speeds=[Speed(step_flop=1e9, seconds_per_flop=5e-15)]) for arm in ("vanilla", "dcs")},
    }
    return Rates.model_validate({**content, **changes})


def test_seconds_are_the_start_and_each_amount_at_its_rate() -> None:
    rates = made_up_rates(terms={"sparsity": {"draws": 1e-8, "vanilla": 2e-10, "rescaled": 3e-10}})
    work = costs.Work("sparsity", {"draws": 1e7, "vanilla": 1e9, "rescaled": 2e9})
    assert rates.seconds(work) == pytest.approx(2.0 + 0.1 + 0.2 + 0.6)
    assert rates.seconds(costs.Work("sparsity", {"another": 1.0})) is None
    assert rates.seconds(costs.Work("another", {"steps": 1.0})) is None


def test_training_speed_is_interpolated_between_sizes_and_tests_have_their_own() -> None:
    speeds = [Speed(step_flop=1e9, seconds_per_flop=4e-14), Speed(step_flop=1e11, seconds_per_flop=1e-14)]
    rates = made_up_rates(trainings={"vanilla": Arm(speeds=speeds, evaluation=3e-14)})

    def work(step_flop: float) -> costs.Work:
        return costs.Work("homogeneity", {"training": 1e15, "evaluation": 1e14}, "vanilla", step_flop)

    assert rates.seconds(work(1e9)) == pytest.approx(2 + 40 + 3)
    assert rates.seconds(work(1e10)) == pytest.approx(2 + 20 + 3)
    assert rates.seconds(work(1e13)) == pytest.approx(2 + 10 + 3)
    assert rates.share_of_peak(work(1e11)) == pytest.approx(0.1)


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


def looks(seconds: float) -> float:
    """The last time that Snakemake looked at a job, counted look by look."""
    time, number, last = 0.0, 1, 0.0
    while time <= seconds:
        last = time
        time += 30 if number > 30 else 0.5
        number += 1
    return last


@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.9, 7.3, 14.9, 15.0, 15.2, 20, 44.9, 45.1, 100])
def test_the_last_look_at_a_job_is_where_snakemakes_timer_has_it(seconds: float) -> None:
    assert benchmarks.last_look(seconds) == looks(seconds)


def write_benchmark(path: Path, seconds: float, cpu: float | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\tcpu_time\n{seconds}\t0\t1\t1\t{cpu}\n")
    return path


def test_computed_seconds_count_what_came_after_the_last_look(tmp_path: Path) -> None:
    at_half_speed = write_benchmark(tmp_path / "a.tsv", 90.0, 37.5)  # looked at after 75 s
    assert benchmarks.busy_seconds(at_half_speed) == pytest.approx(45.0)
    assert benchmarks.clock_seconds(at_half_speed) == 90.0
    assert benchmarks.busy_seconds(write_benchmark(tmp_path / "b.tsv", 0.3, "NA")) == 0.3
    assert benchmarks.busy_seconds(tmp_path / "missing.tsv") is None


def test_the_timer_of_looks_runs_late(tmp_path: Path) -> None:
    """Of 75.8 s on a core of its own, Snakemake saw 45: the look that was due after 75 s had not come yet."""
    path = write_benchmark(tmp_path / "a.tsv", 75.8, 45.0)
    assert benchmarks.busy_seconds(path) == pytest.approx(75.8)


def quick() -> Config:
    return load(CONFIG, {"scale": "quick"})


def test_totals_are_the_sums_of_the_rows(tmp_path: Path) -> None:
    write_rates(made_up_rates(), rates_file(tmp_path, "cpu"))
    found = planning.forecast(quick(), tmp_path).to_dict()
    rows, total = found["experiments"], found["total"]
    config = quick()
    points = sum(len(points_of(config, name)) for name in config.experiments)
    every = points + len(config.experiments) + len(config.figures)
    assert total["jobs"] == total["left"] == sum(row["jobs"] for row in rows) == every
    assert total["cpu_seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert total["flop"] == sum(row["flop"] for row in rows) > 0
    assert total["storage"] == sum(row["storage"] or 0 for row in rows)
    assert total["gpu_seconds"] == 0
    for row in rows:
        assert row["seconds"] == row["seconds_left"] == pytest.approx(sum(row["seconds_per_job"]))
        assert len(row["seconds_per_job"]) == row["jobs"]


def test_what_is_there_is_not_left_to_run(tmp_path: Path) -> None:
    write_rates(made_up_rates(), rates_file(tmp_path, "cpu"))
    points = points_of(quick(), "sparsity")
    before = next(row for row in planning.forecast(quick(), tmp_path).rows if row.name == "sparsity")
    for point in points[:4]:
        path = tmp_path / "results" / "points" / point.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    row = next(row for row in planning.forecast(quick(), tmp_path).rows if row.name == "sparsity")
    assert (row.jobs, row.left, row.storage) == (10, 6, 10_000)
    assert row.seconds == before.seconds
    assert row.seconds_left == pytest.approx(0.6 * (before.seconds or 0))


def test_without_rates_the_jobs_that_have_run_tell(tmp_path: Path) -> None:
    point = points_of(quick(), "sparsity")[0]
    write_benchmark(tmp_path / "results/benchmarks/points" / point.name.with_suffix(".tsv"), 10.0, 10.0)
    rows = {row.name: row for row in planning.forecast(quick(), tmp_path).rows}
    assert (rows["sparsity"].seconds, rows["sparsity"].source) == (100.0, "benchmarks")
    assert (rows["attention"].seconds, rows["attention"].source) == (None, "not measured")


def test_where_no_gpu_was_measured_the_plan_says_so_and_what_would_be(tmp_path: Path) -> None:
    plan = planning.forecast(load(CONFIG, {"scale": "paper"}), tmp_path)
    flop = plan.total("flop")
    assert {row.name for row in plan.rows if row.device == "cuda"} == {"homogeneity", "dcs_resnet"}
    lines = planning.aim_lines(plan)
    assert "450 PFLOP" in lines[0].replace("449", "450")
    assert "no GPU was ever measured" in lines[1]
    assert "not measured" in lines[2]
    assert f"{flop / (0.16 * 989e12) / 3600:.2f} hours at 16 %" in lines[2]
    assert not any(row.seconds for row in plan.rows if row.device == "cuda")


def test_a_measured_gpu_is_held_against_the_aim(tmp_path: Path) -> None:
    speeds = [Speed(step_flop=4e11, seconds_per_flop=1 / (0.25 * 989e12))]
    arms = {arm: Arm(speeds=speeds, evaluation=1e-30) for arm in ("vanilla", "dcs")}
    starts = {"homogeneity": 0.0, "dcs_resnet": 0.0}
    rates = made_up_rates("cuda", peak_flops=989e12, trainings=arms, starts=starts, terms={}, name="NVIDIA H100 80GB")
    write_rates(rates, rates_file(tmp_path, "cuda"))
    plan = planning.forecast(load(CONFIG, {"scale": "paper"}), tmp_path)
    assert all(row.share == pytest.approx(0.25) for row in plan.rows if row.device == "cuda")
    assert plan.total("seconds", "cuda") == pytest.approx(plan.total("flop") / (0.25 * 989e12))
    assert "25.0 % of its peak; the aim is met" in planning.aim_lines(plan)[1]


def test_a_damaged_file_of_rates_is_one_sentence(tmp_path: Path) -> None:
    path = rates_file(tmp_path, "cpu")
    path.parent.mkdir(parents=True)
    path.write_text('{"device": "cpu"}')
    with pytest.raises(FileError, match=r"is no file of rates"):
        read_rates(tmp_path, "cpu")


def test_rates_of_this_project_come_before_those_that_came_with_it(tmp_path: Path) -> None:
    write_rates(made_up_rates(name="came with it"), tmp_path / "config" / "rates.json")
    found = read_rates(tmp_path, "cpu")
    assert found is not None
    assert found[0].name == "came with it"
    assert read_rates(tmp_path, "cuda") is None
    write_rates(made_up_rates(name="measured here"), rates_file(tmp_path, "cpu"))
    found = read_rates(tmp_path, "cpu")
    assert found is not None
    assert found[0].name == "measured here"


def test_the_rates_that_come_with_the_project_cover_every_job_of_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(CONFIG)
    plan = planning.forecast(quick(), tmp_path)
    assert all(row.source == "rates" and row.seconds for row in plan.rows)
    assert "config/rates.json" in plan.sources["cpu"]


def test_the_shortened_jobs_tell_every_term_of_every_module_apart() -> None:
    sessions = shortened(quick())
    assert {session.module for session in sessions} == {quick().module_of(name) for name in quick().experiments}
    for session in sessions:
        amounts = session.amounts()
        truth = {term: 10.0 ** -(9 + place) for place, term in enumerate(amounts[0])} | {"start": 1.5, "job": 0.05}
        seconds = [sum(truth[term] * amount for term, amount in row.items()) for row in amounts]
        assert fit(amounts, seconds) == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("minutes", [1.0, 5.0])
def test_the_shortened_descent_takes_the_steps_that_are_counted(minutes: float, tmp_path: Path) -> None:
    (session,) = (found for found in shortened(quick(), minutes) if found.module == "regularized_factorization")
    descent = session.measured[1]
    taken = run_point(descent, Layout(tmp_path)).steps.sum().item()
    counted = costs.work_of(descent).amounts["descent"] / descent.settings.dimension**3  # type: ignore[union-attr]
    assert taken == counted


def test_a_module_starts_as_long_as_its_first_points_take_besides_their_work() -> None:
    """Rates of made-up times: two kernels are loaded at the start, every point costs a little, a step its rate."""
    points = [point_of("stationary_conditions", settings={"steps": count}) for count in (20, 8000)]
    short, long = (costs.work_of(point).amounts["steps"] for point in points)  # type: ignore[union-attr]
    session = Session([points[0], points[0]], [points[0], points[1]])
    times = [2 + 2 * (0.05 + 1e-5 * short), 0.05 + 1e-5 * short, 0.05 + 1e-5 * long]
    starts, terms, trainings = calibration._fitted([session], [times])
    assert starts == {"stationary_conditions": pytest.approx(2.05)}
    assert terms == {"stationary_conditions": {"steps": pytest.approx(1e-5)}}
    assert not trainings


def test_points_of_a_process_are_timed_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ends = iter([3.0, 3.5, 5.5])
    monkeypatch.setattr(calibration.time, "process_time", lambda: next(ends))
    point = point_of("stationary_conditions", settings={"steps": 5})
    assert measure_points([point, point, point], "cpu") == [3.0, 0.5, 2.0]
    assert (tmp_path / "results/points" / point.name).is_file()


def test_what_the_end_of_a_process_costs_belongs_to_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process computed in all, 4 s here, is more than its points took; on a busy machine the least counts."""
    (tmp_path / "scratch").mkdir()
    runner = calibration._Runner(tmp_path, tmp_path / "scratch")
    rounds = iter([[2.5, 0.25, 1.0], [2.0, 0.5, 0.75]])

    def run(self: Any, job: calibration.Timed) -> tuple[float, float, str]:
        assert job.arguments[0] == "points"
        return 4.0, 9.0, f"a line of a log\n{json.dumps(next(rounds))}"

    monkeypatch.setattr(calibration._Runner, "run", run)
    point = point_of("stationary_conditions")
    runner.busy = True
    assert runner.session(Session([point], [point, point])) == [2.75, 0.25, 0.75]


def test_training_steps_are_timed_with_their_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of made-up length among all that disturbs: a start, and every other run is held up."""
    now, runs = 0.0, 0

    def wait(seconds: float) -> None:
        nonlocal now, runs
        runs += 1
        now += seconds + (0.7 if runs % 2 else 0)

    def train(network: Any, pictures: Any, settings: Any, device: str) -> None:
        wait(0.1 + 0.02 * len(pictures.train_images) / settings.batch_size)

    monkeypatch.setattr(calibration, "_train", train)
    monkeypatch.setattr("reproduction.training.loop.accuracy", lambda network, pictures: wait(0.004))
    monkeypatch.setattr(calibration.time, "process_time", lambda: now)
    forward = costs.forward_flop(8, 1, (3, 32, 32))
    flop, step, evaluation = calibration._step_speed("vanilla", 8, 64, 1, 3, "cpu")
    assert flop == 64 * 3 * forward
    assert step * flop == pytest.approx(0.02)
    assert evaluation * 64 * forward == pytest.approx(0.004)


def test_real_training_steps_reach_less_than_the_peak() -> None:
    found = measure_steps([(8, 8, 1, 3)], "cpu")
    assert found["peak"] > 1e9
    for arm in ("vanilla", "dcs"):
        ((flop, _, evaluation),) = found["speeds"][arm]
        assert flop == 8 * 3 * costs.forward_flop(8, 1, (3, 32, 32))
        assert 0 < 1 / evaluation < 1.5 * found["peak"]


def test_a_gpus_rates_are_made_of_its_steps_and_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").symlink_to(CONFIG)
    commands = []

    def run(self: Any, job: calibration.Timed) -> tuple[float, float, str]:
        commands.append(job.arguments)
        speeds = {"vanilla": [[4.3e11, 4e-15, 2e-14]], "dcs": [[4.3e11, 5e-15, 2e-14]]}
        found = {"name": "NVIDIA H100 80GB HBM3", "software": "torch", "peak": 0.0, "speeds": speeds}
        return 7.0, 11.0, json.dumps(found)

    monkeypatch.setattr(calibration._Runner, "run", run)
    said: list[str] = []
    rates, path = calibration.calibrate(tmp_path, "cuda", 1, said.append)
    assert path == rates_file(tmp_path, "cuda")
    assert all(arguments[-2:] == ["--device", "cuda"] for arguments in commands)
    assert json.loads(commands[0][1]) == [[64, 128, 20, 120]]
    assert rates.starts == {"homogeneity": 11.0, "dcs_resnet": 11.0}
    assert rates.peak_flops == 989e12
    work = costs.Work("dcs_resnet", {"training": 1e15, "evaluation": 1e14}, "dcs", 4.3e11)
    assert rates.seconds(work) == pytest.approx(11 + 5 + 2)
    assert rates.share_of_peak(work) == pytest.approx(1 / (5e-15 * 989e12))
    assert any("GFLOP/s, 25.3 % of the peak" in line for line in said)


def test_a_job_of_the_calibration_that_fails_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    runner = calibration._Runner(tmp_path, tmp_path / "scratch")
    with pytest.raises(calibration.CalibrationError, match=r"^the job collect of the calibration failed: .*plan.json"):
        runner.run(calibration.Timed("collect", ["collect", "plan.json", "--out", "out.nc"]))


def test_computed_seconds_leave_out_what_a_job_waits(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    runner = calibration._Runner(tmp_path, tmp_path / "scratch")
    before = os.times()
    computed, clock, said = runner.run(calibration.Timed("help", ["--help"]))
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert computed == pytest.approx(used, abs=0.02)
    assert clock >= 0.5 * computed
    assert "The jobs of the workflow" in said


def test_the_command_prints_json_for_machines(tmp_path: Path) -> None:
    from click.testing import CliRunner

    (tmp_path / "config").symlink_to(CONFIG)
    write_rates(made_up_rates(), rates_file(tmp_path, "cpu"))
    done = CliRunner().invoke(cli, ["plan", "--scale", "tiny", "--json", "--directory", str(tmp_path)])
    assert done.exit_code == 0
    assert json.loads(done.output)["total"]["not_measured"] == []
