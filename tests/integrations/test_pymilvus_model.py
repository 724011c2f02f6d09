"""pymilvus-model's base class: texts in, AQS out of Milvus."""

import numpy as np
import pytest

from mecoq_index import MeCoQEmbeddingFunction, scoring


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_function_of_pymilvus_model_fills_and_searches_milvus(
    books, encoder, texts, form, lite_uri
):
    base = pytest.importorskip("pymilvus.model.base")
    pymilvus = pytest.importorskip("pymilvus")

    class MeCoQ(MeCoQEmbeddingFunction, base.BaseEmbeddingFunction):
        pass

    function = MeCoQ(books, encoder=encoder, form=form)
    assert isinstance(function, base.BaseEmbeddingFunction)
    client = pymilvus.MilvusClient(lite_uri)
    schema = client.create_schema()
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    indexes = client.prepare_index_params()
    if form == "dense":
        schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=function.dim)
        indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    else:
        schema.add_field("vector", pymilvus.DataType.SPARSE_FLOAT_VECTOR)
        indexes.add_index("vector", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("texts", schema=schema, index_params=indexes)
    documents = function(texts)
    client.insert("texts", [{"id": i, "vector": v} for i, v in enumerate(documents)])
    queries = texts[3:6]
    found = client.search("texts", function.encode_queries(queries), limit=5, anns_field="vector")
    client.close()
    true = scoring.aqs(encoder(queries), scoring.encode(encoder(texts), books), books)
    for row, hits, offset in zip(true, found, function.query_offsets(queries), strict=True):
        scores = [hit["distance"] + offset for hit in hits]
        np.testing.assert_allclose(scores, -np.sort(-row)[:5], atol=1e-5)
        np.testing.assert_allclose(scores, row[[hit["id"] for hit in hits]], atol=1e-5)
