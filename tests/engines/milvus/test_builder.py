"""The engine as code above it sees it: declared options, a builder, items, abilities."""

import numpy as np
import pytest

pytest.importorskip("pymilvus")

from mecoq_index.codebooks import Codebooks
from mecoq_index.engines import abilities
from mecoq_index.engines.base import Batch
from mecoq_index.engines.hits import Hits
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.schema import CODEBOOKS
from mecoq_index.errors import InvalidInputError, ServerError

N = 300
CODES = np.random.default_rng(0).integers(16, size=(N, 4)).astype(np.uint8)
NAMES = [f"photo {i}" for i in range(N)]
YEARS = np.arange(N) % 9


def make_codebooks(seed=0):
    c = np.random.default_rng(seed).standard_normal((4, 16, 3))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


BOOKS = make_codebooks()


def batches(n=N):
    for at in range(0, n, 100):
        columns = {"name": NAMES[at : at + 100], "year": YEARS[at : at + 100]}
        yield Batch(CODES[at : at + 100], range(at, at + 100), None, columns)


def build(uri, **options):
    builder = MilvusEngine.builder(BOOKS, N, uri=uri, **options)
    for batch in batches():
        assert builder.place(batch.codes) is None
        builder.add(batch)
    return builder.finish()


def test_batches_become_a_verified_collection(lite_uri):
    engine = build(f"{lite_uri}/photos", profile="graph", links=8)
    assert len(engine) == N
    assert engine.keeps_ids
    assert engine.verification.ok
    assert str(engine.verification).startswith(f"collection 'photos': {N} rows indexed")
    assert engine.columns() == ("name", "year")
    np.testing.assert_array_equal(engine.codes([7, 3, 7]), CODES[[7, 3, 7]])
    z = np.random.default_rng(1).standard_normal((2, 12))  # float64 is converted
    hits = engine.search(z, 4, output_fields=engine.columns(), ef=50)
    assert type(hits) is Hits
    for ids, fields in zip(hits.ids, hits.fields, strict=True):
        assert [f["name"] for f in fields] == [NAMES[i] for i in ids]
        assert [f["year"] for f in fields] == [YEARS[i] for i in ids]
    assert engine.search(z, 4).fields == []
    assert set(engine.search(z, 4, output_fields="name, year").fields[0][0]) == {"name", "year"}


def test_items_come_back_in_batches(lite_uri, monkeypatch):
    engine = build(f"{lite_uri}/photos")
    monkeypatch.setattr("mecoq_index.engines.milvus.engine._PAGE", 128)
    found = list(engine.items())
    assert [len(batch.codes) for batch in found] == [128, 128, 44]
    np.testing.assert_array_equal(np.concatenate([b.codes for b in found]), CODES)
    np.testing.assert_array_equal(np.concatenate([b.ids for b in found]), np.arange(N))
    assert [name for b in found for name in b.columns["name"]] == NAMES
    again = engine.builder_alike()
    for batch in found[1:]:
        again.add(batch)
    assert len(engine) == N  # until the new one is complete
    replaced = again.finish()
    assert len(replaced) == len(engine) == N - 128
    assert "place (collection 'photos' at" in engine.merge_obstacle(replaced)


def test_nothing_is_written_before_the_end(lite_uri, tmp_path):
    builder = MilvusEngine.builder(BOOKS, N, uri=f"{lite_uri}/photos")
    for batch in batches():
        builder.add(batch)
    assert list(tmp_path.iterdir()) == []
    builder.finish()
    with pytest.raises(InvalidInputError, match="collection 'photos' exists already"):
        MilvusEngine.builder(BOOKS, N, uri=f"{lite_uri}/photos")


