"""The FAISS engine: codes in, AQS out, by way of one FAISS index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..._arrays import Codes, Ids, Vectors, check_codes, check_ids, check_k, check_vectors
from ..._files import atomic_file, check_readable
from ...aqs import block_normalize, decode, lookup_tables
from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError
from ..base import Hits
from .coarse import train_coarse_quantizer
from .factory import FactorySpec, index_factory, parse
from .inject import bits_per_code, import_faiss, pq_leaf, protect, stored_codewords

_ADD_CHUNK = 65536
# Tables that span less rank nothing: their differences are rounding.
_TABLE_ROUNDING = 1e-6


class FaissEngine:
    """Codes in a FAISS index.

    A flat index of 8-bit or 4-bit codes is exact. FastScan (``fs``) rounds its lookup tables to 8
    bits, so its scores are off by up to M / 2 steps of span / 255, span being the widest table's.
    IVF looks into ``nprobe`` of its lists only.
    """

    name: ClassVar[str] = "faiss"
    file_name: ClassVar[str] = "index.faiss"

    def __init__(self, index: Any, spec: FactorySpec, codebooks: Codebooks) -> None:
        self.index = index
        self._spec = spec
        self._codebooks = codebooks
        self._next_id: int | None = None

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        return self._codebooks

    @classmethod
    def build(
        cls,
        codebooks: Codebooks,
        codes: Codes,
        ids: Ids | None = None,
        *,
        factory: str = "MeCoQ",
        nprobe: int | None = None,
        seed: int = 0,
    ) -> FaissEngine:
        """An engine that holds ``codes`` under ``ids``.

        Args:
            codebooks: The codebooks; K must be a power of two.
            codes: uint8, shape (n, M). IVF trains its lists on them.
            ids: int64, shape (n,); None for 0..n-1. A flat index without IDMap2 can hold only the
                latter.
            factory: A factory string, see `factory`.
            nprobe: Lists that a search looks into unless told otherwise; about sqrt(nlist) if None.
            seed: Seed of the lists' k-means.

        Raises:
            InvalidInputError: If FAISS cannot represent what is asked for.
            MissingDependencyError: If FAISS is not installed.
        """
        codes = check_codes(codes, codebooks.M, codebooks.K)
        spec = parse(factory, codebooks)
        engine = cls(index_factory(codebooks.D, factory, codebooks), spec, codebooks)
        if spec.nlist:
            train_coarse_quantizer(engine.index, codes, codebooks, seed=seed)
            default = max(1, round(spec.nlist**0.5))
            pq_leaf(engine.index).nprobe = engine._check_nprobe(nprobe or default)
        elif nprobe is not None:
            raise InvalidInputError(f"nprobe is for IVF indexes, but the string is {factory!r}.")
        engine.add(codes, ids)
        return engine

    def add(self, codes: Codes, ids: Ids | None = None) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers.

        Raises:
            InvalidInputError: If codes or ids are malformed, an id is held already, or the index
                cannot keep ids of one's own.
        """
        codes = check_codes(codes, self._codebooks.M, self._codebooks.K)
        ids = self._new_ids(ids, len(codes))
        for start in range(0, len(codes), _ADD_CHUNK):
            chunk = slice(start, start + _ADD_CHUNK)
            self._add_chunk(codes[chunk], ids[chunk])
        if len(ids):
            self._next_id = max(self._next_id or 0, int(ids.max()) + 1)

    def _keeps_ids(self) -> bool:
        return bool(self._spec.nlist or self._spec.id_map)

    def _new_ids(self, ids: Ids | None, n: int) -> Ids:
        if not self._keeps_ids():
            rows = np.arange(len(self), len(self) + n, dtype=np.int64)
            if ids is not None and not np.array_equal(check_ids(ids, n), rows):
                raise InvalidInputError(
                    f"{self._spec} numbers its items itself, so ids must be {len(self)}.."
                    f"{len(self) + n - 1}. Use '{self._spec},IDMap2' for ids of your own."
                )
            return rows
        if self._next_id is None:
            self._next_id = int(self.ids().max(initial=-1)) + 1
        if ids is None:
            return np.arange(self._next_id, self._next_id + n, dtype=np.int64)
        ids, held = check_ids(ids, n), self.ids()
        if len(taken := np.intersect1d(ids, held)):
            raise InvalidInputError(
                f"ids must be new, but {len(taken)} are held already, for instance {taken[0]}. "
                "Remove them first to replace them."
            )
        return ids

    def ids(self) -> Ids:
        """The ids of all items held, in no particular order."""
        faiss = import_faiss()
        if self._spec.id_map:
            kept: Ids = faiss.vector_to_array(self.index.id_map)
            return kept
        if not self._spec.nlist:
            return np.arange(len(self), dtype=np.int64)
        lists = pq_leaf(self.index).invlists
        parts = [np.empty(0, np.int64)]
        for number in range(lists.nlist):
            if size := lists.list_size(number):
                parts.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy())
        return np.concatenate(parts)

    def _add_chunk(self, codes: Codes, ids: Ids) -> None:
        if self._spec.fast_scan:
            # add_sa_codes corrupts the heap of IndexIVFPQFastScan and is refused by the flat one.
            # A decoded vector is its own nearest codeword, so encoding it gives its codes back.
            vectors = decode(codes, self._codebooks)
            if self._keeps_ids():
                self.index.add_with_ids(vectors, ids)
            else:
                self.index.add(vectors)
            return
        stored = _pack(codes, self._spec.nbits)
        if self._spec.nlist:
            stored = self._prefix_list_numbers(codes, stored)
        if self._keeps_ids():
            self.index.add_sa_codes(stored, ids)
        else:
            self.index.add_sa_codes(stored)

    def _prefix_list_numbers(self, codes: Codes, packed: Codes) -> Codes:
        """Put the list number, little-endian, in front of each code, as IVF's own encoder does."""
        ivf = pq_leaf(self.index)
        _, lists = ivf.quantizer.search(decode(codes, self._codebooks), 1)
        width = ivf.coarse_code_size()
        prefix = lists.astype("<i8").view(np.uint8).reshape(len(codes), 8)[:, :width]
        return np.ascontiguousarray(np.concatenate([prefix, packed], axis=1))

    def _check_nprobe(self, nprobe: int) -> int:
        whole = isinstance(nprobe, (int, np.integer)) and not isinstance(nprobe, bool)
        if not whole or not 1 <= nprobe <= self._spec.nlist:
            raise InvalidInputError(
                f"nprobe must be an integer between 1 and nlist={self._spec.nlist}, got {nprobe!r}."
            )
        return int(nprobe)

    def search(self, z: Vectors, k: int, *, nprobe: int | None = None) -> Hits:
        """The k best items for each raw query.

        Args:
            z: float32, shape (nq, D); normalised per subvector here.
            k: Results per query.
            nprobe: Lists to look into, for this call only; the index's setting if None.

        Returns:
            Hits (nq, k); missing results are id -1 and score -inf.

        Raises:
            InvalidInputError: If an argument is malformed, or nprobe is given without IVF.
        """
        faiss = import_faiss()
        z, k = check_vectors(z, self._codebooks.D, name="z"), check_k(k)
        parameters = None
        if nprobe is not None:
            if not self._spec.nlist:
                raise InvalidInputError(f"nprobe is for IVF indexes, but this is {self._spec}.")
            parameters = faiss.SearchParametersIVF(nprobe=self._check_nprobe(nprobe))
        if not len(z) or not len(self):
            return Hits.empty(len(z), k)
        queries = block_normalize(z, self._codebooks.M)
        scores, ids = self.index.search(queries, k, params=parameters)
        scores[ids < 0] = -np.inf  # FAISS pads with the lowest float
        hits = Hits(scores, ids)
        if self._spec.fast_scan:
            self._fill_ties(hits, queries)
        return hits

    def _fill_ties(self, hits: Hits, queries: Vectors) -> None:
        """Answer queries that score all items alike, a zero query above all.

        FastScan scales its tables by 255 / span (faiss/utils/quantize_lut.cpp). Without a span
        that is no number, and FAISS 1.15 then finds nothing. All items tie: the lowest ids win.
        """
        lost = np.flatnonzero(~np.isfinite(hits.scores[:, 0]))
        if not len(lost):
            return
        tables = lookup_tables(queries[lost], self._codebooks)
        alike = np.ptp(tables, axis=2).max(axis=1) <= _TABLE_ROUNDING
        lost, tables = lost[alike], tables[alike]
        ids = np.sort(self.ids())[: hits.ids.shape[1]]
        hits.scores[lost, : len(ids)] = tables[:, :, 0].sum(axis=1)[:, None]
        hits.ids[lost, : len(ids)] = ids

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were.

        Raises:
            InvalidInputError: If the index cannot remove: a flat one without IDMap2 would renumber
                its items, IDMap over IVF would confuse them (IDMap closes the gap in its table,
                IVF keeps its numbers), and FastScan's packed blocks do not support it.
        """
        ids = check_ids(ids, len(ids))
        spec = self._spec
        if spec.fast_scan or bool(spec.nlist) == bool(spec.id_map):
            able = FactorySpec(
                spec.M, spec.nbits, spec.nlist, id_map="" if spec.nlist else "IDMap2"
            )
            raise InvalidInputError(
                f"{spec} cannot remove items. Build with '{able}' to be able to."
            )
        return int(self.index.remove_ids(ids))

    def save(self, path: Path) -> None:
        """Write the index to one file that plain ``faiss.read_index`` reads."""
        with atomic_file(Path(path)) as partial:
            import_faiss().write_index(self.index, str(partial))

    @classmethod
    def open(cls, path: Path, codebooks: Codebooks) -> FaissEngine:
        """Read an index that holds exactly these codebooks.

        Raises:
            ArtifactError: If the file is damaged, of another kind, or holds other codebooks.
        """
        faiss = import_faiss()
        path = check_readable(Path(path))
        try:
            index = faiss.read_index(str(path))
            stored = stored_codewords(index)
        except (RuntimeError, InvalidInputError) as exc:
            raise ArtifactError(f"{path} is no FAISS index with a product quantizer.") from exc
        if not np.array_equal(stored, codebooks.codewords):
            raise ArtifactError(
                f"{path} holds other codebooks than the ones given "
                f"({codebooks.fingerprint[:12]}). Search it with its own."
            )
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ArtifactError(f"{path} does not rank by inner product, so not by AQS.")
        if getattr(pq_leaf(index), "by_residual", False):
            raise ArtifactError(
                f"{path} holds codes of residuals, so its scores are not AQS. "
                "Build it again with mecoq_index.index_factory."
            )
        if not index.is_trained:
            raise ArtifactError(f"{path} has no lists yet. Train the index before it is saved.")
        protect(index)
        return cls(index, _spec_of(index, codebooks), codebooks)

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of packed code, and 8 of id for each of IVF and IDMap."""
        spec = self._spec
        code = (spec.M * spec.nbits + 7) // 8
        return float(code + 8 * bool(spec.nlist) + 8 * bool(spec.id_map))

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        spec = self._spec
        described = {
            "engine": self.name,
            "factory": str(spec),
            "items": len(self),
            "exact": not (spec.nlist or spec.fast_scan),
            "bytes_per_vector": self.bytes_per_vector,
        }
        if spec.nlist:
            described |= {"nlist": spec.nlist, "nprobe": int(pq_leaf(self.index).nprobe)}
        return described

    def __len__(self) -> int:
        return int(self.index.ntotal)


def _pack(codes: Codes, nbits: int) -> Codes:
    """FAISS's codes: nbits per subquantizer, packed without gaps, low bits first."""
    if nbits == 8:
        return codes
    packed: Codes = import_faiss().pack_bitstrings(codes.astype(np.int32), nbits)
    return packed


def _spec_of(index: Any, codebooks: Codebooks) -> FactorySpec:
    faiss = import_faiss()
    leaf = pq_leaf(index)
    id_map = ""
    if isinstance(index, faiss.IndexIDMap2):
        id_map = "IDMap2"
    elif isinstance(index, faiss.IndexIDMap):
        id_map = "IDMap"
    fast_scan = isinstance(leaf, (faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan))
    return FactorySpec(
        M=codebooks.M,
        nbits=bits_per_code(codebooks),
        nlist=getattr(leaf, "nlist", 0),
        fast_scan=fast_scan,
        block_size=leaf.bbs if fast_scan and leaf.bbs != 32 else 0,
        id_map=id_map,
    )
