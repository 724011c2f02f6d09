"""The code memory: the last N_M soft codes, first in, first out (MeCoQ, section 3.4).

Soft codes rather than features are kept, and decoded with the *current* codebooks at every step;
that is why they drift less than stored features would.
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import InvalidInputError


class CodeMemory:
    """A ring of soft codes. Nothing is differentiated through it.

    Args:
        capacity: N_M, the number of soft codes kept, at least 1.
        num_codebooks: M.
        num_codewords: K.
        device: Where the codes are kept.
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
        """Number of soft codes held, at most the capacity."""
        return self._size

    def enqueue(self, soft_codes: torch.Tensor) -> None:
        """Append soft codes (n, M, K), any n; the oldest leave. A detached copy is kept."""
        capacity = len(self._ring)
        newest = soft_codes.detach()[-capacity:].to(self._ring)
        slots = (self._next + torch.arange(len(newest), device=self._ring.device)) % capacity
        self._ring[slots] = newest
        self._next = (self._next + len(newest)) % capacity
        self._size = min(capacity, self._size + len(newest))

    def soft_codes(self) -> torch.Tensor:
        """The soft codes held, (size, M, K), in ring order; a view, valid until `enqueue`."""
        return self._ring[: self._size]

    def state_dict(self) -> dict[str, Any]:
        """The content, for a checkpoint."""
        return {"soft_codes": self.soft_codes().clone(), "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by that of `state_dict`, in the same ring order."""
        self._size = len(state["soft_codes"])
        self._ring[: self._size] = state["soft_codes"]
        self._next = state["next"]
