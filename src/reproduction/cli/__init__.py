"""The command ``mirrorsym``."""
