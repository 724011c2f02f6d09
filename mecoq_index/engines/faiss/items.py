"""Put codes into a FAISS index as they are, and read them back: nothing is encoded or decoded.

FAISS behaves in ways that a reader would not guess:

- ``IndexIVFPQFastScan.add_sa_codes`` corrupts the heap, and IndexPQFastScan, Refine and
  PreTransform refuse it. Codes for FastScan go into a plain index of the same codes, which is
  converted, and the blocks of the result are appended to those that are there.
- Wrappers count their items themselves, so after the core has grown each of them is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids
from ..._optional import import_faiss
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import decode
from ..base import Batch
from .coarse import assign_lists
from .forking import about_to_work
from .inject import Layers, bits_per_code
from .layout import (
    Lists,
    append_lists,
    append_table,
    codes_in_blocks,
    pack,
    unpack,
    with_list_numbers,
)
from .limits import searches_flat

_CHUNK = 1 << 16
_STAGED = 1 << 23  # codes that are converted at a time; under 500 MB with 8-byte codes


class Adder:
    """Appends codes to an index, in bounded memory beside the index itself.

    Call `add` as often as needed, then `finish` once: the items are there only afterwards.
    """

    def __init__(self, layers: Layers, codebooks: Codebooks) -> None:
        if not layers.core.is_trained:
            raise InvalidInputError(
                "the index has no lists yet to add items to. Make them with "
                "mecoq_index.engines.faiss.coarse.train_coarse_quantizer, or by FaissEngine.build."
            )
        about_to_work()
        self._layers, self._codebooks = layers, codebooks
        self._nbits = bits_per_code(codebooks)
        self._stage = _plain_twin(layers) if layers.is_fast_scan else None
        self._held = int(layers.core.ntotal)
        self._new_ids: list[Ids | range] = []

    def add(
        self,
        codes: Codes,
        ids: Ids | range,
        *,
        lists: Lists | None = None,
        on_progress: Progress = silent,
    ) -> None:
        """Append codes.

        Args:
            codes: uint8, shape (n, M); may be a memory map.
            ids: int64, shape (n,), or a range of n. Kept by IDMap or else by IVF; row numbers
                elsewhere.
            lists: For IVF: the list of each code, shape (n,), where it is known already.
            on_progress: Told the codes added and in all.
        """
        if self._layers.id_map is not None:
            self._new_ids.append(ids)
        for start in range(0, len(codes), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            part = np.ascontiguousarray(codes[chunk])
            part_ids = np.asarray(ids[chunk], dtype=np.int64)
            self._add_chunk(part, part_ids, None if lists is None else lists[chunk])
            if self._stage is not None and self._stage.ntotal >= _STAGED:
                self._empty_stage()
            on_progress("adding", min(start + _CHUNK, len(codes)), len(codes))

    def _add_chunk(self, codes: Codes, ids: Ids, lists: Lists | None) -> None:
        layers, target = self._layers, self._stage or self._layers.core
        if layers.id_map is not None or layers.refine is not None:
            ids = np.arange(self._held, self._held + len(codes), dtype=np.int64)
        self._held += len(codes)
        packed = pack(codes, self._nbits)
        if layers.is_graph:
            target.add(decode(codes, self._codebooks))
            # FAISS has encoded them, and may have confused codewords that are nearly equal.
            storage = layers.pq_holders[0].codes
            kept = import_faiss().rev_swig_ptr(storage.data(), storage.size())
            kept[storage.size() - packed.size :] = packed.ravel()
        elif layers.is_ivf:
            if lists is None:
                lists = assign_lists(target, codes, self._codebooks)
            _check_lists(lists, len(codes), layers.core.nlist)
            target.add_sa_codes(with_list_numbers(lists, packed, target.coarse_code_size()), ids)
        else:
            target.add_sa_codes(packed)
        if layers.refine is not None:
            import_faiss().downcast_index(layers.refine.refine_index).add_sa_codes(packed)

    def finish(self) -> None:
        """Bring what was staged into the index, and tell its wrappers."""
        self._empty_stage()
        faiss, layers = import_faiss(), self._layers
        if layers.id_map is not None:
            held = faiss.vector_to_array(layers.id_map.id_map)
            ids = np.concatenate([held, *(np.asarray(i, np.int64) for i in self._new_ids)])
            faiss.copy_array_to_vector(ids, layers.id_map.id_map)
        for wrapper in layers.wrappers:
            wrapper.ntotal = layers.core.ntotal
        if isinstance(layers.id_map, faiss.IndexIDMap2):
            layers.id_map.construct_rev_map()

    def _empty_stage(self) -> None:
        """Bring what is staged into the index."""
        if self._stage is not None and self._stage.ntotal:
            _append_blocks(self._layers, self._stage)
            self._stage = _plain_twin(self._layers)


def _check_lists(lists: Lists, n: int, nlist: int) -> None:
    # FAISS is told them in as few bytes as they need, so one that does not exist would be another.
    if lists.shape != (n,) or lists.dtype.kind not in "iu":
        raise InvalidInputError(
            f"lists must be integers of shape ({n},), got {lists.dtype} of shape {lists.shape}."
        )
    if n and not 0 <= lists.min() <= lists.max() < nlist:
        raise InvalidInputError(
            f"lists must be from 0 to {nlist - 1}, got {lists.min()} to {lists.max()}."
        )


def plain_index(layers: Layers) -> Any:
    """An empty index of plain codes with the codebooks of an index, which scans all of them."""
    faiss, pq = import_faiss(), layers.pq_holders[0].pq
    shape = (pq.M, pq.nbits, faiss.METRIC_INNER_PRODUCT)
    if searches_flat(pq.ksub, pq.dsub):
        return _with_codewords(faiss.IndexPQ(layers.core.d, *shape), pq)
    one_list = faiss.IndexFlatIP(layers.core.d)
    one_list.add(np.zeros((1, layers.core.d), np.float32))
    plain = faiss.IndexIVFPQ(one_list, layers.core.d, 1, *shape)
    one_list.this.disown()
    plain.own_fields = True
    plain.by_residual = False
    return _with_codewords(plain, pq)


def _plain_twin(layers: Layers) -> Any:
    """An empty index of plain codes with the codebooks and lists of a FastScan index."""
    if not layers.is_ivf:
        return plain_index(layers)
    faiss, core = import_faiss(), layers.core
    shape = (core.pq.M, core.pq.nbits, faiss.METRIC_INNER_PRODUCT)
    plain = faiss.IndexIVFPQ(core.quantizer, core.d, core.nlist, *shape)
    plain.own_fields = False
    plain.by_residual = False
    return _with_codewords(plain, core.pq)


def _with_codewords(plain: Any, pq: Any) -> Any:
    faiss = import_faiss()
    faiss.copy_array_to_vector(faiss.vector_to_array(pq.centroids), plain.pq.centroids)
    plain.is_trained = True
    return plain


def _append_blocks(layers: Layers, stage: Any) -> None:
    """Bring the plain codes of ``stage`` into a FastScan index, block by block.

    The last block that is there may have room, so its items are written again, before the new ones.
    """
    faiss, core = import_faiss(), layers.core
    grown = _plain_twin(layers)
    codes, ids, lists = _in_open_blocks(layers, stage)
    if len(codes):
        packed = pack(codes, core.pq.nbits)
        if layers.is_ivf:
            grown.add_sa_codes(with_list_numbers(lists, packed, grown.coarse_code_size()), ids)
        else:
            grown.add_sa_codes(packed)
    if layers.is_ivf:
        # merge_from of the indexes would compare their lists, and cannot read lists of lists.
        grown.invlists.merge_from(stage.invlists, 0)
        grown.ntotal += stage.ntotal
    else:
        grown.merge_from(stage, 0)
    kind = faiss.IndexIVFPQFastScan if layers.is_ivf else faiss.IndexPQFastScan
    converted = kind(grown, core.bbs)
    if layers.is_ivf:
        append_lists(core, converted.invlists)
    else:
        append_table(core, converted)


def _in_open_blocks(layers: Layers, stage: Any) -> tuple[Codes, Ids, Lists]:
    """Codes, ids and lists of the items in last blocks with room, where more items come."""
    core = layers.core
    block_bytes = core.bbs * core.M2 // 2
    blocks, rows = [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
    ids, lists = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number in range(core.nlist if layers.is_ivf else 1):
        held = core.invlists.list_size(number) if layers.is_ivf else core.ntotal
        begun = held % core.bbs
        if not begun or (layers.is_ivf and not stage.invlists.list_size(number)):
            continue
        start = held // core.bbs * block_bytes
        rows.append(np.arange(begun) + (len(blocks) - 1) * core.bbs)
        blocks.append(_table(layers, number)[start : start + block_bytes])
        if layers.is_ivf:
            ids.append(_list_ids(layers, number)[held - begun :])
            lists.append(np.full(begun, number))
    table, places = np.concatenate(blocks), np.concatenate(rows)
    codes = codes_in_blocks(table, places, core.pq.M, core.bbs)
    return codes, np.concatenate(ids), np.concatenate(lists)


@dataclass(frozen=True, eq=False)
class Part:
    """Some items of an index: of one list where there are lists."""

    codes: Codes
    ids: Ids
    number: int
    """The list; 0 where there are none."""

    @property
    def lists(self) -> npt.NDArray[np.int32]:
        """The list of each item, (n,)."""
        return np.full(len(self.codes), self.number, np.int32)


def read_items(layers: Layers) -> Iterator[Part]:
    """All items of an index, list by list or in the order of their rows, in bounded memory.

    Ids are those that a search gives: IDMap's, IVF's, or row numbers.
    """
    names = None
    if layers.id_map is not None:
        names = import_faiss().vector_to_array(layers.id_map.id_map)
    for number in range(layers.core.nlist if layers.is_ivf else 1):
        size = layers.core.invlists.list_size(number) if layers.is_ivf else layers.core.ntotal
        for start in range(0, size, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, size), dtype=np.int64)
            ids = _list_ids(layers, number)[rows] if layers.is_ivf else rows
            yield Part(codes_at(layers, rows, number), ids if names is None else names[ids], number)


def batches(layers: Layers) -> Iterator[Batch]:
    """All items with their lists, in an order in which an `Adder` makes the index again.

    Where IDMap or Refine is around lists, they go by rows, which lists hold out of order: then all
    items come at once, in the memory of all codes.
    """
    if not layers.is_ivf or (layers.id_map is None and layers.refine is None):
        for part in read_items(layers):
            yield Batch(part.codes, part.ids, part.lists if layers.is_ivf else None)
        return
    pq = layers.pq_holders[0].pq
    codes = np.empty((layers.core.ntotal, pq.M), np.uint8)
    lists = np.empty(len(codes), np.int32)
    for part in read_items(replace(layers, id_map=None)):
        codes[part.ids], lists[part.ids] = part.codes, part.number
    ids = item_ids(layers) if layers.id_map is not None else range(len(codes))
    yield Batch(codes, ids, lists)


def codes_at(layers: Layers, rows: npt.NDArray[np.int64], number: int = 0) -> Codes:
    """The codes (n, M) at these places of a list, or of an index without lists."""
    faiss, core = import_faiss(), layers.core
    pq = layers.pq_holders[0].pq
    if layers.is_fast_scan:
        return codes_in_blocks(_table(layers, number), rows, pq.M, core.bbs)
    if layers.is_ivf:
        pointer, n = core.invlists.get_codes(number), core.invlists.list_size(number)
    else:
        holder = layers.pq_holders[0]
        pointer, n = holder.codes.data(), holder.ntotal
    packed = faiss.rev_swig_ptr(pointer, n * pq.code_size).reshape(n, pq.code_size)[rows]
    return unpack(packed, pq.M, pq.nbits)


def _table(layers: Layers, number: int) -> npt.NDArray[np.uint8]:
    """The blocks of a FastScan index, or of one of its lists, as a view."""
    core = layers.core
    if layers.is_ivf:
        blocks = -(-core.invlists.list_size(number) // core.bbs)
        pointer, size = core.invlists.get_codes(number), blocks * core.bbs * core.M2 // 2
    else:
        pointer, size = core.codes.get(), core.codes.size()
    view: npt.NDArray[np.uint8] = import_faiss().rev_swig_ptr(pointer, size)
    return view


def _list_ids(layers: Layers, number: int) -> Ids:
    lists = layers.core.invlists
    ids: Ids = import_faiss().rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
    return ids


def item_ids(layers: Layers) -> Ids:
    """The ids (n,) of all items, as a copy, in no particular order."""
    faiss = import_faiss()
    if layers.id_map is not None:
        kept: Ids = faiss.vector_to_array(layers.id_map.id_map)
        return kept
    if not layers.is_ivf:
        return np.arange(layers.core.ntotal, dtype=np.int64)
    filled = [n for n in range(layers.core.nlist) if layers.core.invlists.list_size(n)]
    return np.concatenate([np.empty(0, np.int64), *(_list_ids(layers, n) for n in filled)])


def locate(layers: Layers, ids: Ids) -> Iterator[tuple[int, npt.NDArray[np.int64], Ids]]:
    """Where items lie: the number of a list, rows within it, and which of ``ids`` they are.

    Raises:
        InvalidInputError: If no item has one of the ids.
    """
    order = np.argsort(ids)
    wanted = ids[order]
    found = np.zeros(len(ids), bool)
    for number in range(layers.core.nlist if layers.is_ivf else 1):
        here = ids_in(layers, number)
        place = np.searchsorted(wanted, here)
        place[place == len(wanted)] = 0
        rows = np.flatnonzero(wanted[place] == here) if len(wanted) else np.empty(0, np.int64)
        if len(rows):
            found[place[rows]] = True
            yield number, rows, order[place[rows]]
    if not found.all():
        raise InvalidInputError(
            f"ids must be those of items, but {(~found).sum()} are not, for instance "
            f"{wanted[~found][0]}."
        )


def ids_in(layers: Layers, number: int) -> Ids:
    """The ids of the items of one list, or of an index without lists, in the order of rows."""
    if not layers.is_ivf:
        return item_ids(layers)
    if not layers.core.invlists.list_size(number):
        return np.empty(0, np.int64)
    ids = _list_ids(layers, number)
    if layers.id_map is None:
        return ids
    names: Ids = ids_of_rows(layers)[ids]
    return names


def ids_of_rows(layers: Layers) -> Ids:
    """The ids that IDMap gives to rows, as a view that is valid until the index changes."""
    names = layers.id_map.id_map
    view: Ids = import_faiss().rev_swig_ptr(names.data(), names.size())
    return view
