"""Exact AQS as matrix products in torch: on a GPU, or on a CPU for large batches of queries.

The decoded vectors of a chunk of items are multiplied with the block-normalised queries, and a
running top-k is kept, so memory is bounded by the chunk, not by the number of items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._arrays import Codes, Ids, Vectors, check_k, check_vectors
from .._devices import pick_device
from .._optional import require
from ..codebooks import Codebooks
from ..scoring import block_normalize
from .code_array import Rows
from .hits import Hits

require("torch", extra="train", purpose="the 'torch' engine")
import torch  # noqa: E402

_CHUNK_ITEMS = 65536
_CHUNK_SCORES = 1 << 25  # scores held at once; 128 MB


class TorchEngine:
    """A full scan on a torch device. Ties are broken arbitrarily."""

    name: ClassVar[str] = "torch"
    file_name: ClassVar[str] = "codes.npz"

    def __init__(self, rows: Rows, device: str | torch.device | None = None) -> None:
        self._rows = rows
        self._device = pick_device(device)
        self._codewords = torch.tensor(np.array(rows.codebooks.codewords), device=self._device)
        self._sync()

    def _sync(self) -> None:
        self._codes = torch.tensor(self._rows.codes, device=self._device)
        self._ids = torch.tensor(self._rows.ids, device=self._device)

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        return self._rows.codebooks

    @classmethod
    def build(
        cls,
        codebooks: Codebooks,
        codes: Codes,
        ids: Ids | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> TorchEngine:
        """An engine that holds ``codes`` (n, M), under ``ids`` (n,) or 0..n-1.

        Args:
            codebooks: The codebooks.
            codes: uint8, shape (n, M).
            ids: int64, shape (n,), or None.
            device: ``cpu``, ``cuda``, ...; CUDA where there is one if None.
        """
        engine = cls(Rows(codebooks), device)
        engine.add(codes, ids)
        return engine

    def add(self, codes: Codes, ids: Ids | None = None) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers."""
        self._rows.add(codes, ids)
        self._sync()

    @torch.no_grad()
    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf."""
        z, k = check_vectors(z, self.codebooks.D, name="z"), check_k(k)
        hits = Hits.empty(len(z), k)
        if not len(self):
            return hits
        queries = torch.from_numpy(block_normalize(z, self.codebooks.M)).to(self._device)
        step = max(1, _CHUNK_SCORES // _CHUNK_ITEMS)
        for start in range(0, len(z), step):
            scores, rows = self._top(queries[start : start + step], min(k, len(self)))
            hits.scores[start : start + step, : scores.shape[1]] = scores.cpu().numpy()
            hits.ids[start : start + step, : scores.shape[1]] = self._ids[rows].cpu().numpy()
        return hits

    def _top(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        best = torch.empty(len(queries), 0, device=self._device)
        rows = torch.empty(len(queries), 0, dtype=torch.int64, device=self._device)
        m = torch.arange(self.codebooks.M, device=self._device)
        for start in range(0, len(self), _CHUNK_ITEMS):
            codes = self._codes[start : start + _CHUNK_ITEMS].long()
            decoded = self._codewords[m, codes].flatten(1)  # (chunk, D)
            scores = queries @ decoded.T
            found, columns = scores.topk(min(k, scores.shape[1]), dim=1)
            best, kept = torch.cat([best, found], dim=1).topk(
                min(k, best.shape[1] + found.shape[1]), dim=1
            )
            rows = torch.cat([rows, columns + start], dim=1).gather(1, kept)
        return best, rows

    def ids(self) -> Ids:
        """The ids of all items held, in the order in which they were added."""
        held: Ids = self._rows.ids.copy()
        return held

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids.

        Raises:
            InvalidInputError: If ids are malformed, or one is not held.
        """
        return self._rows.codes_of(ids)

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        removed = self._rows.remove(ids)
        self._sync()
        return removed

    def save(self, path: Path) -> None:
        """Write codes and ids to one ``.npz`` file, the same that the numpy engine writes."""
        self._rows.save(path)

    @classmethod
    def open(
        cls, path: Path, codebooks: Codebooks, *, device: str | torch.device | None = None
    ) -> TorchEngine:
        """Read what `save` wrote for the same codebooks."""
        return cls(Rows.load(path, codebooks), device)

    @property
    def bytes_per_vector(self) -> float:
        """M bytes of code and 8 of id."""
        return self.codebooks.M + 8.0

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return {
            "engine": self.name,
            "device": str(self._device),
            "items": len(self),
            "exact": True,
            "bytes_per_vector": self.bytes_per_vector,
        }

    def __len__(self) -> int:
        return len(self._rows)
