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


@pytest.fixture(scope="session", autouse=True)
def silence(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Silence]:
    """Start, before all tests, a run that hears nothing of its jobs until its own test comes, the last of all."""
    started = Silence(tmp_path_factory.mktemp("silence"))
    yield started
    started.run.end()
