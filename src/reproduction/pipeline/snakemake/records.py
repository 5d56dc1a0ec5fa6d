"""Snakemake's records of what made each output, as version 9.27 keeps them, put beside the results they speak of.

They lie under ``.snakemake``, which does not travel with results; without them Snakemake runs jobs again. So the end of
each run copies them into one file of the results, and the start of one puts back what is missing or damaged.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from reproduction.files import FileError, explain, write_atomically

WRITING = 60.0
"""Seconds after which a record that cannot be read is one that nobody is writing."""
UNUSED = ("params", "external_jobid")
"""Not compared, and full of one machine's paths."""


def keep_records(root: Path, kept: Path) -> None:
    """Copy the records of a project's folder into the file ``kept``, with those that it has of further outputs.

    Raises:
        FileError: if the file cannot be written.
    """
    known = _kept(kept)
    found = {name: {**record, **dict.fromkeys(UNUSED)} for name, record in _records(root).items() if record}
    if any(known.get(name) != record for name, record in found.items()):
        write_atomically(kept, json.dumps(known | found, indent=0, sort_keys=True))


def restore_records(root: Path, kept: Path) -> None:
    """Put records back that are missing, or damaged, in a project's folder; a damaged one that is nowhere else goes.

    Raises:
        FileError: if a record cannot be written.
    """
    here, known = _records(root), _kept(kept)
    if known:
        # Without this folder Snakemake takes its records for those of an old version.
        (root / ".snakemake" / "incomplete").mkdir(parents=True, exist_ok=True)
    for name, record in known.items():
        if not here.get(name):
            path = _folder(root) / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record), encoding="utf-8")  # its name may be as long as names can be
            except OSError as error:
                raise FileError(explain(error, path)) from None
    for name, whole in here.items():
        if whole is None and name not in known:
            with contextlib.suppress(OSError):
                (_folder(root) / name).unlink()


def merge_records(kept: Path, further: Path) -> str:
    """Return the content of a file of records with those of another; those that it has stay."""
    return json.dumps(_kept(further) | _kept(kept), indent=0, sort_keys=True)


def _folder(root: Path) -> Path:
    return root / ".snakemake" / "metadata"


def _records(root: Path) -> dict[str, dict[str, Any] | None]:
    """All records by the path of their file, None for one that is damaged; not one that a run is just writing."""
    folder = _folder(root)
    found = {path: _read(path) for path in folder.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(folder)): record for path, record in found.items() if record is not None or _is_old(path)
    }


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > WRITING
    except OSError:
        return False


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    found = _read(path) or {}
    return {name: record for name, record in found.items() if isinstance(record, dict) and _is_inside(name)}


def _is_inside(name: str) -> bool:
    """True for a name that stays in the folder of records, also where the file comes from somebody else."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
