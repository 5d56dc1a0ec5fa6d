"""Processes that end with their parent, what a process costs, and one run at a time in a folder."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reproduction.files import FileError, explain

PARENT_VARIABLE = "MIRRORSYM_PARENT"
_PR_SET_PDEATHSIG = 1
_held: list[IO[str]] = []


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it dies, however it dies (Linux; elsewhere nothing).

    A workflow killed with SIGKILL would otherwise leave jobs behind that write beside those of the next run. The
    environment variable MIRRORSYM_PARENT says who started this process, since a parent may die before this is called.
    """
    if sys.platform != "linux":
        return
    parent = int(os.environ.pop(PARENT_VARIABLE, os.getppid()))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code, what it printed, and what it cost."""

    code: int
    said: str
    seconds: float
    """By the clock."""
    cpu_seconds: float
    peak_mb: float


def run_measured(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Ended:
    """Run a command to its end and return what it cost, it and the children that it waited for.

    Args:
        command: program and arguments.
        cwd: where it runs.
        environment: all of its environment variables.
    """
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode(errors="replace")
    return Ended(process.returncode, said, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def hold_folder(path: Path) -> str | None:
    """Take a folder's lock file until this process ends; the kernel frees it, so no stale lock outlives a SIGKILL.

    Returns:
        None where the lock was taken, else the id of the process that holds it.

    Raises:
        FileError: if the lock file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 (held until the process ends)
    except OSError as error:
        raise FileError(explain(error, path)) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "unknown"
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held.append(file)
    return None
