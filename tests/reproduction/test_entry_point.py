"""The command says what to install where the library was installed alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("missing", ["click", "pydantic", "yaml"])
def test_a_missing_package_of_the_paper_is_one_sentence(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import reproduction.__main__ as command; command.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "--directory", str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    wanted = f"mirrorsym: the command needs {missing}, which the library does not: pip install 'mirrorsym[paper]'"
    assert done.stderr.strip() == wanted
