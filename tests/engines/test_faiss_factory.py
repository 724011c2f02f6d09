import numpy as np
import pytest

from mecoq_index import aqs
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.engines.faiss.coarse import train_coarse_quantizer
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.factory import index_factory, parse
from mecoq_index.engines.faiss.inject import inject, protect, stored_codewords
from mecoq_index.errors import ArtifactError, InvalidInputError, MissingDependencyError

faiss = pytest.importorskip("faiss")


def make_codebooks(M=4, K=16, Ds=4, seed=0, projection=()):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    return Codebooks(c.astype(np.float32), projection=projection)


ACCEPTED = [
    (256, "MeCoQ"),
    (256, "MeCoQ4x8"),
    (256, "IDMap,MeCoQ4x8"),
    (256, "IDMap2,MeCoQ4x8"),
    (256, "MeCoQ4x8,IDMap2"),
    (256, "IVF8,MeCoQ4x8"),
    (256, "IVF8,MeCoQ,IDMap2"),
    (256, "IDMap2,IVF8,MeCoQ4x8"),
    (16, "MeCoQ4x4"),
    (16, "IVF8,MeCoQ4x4"),
    (16, "MeCoQ4x4fs"),
    (16, "MeCoQ4x4fs_64"),
    (16, "MeCoQ4x4fs,IDMap2"),
    (16, "IVF8,MeCoQ4x4fs"),
    (16, "IVF8,MeCoQ4x4fs_128,IDMap"),
]


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_train_never_changes_the_codebooks(K, string):
    books = make_codebooks(K=K)
    x = np.random.default_rng(1).standard_normal((1000, books.D), dtype=np.float32)
    index = index_factory(books.D, string, books)
    for candidate in (index, faiss.clone_index(index)):
        candidate.train(x)
        candidate.train(x[::-1].copy())
        assert candidate.is_trained
        np.testing.assert_array_equal(stored_codewords(candidate), books.codewords)


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_train_is_harmless_again_once_a_file_is_protected(K, string, tmp_path):
    books = make_codebooks(K=K)
    x = np.random.default_rng(1).standard_normal((1000, books.D), dtype=np.float32)
    index = index_factory(books.D, string, books)
    index.train(x)
    faiss.write_index(index, str(tmp_path / "index"))
    again = faiss.read_index(str(tmp_path / "index"))
    protect(again)
    again.train(x)
    np.testing.assert_array_equal(stored_codewords(again), books.codewords)


