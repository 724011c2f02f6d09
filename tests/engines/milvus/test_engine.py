"""The engine on milvus-lite and on a real server, against the NumPy reference."""

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("pymilvus")
faiss = pytest.importorskip("faiss")

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.milvus import builder, searching
from mecoq_index.engines.milvus import collection as collection_module
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.hamming import MilvusHamming
from mecoq_index.engines.milvus.verification import Verification
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import ArtifactError, InvalidInputError, ServerError
from mecoq_index.index.stored import open_bundle, save_bundle

N = 700
RNG = np.random.default_rng(0)
CODES = RNG.integers(16, size=(N, 6)).astype(np.uint8)
CODES[100:130] = CODES[0]
IDS = RNG.permutation(10 * N)[:N].astype(np.int64)
QUERIES = RNG.standard_normal((9, 24), dtype=np.float32)
COLUMNS = {
    "name": [f"photo {i} ü" for i in range(N)],
    "year": np.arange(N) % 7,
    "weight": np.arange(N) / 8,
    "seen": np.arange(N) % 2 == 0,
}


def make_codebooks(K=16, seed=0):
    c = np.random.default_rng(seed).standard_normal((6, K, 4))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


BOOKS = make_codebooks()


@dataclass
class Place:
    """A Milvus and a free name in it."""

    uri: str
    token: str
    name: str

    def build(self, codes=CODES, ids=IDS, **options):
        options = {"collection": self.name, "uri": self.uri, "token": self.token, **options}
        return MilvusEngine.build(BOOKS, codes, ids, **options)

    def attach(self, books=BOOKS, name=None, **options):
        options = {"token": self.token, **options}
        return MilvusEngine.attach(books, self.uri, collection=name or self.name, **options)

    def collections(self):
        return set(connect(self.uri, token=self.token).call("list_collections"))


@pytest.fixture
def lite(lite_uri, collection_name):
    return Place(lite_uri, "", collection_name)


@pytest.fixture
def server(milvus_server, collection_name):
    place = Place(milvus_server.uri, milvus_server.token, collection_name)
    yield place
    client = connect(place.uri, token=place.token)
    for name in place.collections():
        if name.startswith(collection_name):
            client.call("drop_collection", name)


ON_A_SERVER = pytest.param("server", marks=[pytest.mark.milvus, pytest.mark.slow])


@pytest.fixture(params=["lite", ON_A_SERVER])
def milvus(request):
    return request.getfixturevalue(request.param)


def assert_reference(hits, k, rows=None, tolerance=1e-5, queries=QUERIES):
    """Hits are the reference's, up to items that tie, among ``rows`` (all if None)."""
    rows = np.arange(N) if rows is None else np.flatnonzero(rows)
    want = NumpyEngine.build(BOOKS, CODES[rows], IDS[rows]).search(queries, k)
    np.testing.assert_allclose(hits.scores, want.scores, atol=tolerance)
    truth = scoring.aqs(queries, CODES, BOOKS)
    row_of = {int(i): row for row, i in enumerate(IDS)}
    for query, found in enumerate(hits.ids):
        found = found[found >= 0]
        assert len(set(found.tolist())) == len(found)
        places = [row_of[int(i)] for i in found]
        assert set(places) <= set(rows.tolist())
        np.testing.assert_allclose(
            truth[query, places], want.scores[query, : len(found)], atol=tolerance
        )


def check_exact_profile(milvus, profile):
    engine = milvus.build(profile=profile, columns=COLUMNS)
    assert engine.verification.ok
    assert engine.verify(expected_rows=N).ok
    assert_reference(engine.search(QUERIES, 100), 100)
    assert_reference(engine.search(QUERIES, 20, filter="year == 3"), 20, np.arange(N) % 7 == 3)
    some = f"id in {IDS[:400:3].tolist()} and seen == true"
    rows = (np.arange(N) < 400) & (np.arange(N) % 6 == 0)
    assert_reference(engine.search(QUERIES, 80, filter=some), 80, rows)


def test_the_exact_profile_returns_the_reference_with_and_without_a_filter(milvus):
    check_exact_profile(milvus, "exact")


def test_the_sparse_profile_returns_the_reference_with_and_without_a_filter(lite):
    check_exact_profile(lite, "sparse")


