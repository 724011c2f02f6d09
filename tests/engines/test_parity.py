"""Every engine, factory string and profile that needs no server against the NumPy algebra."""

from importlib.util import find_spec
from itertools import count

import numpy as np
import pytest

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.engines.registry import available_engines, get_engine
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index.stored import open_bundle, save_bundle

SHAPES = [(1, 2, 3), (3, 8, 2), (4, 16, 2), (5, 16, 3), (8, 256, 4)]
FACTORIES = ["MeCoQ", "MeCoQ,IDMap2", "IDMap,MeCoQ", "IVF4,MeCoQ", "IVF4,MeCoQ,IDMap2"]
FAST_SCANS = [
    "MeCoQ{M}x4fs",
    "MeCoQ{M}x4fs_64,IDMap2",
    "IVF4,MeCoQ{M}x4fs",
    "IVF4,MeCoQ{M}x4fs,IDMap2",
]


def make_codebooks(M, K, Ds, seed=0):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


def make_codes(n, books, seed=1):
    return np.random.default_rng(seed).integers(books.K, size=(n, books.M)).astype(np.uint8)


def cases():
    found = []
    for M, K, Ds in SHAPES:
        for name in available_engines():
            if name not in ("faiss", "milvus"):
                found.append(pytest.param(name, {}, M, K, Ds, id=f"{name}-{M}x{K}"))
        for form in FACTORIES + (FAST_SCANS if K == 16 else []):
            factory = form.format(M=M)
            options = {"factory": factory}
            found.append(pytest.param("faiss", options, M, K, Ds, id=f"{factory}-{M}x{K}"))
        for profile in ("exact", "sparse"):
            options = {"profile": profile}
            found.append(pytest.param("milvus", options, M, K, Ds, id=f"milvus-{profile}-{M}x{K}"))
    return found


@pytest.fixture(scope="session")
def milvus_file(tmp_path_factory):
    return str(tmp_path_factory.mktemp("milvus") / "parity.db")


@pytest.fixture(autouse=True)
def milvus_in_a_file(request, monkeypatch, milvus_file):
    """Where the milvus engine of a test goes."""
    if "milvus" in request.node.name:
        if not find_spec("milvus_lite"):
            pytest.skip("milvus-lite is not installed")
        monkeypatch.setitem(MILVUS, "uri", milvus_file)


MILVUS = {}
COLLECTIONS = (f"c{i}" for i in count())


def build(name, options, books, codes, ids=None):
    if name == "faiss":
        pytest.importorskip("faiss")
    if name == "milvus":
        options = {"collection": next(COLLECTIONS), **MILVUS, **options}
    if "IVF" in options.get("factory", ""):
        options = {**options, "nprobe": 4}  # all lists, so that nothing is missed
    return get_engine(name).build(books, codes, ids, **options)


def rounding(options, q, books):
    """How far a score may be off: FastScan rounds each of M tables to 8 bits, see its report."""
    if "fs" not in options.get("factory", ""):
        return 1e-5
    tables = scoring.lookup_tables(q, books)
    widest = (tables.max(axis=2) - tables.min(axis=2)).max()
    return float(books.M * widest / 255)


