"""What a person writes and a rule reads, such as notebooks and claims, as copies beside the results, named by content.

A project that was moved, copied or cloned, is called through a link or with ``--directory`` has its files elsewhere and
of another age. Snakemake compares names and times; those of a copy change with the content alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reproduction.files import FileError, explain, write_atomically

LENGTH = 12
"""Hexadecimal digits of a content's hash in the name of its folder."""

_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def keep(folder: Path, project: Path, *paths: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> list[Path]:
    """Copy files that belong together, and return the copies' paths: ``{folder}/{hash}/{path in the project}``.

    Args:
        folder: of the copies.
        project: the project's folder; of a file outside only the name is kept.
        *paths: the files. Where one is missing they are returned as they are, for Snakemake to say so.
        read: what counts as a file's content.

    Raises:
        FileError: if one cannot be read, or a copy not written.
    """
    if not all(path.is_file() for path in paths):
        return list(paths)
    try:
        contents = {_inside(project, path): read(path) for path in paths}
    except OSError as error:
        raise FileError(explain(error, paths[0], "read")) from None
    parts = [part for name, content in contents.items() for part in (str(name).encode(), content)]
    total = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:LENGTH]
    copies = {folder / total / name: content for name, content in contents.items()}
    for copy, content in copies.items():
        if not (copy.is_file() and copy.read_bytes() == content):
            write_atomically(copy, content)
    return list(copies)


def _inside(project: Path, path: Path) -> Path:
    relative = Path(os.path.relpath(path, project))
    return Path(path.name) if ".." in relative.parts else relative


def as_written(text: str, folder: Path) -> str:
    """Return a message with the copies that it names as the files that a person has to change."""
    return re.sub(rf"{re.escape(str(folder))}/[0-9a-f]{{{LENGTH}}}/", "", text)


def code_of(notebook: Path) -> bytes:
    """Return a notebook without what running it in place leaves there: outputs, counts, and which Python it was.

    What is no notebook is returned as it is; its job says what is wrong.
    """
    content = notebook.read_bytes()
    try:
        found = json.loads(content)
        cells = [_cell(number, cell) for number, cell in enumerate(found["cells"])]
        known = {"cells": cells, "metadata": {"kernelspec": _KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    except (ValueError, KeyError, TypeError, AttributeError):
        return content
    return (json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode()


def _cell(number: int, cell: dict[str, Any]) -> dict[str, Any]:
    tags = cell.get("metadata", {}).get("tags")
    kept = {
        "cell_type": cell["cell_type"],
        "id": f"cell-{number}",
        "metadata": {"tags": tags} if tags else {},
        "source": "".join(cell["source"]),
    }
    return kept | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})
