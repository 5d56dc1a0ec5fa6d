from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from runs import Silence
from slurm import Slurm, Unavailable

REQUIRED = "MIRRORSYM_CLUSTER_TESTS"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smoke: one of the few that run for every change (make test-cluster-smoke)")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Start a SLURM cluster for all tests, or skip them with the reason; where it is required, fail instead."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # not pytest's: the database's user has to get in
    folder.chmod(0o755)
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    except Unavailable as reason:
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def silence(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Silence]:
    """Start a run that hears nothing of its jobs."""
    started = Silence(tmp_path_factory.mktemp("silence"))
    yield started
    started.run.end()


@pytest.fixture(scope="session", autouse=True)
def silence_begins(request: pytest.FixtureRequest) -> None:
    """Start the silent run before all tests where its own test, the last of all, is among them."""
    if any("silence" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("silence")