def assert_best(hits, q, codes, ids, books, tolerance):
    """Hits hold true scores of distinct items, none of which a better item was left out for.

    Items with equal codes tie, so ids are judged by their scores, not by their places.
    """
    scores = scoring.aqs(q, codes, books)
    k = hits.ids.shape[1]
    want = -np.sort(-scores, axis=1)[:, :k]
    found = min(k, len(codes))
    assert (hits.ids[:, found:] == -1).all()
    assert np.isneginf(hits.scores[:, found:]).all()
    assert hits.ids.dtype == np.int64
    assert hits.scores.dtype == np.float32
    np.testing.assert_allclose(hits.scores[:, :found], want, atol=tolerance)
    column = {int(id_): i for i, id_ in enumerate(ids)}
    for row, got in enumerate(hits.ids[:, :found]):
        assert len(set(got)) == found
        true = scores[row, [column[int(i)] for i in got]]
        np.testing.assert_allclose(true, want[row], atol=2 * tolerance)


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_engine_agrees_with_numpy(name, options, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(500, books)
    codes[100:120] = codes[0]  # duplicates
    q = np.random.default_rng(2).standard_normal((6, books.D), dtype=np.float32)
    q[1] *= 1e6
    q[2] *= 1e-6
    q[3, : books.Ds] = 0
    q[4] = 0
    engine = build(name, options, books, codes)
    assert len(engine) == 500
    assert_best(engine.search(q, 10), q, codes, range(500), books, rounding(options, q, books))


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_k_larger_than_the_index_pads_with_minus_one(name, options, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(7, books)
    q = np.random.default_rng(2).standard_normal((3, books.D), dtype=np.float32)
    hits = build(name, options, books, codes).search(q, 20)
    assert_best(hits, q, codes, range(7), books, rounding(options, q, books))


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_empty_and_single_item_indexes_and_no_queries(name, options, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    q = np.random.default_rng(2).standard_normal((2, books.D), dtype=np.float32)
    none = np.empty((0, books.M), np.uint8)
    if "IVF" in options.get("factory", ""):
        with pytest.raises(InvalidInputError, match=r"IVF4 needs at least 4 items .* got 0"):
            build(name, options, books, none)
        return
    engine = build(name, options, books, none)
    assert (engine.search(q, 3).ids == -1).all()
    one = make_codes(1, books)
    engine.add(one)
    assert_best(engine.search(q, 3), q, one, [0], books, rounding(options, q, books))
    assert engine.search(q[:0], 3).ids.shape == (0, 3)


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_items_added_later_and_ids_of_ones_own_are_found(name, options, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(60, books)
    q = np.random.default_rng(2).standard_normal((4, books.D), dtype=np.float32)
    ids = np.random.default_rng(3).permutation(1000)[:60].astype(np.int64)
    if options.get("factory", "IDMap") in ("MeCoQ", f"MeCoQ{M}x4fs"):
        with pytest.raises(
            InvalidInputError, match=r"Use 'MeCoQ\dx\d(fs)?,IDMap2' for ids of your"
        ):
            build(name, options, books, codes, ids)
        ids = np.arange(60)
    engine = build(name, options, books, codes[:40], ids[:40])
    engine.add(codes[40:], ids[40:])
    hits = engine.search(q, 15)
    assert_best(hits, q, codes, ids, books, rounding(options, q, books))


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_a_saved_bundle_gives_the_same_hits(name, options, M, K, Ds, tmp_path):
    books = make_codebooks(M, K, Ds)
    engine = build(name, options, books, make_codes(50, books))
    q = np.random.default_rng(2).standard_normal((3, books.D), dtype=np.float32)
    save_bundle(engine, tmp_path / "x.mecoq", names=[f"item {i}" for i in range(50)])
    where = {"uri": MILVUS["uri"]} if "milvus" in name else {}  # the items lie elsewhere
    again, bundle = open_bundle(tmp_path / "x.mecoq", **where)
    want, got = engine.search(q, 8), again.search(q, 8)
    np.testing.assert_array_equal(got.ids, want.ids)
    np.testing.assert_array_equal(got.scores, want.scores)
    assert again.describe() == engine.describe()
    assert bundle.names[49] == "item 49"
    again.add(make_codes(3, books, seed=9))
    assert len(again) == 53


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_removed_items_are_gone_and_the_others_keep_their_ids(name, options, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(60, books)
    engine = build(name, options, books, codes)
    leaving = np.arange(0, 60, 3)
    factory = options.get("factory", "")
    if "fs" in factory or factory == "MeCoQ" or ("IVF" in factory and "IDMap" in factory):
        with pytest.raises(InvalidInputError, match=r"cannot remove items\. Build with '.*MeCoQ"):
            engine.remove(leaving)
        return
    assert engine.remove(leaving) == 20
    assert engine.remove(leaving) == 0
    kept = np.setdiff1d(np.arange(60), leaving)
    q = np.random.default_rng(2).standard_normal((3, books.D), dtype=np.float32)
    assert_best(engine.search(q, 12), q, codes[kept], kept, books, 1e-5)
    engine.add(codes[:1])
    assert engine.search(q, 41).ids.max() == 60


@pytest.mark.parametrize("name", ["numpy", "torch", "faiss", "milvus"])
def test_bad_arguments_say_what_must_hold(name):
    books = make_codebooks(4, 16, 2)
    options = {"factory": "MeCoQ,IDMap2"} if name == "faiss" else {}
    engine = build(name, options, books, make_codes(5, books))
    q = np.zeros((1, 8), np.float32)
    for bad, message in [
        (q[0], r"z must have shape \(n, 8\), got \(8,\)\. Use z\[None, :\]"),
        (q[:, :7], r"z must have shape \(n, 8\), got \(1, 7\)"),
        (q + np.nan, "z must be finite, but 1 of 1 rows"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            engine.search(bad, 1)
    for k in (0, -1, 2.0, True):
        with pytest.raises(InvalidInputError, match=r"k, the number of results"):
            engine.search(q, k)
    with pytest.raises(InvalidInputError, match="codes must be below K=16, got 16"):
        engine.add(np.full((1, 4), 16, np.uint8))
    with pytest.raises(InvalidInputError, match=r"1 are (held|taken) already, for instance 3"):
        engine.add(make_codes(1, books), np.array([3]))
    with pytest.raises(InvalidInputError, match="ids must be distinct, but 1 repeat"):
        engine.add(make_codes(2, books), np.array([8, 8]))
    with pytest.raises(InvalidInputError, match="ids must not be negative, got -1"):
        engine.add(make_codes(1, books), np.array([-1]))
    assert len(engine) == 5


def test_bytes_per_vector_counts_packed_codes_and_ids():
    books = make_codebooks(5, 16, 2)
    codes = make_codes(50, books)
    sizes = {
        "MeCoQ": 3,
        "MeCoQ,IDMap2": 11,
        "IVF4,MeCoQ": 11,
        "IVF4,MeCoQ,IDMap2": 19,
        "MeCoQ5x4fs": 3,
    }
    for factory, size in sizes.items():
        assert build("faiss", {"factory": factory}, books, codes).bytes_per_vector == size
    assert build("numpy", {}, books, codes).bytes_per_vector == 13


def test_an_unknown_engine_lists_the_known_ones():
    with pytest.raises(
        InvalidInputError, match=r"unknown engine 'fais'; choose one of \['faiss', "
    ):
        get_engine("fais")


def test_a_file_of_codes_that_is_damaged_or_of_other_codebooks_is_refused(tmp_path):
    books = make_codebooks(4, 16, 2)
    path = tmp_path / "codes.npz"
    build("numpy", {}, books, make_codes(9, books)).save(path)
    with pytest.raises(ArtifactError, match=r"codes\.npz was built with other codebooks"):
        NumpyEngine.open(path, make_codebooks(4, 16, 2, seed=5))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"codes\.npz is no readable file of codes"):
        NumpyEngine.open(path, books)
    arrays = {"codes": np.full((2, 4), 99, np.uint8), "ids": np.arange(2)}
    np.savez(path, fingerprint=books.fingerprint, **arrays)
    with pytest.raises(ArtifactError, match=r"codes\.npz is damaged: codes must be below K=16"):
        NumpyEngine.open(path, books)


@pytest.mark.gpu
def test_the_torch_engine_agrees_with_numpy_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    books = make_codebooks(8, 256, 4)
    codes = make_codes(500, books)
    q = np.random.default_rng(2).standard_normal((6, books.D), dtype=np.float32)
    hits = build("torch", {"device": "cuda"}, books, codes).search(q, 10)
    assert_best(hits, q, codes, range(500), books, 1e-5)


@pytest.mark.parametrize("name,options,M,K,Ds", cases())
def test_codes_of_ids_that_repeat_are_given_back(name, options, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(60, books)
    engine = build(name, options, books, codes)
    ids = np.random.default_rng(4).integers(60, size=200)
    np.testing.assert_array_equal(engine.codes(ids), codes[ids])
    assert engine.codes(ids[:0]).shape == (0, M)
    with pytest.raises(InvalidInputError, match=r"ids must be .*, but 1 are not, .* 60\."):
        engine.codes(np.array([3, 60, 60]))
    with pytest.raises(InvalidInputError, match=r"ids must have shape \(n,\), got \(2, 2\)"):
        engine.codes(ids[:4].reshape(2, 2))
    with pytest.raises(InvalidInputError, match="ids must be an int64 array, got float64"):
        engine.codes(np.zeros(3))
