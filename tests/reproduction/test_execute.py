"""A notebook is executed by this interpreter, and no setting of the user or of the site reaches its figures."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction.files import FileError
from reproduction.pipeline import execute
from reproduction.pipeline.execute import NotebookError

CELL = """
import os, sys, pathlib
import matplotlib.pyplot as plt
from reproduction.report import plotting
look = [plt.get_backend(), *plt.rcParams["font.family"], plt.rcParams["axes.grid"]]
pathlib.Path(figures).mkdir(parents=True)
here = [sys.executable, os.getcwd(), "planted" in globals()]
pathlib.Path(figures, "fig.csv").write_text("\\n".join(map(str, [*here, *look])))
"""


def notebook(path: Path, source: str) -> Path:
    parameters = {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": "figures = ''"}
    cells = [parameters, {"cell_type": "code", "id": "b", "metadata": {}, "source": source}]
    known = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": known}
    whole = {**content, "cells": [{**cell, "execution_count": None, "outputs": []} for cell in cells]}
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernels, start-up files and settings are not ours, and whose home is not there."""
    site = tmp_path / "site"
    for name in ("python3", "mirrorsym"):
        (site / "kernels" / name).mkdir(parents=True)
        argv = ["/nonexistent/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        text = json.dumps({"argv": argv, "display_name": "site", "language": "python"})
        (site / "kernels" / name / "kernel.json").write_text(text)
    (site / "startup.py").write_text("planted = True\n")
    (site / "matplotlibrc").write_bytes("font.family: serif\naxes.grid: True\n# é".encode("latin-1"))
    settings = {
        "JUPYTER_PATH": site,
        "JUPYTER_DATA_DIR": site,
        "JUPYTER_RUNTIME_DIR": "/proc/nowhere",
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "no-such-provisioner",
        "IPYTHONDIR": site,
        "PYTHONSTARTUP": site / "startup.py",
        "MATPLOTLIBRC": site,
        "MPLBACKEND": "no_such_backend",
        "HOME": "/proc/nowhere",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))


def run(folder: Path) -> None:
    drawn = notebook(folder / "fig.ipynb", CELL)
    execute.execute(drawn, folder, folder / "figures", folder / "executed" / "fig.ipynb", ["fig.csv"])


def test_nothing_of_the_machine_reaches_a_figure(tmp_path: Path, hostile: None) -> None:
    (project := tmp_path / "thèse de Zoé (v2)" / "{x}").mkdir(parents=True)
    (folder := tmp_path / "of the notebook").mkdir()
    drawn = notebook(project / "fig.ipynb", CELL)
    job = ["job", "notebook", str(drawn), "--results", ".", "--figures", "figures", "--executed", "out/fig.ipynb"]
    command = [sys.executable, "-m", "reproduction", *job, "--folder", str(folder), "--expect", "fig.csv"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = (project / "figures" / "fig.csv").read_text(encoding="utf-8").splitlines()
    look = ["inline", "sans-serif", "False"]
    assert said == [sys.executable, str(folder), "False", *look]
    assert (project / "out" / "fig.ipynb").is_file()
    assert sorted(path.name for path in (project / "figures").iterdir()) == ["fig.csv"]


def test_a_program_that_is_not_there_is_named_by_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/nonexistent/python")

    monkeypatch.setattr(execute, "_run", start)
    with pytest.raises(FileError, match="No such file or directory: /nonexistent/python"):
        run(tmp_path)


def test_a_notebook_that_does_not_make_its_figure_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_run", lambda *_: None)
    with pytest.raises(NotebookError, match=r"did not make fig.csv; it should call plotting.save"):
        run(tmp_path)
