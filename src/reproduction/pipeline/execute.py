"""Execute a figure's notebook through papermill, and put its figures in place only when all of it succeeded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from reproduction.errors import UserError
from reproduction.files import FileError, explain, move

_NOTES = "notes.txt"


class NotebookError(UserError, RuntimeError):
    """A notebook failed."""


def execute(
    notebook: Path, results: Path, figures: Path, executed: Path, expected: list[str], folder: Path | None = None
) -> None:
    """Execute a notebook with its parameters set and move what it made into place.

    Args:
        notebook: the notebook, with a cell tagged ``parameters``.
        results: the folder of result files that it reads.
        figures: the folder that its figures go to.
        executed: where the executed copy goes.
        expected: the names of the files that it must make in ``figures``.
        folder: where it runs; where it lies, if nothing else is said.

    Raises:
        NotebookError: if a cell fails or a file was not made; nothing is written to ``figures`` then.
        FileError: if a folder cannot be written.
    """
    # A fixed name, so that what a killed run left is cleared by the next.
    scratch = (figures.parent / f".{figures.name}.{executed.stem}").resolve()
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        for needed in (figures, executed.parent, scratch):
            needed.mkdir(parents=True, exist_ok=True)
        _run(notebook, results, scratch / "figures", scratch, folder or notebook.parent)
        if (notes := scratch / _NOTES).is_file():
            print(notes.read_text(encoding="utf-8"), end="")
        missing = [name for name in expected if not (scratch / "figures" / name).is_file()]
        if missing:
            wanted = "call plotting.save with its id, and tag its first cell 'parameters'"
            raise NotebookError(f"{notebook} did not make {missing[0]}; it should {wanted}")
        for name in expected:
            move(scratch / "figures" / name, figures / name)
        move(scratch / "executed.ipynb", executed)
    except OSError as error:
        raise FileError(explain(error, figures)) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(notebook: Path, results: Path, figures: Path, scratch: Path, folder: Path) -> None:
    os.environ |= {"IPYTHONDIR": str(scratch / "ipython"), "MIRRORSYM_FIGURE_NOTES": str(scratch / _NOTES)}
    import papermill

    from reproduction.pipeline import notebook_engine

    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(scratch / "executed.ipynb"),
            parameters={"results": str(results.resolve()), "figures": str(figures.resolve())},
            engine_name=notebook_engine.NAME,
            progress_bar=False,
            cwd=folder,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        cell = f"cell {error.exec_count}" if error.exec_count else "a cell"
        said = " ".join(str(error.evalue).split())
        raise NotebookError(f"{notebook}: {cell} failed: {error.ename}: {said}") from None


def _literal(path: Path) -> str:
    """Return a path in which papermill finds no parameter: it fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")
