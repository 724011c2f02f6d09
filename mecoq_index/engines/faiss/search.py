"""Searching one FAISS index by AQS: settings per call, filters, ranges, re-ranking.

FAISS behaves in ways that a reader would not guess:

- ``nprobe`` and the like on the index are shared by all threads; parameters of a call are not.
- IndexPQ and flat FastScan take no parameters at all, so no filter: just the allowed codes are put
  into an index of their own.
- IDMap translates a filter for the index right below it, but Refine hands its parameters on
  unread, so after Refine a filter must name rows.
- A graph is left after a number of items, allowed or not, so few of those that a filter allows are
  found, or none.
- FastScan keeps the score of a single hit, for k = 1, in 15 bits, of more hits in 16.
- FastScan rounds scores to whole numbers above the lowest score there can be, in steps of
  span / 255 (faiss/utils/quantize_lut.cpp). It loses the items that score 0 then, which is all of
  them where there is no span, above all for a zero query; and a threshold for a range below the
  lowest score, or above the highest, becomes another one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..._arrays import Ids, Scores, Vectors, as_vectors, check_ids
from ..._optional import import_faiss
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import aqs, block_normalize, lookup_tables
from ..hits import Hits, RangeHits
from .calls import range_search, search
from .inject import Layers
from .items import codes_at, ids_in, ids_of_rows, item_ids, locate, plain_index
from .layout import pack
from .limits import MOST_FAST_SCANNED_ALONE
from .spec import FactorySpec

# Tables that span less rank nothing: their differences are rounding.
_TABLE_ROUNDING = 1e-6
_RERANKED_AT_ONCE = 1 << 22  # subquantizers of candidates; about 100 MB


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
        if allowed is not None and not self._spec.nlist:
            held = self._held(allowed)
            view = self._view_among(len(held), k, ef_search)
            if len(held) <= view:
                return self._search_among(queries, k, held)
            ef_search = view
        if k_factor is not None and not self._spec.refine:
            hits = self._search_and_rerank(queries, k, k_factor)
        else:
            parameters = self._parameters(k, nprobe, k_factor, ef_search, allowed)
            # FAISS has a way of its own for k = 1, which cannot score as much.
            wide = self._spec.fast_scan and self._spec.M > MOST_FAST_SCANNED_ALONE
            fetched = max(k, 2) if wide else k
            scores, ids = search(self._index, queries, fetched, parameters)
            scores, ids = scores[:, :k], ids[:, :k]
            hits = Hits(self._as_aqs(queries, scores) if self._spec.graph else scores, ids)
        if hits.ids.item(hits.ids.argmin()) < 0:  # a third of the time of (ids < 0).any()
            hits.scores[hits.ids < 0] = -np.inf  # FAISS pads with the lowest float
            if self._spec.fast_scan or self._spec.coarse_kind.endswith("fs"):
                self._find_lost(hits, queries, nprobe, allowed)
        for row, lists in self._lost_lists(queries, nprobe).items():
            self._take_in(hits, row, *self._scores_in(lists, queries[row], allowed))
        return hits

    def _normalized(self, z: Vectors) -> Vectors:
        """Block-normalized queries; checks z on the way, in as few passes as possible."""
        ready = isinstance(z, np.ndarray) and z.dtype == np.float32 and z.ndim == 2
        if not ready or z.shape[1] != self._codebooks.D:
            z = as_vectors(z, self._codebooks.D, name="z")
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
        k: int,
        nprobe: int | None,
        k_factor: int | None,
        ef_search: int | None,
        allowed: Ids | None,
    ) -> Any:
        """FAISS's parameters for one call; None where the index's own settings are meant."""
        asked = (nprobe, k_factor, ef_search, allowed)
        nested = self._spec.coarse.startswith("IVF")
        if all(setting is None for setting in asked) and not nested:
            return None
        faiss, core = import_faiss(), self._layers.core
        selector = {} if allowed is None else {"sel": self._selector(allowed)}
        if self._spec.graph:
            view = min(int(ef_search or core.hnsw.efSearch), core.ntotal)
            return faiss.SearchParametersHNSW(efSearch=view, **selector)
        inner = None
        if self._spec.nlist:
            nprobe = int(nprobe or core.nprobe)
            if nested:  # or lists that were asked for would not be found among the upper ones
                selector["quantizer_params"] = self._upper_parameters(nprobe)
            inner = faiss.SearchParametersIVF(nprobe=nprobe, **selector)
        if self._layers.refine is None:
            return inner
        most = max(1.0, core.ntotal / k)  # all items; FAISS makes room for more, if asked
        factor = min(float(k_factor or self._layers.refine.k_factor), most)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)

    def _upper_parameters(self, nprobe: int) -> Any:
        """Of the lists of lists, visit as large a share as of the lists: all of them for all."""
        faiss, core = import_faiss(), self._layers.core
        upper = faiss.downcast_index(core.quantizer)
        share = -(-upper.nlist * nprobe // core.nlist)
        return faiss.SearchParametersIVF(nprobe=max(int(upper.nprobe), int(share)))

    def _selector(self, allowed: Ids) -> Any:
        allowed = check_ids(allowed, np.size(allowed), name="allowed")
        if self._layers.refine is not None and self._layers.id_map is not None:
            allowed = np.flatnonzero(np.isin(item_ids(self._layers), allowed))
        return import_faiss().IDSelectorBatch(allowed)

    def _held(self, allowed: Ids) -> Ids:
        """Those of the allowed ids that are held, ascending."""
        allowed = check_ids(allowed, np.size(allowed), name="allowed")
        return np.sort(allowed[np.isin(allowed, item_ids(self._layers))])

    def _view_among(self, allowed: int, k: int, ef_search: int | None) -> int:
        """How many items a graph must keep in view to see as many allowed ones as without a filter.

        All, and more than are allowed, where there is no graph.
        """
        total = int(self._index.ntotal)
        if self._is_flat:
            return total
        wanted = max(k, int(ef_search or self._layers.core.hnsw.efSearch))
        return wanted * total // max(1, allowed)

    def _search_among(self, queries: Vectors, k: int, held: Ids) -> Hits:
        """An exact scan of some items of an index without lists."""
        hits = Hits.empty(len(queries), k)
        if not len(held):
            return hits
        [(number, rows, places)] = locate(self._layers, held)
        scan = plain_index(self._layers)
        scan.add_sa_codes(pack(codes_at(self._layers, rows, number), self._spec.nbits))
        found = min(k, len(rows))
        scores, best = search(scan, queries, found)
        hits.scores[:, :found], hits.ids[:, :found] = scores, held[places][best]
        return hits

    def _search_and_rerank(self, queries: Vectors, k: int, k_factor: int) -> Hits:
        """Fetch more items by FastScan's rounded tables, and rank them by exact ones."""
        core, M = self._layers.core, self._codebooks.M
        hits = Hits.empty(len(queries), k)
        fetched = min(k * int(k_factor), int(core.ntotal))
        step = max(1, _RERANKED_AT_ONCE // (fetched * M))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            _, rows = search(core, queries[part], fetched)
            codes = codes_at(self._layers, np.maximum(rows, 0).ravel()).reshape(*rows.shape, -1)
            tables = lookup_tables(queries[part], self._codebooks)
            exact = np.zeros(rows.shape, np.float32)
            for m in range(M):
                exact += np.take_along_axis(tables[:, m], codes[:, :, m].astype(np.intp), axis=1)
            exact[rows < 0] = -np.inf
            best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
            hits.scores[part, : best.shape[1]] = np.take_along_axis(exact, best, axis=1)
            hits.ids[part, : best.shape[1]] = np.take_along_axis(rows, best, axis=1)
        if self._layers.id_map is not None:
            hits.ids[:] = np.where(hits.ids < 0, -1, ids_of_rows(self._layers)[hits.ids])
        return hits

    def _lists_of(self, queries: Vectors, nprobe: int | None) -> Ids:
        """The lists (nq, nprobe) that queries look into, -1 for none; 0 where there are none."""
        if not self._spec.nlist:
            return np.zeros((len(queries), 1), np.int64)
        core, nprobe = self._layers.core, int(nprobe or self._layers.core.nprobe)
        upper = self._upper_parameters(nprobe) if self._spec.coarse.startswith("IVF") else None
        lists = search(core.quantizer, queries, nprobe, upper)[1]
        for row in np.flatnonzero((lists < 0).any(axis=1)):  # lost by a FastScan of their codes
            unknown = lists[row] < 0
            lists[row, unknown] = np.setdiff1d(np.arange(core.nlist), lists[row])[: unknown.sum()]
        return lists

    def _lost_lists(self, queries: Vectors, nprobe: int | None) -> dict[int, Ids]:
        """Lists that a FastScan of their codes does not find though all are asked for, by query."""
        core = self._layers.core
        asked = int(nprobe or core.nprobe) if self._spec.nlist else 0
        if not asked or asked < core.nlist or not self._spec.coarse_kind.endswith("fs"):
            return {}
        found = search(core.quantizer, queries, asked)[1]
        rows = np.flatnonzero((found < 0).any(axis=1)).tolist()
        return {row: np.setdiff1d(np.arange(core.nlist), found[row]) for row in rows}

    def _find_lost(
        self, hits: Hits, queries: Vectors, nprobe: int | None, allowed: Ids | None
    ) -> None:
        """Complete, by exact AQS, the hits of queries for which FastScan found fewer than k."""
        rows = np.flatnonzero(hits.ids[:, -1] < 0)
        for row, lists in zip(rows.tolist(), self._lists_of(queries[rows], nprobe), strict=True):
            lists = lists[lists >= 0]
            there = hits.ids[row] >= 0
            if allowed is None and there.sum() == sum(map(self._size_of, lists.tolist())):
                continue
            self._take_in(hits, row, *self._scores_in(lists, queries[row], allowed))

    @staticmethod
    def _take_in(hits: Hits, row: int, ids: Ids, scores: Scores) -> None:
        """Rank more items among the hits of a query; those that are there keep their scores."""
        there = hits.ids[row] >= 0
        new = ~np.isin(ids, hits.ids[row, there])
        ids = np.concatenate([hits.ids[row, there], ids[new]])
        scores = np.concatenate([hits.scores[row, there], scores[new]])
        best = np.lexsort((ids, -scores))[: hits.ids.shape[1]]
        hits.ids[row, : len(best)], hits.scores[row, : len(best)] = ids[best], scores[best]

    def _size_of(self, number: int) -> int:
        core = self._layers.core
        return int(core.invlists.list_size(number) if self._spec.nlist else core.ntotal)

    def _scores_in(self, lists: Ids, query: Vectors, allowed: Ids | None) -> tuple[Ids, Scores]:
        """Ids and exact AQS of the items in some lists, for one query (D,)."""
        tables = lookup_tables(query[None], self._codebooks)
        all_alike = np.ptp(tables, axis=2).max() <= _TABLE_ROUNDING
        found_ids, found_scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for number in lists.tolist():
            ids = ids_in(self._layers, number)
            rows = np.arange(len(ids))
            if allowed is not None:
                rows = np.flatnonzero(np.isin(ids, allowed))
            found_ids.append(ids[rows])
            if all_alike:
                found_scores.append(np.full(len(rows), tables[0, :, 0].sum(), np.float32))
            elif len(rows):
                codes = codes_at(self._layers, rows, number)
                found_scores.append(aqs(query[None], codes, self._codebooks)[0])
        return np.concatenate(found_ids), np.concatenate(found_scores)

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
            nothing = np.zeros(len(queries) + 1, np.int64)
            return RangeHits(nothing, np.empty(0, np.float32), np.empty(0, np.int64))
        most = 2.0 * spec.M + 1  # beyond every score, rounded or not, and within float32
        border = min(max(float(threshold), -most), most)
        searched, whole = np.arange(len(queries)), np.empty(0, np.int64)
        if spec.fast_scan:
            tables = lookup_tables(queries, self._codebooks)
            lowest, highest = tables.min(axis=2).sum(axis=1), tables.max(axis=2).sum(axis=1)
            searched = np.flatnonzero((lowest < border) & (border < highest))
            whole = np.flatnonzero(border <= lowest)
        query, ids, scores = searched[:0], np.empty(0, np.int64), np.empty(0, np.float32)
        if len(searched):
            parameters = self._parameters(1, nprobe, None, None, allowed)
            limits, scores, ids = range_search(self._index, queries[searched], border, parameters)
            query = np.repeat(searched, limits[1:] - limits[:-1])
        missed = [*zip(whole, self._lists_of(queries[whole], nprobe), strict=True)]
        lost = self._lost_lists(queries[searched], nprobe) if len(searched) else {}
        missed += [(searched[row], lists) for row, lists in lost.items()]
        for row, lists in missed:
            row_ids, row_scores = self._scores_in(lists[lists >= 0], queries[row], allowed)
            above = row_scores > border
            query = np.concatenate([query, np.full(above.sum(), row)])
            ids = np.concatenate([ids, row_ids[above]])
            scores = np.concatenate([scores, row_scores[above]])
        order = np.lexsort((ids, -scores, query))  # best first within each query
        sizes = np.bincount(query, minlength=len(queries))
        limits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return RangeHits(limits, scores[order], ids[order])


def _check_positive(name: str, value: object) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:  # type: ignore[operator]
        raise InvalidInputError(f"{name} must be an integer of at least 1, got {value!r}.")
