"""The symmetries of any model: what one is, how they are found, and how one is checked."""

from mirrorsym.symmetries.follow import Slot, State, Symmetry, find_symmetries, holds

__all__ = ["Slot", "State", "Symmetry", "find_symmetries", "holds"]
