"""LlamaIndex's vector stores: FAISS with learned codes inside, and Milvus with decoded ones."""

import numpy as np
import pytest

from mecoq_index import MeCoQEmbeddingFunction, index_factory, scoring


def make_nodes(texts, documents):
    schema = pytest.importorskip("llama_index.core.schema")
    return [
        schema.TextNode(id_=str(i), text=text, embedding=document)
        for i, (text, document) in enumerate(zip(texts, documents, strict=True))
    ]


def check(store, embed, texts, encoder):
    """A query's five nodes are those of the largest AQS."""
    vector_store = pytest.importorskip("llama_index.core.vector_stores")
    query = vector_store.VectorStoreQuery(
        query_embedding=embed.embed_query(texts[8]), similarity_top_k=5
    )
    found, books = store.query(query), embed.codebooks
    true = scoring.aqs(encoder(texts[8:9]), scoring.encode(encoder(texts), books), books)[0]
    np.testing.assert_allclose(found.similarities, -np.sort(-true)[:5], atol=1e-5)
    rows = [int(i) for i in found.ids]
    np.testing.assert_allclose(found.similarities, true[rows], atol=1e-5)


def test_llama_index_with_faiss_ranks_by_aqs(books, encoder, texts, tmp_path):
    pytest.importorskip("faiss")
    faiss_store = pytest.importorskip("llama_index.vector_stores.faiss")
    embed = MeCoQEmbeddingFunction(books, encoder=encoder)
    store = faiss_store.FaissVectorStore(index_factory(books.D, "MeCoQ4x4", books))
    store.add(make_nodes(texts, embed.embed_documents(texts)))
    check(store, embed, texts, encoder)
    store.persist(str(tmp_path / "kept" / "store.faiss"))
    again = faiss_store.FaissVectorStore.from_persist_path(str(tmp_path / "kept" / "store.faiss"))
    check(again, embed, texts, encoder)


def test_llama_index_with_milvus_ranks_by_aqs(books, encoder, texts, lite_uri):
    milvus = pytest.importorskip("llama_index.vector_stores.milvus")
    embed = MeCoQEmbeddingFunction(books, encoder=encoder)
    store = milvus.MilvusVectorStore(
        lite_uri,
        dim=embed.dim,
        similarity_metric="IP",
        index_config={"index_type": "FLAT"},
        use_async_client=False,
    )
    store.add(make_nodes(texts, embed.embed_documents(texts)))
    check(store, embed, texts, encoder)
