"""Where a number comes from: software, device and code for result files, hashes of what was drawn for figures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "torch", "torchvision", "xarray", "netCDF4")
_MODULES = {"scikit-learn": "sklearn"}


def software() -> str:
    """Return the versions of Python and of every imported package that can change a number."""
    loaded = [name for name in PACKAGES if _MODULES.get(name, name) in sys.modules]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in loaded]
    return ", ".join([f"python {platform.python_version()}", *versions])


def device(name: str) -> str:
    """Return the model of the processor, or of the GPU where ``name`` is "cuda"."""
    if name == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return f"CPU {models[0] if models else platform.processor() or platform.machine()}"


def code_version() -> str:
    """Return the git commit of the code, with ``-dirty`` where it is, or the package's version without git."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        from mirrorsym import __version__

        return __version__
    return done.stdout.strip()


def content_hash(datasets: Iterable[xr.Dataset]) -> str:
    """Return a hash of the variables and coordinates of datasets: names, dimensions and values, no attributes."""
    total = hashlib.sha256()
    for dataset in datasets:
        for name in sorted(str(name) for name in dataset.variables):
            variable = dataset.variables[name]
            values = variable.values
            total.update(f"{name} {variable.dims} {variable.shape} {values.dtype.kind}".encode())
            total.update(
                "\0".join(values.ravel().tolist()).encode() if values.dtype.kind in "OUT" else values.tobytes()
            )
    return total.hexdigest()
