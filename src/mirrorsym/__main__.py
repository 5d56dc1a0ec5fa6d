"""``python -m mirrorsym`` is the command ``mirrorsym``."""

from mirrorsym.cli import main

main()
