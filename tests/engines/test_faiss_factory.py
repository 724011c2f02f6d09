import io
import subprocess
import sys

import numpy as np
import pytest
from faiss_layouts import ACCEPTED, codebooks_for, holds, layer, make_codebooks, width_of

from mecoq_index import scoring
from mecoq_index.codebooks import Layer
from mecoq_index.engines.faiss.coarse import train_coarse_quantizer
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.factory import index_factory, read_index, spec_of
from mecoq_index.engines.faiss.gpu import gpu_twin
from mecoq_index.engines.faiss.grammar import lists_for, parse
from mecoq_index.engines.faiss.inject import inject, layers_of, stored_codewords
from mecoq_index.errors import ArtifactError, InvalidInputError, MissingDependencyError

faiss = pytest.importorskip("faiss")


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_train_never_changes_the_codebooks(K, string):
    books = codebooks_for(K, string)
    d = width_of(books, string)
    x = np.random.default_rng(1).standard_normal((1000, d), dtype=np.float32)
    index = index_factory(d, string, books)
    for candidate in (index, faiss.clone_index(index)):
        candidate.train(x)
        candidate.train(x[::-1].copy())
        assert candidate.is_trained
        assert holds(candidate, books)


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_train_is_harmless_after_reading_a_file(K, string, tmp_path):
    books = codebooks_for(K, string)
    d = width_of(books, string)
    x = np.random.default_rng(1).standard_normal((1000, d), dtype=np.float32)
    index = index_factory(d, string, books)
    if "IVF" not in string:
        faiss.write_index(index, str(tmp_path / "untrained"))
        read_index(tmp_path / "untrained").train(x)
    index.train(x)
    index.add_with_ids(x, np.arange(1000)) if "IDMap" in string else index.add(x)
    faiss.write_index(index, str(tmp_path / "index"))
    again = read_index(tmp_path / "index")
    before = again.search(x[:3], 5)
    again.train(x)
    assert holds(again, books)
    np.testing.assert_array_equal(again.search(x[:3], 5)[0], before[0])


@pytest.mark.parametrize("string", ["MeCoQ", "IVF8,MeCoQ", "HNSW8,MeCoQ"])
def test_training_on_few_vectors_prints_no_warning_about_the_codebooks(string, capfd):
    books = make_codebooks(K=256)
    x = np.random.default_rng(1).standard_normal((400, books.D), dtype=np.float32)
    index_factory(books.D, string, books).train(x)
    assert capfd.readouterr() == ("", "")


def test_files_that_hold_no_learned_index_are_refused(tmp_path):
    faiss.write_index(faiss.IndexFlatIP(4), str(tmp_path / "flat"))
    (tmp_path / "text").write_text("text")
    for name in ("flat", "text"):
        with pytest.raises(ArtifactError, match=f"{name} is refused: it holds an index"):
            read_index(tmp_path / name)
    with pytest.raises(ArtifactError, match="none does not exist"):
        read_index(tmp_path / "none")


@pytest.mark.parametrize("string", ["MeCoQ", "IVF8,MeCoQ", "IVF8,MeCoQ4x4fs"])
def test_an_index_is_read_from_a_path_an_open_file_a_reader_and_mapped(string, tmp_path):
    books = make_codebooks()
    x = np.random.default_rng(1).standard_normal((300, books.D), dtype=np.float32)
    index = index_factory(books.D, string, books)
    index.train(x)
    index.add(x)
    path = tmp_path / "index"
    faiss.write_index(index, str(path))
    want = index.search(x[:3], 5)
    with path.open("rb") as file:
        read = [
            read_index(path),
            read_index(str(path), faiss.IO_FLAG_MMAP_IFC),
            read_index(path, io_flags=faiss.IO_FLAG_MMAP),
            read_index(file),
            read_index(io.BytesIO(path.read_bytes())),
            read_index(faiss.FileIOReader(str(path))),
        ]
    for again in read:
        for got, expected in zip(again.search(x[:3], 5), want, strict=True):
            np.testing.assert_array_equal(got, expected)
        assert layers_of(again).pq_holders[0].pq.cp.niter == 0  # protected from train()
    with pytest.raises(ArtifactError, match=r"the file cannot be opened: .* are left"):
        read_index(io.BytesIO(path.read_bytes()[:100]))
    with pytest.raises(InvalidInputError, match=r"open binary file or a .*, got bytes"):
        read_index(path.read_bytes())


