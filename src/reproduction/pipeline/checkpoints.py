"""Checkpoints of a training: two kept, written whole or not at all, leased to one writer, removed at the end.

Times are differences of the monotonic clock: a wall clock that jumps moves neither an interval nor a deadline.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any

from reproduction.contract import Stopped
from reproduction.files import FileError, explain, lock, write_atomically

KEPT = 2
RESULT = "result.nc"
WAIT_SECONDS = 1.0
"""Between two looks at a lease that another process holds."""


class FileCheckpoint:
    """The checkpoints of one point, in a folder of its own.

    Args:
        folder: where they lie; made when the first is written.
        seconds: the time between two checkpoints.
        fingerprint: of the code that trains; checkpoints of other code are passed over.
        deadline: when the run has to be over, on the monotonic clock; None where it may take its time.

    Raises:
        FileError: if another process holds the folder's lease, or the folder cannot be written.
        Stopped: if there is a deadline and the lease was not free before it.
    """

    def __init__(self, folder: Path, seconds: float, fingerprint: str = "", deadline: float | None = None) -> None:
        self.folder = folder
        self.seconds = seconds
        self.fingerprint = fingerprint
        self.deadline = deadline
        self._last = time.monotonic()
        self._stop = ""
        self.asked_to_stop = False
        self._lease = self._wait_for_lease() if deadline else self._take_lease()

    def stop_on(self, *signals: signal.Signals) -> None:
        """Write a checkpoint and stop where one of these signals arrives."""
        for number in signals:
            signal.signal(number, self._ask_to_stop)

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state of this code, or None; a corrupt one is passed over for the one before."""
        import torch

        for path in reversed(self._files()):
            try:
                found = torch.load(path, map_location="cpu", weights_only=True)
                if found["fingerprint"] == self.fingerprint:
                    state: dict[str, Any] = found["state"]
                    print(f"checkpoint {path} is loaded", flush=True)
                    return state
                print(f"checkpoint {path} was written by other code; it is not used", flush=True)
            except Exception as error:  # torch raises many kinds for a damaged file, and none of them should end a run
                print(
                    f"checkpoint {path} cannot be read ({type(error).__name__}); the one before it is used", flush=True
                )
        return None

    def due(self) -> bool:
        """True where the interval has passed, the deadline has come, or the run is asked to stop."""
        now = time.monotonic()
        if self.deadline is not None and now >= self.deadline:
            self._stop = self._stop or "stopped before the job's time is over"
        return bool(self._stop) or now - self._last >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state beside the one before it.

        Raises:
            FileError: if the disk is full or the folder cannot be written.
            Stopped: after the state is safe, where the run is asked to stop.
        """
        import torch

        files = self._files()
        number = int(files[-1].stem) + 1 if files else 0
        buffer = io.BytesIO()
        torch.save({"fingerprint": self.fingerprint, "state": state}, buffer)
        write_atomically(self.folder / f"{number:08d}.pt", buffer.getbuffer())
        for old in self._files()[:-KEPT]:
            old.unlink()
        self._last = time.monotonic()
        if self._stop:
            raise Stopped(f"{self._stop}; the checkpoint is {self.folder / f'{number:08d}.pt'}")

    def keep_result(self, path: Path) -> None:
        """Keep the result where the next job of this point looks first, until it is collected.

        A job of a cluster may be started again after it is done: with its group, or by a workflow that was killed and
        does not know of it. Snakemake removes the output before each start.
        """
        kept = self.folder / RESULT
        kept.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a disk without links: such a job computes again
            os.link(path, kept)
        for checkpoint in self._files():
            checkpoint.unlink()
        self._lease.close()

    def kept_result(self) -> Path | None:
        """Return the result that another job of this point kept, or None."""
        path = self.folder / RESULT
        return path if path.is_file() else None

    def remove(self) -> None:
        """Remove everything, once the result stands."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lease.close()

    def remove_if_empty(self) -> None:
        """Remove the folder of a run that ended before its first checkpoint."""
        if not self._files():
            self.remove()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.pt"))

    def _wait_for_lease(self) -> IO[str]:
        """Wait for another process of the same point to end: a job that outlived its workflow, or was requeued."""
        told = False
        while True:
            try:
                return self._take_lease()
            except _LeasedError as leased:
                if time.monotonic() + WAIT_SECONDS >= (self.deadline or 0):
                    raise Stopped(f"stopped before the job's time is over; {leased}") from None
                if not told:
                    print(f"{leased}", flush=True)
                told = True
                time.sleep(WAIT_SECONDS)

    def _take_lease(self) -> IO[str]:
        path = self.folder / "lease"
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lease = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held as long as the checkpoint)
            except FileNotFoundError:  # the holder removed the folder between the two calls
                continue
            except OSError as error:
                raise FileError(explain(error, path)) from None
            if not lock(lease, path):
                raise _LeasedError(f"{self.folder} is leased: another process runs this point; wait for it")
            if _is_still(path, lease):
                return lease
            lease.close()  # the holder removed it after it was opened: a lock on it would keep nobody out

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_stop = True
        self._stop = "stopped as asked"


class _LeasedError(FileError):
    """Another process holds the lease."""


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
