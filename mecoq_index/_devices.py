"""Choosing the torch device, in one place for training, embedding and search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._optional import require
from .errors import InvalidInputError

if TYPE_CHECKING:
    import torch


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device; without a request, CUDA if there is a GPU, else the CPU.

    Raises:
        InvalidInputError: If torch does not know the device, or finds no CUDA GPU.
        MissingDependencyError: If torch is not installed.
    """
    require("torch", extra="train", purpose="choosing a device")
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as exc:
        raise InvalidInputError(
            f"device must be one that torch knows, such as 'cpu' or 'cuda', got {device!r}."
        ) from exc
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is 'cuda', but torch sees no CUDA GPU here. Use 'cpu'.")
    return chosen


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16.

    Versions of torch that do not list the CPU's instructions only tell AVX-512 from older ones.

    Raises:
        MissingDependencyError: If torch is not installed.
    """
    require("torch", extra="train", purpose="asking what this CPU can do")
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:  # avx512_bf16, amx_bf16, and ARM's
        return any(has for name, has in capabilities.items() if name.endswith("bf16"))
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