SEARCHES = """
import sys
import numpy as np
import faiss
if sys.argv[1] == "patched":
    import faiss.contrib.torch_utils
    assert faiss.Index.search.__name__ == "torch_replacement_search"
from mecoq_index import Codebooks
from mecoq_index.engines.faiss.coarse import centroids_of
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.gpu import gpu_twin

rng = np.random.default_rng(0)
c = rng.standard_normal((4, 16, 4)).astype(np.float32)
books = Codebooks(c / np.linalg.norm(c, axis=2, keepdims=True))
codes = rng.integers(16, size=(300, 4)).astype(np.uint8)
q = np.append(rng.standard_normal((3, 16)), np.zeros((1, 16)), axis=0).astype(np.float32)
found = []
for factory in ("MeCoQ", "IVF8,MeCoQ", "IVF8(IVF3,Flat),MeCoQ4x4fs,IDMap2", "HNSW8,MeCoQ",
                "MeCoQ4x4fs,Refine(MeCoQ)", "MeCoQ4x4fs,IDMap2"):
    engine = FaissEngine.build(books, codes, factory=factory)
    found += engine.search(q, 5)
    found += engine.search(q, 5, allowed=np.arange(50))
    if "IVF" in factory:
        found += engine.search(q, 5, nprobe=3)
        found += [centroids_of(engine.layers.core)]
        engine.remove(np.arange(3)) if "fs" not in factory else None
    if factory == "IVF8,MeCoQ":
        found += vars(engine.range_search(q, 1.5)).values()
        found += gpu_twin(engine.index).search(q, 5)
    if "fs" in factory and "Refine" not in factory and "IVF" not in factory:
        found += engine.search(q, 5, k_factor=4)
assert all(type(array) is np.ndarray for array in found)
np.savez(sys.argv[2], *found)
"""


@pytest.mark.slow
def test_everything_is_found_after_faiss_was_patched_for_torch(tmp_path):
    pytest.importorskip("torch")
    for how in ("plain", "patched"):
        subprocess.run([sys.executable, "-c", SEARCHES, how, tmp_path / f"{how}.npz"], check=True)
    with np.load(tmp_path / "plain.npz") as plain, np.load(tmp_path / "patched.npz") as patched:
        assert len(plain.files) == len(patched.files) > 20
        for name in plain.files:
            np.testing.assert_array_equal(plain[name], patched[name])