def test_batches_must_fit_together(lite_uri):
    builder = MilvusEngine.builder(BOOKS, N, uri=f"{lite_uri}/photos")
    first, second, _ = batches()
    builder.add(first)
    with pytest.raises(
        InvalidInputError, match=r"columns of the first, \['name', 'year'\], got \[\]"
    ):
        builder.add(Batch(second.codes, second.ids))
    with pytest.raises(InvalidInputError, match=r"ids must have shape \(100,\), got \(99,\)"):
        builder.add(Batch(second.codes, range(99), None, second.columns))
    builder.add(first)
    with pytest.raises(InvalidInputError, match="ids must be distinct, but 100 repeat"):
        builder.finish()


def test_no_items_are_a_collection_too(lite_uri):
    engine = MilvusEngine.builder(BOOKS, 0, uri=f"{lite_uri}/photos").finish()
    assert len(engine) == 0
    assert (engine.search(np.ones((1, 12)), 3).ids == -1).all()


@pytest.mark.parametrize(
    "options,saying",
    [
        ({"profile": "grpah"}, "profile must be one of"),
        ({"nbits": 5}, r"unknown exact option 'nbits'; the exact options are \['precision'\]"),
        ({"presicion": "float16"}, "did you mean 'precision'"),
        ({"precision": "float16"}, "float16 needs a Milvus server of 2.4 or later"),
        ({"partition": "a b"}, "the name of a partition must"),
        ({"collection": "other"}, "names the collection 'photos', but collection is 'other'"),
    ],
)
def test_options_are_refused_at_once(lite_uri, tmp_path, options, saying):
    with pytest.raises(InvalidInputError, match=saying):
        MilvusEngine.builder(BOOKS, N, uri=f"{lite_uri}/photos", **options)
    assert list(tmp_path.iterdir()) == []


def test_options_that_were_not_given_are_none(lite_uri):
    engine = build(f"{lite_uri}/photos", precision=None, nbits=None, links=None)
    assert engine.collection.profile.options == {}


def test_a_search_option_of_another_profile_is_named(lite_uri):
    engine = build(f"{lite_uri}/photos")
    with pytest.raises(InvalidInputError, match=r"takes the search options \[\], got \['ef'\]"):
        engine.search(np.ones((1, 12)), 3, ef=9)
    with pytest.raises(InvalidInputError, match="unknown column 'nmae'; did you mean 'name'"):
        engine.search(np.ones((1, 12)), 3, output_fields="nmae")
    with pytest.raises(ServerError, match="failed: "):
        engine.search(np.ones((1, 12)), 3, filter="nmae == 3")


def test_the_engine_has_the_abilities_it_declares():
    for ability in (
        abilities.Attachable,
        abilities.Verifiable,
        abilities.Exporter,
        abilities.Benchable,
    ):
        assert isinstance(MilvusEngine, ability)
    assert not isinstance(MilvusEngine, abilities.Tunable)
    assert (MilvusEngine.holds_items, MilvusEngine.stores_columns) == (False, True)
    names = [option.name for option in MilvusEngine.options]
    assert len(set(names)) == len(names)
    assert [o.name for o in MilvusEngine.options if o.is_secret] == ["token"]
    by_stage = {
        stage: {o.name for o in MilvusEngine.options if stage in o.stages}
        for stage in ("open", "search", "bench")
    }
    assert by_stage == {
        "open": {"uri", "token", "collection", "database"},
        "search": {"filter", "ef", "output_fields", "partitions", "consistency_level"},
        "bench": {"uri", "token", "profiles"},
    }


@pytest.mark.parametrize("old", [False, True])
def test_a_saved_place_is_opened(lite_uri, tmp_path, old):
    engine = build(f"{lite_uri}/photos")
    path = tmp_path / "milvus.json"
    engine.save(path)
    if old:
        path.write_text(path.read_text().replace('"database"', '"db_name"'))
    assert len(MilvusEngine.open(path, BOOKS)) == N
    with pytest.raises(InvalidInputError, match="there is no collection 'cats' at"):
        MilvusEngine.open(path, BOOKS, collection="cats")
    assert set(engine.collection.connection.call("list_collections")) == {"photos", CODEBOOKS}
