"""Sources become embeddings and codes in one place, whatever they are."""

import subprocess
import sys

import numpy as np
import pytest

from mecoq_index import scoring
from mecoq_index.backbone import Backbone
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.data.feature_file import save_features
from mecoq_index.data.source import open_source
from mecoq_index.embed.embedder import Embedder
from mecoq_index.errors import InvalidInputError

TINY = "tiny_network:TinyNetwork"
RNG = np.random.default_rng(0)


def make_books(width=12, **options):
    codewords = RNG.standard_normal((2, 16, 4))
    codewords /= np.linalg.norm(codewords, axis=-1, keepdims=True)
    layer = Layer(RNG.standard_normal((8, width)), RNG.standard_normal(8))
    return Codebooks(codewords, [layer], **options)


BOOKS = make_books()
X = RNG.standard_normal((30, 12)).astype(np.float32)
Z = BOOKS.project(X)
CODES = scoring.encode(Z, BOOKS)


@pytest.mark.parametrize("source", [X, X.astype(np.float64), X.tolist(), open_source(X)])
def test_vectors_become_embeddings_and_codes(source):
    embedder = Embedder(BOOKS)
    embedded, encoded = embedder.embed(source), embedder.encode(source)
    np.testing.assert_allclose(embedded.z, Z, atol=1e-5)
    np.testing.assert_array_equal(encoded.codes, CODES)
    np.testing.assert_array_equal(encoded.kept, np.arange(30))
    assert embedded.skipped == []


def test_embeddings_and_codes_are_taken_as_they_are():
    embedder = Embedder(BOOKS)
    np.testing.assert_array_equal(embedder.embed(Z).z, Z)
    np.testing.assert_array_equal(embedder.encode(Z).codes, CODES)
    np.testing.assert_array_equal(embedder.encode(CODES).codes, CODES)
    with pytest.raises(InvalidInputError, match="the rows are codes already, which have no embed"):
        embedder.embed(CODES)


def test_numbers_of_one_byte_are_vectors_if_they_have_their_width():
    pixels = RNG.integers(256, size=(5, 12), dtype=np.uint8)
    want = BOOKS.project(pixels)
    np.testing.assert_allclose(Embedder(BOOKS).embed(pixels).z, want, rtol=1e-5)
    narrow = make_books(width=2)
    pairs = RNG.integers(16, size=(5, 2), dtype=np.uint8)
    np.testing.assert_array_equal(Embedder(narrow).encode(pairs).codes, pairs)
    embedded = Embedder(narrow, given="features").embed(pairs)
    np.testing.assert_allclose(embedded.z, narrow.project(pairs), rtol=1e-5)


def test_ids_names_and_columns_come_along():
    items = open_source(X, ids=[f"item {i}" for i in range(30)], labels=np.arange(30))
    encoded = Embedder(BOOKS).encode(items)
    assert encoded.names == items.names
    assert encoded.ids is None
    assert encoded.columns == {}
    np.testing.assert_array_equal(encoded.labels, np.arange(30))


def test_ranges_of_rows_are_encoded_alike_and_progress_is_told(monkeypatch):
    encoder = Embedder(BOOKS).rows(open_source(X))
    np.testing.assert_array_equal(encoder.encode(7, 19), CODES[7:19])
    np.testing.assert_allclose(encoder.embed(7, 19), Z[7:19], atol=1e-5)
    monkeypatch.setattr(encoder, "chunk", 20)
    seen = []
    encoder.encode_all(lambda *step: seen.append(step))
    assert seen == [("encoding", 20, 30), ("encoding", 30, 30)]


def test_vectors_unlike_those_of_training_are_told_once(caplog):
    from mecoq_index.codebooks import VectorStatistics

    books = make_books(statistics=VectorStatistics.of(X))
    mixed = X.copy()
    mixed[:20] *= 5
    encoder = Embedder(books).rows(open_source(mixed))
    encoder.chunk = 10
    encoder.encode_all()
    assert len(caplog.records) == 1
    with pytest.raises(InvalidInputError, match="factor of 2"):
        Embedder(books).encode(X * 5)


@pytest.mark.parametrize(
    "source,message",
    [
        (X[:, :5], r"features of width P=12 or embeddings of width D=8, got width 5"),
        (CODES[:, :1], r"codes must have shape \(n, 2\), got a width of 1, .*\(P=12, D=8\)"),
        (np.where(X > 2, np.nan, X), r"vectors must be finite, but row \d+ holds NaN"),
        (np.full((2, 2), 16, np.uint8), r"codes must be below K=16, but row 0 holds 16"),
        (np.zeros((1, 8, 8, 3), np.uint8), "learned from vectors, so they cannot embed images"),
    ],
)
def test_sources_that_do_not_fit_are_refused(source, message):
    with pytest.raises(InvalidInputError, match=message):
        Embedder(BOOKS).encode(source)
    with pytest.raises(InvalidInputError, match="given must be 'features' or 'embeddings', got 'x"):
        Embedder(BOOKS, given="x")


