"""Processes that end with their parent, and one run at a time in a folder."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

from reproduction.files import FileError, explain, lock

PARENT_VARIABLE = "MIRRORSYM_PARENT"
_PR_SET_PDEATHSIG = 1
_held: list[IO[str]] = []


def end_with_parent() -> None:
    """End this process when the one that started it dies, however it dies: by the kernel, elsewhere by a look a second.

    A workflow killed with SIGKILL would otherwise leave jobs behind that write beside those of the next run. The
    environment variable MIRRORSYM_PARENT says who started this process, since a parent may die before this is called.
    """
    parent = int(os.environ.pop(PARENT_VARIABLE, os.getppid()))
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def hold_folder(path: Path) -> str | None:
    """Take a folder's lock file until this process ends; the kernel frees it, so no stale lock outlives a SIGKILL.

    Returns:
        None where the lock was taken, else the id of the process that holds it.

    Raises:
        FileError: if the lock file cannot be written, or the file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held until the process ends)
    except OSError as error:
        raise FileError(explain(error, path)) from None
    if not lock(file, path):
        file.seek(0)
        return file.read().strip() or "unknown"
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held.append(file)
    return None
