from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from project import Project, make_project
from runs import TRAINING

CONFIG = {
    "checkpoint_minutes": 0.002,
    "experiments": {"faulty": {**TRAINING, "settings": {**TRAINING["settings"], "epochs": 6}, "seeds": 1}},
    "figures": {},
}


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after an undisturbed run."""
    project = make_project(tmp_path_factory.mktemp("calm") / "project")
    project.configure(CONFIG)
    project.snakemake()
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh project with one training of a second or two, which writes checkpoints all the time."""
    made = make_project(tmp_path / "project")
    made.configure(CONFIG)
    return made