def test_compact_on_a_server_finds_the_codewords_again(server):
    codes = np.concatenate([CODES, CODES])  # Milvus builds no index for fewer than 1,024 rows
    engine = server.build(codes, None, profile="compact")
    assert engine.verification.ok, engine.verification
    hits = engine.search(QUERIES, 100)
    scores = scoring.aqs(QUERIES, codes, BOOKS)
    best = -np.sort(-scores, axis=1)[:, 99:100]
    assert (np.take_along_axis(scores, hits.ids, axis=1) >= best - 1e-5).mean() > 0.97
    assert engine.collection.index_state()["index_type"] == "IVF_PQ"


def test_compact_on_2_3_refuses_what_its_index_would_get_wrong(server):
    engine = server.build(profile="compact")
    for what, action in [
        ("a filter", lambda: engine.search(QUERIES, 5, filter="id > 3")),
        ("removing rows", lambda: engine.remove(IDS[:3])),
        ("removing rows", lambda: engine.collection.remove_where("id > 3")),
        ("replacing rows", lambda: engine.collection.upsert(CODES[:2], IDS[:2])),
        ("k above 16384", lambda: engine.search(QUERIES, 20_000)),
    ]:
        with pytest.raises(InvalidInputError, match=f"{what} is not for profile 'compact' on Mil"):
            action()
    assert len(engine) == N


def test_graph_returns_true_scores_and_nearly_all(milvus):
    engine = milvus.build(profile="graph", links=16)
    hits = engine.search(QUERIES, 10, ef=400)
    row_of = {int(i): row for row, i in enumerate(IDS)}
    rows = np.vectorize(row_of.get)(hits.ids)
    truth = scoring.aqs(QUERIES, CODES, BOOKS)
    np.testing.assert_allclose(np.take_along_axis(truth, rows, axis=1), hits.scores, atol=1e-5)
    best = np.sort(truth, axis=1)[:, -10:-9]
    assert (hits.scores >= best - 1e-5).mean() > 0.9
    with pytest.raises(
        InvalidInputError, match=r"takes the search options \['ef'\], got \['efs'\]"
    ):
        engine.search(QUERIES, 10, efs=3)


def test_hamming_equals_faiss(server):
    bits = RNG.integers(256, size=(N, 8)).astype(np.uint8)
    q = RNG.integers(256, size=(5, 8)).astype(np.uint8)
    options = {"collection": server.name, "uri": server.uri, "token": server.token}
    hits = MilvusHamming.build(bits, IDS, hasher="ITQ", **options).search(q, 50)
    index = faiss.IndexBinaryFlat(64)
    index.add(bits)
    distances, rows = index.search(q, 50)
    np.testing.assert_array_equal(hits.scores, 64 - distances)
    inside = distances < distances[:, -1:]  # ties at the end may be broken otherwise
    for query in range(5):
        want = set(IDS[rows[query, inside[query]]].tolist())
        assert want == set(hits.ids[query, inside[query]].tolist())
    with pytest.raises(InvalidInputError, match="other codebooks, or with bits of another hasher"):
        MilvusHamming.build(bits, IDS, hasher="LSH", resume=True, **options)


def test_columns_come_back_with_the_hits_and_partitions_are_searched_alone(milvus):
    engine = milvus.build(codes=CODES[:350], ids=IDS[:350], columns=first(350), partition="old")
    rest = {name: values[350:] for name, values in COLUMNS.items()}
    engine.add(CODES[350:], IDS[350:], columns=rest, partition="new")
    hits = engine.search(QUERIES, 5, output_fields=["name", "weight"])
    row_of = {int(i): row for row, i in enumerate(IDS)}
    for ids, fields in zip(hits.ids, hits.fields, strict=True):
        assert [f["name"] for f in fields] == [f"photo {row_of[int(i)]} ü" for i in ids]
        assert [f["weight"] for f in fields] == [row_of[int(i)] / 8 for i in ids]
    assert_reference(engine.search(QUERIES, 9, partitions=["old"]), 9, np.arange(N) < 350)
    assert_reference(engine.search(QUERIES, 9, partitions=["new"]), 9, np.arange(N) >= 350)
    assert_reference(engine.search(QUERIES, 9), 9)
    [row] = engine.collection.fields(IDS[7:8], ["year"])
    assert row == {"id": IDS[7], "year": 0}


def first(n):
    return {name: values[:n] for name, values in COLUMNS.items()}