def test_the_guard_is_what_protects():
    # Without it, train() on an index that already holds codebooks replaces them.
    books = make_codebooks()
    index = faiss.index_factory(books.D, "PQ4x4np", faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(books.codewords.ravel(), index.pq.centroids)
    index.train(np.random.default_rng(1).standard_normal((1000, books.D), dtype=np.float32))
    assert not np.array_equal(stored_codewords(index), books.codewords)


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_plain_faiss_use_ranks_by_aqs(K, string, tmp_path):
    books = codebooks_for(K, string)
    d, rng = width_of(books, string), np.random.default_rng(1)
    x = rng.standard_normal((600, d), dtype=np.float32)
    q = rng.standard_normal((5, d), dtype=np.float32)
    z, zq = (books.project(v) for v in (x, q))
    if "Flat" in string or "RFlat" in string:
        # Re-ranking is by the vectors given: these are those of their codes.
        z = scoring.decode(scoring.encode(z, books), books)
    if "Projection" not in string:
        x = z
        q = scoring.block_normalize(zq, books.M)
    index = index_factory(d, string, books)
    index.train(x)
    index.add_with_ids(x, np.arange(600) + 7) if "IDMap" in string else index.add(x)
    faiss.write_index(index, str(tmp_path / "index"))
    index = faiss.read_index(str(tmp_path / "index"))
    look_everywhere(index)
    scores, ids = index.search(q, 10)
    if "Projection" in string:  # raw AQS: FAISS cannot divide subvectors by their lengths
        true = zq @ scoring.decode(scoring.encode(z, books), books).T
    else:
        true = scoring.aqs(zq, scoring.encode(z, books), books)
    if "HNSW8" in string:
        scores = books.M - scores / 2
    span = np.abs(zq).sum(axis=1).max() if "Projection" in string else books.M
    approximate = "fs" in string and "Refine" not in string and "RFlat" not in string
    tolerance = span * 2 / 255 if approximate else 1e-5 * span
    rows = ids - 7 if "IDMap" in string else ids
    got = np.take_along_axis(true, rows, axis=1)
    np.testing.assert_allclose(got, scores, atol=tolerance)
    best = -np.sort(-true, axis=1)[:, :10]
    if "HNSW" in string:
        assert (scores >= best[:, -1:] - tolerance).mean() > 0.9
    else:
        np.testing.assert_allclose(scores, best, atol=tolerance)


def look_everywhere(index):
    layers = layers_of(index)
    if layers.is_ivf:
        layers.core.nprobe = layers.core.nlist
        quantizer = faiss.downcast_index(layers.core.quantizer)
        if hasattr(quantizer, "nprobe"):
            quantizer.nprobe = quantizer.nlist
    if layers.is_graph:
        layers.core.hnsw.efSearch = 600
    if layers.refine is not None:
        layers.refine.k_factor = 20


@pytest.mark.parametrize("K", [2, 16, 256])
def test_faiss_encodes_like_we_do_at_any_scale(K):
    books = make_codebooks(K=K)
    index = index_factory(books.D, "MeCoQ", books)
    x = np.random.default_rng(1).standard_normal((2000, books.D), dtype=np.float32)
    x *= np.logspace(-2, 2, 2000, dtype=np.float32)[:, None]
    nbits = K.bit_length() - 1
    packed = index.sa_encode(x)
    codes = faiss.unpack_bitstrings(packed, books.M, nbits).astype(np.uint8)
    assert (codes != scoring.encode(x, books)).mean() < 1e-3  # near ties round differently


@pytest.mark.parametrize("string", ["MeCoQ4x4fs", "IVF8,MeCoQ4x4fs"])
def test_decoded_vectors_encode_to_their_own_codes(string):
    books = make_codebooks()
    codes = np.random.default_rng(1).integers(16, size=(500, 4)).astype(np.uint8)
    engine = FaissEngine.build(books, codes, factory=string)
    back = (
        np.stack([engine.index.reconstruct(i) for i in range(500)]) if "IVF" not in string else None
    )
    if back is not None:
        np.testing.assert_allclose(back, scoring.decode(codes, books), atol=1e-6)
    flat = index_factory(books.D, "MeCoQ", books)
    packed = flat.sa_encode(scoring.decode(codes, books))
    np.testing.assert_array_equal(faiss.unpack_bitstrings(packed, 4, 4), codes)


@pytest.mark.parametrize("string,length", [("IVF8,MeCoQ", 2), ("IVF8(Flat),MeCoQ", 1)])
def test_lists_are_trained_on_decoded_vectors_and_reproducible(string, length):
    books = make_codebooks()
    codes = np.random.default_rng(1).integers(16, size=(500, 4)).astype(np.uint8)
    centroids = []
    for seed in (0, 0, 1):
        index = index_factory(books.D, string, books)
        train_coarse_quantizer(index, codes, books, seed=seed)
        quantizer = faiss.downcast_index(index.quantizer)
        centroids.append(quantizer.reconstruct_n(0, 8))
        np.testing.assert_allclose(np.linalg.norm(centroids[-1], axis=1), length, atol=1e-5)
    np.testing.assert_array_equal(centroids[0], centroids[1])
    assert not np.array_equal(centroids[0], centroids[2])


def test_ivf_probes_about_sqrt_nlist_lists_unless_told_and_per_call():
    books = make_codebooks()
    codes = np.random.default_rng(1).integers(16, size=(2000, 4)).astype(np.uint8)
    engine = FaissEngine.build(books, codes, factory="IVF64,MeCoQ")
    assert engine.describe()["nprobe"] == 8
    q = np.random.default_rng(2).standard_normal((20, books.D), dtype=np.float32)
    true = scoring.aqs(q, codes, books).max(axis=1)
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


NOT_FOR_LEARNED_CODES = "in '.*' is not for learned codes: "


@pytest.mark.parametrize(
    "K,string,message",
    [
        (256, "PQ4x8", NOT_FOR_LEARNED_CODES + r"PQ is FAISS's own .* string is 'MeCoQ4x8'\.$"),
        (256, "OPQ4,IVF8,MeCoQ", NOT_FOR_LEARNED_CODES + r".* string is 'IVF8,MeCoQ4x8'\.$"),
        (256, "IMI2x4,MeCoQ", NOT_FOR_LEARNED_CODES + r".* string is 'IVF4096,MeCoQ4x8'\.$"),
        (256, "IVF8_NSG4,MeCoQ", NOT_FOR_LEARNED_CODES + r".* string is 'IVF8,MeCoQ4x8'\.$"),
        (16, "IVF8,MeCoQ4x4fsr", NOT_FOR_LEARNED_CODES + r".* string is 'IVF8,MeCoQ4x4fs'\.$"),
        (256, "IVF0,MeCoQ", r"cannot read 'IVF0' .* nearest one is 'MeCoQ4x8'\.$"),
        (256, "IVF8,IVF4,MeCoQ", r"cannot read 'IVF4' .* nearest one is 'IVF8,MeCoQ4x8'\.$"),
        (256, "IDMap,MeCoQ,IDMap2", r"cannot read 'IDMap2' .* one is 'MeCoQ4x8,IDMap'\.$"),
        (256, "MeCoQ,Refine(SQ8)", r"cannot read 'Refine\(SQ8\)' .* one is 'MeCoQ4x8'\.$"),
        (256, "IVF8,Flat", r"cannot read .* must name one MeCoQ quantizer, like 'MeCoQ4x8', 'IVF"),
        (256, "MeCoQ,MeCoQ", "must name one MeCoQ quantizer"),
        (256, "", "must name one MeCoQ quantizer"),
        (
            256,
            "IVF,MeCoQ",
            r"'IVF' takes its number of lists from .* not known here\. Write it out",
        ),
        (256, "MeCoQ8x8", r"8 subquantizers of 8 bits, but .* M=4 and K=256\. .* 'MeCoQ4x8'\.$"),
        (16, "MeCoQ4", r"4 subquantizers of 8 bits, but .* K=16\. .* string is 'MeCoQ4x4'\.$"),
        (256, "MeCoQ4x4fs", r"asks for 4 subquantizers of 4 bits, but .* K=256"),
        (256, "MeCoQ4x8fs", r"FastScan \(fs\) needs 4-bit codes, K=16, .* K=256\. Use 'MeCoQ4x8'"),
        (
            16,
            "HNSW8,MeCoQ4x4fs",
            r"a graph visits items one by one.* string is 'HNSW8,MeCoQ4x4'\.$",
        ),
        (256, "MeCoQ,Refine(MeCoQ)", r"re-ranking would change nothing\. .* is 'MeCoQ4x8'\.$"),
        (256, "Projection,IVF8,MeCoQ", r"no projection\. The nearest string is 'IVF8,MeCoQ4x8'\.$"),
    ],
)
def test_strings_that_cannot_mean_what_they_say_are_refused(K, string, message):
    with pytest.raises(InvalidInputError, match=message):
        parse(string, make_codebooks(K=K))


@pytest.mark.parametrize(
    "string",
    [
        *("IVF8," * 500 + "MeCoQ", "IVF8," * 39 + "MeCoQ", "(" * 100_000, "MeCoQ" + "," * 194),
        *("IVF" + "9" * 5000 + ",MeCoQ", "IVF" + "9" * 100 + ",MeCoQ", "MeCoQ4x4294967300"),
        *("IVF4194305,MeCoQ", "IVF4194305(IVF8,Flat),MeCoQ", "IVF18446744073709551624,MeCoQ"),
        *("IVF²,MeCoQ", "IVF٨,MeCoQ", "IVF\uff18,MeCoQ", "MeCoQ⁴", "HNSW³²,MeCoQ", "MeCoQ4x4fs_³²"),
        *("IVF-8,MeCoQ", "IVF8.0,MeCoQ", "IVF08,MeCoQ", "IVF1e9,MeCoQ", "MeCoQ4x4fs_999999999999"),
        *("\0", "MeCoQ\n", "MeCoQ\0", "\ud800", "Refine(" * 28, "MeCoQ,Refine(Refine(MeCoQ))"),
        *("HNSW99999999999,MeCoQ", "IVF8_HNSW99999999999,MeCoQ", "IVF8(IVF9999999999,Flat),MeCoQ"),
        *(b"MeCoQ", 8, ["MeCoQ"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("items", [None, 3000])
def test_strings_meant_to_do_harm_get_one_sentence(string, items, monkeypatch):
    monkeypatch.setattr(faiss, "index_factory", lambda *args: pytest.fail("FAISS has read it"))
    with pytest.raises(InvalidInputError) as caught:
        parse(string, make_codebooks(), items=items)
    assert len(str(caught.value)) < 600
    with pytest.raises(InvalidInputError):
        index_factory(16, string, make_codebooks())


def test_spaces_in_a_string_mean_nothing_where_it_is_refused_too():
    with pytest.raises(InvalidInputError, match=r"The nearest string is 'HNSW32,MeCoQ4x4'\.$"):
        parse("HNSW32, MeC oQ3x8", make_codebooks())


def test_a_projection_that_is_not_linear_is_refused():
    layers = [
        Layer(np.ones((24, 20), np.float32), np.zeros(24, np.float32)),
        Layer(np.ones((16, 24), np.float32), np.zeros(16, np.float32)),
    ]
    with pytest.raises(InvalidInputError, match=r"has 2 layers with ReLU .* is 'IVF8,MeCoQ4x4'"):
        parse("Projection,IVF8,MeCoQ", make_codebooks(projection=layers))


def test_an_odd_block_size_is_refused():
    with pytest.raises(InvalidInputError, match="must be a multiple of 32"):
        parse("MeCoQ4x4fs_33", make_codebooks())


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_a_spec_prints_as_a_string_that_reads_the_same(K, string):
    books = codebooks_for(K, string)
    spec = parse(string, books)
    assert parse(str(spec), books) == spec


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_a_spec_is_read_back_from_the_index(K, string):
    books = codebooks_for(K, string)
    spec = parse(string, books)
    index = index_factory(width_of(books, string), string, books)
    if "IVF8(IVF3" in string:
        assert spec_of(index, books).coarse == "IVF3"
    assert spec_of(index, books) == spec


def test_lists_are_chosen_by_the_number_of_items():
    chosen = [lists_for(n) for n in (0, 1, 100, 10_000, 10**6, 10**7, 10**8)]
    assert chosen == [1, 1, 8, 512, 4096, 16384, 32768]
    assert parse("IVF,MeCoQ", make_codebooks(), items=10**6).nlist == 4096


@pytest.mark.parametrize("K", [3, 100, 255])
def test_k_that_is_no_power_of_two_is_refused(K):
    books = make_codebooks(K=K)
    with pytest.raises(InvalidInputError, match=f"K must be a power of two; got K={K}"):
        index_factory(books.D, "MeCoQ", books)


def test_the_width_must_be_that_of_embeddings():
    books = make_codebooks(projection=[layer(40)])
    with pytest.raises(
        InvalidInputError,
        match=r"D=16, got 40\. That is the width of features: .* 'Projection,MeCoQ4x4'\.",
    ):
        index_factory(40, "MeCoQ", books)
    with pytest.raises(InvalidInputError, match=r"P=40, with 'Projection', got 16\."):
        index_factory(16, "Projection,MeCoQ", books)
    with pytest.raises(InvalidInputError, match=r"D=16, got 17\.$"):
        index_factory(17, "MeCoQ", books)


def test_a_width_may_be_any_integer_and_nothing_else():
    books = make_codebooks()
    for d in (np.int64(16), np.uint8(16)):
        assert index_factory(d, "MeCoQ", books).d == 16
    for d in (16.0, "16", True, None):
        with pytest.raises(InvalidInputError, match=r"must be an integer, got .* D=16\."):
            index_factory(d, "MeCoQ", books)


def test_the_metric_may_be_named_if_it_is_that_of_the_index():
    books = make_codebooks()
    inner, l2 = faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
    assert index_factory(16, "IVF8,MeCoQ", books, inner).metric_type == inner
    assert index_factory(16, "MeCoQ4x4fs", books, metric=np.int32(inner)).metric_type == inner
    assert index_factory(16, "HNSW8,MeCoQ", books, l2).metric_type == l2
    for metric, name in ((l2, "METRIC_L2"), (faiss.METRIC_L1, "METRIC_L1"), ("IP", "'IP'")):
        with pytest.raises(
            InvalidInputError,
            match=rf"must be faiss\.METRIC_INNER_PRODUCT for 'MeCoQ4x4', got {name}: learned codes",
        ):
            index_factory(16, "MeCoQ", books, metric)
    with pytest.raises(InvalidInputError, match=r"METRIC_L2 for 'HNSW8.* got METRIC_INNER_PR"):
        index_factory(16, "HNSW8,MeCoQ", books, inner)


@pytest.mark.parametrize("string", ["Projection,MeCoQ,IDMap2", "Projection,IVF8,MeCoQ"])
def test_features_are_divided_by_their_lengths_where_the_codebooks_want_it(string, tmp_path):
    books = make_codebooks(projection=[layer()], normalize=True)
    index = index_factory(20, string, books)
    x = np.random.default_rng(1).standard_normal((300, 20), dtype=np.float32) * 7
    x[5] = 0
    index.train(x)
    index.add_with_ids(x, np.arange(300))
    faiss.write_index(index, str(tmp_path / "index"))
    index = read_index(tmp_path / "index")
    look_everywhere(index)
    z = books.project(x)
    true = z[:9] @ scoring.decode(scoring.encode(z, books), books).T
    scores, ids = index.search(x[:9], 5)
    np.testing.assert_allclose(scores, -np.sort(-true, axis=1)[:, :5], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(true, ids, axis=1), scores, atol=1e-4)
    np.testing.assert_allclose(gpu_twin(index).search(x[:9], 5)[0], scores, atol=1e-4)


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
    with pytest.raises(ArtifactError, match=r"index\.faiss cannot be opened: .* are left"):
        FaissEngine.open(path, books)
    faiss.write_index(faiss.IndexFlatIP(16), str(path))
    with pytest.raises(ArtifactError, match=r"index\.faiss is refused: it holds an index"):
        FaissEngine.open(path, books)
    l2 = faiss.index_factory(16, "PQ4x4np", faiss.METRIC_L2)
    faiss.copy_array_to_vector(books.codewords.ravel(), l2.pq.centroids)
    faiss.write_index(l2, str(path))
    with pytest.raises(ArtifactError, match="does not rank by inner product"):
        FaissEngine.open(path, books)


def test_two_builds_of_faiss_side_by_side_are_reported(monkeypatch):
    from mecoq_index import _optional as module

    monkeypatch.setattr(module, "installed_version", lambda name: "1.0")
    with pytest.raises(MissingDependencyError, match="have overwritten each other's files"):
        module.import_faiss.__wrapped__()
