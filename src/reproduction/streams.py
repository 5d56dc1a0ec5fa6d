"""Random streams: every random number comes from a generator that its experiment, seed and purpose name."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(experiment: str, seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose (``"x"``, ``"noise"``, ``"initial"`` …) in one run of an experiment.

    Streams of other names or seeds are independent. SFC64 is NumPy's fastest bit generator.

    Raises:
        ValueError: if ``seed`` is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; a seed is 0 or larger")
    name = hashlib.sha256(f"{experiment}/{purpose}".encode()).digest()[:16]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *np.frombuffer(name, "<u4").tolist()])))


def torch_seed(experiment: str, seed: int, purpose: str) -> int:
    """Return a 63-bit seed for a ``torch.Generator``, derived like :func:`stream`."""
    return int(stream(experiment, seed, purpose).integers(2**63))
