"""The embedding function: its two forms give AQS, and it takes what its users hold."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pytest

from mecoq_index import MeCoQEmbeddingFunction, scoring
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.errors import ArtifactError, InvalidInputError


def make_codebooks(M=4, K=16, Ds=3, P=None):
    rng = np.random.default_rng(0)
    c = rng.standard_normal((M, K, Ds))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    layers = []
    if P is not None:
        weight = rng.standard_normal((M * Ds, P), dtype=np.float32)
        layers = [Layer(weight, rng.standard_normal(M * Ds, dtype=np.float32))]
    return Codebooks(c.astype(np.float32), layers)


BOOKS = make_codebooks()
X = np.random.default_rng(1).standard_normal((30, 12), dtype=np.float32)
Q = np.random.default_rng(2).standard_normal((7, 12), dtype=np.float32) * 5


def inner(query, document):
    if isinstance(document, dict):
        return sum(query[key] * value for key, value in document.items())
    return float(query.astype(np.float64) @ document.astype(np.float64))


@pytest.mark.parametrize(
    "profile,options,tolerance",
    [
        ("exact", {}, 1e-5),
        ("exact", {"precision": "float16"}, 5e-3),
        ("graph", {}, 1e-5),
        ("compact", {}, 1e-5),
        ("sparse", {}, 1e-5),
    ],
)
@pytest.mark.parametrize("M,K,Ds", [(1, 2, 12), (4, 16, 3), (6, 256, 2)])
def test_inner_products_of_queries_and_documents_are_aqs(profile, options, tolerance, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    embed = MeCoQEmbeddingFunction(books, profile=profile, **options)
    documents, queries = embed.encode_documents(X), embed.encode_queries(Q)
    found = np.array([[inner(query, document) for document in documents] for query in queries])
    want = scoring.aqs(Q, scoring.encode(X, books), books)
    np.testing.assert_allclose(found + embed.query_offsets(Q)[:, None], want, atol=tolerance)
    assert embed.query_offsets(Q).any() == (profile == "sparse")


def test_documents_are_decoded_vectors_and_queries_block_normalised_ones():
    embed = MeCoQEmbeddingFunction(BOOKS)
    documents, queries = embed.encode_documents(X), embed.encode_queries(Q)
    assert isinstance(documents, list)
    assert {(row.shape, row.dtype.str) for row in documents + queries} == {((12,), "<f4")}
    np.testing.assert_array_equal(documents, scoring.decode(scoring.encode(X, BOOKS), BOOKS))
    np.testing.assert_array_equal(queries, scoring.block_normalize(Q, 4))
    np.testing.assert_array_equal(embed(X), documents)
    assert embed.dim == 12


def test_sparse_documents_are_the_places_of_their_codewords():
    embed = MeCoQEmbeddingFunction(BOOKS, profile="sparse")
    codes = scoring.encode(X, BOOKS)
    want = [{m * 16 + int(code): 1.0 for m, code in enumerate(row)} for row in codes]
    assert embed.encode_documents(X) == want
    query = embed.encode_queries(Q)[0]
    assert sorted(query) == list(range(64))
    assert min(query.values()) > 0  # Milvus drops what is not
    assert embed.dim == 64


@pytest.mark.parametrize("profile", ["exact", "sparse"])
def test_it_derives_from_the_classes_of_langchain_and_pymilvus_model(profile):
    class Embeddings(ABC):  # as in langchain_core.embeddings
        @abstractmethod
        def embed_documents(self, texts): ...

        @abstractmethod
        def embed_query(self, text): ...

    class BaseEmbeddingFunction:  # as in pymilvus.model.base
        model_name: str

        @abstractmethod
        def __call__(self, texts): ...

        @abstractmethod
        def encode_queries(self, queries): ...

    class Both(MeCoQEmbeddingFunction, Embeddings, BaseEmbeddingFunction):
        pass

    embed = Both(BOOKS, profile=profile)
    documents, query = embed.embed_documents(X.tolist()), embed.embed_query(Q[0].tolist())
    if profile == "exact":
        assert {type(row) for row in (*documents, query)} == {list}
        assert {type(value) for row in (*documents, query) for value in row} == {float}
        np.testing.assert_array_equal(documents, embed.encode_documents(X))
        np.testing.assert_array_equal(query, embed.encode_queries(Q)[0])
    else:
        assert documents == embed.encode_documents(X)
        assert query == pytest.approx(embed.encode_queries(Q)[0], abs=1e-6)
    assert embed.model_name == f"mecoq:{BOOKS.fingerprint[:12]}"


@pytest.mark.parametrize("form", [list, tuple, np.ndarray.tolist], ids=["list", "tuple", "floats"])
def test_vectors_one_by_one_are_as_vectors_in_an_array(form):
    embed = MeCoQEmbeddingFunction(BOOKS)
    np.testing.assert_array_equal(embed.encode_documents(form(X)), embed.encode_documents(X))
    np.testing.assert_array_equal(embed.encode_queries(form(Q)), embed.encode_queries(Q))
    np.testing.assert_array_equal(embed.embed_query(Q[3]), embed.encode_queries(Q)[3])


def test_features_are_projected_and_embeddings_are_not():
    books = make_codebooks(P=5)
    features = X[:, :5].copy()
    z = books.project(features)
    embed = MeCoQEmbeddingFunction(books)
    np.testing.assert_array_equal(embed(features), embed(z))
    np.testing.assert_array_equal(embed(z), scoring.decode(scoring.encode(z, books), books))
    np.testing.assert_array_equal(embed.encode_queries(features), scoring.block_normalize(z, 4))
    alike = make_codebooks(P=12)
    with pytest.raises(InvalidInputError, match="can be features or embeddings here: say which"):
        MeCoQEmbeddingFunction(alike)(X)
    projected, taken = (
        MeCoQEmbeddingFunction(alike, given=given).encode_queries(X)
        for given in ("features", "embeddings")
    )
    np.testing.assert_array_equal(projected, scoring.block_normalize(alike.project(X), 4))
    np.testing.assert_array_equal(taken, scoring.block_normalize(X, 4))


def test_codebooks_come_from_a_file_too(tmp_path):
    BOOKS.save(tmp_path / "c.pt")
    embed = MeCoQEmbeddingFunction(tmp_path / "c.pt", profile="sparse")
    assert embed(X) == MeCoQEmbeddingFunction(BOOKS, profile="sparse")(X)
    with pytest.raises(ArtifactError, match="none does not exist"):
        MeCoQEmbeddingFunction(str(tmp_path / "none"))


@pytest.mark.parametrize("empty", [[], (), X[:0]], ids=["list", "tuple", "array"])
@pytest.mark.parametrize("profile", ["exact", "sparse"])
def test_nothing_gives_nothing(profile, empty):
    embed = MeCoQEmbeddingFunction(BOOKS, profile=profile)
    assert embed.encode_documents(empty) == embed.encode_queries(empty) == []
    assert embed.query_offsets(empty).shape == (0,)


@pytest.mark.parametrize(
    "bad,message",
    [
        ("cat.jpg", r"must be a list of .*, got one str\. Put a single input into a list"),
        (Path("cat.jpg"), "got one PosixPath|got one WindowsPath"),
        (3, "got one int"),
        ([1.0] * 12, r"must be vectors, each a list of floats .* got float32 \(\)"),
        ([[1.0] * 12, [1.0] * 11], "of one width, but they cannot be put into an array"),
        ([["a"] * 12], "cannot be put into an array: could not convert string to float"),
        ([np.zeros(12)], r"or a float32 array \(P,\) or \(D,\), got float64 \(12,\)"),
        (["cat.jpg", X[0]], "all images or all vectors, got 1 images and 1 others"),
        (X[0], r"must have shape \(n, 12\), got \(12,\)"),
        (X.astype(np.float64), "must be a float32 array, got float64"),
        (X[:, :11], r"must have shape \(n, 12\), got \(30, 11\)"),
        ([[1e300] * 12], "must be finite, but 1 of 1 rows"),
        ([np.full(12, np.nan, np.float32)], "must be finite, but 1 of 1 rows"),
        (["cat.jpg"], "codebooks were learned from vectors, so they cannot embed images"),
    ],
)
def test_bad_inputs_are_refused_in_one_sentence(bad, message):
    embed = MeCoQEmbeddingFunction(BOOKS)
    for method in (embed.encode_documents, embed.encode_queries):
        with pytest.raises(InvalidInputError, match=message) as caught:
            method(bad)
        assert "\n" not in str(caught.value)


def test_bad_options_are_refused():
    with pytest.raises(InvalidInputError, match="given must be 'features' or 'embeddings', got 'x"):
        MeCoQEmbeddingFunction(BOOKS, given="x")
    with pytest.raises(
        InvalidInputError, match=r"profile must be one of .*'sparse'.* got 'hamming'"
    ):
        MeCoQEmbeddingFunction(BOOKS, profile="hamming")
    with pytest.raises(InvalidInputError, match="unknown sparse option 'precision'; there are no"):
        MeCoQEmbeddingFunction(BOOKS, profile="sparse", precision="float16")


@pytest.fixture
def photos(tmp_path, monkeypatch, request):
    """Codebooks learned from images, the files of five images, and these as `embed_images` does."""
    pytest.importorskip("torchvision")
    Image = pytest.importorskip("PIL.Image")

    from mecoq_index.data.images import ImageArray, ImageFiles
    from mecoq_index.data.views import ImageViews
    from mecoq_index.embed.backbones import load_backbone
    from mecoq_index.embed.encoder import embed_images
    from mecoq_index.learn.config import TrainConfig
    from mecoq_index.learn.trainer import train

    monkeypatch.syspath_prepend(str(request.path.parent / "learn"))
    backbone = load_backbone("tiny_network:TinyNetwork")
    pixels = np.random.default_rng(0).integers(256, size=(12, 16, 16, 3), dtype=np.uint8)
    config = TrainConfig(
        num_codebooks=2, num_codewords=4, dim=6, epochs=1, batch_size=6, memory_size=0
    )
    views = ImageViews(ImageArray(pixels), backbone.transform)
    train(views, config, backbone=backbone, out=tmp_path / "c.pt", device="cpu")
    books = Codebooks.load(tmp_path / "c.pt")
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, pixels, strict=False):
        Image.fromarray(image).save(path)
    return books, paths, embed_images(ImageFiles(paths), books, device="cpu").z


def test_images_are_embedded_as_embed_images_does(photos):
    from PIL import Image

    books, paths, z = photos
    embed = MeCoQEmbeddingFunction(books, device="cpu", batch_size=2)
    opened = [Image.open(path) for path in paths]
    for images in (paths, [str(path) for path in paths], opened, [paths[0], *opened[1:]]):
        queries, documents = embed.encode_queries(images), embed.encode_documents(images)
        np.testing.assert_allclose(queries, scoring.block_normalize(z, 2), atol=1e-6)
        np.testing.assert_array_equal(documents, scoring.decode(scoring.encode(z, books), books))
    np.testing.assert_allclose(embed.embed_query(opened[3]), queries[3], atol=1e-6)
    np.testing.assert_allclose(embed.embed_query(str(paths[3])), queries[3], atol=1e-6)
    for image in opened:
        image.close()


def test_the_network_is_made_once(photos, monkeypatch):
    from mecoq_index.embed import backbones, encoder

    made = []
    real = backbones.restore_backbone
    for module in (backbones, encoder):
        monkeypatch.setattr(module, "restore_backbone", lambda b: made.append(b) or real(b))
    books, paths, _ = photos
    embed = MeCoQEmbeddingFunction(books, device="cpu")
    embed.embed_query(paths[0])
    embed.embed_documents(paths)
    assert len(made) == 1


def test_an_unreadable_image_is_named_and_none_is_skipped(photos):
    books, paths, _ = photos
    embed = MeCoQEmbeddingFunction(books, device="cpu")
    paths[2].write_bytes(b"broken")
    with pytest.raises(InvalidInputError, match=r"2\.png is no readable image"):
        embed.encode_documents(paths)
    with pytest.raises(InvalidInputError, match=r"none\.png is no readable image"):
        embed.embed_query("none.png")
