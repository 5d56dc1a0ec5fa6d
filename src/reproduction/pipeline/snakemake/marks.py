"""Snakemake's marks of outputs that are not finished, as version 9.27 leaves them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path


def unfinished_outputs(root: Path) -> dict[str, float]:
    """Return the paths of unfinished outputs below a project's folder, and when each was marked.

    A mark is a file whose name is the output's path in base64, cut into folders with "@" in front where it is long.
    """
    folder = root / ".snakemake" / "incomplete"
    found = {}
    for path in folder.rglob("*"):
        name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        try:
            if path.is_file():
                found[base64.urlsafe_b64decode(name).decode()] = path.stat().st_mtime
        except (binascii.Error, UnicodeDecodeError, OSError):  # another file, or one that was finished meanwhile
            continue
    return found
