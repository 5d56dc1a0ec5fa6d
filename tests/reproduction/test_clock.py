"""Time by the clock: schedules whose end is known, and a plan against the jobs that a run has left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import netCDF4
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.cli.user import cli
from reproduction.pipeline.clock import EACH, START, goal_of
from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.schedule import Job, wall_seconds

CONFIG = Path(__file__).parents[2] / "config"
HOUSE = {
    "roof": Job(2, ["wall", "timber"]),
    "wall": Job(3, ["ground"]),
    "timber": Job(4),
    "ground": Job(1),
    "garden": Job(5),
}


@pytest.mark.parametrize(
    ("cores", "end"),
    [
        (1, 15),  # the sum
        (2, 9),  # timber 0-4, ground 0-1, wall 1-4, roof 4-6 beside garden 4-9
        (3, 6),  # timber 0-4, ground 0-1, garden 0-5, wall 1-4, roof 4-6
        (9, 6),  # the longest way: timber and roof
    ],
)
def test_a_schedule_ends_when_worked_out_by_hand(cores: int, end: float) -> None:
    assert wall_seconds(HOUSE, cores) == end


def test_the_first_of_the_ready_jobs_starts_first() -> None:
    jobs = {"long": Job(4), "a": Job(2), "b": Job(2)}
    assert wall_seconds(jobs, 2) == 4
    assert wall_seconds({name: jobs[name] for name in ("a", "b", "long")}, 2) == 6


def test_what_is_not_among_the_jobs_has_ended() -> None:
    assert wall_seconds({"roof": HOUSE["roof"]}, 1) == 2
    assert wall_seconds({}, 1) == 0


def test_a_circle_and_no_core_are_refused() -> None:
    with pytest.raises(ValueError, match="these jobs wait for each other: a, b"):
        wall_seconds({"a": Job(1, ["b"]), "b": Job(1, ["a"]), "c": Job(1)}, 2)
    with pytest.raises(ValueError, match="0 cores"):
        wall_seconds(HOUSE, 0)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Job]:
    count = draw(st.integers(1, 12))
    return {
        str(place): Job(draw(st.integers(1, 9)), draw(st.sets(st.integers(place + 1, count).map(str), max_size=3)))
        for place in range(count)
    }


def second_by_second(jobs: dict[str, Job], cores: int) -> int:
    """Return the end of the same schedule, by looking at each second who works."""
    left = {name: job.seconds for name, job in jobs.items()}
    working: list[str] = []
    seconds = 0
    while left:
        ready = [name for name in left if name not in working and not set(jobs[name].needs) & set(left)]
        working += ready[: cores - len(working)]
        for name in list(working):
            left[name] -= 1
            if not left[name]:
                del left[name]
                working.remove(name)
        seconds += 1
    return seconds


@settings(max_examples=50)
@given(graphs(), st.integers(1, 4))
def test_a_schedule_is_the_one_that_a_clock_would_show(jobs: dict[str, Job], cores: int) -> None:
    found = wall_seconds(jobs, cores)
    assert found == second_by_second(jobs, cores)
    assert sum(job.seconds for job in jobs.values()) / cores <= found


SMALL: dict[str, Any] = {
    "cifar10": {"url": "https://example.org", "checksum": f"md5:{'0' * 32}"},
    "experiments": {
        "sparsity": {
            "settings": {"steps": 500},
            "seeds": 3,
            "sweep": [{"parameterization": ["rescaled"], "noise_std": [1], "learning_rate": [0.001, 0.008]}],
        },
        "stationary_conditions": {"settings": {}, "seeds": 2, "sweep": [{"landscape": ["rotation"]}]},
    },
    "figures": {"left": {"experiments": ["sparsity"]}, "right": {"experiments": ["stationary_conditions"]}},
}
SECONDS = {"sparsity": 10.0, "stationary_conditions": 4.0, "collect": 1.0, "figure": 2.0}


def plan(folder: Path, *words: str) -> dict[str, Any]:
    ended = CliRunner().invoke(cli, ["plan", "--json", "--directory", str(folder), *words], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    found: dict[str, Any] = json.loads(ended.output)
    return found


def benchmark(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\n{seconds}\n")


def output(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A project where everything has run; what it made was then removed."""
    layout = Layout(tmp_path)
    (layout.config / "scales").mkdir(parents=True)
    (layout.config / "config.yaml").write_text(json.dumps(SMALL))
    for name in ("cluster.yaml", "scales/quick.yaml", "scales/laptop.yaml"):
        (layout.config / name).write_text("{}")
    for name in points(layout):
        benchmark(layout.point_benchmark(name), SECONDS[name.parts[0]])
    for experiment, figure in zip(SMALL["experiments"], SMALL["figures"], strict=True):
        benchmark(layout.benchmark("quick", f"collect_{experiment}"), SECONDS["collect"])
        benchmark(layout.benchmark("quick", figure), SECONDS["figure"])
    return layout


def points(layout: Layout) -> list[Path]:
    from reproduction.pipeline.config import load
    from reproduction.pipeline.points import points_of

    config = load(layout.config)
    return [point.name for name in config.experiments for point in points_of(config, name)]


