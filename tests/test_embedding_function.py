"""The embedding function: its two forms give AQS, and it takes what its users hold."""

import asyncio
import pickle
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


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("M,K,Ds", [(1, 2, 12), (4, 16, 3), (6, 256, 2)])
def test_inner_products_of_queries_and_documents_are_aqs(form, M, K, Ds):
    books = make_codebooks(M, K, Ds)
    embed = MeCoQEmbeddingFunction(books, form=form)
    documents, queries = embed.encode_documents(X), embed.encode_queries(Q)
    found = np.array([[inner(query, document) for document in documents] for query in queries])
    want = scoring.aqs(Q, scoring.encode(X, books), books)
    np.testing.assert_allclose(found + embed.query_offsets(Q)[:, None], want, atol=1e-5)
    assert embed.query_offsets(Q).any() == (form == "sparse")


def test_documents_are_decoded_vectors_and_queries_block_normalized_ones():
    embed = MeCoQEmbeddingFunction(BOOKS)
    documents, queries = embed.encode_documents(X), embed.encode_queries(Q)
    assert isinstance(documents, list)
    assert {(row.shape, row.dtype.str) for row in documents + queries} == {((12,), "<f4")}
    np.testing.assert_array_equal(documents, scoring.decode(scoring.encode(X, BOOKS), BOOKS))
    np.testing.assert_array_equal(queries, scoring.block_normalize(Q, 4))
    np.testing.assert_array_equal(embed(X), documents)
    assert embed.dim == 12


def test_sparse_documents_are_the_places_of_their_codewords():
    embed = MeCoQEmbeddingFunction(BOOKS, form="sparse")
    codes = scoring.encode(X, BOOKS)
    want = [{m * 16 + int(code): 1.0 for m, code in enumerate(row)} for row in codes]
    assert embed.encode_documents(X) == want
    query = embed.encode_queries(Q)[0]
    assert sorted(query) == list(range(64))
    assert min(query.values()) > 0  # Milvus drops what is not
    assert embed.dim == 64


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_it_derives_from_the_classes_of_langchain_and_pymilvus_model(form):
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

    embed = Both(BOOKS, form=form)
    documents, query = embed.embed_documents(X.tolist()), embed.embed_query(Q[0].tolist())
    if form == "dense":
        assert {type(row) for row in (*documents, query)} == {list}
        assert {type(value) for row in (*documents, query) for value in row} == {float}
        np.testing.assert_array_equal(documents, embed.encode_documents(X))
        np.testing.assert_array_equal(query, embed.encode_queries(Q)[0])
    else:
        assert documents == embed.encode_documents(X)
        assert query == pytest.approx(embed.encode_queries(Q)[0], abs=1e-6)
    assert embed.model_name == f"mecoq:{BOOKS.fingerprint[:12]}"


@pytest.mark.parametrize(
    "given_as",
    [list, tuple, np.ndarray.tolist, np.float64, lambda x: [row.astype(np.float64) for row in x]],
    ids=["list", "tuple", "floats", "float64", "list of float64"],
)
def test_vectors_one_by_one_and_of_other_dtypes_are_as_a_float32_array(given_as):
    embed = MeCoQEmbeddingFunction(BOOKS)
    np.testing.assert_array_equal(embed.encode_documents(given_as(X)), embed.encode_documents(X))
    np.testing.assert_array_equal(embed.encode_queries(given_as(Q)), embed.encode_queries(Q))
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
    embed = MeCoQEmbeddingFunction(tmp_path / "c.pt", form="sparse")
    assert embed(X) == MeCoQEmbeddingFunction(BOOKS, form="sparse")(X)
    with pytest.raises(ArtifactError, match="none does not exist"):
        MeCoQEmbeddingFunction(str(tmp_path / "none"))


@pytest.mark.parametrize("empty", [[], (), X[:0]], ids=["list", "tuple", "array"])
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_nothing_gives_nothing(form, empty):
    embed = MeCoQEmbeddingFunction(BOOKS, form=form)
    assert embed.encode_documents(empty) == embed.encode_queries(empty) == []
    assert embed.query_offsets(empty).shape == (0,)


NO_ENCODER = "texts need an encoder, but none was given, and these codebooks were learned from vec"


