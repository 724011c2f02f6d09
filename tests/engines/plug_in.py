"""An engine as somebody else would write it: no class of ours above it, nothing private imported.

Items lie on shelves, each of which has a center. A search visits some of the shelves, those whose
centers are most similar to the query, and scores their items exactly.
"""

from contextlib import contextmanager

import numpy as np

from mecoq_index import ArtifactError, Hits, InvalidInputError, aqs, block_normalize, decode
from mecoq_index.engines.abilities import Tuned
from mecoq_index.engines.base import Batch, Option

BUILD, SEARCH = frozenset({"build", "bench"}), frozenset({"build", "search", "bench"})


class ShelfEngine:
    """Codes on shelves."""

    name = "shelves"
    file_name = "shelves.npz"
    options = (
        Option("shelves", int, "number of shelves. [default: 4]", BUILD, minimum=1),
        Option("visited", int, "shelves that a search visits. [default: 1]", SEARCH, minimum=1),
        Option("seed", int, "seed of the shelves. [default: 0]", BUILD, minimum=0),
    )
    holds_items = True
    stores_columns = False
    keeps_ids = True

    def __init__(self, codebooks, centers, visited):
        self.codebooks, self.centers, self.visited = codebooks, centers, visited
        self._codes = np.empty((0, codebooks.M), np.uint8)
        self._ids = np.empty(0, np.int64)
        self._places = np.empty(0, np.int32)

    @classmethod
    def build(cls, codebooks, codes, ids=None, **options):
        builder = cls.builder(codebooks, len(codes), **options)
        runs = builder.rows_to_train_on(len(codes))
        builder.train(np.concatenate([codes[first:last] for first, last in runs]))
        ids = np.arange(len(codes)) if ids is None else ids
        builder.add(Batch(codes, ids, builder.place(codes)))
        return builder.finish()

    @classmethod
    def builder(cls, codebooks, items, shelves=4, visited=1, seed=0):
        if not 1 <= visited <= shelves:
            raise InvalidInputError(f"visited must be 1 to {shelves}, got {visited}.")
        return ShelfBuilder(cls(codebooks, None, visited), shelves, seed)

    def builder_alike(self):
        empty = ShelfEngine(self.codebooks, self.centers, self.visited)
        return ShelfBuilder(empty, len(self.centers), 0)

    def merge_obstacle(self, other):
        return "" if np.array_equal(self.centers, other.centers) else "shelves, made of others"

    def items(self):
        yield Batch(self._codes, self._ids, self._places)

    def place(self, codes):
        return (decode(codes, self.codebooks) @ self.centers.T).argmax(axis=1).astype(np.int32)

    def put(self, batch):
        if len(np.unique(ids := np.concatenate([self._ids, batch.ids]))) < len(ids):
            raise InvalidInputError("ids must be new, but some are taken already.")
        places = self.place(batch.codes) if batch.places is None else batch.places
        self._codes, self._ids = np.concatenate([self._codes, batch.codes]), ids
        self._places = np.concatenate([self._places, places])

    def add(self, codes, ids=None):
        first = int(self._ids.max(initial=-1)) + 1
        self.put(Batch(codes, np.arange(first, first + len(codes)) if ids is None else ids))

    def search(self, z, k, visited=None):
        hits = Hits.empty(len(z), k)
        similar = block_normalize(z, self.codebooks.M) @ self.centers.T
        for row, order in enumerate(np.argsort(-similar, axis=1, kind="stable")):
            seen = np.flatnonzero(np.isin(self._places, order[: visited or self.visited]))
            scores = aqs(z[row : row + 1], self._codes[seen], self.codebooks)[0]
            best = np.lexsort((self._ids[seen], -scores))[:k]
            hits.scores[row, : len(best)] = scores[best]
            hits.ids[row, : len(best)] = self._ids[seen][best]
        return hits

    def ids(self):
        return self._ids.copy()

    def codes(self, ids):
        order = np.argsort(self._ids)
        return self._codes[order[np.searchsorted(self._ids, ids, sorter=order)]]

    def remove(self, ids):
        stays = ~np.isin(self._ids, ids)
        self._codes, self._ids = self._codes[stays], self._ids[stays]
        self._places = self._places[stays]
        return int((~stays).sum())

    def tune(self, z, *, recall=0.95, k=10):
        best = -np.sort(-aqs(z, self._codes, self.codebooks), axis=1)[:, k - 1 : k]
        curve = []
        for visited in range(1, len(self.centers) + 1):
            reached = float((self.search(z, k, visited).scores >= best - 1e-5).mean())
            curve.append((visited, reached))
            if reached >= recall:
                return Tuned("visited", visited, reached, tuple(curve))
        raise InvalidInputError(f"recall must be at most {reached}, got {recall}.")

    def set_default(self, setting, value):
        self.visited = {"visited": value}[setting]

    def save(self, path):
        with path.open("wb") as stream:
            np.savez(
                stream,
                codes=self._codes,
                ids=self._ids,
                places=self._places,
                centers=self.centers,
                visited=self.visited,
            )

    @classmethod
    def open(cls, path, codebooks):
        try:
            with np.load(path) as file:
                engine = cls(codebooks, file["centers"], int(file["visited"]))
                engine.put(Batch(file["codes"], file["ids"], file["places"]))
        except (ValueError, KeyError) as exc:
            raise ArtifactError(f"{path} holds no shelves.") from exc
        return engine

    @property
    def bytes_per_vector(self):
        return self.codebooks.M + 12.0

    def describe(self):
        return {
            "engine": self.name,
            "items": len(self),
            "bytes_per_vector": self.bytes_per_vector,
            "shelves": len(self.centers),
            "visited": self.visited,
        }

    def __len__(self):
        return len(self._ids)


