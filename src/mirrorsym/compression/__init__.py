"""Cut what a mirror has left without use: networks that are smaller and compute the same."""

from mirrorsym.compression.compress import compress
from mirrorsym.compression.report import Compression, Cut, Kept

__all__ = ["Compression", "Cut", "Kept", "compress"]
