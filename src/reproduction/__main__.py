"""The entry point of the command ``mirrorsym``, also as ``python -m reproduction``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; where a package is missing that only the paper needs, say what to install."""
    try:
        from reproduction.cli.user import main as command

        command()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("mirrorsym", "reproduction"):
            raise
        sys.exit(
            f"mirrorsym: the command needs {error.name}, which the library does not: pip install 'mirrorsym[paper]'"
        )


if __name__ == "__main__":
    main()
