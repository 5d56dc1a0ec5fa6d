"""The symmetries of any model: what one is, how they are found, and how one is checked."""

from mirrorsym.symmetries.elements import Kind
from mirrorsym.symmetries.find import find_symmetries
from mirrorsym.symmetries.follow import Unfollowed
from mirrorsym.symmetries.result import Symmetries
from mirrorsym.symmetries.symmetry import Slot, State, Symmetry
from mirrorsym.symmetries.verify import holds

__all__ = ["Kind", "Slot", "State", "Symmetries", "Symmetry", "Unfollowed", "find_symmetries", "holds"]
