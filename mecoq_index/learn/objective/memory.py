"""The code memory: the last N_M soft codes, first in, first out (MeCoQ, section 3.4).

The memory stores soft codes and decodes them with the *current* codebooks at every step, so they
drift less than stored features would.
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import InvalidInputError


class CodeMemory:
    """A ring buffer of soft codes, without gradients.

    Args:
        capacity: N_M, the largest number of soft codes, at least 1.
        num_codebooks: M.
        num_codewords: K.
        device: The device that holds the codes.
    """

    def __init__(
        self,
        capacity: int,
        num_codebooks: int,
        num_codewords: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if capacity < 1:
            raise InvalidInputError(f"capacity must be at least 1, got {capacity}.")
        self._ring = torch.zeros(capacity, num_codebooks, num_codewords, device=device)
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        """The number of stored soft codes, at most the capacity."""
        return self._size

    def enqueue(self, soft_codes: torch.Tensor) -> None:
        """Append a detached copy of soft codes (n, M, K), and drop the oldest ones."""
        capacity = len(self._ring)
        newest = soft_codes.detach()[-capacity:].to(self._ring)
        slots = (self._next + torch.arange(len(newest), device=self._ring.device)) % capacity
        self._ring[slots] = newest
        self._next = (self._next + len(newest)) % capacity
        self._size = min(capacity, self._size + len(newest))

    def soft_codes(self) -> torch.Tensor:
        """Return the stored soft codes, (size, M, K), as a view that the next `enqueue` changes."""
        return self._ring[: self._size]

    def state_dict(self) -> dict[str, Any]:
        """Return the content, for a checkpoint."""
        return {"soft_codes": self.soft_codes().clone(), "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the content that `state_dict` returned, in the same order."""
        self._size = len(state["soft_codes"])
        self._ring[: self._size] = state["soft_codes"]
        self._next = state["next"]
