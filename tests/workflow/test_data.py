"""CIFAR-10 through the typed command: what is wrong with an archive is one sentence, and a good one is trained on."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project import Project

BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


class CallsSomething:
    """A pickle of this creates a file when it is read by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_archive(path: Path, contents: dict[str, bytes], folder: str = "cifar-10-batches-py") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def batches(pictures: int = 40) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    return {
        name: pickle.dumps(
            {
                b"data": random.integers(0, 256, (pictures, 3072), dtype=np.uint8),
                b"labels": [i % 10 for i in range(pictures)],
            },
            protocol=2,
        )
        for name in BATCHES
    }


def environment(path: Path, checksum: str | None = None) -> dict[str, str]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return {
        "MIRRORSYM_CIFAR10_ARCHIVE": str(path),
        "MIRRORSYM_CIFAR10_CHECKSUM": checksum or f"sha256:{digest}",
    }


@pytest.mark.parametrize("kind", ["missing", "checksum", "truncated", "escaping", "calling"])
def test_a_bad_archive_is_one_sentence_and_leaves_nothing(project: Project, tmp_path: Path, kind: str) -> None:
    path, trap = tmp_path / "archive.tar.gz", tmp_path / "trap"
    contents = batches()
    if kind == "calling":
        contents["data_batch_3"] = pickle.dumps({b"data": CallsSomething(trap), b"labels": []}, protocol=2)
    if kind != "missing":
        write_archive(path, contents, "../cifar-10-batches-py" if kind == "escaping" else "cifar-10-batches-py")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    checksum = f"sha256:{'1' * 64}" if kind == "checksum" else None
    done = project.snakemake("cifar10", check=False, **environment(path, checksum))
    said = [line for line in done.stderr.splitlines() if line.startswith("mirrorsym: ")]
    assert done.returncode != 0
    assert len(said) <= 2  # as it happens, and once more as the reason why the run ended
    assert said[-1].startswith("mirrorsym: cifar10 failed: ")
    assert str(path) in said[-1]
    assert "Traceback" not in done.stderr
    assert not trap.exists()
    assert not (project.folder / "data").exists() or not list((project.folder / "data").iterdir())


def test_a_training_reads_the_archive_and_says_where_its_pictures_come_from(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar.gz"
    write_archive(path, batches())
    training = {
        "settings": {"dataset": "cifar10", "width": 8, "epochs": 1},
        "seeds": 1,
        "sweep": [{"weight_decay": [0.001]}],
    }
    project.configure({"experiments": {"homogeneity": training}, "figures": {}})
    project.snakemake(**environment(path))
    result = project.result("homogeneity")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in result.attrs["data_source"]
    assert result.status.item() == 0
    assert 0 <= result.test_accuracy.item() <= 1
    other = project.snakemake("-n", check=False)  # the configured archive is another one
    assert other.returncode != 0
    assert "data/cifar10.nc comes from the archive" in other.stderr
    grown = {**training, "seeds": 2}
    project.configure({"experiments": {"homogeneity": grown}, "figures": {}})
    assert "train_homogeneity          1" in project.snakemake("-n", **environment(path)).stdout
