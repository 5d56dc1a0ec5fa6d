"""Bad input, through the typed command: a non-zero exit, one sentence, and the folder as it was."""

from __future__ import annotations

import pytest
from project import Project, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return one copy of the project for all tests here: each asks that it is left as it was."""
    return make_project(tmp_path_factory.mktemp("refused") / "project")


def refused(project: Project, command: str, *arguments: str, **environment: str) -> list[str]:
    """Return the lines that say why, after checking that the command failed and left the folder as it was."""
    before = project.listing()
    run = project.snakemake if command == "snakemake" else project.mirrorsym
    done = run(*arguments, check=False, **environment)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert project.listing() == before
    lines = done.stderr.splitlines()
    if command == "mirrorsym":
        return lines
    return [line for line in lines if "mirrorsym: " in line or line.startswith("  log")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--config", "scale=papr"), ["'papr'", "'paper'"]),
        (("fig3_lefft",), ["'fig3_lefft'", "figure or rule"]),
        (("collect_sparsty",), ["'collect_sparsty'", "'collect_sparsity'"]),
        (("--config", 'figures={"fig77":{}}'), ["fig77", "fig77.ipynb is missing"]),
        (("--config", 'figures={"cifar10":{}}'), ["figures.cifar10", "take another"]),
        (("--config", "device=cuda"), ["cuda", "no GPU"]),
        (
            ("--profile", "profiles/slurm", "--config", 'cluster={"max_runtime":1}'),
            ["2 points of train_sparsity", "cluster.max_runtime is 1", "group-components"],
        ),
        (("--config", "device=gpu"), ["device", "gpu"]),
        (
            ("--config", 'experiments={"sparsity":{"settings":{"step":5}}}'),
            ["experiments.sparsity", "'step'", "'steps'"],
        ),
        (("--config", 'experiments={"sparsity":{"settings":{"steps":-5}}}'), ["experiments.sparsity", "steps", "-5"]),
        (("--config", 'experiments={"sparsity":{"seedz":5}}'), ["experiments.sparsity.seedz", "'seeds'"]),
        (("--config", 'experiments={"sparsity":{"seeds":0}}'), ["seeds", "at least one"]),
        (("--config", 'experiments={"sparsiti":{"seeds":1,"sweep":[{"a":[1]}]}}'), ["'sparsiti'", "'sparsity'"]),
        (("--config", 'figures={"x":{"experiments":["sparsite"]}}'), ["figures.x", "'sparsite'", "'sparsity'"]),
        (("--config", "checksum=1"), ["'checksum'"]),
        (("--config", 'cifar10={"checksum":"md5:12"}'), ["cifar10.checksum", "md5:12"]),
    ],
)
def test_the_workflow_names_what_is_wrong(project: Project, arguments: tuple[str, ...], says: list[str]) -> None:
    lines = refused(project, "snakemake", *arguments)
    assert len(lines) == 1
    assert all(text in lines[0] for text in says), lines


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "sparsty"), ["'sparsty'", "'sparsity'"]),
        (("run", "sparsity", "--set", "learning_rat=1"), ["learning_rat", "'learning_rate'"]),
        (("run", "sparsity", "--set", "learning_rate=-1"), ["learning_rate", "-1"]),
        (("run", "sparsity", "--set", "learning_rate=fast"), ["learning_rate", "fast"]),
        (("run", "sparsity"), ["learning_rate", "0.001", "0.008"]),
        (("run", "sparsity", "--set", "learning_rate=0.1", "--set", "seed=-1"), ["seed=-1"]),
        (("run", "sparsity", "--set", "learning_rate=0.1", "--set", "parameterization=rescale"), ["'rescaled'"]),
        (("run", "sparsity", "--set", "learning_rate"), ["NAME=VALUE"]),
        (("run", "sparsity", "--set", "learning_rate=0.1", "--set", "steps=["), ["YAML"]),
        (("run",), ["EXPERIMENT"]),
        (("import", "nowhere.nc"), ["nowhere.nc"]),
        (("list", "--scale", "big"), ["'big'"]),
        (("trace", "fig3_lefft"), ["'fig3_lefft'"]),
        (("accept", "sparsity"), ["no results"]),
        (("accept",), ["--all"]),
        (("import", "config/config.yaml"), ["config/config.yaml", "netCDF"]),
    ],
)
def test_the_command_names_what_is_wrong(project: Project, arguments: tuple[str, ...], says: list[str]) -> None:
    lines = refused(project, "mirrorsym", *arguments)
    assert len(lines) == 1
    assert all(text in lines[0] for text in says), lines


def test_an_unwritable_place_is_one_sentence(project: Project) -> None:
    out = project.folder / "config" / "config.yaml" / "out.nc"
    lines = refused(
        project, "mirrorsym", "run", "sparsity", "--set", "learning_rate=0.001", "--set", "steps=10", "--out", str(out)
    )
    said = [line for line in lines if line.startswith("mirrorsym: ")]  # beside the progress bar
    assert len(said) == 1
    assert str(out) in said[0]


def test_two_runs_in_one_folder_do_not_write_beside_each_other(project: Project) -> None:
    import fcntl

    results = project.folder / "results"
    results.mkdir(exist_ok=True)
    with open(results / ".lock", "w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = project.snakemake(check=False)
    assert done.returncode != 0
    assert "mirrorsym: another run (process 4711) is going on in this folder" in done.stderr
    assert not list(results.rglob("*.nc"))
