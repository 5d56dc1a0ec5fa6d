"""The slurm profile on a real SLURM: the whole paper at scale tiny, what its jobs ask for, refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import xarray as xr
import yaml
from project import ROOT, SMALL, Project
from runs import PROFILE, TRAINING, Run, make_cluster_project
from slurm import jobs

from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import points_of
from reproduction.pipeline.run import run_point

GPU = {name: {"resources": {"gpu": 1, "mem_mb": 1800, "runtime": 7}} for name in ("homogeneity", "dcs_resnet")}
TINY = {"scale": "tiny", "experiments": GPU, "cluster": {"account": "other", "max_runtime": 60}}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The whole paper at scale tiny, through SLURM."""
    project = make_cluster_project(tmp_path_factory.mktemp("paper") / "project")
    for source in [ROOT / "config" / "config.yaml", *(ROOT / "config" / "scales").glob("*.yaml")]:
        (project.folder / source.relative_to(ROOT)).write_text(source.read_text())
    (project.folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    run = Run(project, "--workflow-profile", *PROFILE[1:], "--configfile", "tiny.yaml")
    assert run.wait(1700) == 0, run.text()[-3000:]
    assert not [path for path in (project.folder / "results/checkpoints").rglob("*") if path.is_file()]
    return project


@pytest.mark.smoke
@pytest.mark.timeout(1800)
def test_the_whole_paper_runs_through_slurm(paper: Project, tmp_path: Path) -> None:
    config = load(paper.folder / "config", TINY)
    for figure in config.figures:
        assert (paper.folder / "paper/figures/tiny" / f"{figure}.pdf").is_file(), figure
    for name in ("sparsity", "homogeneity", "attention"):
        point = points_of(config, name)[-1]
        there = xr.open_dataset(paper.folder / "results/points" / point.name).load()
        here = run_point(point, Layout(tmp_path))
        xr.testing.assert_identical(there.drop_attrs(), here.drop_attrs())


def test_jobs_asked_for_what_they_need(paper: Project) -> None:
    """One CPU a job, a GPU for the trainings alone, memory and time as configured, on the account given."""
    config = load(paper.folder / "config", TINY)
    asked = [job for job in jobs() if job["Account"] == "other"]
    for name, entry in config.experiments.items():
        mine = [job for job in asked if job["Comment"].endswith(f"train_{name}")]
        assert len(mine) == (2 if name == "attention" else 1), name  # its six points are packed by three
        minutes = 0
        for job in mine:
            wanted = dict(part.split("=") for part in job["ReqTRES"].split(","))
            assert wanted["cpu"] == "1", name
            assert wanted.get("gres/gpu") == ("1" if entry.resources.gpu else None), name
            assert wanted["mem"] == f"{entry.resources.mem_mb}M", name
            hours, rest, _ = map(int, job["Timelimit"].split(":"))
            assert 60 * hours + rest <= config.cluster.max_runtime
            minutes += 60 * hours + rest
        points = len(points_of(config, name))
        share = config.cluster.max_runtime // (points // len(mine))
        assert minutes == min(entry.resources.runtime, share) * points, name
    assert not any("collect" in job["Comment"] or "cifar10" in job["Comment"] for job in asked)


@pytest.mark.timeout(1800)
def test_a_refused_submission_is_one_sentence_and_the_same_command_goes_on(slurm: object, tmp_path: Path) -> None:
    project = make_cluster_project(tmp_path / "project")
    training = {**TRAINING, "settings": {**TRAINING["settings"], "epochs": 1}, "seeds": 2, "resources": {"gpu": 1}}
    project.configure(
        {**SMALL, "experiments": {**SMALL["experiments"], "homogeneity": training}, "cluster": {"gpu_partition": "big"}}
    )
    command = (*PROFILE, "--retries", "0")
    charged = Run(project, *command, "--config", 'cluster={"account": "nobody"}')
    assert charged.wait() == 1
    failures = [line for line in charged.text().splitlines() if line.startswith("mirrorsym: train_")]
    assert len(failures) == 4, charged.text()[-3000:]
    assert all("The given account nobody appears to be invalid" in failure for failure in failures)

    refused = Run(project, *command)
    assert refused.wait() == 1
    sentences = [line for line in refused.text().splitlines() if line.startswith("mirrorsym: train_homogeneity failed")]
    assert len(sentences) == 2, refused.text()[-3000:]
    assert all("invalid partition specified: big" in sentence for sentence in sentences)
    assert (project.folder / "results/quick/sparsity.nc").is_file()

    host = subprocess.run(["sinfo", "-h", "-o", "%n"], capture_output=True, text=True).stdout.split()[0]
    subprocess.run(["scontrol", "create", "PartitionName=big", f"Nodes={host}", "MaxTime=60"], check=True)
    again = Run(project, *command)
    assert again.wait() == 0, again.text()[-3000:]
    assert project.result("homogeneity").status.values.tolist() == [[0, 0]]
