from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from project import Project, make_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a copy of the project in which nothing has run."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the small project after one run; tests take copies of it, which have nothing to do."""
    made = make_project(tmp_path_factory.mktemp("finished") / "project")
    made.snakemake()
    return made
