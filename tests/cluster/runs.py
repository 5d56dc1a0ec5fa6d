"""Runs of the workflow through SLURM: start them, look at what they do, end them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from project import SMALL, Project, make_project

PROFILE = ("--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "3")
TRAINING: dict[str, Any] = {
    "module": "homogeneity",
    "settings": {"dataset": "digits", "width": 8, "stem_stride": 2, "epochs": 40, "crop_padding": 1},
    "sweep": [{"weight_decay": [0.001]}],
}
"""A training of about ten seconds on a core."""
OFTEN = """
import sys

if plugin := sys.modules.get("snakemake_executor_plugin_slurm"):
    plugin.Executor.next_seconds_between_status_checks = property(lambda executor: 3, lambda executor, seconds: None)
"""
"""Asks for the jobs' states every three seconds; by itself the plugin waits ten seconds more after each answer."""


def make_cluster_project(folder: Path) -> Project:
    """Return a fresh copy of the project that looks at its jobs often, since the tests' jobs are short."""
    project = make_project(folder)
    with open(project.folder / "Snakefile", "a") as file:
        file.write(OFTEN)
    return project


class Run:
    """A running ``snakemake --profile profiles/slurm``, its output in a file."""

    def __init__(self, project: Project, *arguments: str, **environment: str) -> None:
        self.project = project
        self.output = project.folder / f"run-{time.monotonic_ns()}.txt"
        command = [sys.executable, "-m", "snakemake", "--cores", "all", *(arguments or PROFILE)]
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=project.folder,
                env=project.environment(environment),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_ctrl_c,
            )

    def wait(self, seconds: float = 600) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.text()[-3000:]}") from None

    def text(self) -> str:
        return self.output.read_text()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """Kill it where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        self.process.wait()


def _hear_ctrl_c() -> None:
    """A command that a shell started in the background ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(what: str, true: Callable[[], Any], seconds: float = 600) -> Any:
    """Wait for something and return it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return found


def checkpoints(project: Project, experiment: str, seed: int) -> list[Path]:
    """Return the checkpoints of a training, oldest first."""
    return sorted(project.folder.glob(f"results/checkpoints/{experiment}/*/*seed~{seed}/*.pt"))


def process_of(project: Project, experiment: str, seed: int) -> psutil.Process | None:
    """Return the process that trains, if any."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        ours = process.info["cwd"] == str(project.folder) and "job" in words and "snakemake" not in words
        if ours and any(f"/{experiment}/" in word and word.endswith(f"seed~{seed}.nc") for word in words):
            return process
    return None


def log_of(project: Project, experiment: str, seed: int) -> str:
    """Return what the last job of a training wrote so far."""
    paths = project.folder.glob(f"results/logs/points/{experiment}/*/*seed~{seed}.log")
    with contextlib.suppress(FileNotFoundError):  # Snakemake removes it before it starts the job again
        return "".join(path.read_text() for path in paths)
    return ""


def silent_sacct(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return a file, and an environment in which ``sacct`` gives no answer as long as that file is there."""
    flag = folder / "silent"
    flag.touch()
    wrapper = folder / "bin" / "sacct"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n[ -e {flag} ] && {{ sleep 1; exit 1; }}\nexec /usr/bin/sacct "$@"\n')
    wrapper.chmod(0o755)
    return flag, {"PATH": f"{wrapper.parent}:{os.environ['PATH']}"}


class Silence:
    """A run whose ``sacct`` gives no answer until it is told to."""

    def __init__(self, folder: Path) -> None:
        self.started = time.monotonic()
        self.flag, environment = silent_sacct(folder)
        self.project = make_cluster_project(folder / "project")
        self.project.configure(SMALL)
        self.run = Run(self.project, **environment)
        until("the silent run's points", lambda: self._points() == 2 or self.run.process.poll() is not None)
        assert self._points() == 2, self.run.text()[-2000:]

    def _points(self) -> int:
        return len(list(self.project.folder.glob("results/points/*/*/*.nc")))