def test_the_guard_is_what_protects():
    # Without it, train() on an index that already holds codebooks replaces them.
    books = make_codebooks()
    index = faiss.index_factory(books.D, "PQ4x4np", faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(books.codewords.ravel(), index.pq.centroids)
    index.train(np.random.default_rng(1).standard_normal((1000, books.D), dtype=np.float32))
    assert not np.array_equal(stored_codewords(index), books.codewords)


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_plain_faiss_use_ranks_by_aqs(K, string, tmp_path):
    books = make_codebooks(K=K)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((600, books.D), dtype=np.float32)
    q = rng.standard_normal((5, books.D), dtype=np.float32)
    index = index_factory(books.D, string, books)
    index.train(x)
    if "IDMap" in string:
        index.add_with_ids(x, np.arange(600) + 7)
    else:
        index.add(x)
    faiss.write_index(index, str(tmp_path / "index"))
    index = faiss.read_index(str(tmp_path / "index"))
    if "IVF" in string:
        faiss.extract_index_ivf(index).nprobe = 8
    scores, ids = index.search(aqs.block_normalize(q, books.M), 10)
    true = aqs.aqs(q, aqs.encode(x, books), books)
    tolerance = books.M * 2 / 255 if "fs" in string else 1e-5
    np.testing.assert_allclose(scores, -np.sort(-true, axis=1)[:, :10], atol=tolerance)
    rows = ids - 7 if "IDMap" in string else ids
    got = np.take_along_axis(true, rows, axis=1)
    np.testing.assert_allclose(got, scores, atol=tolerance)


@pytest.mark.parametrize("K", [2, 16, 256])
def test_faiss_encodes_like_we_do_at_any_scale(K):
    books = make_codebooks(K=K)
    index = index_factory(books.D, "MeCoQ", books)
    x = np.random.default_rng(1).standard_normal((2000, books.D), dtype=np.float32)
    x *= np.logspace(-2, 2, 2000, dtype=np.float32)[:, None]
    nbits = K.bit_length() - 1
    packed = index.sa_encode(x)
    codes = faiss.unpack_bitstrings(packed, books.M, nbits).astype(np.uint8)
    assert (codes != aqs.encode(x, books)).mean() < 1e-3  # near ties round differently


@pytest.mark.parametrize("string", ["MeCoQ4x4fs", "IVF8,MeCoQ4x4fs"])
def test_decoded_vectors_encode_to_their_own_codes(string):
    books = make_codebooks()
    codes = np.random.default_rng(1).integers(16, size=(500, 4)).astype(np.uint8)
    engine = FaissEngine.build(books, codes, factory=string)
    back = (
        np.stack([engine.index.reconstruct(i) for i in range(500)]) if "IVF" not in string else None
    )
    if back is not None:
        np.testing.assert_allclose(back, aqs.decode(codes, books), atol=1e-6)
    flat = index_factory(books.D, "MeCoQ", books)
    packed = flat.sa_encode(aqs.decode(codes, books))
    np.testing.assert_array_equal(faiss.unpack_bitstrings(packed, 4, 4), codes)


def test_lists_are_trained_on_decoded_vectors_and_reproducible():
    books = make_codebooks()
    codes = np.random.default_rng(1).integers(16, size=(500, 4)).astype(np.uint8)
    centroids = []
    for seed in (0, 0, 1):
        index = index_factory(books.D, "IVF8,MeCoQ", books)
        train_coarse_quantizer(index, codes, books, seed=seed)
        quantizer = faiss.downcast_index(index.quantizer)
        centroids.append(quantizer.reconstruct_n(0, 8))
        np.testing.assert_allclose(np.linalg.norm(centroids[-1], axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(centroids[0], centroids[1])
    assert not np.array_equal(centroids[0], centroids[2])


def test_ivf_probes_about_sqrt_nlist_lists_unless_told_and_per_call():
    books = make_codebooks()
    codes = np.random.default_rng(1).integers(16, size=(2000, 4)).astype(np.uint8)
    engine = FaissEngine.build(books, codes, factory="IVF64,MeCoQ")
    assert engine.describe()["nprobe"] == 8
    q = np.random.default_rng(2).standard_normal((20, books.D), dtype=np.float32)
    true = aqs.aqs(q, codes, books).max(axis=1)
    few, many = (engine.search(q, 1, nprobe=n).scores[:, 0] for n in (1, 64))
    np.testing.assert_allclose(many, true, atol=1e-5)
    assert few.sum() < many.sum()
    assert engine.describe()["nprobe"] == 8
    for nprobe in (0, 65):
        with pytest.raises(InvalidInputError, match=f"between 1 and nlist=64, got {nprobe}"):
            engine.search(q, 1, nprobe=nprobe)
    flat = FaissEngine.build(books, codes)
    with pytest.raises(InvalidInputError, match="nprobe is for IVF indexes, but this is MeCoQ4x4"):
        flat.search(q, 1, nprobe=2)


@pytest.mark.parametrize(
    "string,message",
    [
        ("PQ4x8", r"cannot read the factory string 'PQ4x8'; it must be like MeCoQ4x8, IVF1024"),
        ("IVF0,MeCoQ", "cannot read the factory string"),
        ("HNSW32,MeCoQ", "cannot read the factory string"),
        ("IDMap,MeCoQ,IDMap2", "cannot read the factory string"),
        ("MeCoQ8x8", r"asks for 8 subquantizers of 8 bits, but .* M=4 and K=256\. Use 'MeCoQ4x8'"),
        ("MeCoQ4x4fs", r"asks for 4 subquantizers of 4 bits, but .* K=256"),
        ("MeCoQ4x8fs", r"FastScan \(fs\) needs 4-bit codes, K=16, .* have K=256\. Use 'MeCoQ4x8'"),
    ],
)
def test_strings_that_cannot_mean_what_they_say_are_refused(string, message):
    with pytest.raises(InvalidInputError, match=message):
        parse(string, make_codebooks(K=256))


def test_an_odd_block_size_is_refused():
    with pytest.raises(InvalidInputError, match="must be a multiple of 32"):
        parse("MeCoQ4x4fs_33", make_codebooks())


@pytest.mark.parametrize("_,string", ACCEPTED)
def test_a_spec_prints_as_a_string_that_reads_the_same(_, string):
    books = make_codebooks(K=_)
    spec = parse(string, books)
    assert parse(str(spec), books) == spec


@pytest.mark.parametrize("K", [3, 100, 255])
def test_k_that_is_no_power_of_two_is_refused(K):
    books = make_codebooks(K=K)
    with pytest.raises(InvalidInputError, match=f"K must be a power of two; got K={K}"):
        index_factory(books.D, "MeCoQ", books)


def test_the_width_must_be_that_of_embeddings():
    layer = Layer(np.zeros((16, 40), np.float32), np.zeros(16, np.float32))
    books = make_codebooks(projection=[layer])
    with pytest.raises(InvalidInputError, match=r"D=16, got 40. That is the width of features"):
        index_factory(40, "MeCoQ", books)
    with pytest.raises(InvalidInputError, match=r"D=16, got 17\.$"):
        index_factory(17, "MeCoQ", books)


def test_codebooks_of_another_shape_are_never_copied_in():
    index = faiss.index_factory(16, "PQ4x8np", faiss.METRIC_INNER_PRODUCT)
    with pytest.raises(InvalidInputError, match=r"\(4, 256, 4\), got \(4, 16, 4\)"):
        inject(index, make_codebooks(K=16))
    with pytest.raises(InvalidInputError, match="must hold a product quantizer, got IndexFlat"):
        inject(faiss.IndexFlatIP(16), make_codebooks(K=16))


def test_the_factory_takes_a_path(tmp_path):
    books = make_codebooks()
    books.save(tmp_path / "c.pt")
    for path in (tmp_path / "c.pt", str(tmp_path / "c.pt")):
        index = index_factory(16, "MeCoQ", path)
        np.testing.assert_array_equal(stored_codewords(index), books.codewords)


def test_opening_with_other_codebooks_or_a_foreign_file_is_refused(tmp_path):
    books = make_codebooks()
    codes = np.zeros((3, 4), np.uint8)
    path = tmp_path / "index.faiss"
    FaissEngine.build(books, codes).save(path)
    with pytest.raises(ArtifactError, match="holds other codebooks than the ones given"):
        FaissEngine.open(path, make_codebooks(seed=1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"index\.faiss is no FAISS index with a product"):
        FaissEngine.open(path, books)
    faiss.write_index(faiss.IndexFlatIP(16), str(path))
    with pytest.raises(ArtifactError, match=r"index\.faiss is no FAISS index with a product"):
        FaissEngine.open(path, books)
    l2 = faiss.index_factory(16, "PQ4x4np", faiss.METRIC_L2)
    faiss.copy_array_to_vector(books.codewords.ravel(), l2.pq.centroids)
    faiss.write_index(l2, str(path))
    with pytest.raises(ArtifactError, match="does not rank by inner product"):
        FaissEngine.open(path, books)


def test_two_builds_of_faiss_side_by_side_are_reported(monkeypatch):
    from mecoq_index.engines.faiss import inject as module

    monkeypatch.setattr(module, "installed_version", lambda name: "1.0")
    with pytest.raises(MissingDependencyError, match="have overwritten each other's files"):
        module.import_faiss.__wrapped__()
