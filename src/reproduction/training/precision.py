"""What a network computes in: float32, or bfloat16 by autocast where the processor multiplies it natively."""

from __future__ import annotations

from typing import Literal

import torch

Wanted = Literal["float32", "auto", "bfloat16"]
Precision = Literal["float32", "bfloat16"]


def chosen(wanted: Wanted, device: str) -> Precision:
    """Return what a training on this machine computes in.

    Args:
        wanted: the recipe's choice; ``"auto"`` is bfloat16 where the device has it natively, float32 elsewhere.
        device: ``"cpu"`` or ``"cuda"``.
    """
    if wanted != "auto":
        return wanted
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device != "cpu" else native_on_cpu()
    return "bfloat16" if native else "float32"


def native_on_cpu() -> bool:
    """Whether the CPU has instructions for products of bfloat16 (AVX512-BF16 or AMX), which oneDNN then uses.

    A torch that does not tell counts as a CPU without.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def computing(precision: Precision, device: str) -> torch.autocast:
    """Return the context in which a network's forward pass computes; parameters and gradients stay float32."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
