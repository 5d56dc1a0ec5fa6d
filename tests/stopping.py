"""A checkpoint that stops a training after a number of steps."""

from __future__ import annotations

import io
from typing import Any

import torch

from reproduction.contract import Stopped


class StopAt:
    """Writes a checkpoint after a given number of steps, through the format of a file, and stops there."""

    def __init__(self, after: int) -> None:
        self.steps_left = after
        self.saved: bytes | None = None

    def due(self) -> bool:
        self.steps_left -= 1
        return self.steps_left == 0

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.saved = buffer.getvalue()
        raise Stopped

    def load(self) -> dict[str, Any] | None:
        if self.saved is None:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(self.saved), map_location="cpu", weights_only=True)
        return state
