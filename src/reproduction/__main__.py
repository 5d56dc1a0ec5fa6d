"""``python -m reproduction`` is the command ``mirrorsym``."""

from reproduction.cli.user import main

main()