def test_rows_are_added_replaced_and_removed(milvus):
    engine = milvus.build(ids=np.arange(N))
    engine.add(CODES[:2])
    assert engine.ids().tolist() == list(range(N + 2))
    np.testing.assert_array_equal(engine.codes(np.array([N + 1, 3, N + 1])), CODES[[1, 3, 1]])
    with pytest.raises(InvalidInputError, match="1 are taken already, for instance 5"):
        engine.add(CODES[:1], np.array([5]))
    engine.collection.upsert(CODES[:1], np.array([5]))
    assert len(engine) == N + 2
    np.testing.assert_array_equal(engine.codes(np.array([5])), CODES[:1])
    assert engine.remove(np.array([5, 6, 10**6])) == 2
    assert len(engine) == N
    assert not np.isin(engine.search(QUERIES, N).ids, [5, 6]).any()
    engine.collection.remove_where("id >= 100")
    assert engine.ids().tolist() == [i for i in range(100) if i not in (5, 6)]
    assert engine.verify(rows=50).ok


def test_a_k_beyond_the_servers_limit_is_put_together(milvus, monkeypatch):
    monkeypatch.setattr(searching, "_MAX_K", 300)
    engine = milvus.build(columns=COLUMNS)
    hits = engine.search(QUERIES, 700, output_fields=["name"])
    assert_reference(hits, 700)
    row_of = {int(i): row for row, i in enumerate(IDS)}
    for ids, fields in zip(hits.ids, hits.fields, strict=True):
        assert [f["name"] for f in fields] == [f"photo {row_of[int(i)]} ü" for i in ids]
    few = engine.search(QUERIES, 700, filter="year == 2", output_fields=["year"])
    assert_reference(few, 700, np.arange(N) % 7 == 2)
    assert {f["year"] for fields in few.fields for f in fields} == {2}


def test_many_queries_go_in_several_requests(lite, monkeypatch):
    monkeypatch.setattr(searching, "_MAX_QUERIES", 4)
    engine = lite.build(columns=first(N))
    hits = engine.search(QUERIES, 10, output_fields=["year"])
    assert_reference(hits, 10)
    assert len(hits.fields) == len(QUERIES)


def test_a_bundle_points_to_the_collection_and_holds_no_credentials(milvus, tmp_path, monkeypatch):
    engine = milvus.build()
    save_bundle(engine, tmp_path / "x.mecoq", description={"profile": "exact"})
    monkeypatch.setenv("MILVUS_TOKEN", milvus.token)
    again, bundle = open_bundle(tmp_path / "x.mecoq", uri=engine.collection.connection.uri)
    assert bundle.engine == "milvus"
    np.testing.assert_array_equal(again.search(QUERIES, 7).scores, engine.search(QUERIES, 7).scores)
    texts = [p.read_bytes() for p in (tmp_path / "x.mecoq").rglob("*") if p.is_file()]
    assert milvus.token == "" or not any(b"root:" in text for text in texts)
    (address,) = (tmp_path / "x.mecoq").glob("milvus*.json")
    address.write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        MilvusEngine.open(address, BOOKS)


def test_a_collection_is_released_loaded_and_dropped(milvus):
    engine = milvus.build()
    engine.collection.release()
    assert not engine.collection.is_loaded()
    assert_reference(milvus.attach().search(QUERIES, 5), 5)
    engine.collection.drop()
    with pytest.raises(InvalidInputError, match=f"there is no collection '{milvus.name}' at"):
        milvus.attach()