class ShelfBuilder:
    """Learns the centers of shelves, decides on which shelf each item lies, and puts it there."""

    keeps_ids = True

    def __init__(self, engine, shelves, seed):
        self._engine, self._shelves, self._seed = engine, shelves, seed

    def check_ids(self, ids):
        if len(ids) and min(ids) < 0:
            raise InvalidInputError("ids must not be negative.")

    def rows_to_train_on(self, n):
        if n < self._shelves:
            raise InvalidInputError(f"{self._shelves} shelves need as many items, got {n}.")
        rows = np.random.default_rng(self._seed).choice(n, self._shelves, replace=False)
        return [(row, row + 1) for row in sorted(rows.tolist())]

    def train(self, codes, on_progress=None):
        if on_progress is not None:
            on_progress("putting up shelves", 0, 1)
        trained = {"centers": decode(codes, self._engine.codebooks)}
        self.restore(trained)
        return trained

    def restore(self, trained):
        self._engine.centers = trained["centers"]

    def place(self, codes):
        return self._engine.place(codes)

    def add(self, batch):
        self._engine.put(batch)

    def finish(self, on_progress=None):
        return self._engine


STORED = {}


class RemoteEngine:
    """An engine whose items lie elsewhere, in `STORED`, and that is measured there."""

    name = "remote"
    options = (
        Option("places", str, "places to measure, such as a,b.", frozenset({"bench"})),
        Option("token", str, "a password.", frozenset({"bench"}), is_secret=True),
    )
    holds_items = False

    @classmethod
    def bench_variants(cls, codebooks, places="a", token=""):
        variants = {place: cls._learned(place) for place in places.split(",")}
        return {**variants, "hamming": RemoteBits()}

    @classmethod
    def _learned(cls, place):
        @contextmanager
        def make(codebooks, codes):
            STORED[place] = ShelfEngine.build(codebooks, codes, shelves=1)
            try:
                yield STORED[place]
            finally:
                del STORED[place]

        return make


class RemoteBits:
    """Packed bits beside the learned codes, ranked by the number of equal bits."""

    takes_bits = True
    bytes_per_vector = 10.0

    @contextmanager
    def __call__(self, bits):
        self.bits = STORED["bits"] = bits
        try:
            yield self
        finally:
            del STORED["bits"]

    def search(self, q, k):
        equal = (np.unpackbits(q[:, None] ^ self.bits, axis=2) == 0).sum(axis=2)
        ids = np.argsort(-equal, axis=1, kind="stable")[:, :k]
        return Hits(np.take_along_axis(equal, ids, axis=1).astype(np.float32), ids)
