"""Choosing the torch device, in one place for training and for search."""

from __future__ import annotations

from typing import Any

import torch

from .errors import InvalidInputError


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; without a wish, CUDA where there is one and else the CPU.

    Raises:
        InvalidInputError: If torch does not know the device, or sees no CUDA GPU.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as exc:
        raise InvalidInputError(f"device must be one of torch's, got {device!r}.") from exc
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is 'cuda', but torch sees no CUDA GPU here. Use 'cpu'.")
    return chosen


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16; torch of old is less exact."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:  # avx512_bf16, amx_bf16, and ARM's
        return any(has for name, has in capabilities.items() if name.endswith("bf16"))
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
