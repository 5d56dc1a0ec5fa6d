"""``python -m benchmarks.tour``: run docs/tour.ipynb and write docs/tour.md, with what its cells print."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NOTEBOOK, PAGE = Path("docs/tour.ipynb"), Path("docs/tour.md")
NOTE = "*[The notebook](tour.ipynb), with what its cells print; `python -m benchmarks.tour` made this page of it.*"


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Return what each cell of a notebook is, ``markdown``, ``code`` or ``parameters``, and what it says."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    kinds = ["parameters" if "parameters" in cell["metadata"].get("tags", ()) else cell["cell_type"] for cell in found]
    return [(kind, "".join(cell["source"])) for kind, cell in zip(kinds, found, strict=True)]


def run(notebook: Path, space: dict[str, Any], parameters: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Run the code of a notebook, cell after cell in one namespace, and yield what each prints.

    Args:
        notebook: its file.
        space: the namespace.
        parameters: what stands in place of the cell of the parameters.
    """
    for kind, source in cells(notebook):
        if kind == "parameters" and parameters is not None:
            space.update(parameters)
            yield ""
        elif kind != "markdown":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, str(notebook), "exec"), space)
            yield printed.getvalue()


def page(notebook: Path, printed: Sequence[str]) -> str:
    """Return the page of a notebook whose code cells printed this."""
    outputs, parts = iter(printed), list[str]()
    for kind, source in cells(notebook):
        parts.append(source if kind == "markdown" else f"```python\n{source}\n```")
        if kind != "markdown" and (output := next(outputs)):
            parts.append(f"```text\n{output.rstrip()}\n```")
    return "\n\n".join([parts[0], NOTE, *parts[1:]]) + "\n"


def main() -> None:
    """Run the notebook, in the folder where it and its picture lie, and write the page."""
    import torch

    torch.set_num_threads(1)
    notebook, target = NOTEBOOK.resolve(), PAGE.resolve()
    printed = []
    with contextlib.chdir(notebook.parent):
        for text in run(notebook, {"__name__": "tour"}):
            print(text, end="", flush=True)
            printed.append(text)
    target.write_text(page(notebook, printed), encoding="utf-8")


if __name__ == "__main__":
    main()
