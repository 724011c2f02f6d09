"""Searching one FAISS index by AQS: settings per call, filters, ranges, re-ranking.

What FAISS does that a reader would not guess:

- ``nprobe`` and the like on the index are shared by all threads; parameters of a call are not.
- IndexPQ and flat FastScan take no parameters at all, so no filter: just the allowed codes are put
  into an index of their own.
- IDMap translates a filter for the index right below it, but Refine hands its parameters on
  unread, so behind Refine a filter must name rows.
- FastScan scales its tables by 255 / span (faiss/utils/quantize_lut.cpp). Where no item scores
  better than another, above all for a zero query, there is no span, and it finds nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Ids, Scores, Vectors, check_ids, check_vectors
from ...aqs import block_normalize, lookup_tables
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ..base import Hits, RangeHits
from .grammar import FactorySpec
from .inject import Layers, import_faiss
from .items import codes_at, item_ids, locate, pack, plain_index

# Tables that span less rank nothing: their differences are rounding.
_TABLE_ROUNDING = 1e-6


class Searcher:
    """Searches an index; holds no state of its own."""

    def __init__(self, index: Any, layers: Layers, spec: FactorySpec, codebooks: Codebooks) -> None:
        self._index, self._layers = index, layers
        self._spec, self._codebooks = spec, codebooks
        self._is_flat = not (spec.nlist or spec.graph)

    def search(
        self,
        z: Vectors,
        k: int,
        *,
        nprobe: int | None,
        k_factor: int | None,
        ef_search: int | None,
        allowed: Ids | None,
    ) -> Hits:
        """See `FaissEngine.search`."""
        self._check_settings(nprobe, k_factor, ef_search)
        queries = self._normalized(z)
        if not len(queries) or not self._index.ntotal:
            return Hits.empty(len(queries), k)
        if allowed is not None and self._is_flat:
            return self._search_among(queries, k, allowed)
        if k_factor is not None and not self._spec.refine:
            hits = self._search_and_rerank(queries, k, k_factor)
        else:
            parameters = self._parameters(nprobe, k_factor, ef_search, allowed)
            scores, ids = self._index.search(queries, k, params=parameters)
            hits = Hits(self._as_aqs(queries, scores) if self._spec.graph else scores, ids)
        if hits.ids.item(hits.ids.argmin()) < 0:  # a third of the time of (ids < 0).any()
            hits.scores[hits.ids < 0] = -np.inf  # FAISS pads with the lowest float
            if self._spec.fast_scan:
                self._fill_ties(hits, queries, allowed)
        return hits

    def _normalized(self, z: Vectors) -> Vectors:
        """Block-normalised queries; checks z on the way, with as few passes as it takes."""
        if not isinstance(z, np.ndarray) or z.ndim != 2 or z.shape[1] != self._codebooks.D:
            check_vectors(z, self._codebooks.D, name="z")
        return block_normalize(z, self._codebooks.M)

    def _as_aqs(self, queries: Vectors, distances: Scores) -> Scores:
        """AQS from the squared distances that FAISS's graphs rank by: |q|^2 + M - 2 AQS."""
        lengths = np.einsum("nd,nd->n", queries, queries)
        scores: Scores = (lengths[:, None] + self._codebooks.M - distances) / 2
        return scores

    def _check_settings(
        self, nprobe: int | None, k_factor: int | None, ef_search: int | None
    ) -> None:
        spec = self._spec
        if nprobe is not None:
            self.check_nprobe(nprobe)
        if k_factor is not None:
            _check_positive("k_factor", k_factor)
            if not spec.refine and (spec.nlist or not spec.fast_scan):
                able = f"{spec},Refine(MeCoQ{spec.M}x{spec.nbits})"
                raise InvalidInputError(
                    f"k_factor is for re-ranking FastScan's rounded scores, but this is {spec}"
                    + (f". Build with '{able}'." if spec.fast_scan else ", which is exact.")
                )
        if ef_search is not None:
            _check_positive("ef_search", ef_search)
            if not spec.graph:
                raise InvalidInputError(f"ef_search is for HNSW indexes, but this is {spec}.")

    def check_nprobe(self, nprobe: int) -> int:
        """Return nprobe if the index has that many lists.

        Raises:
            InvalidInputError: If it has not, or nprobe is no integer.
        """
        if not self._spec.nlist:
            raise InvalidInputError(f"nprobe is for IVF indexes, but this is {self._spec}.")
        whole = isinstance(nprobe, (int, np.integer)) and not isinstance(nprobe, bool)
        if not whole or not 1 <= nprobe <= self._spec.nlist:
            raise InvalidInputError(
                f"nprobe must be an integer between 1 and nlist={self._spec.nlist}, got {nprobe!r}."
            )
        return int(nprobe)

    def _parameters(
        self,
        nprobe: int | None,
        k_factor: int | None,
        ef_search: int | None,
        allowed: Ids | None,
    ) -> Any:
        """FAISS's parameters for one call; None where the index's own settings are meant."""
        if nprobe is None and k_factor is None and ef_search is None and allowed is None:
            return None
        faiss, core = import_faiss(), self._layers.core
        selector = {} if allowed is None else {"sel": self._selector(allowed)}
        if self._spec.graph:
            return faiss.SearchParametersHNSW(efSearch=ef_search or core.hnsw.efSearch, **selector)
        inner = None
        if self._spec.nlist:
            inner = faiss.SearchParametersIVF(nprobe=int(nprobe or core.nprobe), **selector)
        if self._layers.refine is None:
            return inner
        factor = float(k_factor or self._layers.refine.k_factor)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)

    def _selector(self, allowed: Ids) -> Any:
        allowed = check_ids(allowed, len(allowed), name="allowed")
        if self._layers.refine is not None and self._layers.id_map is not None:
            allowed = np.flatnonzero(np.isin(item_ids(self._layers), allowed))
        return import_faiss().IDSelectorBatch(allowed)

    def _search_among(self, queries: Vectors, k: int, allowed: Ids) -> Hits:
        """An exact scan of the allowed items of an index without lists or graph."""
        allowed = check_ids(allowed, len(allowed), name="allowed")
        held = np.sort(allowed[np.isin(allowed, item_ids(self._layers))])
        hits = Hits.empty(len(queries), k)
        if not len(held):
            return hits
        [(number, rows, places)] = locate(self._layers, held)
        scan = plain_index(self._layers)
        scan.add_sa_codes(pack(codes_at(self._layers, rows, number), self._spec.nbits))
        found = min(k, len(rows))
        scores, best = scan.search(queries, found)
        hits.scores[:, :found], hits.ids[:, :found] = scores, held[places][best]
        return hits

    def _search_and_rerank(self, queries: Vectors, k: int, k_factor: int) -> Hits:
        """Fetch more items by FastScan's rounded tables, and rank them by exact ones."""
        core = self._layers.core
        _, rows = core.search(queries, min(k * k_factor, core.ntotal))
        codes = codes_at(self._layers, np.maximum(rows, 0).ravel()).reshape(*rows.shape, -1)
        tables = lookup_tables(queries, self._codebooks)
        exact = np.zeros(rows.shape, np.float32)
        for m in range(self._codebooks.M):
            exact += np.take_along_axis(tables[:, m], codes[:, :, m].astype(np.intp), axis=1)
        exact[rows < 0] = -np.inf
        best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        hits = Hits.empty(len(queries), k)
        hits.scores[:, : best.shape[1]] = np.take_along_axis(exact, best, axis=1)
        ids = np.take_along_axis(rows, best, axis=1)
        if self._layers.id_map is not None:
            ids = np.where(ids < 0, -1, item_ids(self._layers)[ids])
        hits.ids[:, : best.shape[1]] = ids
        return hits

    def _fill_ties(self, hits: Hits, queries: Vectors, allowed: Ids | None) -> None:
        """Answer queries that score all items alike: the lowest ids win."""
        lost = np.flatnonzero(hits.ids[:, 0] < 0)
        if not len(lost):
            return
        tables = lookup_tables(queries[lost], self._codebooks)
        alike = np.ptp(tables, axis=2).max(axis=1) <= _TABLE_ROUNDING
        lost, tables = lost[alike], tables[alike]
        ids = item_ids(self._layers)
        if allowed is not None:
            ids = ids[np.isin(ids, allowed)]
        ids = np.sort(ids)[: hits.ids.shape[1]]
        hits.scores[lost, : len(ids)] = tables[:, :, 0].sum(axis=1)[:, None]
        hits.ids[lost, : len(ids)] = ids

    def range_search(
        self, z: Vectors, threshold: float, *, nprobe: int | None, allowed: Ids | None
    ) -> RangeHits:
        """See `FaissEngine.range_search`."""
        spec = self._spec
        if spec.graph or spec.refine or (spec.fast_scan and not spec.nlist):
            able = f"IVF1,MeCoQ{spec.M}x{spec.nbits}" + "fs" * spec.fast_scan
            raise InvalidInputError(
                f"FAISS has no range search for {spec}. Build with '{able}', which has."
            )
        if not math.isfinite(threshold):
            raise InvalidInputError(f"threshold must be a finite score, got {threshold!r}.")
        if allowed is not None and not spec.nlist:
            raise InvalidInputError(
                f"a range search among allowed items is for IVF indexes, but this is {spec}. "
                f"Build with 'IVF1,MeCoQ{spec.M}x{spec.nbits}'."
            )
        self._check_settings(nprobe, None, None)
        queries = self._normalized(z)
        if not len(queries) or not self._index.ntotal:
            return RangeHits(np.zeros(len(queries) + 1, np.int64), *_sorted([], [], [0]))
        parameters = self._parameters(nprobe, None, None, allowed)
        limits, scores, ids = self._index.range_search(queries, threshold, params=parameters)
        return RangeHits(limits.astype(np.int64), *_sorted(scores, ids, limits))


def _sorted(scores: Any, ids: Any, limits: Any) -> tuple[npt.NDArray[np.float32], Ids]:
    """Best first within each query."""
    scores, ids = np.asarray(scores, np.float32), np.asarray(ids, np.int64)
    sizes = np.diff(np.asarray(limits, np.int64)).astype(np.int64)
    query = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((ids, -scores, query))
    return scores[order], ids[order]


def _check_positive(name: str, value: object) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:  # type: ignore[operator]
        raise InvalidInputError(f"{name} must be an integer of at least 1, got {value!r}.")
