"""The twins are tested on the CPU, where they are plain FAISS indexes; their clones on a GPU."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.engines.faiss import gpu
from mecoq_index.engines.faiss.factory import index_factory
from mecoq_index.engines.faiss.gpu import check_twin, gpu_twin, legal_subquantizers, to_gpu
from mecoq_index.engines.faiss.inject import stored_codewords
from mecoq_index.errors import InvalidInputError, MissingDependencyError

faiss = pytest.importorskip("faiss")

SHAPES = [(4, 16, 3), (8, 16, 2), (4, 256, 3), (1, 256, 5)]
STRINGS = ["MeCoQ", "MeCoQ,IDMap2", "IVF8,MeCoQ", "IVF8,MeCoQ,IDMap2"]


def make_codebooks(M=4, K=256, Ds=3, seed=0, projection=()):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    return Codebooks(c.astype(np.float32), projection=projection)


def make_codes(n, books, seed=1):
    codes = np.random.default_rng(seed).integers(books.K, size=(n, books.M)).astype(np.uint8)
    codes[n // 2 : n // 2 + 20] = codes[:1]  # duplicates
    return codes


def make_queries(books, nq=7):
    q = np.random.default_rng(2).standard_normal((nq, books.D), dtype=np.float32)
    q[1] *= 1e6
    q[2, : books.Ds] = 0
    return q


def make_index(string, books, codes):
    """An index that holds the codes, and the ids that its search returns."""
    index = index_factory(books.D, string, books)
    index.train(scoring.decode(make_codes(400, books, seed=5), books))
    ids = np.arange(len(codes))
    if "IDMap" in string:
        ids = np.random.default_rng(3).permutation(10**6)[: len(codes)] * 10**6
        index.add_with_ids(scoring.decode(codes, books), ids)
    else:
        index.add(scoring.decode(codes, books))
    if "IVF" in string:
        faiss.extract_index_ivf(index).nprobe = 8  # all lists, so that nothing is missed
    return index, ids


def assert_best(index, q, k, codes, ids, books, tolerance=1e-5):
    """Hits hold true scores of distinct items, none of which a better item was left out for."""
    scores, got = index.search(scoring.block_normalize(q, books.M), k)
    true = scoring.aqs(q, codes, books)
    want, found = -np.sort(-true, axis=1)[:, :k], min(k, len(codes))
    np.testing.assert_allclose(scores[:, :found], want, atol=tolerance)
    assert (got[:, found:] == -1).all()
    column = {int(id_): i for i, id_ in enumerate(ids)}
    for row, hits in enumerate(got[:, :found]):
        assert len(set(hits)) == found
        mine = true[row, [column[int(i)] for i in hits]]
        np.testing.assert_allclose(mine, want[row], atol=2 * tolerance)


def lists_of(twin):
    """The ids and codes of every list of a twin, as copies."""
    ivf = faiss.extract_index_ivf(twin)
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        if not size:
            yield np.empty(0, np.int64), np.empty((0, ivf.code_size), np.uint8)
            continue
        ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size).copy()
        codes = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * ivf.code_size)
        yield ids, codes.reshape(size, -1).copy()


@pytest.mark.parametrize("n", [0, 1, 500])
@pytest.mark.parametrize("string", STRINGS)
@pytest.mark.parametrize("M,K,Ds", SHAPES)
def test_a_twin_ranks_by_aqs_and_keeps_ids(M, K, Ds, string, n):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(n, books)
    index, ids = make_index(string, books, codes)
    twin = gpu_twin(index)
    check_twin(twin)
    assert (twin.d, twin.ntotal, twin.is_trained) == (books.D, n, True)
    assert (twin.by_residual, twin.pq.nbits, twin.code_size) == (True, 8, M * (K == 256) or M // 2)
    assert_best(twin, make_queries(books), 20, codes, ids, books)
    assert index.ntotal == n


@pytest.mark.parametrize("nprobe", [1, 3, 8])
@pytest.mark.parametrize("string", ["IVF8,MeCoQ", "IVF8,MeCoQ,IDMap2"])
def test_an_ivf_twin_of_8_bit_codes_is_bitwise_the_original(string, nprobe):
    books = make_codebooks(8, 256, 4)
    codes = make_codes(3000, books)
    if "IDMap" in string:  # FAISS puts ties in the order of the ids in the lists
        codes = np.unique(codes, axis=0)
    index, _ = make_index(string, books, codes)
    faiss.extract_index_ivf(index).nprobe = nprobe
    twin = gpu_twin(index)
    assert twin.nprobe == nprobe
    q = scoring.block_normalize(make_queries(books, 50), books.M)
    want, got = index.search(q, 30), twin.search(q, 30)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[0], want[0])


@pytest.mark.parametrize("K", [16, 256])
def test_few_lists_probed_are_the_same_lists(K):
    books = make_codebooks(4, K, 4)
    index, _ = make_index("IVF8,MeCoQ", books, make_codes(500, books))
    index.nprobe = 2
    q = scoring.block_normalize(make_queries(books), books.M)
    want, got = index.search(q, 500), gpu_twin(index).search(q, 500)
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)
    np.testing.assert_array_equal(np.sort(got[1], axis=1), np.sort(want[1], axis=1))


@pytest.mark.parametrize("K", [16, 256])
def test_a_flat_index_becomes_even_lists_that_are_all_probed(K, monkeypatch):
    monkeypatch.setattr(gpu, "_ITEMS_PER_LIST", 60)
    books = make_codebooks(4, K)
    codes = make_codes(500, books)
    index, ids = make_index("MeCoQ", books, codes)
    twin = gpu_twin(index)
    sizes = [len(ids) for ids, _ in lists_of(twin)]
    assert twin.nlist == twin.nprobe == len(sizes) == 9
    assert max(sizes) - min(sizes) == 1
    assert sum(sizes) == 500
    assert_best(twin, make_queries(books), 20, codes, ids, books)
    monkeypatch.setattr(gpu, "_MAX_FLAT_LISTS", 4)
    assert gpu_twin(index).nlist == 4


@pytest.mark.parametrize("string", STRINGS)
@pytest.mark.parametrize("K", [16, 256])
def test_codes_are_copied_byte_for_byte(K, string):
    books = make_codebooks(4, K)
    codes = make_codes(300, books)
    index, ids = make_index(string, books, codes)
    packed = codes if K == 256 else codes[:, 0::2] | codes[:, 1::2] << 4
    row = {int(id_): i for i, id_ in enumerate(ids)}
    for got_ids, got in lists_of(gpu_twin(index)):
        rows = [row.pop(int(id_)) for id_ in got_ids]
        np.testing.assert_array_equal(got, packed[rows])
    assert not row


def test_pairs_of_4_bit_codebooks_decode_to_the_same_vectors():
    books = make_codebooks(6, 16, 2)
    codes = make_codes(200, books)
    index, _ = make_index("MeCoQ", books, codes)
    twin = gpu_twin(index)
    assert (twin.pq.M, twin.pq.ksub, twin.pq.dsub) == (3, 256, 4)
    ids, packed = next(lists_of(twin))
    np.testing.assert_array_equal(twin.pq.decode(packed), scoring.decode(codes[ids], books))


PROJECTED = [
    ("Projection,MeCoQ", lambda i: i),
    ("Projection,IVF8,MeCoQ", lambda i: i),
    ("Projection,MeCoQ,IDMap2", lambda i: i * 7 + 1),
]


@pytest.mark.parametrize("string,id_of", PROJECTED)
@pytest.mark.parametrize("K", [16, 256])
def test_a_projection_stays_in_front(K, string, id_of):
    rng = np.random.default_rng(7)
    weight, bias = rng.standard_normal((12, 20)), rng.standard_normal(12)
    layer = Layer(weight.astype(np.float32), bias.astype(np.float32))
    books = make_codebooks(4, K, projection=[layer])
    x = rng.standard_normal((300, 20), dtype=np.float32)
    q = rng.standard_normal((6, 20), dtype=np.float32)
    index = index_factory(20, string, books)
    index.train(x)
    if "IDMap" in string:
        index.add_with_ids(x, id_of(np.arange(300)))
    else:
        index.add(x)
    if "IVF" in string:
        faiss.extract_index_ivf(index).nprobe = 8
    twin = gpu_twin(index)
    assert type(twin) is faiss.IndexPreTransform
    want, got = index.search(q, 20), twin.search(q, 20)
    true = books.project(q) @ scoring.decode(scoring.encode(books.project(x), books), books).T
    np.testing.assert_allclose(got[0], -np.sort(-true, axis=1)[:, :20], rtol=1e-4)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    row_of = {int(id_of(i)): i for i in range(300)}
    rows = np.array([[row_of[int(i)] for i in row] for row in got[1]])
    np.testing.assert_allclose(np.take_along_axis(true, rows, 1), got[0], rtol=1e-4)


def test_transforms_and_ids_are_kept_through_nested_wrappers():
    books = make_codebooks(4, 256)
    codes = make_codes(50, books)
    flat = index_factory(books.D, "MeCoQ", books)
    rng = np.random.default_rng(8)
    steps = []
    for d_in, d_out in [(9, 11), (11, books.D)]:
        step = faiss.LinearTransform(d_in, d_out, False)
        faiss.copy_array_to_vector(rng.standard_normal(d_out * d_in).astype(np.float32), step.A)
        step.is_trained = True
        steps.append(step)
    inner = faiss.IndexIDMap(flat)
    faiss.copy_array_to_vector(np.arange(50)[::-1].copy(), inner.id_map)
    chain = faiss.IndexPreTransform(inner)
    for step in reversed(steps):
        chain.prepend_transform(step)
    outer = faiss.IndexIDMap2(chain)
    faiss.copy_array_to_vector(np.arange(50) * 3, outer.id_map)
    flat.add(scoring.decode(codes, books))
    outer.ntotal = inner.ntotal = chain.ntotal = 50
    q = rng.standard_normal((5, 9), dtype=np.float32)
    want, got = outer.search(q, 1), gpu_twin(outer).search(q, 1)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    np.testing.assert_array_equal(got[1], want[1])


def test_ids_that_idmap_does_not_know_are_refused():
    books = make_codebooks()
    index, _ = make_index("IVF8,MeCoQ,IDMap2", books, make_codes(30, books))
    index.id_map.resize(20)
    with pytest.raises(InvalidInputError, match=r"ids inside IDMap must be from 0 to 19, got \d+"):
        gpu_twin(index)


@pytest.mark.parametrize("coarse", ["IVF8_HNSW16", "IVF8(IVF2,Flat)"])
def test_centroids_of_another_coarse_quantizer_are_read_out(coarse):
    books = make_codebooks(4, 256, 4)
    codes = make_codes(500, books)
    index, ids = make_index(f"{coarse},MeCoQ", books, codes)
    assert not isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat)
    twin = gpu_twin(index)
    quantizer = faiss.downcast_index(twin.quantizer)
    assert type(quantizer) is faiss.IndexFlatIP
    read = quantizer.reconstruct_n(0, 8) * np.float32(2**30)
    original = faiss.downcast_index(index.quantizer)
    if hasattr(original, "make_direct_map"):
        original.make_direct_map()
    for number in range(8):
        np.testing.assert_array_equal(read[number], original.reconstruct(number))
    assert_best(twin, make_queries(books), 20, codes, ids, books)


@pytest.mark.parametrize("length,refused", [(1, False), (2, True)])
def test_lists_ranked_by_l2_pass_if_their_centroids_are_of_one_length(length, refused):
    books = make_codebooks(4, 256, 4)
    codes = make_codes(300, books)
    centroids = np.eye(books.D, dtype=np.float32)[:8]
    centroids[0] *= length
    quantizer = faiss.IndexFlatL2(books.D)
    quantizer.add(centroids)
    index = faiss.IndexIVFPQ(quantizer, books.D, 8, 4, 8, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(books.codewords.ravel(), index.pq.centroids)
    index.by_residual, index.is_trained, index.nprobe = False, True, 3
    index.add(scoring.decode(codes, books))
    if refused:
        with pytest.raises(InvalidInputError, match=r"IndexFlatL2 of L2 with .* unequal length"):
            gpu_twin(index)
        return
    q = scoring.block_normalize(make_queries(books), 4)
    np.testing.assert_array_equal(gpu_twin(index).search(q, 5)[1], index.search(q, 5)[1])


def pq_index(metric=None, M=4, nbits=8, d=12):
    metric = faiss.METRIC_INNER_PRODUCT if metric is None else metric
    index = faiss.IndexPQ(d, M, nbits, metric)
    index.is_trained = True
    return index


def residual_index():
    index = faiss.index_factory(12, "IVF8,PQ4x8np", faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(np.eye(12, dtype=np.float32)[:8])
    index.is_trained = True
    return index


def listless_index():
    index = index_factory(12, "IVF8,MeCoQ", make_codebooks())
    index.is_trained = True
    return index


def unreadable_index():
    quantizer = faiss.IndexIDMap(faiss.IndexFlatIP(12))
    quantizer.add_with_ids(np.eye(12, dtype=np.float32)[:8], np.arange(8))
    index = faiss.IndexIVFPQ(quantizer, 12, 8, 4, 8, faiss.METRIC_INNER_PRODUCT)
    index.by_residual, index.is_trained = False, True
    return index


def untrained_projection():
    chain = faiss.IndexPreTransform(pq_index())
    chain.prepend_transform(faiss.LinearTransform(20, 12))
    return chain


def centered_index():
    center = faiss.CenteringTransform(12)
    center.train(np.ones((3, 12), np.float32))
    return faiss.IndexPreTransform(center, pq_index())


REFUSED = [
    (lambda: index_factory(12, "MeCoQ4x4fs", make_codebooks(K=16)), r"build 'MeCoQ4x4' instead"),
    (
        lambda: index_factory(12, "IVF8,MeCoQ4x4fs,IDMap2", make_codebooks(K=16)),
        r"got IndexIVFPQFastScan\. FastScan is for CPUs: build 'IVF8,MeCoQ4x4' instead",
    ),
    (
        lambda: index_factory(12, "MeCoQ4x4fs,RFlat", make_codebooks(K=16)),
        r"got IndexRefineFlat\. Re-ranking stays on the CPU: build the index without it",
    ),
    (
        lambda: index_factory(12, "HNSW16,MeCoQ", make_codebooks()),
        r"got IndexHNSWPQ\. A graph stays on the CPU: build 'IVF1024,MeCoQ8x8' instead",
    ),
    (lambda: faiss.IndexFlatIP(12), r"got IndexFlatIP\. Build it with mecoq_index.index_factory"),
    (
        lambda: faiss.index_factory(12, "IVF8,SQ8", faiss.METRIC_INNER_PRODUCT),
        r"can hold IndexPQ and IndexIVFPQ, got IndexIVFScalarQuantizer",
    ),
    (
        lambda: faiss.IndexIVFPQR(faiss.IndexFlatL2(12), 12, 8, 4, 8, 4, 8),
        r"can hold IndexPQ and IndexIVFPQ, got IndexIVFPQR",
    ),
    (lambda: pq_index(faiss.METRIC_L2), r"must rank by inner product, got metric_type=1\. Build"),
    (residual_index, r"must hold learned codes, by_residual=False, got by_residual=True\. Build"),
    (lambda: index_factory(12, "IVF8,MeCoQ", make_codebooks()), r"got an untrained one\. Train it"),
    (listless_index, r"a centroid for each of its 8 lists, got 0 in IndexPQ\. Train it"),
    (lambda: pq_index(nbits=6), r"16 or 256 codewords a codebook, got 64\. Train with these, or"),
    (
        lambda: pq_index(nbits=4, M=3),
        r"pair its 4-bit codes to bytes, got M=3\. Train with an even",
    ),
    (unreadable_index, r"which FAISS cannot read out of IndexIDMap\. Build 'IVF8,MeCoQ'"),
    (untrained_projection, r"or a trained linear map, got LinearTransform\. Apply"),
    (centered_index, r"or a trained linear map, got CenteringTransform\. Apply"),
]


@pytest.mark.parametrize("make,message", REFUSED)
def test_what_a_gpu_cannot_hold_is_refused_with_what_it_can(make, message):
    with pytest.raises(InvalidInputError, match=message):
        gpu_twin(make())


@pytest.mark.parametrize("string", [*STRINGS, "Projection,MeCoQ"])
@pytest.mark.parametrize("K", [16, 256])
def test_a_twin_survives_files_clones_and_the_end_of_the_original(K, string, tmp_path):
    identity = Layer(np.eye(12, dtype=np.float32), np.zeros(12, np.float32))
    books = make_codebooks(4, K, projection=[identity] if "Projection" in string else [])
    codes = make_codes(200, books)
    index, _ = make_index(string, books, codes)
    twin = gpu_twin(index)
    q = scoring.block_normalize(make_queries(books), books.M)
    want = twin.search(q, 10)
    del index
    gc.collect()
    faiss.write_index(twin, str(tmp_path / "twin"))
    for other in (twin, faiss.clone_index(twin), faiss.read_index(str(tmp_path / "twin"))):
        check_twin(other)
        got = other.search(q, 10)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])


def test_train_leaves_the_codebooks_of_a_twin_alone():
    books = make_codebooks(4, 256)
    index, _ = make_index("IVF8,MeCoQ", books, make_codes(300, books))
    twin = gpu_twin(index)
    twin.train(np.random.default_rng(4).standard_normal((1000, books.D), dtype=np.float32))
    np.testing.assert_array_equal(stored_codewords(twin), books.codewords)


def test_the_numbers_of_subquantizers_that_have_kernels():
    assert legal_subquantizers()[-1] == 48
    assert set(legal_subquantizers(float16_tables=True)) - set(legal_subquantizers()) == {
        56,
        64,
        96,
    }


@pytest.mark.parametrize(
    "M,K,options,message",
    [
        (4, 256, {}, None),
        (5, 256, {}, r"kernels for M in \(1, 2, .*, 48\), .* as one, got 5\. Train with one"),
        (10, 16, {}, r"kernels for M in .* got 5\."),
        (8, 16, {}, None),
        (96, 16, {}, None),
        (96, 256, {}, r"kernels for M in .*, 48\), and with float16_tables=True 56, .* got 96\."),
        (96, 256, {"float16_tables": True}, None),
        (5, 256, {"use_cuvs": True}, None),
    ],
)
def test_m_must_have_a_kernel(M, K, options, message):
    twin = gpu_twin(index_factory(M, "MeCoQ", make_codebooks(M, K, 1)))
    if message is None:
        check_twin(twin, **options)
        return
    with pytest.raises(InvalidInputError, match=message):
        check_twin(twin, **options)


def test_what_is_no_twin_is_not_let_through():
    books = make_codebooks()
    index, _ = make_index("IVF8,MeCoQ", books, make_codes(30, books))
    with pytest.raises(InvalidInputError, match=r"got IndexIVFPQ with by_residual=False\. Make"):
        check_twin(index)
    with pytest.raises(InvalidInputError, match=r"got IndexPQ with by_residual=None\. Make one"):
        check_twin(make_index("MeCoQ", books, make_codes(3, books))[0])
    twin = gpu_twin(index)
    twin.nprobe = gpu.MAX_NPROBE
    check_twin(twin)
    twin.nprobe += 1
    with pytest.raises(InvalidInputError, match="nprobe must be at most 2048 on a GPU, got 2049"):
        check_twin(twin)


@pytest.mark.parametrize(
    "id_of,kind",
    [
        (lambda i: i, gpu._BY_ID),
        (lambda i: i * 3 + 1, gpu._BY_ID),
        (lambda i: i * 8, gpu._BY_LIST),
        (lambda i: i - 5, gpu._BY_LIST),
    ],
)
def test_shards_are_dealt_out_evenly_whatever_the_ids(id_of, kind):
    books = make_codebooks()
    codes = make_codes(400, books)
    index = index_factory(books.D, "IVF8,MeCoQ", books)
    index.train(scoring.decode(codes, books))
    index.add_with_ids(scoring.decode(codes, books), id_of(np.arange(400)))
    assert gpu._shard_type(gpu_twin(index), 4) == kind


@pytest.mark.parametrize("kind", [gpu._BY_ID, gpu._BY_LIST])
@pytest.mark.parametrize("string", STRINGS)
@pytest.mark.parametrize("K", [16, 256])
def test_a_twin_survives_what_sharding_does_to_it(K, string, kind, monkeypatch):
    # As ToGpuClonerMultiple makes its parts: by_residual is left at its default, True.
    monkeypatch.setattr(gpu, "_ITEMS_PER_LIST", 60)
    books = make_codebooks(4, K)
    codes = make_codes(500, books)
    index, ids = make_index(string, books, codes)
    twin = gpu_twin(index)
    whole = faiss.IndexShards(twin.d, True, False)
    for number in range(3):
        part = faiss.IndexIVFPQ(twin.quantizer, twin.d, twin.nlist, twin.pq.M, twin.pq.nbits)
        part.metric_type, part.pq, part.nprobe = twin.metric_type, twin.pq, twin.nprobe
        part.is_trained = True
        borders = (3, number)
        if kind == gpu._BY_LIST:
            borders = (number * twin.nlist // 3, (number + 1) * twin.nlist // 3)
        twin.copy_subset_to(part, kind, *borders)
        whole.add_shard(part)
    assert whole.ntotal == 500
    assert_best(whole, make_queries(books), 20, codes, ids, books)


def fake_faiss(num_gpus=2, options="GPU NVIDIA_CUVS "):
    """FAISS with GPUs that are none: what it is told is noted, a clone is one on the CPU."""
    told = []

    def clone(resources, twin, cloner_options, devices):
        told.append((len(resources), vars(cloner_options), devices))
        return faiss.clone_index(twin)

    fake = SimpleNamespace(**vars(faiss))
    fake.StandardGpuResources = fake.GpuMultipleClonerOptions = SimpleNamespace
    fake.get_num_gpus = lambda: num_gpus
    fake.get_compile_options = lambda: options
    fake.index_cpu_to_gpu_multiple_py = clone
    return fake, told


def test_the_options_of_the_clone_are_all_set(monkeypatch):
    books = make_codebooks()
    codes = make_codes(100, books)
    index, ids = make_index("MeCoQ,IDMap2", books, codes)
    fake, told = fake_faiss()
    monkeypatch.setattr(gpu, "import_faiss", lambda: fake)
    clone = to_gpu(index)
    assert len(clone.referenced_objects) == 1
    assert_best(clone, make_queries(books), 5, codes, ids, books)
    to_gpu(index, range(2), shard=True, use_cuvs=True, float16_tables=True)
    fixed = {"useFloat16CoarseQuantizer": False, "usePrecomputed": False}
    assert told == [
        (1, fixed | {"use_cuvs": False, "useFloat16": False, "shard": False, "shard_type": 1}, [0]),
        (2, fixed | {"use_cuvs": True, "useFloat16": True, "shard": True, "shard_type": 4}, [0, 1]),
    ]


@pytest.mark.parametrize("devices", [[2], [0, -1], [], ["0"]])
def test_devices_that_do_not_exist_are_refused(devices, monkeypatch):
    fake, told = fake_faiss()
    monkeypatch.setattr(gpu, "import_faiss", lambda: fake)
    with pytest.raises(InvalidInputError, match=r"devices must be one or more .* 0 to 1, got \["):
        to_gpu(pq_index(), devices)
    assert not told


def test_a_build_or_machine_without_what_it_takes_says_what_to_install(monkeypatch):
    without, _ = fake_faiss()
    del without.StandardGpuResources
    monkeypatch.setattr(gpu, "import_faiss", lambda: without)
    with pytest.raises(MissingDependencyError, match=r"with GPU support, .*'mecoq-index\[gpu\]'"):
        to_gpu(pq_index())
    monkeypatch.setattr(gpu, "import_faiss", lambda: fake_faiss(options="GPU ")[0])
    with pytest.raises(MissingDependencyError, match=r"installed build is without\. Install"):
        to_gpu(pq_index(), use_cuvs=True)
    monkeypatch.setattr(gpu, "import_faiss", lambda: fake_faiss(num_gpus=0)[0])
    with pytest.raises(InvalidInputError, match=r"FAISS sees none\. Check nvidia-smi"):
        to_gpu(pq_index())


@pytest.fixture
def needs_gpu():
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        pytest.skip("no GPU that FAISS can use on this machine")


@pytest.mark.gpu
@pytest.mark.parametrize("n", [0, 1, 500, 30000])
@pytest.mark.parametrize("string", STRINGS)
@pytest.mark.parametrize("M,K,Ds", [(8, 16, 2), (4, 256, 3), (8, 256, 16)])
def test_a_clone_ranks_by_aqs_on_a_gpu(needs_gpu, M, K, Ds, string, n):
    books = make_codebooks(M, K, Ds)
    codes = make_codes(n, books)
    index, ids = make_index(string, books, codes)
    clone = to_gpu(index)
    assert isinstance(clone, faiss.GpuIndexIVFPQ)
    del index
    gc.collect()
    assert_best(clone, make_queries(books), 20, codes, ids, books)


@pytest.mark.gpu
@pytest.mark.parametrize("nprobe", [1, 3])
def test_a_clone_probes_the_same_lists_on_a_gpu(needs_gpu, nprobe):
    books = make_codebooks(8, 256, 16)
    index, _ = make_index("IVF8,MeCoQ", books, make_codes(3000, books))
    index.nprobe = nprobe
    q = scoring.block_normalize(make_queries(books), books.M)
    want, got = index.search(q, 30), to_gpu(index).search(q, 30)
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("shard", [True, False])
@pytest.mark.parametrize("string", STRINGS)
def test_sharded_and_replicated_clones_rank_by_aqs(needs_gpu, string, shard):
    books = make_codebooks(8, 256, 4)
    codes = make_codes(500, books)
    index, ids = make_index(string, books, codes)
    devices = [0, faiss.get_num_gpus() - 1]  # one GPU twice where there is no second
    clone = to_gpu(index, devices, shard=shard)
    assert isinstance(clone, faiss.IndexShards if shard else faiss.IndexReplicas)
    assert_best(clone, make_queries(books), 20, codes, ids, books)


@pytest.mark.gpu
def test_a_projection_runs_in_front_of_a_gpu(needs_gpu):
    weight = np.random.default_rng(7).standard_normal((16, 20)).astype(np.float32)
    books = make_codebooks(4, 256, 4, projection=[Layer(weight, np.ones(16, np.float32))])
    x = np.random.default_rng(8).standard_normal((300, 20), dtype=np.float32)
    index = index_factory(20, "Projection,MeCoQ", books)
    index.add(x)
    want, got = index.search(x[:9], 10), to_gpu(index).search(x[:9], 10)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4)


@pytest.mark.gpu
def test_float16_tables_round_scores_on_a_gpu(needs_gpu):
    books = make_codebooks(96, 256, 2)
    codes = make_codes(500, books)
    index, ids = make_index("MeCoQ", books, codes)
    clone = to_gpu(index, float16_tables=True)
    assert_best(clone, make_queries(books), 20, codes, ids, books, tolerance=96 * 2.0**-11)


@pytest.mark.gpu
def test_a_gpu_selects_up_to_max_k(needs_gpu):
    books = make_codebooks(8, 256, 4)
    codes = make_codes(3000, books)
    index, ids = make_index("MeCoQ", books, codes)
    clone = to_gpu(index)
    assert_best(clone, make_queries(books), gpu.MAX_K, codes, ids, books)
    with pytest.raises(RuntimeError, match="selection"):
        clone.search(make_queries(books), gpu.MAX_K + 1)
