"""The weak points of ``compact``: rare codewords, small segments, rows left out of a scan.

``compact`` relies on Milvus's own k-means to find the learned codewords again, so its quality
depends on the rows. Scores are compared with AQS, and are called wrong if they differ by more than
0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_places import fill
from trained import Trained

from mecoq_index._arrays import Codes, Scores, Vectors
from mecoq_index.bench.metrics import recall_at
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.hits import Hits
from mecoq_index.engines.milvus.collection import MilvusCollection
from mecoq_index.engines.milvus.connection import Connection
from mecoq_index.engines.milvus.profile import Profile
from mecoq_index.engines.milvus.profiles import Compact, Exact
from mecoq_index.engines.milvus.schema import ID, VECTOR
from mecoq_index.engines.milvus.searching import search
from mecoq_index.scoring import aqs, encode

SEED = 0
K_FOUND = 10
DEEP = 1000
WRONG = 0.1
TOLERANCE = 1e-4
RARITIES = (1, 3, 10, 30)
"""Numbers of rows to keep of those that use a codeword, for some codewords of each codebook."""
QUERIES = 200


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries, and the true scores of some codes.

    Attributes:
        queries: float32, shape (nq, D).
        truth: float32, shape (nq, n).
    """

    queries: Vectors
    truth: Scores

    @classmethod
    def of(cls, queries: Vectors, codes: Codes, books: Codebooks) -> Asked:
        """Score codes."""
        return cls(queries, aqs(queries, codes, books))

    def judge(self, hits: Hits, kept: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Recall and errors of the first ten hits, among the rows that are kept (n,)."""
        truth = self.truth if kept is None else np.where(kept, self.truth, -np.inf)
        ids, scores = hits.ids[:, :K_FOUND], hits.scores[:, :K_FOUND]
        best = -np.sort(-truth, axis=1)[:, :K_FOUND]
        reached = np.take_along_axis(truth, ids, axis=1)
        errors = np.abs(scores - np.take_along_axis(self.truth, ids, axis=1))[ids >= 0]
        return {
            "recall_at_10": recall_at(ids, reached, best, K_FOUND, tolerance=TOLERANCE),
            "wrong_scores": float((errors > WRONG).mean()),
            "median_error": float(np.median(errors)),
            "largest_error": float(errors.max()),
        }


def thin_out(codes: Codes, K: int) -> tuple[npt.NDArray[np.intp], Codes]:
    """Choose rows such that some codewords become rare.

    Args:
        codes: uint8, shape (n, M).
        K: Codewords per codebook; with few of them, fewer are made rare.

    Returns:
        The rows to keep, ascending, and for each codeword that they use (rows, M) the number of
        rows that use it, 0 if it is not rare.
    """
    rng = np.random.default_rng(SEED)
    M = codes.shape[1]
    rarity = np.zeros((M, K), np.int64)
    for m in range(M):
        wanted = 4 * RARITIES if K > 16 else (RARITIES[m % len(RARITIES)],)
        rarity[m, rng.choice(K, len(wanted), replace=False)] = wanted
    used = rarity[np.arange(M), codes]
    kept = (used == 0).all(axis=1)
    for m, k in zip(*np.nonzero(rarity), strict=True):
        # Only rows without another rare codeword, so that a row counts for one rarity.
        rows = np.flatnonzero((codes[:, m] == k) & ((used > 0).sum(axis=1) == 1))
        kept[rng.permutation(rows)[: rarity[m, k]]] = True
    rows = np.flatnonzero(kept)
    return rows, used[rows].astype(np.uint8)


def measure_rare(
    connection: Connection, space: Trained, extra_bits: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Measure rows whose codewords few rows use, with some numbers of bits above log2 K.

    Queries are the embeddings of the rows themselves. A row is kept if its score is right.
    """
    books = space.codebooks
    all_codes = encode(space.items, books)
    rows, rarity = thin_out(all_codes, books.K)
    codes, rarest = all_codes[rows], rarity.max(axis=1)
    found = []
    for extra in extra_bits:
        nbits = books.K.bit_length() - 1 + extra
        collection = fill(connection, Compact(books, nbits=nbits), codes).collection
        for rare in (0, *RARITIES):
            own = np.flatnonzero(rarest == rare)
            own = np.random.default_rng(SEED).permutation(own)[:QUERIES]
            asked = Asked.of(space.items[rows[own]], codes, books)
            hits = search(collection, asked.queries, min(DEEP, len(codes)))
            itself = hits.ids == own[:, None]
            truth = asked.truth[np.arange(len(own)), own]
            errors = np.abs(np.where(itself, hits.scores, 0).sum(axis=1) - truth)
            found.append(
                {
                    "K": books.K,
                    "nbits": nbits,
                    "rows": len(codes),
                    "rows_of_a_codeword": rare or None,
                    "queries": len(own),
                    "rows_kept": float((itself.any(axis=1) & (errors <= WRONG)).mean()),
                    **asked.judge(hits),
                }
            )
        collection.drop()
    return found


def measure_segment(connection: Connection, space: Trained, nbits: int, n: int) -> dict[str, Any]:
    """Compare the index of n rows with Milvus's description of it.

    Milvus 2.3 has an index of its own, which is not exact, for segments without the index.
    """
    books = space.codebooks
    codes = encode(space.items[:n], books)
    collection = fill(connection, Compact(books, nbits=nbits), codes).collection
    state = collection.index_state()
    segments = connection.client.list_loaded_segments(collection.name)
    asked = Asked.of(space.queries[:QUERIES], codes, books)
    row = {
        "K": books.K,
        "nbits": nbits,
        "rows": n,
        "state": state["state"],
        "indexed_rows": int(state["indexed_rows"]),
        "rows_in_segments_with_index": sum(s.num_rows for s in segments if s.index_name),
        **asked.judge(search(collection, asked.queries, K_FOUND)),
    }
    collection.drop()
    return row


def measure_skipping(connection: Connection, space: Trained, n: int) -> list[dict[str, Any]]:
    """Measure scans that leave rows out, by pymilvus itself, because our layer refuses them."""
    books = space.codebooks
    codes = encode(space.items[:n], books)
    asked = Asked.of(space.queries[:QUERIES], codes, books)
    ids = np.arange(n)
    column = np.random.default_rng(SEED).permutation(n) * 100 // n  # percent, scattered
    cases = {
        "all rows": ("", ids >= 0),
        "the first half": (f"{ID} < {n // 2}", ids < n // 2),
        "the second half": (f"{ID} >= {n // 2}", ids >= n // 2),
        **{
            f"scattered {percent} %": (f"percent < {percent}", column < percent)
            for percent in (90, 50, 10)
        },
    }
    found = []
    for profile in (Exact(books), Compact(books, nbits=10)):
        collection = fill(connection, profile, codes, {"percent": column}).collection
        for case, (filter, kept) in cases.items():
            hits = search_by_pymilvus(collection, profile, asked.queries, filter)
            found.append({"profile": profile.name, "case": case, **shifted(asked, hits, kept)})
        connection.client.delete(collection.name, ids=ids[1::2].tolist())
        hits = search_by_pymilvus(collection, profile, asked.queries, "")
        case = "every other row deleted"
        found.append({"profile": profile.name, "case": case, **shifted(asked, hits, ids % 2 == 0)})
        collection.drop()
    return found


def shifted(asked: Asked, hits: Hits, kept: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Count wrong scores, and those that belong to another row.

    The hypothesis is that the j-th kept row gets the score of the j-th stored row.
    """
    place = np.cumsum(kept) - 1
    suspected = np.take_along_axis(asked.truth, place[hits.ids], axis=1)
    row = asked.judge(hits, kept)
    row["scores_of_the_row_in_its_place"] = float((np.abs(hits.scores - suspected) <= WRONG).mean())
    return row


def search_by_pymilvus(
    collection: MilvusCollection, profile: Profile, queries: Vectors, filter: str
) -> Hits:
    """The first ten results of the client itself."""
    found = collection.connection.client.search(
        collection.name,
        data=profile.queries(queries).values,
        limit=K_FOUND,
        filter=filter,
        anns_field=VECTOR,
        search_params={"metric_type": "IP", "params": profile.search_params(K_FOUND, {})},
        consistency_level="Strong",
    )
    hits = Hits.empty(len(queries), K_FOUND)
    for row, result in enumerate(found):
        hits.ids[row, : len(result.ids)] = result.ids
        hits.scores[row, : len(result.ids)] = result.distances
    return hits
