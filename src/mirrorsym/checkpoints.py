"""Checkpoints of a training: two kept, written whole or not at all, leased to one writer, removed at the end."""

from __future__ import annotations

import fcntl
import io
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any

from mirrorsym.experiments.base import Stopped
from mirrorsym.files import FileError, explain, write_atomically

KEPT = 2


class FileCheckpoint:
    """The checkpoints of one point, in a folder of its own.

    Args:
        folder: where they lie; made when the first is written.
        seconds: the time between two checkpoints.
        fingerprint: of the code that trains; checkpoints of other code are passed over.

    Raises:
        FileError: if another process holds the folder's lease, or the folder cannot be written.
    """

    def __init__(self, folder: Path, seconds: float, fingerprint: str = "") -> None:
        self.folder = folder
        self.seconds = seconds
        self.fingerprint = fingerprint
        self._last = time.monotonic()
        self._stop = False
        self._lease = self._take_lease()

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
                    return state
                print(f"checkpoint {path} was written by other code; it is not used", flush=True)
            except Exception as error:  # torch raises many kinds for a damaged file, and none of them should end a run
                print(
                    f"checkpoint {path} cannot be read ({type(error).__name__}); the one before it is used", flush=True
                )
        return None

    def due(self) -> bool:
        """True where the interval has passed or the run is asked to stop."""
        return self._stop or time.monotonic() - self._last >= self.seconds

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
            raise Stopped(f"stopped as asked; the checkpoint is {self.folder / f'{number:08d}.pt'}")

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

    def _take_lease(self) -> IO[str]:
        path = self.folder / "lease"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lease = open(path, "a")  # noqa: SIM115 (held as long as the checkpoint)
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(f"{self.folder} is leased: another process trains this point; wait for it") from None
        except OSError as error:
            raise FileError(explain(error, path)) from None
        return lease

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True
