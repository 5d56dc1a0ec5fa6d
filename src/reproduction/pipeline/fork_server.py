"""A process that has imported what jobs need, and forks one for each: a start takes milliseconds, not seconds.

A run on this machine starts one server. It holds a socket for each set of modules that its jobs ask for. When a set is
asked for the first time, a fork of the server imports the modules, with all that they import when they are used, and
from then on that process forks a job for each request. So a job is a process of its own with the packages that its own
experiment needs and nothing of another job, as if it had been started anew; ``software`` in its result says the same.

``fork_client.py`` stands for the job in its rule: it passes its arguments, folder, environment and output on, and ends
as the job ended. Where no server answers, or the sources have changed since it imported them, it starts the job itself.

All of them end with the run, however it ends; they are for Linux alone. Ctrl-C reaches the jobs, which are in the
terminal's group, and not the servers.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from reproduction.pipeline import fingerprints
from reproduction.pipeline.process import PARENT_VARIABLE, end_with

CLIENT = Path(__file__).with_name("fork_client.py")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""As Snakemake has it for its jobs: libraries read these when they are imported."""


def socket_of(folder: Path, modules: str) -> Path:
    """Return the socket where jobs that need the modules, separated by commas, are asked for."""
    return folder / f"{modules}.sock"


def start(mirrorsym: str, folder: Path, sets: Iterable[str]) -> None:
    """Start the server of a run; it ends with this process.

    Args:
        mirrorsym: the command, in words of the shell.
        folder: of the sockets, removed when this process ends.
        sets: modules, each with commas between them.
    """
    command = f"{mirrorsym} job serve {folder} {' '.join(sorted(sets))}"
    server = subprocess.Popen(command, shell=True, env={**os.environ, **ONE_THREAD}, stdin=subprocess.PIPE)

    def end() -> None:
        server.communicate()  # it is waited for, so that its jobs' time is in what the run took
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)


def serve(folder: Path, sets: Iterable[str], command: Callable[[], object]) -> NoReturn:
    """Wait for the first request for each set of modules, and let a fork answer it and those that follow.

    It ends when its standard input does.

    Args:
        folder: of the sockets.
        sets: modules, each with commas between them.
        command: what a job runs, by the arguments in ``sys.argv``.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # jobs end first; this process ends with the run
        signal.signal(number, signal.SIG_IGN)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    for modules in sets:
        with contextlib.suppress(OSError):  # a path too long for a socket: those jobs start by themselves
            waiting.register(_listen(socket_of(folder, modules)), selectors.EVENT_READ, modules)
    import xarray  # noqa: F401 (what all of them need)

    me = os.getpid()
    forks: list[int] = []
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                for fork in forks:
                    os.kill(fork, signal.SIGUSR1)
                    os.waitpid(fork, 0)
                sys.exit()
            listener = waiting.unregister(key.fileobj).fileobj
            assert isinstance(listener, socket.socket)
            fork = os.fork()
            if fork == 0:
                end_with(me)
                waiting.close()
                _answer(listener, key.data.split(","), command)
            forks.append(fork)
            listener.close()


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)  # nobody connects before it listens
    listener.listen(128)
    return listener


def _answer(listener: socket.socket, modules: Iterable[str], command: Callable[[], object]) -> NoReturn:
    """Import the modules, and fork a job for each request, for as long as their sources stay what they are."""
    reached = [name for module in modules for name in fingerprints.reached(module)]
    sources = fingerprints.state_of(reached)
    for name in reached:
        with contextlib.suppress(Exception, SystemExit):  # the job meets the same and reports it
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, _wait_for_ended)
    signal.signal(signal.SIGUSR1, _wait_for_all)
    me = os.getpid()
    while True:
        connection, _ = listener.accept()
        if fingerprints.state_of(reached) != sources:
            os._exit(0)
        if os.fork() == 0:
            end_with(me)
            _run(connection, me, command)
        connection.close()


def _wait_for_ended(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait_for_all(*_: object) -> NoReturn:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(0)


def _run(connection: socket.socket, parent: int, command: Callable[[], object]) -> NoReturn:
    """Become the job that is asked for, and say at its end how it ended."""
    _, descriptors, *_ = socket.recv_fds(connection, 1, 2)
    request = json.loads(connection.makefile("rb").readline())
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update({**request["environment"], PARENT_VARIABLE: str(parent)})
    os.chdir(request["folder"])
    if request["interruptible"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for ordinary in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(ordinary, signal.SIG_DFL)
    # Where the client dies, the kernel sends SIGIO, which ends the job.
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    connection.sendall(f"{os.getpid()}\n".encode())
    sys.argv = ["mirrorsym", *request["arguments"]]
    code = _exit_code(command)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(code)


def _exit_code(command: Callable[[], object]) -> int:
    """Run the command and return its exit code."""
    try:
        command()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0
