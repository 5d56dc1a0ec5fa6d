"""Jobs that are forked: what they are given, how they end, and what happens where the server cannot help."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest

from reproduction.pipeline.fork_server import CLIENT, socket_of

SRC = Path(__file__).parents[2] / "src"
MODULES = "reproduction.pipeline.store,lab"
LAB = "imported_at = __import__('time').monotonic()\n"
BUSY = 3.0
"""Seconds of the CPU, more than all else that the test starts and waits for."""
# Stands for the command of a job: the server's processes and the client's own start run it alike.
COMMAND = f"""
import os, sys, time

BUSY = {BUSY}

def main():
    import lab
    what = sys.argv[1]
    print(what, os.getpid(), os.getppid(), os.getcwd(), os.environ["NAME"], "xarray" in sys.modules, flush=True)
    print(lab.imported_at, file=sys.stderr, flush=True)
    if what == "busy":
        while time.process_time() < BUSY:
            pass
        sys.exit()
    if what == "sleep":
        time.sleep(60)
    if what == "crash":
        os.abort()
    if what == "fail":
        sys.exit("it ends badly")
    sys.exit(int(what))
"""


class Server:
    """A server of a folder of its own, whose command ``mirrorsym`` is a stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "lab.py").write_text(LAB)
        (folder / "stand_in.py").write_text(COMMAND)
        self.environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SRC}", "NAME": "of the server"}
        self.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        self.socket = socket_of(Path("jobs"), MODULES)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = f"""
import stand_in
from pathlib import Path
from subprocess import PIPE
from reproduction.pipeline.fork_server import serve
serve(Path("jobs"), ["{MODULES}"], stand_in.main)
"""
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=self.folder, env=self.environment, stdin=PIPE)
        deadline = time.monotonic() + 60
        while not (self.folder / self.socket).is_socket():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ask(self, what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", str(CLIENT), str(self.socket), what]
        environment = {**self.environment, "NAME": "of the job"}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=PIPE, stderr=PIPE)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


def test_a_job_has_its_own_environment_and_folder_and_the_modules_of_its_set(server: Server) -> None:
    server.start()
    ended = [server.ask(what) for what in ("0", "3", "fail")]
    said = [job.communicate(timeout=60) for job in ended]
    assert [job.returncode for job in ended] == [0, 3, 1]
    words = [out.split(maxsplit=3) for out, _ in said]
    assert {rest for *_, rest in words} == {f"{server.folder} of the job True\n"}
    assert len({pid for _, pid, *_ in words}) == 3  # each a process of its own,
    assert len({parent for _, _, parent, _ in words}) == 1
    assert len({err.split()[0] for _, err in said}) == 1  # of one import
    assert said[2][1].endswith("it ends badly\n")


def sleeping(server: Server) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Return the client of a job that sleeps, and the job."""
    client = server.ask("sleep")
    assert client.stdout
    return client, psutil.Process(int(client.stdout.readline().split()[1]))


def test_a_job_that_dies_fails_and_takes_nothing_with_it(server: Server) -> None:
    server.start()
    crashed = server.ask("crash")
    assert crashed.communicate(timeout=60)[1].endswith("was killed\n")
    assert crashed.returncode == 1
    later = server.ask("0")
    assert later.communicate(timeout=60)
    assert later.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_ends_the_client_ends_the_job(server: Server, number: signal.Signals) -> None:
    server.start()
    client, job = sleeping(server)
    client.send_signal(number)
    assert client.wait(timeout=60) != 0
    psutil.wait_procs([job], timeout=60)
    assert not job.is_running()


def test_a_run_that_dies_takes_its_jobs_with_it(server: Server) -> None:
    server.start()
    client, job = sleeping(server)
    server.stop()
    assert client.wait(timeout=60) == 1
    psutil.wait_procs([job], timeout=60)
    assert not job.is_running()


def started_anew(server: Server) -> bool:
    """Ask for a job that only the real command refuses: it has no such word."""
    ended = server.ask("7")
    said = ended.communicate(timeout=60)[1]
    return ended.returncode == 2 and "No such command '7'" in said


def spent() -> float:
    """Return the seconds of the CPU of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_server_ends_with_its_input_and_the_time_of_its_jobs_counts(server: Server) -> None:
    server.start()
    before = spent()
    assert server.ask("busy").wait(timeout=60) == 0
    assert server.process
    assert server.process.stdin
    server.process.stdin.close()
    assert server.process.wait(timeout=60) == 0
    assert spent() - before >= BUSY


def test_where_no_server_answers_the_job_is_started(server: Server) -> None:
    assert started_anew(server)
    server.start()
    assert not started_anew(server)
    server.stop()
    assert started_anew(server)


def test_a_job_of_changed_sources_is_started_anew(server: Server) -> None:
    server.start()
    assert not started_anew(server)
    (server.folder / "lab.py").write_text(f"{LAB}\nchanged = True\n")
    assert started_anew(server)
    assert started_anew(server)


def test_a_module_that_cannot_be_imported_is_the_jobs_to_report(server: Server) -> None:
    (server.folder / "lab.py").write_text("import not_there\n")
    server.start()
    ended = server.ask("0")
    assert "No module named 'not_there'" in ended.communicate(timeout=60)[1]
    assert ended.returncode == 1
