"""Are two runs the same? Compare the result files, verdicts and figures of one scale in two projects, bit for bit.

    python tests/compare_results.py ONE OTHER quick

ONE and OTHER are project folders. Not compared: attributes (provenance, notes), and variables in seconds or bytes, that
measure the machine; claims and figures made from these differ from run to run. Ends with code 1 at a difference.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

VERDICT = ("verdict", "effect", "interval", "samples")
CONTROL = ("statement", "effect", "interval", "passed")
OF_THE_MACHINE = ("s", "byte")


def differing_variables(one: Path, other: Path) -> Iterator[str]:
    """Yield the variables and coordinates of two result files that do not hold the same bits."""
    with xr.open_dataset(one, decode_cf=False) as first, xr.open_dataset(other, decode_cf=False) as second:
        for name in sorted({*map(str, first.variables), *map(str, second.variables)}):
            if name not in first.variables or name not in second.variables:
                yield f"{one.name}: only one has {name}"
                continue
            a, b = first[name], second[name]
            if a.attrs.get("units") in OF_THE_MACHINE:
                continue
            same = a.dims == b.dims and a.dtype == b.dtype and a.shape == b.shape
            if not same or np.ascontiguousarray(a).tobytes() != np.ascontiguousarray(b).tobytes():
                yield f"{one.name}: {name} differs"


def differing_verdicts(one: Path, other: Path) -> Iterator[str]:
    """Yield the claims on which two files of verdicts do not say the same."""
    first, second = ({c["id"]: c for c in json.loads(path.read_text())["claims"]} for path in (one, other))
    for name in sorted({*first, *second}):
        a, b = first.get(name, {}), second.get(name, {})
        for key in VERDICT:
            if a.get(key) != b.get(key):
                yield f"claim {name}: {key} {a.get(key)} and {b.get(key)}"
        if controls(a) != controls(b):
            yield f"claim {name}: controls differ"


def controls(claim: dict[str, Any]) -> list[list[Any]]:
    """Return what the controls of a judged claim gave."""
    return [[control[key] for key in CONTROL] for control in claim.get("controls", [])]


def differences(one: Path, other: Path, scale: str) -> Iterator[str]:
    """Yield a line for each result file, verdict or figure of two projects that differs or is missing in one."""
    folders = [project / "results" / scale for project in (one, other)]
    for name in sorted({path.name for folder in folders for path in folder.glob("*.nc")}):
        paths = [folder / name for folder in folders]
        if all(path.is_file() for path in paths):
            yield from differing_variables(*paths)
        else:
            yield f"{name}: only one has it"
    if all((folder / "claims.json").is_file() for folder in folders):
        yield from differing_verdicts(*(folder / "claims.json" for folder in folders))
    drawn = [project / "paper" / "figures" / scale for project in (one, other)]
    for name in sorted({path.name for folder in drawn for path in folder.iterdir()}):
        paths = [folder / name for folder in drawn]
        if not all(path.is_file() for path in paths) or paths[0].read_bytes() != paths[1].read_bytes():
            yield f"figure {name} differs"


if __name__ == "__main__":
    found = list(differences(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
    print("\n".join(found) or "the same bits")
    sys.exit(bool(found))
