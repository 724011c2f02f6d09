"""Variants to measure: collections that exist only while they are measured."""

import numpy as np
import pytest

pytest.importorskip("pymilvus")

from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.abilities import BitsVariant
from mecoq_index.engines.milvus.bench import PREFIX, why_no_hamming
from mecoq_index.engines.milvus.connection import Server, connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.errors import InvalidInputError

N = 100


def make_codebooks(M=4, Ds=4):
    c = np.random.default_rng(0).standard_normal((M, 16, Ds))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


BOOKS = make_codebooks()
CODES = np.random.default_rng(1).integers(16, size=(N, 4)).astype(np.uint8)


def collections(uri, token=None):
    return [n for n in connect(uri, token=token).call("list_collections") if n.startswith(PREFIX)]


def test_profiles_are_made_and_dropped(lite_uri, caplog):
    variants = MilvusEngine.bench_variants(BOOKS, uri=lite_uri, profiles="exact, sparse")
    assert list(variants) == ["exact", "sparse"]
    assert "Hamming codes are not measured: milvus-lite has no binary vectors." in caplog.text
    for variant in variants.values():
        assert not isinstance(variant, BitsVariant)
        with variant(BOOKS, CODES) as engine:
            assert len(engine) == N
            assert len(collections(lite_uri)) == 1
        assert collections(lite_uri) == []
    with pytest.raises(ZeroDivisionError):
        with variants["exact"](BOOKS, CODES):
            raise ZeroDivisionError
    assert collections(lite_uri) == []


def test_what_cannot_be_measured_is_refused_at_once(lite_uri):
    for profiles, saying in [
        ("exact,compact", "needs IVF_PQ"),
        ("hamming", "must be one of"),
        ("exact,", "profile must be one of .* got ''"),
    ]:
        with pytest.raises(InvalidInputError, match=saying):
            MilvusEngine.bench_variants(BOOKS, uri=lite_uri, profiles=profiles)
    with pytest.raises(InvalidInputError, match="must not name a collection here, got 'photos'"):
        MilvusEngine.bench_variants(BOOKS, uri=f"{lite_uri}/photos")


def test_hamming_codes_need_whole_bytes_and_wide_vectors(lite_uri):
    connection = connect(lite_uri)
    assert why_no_hamming(connection, BOOKS) == "milvus-lite has no binary vectors"
    vars(connection)["server"] = Server(False, (2, 3, 5))
    assert why_no_hamming(connection, BOOKS) == ""
    assert why_no_hamming(connection, make_codebooks(M=3)) == (
        "12 bits are not whole bytes, or exceed the vectors' width 12"
    )
    assert "16 bits are not whole bytes, or exceed" in why_no_hamming(
        connection, make_codebooks(Ds=2)
    )


def test_hamming_codes_are_measured_on_a_server(milvus_server):
    uri, token = milvus_server.uri, milvus_server.token
    variant = MilvusEngine.bench_variants(BOOKS, uri=uri, token=token)["hamming"]
    assert isinstance(variant, BitsVariant)
    bits = np.random.default_rng(2).integers(256, size=(N, 2)).astype(np.uint8)
    with variant(bits) as stored:
        hits = stored.search(bits[:5], 1)
        assert hits.scores.tolist() == [[16.0]] * 5
        assert stored.bytes_per_vector == 10
        assert len(collections(uri, token)) == 1
    assert collections(uri, token) == []