def test_overwriting_keeps_the_old_collection_until_the_new_one_is_whole(milvus, monkeypatch):
    milvus.build(codes=CODES[:50], ids=IDS[:50])
    with pytest.raises(InvalidInputError, match=r"exists already at .* --overwrite"):
        milvus.build()
    assert len(milvus.attach()) == 50

    def fail(self, *args):
        raise ServerError("the machine caught fire")

    with monkeypatch.context() as patch:
        patch.setattr(collection_module.MilvusCollection, "finish", fail)
        with pytest.raises(ServerError, match="fire"):
            milvus.build(overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(builder, "verify", lambda *_, **__: BAD)
        with pytest.raises(ServerError, match=f"'{milvus.name}': it is bad. Start again with"):
            milvus.build(overwrite=True, resume=True)
    assert len(milvus.attach()) == 50
    engine = milvus.build(overwrite=True, resume=True)
    assert_reference(engine.search(QUERIES, 10), 10)
    assert {name for name in milvus.collections() if name.startswith(milvus.name)} == {milvus.name}
    # As after an end between dropping the old collection and renaming the new one.
    engine.collection.rename(milvus.name + "_unfinished")
    engine = milvus.build(overwrite=True, resume=True)
    assert len(engine) == N
    assert {name for name in milvus.collections() if name.startswith(milvus.name)} == {milvus.name}


BAD = Verification("x", N, N, 0.0, 9.0, ("it is bad.",))


def test_an_interrupted_load_is_resumed(milvus, monkeypatch):
    monkeypatch.setattr("mecoq_index.engines.milvus.batches._ROWS", 200)
    sent = []

    def interrupt(text, done, total):
        sent.append(done)
        if done >= 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        milvus.build(columns=COLUMNS, on_progress=interrupt)
    assert sent == [200, 400, 600]
    with pytest.raises(InvalidInputError, match=f"there is no collection '{milvus.name}'"):
        milvus.attach()
    with pytest.raises(
        InvalidInputError, match="must not end in '_unfinished', which marks one that"
    ):
        milvus.attach(name=milvus.name + "_unfinished")
    with pytest.raises(InvalidInputError, match=r"was left unfinished at .* --resume"):
        milvus.build(columns=COLUMNS)
    other_names = {**COLUMNS, "name": ["x"] * N}
    with pytest.raises(InvalidInputError, match="was filled from other rows"):
        milvus.build(columns=other_names, resume=True)
    sent.clear()
    engine = milvus.build(columns=COLUMNS, resume=True, on_progress=lambda *a: sent.append(a))
    assert len(engine) == N
    assert engine.ids().tolist() == sorted(IDS.tolist())
    assert engine.verify(expected_rows=N).ok
    assert_reference(engine.search(QUERIES, 30), 30)
    sent.clear()
    again = milvus.build(columns=COLUMNS, resume=True, on_progress=lambda *a: sent.append(a))
    assert len(again) == N
    assert {text for text, *_ in sent} == {"verifying"}, "nothing else is left to do"


def test_a_collection_filled_from_something_else_is_not_resumed(milvus):
    milvus.build(codes=CODES[:500], ids=IDS[:500])
    codes = CODES[:500].copy()
    codes[499, 5] ^= 1
    for other in ({"codes": codes, "ids": IDS[:500]}, {"codes": CODES[:400], "ids": IDS[:400]}):
        with pytest.raises(InvalidInputError, match="was filled from other rows"):
            milvus.build(**other, resume=True)
    assert len(milvus.attach()) == 500


def test_rows_in_other_partitions_are_not_replaced_by_halves(milvus):
    engine = milvus.build(ids=np.arange(N), partition="old")
    engine.collection.upsert(CODES[:1], np.array([5]), partition="old")
    np.testing.assert_array_equal(engine.codes(np.array([5])), CODES[:1])
    with pytest.raises(InvalidInputError, match="but 3 are in others, for instance 0"):
        engine.collection.upsert(CODES[:4], np.array([0, 1, 2, N]))
    engine.collection.upsert(CODES[:1], np.array([N]), partition="new")
    assert len(engine) == N + 1
    assert engine.verify(expected_rows=N + 1).ok


def test_aliases_go_over_to_the_new_collection(server):
    engine = server.build(codes=CODES[:50], ids=IDS[:50])
    alias = server.name + "_alias"
    client = engine.collection.connection.client
    client.create_alias(server.name, alias)
    with pytest.raises(InvalidInputError, match=f"'{alias}' is an alias of collection"):
        server.build(collection=alias, overwrite=True)
    server.build(overwrite=True)
    assert len(server.attach(name=alias)) == N
    client.drop_alias(alias)


class Lossy:
    """A client whose insertions arrive, but whose answers sometimes do not."""

    def __init__(self, client, failures):
        self._client, self._failures = client, failures

    def __getattr__(self, name):
        return getattr(self._client, name)

    def insert(self, *args, **kwargs):
        from pymilvus.exceptions import MilvusException

        when = self._failures.pop(0) if self._failures else None
        if when == "before":
            raise MilvusException(503, "channel not available")
        result = self._client.insert(*args, **kwargs)
        if when == "after":
            raise MilvusException(503, "channel not available")
        return result


def test_no_row_is_there_twice_when_an_answer_is_lost(server, monkeypatch):
    monkeypatch.setattr("mecoq_index.engines.milvus.batches._ROWS", 200)
    lossy = []

    def connect_badly(*args, **kwargs):
        found = connect(*args, **kwargs)
        failures = ["after", "before", None, "before", "after"]
        object.__setattr__(found, "client", Lossy(found.client, failures))
        lossy.append(found)
        return found

    monkeypatch.setattr("mecoq_index.engines.milvus.engine.connect", connect_badly)
    engine = server.build()
    assert not lossy[-1].client._failures
    assert len(engine) == N
    assert engine.verify(expected_rows=N).ok
    # Milvus counts equal ids apart.
    assert len(engine.collection._query("id >= 0", ["id"])) == N


def test_other_codebooks_and_foreign_collections_are_refused(milvus):
    milvus.build()
    with pytest.raises(InvalidInputError, match="was made with other codebooks"):
        milvus.attach(make_codebooks(seed=5))
    wide = np.random.default_rng(0).standard_normal((6, 16, 5))
    wide = Codebooks(wide / np.linalg.norm(wide, axis=-1, keepdims=True))
    with pytest.raises(InvalidInputError, match=r"holds FLOAT_VECTOR of width 24, but .* 30 is"):
        milvus.attach(wide)
    with pytest.raises(InvalidInputError, match="is of profile 'exact', not 'graph'"):
        milvus.build(profile="graph", resume=True)
    milvus.build(profile="graph", overwrite=True)
    with pytest.raises(InvalidInputError, match=r"with the profile's options \{\}, not \{'lin"):
        milvus.build(profile="graph", links=8, resume=True)
    connection = connect(milvus.uri, token=milvus.token)
    foreign = milvus.name + "_foreign"
    connection.call("create_collection", foreign, dimension=24)
    with pytest.raises(InvalidInputError, match="was not made by this package"):
        milvus.attach(name=foreign)
    with pytest.raises(InvalidInputError, match="was not made by this package"):
        milvus.build(collection=foreign, resume=True)


def test_bad_input_leaves_nothing_behind(milvus):
    before = milvus.collections()
    for options, message in [
        ({"codes": CODES[:, :5].copy()}, r"codes must have shape \(n, 6\), got"),
        ({"codes": np.full((5, 6), 16, np.uint8), "ids": IDS[:5]}, "codes must be below K=16"),
        ({"ids": IDS[:-1]}, rf"ids must have shape \({N},\), got"),
        ({"ids": np.zeros(N, np.int64)}, "ids must be distinct"),
        ({"columns": {"id": IDS}}, "names of columns must be identifiers other than 'id'"),
        ({"columns": {"a b": IDS}}, "names of columns must be identifiers"),
        ({"columns": {"year": [1]}}, "column 'year' must have one value an item"),
        ({"columns": {"x": np.zeros(N, complex)}}, "column 'x' must hold integers, floats"),
        ({"columns": {"x": [1, "a", 2.5] + [0] * (N - 3)}}, "'x' must hold values of one type"),
        ({"columns": {"x": np.full(N, 2**63, np.uint64)}}, "'x' must hold integers up to 922337"),
        ({"columns": {"größe": IDS}}, "names of columns must be identifiers"),
        ({"profile": "flat"}, "profile must be one of"),
        ({"profile": "graph", "links": 0}, "links must be an integer between"),
        ({"partition": "a b"}, "the name of a partition must consist of at most 255"),
        ({"collection": "x_unfinished"}, "must not end in '_unfinished'"),
        ({"collection": "mecoq_codebooks"}, "'mecoq_codebooks' holds the codebooks of the others"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            milvus.build(**options)
    with pytest.raises(InvalidInputError, match=r"the name of a collection must .* got 'no name'"):
        milvus.build(collection="no name")
    assert milvus.collections() == before


def test_columns_of_added_rows_are_those_of_the_collection(lite):
    engine = lite.build(columns={"year": COLUMNS["year"]})
    with pytest.raises(InvalidInputError, match=r"have the columns \['year'\], got \['name'\]"):
        engine.add(CODES[:1], columns={"name": ["x"]})
    with pytest.raises(ServerError, match="failed: "):
        engine.search(QUERIES, 3, filter="nothing == 3")
    assert len(engine) == N


def test_profiles_that_lite_would_only_pretend_to_hold_are_refused(lite):
    with pytest.raises(InvalidInputError, match="'compact' needs IVF_PQ, which milvus-lite do"):
        lite.build(profile="compact")
    with pytest.raises(InvalidInputError, match="'hamming' needs BIN_FLAT, which milvus-lite"):
        MilvusHamming.build(CODES, collection=lite.name, uri=lite.uri)
    assert lite.collections() == set()


def test_a_server_that_is_out_of_reach_or_refuses_is_named(milvus_server, collection_name):
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:1 is out of reach"):
        Place("http://127.0.0.1:1", "", collection_name).build()
    with pytest.raises(ServerError, match="refuses these credentials"):
        Place(milvus_server.uri, "root:wrong", collection_name).build()


def test_what_it_is_made_of(milvus):
    described = milvus.build().describe()
    assert described["profile"] == "exact"
    assert described["items"] == N
    assert described["bytes_per_vector"] == 4 * 24 + 8
    assert "root:" not in str(described)
