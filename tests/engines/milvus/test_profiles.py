"""What each profile stores and searches with, without a server."""

import numpy as np
import pytest

pytest.importorskip("pymilvus")

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.milvus.connection import Server
from mecoq_index.engines.milvus.profiles import PROFILES, Compact, Exact, Hamming, get_profile
from mecoq_index.errors import InvalidInputError

LITE = Server(is_lite=True, version=(3, 2, 2))


def make_codebooks(M=4, K=16, Ds=3, seed=0):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


def make_codes(n, books, seed=1):
    return np.random.default_rng(seed).integers(books.K, size=(n, books.M)).astype(np.uint8)


def dense(rows, width):
    out = np.zeros((len(rows), width), np.float32)
    for row, entries in enumerate(rows):
        for at, value in entries.items():
            out[row, at] = value
    return out


@pytest.mark.parametrize("K", [2, 16, 200, 256])
@pytest.mark.parametrize("name", ["exact", "graph", "compact", "sparse", "faiss"])
def test_inner_products_of_what_is_stored_are_aqs(name, K):
    books = make_codebooks(K=K)
    profile = get_profile(name, books)
    codes = make_codes(50, books)
    q = np.random.default_rng(2).standard_normal((7, books.D), dtype=np.float32)
    q[3] = 0
    documents, queries = profile.documents(codes), profile.queries(q)
    values = queries.values
    if name == "sparse":
        documents, values = (dense(rows, books.M * K) for rows in (documents, values))
        assert values.min() > 0, "Milvus drops entries of 0"
        assert set(np.unique(documents)) <= {0, 1}
    got = profile.scores(values @ np.asarray(documents).T, queries.offset)
    np.testing.assert_allclose(got, scoring.aqs(q, codes, books), atol=2e-6)
    np.testing.assert_array_equal(profile.codes(profile.documents(codes)), codes)
    assert profile.are_codes(profile.documents(codes)).all()


@pytest.mark.parametrize("name", ["exact", "sparse"])
def test_rows_that_are_not_codes_are_told_apart(name):
    books = make_codebooks()
    profile = get_profile(name, books)
    stored = list(profile.documents(make_codes(3, books)))
    if name == "sparse":
        stored[1] = {**stored[1], 0: 0.5}
        stored[2] = dict(list(stored[2].items())[:-1])
        expected = [True, False, False]
    else:
        stored[1] = stored[1] + np.float32(1e-3)
        expected = [True, False, True]
    assert profile.are_codes(stored).tolist() == expected


def test_float16_is_stored_at_half_the_size_and_read_back():
    books = make_codebooks(K=256)
    profile = Exact(books, precision="float16")
    codes = make_codes(20, books)
    stored = profile.documents(codes)
    assert stored.dtype == np.float16
    assert profile.field_type == "FLOAT16_VECTOR"
    assert profile.bytes_per_vector == 2 * books.D
    np.testing.assert_array_equal(profile.codes([row.tobytes() for row in stored]), codes)
    assert profile.are_codes(stored).all()
    q = np.random.default_rng(2).standard_normal((3, books.D), dtype=np.float32)
    scores = profile.queries(q).values.astype(np.float32) @ stored.astype(np.float32).T
    np.testing.assert_allclose(scores, scoring.aqs(q, codes, books), atol=4e-3)
    for server in (LITE, Server(is_lite=False, version=(2, 3, 5))):
        with pytest.raises(InvalidInputError, match=r"float16 needs a Milvus server of 2\.4 or"):
            profile.check_server(server)
    profile.check_server(Server(is_lite=False, version=(2, 4, 0)))


def test_compact_has_one_list_and_more_bits_than_a_code():
    for K, least in ((16, 5), (17, 6), (200, 9), (256, 9)):
        books = make_codebooks(K=K)
        profile = Compact(books)
        assert Compact(books, nbits=least).nbits == least
        assert profile.index_params() == {"nlist": 1, "m": books.M, "nbits": least + 1}
        with pytest.raises(InvalidInputError, match=rf"= {least} and 16, got {least - 1}"):
            Compact(books, nbits=least - 1)
    assert Compact(make_codebooks(M=8, K=256), nbits=10).bytes_per_vector == 10
    assert Compact(make_codebooks(M=16, K=16)).bytes_per_vector == 12


def test_graph_searches_at_least_as_widely_as_results_are_asked_for():
    graph = get_profile("graph", make_codebooks())
    assert graph.search_params(10, {}) == {"ef": 512}
    assert graph.search_params(2000, {"ef": 64}) == {"ef": 2000}


def test_every_profile_knows_who_can_hold_it():
    books = make_codebooks()
    made = {name: get_profile(name, books) for name in PROFILES if name != "hamming"}
    made["hamming"] = Hamming(64)
    holds = {
        (3, 0, 0): {"exact", "graph", "compact", "sparse", "faiss", "hamming"},
        (2, 4, 0): {"exact", "graph", "compact", "sparse", "hamming"},
        (2, 3, 5): {"exact", "graph", "compact", "hamming"},
        (2, 2, 0): set(),
    }
    for version, names in holds.items():
        for name, profile in made.items():
            if name in names:
                profile.check_server(Server(is_lite=False, version=version))
            else:
                with pytest.raises(InvalidInputError, match=r"needs Milvus \d\.\d or later, got"):
                    profile.check_server(Server(is_lite=False, version=version))
    for name, profile in made.items():
        if name in {"exact", "graph", "sparse"}:
            profile.check_server(LITE)
        else:
            with pytest.raises(InvalidInputError, match="which milvus-lite does not have"):
                profile.check_server(LITE)


def test_hamming_scores_are_numbers_of_equal_bits():
    profile = Hamming(16)
    bits = np.array([[0b11110000, 1], [0, 1]], np.uint8)
    assert profile.documents(bits) == [b"\xf0\x01", b"\x00\x01"]
    np.testing.assert_array_equal(profile.codes([[b"\xf0\x01"], b"\x00\x01"]), bits)
    offset = profile.queries(bits).offset
    np.testing.assert_array_equal(profile.scores(np.float32([[0, 4]]), offset), [[16, 12]])
    with pytest.raises(InvalidInputError, match="bits must be a positive multiple of 8, got 12"):
        Hamming(12)


def test_unknown_profiles_and_options_are_named():
    books = make_codebooks()
    with pytest.raises(InvalidInputError, match=r"profile must be one of \['exact', .* 'flat'"):
        get_profile("flat", books)
    with pytest.raises(
        InvalidInputError, match=r"unknown sparse option 'nbits'; there are no sparse options here"
    ):
        get_profile("sparse", books, nbits=4)
    with pytest.raises(InvalidInputError, match="precision must be float32 or float16, got 'half'"):
        get_profile("exact", books, precision="half")
