"""Choosing the torch device, in one place for training and for search."""

from __future__ import annotations

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
