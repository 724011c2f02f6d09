import os
import pickle

import numpy as np
import pytest
import torch

from mecoq_index.codebook_file import FORMAT_VERSION, torch_content
from mecoq_index.codebooks import Backbone, Codebooks, Layer
from mecoq_index.errors import ArtifactError, InvalidInputError


def unit(shape, seed=0):
    c = np.random.default_rng(seed).standard_normal(shape)
    return (c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32)


def make_codebooks():
    rng = np.random.default_rng(1)
    layers = [
        Layer(rng.standard_normal((7, 5)), rng.standard_normal(7)),
        Layer(rng.standard_normal((6, 7)), rng.standard_normal(6)),
    ]
    state = {"w": np.ones((2, 2), np.float32), "steps": np.array(3)}
    backbone = Backbone("module:net", "ab" * 32, {"resize": 8, "mean": [0.5]}, state)
    return Codebooks(unit((2, 4, 3)), layers, backbone, {"seed": 3, "config": {"lr": 0.1}})


def test_shapes_are_named():
    books = make_codebooks()
    assert (books.M, books.K, books.Ds, books.D, books.P) == (2, 4, 3, 6, 5)
    assert books.bits == 4
    assert Codebooks(unit((2, 4, 3))).P == 6


def test_a_file_brings_everything_back_bit_for_bit(tmp_path):
    books = make_codebooks()
    books.save(tmp_path / "c.pt")
    again = Codebooks.load(tmp_path / "c.pt")
    np.testing.assert_array_equal(again.codewords, books.codewords)
    for a, b in zip(again.projection, books.projection, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.bias, b.bias)
    assert again.fingerprint == books.fingerprint
    assert again.provenance == books.provenance
    assert again.backbone.name == "module:net"
    assert again.backbone.transform == {"resize": 8, "mean": [0.5]}
    np.testing.assert_array_equal(again.backbone.state["w"], np.ones((2, 2)))


def test_what_is_frozen_stays_frozen():
    codewords = unit((2, 4, 3))
    provenance = {"seed": 3}
    books = Codebooks(codewords, provenance=provenance)
    fingerprint = books.fingerprint
    codewords[:] = 0
    provenance["seed"] = 4
    assert Codebooks(books.codewords).fingerprint == fingerprint
    assert books.provenance["seed"] == 3
    with pytest.raises(ValueError, match="read-only"):
        books.codewords[0] = 0
    with pytest.raises(AttributeError, match="cannot assign"):
        books.codewords = codewords


def test_codewords_are_unit_within_rounding_and_keep_their_bits():
    exact = unit((3, 16, 8))
    np.testing.assert_array_equal(Codebooks(exact).codewords, exact)
    stored = Codebooks(exact.astype(np.float16)).codewords
    np.testing.assert_allclose(np.linalg.norm(stored.astype(np.float64), axis=2), 1, atol=1e-6)
    assert np.abs(stored - exact).max() < 1e-3


def test_the_fingerprint_sees_codewords_projection_and_shape():
    books = make_codebooks()
    other = [
        Codebooks(unit((2, 4, 3), seed=5), books.projection),
        Codebooks(books.codewords),
        Codebooks(books.codewords, [books.projection[0], Layer(np.ones((6, 7)), np.zeros(6))]),
    ]
    assert len({books.fingerprint, *(b.fingerprint for b in other)}) == 4
    same = Codebooks(books.codewords, books.projection)
    assert same.fingerprint == books.fingerprint


def test_project_is_affine_maps_with_relu_between():
    books = make_codebooks()
    x = np.random.default_rng(2).standard_normal((40, 5), dtype=np.float32)
    first, second = books.projection
    hidden = np.maximum(x @ first.weight.T + first.bias, 0)
    np.testing.assert_allclose(
        books.project(x), hidden @ second.weight.T + second.bias, rtol=1e-4, atol=1e-5
    )
    z = np.ones((1, 6), np.float32)
    assert Codebooks(books.codewords).project(z) is z


def test_vectors_are_told_apart_by_their_width():
    books = make_codebooks()
    x, z = np.ones((2, 5), np.float32), np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(books.embed(x), books.project(x))
    np.testing.assert_array_equal(books.embed(z), z)
    with pytest.raises(InvalidInputError, match="features of width P=5 or embeddings of width D=6"):
        books.embed(np.ones((2, 4), np.float32))
    square = Codebooks(unit((2, 4, 3)), [Layer(np.eye(6), np.zeros(6))])
    with pytest.raises(InvalidInputError, match="width 6 can be features or embeddings here: say"):
        square.embed(z)
    for given in ("features", "embeddings"):
        np.testing.assert_array_equal(square.embed(z, given=given), z)


