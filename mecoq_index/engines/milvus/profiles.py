"""The profiles: their fields, indexes, rankings and servers.

| profile | field | index | ranking | servers |
|---|---|---|---|---|
| ``exact`` | decoded vectors | FLAT | AQS, exactly | all |
| ``graph`` | decoded vectors | HNSW | AQS, of the items that the graph finds | all |
| ``compact`` | decoded vectors | IVF_PQ, one list | AQS, but for lost codewords | 2.3 and later |
| ``sparse`` | one-hot codes | SPARSE_INVERTED_INDEX | AQS, exactly | 2.4 and later, lite |
| ``faiss`` | decoded vectors | FAISS, by a string | as ``compact``; untested | 3.0 and later |
| ``hamming`` | packed bits | BIN_FLAT | Hamming distance: the baseline | 2.3 and later |

``compact`` trains Milvus's own k-means on vectors whose every subvector is one of K codewords. With
one or two bits more than log2 K, k-means finds nearly all codewords again, and Milvus's codes rank
as ours do; with log2 K bits it loses too many. There must be a single list, because Milvus encodes
residuals to the centers of lists.

Milvus-lite accepts IVF_PQ and other indexes that it does not have, and scans all vectors instead.
Profiles that need such an index are refused here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from math import ceil, log2
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ... import sparse_codes
from ..._arguments import check_known
from ..._arrays import Codes, Scores, Vectors, as_vectors, check_codes
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import block_normalize, decode, encode
from .connection import Server
from .profile import Profile, Queries, Values

Precision = Literal["float32", "float16"]


class _Learned(Profile):
    """Codes of learned codebooks, ranked by AQS."""

    def __init__(self, codebooks: Codebooks) -> None:
        self.codebooks = codebooks

    @property
    def belongs_to(self) -> str:
        """The codebooks' fingerprint."""
        return self.codebooks.fingerprint

    def check_codes(self, codes: Codes) -> Codes:
        """Codes (n, M) below K."""
        return check_codes(codes, self.codebooks.M, self.codebooks.K)


class _Decoded(_Learned):
    """Decoded vectors."""

    def __init__(self, codebooks: Codebooks, *, precision: Precision = "float32") -> None:
        super().__init__(codebooks)
        if precision not in ("float32", "float16"):
            raise InvalidInputError(f"precision must be float32 or float16, got {precision!r}.")
        self._dtype = np.dtype(precision)
        if precision == "float16":
            self.field_type = "FLOAT16_VECTOR"

    def check_server(self, server: Server) -> None:
        """Refuse a server that cannot hold this profile at this precision."""
        super().check_server(server)
        if self._dtype == np.float16 and (server.is_lite or server.version < (2, 4)):
            raise InvalidInputError(
                f"float16 needs a Milvus server of 2.4 or later, got {server}. Use float32."
            )

    @property
    def width(self) -> int:
        """D."""
        return self.codebooks.D

    @property
    def bytes_per_vector(self) -> float:
        """4 bytes a value, or 2 with float16."""
        return float(self.codebooks.D * self._dtype.itemsize)

    def documents(self, codes: Codes) -> Values:
        """Decoded vectors (n, D)."""
        return decode(codes, self.codebooks).astype(self._dtype, copy=False)

    def queries(self, q: Vectors) -> Queries:
        """Block-normalized vectors (nq, D)."""
        D = self.codebooks.D
        if not isinstance(q, np.ndarray) or q.dtype != np.float32 or q.ndim != 2 or q.shape[1] != D:
            q = as_vectors(q, D, name="z")
        q = block_normalize(q, self.codebooks.M)  # checks that they are finite
        return Queries(q.astype(self._dtype, copy=False), np.zeros((), np.float32))

    def codes(self, values: Values) -> Codes:
        """Each subvector's codeword."""
        return encode(self._stored(values), self.codebooks)

    def are_codes(self, values: Values) -> npt.NDArray[np.bool_]:
        """Whether every subvector is a codeword."""
        stored = self._stored(values)
        made = self.documents(encode(stored, self.codebooks)).astype(np.float32)
        fits: npt.NDArray[np.bool_] = np.abs(stored - made).max(axis=1, initial=0) <= 1e-6
        return fits

    def _stored(self, values: Values) -> Vectors:
        if self._dtype == np.float16 and len(values) and isinstance(values[0], bytes):
            values = [np.frombuffer(value, np.float16) for value in values]
        return np.asarray(values, np.float32).reshape(-1, self.codebooks.D)


