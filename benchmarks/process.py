"""What a process costs, measured from outside."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


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
