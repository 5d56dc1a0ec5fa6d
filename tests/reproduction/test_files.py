"""What the disk refuses is said by its own reason and its own path; a file is whole or not there, on any disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproduction.cli import user
from reproduction.files import FileError, check_readable, explain, move, write_atomically
from reproduction.pipeline import store
from reproduction.pipeline.checkpoints import FileCheckpoint
from reproduction.pipeline.process import hold_folder


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.__getitem__)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without file locks: NFS without its daemon, Lustre without its option, others."""

    def refuse(file: object, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("take", [hold_folder, FileCheckpoint], ids=["the run's lock", "a lease"])
def test_a_file_system_without_locks_is_named(no_locks: None, take: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"system without file locks .*move the project to another disk") as said:
        take(*((tmp_path / "results" / ".lock",) if take is hold_folder else (tmp_path / "point", 1.0)))
    assert "delete" not in str(said.value)


def test_a_healthy_file_is_not_called_damaged_where_there_are_no_locks(
    no_locks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment asks HDF5 for locks, its own message says no more than that it failed."""
    (tmp_path / "point.nc").write_bytes(b"as good as any, where HDF5 cannot open it")
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    with pytest.raises(FileError, match="without file locks"):
        store.read(tmp_path / "point.nc")
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    with pytest.raises(store.StoreError, match="is not a readable netCDF file"):
        store.read(tmp_path / "point.nc")


def test_results_are_read_without_locks_unless_the_user_asks_for_them() -> None:
    code = "import reproduction.pipeline.store, os; print(os.environ['HDF5_USE_FILE_LOCKING'])"
    kept = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    for asked, used in (({}, "FALSE"), ({"HDF5_USE_FILE_LOCKING": "TRUE"}, "TRUE")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=kept | asked, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == used


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that Linux refuses to read")
def test_a_disk_that_fails_is_not_a_damaged_file() -> None:
    with pytest.raises(FileError, match=r"/proc/self/mem cannot be read \(Input/output error\)"):
        store.read(Path("/proc/self/mem"))


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "point.nc"

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FileError, match=r"point.nc cannot be read \(Permission denied\); make it readable"):
        check_readable(path)


def test_a_refusal_names_the_file_that_was_refused() -> None:
    folder, missing = Path("paper/figures"), "/nonexistent/python"
    said = explain(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), missing), folder)
    assert said == f"paper/figures cannot be written (No such file or directory: {missing})"
    own = explain(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "paper/.figures.tmp"), folder)
    assert own == "paper/figures cannot be written (Permission denied); make its folder writable"


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(FileError, match=rf"\(Not a directory: {tmp_path}/results"):
        write_atomically(tmp_path / "results" / "points" / "point.nc", b"")


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_is_moved_to_another_disk_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    (here / "figure.pdf").write_bytes(b"new")
    (there / "figure.pdf").write_bytes(b"old")
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
        if fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left") if fails else contextlib.nullcontext():
        move(here / "figure.pdf", there / "figure.pdf")
    assert (there / "figure.pdf").read_bytes() == (b"old" if fails else b"new")
    assert [path.name for path in there.iterdir()] == ["figure.pdf"]
    assert (here / "figure.pdf").exists() == fails


@pytest.mark.parametrize(("raised", "ends"), [(EOFError("inside"), EOFError), (KeyboardInterrupt(), SystemExit)])
def test_the_end_of_a_file_is_not_the_users_wish_to_stop(
    raised: BaseException,
    ends: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(user, "load", fail)
    monkeypatch.setattr(user, "use_caches", lambda layout: None)
    monkeypatch.setattr(sys, "argv", ["mirrorsym", "list"])
    with pytest.raises(ends):
        user.main()
    assert ("stopped as asked" in capsys.readouterr().err) == (ends is SystemExit)
