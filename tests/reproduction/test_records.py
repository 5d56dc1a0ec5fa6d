"""Snakemake's records travel with the results, and come back where they are missing or damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from snakemake.persistence.file import FilePersistence

from reproduction.pipeline.snakemake.records import keep_records, restore_records

LONG = "results/points/" + "x" * 300 + ".nc"


def persistence(root: Path) -> Any:
    return FilePersistence(nolock=True, path=root / ".snakemake")


def write(root: Path, output: str, **record: Any) -> None:
    kept = persistence(root)
    kept._io_write(kept._metadata_path, {"rule": "train", "record_format_version": 6, **record}, output)


def read(root: Path, output: str) -> Any:
    record = persistence(root)._read_record(output)
    return record and (record.rule, record.input_checksums, record.params)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The records of two outputs, kept beside results; one has a path that Snakemake cuts into folders."""
    (tmp_path / "here").mkdir()
    write(tmp_path / "here", "results/a.nc", input_checksums={"x": "sha256:1"}, params=["/elsewhere/bin/python"])
    write(tmp_path / "here", LONG)
    keep_records(tmp_path / "here", tmp_path / "results" / "records.json")
    return tmp_path / "results" / "records.json"


def test_they_come_back_in_another_folder_without_its_paths(kept: Path, tmp_path: Path) -> None:
    restore_records(tmp_path / "there", kept)
    assert read(tmp_path / "there", "results/a.nc") == ("train", {"x": "sha256:1"}, None)
    assert read(tmp_path / "there", LONG)
    assert "/home/me" not in kept.read_text()


def test_a_record_that_is_there_stays(kept: Path, tmp_path: Path) -> None:
    write(tmp_path / "there", "results/a.nc", rule="newer")
    restore_records(tmp_path / "there", kept)
    assert read(tmp_path / "there", "results/a.nc")[0] == "newer"


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[1]", b"7"])
def test_a_damaged_record_is_made_anew(kept: Path, tmp_path: Path, damage: bytes) -> None:
    """Of another kind than cut short, Snakemake would end with an error at each start."""
    write(tmp_path / "here", "results/new.nc")
    folder = tmp_path / "here" / ".snakemake" / "metadata"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        path.write_bytes(damage)
        os.utime(path, (0, 0))  # not one that a run is just writing
    restore_records(tmp_path / "here", kept)
    assert read(tmp_path / "here", "results/a.nc")[0] == "train"
    assert read(tmp_path / "here", "results/new.nc") is None  # known nowhere else


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]", b'{"a": 1}'])
def test_a_damaged_file_of_records_is_no_error(kept: Path, tmp_path: Path, damage: bytes) -> None:
    kept.write_bytes(damage)
    restore_records(tmp_path / "here", kept)
    keep_records(tmp_path / "here", kept)
    assert len(json.loads(kept.read_text())) == 2


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside"])
def test_a_record_cannot_be_put_elsewhere(kept: Path, tmp_path: Path, name: str) -> None:
    kept.write_text(json.dumps({name: {"rule": "hostile"}}))
    restore_records(tmp_path / "there", kept)
    assert not list(tmp_path.rglob("outside*"))


def test_keeping_adds_to_what_is_kept(kept: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", "results/b.nc")
    keep_records(tmp_path / "other", kept)
    restore_records(tmp_path / "there", kept)
    assert all(read(tmp_path / "there", output) for output in ("results/a.nc", "results/b.nc", LONG))
