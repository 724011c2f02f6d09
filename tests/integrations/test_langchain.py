"""LangChain's vector stores with the embedding function: texts in, AQS and relevance out."""

import asyncio

import numpy as np
import pytest

from mecoq_index import MeCoQEmbeddingFunction, index_factory, scoring

pytest.importorskip("faiss")


@pytest.fixture
def embed(books, encoder):
    base = pytest.importorskip("langchain_core.embeddings")

    class MeCoQEmbeddings(MeCoQEmbeddingFunction, base.Embeddings):
        pass

    return MeCoQEmbeddings(books, encoder=encoder)


@pytest.fixture
def truth(books, encoder, texts):
    """AQS of a text with all texts, by text."""
    codes = scoring.encode(encoder(texts), books)

    def aqs(query):
        return dict(zip(texts, scoring.aqs(encoder([query]), codes, books)[0], strict=True))

    return aqs


def check(found, truth, to_score=lambda score: score):
    """Documents with scores are the best ones, in order."""
    scores = [to_score(score) for score in truth.values()]
    np.testing.assert_allclose(
        [score for _, score in found], sorted(scores, reverse=True)[: len(found)], atol=1e-5
    )
    for document, score in found:
        assert to_score(truth[document.page_content]) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("metric", ["IP", "COSINE"])
def test_milvus_ranks_texts_by_aqs(embed, texts, truth, metric, lite_uri):
    milvus = pytest.importorskip("langchain_milvus")
    store = milvus.Milvus.from_texts(
        texts,
        embed,
        connection_args={"uri": lite_uri},
        index_params={"index_type": "FLAT", "metric_type": metric},
    )
    query, M = "a dog watches the train", embed.codebooks.M
    found = store.similarity_search_with_score(query, k=7)
    check(found, truth(query), lambda score: score / (M if metric == "COSINE" else 1))
    again = asyncio.run(embed.aembed_query(query))
    assert store.similarity_search_with_score_by_vector(again, k=7) == found
    if metric == "COSINE":  # (cosine + 1) / 2 of Milvus's store
        relevant = store.similarity_search_with_relevance_scores(query, k=len(texts))
        check(relevant, truth(query), embed.relevance_score)
        assert all(0 <= score <= 1 for _, score in relevant)


def test_milvus_ranks_sparse_vectors_by_aqs(books, encoder, texts, truth, lite_uri):
    milvus = pytest.importorskip("langchain_milvus")
    sparse = pytest.importorskip("langchain_milvus.utils.sparse")

    class MeCoQSparseEmbeddings(MeCoQEmbeddingFunction, sparse.BaseSparseEmbedding):
        pass

    embed = MeCoQSparseEmbeddings(books, encoder=encoder, form="sparse")
    store = milvus.Milvus.from_texts(
        texts,
        embed,
        connection_args={"uri": lite_uri},
        index_params={"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
        search_params={"metric_type": "IP", "params": {}},  # LangChain's drop small entries
    )
    query = "a dog watches the train"
    offset = float(embed.query_offsets([query])[0])
    found = store.similarity_search_with_score(query, k=7)
    check([(document, score + offset) for document, score in found], truth(query))


@pytest.mark.parametrize("learned", [False, True], ids=["IndexFlatIP", "MeCoQ4x4"])
def test_faiss_gives_relevance_from_0_to_1(embed, texts, truth, learned, tmp_path):
    faiss_store = pytest.importorskip("langchain_community.vectorstores.faiss")
    utils = pytest.importorskip("langchain_community.vectorstores.utils")
    settings = {
        "distance_strategy": utils.DistanceStrategy.MAX_INNER_PRODUCT,
        "relevance_score_fn": embed.relevance_score,
    }
    if learned:
        docstore = pytest.importorskip("langchain_community.docstore.in_memory")
        index = index_factory(embed.dim, "MeCoQ4x4", embed.codebooks)
        store = faiss_store.FAISS(embed, index, docstore.InMemoryDocstore(), {}, **settings)
        store.add_texts(texts)
    else:
        store = faiss_store.FAISS.from_texts(texts, embed, **settings)
    query = "a dog watches the train"
    check(store.similarity_search_with_score(query, k=7), truth(query))
    relevant = store.similarity_search_with_relevance_scores(query, k=len(texts))
    check(relevant, truth(query), embed.relevance_score)
    assert len(relevant) == len(texts)
    assert all(0 <= score <= 1 for _, score in relevant)
    assert asyncio.run(store.asimilarity_search_with_relevance_scores(query, k=30)) == relevant
    store.save_local(str(tmp_path))
    again = faiss_store.FAISS.load_local(
        str(tmp_path), embed, allow_dangerous_deserialization=True, **settings
    )
    assert again.similarity_search_with_relevance_scores(query, k=len(texts)) == relevant
