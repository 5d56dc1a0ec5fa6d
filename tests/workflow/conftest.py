from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from project import Project, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return one copy of the project for the tests of a file, which build on each other."""
    return make_project(tmp_path_factory.mktemp("workflow") / "project")