class TestImages:
    @pytest.fixture(autouse=True)
    def tiny_on_path(self, monkeypatch, request):
        pytest.importorskip("torchvision")
        pytest.importorskip("PIL.Image")
        monkeypatch.syspath_prepend(str(request.path.parents[1] / "learn"))

    @pytest.fixture
    def folder(self, tmp_path):
        from PIL import Image

        root = tmp_path / "photos"
        for i in range(6):
            path = root / f"class{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(256, size=(20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        (root / "class0" / "2.png").write_bytes(b"broken")
        return root

    def test_codebooks_of_saved_features_embed_the_images_alike(self, folder, tmp_path):
        from mecoq_index.embed.backbones import backbone_record, load_backbone
        from mecoq_index.embed.encoder import extract_features

        model = load_backbone(TINY, image_size=20)
        images = open_source(folder)
        found = extract_features(images.images, model, device="cpu", views=2)
        save_features(
            tmp_path / "f.npz",
            features=found.features,
            views=found.views,
            names=[images.names[i] for i in found.kept],
            labels=images.labels[found.kept],
            backbone=backbone_record(model, trained=False),
        )
        features = open_source(tmp_path / "f.npz")
        assert features.backbone.name == TINY
        assert features.backbone.transform["crop"] == 20
        assert features.backbone.weights_sha256 == model.weights_sha256
        assert features.views.backbone.name == TINY
        books = make_books(backbone=features.backbone)
        books.save(tmp_path / "c.safetensors")
        embedder = Embedder(Codebooks.load(tmp_path / "c.safetensors"), device="cpu", backbone=TINY)
        from_features, from_images = embedder.embed(features), embedder.embed(folder)
        np.testing.assert_allclose(from_images.z, from_features.z, atol=1e-5)
        assert from_images.names == from_features.names
        np.testing.assert_array_equal(from_images.labels, from_features.labels)
        assert [i for i, _ in from_images.skipped] == [1]
        np.testing.assert_array_equal(
            embedder.encode(folder).codes, embedder.encode(features).codes
        )

    def test_the_network_is_built_once(self, folder, monkeypatch):
        from mecoq_index.embed import backbones

        model = backbones.load_backbone("mecoq:small")
        books = make_books(width=256, backbone=backbones.backbone_record(model, trained=False))
        built, real = [], backbones.restore_backbone
        monkeypatch.setattr(
            backbones, "restore_backbone", lambda *a, **k: built.append(1) or real(*a, **k)
        )
        embedder = Embedder(books, device="cpu")
        assert len(embedder.embed(folder).z) == len(embedder.embed(folder).z) == 5
        assert built == [1]
        with pytest.raises(InvalidInputError, match=r"2\.png is no readable image"):
            Embedder(books, device="cpu", strict=True).embed(folder)
        with pytest.raises(InvalidInputError, match="ranges of rows must be vectors or codes"):
            embedder.rows(open_source(folder))

    def test_code_that_only_a_file_names_is_not_run(self, folder, tmp_path, monkeypatch):
        (tmp_path / "unknown_code.py").write_text("raise SystemExit('code was run')")
        monkeypatch.syspath_prepend(str(tmp_path))
        books = make_books(backbone=Backbone("unknown_code:Net", "ab" * 32, {"crop": 16}))
        with pytest.raises(
            InvalidInputError,
            match=r"name the backbone 'unknown_code:Net', whose code would be run.*backbone='unk",
        ):
            Embedder(books).embed(folder)
        with pytest.raises(InvalidInputError, match="with the backbone 'unknown_code:Net', not"):
            Embedder(books, backbone="mecoq:small").embed(folder)
        with pytest.raises(SystemExit, match="code was run"):
            Embedder(books, backbone="unknown_code:Net").embed(folder)


def test_vectors_are_embedded_without_torch():
    program = (
        "import sys, numpy as np\n"
        "from mecoq_index.codebooks import Codebooks\n"
        "from mecoq_index.data import datasets, features, images, protocols, views\n"
        "from mecoq_index.embed.embedder import Embedder\n"
        "books = Codebooks(np.eye(2, dtype=np.float32)[None])\n"
        "Embedder(books).encode(features.FeatureViews(np.ones((2, 5, 2))))\n"
        "heavy = ('torch', 'PIL', 'pyarrow', 'h5py', 'datasets', 'torchvision')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
