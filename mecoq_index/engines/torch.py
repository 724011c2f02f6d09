"""Exact AQS as matrix products in torch: on a GPU, or on a CPU for large batches of queries.

The decoded vectors of a chunk of items are multiplied with the block-normalized queries, and a
running top-k is kept, so memory is bounded by the chunk, not by the number of items.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._arrays import Codes, Ids, Vectors, as_vectors, check_k
from .._devices import pick_device
from .._optional import require
from ..codebooks import Codebooks
from ..scoring import block_normalize
from .arrays import ArrayBuilder, ArrayEngine, CodeArray
from .base import Option
from .hits import Hits

require("torch", extra="train", purpose="the 'torch' engine")
import torch  # noqa: E402

_CHUNK_ITEMS = 65536
_CHUNK_SCORES = 1 << 25  # scores in memory at once; 128 MB


class TorchEngine(ArrayEngine):
    """A full scan on a torch device. Ties are broken arbitrarily."""

    name: ClassVar[str] = "torch"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            name="device",
            kind=str,
            help="where the codes lie: cpu, cuda, ... [default: CUDA where there is one]",
            stages=frozenset({"build", "open", "bench"}),
        ),
    )

    def __init__(self, array: CodeArray, device: str | torch.device | None = None) -> None:
        super().__init__(array)
        self._device = pick_device(device)
        self._codewords = torch.tensor(np.array(array.codebooks.codewords), device=self._device)
        self._copy_to_device()

    def _copy_to_device(self) -> None:
        self._codes = torch.tensor(self._array.codes, device=self._device)
        self._ids = torch.tensor(self._array.ids, device=self._device)

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
        engine = cls(CodeArray(codebooks), device)
        engine.add(codes, ids)
        return engine

    @classmethod
    def builder(
        cls, codebooks: Codebooks, items: int, *, device: str | None = None
    ) -> ArrayBuilder:
        """A builder; any number of items will do."""
        return ArrayBuilder(codebooks, partial(cls, device=pick_device(device)))

    def builder_alike(self) -> ArrayBuilder:
        """A builder of an empty engine on the same device."""
        return ArrayBuilder(self.codebooks, partial(type(self), device=self._device))

    @classmethod
    def open(
        cls, path: Path, codebooks: Codebooks, *, device: str | torch.device | None = None
    ) -> TorchEngine:
        """Read what `save` wrote for the same codebooks."""
        return cls(CodeArray.load(path, codebooks), device)

    def add(self, codes: Codes, ids: Ids | None = None) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers."""
        super().add(codes, ids)
        self._copy_to_device()

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        removed = super().remove(ids)
        self._copy_to_device()
        return removed

    @torch.no_grad()
    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf."""
        z, k = as_vectors(z, self.codebooks.D, name="z"), check_k(k)
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

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return {**super().describe(), "device": str(self._device)}