class Exact(_Decoded):
    """Decoded vectors that are scanned: AQS, with float16 up to about 1e-3."""

    name = "exact"
    index_type = "FLAT"
    exact = True
    on_lite = True


class Graph(_Decoded):
    """Decoded vectors in an HNSW graph: AQS of the items that the graph finds."""

    name = "graph"
    index_type = "HNSW"
    search_options = frozenset({"ef"})
    on_lite = True

    def __init__(
        self,
        codebooks: Codebooks,
        *,
        precision: Precision = "float32",
        links: int = 16,
        ef_construction: int = 200,
    ) -> None:
        super().__init__(codebooks, precision=precision)
        for name, value, most in (
            ("links", links, 2048),
            ("ef_construction", ef_construction, 4096),
        ):
            if type(value) is not int or not 2 <= value <= most:
                raise InvalidInputError(
                    f"{name} must be an integer between 2 and {most}, got {value!r}."
                )
        self._links, self._ef_construction = links, ef_construction

    def index_params(self) -> dict[str, Any]:
        """The links of an item on each level, which Milvus calls ``M``, and ``efConstruction``."""
        return {"M": self._links, "efConstruction": self._ef_construction}

    def search_params(self, k: int, options: Mapping[str, int]) -> dict[str, Any]:
        """The option ``ef``, 512 unless set, and at least k."""
        return {"ef": max(k, options.get("ef", 512))}

    @property
    def bytes_per_vector(self) -> float:
        """The vector, and twice the number of links, of 4 bytes each, on the lowest level."""
        return super().bytes_per_vector + 8.0 * self._links


class Compact(_Decoded):
    """Decoded vectors in IVF_PQ, whose k-means finds the codewords again.

    Args:
        codebooks: The learned codebooks.
        nbits: Bits of Milvus's code for each subvector, at least log2 K + 1. None for log2 K + 2,
            with which k-means misses hardly any codeword.
    """

    name = "compact"
    index_type = "IVF_PQ"

    def __init__(self, codebooks: Codebooks, *, nbits: int | None = None) -> None:
        super().__init__(codebooks)
        least = ceil(log2(codebooks.K)) + 1
        self.nbits = least + 1 if nbits is None else nbits
        if type(self.nbits) is not int or not least <= self.nbits <= 16:
            raise InvalidInputError(
                f"nbits must be between log2 K + 1 = {least} and 16, got {nbits!r}: with fewer, "
                "Milvus's k-means loses codewords."
            )

    def check_skipping(self, server: Server, what: str) -> None:
        """Refuse to leave rows out on Milvus 2.3.

        Its IVF_PQ returns the scores of some rows for others as soon as a filter or removed rows
        leave gaps among the scanned ones. Seen on 2.3.5; `verify` checks later versions.
        """
        if server.version < (2, 4):
            raise InvalidInputError(
                f"{what} is not for profile {self.name!r} on {server}, whose IVF_PQ index then "
                "returns wrong scores. Use profile exact or graph, or Milvus 2.4 or later."
            )

    def index_params(self) -> dict[str, Any]:
        """A single list, because Milvus encodes residuals to the centers of lists."""
        return {"nlist": 1, "m": self.codebooks.M, "nbits": self.nbits}

    def search_params(self, k: int, options: Mapping[str, int]) -> dict[str, Any]:
        """The single list."""
        return {"nprobe": 1}

    @property
    def bytes_per_vector(self) -> float:
        """M times nbits, in whole bytes."""
        return float(ceil(self.codebooks.M * self.nbits / 8))


class Sparse(_Learned):
    """One-hot codes against lookup tables: AQS exactly.

    Codeword k of codebook m is dimension ``m * K + k``. Milvus keeps positive entries only, so each
    codebook's part of the lookup table is shifted, and the sum of the shifts is subtracted from the
    scores.
    """

    name = "sparse"
    index_type = "SPARSE_INVERTED_INDEX"
    field_type = "SPARSE_FLOAT_VECTOR"
    exact = True
    on_lite = True
    least_version = (2, 4)

    @property
    def width(self) -> None:
        """Sparse fields have no width."""
        return None

    def search_params(self, k: int, options: Mapping[str, int]) -> dict[str, Any]:
        """Parameters that leave out no entry of a query."""
        return {"drop_ratio_search": 0.0}

    @property
    def bytes_per_vector(self) -> float:
        """Twice 8 bytes, in a posting and in the stored row, for each of M entries."""
        return 16.0 * self.codebooks.M

    def documents(self, codes: Codes) -> Values:
        """``{m * K + code: 1.0}`` a row."""
        return sparse_codes.one_hot(codes, self.codebooks)

    def queries(self, q: Vectors) -> Queries:
        """Shifted lookup tables, as dictionaries with M K entries."""
        q = as_vectors(q, self.codebooks.D, name="z")
        return Queries(*sparse_codes.shifted_tables(q, self.codebooks))

    def codes(self, values: Values) -> Codes:
        """The entries' places."""
        return sparse_codes.codes_of(values, self.codebooks)

    def are_codes(self, values: Values) -> npt.NDArray[np.bool_]:
        """Whether there is one entry of 1 a codebook."""
        return sparse_codes.are_one_hot(values, self.codebooks)


