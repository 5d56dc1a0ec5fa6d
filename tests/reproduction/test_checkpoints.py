"""Two checkpoints kept, a corrupt one passed over, one writer, nothing left when the result stands."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from reproduction.contract import Stopped
from reproduction.files import FileError
from reproduction.pipeline.checkpoints import FileCheckpoint


def state(number: int) -> dict[str, object]:
    return {"step": number, "weight": torch.full((3,), float(number))}


def test_two_are_kept_and_the_newest_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = FileCheckpoint(tmp_path / "point", seconds=0)
    assert checkpoint.load() is None
    assert not capsys.readouterr().out
    for number in range(4):
        checkpoint.save(state(number))
    found = checkpoint.load()
    assert found is not None
    assert found["step"] == 3
    assert capsys.readouterr().out == f"checkpoint {tmp_path / 'point' / '00000003.pt'} is loaded\n"
    assert torch.equal(found["weight"], torch.full((3,), 3.0))
    assert len(list((tmp_path / "point").glob("*.pt"))) == 2
    checkpoint.remove()
    assert not (tmp_path / "point").exists()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_corrupt_one_is_passed_over(tmp_path: Path, damage: bytes | None) -> None:
    checkpoint = FileCheckpoint(tmp_path, seconds=0)
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    newest = max(tmp_path.glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
    found = checkpoint.load()
    assert found is not None
    assert found["step"] == 1


def test_a_pickle_that_calls_something_is_not_run(tmp_path: Path) -> None:
    class Calls:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trap"),)

    checkpoint = FileCheckpoint(tmp_path, seconds=0)
    torch.save({"step": Calls()}, tmp_path / "00000000.pt")
    assert checkpoint.load() is None
    assert not (tmp_path / "trap").exists()


def test_it_is_due_after_its_interval_and_when_asked_to_stop(tmp_path: Path) -> None:
    assert FileCheckpoint(tmp_path / "often", seconds=0).due()
    checkpoint = FileCheckpoint(tmp_path / "seldom", seconds=1000)
    assert not checkpoint.due()
    before = signal.getsignal(signal.SIGUSR1)
    checkpoint.stop_on(signal.SIGUSR1)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert checkpoint.due()
        with pytest.raises(Stopped):
            checkpoint.save(state(5))
    finally:
        signal.signal(signal.SIGUSR1, before)
    found = checkpoint.load()
    assert found is not None
    assert found["step"] == 5


def test_a_checkpoint_of_other_code_is_not_used(tmp_path: Path) -> None:
    older = FileCheckpoint(tmp_path, seconds=0, fingerprint="older")
    older.save(state(1))
    older._lease.close()
    assert FileCheckpoint(tmp_path, seconds=0, fingerprint="today's").load() is None


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = FileCheckpoint(tmp_path, seconds=0)
    with pytest.raises(FileError, match="is leased"):
        FileCheckpoint(tmp_path, seconds=0)
    first.remove()


def test_before_its_deadline_it_saves_and_stops(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "point", seconds=1000, deadline=time.monotonic() + 0.2)
    assert not checkpoint.due()
    time.sleep(0.25)
    assert checkpoint.due()
    with pytest.raises(Stopped, match="before the job's time is over"):
        checkpoint.save(state(1))
    assert not checkpoint.asked_to_stop


def test_a_job_with_a_deadline_waits_for_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduction.pipeline.checkpoints.WAIT_SECONDS", 0.02)
    first = FileCheckpoint(tmp_path / "point", seconds=0)
    with pytest.raises(Stopped, match="is leased"):
        FileCheckpoint(tmp_path / "point", seconds=0, deadline=time.monotonic() + 0.1)
    threading.Timer(0.2, first.remove).start()
    second = FileCheckpoint(tmp_path / "point", seconds=0, deadline=time.monotonic() + 10)
    # The first one's file is gone: what the second holds has to be the file that is there now.
    with pytest.raises(FileError, match="is leased"):
        FileCheckpoint(tmp_path / "point", seconds=0)
    second.remove()


def test_a_result_is_kept_for_the_next_job_of_the_point(tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    first = FileCheckpoint(tmp_path / "point", seconds=0)
    assert first.kept_result() is None
    first.save(state(1))
    for content in (b"older", b"result"):
        out.unlink(missing_ok=True)
        out.write_bytes(content)
        first.keep_result(out)
    out.unlink()  # as Snakemake does before a job starts
    kept = FileCheckpoint(tmp_path / "point", seconds=0).kept_result()
    assert kept is not None
    assert kept.read_bytes() == b"result"
    assert not list(tmp_path.rglob("*.pt"))
