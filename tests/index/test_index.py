"""`Index`: built from any source, searched, changed, saved and shared."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mecoq_index as mi
from mecoq_index import scoring

faiss = pytest.importorskip("faiss")

N, P = 300, 12


@pytest.fixture(scope="module")
def books():
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, 16, 3))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    return mi.Codebooks(c.astype(np.float32))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).standard_normal((N, P))  # float64, as NumPy makes it


def best(books, x, queries, k):
    """Scores and rows of the k best items by the algebra."""
    x, queries = x.astype(np.float32), queries.astype(np.float32)
    scores = scoring.aqs(queries, scoring.encode(x, books), books)
    return -np.sort(-scores, axis=1)[:, :k], scores


@pytest.mark.parametrize("engine", ["numpy", "torch", "faiss"])
def test_an_index_in_memory_ranks_by_the_algebra(books, x, engine):
    index = mi.Index.build(x, books, engine=engine)
    found, ids = index.search(x[:5], k=7)
    want, scores = best(books, x, x[:5], 7)
    np.testing.assert_allclose(found, want, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(scores, ids, axis=1), found, atol=1e-5)
    assert (len(index), index.path, index.address) == (N, None, None)


def test_one_vector_is_one_query(books, x):
    index = mi.Index.build(x, books)
    one, many = index.search(x[3], k=4), index.search(x[3:4], k=4)
    assert len(one) == 1
    np.testing.assert_array_equal(one.ids, many.ids)


def test_more_than_there_is_gives_all_that_there_is(books, x):
    results = mi.Index.build(x[:6], books).search(x[:2], k=10)
    assert [len(results[i]) for i in range(2)] == [6, 6]


def test_names_and_columns_come_back_from_disk(books, x, tmp_path):
    names = [f"item {i}" for i in range(N)]
    columns = {"year": np.arange(N) + 1900}
    mi.Index.build(x, books, out=tmp_path / "x.mecoq", ids=names, columns=columns)
    index = mi.open_index(tmp_path / "x.mecoq", codebooks=books)
    results = index.search(x[:3], k=2)
    for hit in (*results[0], *results[1], *results[2]):
        assert hit.name == f"item {hit.id}"
        assert hit.fields["year"] == 1900 + hit.id


def test_an_index_is_changed_and_saved(books, x, tmp_path):
    path = tmp_path / "x.mecoq"
    index = mi.Index.build(
        x[:200], books, out=path, factory="MeCoQ,IDMap2", ids=[f"{i}" for i in range(200)]
    )
    index.add(x[200:210], ids=[f"{i}" for i in range(200, 210)])
    index.remove(["7", "205"])
    assert len(mi.open_index(path)) == 200  # until it is saved
    index.save()
    again = mi.open_index(path)
    assert len(again) == 208
    found = {hit.name for hit in again.search(x[0], k=208)[0]}
    assert found == {f"{i}" for i in range(210)} - {"7", "205"}
    with pytest.raises(mi.InvalidInputError, match="'7'"):
        again.remove(["7"])


def test_a_flat_index_says_how_to_be_able_to_remove(books, x):
    index = mi.Index.build(x, books)
    with pytest.raises(mi.InvalidInputError, match="Build with 'MeCoQ4x4,IDMap2'"):
        index.remove([3])


def test_other_codebooks_are_refused(books, x, tmp_path):
    mi.Index.build(x, books, out=tmp_path / "x.mecoq")
    others = mi.Codebooks(np.ascontiguousarray(books.codewords[::-1]))
    with pytest.raises(mi.ArtifactError, match="other codebooks"):
        mi.open_index(tmp_path / "x.mecoq", codebooks=others)


def test_an_index_is_pickled_and_shared_by_threads(books, x):
    index = mi.Index.build(x, books, factory="IVF8,MeCoQ", nprobe=8)
    want = index.search(x[:20], k=5)
    copy = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(copy.search(x[:20], k=5).ids, want.ids)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: copy.search(x[i], k=5).ids[0], range(20)))
    np.testing.assert_array_equal(found, want.ids)


@pytest.mark.parametrize(
    "factory,removes",
    [
        ("HNSW8,MeCoQ", False),
        ("IVF8,MeCoQ", True),
        ("MeCoQ4x4fs", False),
        ("IVF8,MeCoQ4x4fs,Refine(MeCoQ),IDMap2", False),
        ("MeCoQ,IDMap2", True),
    ],
)
def test_items_come_and_go_while_others_search(factory, removes, books, x):
    options = {"nprobe": 8} if "IVF" in factory else {}
    index = mi.Index.build(x, books, factory=factory, **options)
    wanted, stop, rounds = index.search(x[:20], k=1).scores, threading.Event(), 12

    def search():
        count = 0
        while not stop.is_set():
            results = index.search(x[:20], k=1)
            found = results.scores >= wanted - 0.1  # FastScan rounds
            assert found.mean() > 0.7 if "HNSW" in factory else found.all()
            assert results.ids.min() >= 0
            count += 1
        return count

    with ThreadPoolExecutor(4, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        searches = [pool.submit(search) for _ in range(3)]
        try:
            for _ in range(rounds):
                ids = index.add(x[:37])
                if removes:
                    assert index.remove(ids) == 37
        finally:
            stop.set()
        assert min(done.result() for done in searches) > 0
    assert len(index) == N + (0 if removes else 37 * rounds)


def test_an_option_is_that_of_one_call(books, x):
    index = mi.Index.build(x, books, factory="IVF8,MeCoQ", nprobe=1)
    few, all_lists = index.search(x[:20], k=40), index.search(x[:20], k=40, nprobe=8)
    np.testing.assert_allclose(all_lists.scores, best(books, x, x[:20], 40)[0], atol=1e-5)
    np.testing.assert_array_equal(index.search(x[:20], k=40).ids, few.ids)
    assert (few.ids == -1).any()
    with pytest.raises(mi.InvalidInputError, match="did you mean 'nprobe'"):
        index.search(x[:1], nprob=3)


@pytest.mark.parametrize(
    "queries,message",
    [
        (np.zeros((2, 5)), "width"),
        (np.full((1, P), np.nan), "NaN"),
        (np.zeros((1, P), complex), "complex"),
    ],
)
def test_bad_queries_get_one_sentence(books, x, queries, message):
    with pytest.raises(mi.InvalidInputError, match=message):
        mi.Index.build(x, books).search(queries)


def test_an_index_is_encoded_again_for_new_codebooks(books, x, tmp_path):
    index = mi.Index.build(x, books, ids=[f"{i}" for i in range(N)])
    others = mi.Codebooks(np.ascontiguousarray(books.codewords[::-1]))
    mixed = np.random.default_rng(3).permutation(N)
    names = [f"{i}" for i in mixed]
    again = index.reencode(others, x[mixed], ids=names, out=tmp_path / "y.mecoq")
    scores, _ = again.search(x[:4], k=3)
    np.testing.assert_allclose(scores, best(others, x, x[:4], 3)[0], atol=1e-5)
    assert again.codebooks.fingerprint == others.fingerprint
    assert again.search(x[:1], k=1)[0][0].name == f"{again.search(x[:1], k=1).ids[0, 0]}"


def test_results_become_rows_and_tables(books, x):
    pandas = pytest.importorskip("pandas")
    results = mi.Index.build(x, books, ids=[f"{i}" for i in range(N)]).search(x[:2], k=3)
    table = results.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == 6
    assert len(results.to_list()) == 2


def test_rows_are_not_taken_for_items_that_have_names_or_ids(books, x):
    others = mi.Codebooks(np.ascontiguousarray(books.codewords[::-1]))
    named = mi.Index.build(x, books, ids=[f"{i}" for i in range(N)])
    with pytest.raises(mi.InvalidInputError, match=r"must say the names of its rows .*--ids"):
        named.reencode(others, x)
    numbered = mi.Index.build(x, books, engine="numpy", ids=np.arange(N)[::-1] + 1)
    with pytest.raises(mi.InvalidInputError, match="must say the ids of its rows"):
        numbered.reencode(others, x)
    again = numbered.reencode(others, x, ids=np.arange(N)[::-1] + 1)
    np.testing.assert_array_equal(
        again.engine.codes(np.array([N, 1])), mi.encode(x[[0, N - 1]].astype(np.float32), others)
    )


def test_codebooks_that_do_not_fit_the_layout_are_refused_before_encoding(books, x):
    index = mi.Index.build(x, books, factory="MeCoQ4x4")
    other = mi.Codebooks(books.codewords[:2])
    told = []
    with pytest.raises(mi.InvalidInputError, match="asks for 4 subquantizers"):
        index.reencode(other, x, progress=lambda *step: told.append(step))
    assert told == []