class Faiss(_Decoded):
    """Decoded vectors in an index that Milvus makes from a FAISS factory string. Untested.

    Milvus 3.0 trains the index itself, because the string takes no codebooks. See
    https://milvus.io/docs/faiss.md.
    """

    name = "faiss"
    index_type = "FAISS"
    least_version = (3, 0)

    def __init__(self, codebooks: Codebooks, *, factory: str | None = None) -> None:
        super().__init__(codebooks)
        nbits = ceil(log2(codebooks.K)) + 2
        self._factory = factory or f"IVF1,PQ{codebooks.M}x{nbits}np"
        self._bytes = ceil(codebooks.M * nbits / 8)

    def index_params(self) -> dict[str, Any]:
        """The factory string."""
        return {"faiss_index_name": self._factory}

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of the index that the default factory string makes."""
        return float(self._bytes)


class Hamming(Profile):
    """Packed bits by Hamming distance, the baseline. The score is the number of equal bits.

    Args:
        bits: Bits of a code, a multiple of 8.
        hasher: A name of the method that made the bits, so that those of others are refused.
    """

    name = "hamming"
    index_type = "BIN_FLAT"
    metric_type = "HAMMING"
    field_type = "BINARY_VECTOR"
    exact = True

    def __init__(self, bits: int, *, hasher: str = "") -> None:
        if bits < 8 or bits % 8:
            raise InvalidInputError(f"bits must be a positive multiple of 8, got {bits}.")
        self.bits = bits
        self._hasher = hasher

    @property
    def belongs_to(self) -> str:
        """The hasher's name."""
        return self._hasher

    @property
    def width(self) -> int:
        """The number of bits."""
        return self.bits

    @property
    def bytes_per_vector(self) -> float:
        """Bits / 8."""
        return self.bits / 8

    def check_codes(self, codes: Codes) -> Codes:
        """Packed bits (n, bits / 8)."""
        return check_codes(codes, self.bits // 8, 256)

    def documents(self, codes: Codes) -> Values:
        """The bytes of each row."""
        return [row.tobytes() for row in codes]

    def queries(self, q: Codes) -> Queries:
        """The bytes of each query."""
        q = check_codes(q, self.bits // 8, 256, name="queries")
        return Queries(self.documents(q), np.zeros((), np.float32))

    def codes(self, values: Values) -> Codes:
        """The bytes as they are."""
        rows: Sequence[bytes] = [row[0] if isinstance(row, list) else bytes(row) for row in values]
        return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, self.bits // 8)

    def are_codes(self, values: Values) -> npt.NDArray[np.bool_]:
        """True for all values: any bits can be a code."""
        return np.ones(len(values), np.bool_)

    def scores(self, found: Scores, offset: npt.NDArray[np.float32]) -> Scores:
        """The number of equal bits."""
        equal: Scores = np.float32(self.bits) - found
        return equal


PROFILES: dict[str, type[Profile]] = {
    profile.name: profile for profile in (Exact, Graph, Compact, Sparse, Faiss, Hamming)
}


def get_profile(name: str, codebooks: Codebooks, **options: Any) -> Profile:
    """Make the profile of learned codes that is called ``name``, with options of its own.

    Raises:
        InvalidInputError: If there is no such profile, or it does not take these options.
    """
    kind = PROFILES.get(name)
    if kind is None or not issubclass(kind, _Learned):
        known = [name for name, found in PROFILES.items() if issubclass(found, _Learned)]
        raise InvalidInputError(f"profile must be one of {known}, got {name!r}.")
    known = [option for option in inspect.signature(kind).parameters if option != "codebooks"]
    check_known(options, known, what=f"{name} option")
    made = kind(codebooks, **options)
    made.options = dict(options)
    return made