@pytest.mark.parametrize(
    "codewords,message",
    [
        (np.zeros((4, 3), np.float32), r"must have shape \(M, K, Ds\), got 2 axes: \(4, 3\)"),
        (np.zeros((1, 1, 3), np.float32), r"K between 2 and 256 .* got \(1, 1, 3\)"),
        (np.zeros((1, 257, 3), np.float32), r"K between 2 and 256 .* got \(1, 257, 3\)"),
        (np.ones((1, 2, 3), np.int64), "must be floating point, got int64"),
        (np.full((1, 2, 3), np.nan), "codewords must be finite"),
        (np.ones((1, 2, 3)), r"unit length, but one is off by 0\.732 .* Divide each by its norm"),
    ],
)
def test_codewords_that_cannot_be_are_refused(codewords, message, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        Codebooks(codewords)
    np.save(tmp_path / "c.npy", codewords)
    with pytest.raises(ArtifactError, match=r"c\.npy: codewords"):
        Codebooks.load(tmp_path / "c.npy")


def test_a_projection_that_does_not_fit_is_refused():
    c = unit((2, 4, 3))
    with pytest.raises(InvalidInputError, match=r"must give D = M \* Ds = 6 values, got 5"):
        Codebooks(c, [Layer(np.ones((5, 7)), np.ones(5))])
    with pytest.raises(InvalidInputError, match="gives 5 values, but the next one takes 7"):
        Codebooks(c, [Layer(np.ones((5, 3)), np.ones(5)), Layer(np.ones((6, 7)), np.ones(6))])
    with pytest.raises(InvalidInputError, match=r"weight \(out, in\) and bias \(out,\), got"):
        Layer(np.ones((5, 3)), np.ones(3))
    with pytest.raises(InvalidInputError, match="must be finite"):
        Layer(np.full((5, 3), np.inf), np.ones(5))


def test_bare_arrays_and_tensors_are_codebooks(tmp_path):
    c = unit((2, 4, 3))
    np.save(tmp_path / "c.npy", c)
    torch.save(torch.from_numpy(c), tmp_path / "c.pth")
    for name in ("c.npy", "c.pth"):
        np.testing.assert_array_equal(Codebooks.load(tmp_path / name).codewords, c)


def test_an_official_model_is_read_by_its_keys(tmp_path):
    c = unit((2, 4, 3))
    weight, bias = torch.randn(6, 5), torch.randn(6)
    model = {
        "vgg.features.0.weight": torch.zeros(2),
        "pq_layer._C": torch.from_numpy(c * 3),
        "projection.weight": weight,
        "projection.bias": bias,
    }
    torch.save(model, tmp_path / "model.cpt")
    books = Codebooks.load(tmp_path / "model.cpt")
    np.testing.assert_allclose(books.codewords, c, atol=1e-6)
    np.testing.assert_array_equal(books.projection[0].weight, weight)
    assert books.provenance["origin"] == "official"
    del model["projection.bias"]
    torch.save(model, tmp_path / "model.cpt")
    with pytest.raises(ArtifactError, match=r"'projection.weight' or 'projection.bias' is missing"):
        Codebooks.load(tmp_path / "model.cpt")


class Evil:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("save", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, save):
    save(
        {"format": "mecoq-index codebooks", "codewords": Evil(tmp_path / "ran")}, tmp_path / "c.pt"
    )
    with pytest.raises(ArtifactError, match=r"c\.pt is no codebook file: .* and is refused"):
        Codebooks.load(tmp_path / "c.pt")
    assert not (tmp_path / "ran").exists()


def test_an_npy_file_with_objects_is_refused(tmp_path):
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"c\.npy is no readable \.npy file"):
        Codebooks.load(tmp_path / "c.npy")


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 1000, -1, -30])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "c.pt"
    make_codebooks().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"c\.pt is (empty|no|damaged)"):
        Codebooks.load(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"c\.pt does not exist"):
        Codebooks.load(tmp_path / "c.pt")
    with pytest.raises(ArtifactError, match="must be a file, but it is a folder"):
        Codebooks.load(tmp_path)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"version": FORMAT_VERSION + 1}, "has format version 3, but this release reads up to 2"),
        ({"version": "1"}, "has format version 1, but"),
        ({"fingerprint": "0" * 64}, "differ from the fingerprint written with them"),
        ({"codewords": None}, "is damaged: a part of the codebook file is missing"),
        ({"format": "else"}, "holds no codebooks. It must be a file of mecoq-index"),
    ],
)
def test_changed_files_are_refused(tmp_path, change, message):
    torch.save(torch_content(make_codebooks().content()) | change, tmp_path / "c.pt")
    with pytest.raises(ArtifactError, match=message):
        Codebooks.load(tmp_path / "c.pt")


def test_bytes_flipped_anywhere_never_give_other_codebooks(tmp_path):
    path = tmp_path / "c.pt"
    books = make_codebooks()
    books.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(len(whole), size=150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            again = Codebooks.load(path)
        except ArtifactError:
            continue
        assert again.fingerprint == books.fingerprint


def test_saving_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    books = make_codebooks()
    books.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        books.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
