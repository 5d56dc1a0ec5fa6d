from __future__ import annotations

import sys

import pytest
from hypothesis import settings

# The same examples each time, however slow the machine is; --hypothesis-profile=default looks for others.
settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Networks and pictures of a test are drawn the same, whatever ran before it in its process."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
