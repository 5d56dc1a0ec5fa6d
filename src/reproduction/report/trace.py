"""Trace a figure back to the results: what it drew, held against what the result files say now."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

from reproduction.errors import UserError
from reproduction.files import FileError
from reproduction.pipeline import provenance, store
from reproduction.pipeline.layout import FIGURE_FORMATS


class TraceError(UserError, ValueError):
    """A figure carries no provenance."""


def trace(name: str, figures: Path, results: Path) -> list[str]:
    """Return one line per thing that no longer matches; none where the figure is what the results say.

    Args:
        name: the figure's id.
        figures: the folder of the scale's figures.
        results: the folder of the scale's result files.

    Raises:
        FileError: if a figure file is missing.
        TraceError: if a figure file carries no provenance.
    """
    records = {suffix: record_of(figures / f"{name}.{suffix}") for suffix in FIGURE_FORMATS}
    lines = [
        f"{name}.{suffix} and {name}.{FIGURE_FORMATS[0]} were drawn from different results"
        for suffix in FIGURE_FORMATS[1:]
        if records[suffix] != records[FIGURE_FORMATS[0]]
    ]
    for part in records[FIGURE_FORMATS[0]]["drawn"]:
        problem = _compare(part, results)
        if problem:
            lines.append(f"{name}: {problem}")
    return lines


def record_of(path: Path) -> dict[str, Any]:
    """Return the provenance record in a figure file's metadata.

    Raises:
        FileError: if the file is missing.
        TraceError: if it carries no record.
    """
    if not path.is_file():
        raise FileError(f"{path} is missing; make it with snakemake")
    read = {"pdf": _from_pdf, "svg": _from_svg, "png": _from_png}[path.suffix[1:]]
    try:
        record: dict[str, Any] = json.loads(read(path.read_bytes()))
        return {"figure": record["figure"], "drawn": record["drawn"]}
    except (ValueError, TypeError, KeyError, OSError, SyntaxError):  # damaged files raise all of these
        raise TraceError(f"{path} carries no provenance record; make it again with snakemake") from None


def _from_pdf(content: bytes) -> str:
    found = re.search(rb"/Keywords \((.*?[^\\])\)", content, re.DOTALL)
    return re.sub(rb"\\(.)", rb"\1", found[1]).decode("latin-1") if found else ""


def _from_svg(content: bytes) -> str:
    found = re.search(r"<dc:description>(.*?)</dc:description>", content.decode(), re.DOTALL)
    return unescape(found[1], {"&quot;": '"'}) if found else ""


def _from_png(content: bytes) -> str:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return str(picture.info.get("Description", ""))


def _compare(part: dict[str, Any], results: Path) -> str | None:
    path = results / part["file"]
    variables = ", ".join(part["variables"])
    try:
        found = store.read(path)[part["variables"]]
        dims = {name: values for name, values in part["coordinates"].items() if name in found.dims}
        found = found.sel(dims)
    except FileError:
        return f"{path} is missing"
    except KeyError as error:
        return f"{path} no longer has {error.args[0]}"
    if provenance.content_hash([found]) != part["sha256"]:
        return f"{variables} in {path} changed since the figure was drawn"
    return None
