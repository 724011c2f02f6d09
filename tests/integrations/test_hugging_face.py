"""Hugging Face datasets: an index of learned codes over a column, and mapping in processes."""

import numpy as np
import pytest

from mecoq_index import MeCoQEmbeddingFunction, block_normalize, index_factory, scoring

faiss = pytest.importorskip("faiss")


@pytest.fixture
def dataset(texts, encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.Dataset.from_dict({"text": texts, "z": encoder(texts).tolist()})


@pytest.mark.parametrize("string", ["MeCoQ4x4", "IVF3,MeCoQ4x4", "MeCoQ4x4fs"])
def test_a_column_is_searched_by_an_index_of_learned_codes(string, dataset, books, tmp_path):
    M = books.M
    dataset = dataset.map(lambda rows: {"z": block_normalize(np.array(rows["z"]), M)}, batched=True)
    index = index_factory(books.D, string, books, faiss.METRIC_INNER_PRODUCT)
    dataset.add_faiss_index("z", custom_index=index, train_size=len(dataset))
    if "IVF" in string:
        index.nprobe = 3
    z = np.array(dataset["z"], np.float32)
    found = dataset.get_nearest_examples("z", z[4], k=5)
    true = scoring.aqs(z[4:5], scoring.encode(z, books), books)[0]
    tolerance = 2 * M / 255 if "fs" in string else 1e-5
    np.testing.assert_allclose(found.scores, -np.sort(-true)[:5], atol=tolerance)
    by_text = dict(zip(dataset["text"], true, strict=True))
    np.testing.assert_allclose(
        found.scores, [by_text[text] for text in found.examples["text"]], atol=tolerance
    )
    dataset.save_faiss_index("z", tmp_path / "z.faiss")
    assert faiss.read_index(str(tmp_path / "z.faiss")).ntotal == len(dataset)


def test_texts_are_embedded_in_two_processes(dataset, books, encoder, texts):
    embed = MeCoQEmbeddingFunction(books, encoder=encoder)
    mapped = dataset.map(
        lambda rows: {"stored": embed.encode_documents(rows["text"])}, batched=True, num_proc=2
    )
    np.testing.assert_array_equal(mapped["stored"], embed.embed_documents(texts))
