"""Where compiled kernels and fonts are kept: beside the results, else where the user's are, at worst until the end.

A cache saves time, and nothing else: one that is damaged is made anew, and where none can be written the work is done
without. :mod:`reproduction.pipeline.compiled` is numba's side of it.
"""

from __future__ import annotations

import os

from reproduction.pipeline.layout import Layout

CACHE_VARIABLE = "MIRRORSYM_CACHE"


def use_caches(layout: Layout) -> None:
    """Let numba and matplotlib, which are not imported yet, keep what they make in the project's folder.

    Folders that the environment names stay, and so does what numba and matplotlib do by themselves where the project
    has no results or cannot be written.
    """
    os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = "reproduction.pipeline.compiled.Locator"
    cache = os.environ.get(CACHE_VARIABLE) or layout.cache
    folder = layout.root.joinpath(cache).resolve()
    if os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))


def ignore_settings() -> None:
    """Let matplotlib, which is not imported yet, read no settings of the user: they would change figures, or end jobs.

    Its defaults are set again where figures are drawn, since a ``matplotlibrc`` in the job's folder comes first.
    """
    os.environ |= {"MATPLOTLIBRC": os.devnull, "MPLBACKEND": "agg"}
