"""Processes that end with their parent, one run at a time in a folder, and what a job took."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

from reproduction.files import FileError, explain, lock, write_atomically

PARENT_VARIABLE = "MIRRORSYM_PARENT"
_PR_SET_PDEATHSIG = 1
_IMPORTED = time.monotonic()
_held: list[IO[str]] = []


def end_with_parent() -> None:
    """End this process when the one that started it dies, however it dies: by the kernel, elsewhere by a look a second.

    A workflow killed with SIGKILL would otherwise leave jobs behind that write beside those of the next run. The
    environment variable MIRRORSYM_PARENT says who started this process, since a parent may die before this is called.
    """
    end_with(int(os.environ.pop(PARENT_VARIABLE, os.getppid())))


def end_with(parent: int) -> None:
    """End this process when its parent, the process of this id, dies: the kernel does it, outside Linux a thread."""
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def write_benchmark(path: Path) -> None:
    """Write what this process took since its start, outside Linux since its imports, with its children's share.

    Columns are those of Snakemake's benchmark files: seconds by the clock, peak memory in MB, seconds of the CPU.
    Snakemake's own samples the children of its shell, of which a forked job is none.

    Raises:
        FileError: if the file cannot be written.
    """
    seconds, unit = time.monotonic() - _IMPORTED, 2**20 if sys.platform == "darwin" else 2**10
    if sys.platform == "linux":
        stat = Path("/proc/self/stat").read_text(encoding="utf-8")
        ticks = int(stat.rpartition(")")[2].split()[19])  # proc_pid_stat(5): starttime
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # the file is younger than the job's log: so status knows a success
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {
        "s": f"{seconds:.2f}",
        "max_rss": f"{max(one.ru_maxrss for one in used) / unit:.2f}",
        "cpu_time": f"{sum(one.ru_utime + one.ru_stime for one in used):.2f}",
    }
    write_atomically(path, "\t".join(found) + "\n" + "\t".join(found.values()) + "\n")


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
