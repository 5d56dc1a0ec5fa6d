"""The command says what to install where the library was installed alone."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", b"\\u2265\n"), ("utf-8", "≥\n".encode())])
def test_the_configuration_is_utf_8_in_any_locale(encoding: str, shown: bytes) -> None:
    """What the terminal cannot show is escaped; the files are read all the same."""
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    say = "from reproduction.cli import user; user.load_experiment = lambda module: user._say([chr(0x2265)]) or exit(3)"
    command = [sys.executable, "-c", f"{say}; user.main()", "list", "--directory", str(ROOT)]
    environment = {**ascii_only, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (3, shown), done.stderr
