"""The install finds a Python that fits, says what it will download, and goes on where it broke off."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAKE = """#!/bin/sh
echo "$0 $@" >> {log}
case "$*" in
  "-V") echo "Python {version}" ;;
  *version_info*) exit {unfit} ;;
  *"import pip"*) exit 0 ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *require-hashes*) exit {fails} ;;
esac
"""


class Machine:
    """A machine with these Pythons, and with uv or not; none of them installs anything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.log = folder, folder / "bin", folder / "log"
        self.bin.mkdir()
        for tool in ("sh", "mkdir", "cp", "rm", "cat"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def has(self, name: str, version: str = "3.12.1", fits: bool = True, fails: bool = False) -> None:
        text = FAKE.format(log=self.log, version=version, unfit=int(not fits), fails=int(fails))
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / "sh"), str(ROOT / "envs" / "install.sh"), *arguments]
        environment = {"PATH": str(self.bin)}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)

    def called(self) -> list[str]:
        """What was called to install, without the questions about versions."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if "version_info" not in line and "import pip" not in line and " -V" not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3", "python"])
def test_a_python_that_fits_is_found_by_itself(machine: Machine, name: str) -> None:
    for other in ("python3.11", "python3", "python"):  # as pyenv's, which are there and do not work
        machine.has(other, "3.9.2", fits=False)
    machine.has(name)
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert "GB to download" in done.stdout
    made, locked, package = machine.called()
    assert made.endswith(f"/{name} -m venv .venv")
    assert all(option in locked for option in ("--no-deps", "--require-hashes", "-r envs/requirements.lock"))
    assert "--quiet" not in locked
    assert package.endswith("-e .")


@pytest.mark.parametrize(
    ("pythons", "named", "says"),
    [
        ({"python3": "3.9.2"}, [], "python3 is Python 3.9.2"),
        ({"python3": "3.14.0", "python3.10": "3.10.1"}, [], "python3 is Python 3.14.0"),
        ({}, [], "python3 is not there"),
        ({"mine": "3.8.1"}, ["mine"], "mine is Python 3.8.1"),
        ({}, ["/nowhere/python"], "/nowhere/python is not there"),
    ],
)
def test_no_python_that_fits_is_one_sentence(
    machine: Machine, pythons: dict[str, str], named: list[str], says: str
) -> None:
    for name, version in pythons.items():
        machine.has(name, version, fits=False)
    done = machine.install(*named)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr
    assert not (machine.folder / ".venv").exists()


def test_an_install_that_broke_off_goes_on(machine: Machine) -> None:
    machine.has("python3.12", fails=True)
    assert machine.install().returncode == 1
    kept = machine.folder / ".venv" / "bin" / "python"
    kept.write_text(kept.read_text().replace("*require-hashes*) exit 1", "*require-hashes*) exit 0"))
    assert machine.install().returncode == 0
    assert sum("-m venv" in line for line in machine.called()) == 1


def test_what_another_python_left_is_made_anew(machine: Machine) -> None:
    machine.has("python3.13", "3.13.0")
    (machine.folder / ".venv" / "bin").mkdir(parents=True)
    (machine.folder / ".venv" / "of-python-3.9").touch()
    assert machine.install().returncode == 0
    assert not (machine.folder / ".venv" / "of-python-3.9").exists()


def test_uv_is_used_where_it_is(machine: Machine) -> None:
    machine.has("python3.11")
    machine.has("uv")
    assert machine.install().returncode == 0
    assert any(f"{os.sep}uv pip install --python .venv/bin/python --no-deps" in line for line in machine.called())
    assert not any("-m pip install" in line and "require-hashes" in line for line in machine.called())


def test_the_lock_is_complete_without_what_nothing_uses() -> None:
    lock = (ROOT / "envs" / "requirements.lock").read_text()
    (recipe,) = [part for part in (ROOT / "Makefile").read_text().split("\n\n") if part.startswith("lock:")]
    for name in ("triton", "cuda-bindings", "cuda-pathfinder"):
        assert f"\n{name}==" not in lock
        assert f"--no-emit-package {name}" in recipe