@pytest.mark.parametrize(
    "bad,message",
    [
        ("cat.jpg", r"must be a list of .*, got one str\. Put a single input into a list"),
        (Path("cat.jpg"), "got one PosixPath|got one WindowsPath"),
        (3, "got one int"),
        ([1.0] * 12, r"must have shape \(n, 12\), got \(12,\)"),
        ([[1.0] * 12, [1.0] * 11], "that NumPy cannot turn into one"),
        ([["a"] * 12], r"must be .*, got list of <U1"),
        (["a text"], NO_ENCODER),
        ([Path("cat.jpg"), X[0]], r"must be of one kind, got 1 images and 1 vectors\."),
        (X[0], r"must have shape \(n, 12\), got \(12,\)"),
        (X[:, :11], r"must have shape \(n, 12\), got \(30, 11\)"),
        ([[1e300] * 12], "must be finite, but 1 of 1 rows"),
        ([np.full(12, np.nan, np.float32)], "must be finite, but 1 of 1 rows"),
        ([Path("cat.jpg")], "codebooks were learned from vectors, so they cannot embed images"),
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
    with pytest.raises(InvalidInputError, match="form must be 'dense' or 'sparse', got 'exact'"):
        MeCoQEmbeddingFunction(BOOKS, form="exact")
    with pytest.raises(InvalidInputError, match=r"encoder must be a function that .*, got ndarray"):
        MeCoQEmbeddingFunction(BOOKS, encoder=X)


def letters(texts):
    """Count letters: vectors (n, 12), of float64."""
    return np.array([[text.count(letter) for letter in "etaoinshrdlu"] for text in texts]) + 0.5


TEXTS = ["the first of the texts", "a second one", "and another", "photo.jpg"]


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_strings_are_texts_where_there_is_an_encoder(form):
    texts, plain = (MeCoQEmbeddingFunction(BOOKS, encoder=e, form=form) for e in (letters, None))
    assert texts.embed_documents(TEXTS) == plain.embed_documents(letters(TEXTS))
    assert texts.embed_query(TEXTS[3]) == plain.embed_query(letters(TEXTS)[3])
    np.testing.assert_array_equal(texts.query_offsets(TEXTS), plain.query_offsets(letters(TEXTS)))
    assert texts.embed_documents(X) == plain.embed_documents(X)


def test_texts_become_features_where_there_is_a_projection():
    books = make_codebooks(P=3)
    embed = MeCoQEmbeddingFunction(books, encoder=lambda texts: letters(texts)[:, :3].tolist())
    z = books.project(letters(TEXTS)[:, :3])
    np.testing.assert_array_equal(embed.encode_queries(TEXTS), scoring.block_normalize(z, 4))


@pytest.mark.parametrize(
    "encoder,message",
    [
        (lambda texts: letters(texts)[:2], "must return one vector for each text, 4, got 2"),
        (lambda texts: letters(texts)[0], r"the encoder's vectors must have shape \(n, D\), got"),
        (lambda texts: texts, r"the encoder's vectors must be .*, got list of <U"),
        (lambda texts: letters(texts)[:, :5], r"must have shape \(n, 12\), got \(4, 5\)"),
    ],
)
def test_an_encoder_that_gives_something_else_is_refused(encoder, message):
    with pytest.raises(InvalidInputError, match=message):
        MeCoQEmbeddingFunction(BOOKS, encoder=encoder).embed_documents(TEXTS)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_the_asynchronous_methods_give_the_same(form):
    embed = MeCoQEmbeddingFunction(BOOKS, encoder=letters, form=form)

    async def both():
        return await embed.aembed_documents(TEXTS), await embed.aembed_query(TEXTS[0])

    assert asyncio.run(both()) == (embed.embed_documents(TEXTS), embed.embed_query(TEXTS[0]))


def test_relevance_grows_with_aqs_from_0_to_1():
    embed = MeCoQEmbeddingFunction(BOOKS)
    assert [embed.relevance_score(score) for score in (-4, 0, 3, 4)] == [0, 0.5, 0.875, 1]
    assert [embed.relevance_score(np.float32(score)) for score in (-4.001, 4.001)] == [0, 1]
    opposite = -scoring.decode(scoring.encode(X, BOOKS), BOOKS)
    least = [float(q @ d) for q, d in zip(opposite, embed.encode_documents(X), strict=True)]
    assert {round(embed.relevance_score(score), 6) for score in least} == {0}


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_it_can_be_pickled(form):
    embed = MeCoQEmbeddingFunction(BOOKS, encoder=len, form=form, given="embeddings")
    again = pickle.loads(pickle.dumps(embed))
    assert again.embed_documents(X) == embed.embed_documents(X)
    assert (again.dim, again.model_name, repr(again)) == (embed.dim, embed.model_name, repr(embed))


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
    from mecoq_index.learn.trainer import fit

    monkeypatch.syspath_prepend(str(request.path.parent / "learn"))
    backbone = load_backbone("tiny_network:TinyNetwork")
    pixels = np.random.default_rng(0).integers(256, size=(12, 16, 16, 3), dtype=np.uint8)
    config = TrainConfig().replace(
        num_codebooks=2, num_codewords=4, dim=6, epochs=1, batch_size=6, memory_size=0
    )
    views = ImageViews(ImageArray(pixels), backbone.transform)
    fit(views, config, backbone=backbone, out=tmp_path / "c.pt", device="cpu")
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
        monkeypatch.setattr(
            module, "restore_backbone", lambda b, **named: made.append(b) or real(b, **named)
        )
    books, paths, _ = photos
    embed = MeCoQEmbeddingFunction(books, device="cpu")
    embed.embed_query(paths[0])
    embed.embed_documents(paths)
    assert len(made) == 1
    again = pickle.loads(pickle.dumps(embed))
    assert again.embed_query(paths[0]) == embed.embed_query(paths[0])
    assert len(made) == 2  # a network is not pickled


def test_a_string_is_a_text_and_a_path_an_image_where_codebooks_embed_both(photos):
    books, paths, z = photos
    embed = MeCoQEmbeddingFunction(books, encoder=lambda texts: np.ones((len(texts), books.P)))
    np.testing.assert_allclose(
        embed.encode_queries(paths[:2]), scoring.block_normalize(z[:2], 2), atol=1e-6
    )
    text = scoring.block_normalize(books.project(np.ones((1, books.P))), 2)
    np.testing.assert_array_equal(embed.encode_queries([str(paths[0])]), text)
    with pytest.raises(InvalidInputError, match="must be of one kind, got 1 images and 1 texts"):
        embed.encode_queries([paths[0], str(paths[1])])


def test_an_unreadable_image_is_named_and_none_is_skipped(photos):
    books, paths, _ = photos
    embed = MeCoQEmbeddingFunction(books, device="cpu")
    paths[2].write_bytes(b"broken")
    with pytest.raises(InvalidInputError, match=r"2\.png is no readable image"):
        embed.encode_documents(paths)
    with pytest.raises(InvalidInputError, match=r"none\.png is no readable image"):
        embed.embed_query("none.png")