def wall_of(jobs: int, *starts: float) -> dict[str, Any]:
    """What a plan says: so many jobs, and the seconds of those that come one after the other."""
    return {"jobs": jobs, "seconds": pytest.approx(START + sum(EACH + seconds for seconds in starts)), "unknown": []}


def clock(layout: Layout, *words: str, cores: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = plan(layout.root, *words, "--cores", str(cores))["wall"]
    assert found.pop("cores") == cores
    return found


def test_on_one_core_a_run_takes_the_sum_of_its_jobs(project: Layout) -> None:
    everything = [10, 10, 10, 4, 4, 1, 1, 2, 2]
    assert clock(project) == wall_of(9, *everything)
    assert clock(project, "left") == wall_of(5, 10, 10, 10, 1, 2)
    assert clock(project, "collect_stationary_conditions") == wall_of(3, 4, 4, 1)


def test_on_more_cores_it_takes_the_longest_row_of_them(project: Layout) -> None:
    assert clock(project, "left", cores=2) == wall_of(5, 10, 10, 1, 2)
    assert clock(project, "left", cores=3) == wall_of(5, 10, 1, 2)
    assert clock(project, "left", "right", cores=99) == wall_of(9, 10, 1, 2)


def test_what_is_done_takes_nothing_and_what_reads_what_is_left_is_made_again(project: Layout) -> None:
    for name in points(project):
        output(project.point(name))
    assert clock(project, "left") == wall_of(2, 1, 2)
    output(project.result("quick", "sparsity"))
    assert clock(project, "left") == wall_of(1, 2)
    output(project.figure("quick", "left", "pdf"))
    assert clock(project, "left") == {"jobs": 0, "seconds": 0, "unknown": []}
    said = CliRunner().invoke(cli, ["plan", "left", "--cores", "2", "--directory", str(project.root)]).output
    assert "on 2 cores: nothing to run" in said
    project.point(points(project)[0]).unlink()
    assert clock(project, "left") == wall_of(3, 10, 1, 2)


def test_configuration_is_given_as_to_snakemake(project: Layout) -> None:
    more = project.root / "more.yaml"
    more.write_text(json.dumps({"experiments": {"sparsity": {"seeds": 5}}}))
    assert clock(project, "left", "--configfile", str(more)) == wall_of(7, *[10] * 5, 1, 2)
    seeds = "experiments={sparsity: {seeds: 4}}"
    assert clock(project, "--configfile", str(more), "--config", "scale=laptop", seeds, "left")["jobs"] == 6
    assert clock(project, "left", "--config", "scale=laptop", seeds, "--cores", "2")["jobs"] == 6
    listed = ["list", "--directory", str(project.root), "--config", "scale=laptop", seeds]
    assert "scale laptop: 4 jobs" in CliRunner().invoke(cli, listed, catch_exceptions=False).output
    assert plan(project.root, "--config", "scale=laptop")["scale"] == plan(project.root, "--scale", "laptop")["scale"]


def test_before_the_first_run_it_is_what_was_kept_from_elsewhere(project: Layout, tmp_path: Path) -> None:
    for name in points(project):
        with netCDF4.Dataset(output(project.point(name)), "w") as file:
            file.setncatts({"device": "CPU of a laptop", "created": "2026-02-03T10:00:00", "code_version": "abc"})
    said = CliRunner().invoke(cli, ["measured", "--directory", str(project.root)], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    here = Layout(tmp_path / "another")
    here.root.mkdir()
    project.config.rename(here.config)
    assert clock(here, "left") == wall_of(5, 10, 10, 10, 1, 2)
    assert "CPU of a laptop, 2026-02-03" in plan(here.root, "left")["sources"]["jobs elsewhere"]


def test_what_nothing_tells_is_said(project: Layout) -> None:
    project.benchmark("quick", "left").unlink()
    assert clock(project, "left") == wall_of(5, 10, 10, 10, 1, 2)  # as the other figure
    for name in points(project):
        project.point_benchmark(name).unlink()
    assert len(clock(project, "left")["unknown"]) == 3
    said = CliRunner().invoke(cli, ["plan", "left", "--cores", "1", "--directory", str(project.root)]).output
    assert "on 1 core: more than 7.8 s by the clock, 5 jobs with collecting and figures; not measured" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lft"], "there is no figure or rule 'lft' (did you mean 'left'?)"),
        (["--cores", "many"], "--cores many: give a number of cores from 1, or all"),
        (["--configfile", "nowhere.yaml"], "--config, --configfile: "),
        (["--config", "=3"], "--config, --configfile: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(project: Layout, words: list[str], sentence: str) -> None:
    ended = CliRunner().invoke(cli, ["plan", "--directory", str(project.root), *words])
    assert ended.exit_code == 1
    assert sentence in str(ended.exception)


def test_the_claims_are_among_the_jobs_where_there_are_files_of_them(tmp_path: Path) -> None:
    config = load(CONFIG, {"scale": "tiny"})
    assert "claims" in goal_of(config, Layout(CONFIG.parent)).rules
    assert "claims" not in goal_of(config, Layout(tmp_path)).rules
