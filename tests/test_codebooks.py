import copy
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from mecoq_index import codebook_file
from mecoq_index._tensor_file import foreign_dtype
from mecoq_index.codebook_file import FORMAT_VERSION, torch_content
from mecoq_index.codebooks import Backbone, Codebooks, Layer, VectorStatistics
from mecoq_index.errors import ArtifactError, InvalidInputError

SUFFIXES = (".pt", ".safetensors")


def unit(shape, seed=0):
    c = np.random.default_rng(seed).standard_normal(shape)
    return (c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32)


def make_codebooks():
    rng = np.random.default_rng(1)
    layers = [
        Layer(rng.standard_normal((7, 5)), rng.standard_normal(7)),
        Layer(rng.standard_normal((6, 7)), rng.standard_normal(6)),
    ]
    state = {
        "w": np.ones((2, 2), np.float32),
        "steps": np.array(3),
        "half": rng.standard_normal((3, 2)).astype(np.float16),
        "brain": np.array([[0x3F80, 0x4049]], "<u2").view(foreign_dtype("bfloat16")),
        "mask": np.array([True, False]),
        "none": np.zeros((0, 4)),
    }
    backbone = Backbone("module:net", "ab" * 32, {"resize": 8, "mean": [0.5]}, state, "cd" * 32)
    return Codebooks(
        unit((2, 4, 3)),
        layers,
        backbone,
        {"seed": 3, "config": {"lr": 0.1, "ä\udcff": None}},
        normalize=True,
        statistics=VectorStatistics(40, (1.0, 2.0, 3.0), (0.0, 0.5, 1.0)),
        report={"recall": [0.1, None]},
    )


def test_shapes_are_named():
    books = make_codebooks()
    assert (books.M, books.K, books.Ds, books.D, books.P) == (2, 4, 3, 6, 5)
    assert books.bits == 4
    assert Codebooks(unit((2, 4, 3))).P == 6


def assert_same(again, books):
    """Every bit and every value of codebooks came back."""
    for a, b in [
        (again.codewords, books.codewords),
        *((getattr(a, name), getattr(b, name))
          for a, b in zip(again.projection, books.projection, strict=True)
          for name in ("weight", "bias")),
        *((again.backbone.state[name], value) for name, value in books.backbone.state.items()),
    ]:  # fmt: skip
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        assert not a.flags.writeable
    assert again.fingerprint == books.fingerprint
    for name in ("name", "weights_sha256", "base_sha256", "transform", "state_sha256"):
        assert getattr(again.backbone, name) == getattr(books.backbone, name)
    assert list(again.backbone.state) == list(books.backbone.state)
    for name in ("provenance", "report", "normalize", "statistics"):
        assert getattr(again, name) == getattr(books, name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_brings_everything_back_bit_for_bit(tmp_path, suffix):
    books = make_codebooks()
    books.save(tmp_path / f"c{suffix}")
    assert_same(Codebooks.load(tmp_path / f"c{suffix}"), books)
    first = (tmp_path / f"c{suffix}").read_bytes()
    books.save(tmp_path / f"d{suffix}")
    assert (tmp_path / f"d{suffix}").read_bytes() == first


def test_codebooks_are_pickled_and_copied_whole_and_stay_frozen():
    books = make_codebooks()
    for again in (pickle.loads(pickle.dumps(books)), copy.deepcopy(books), copy.copy(books)):
        assert_same(again, books)
        with pytest.raises(TypeError, match="a FrozenDict cannot be changed"):
            again.provenance["seed"] = 4
    backbone, layer = pickle.loads(pickle.dumps((books.backbone, books.projection[0])))
    assert backbone.state_sha256 == books.backbone.state_sha256
    np.testing.assert_array_equal(layer.weight, books.projection[0].weight)


def test_another_process_gets_codebooks():
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(repr, (make_codebooks(),)) == repr(make_codebooks())


def test_every_part_has_a_repr_of_one_line():
    books = make_codebooks()
    state = {f"layer{i}": np.zeros((100, 100), np.float32) for i in range(50)}
    large = replace(books.backbone, state=state)
    for value in (books, replace(books, backbone=large), large, books.projection[0]):
        assert "\n" not in repr(value)
        assert len(repr(value)) < 150
    assert repr(books.projection[0]) == "Layer(5 -> 7)"
    assert "module:net" in repr(large)
    assert "50 arrays of 2.0 MB" in repr(large)
    assert "P=5, normalize=True, backbone='module:net'" in repr(books)


def test_what_is_frozen_stays_frozen():
    codewords = unit((2, 4, 3))
    provenance = {"seed": 3, "settings": {"lr": 1}}
    books = Codebooks(codewords, provenance=provenance)
    fingerprint = books.fingerprint
    codewords[:] = 0
    provenance["seed"] = 4
    provenance["settings"]["lr"] = 2
    assert Codebooks(books.codewords).fingerprint == fingerprint
    assert books.provenance == {"seed": 3, "settings": {"lr": 1}}
    with pytest.raises(TypeError, match="a FrozenDict cannot be changed; change a copy of it"):
        books.provenance["settings"]["lr"] = 2
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
    same = Codebooks(books.codewords, books.projection, normalize=True)
    assert same.fingerprint == books.fingerprint


def test_project_is_affine_maps_with_relu_between():
    books = make_codebooks()
    x = np.random.default_rng(2).standard_normal((40, 5), dtype=np.float32)
    first, second = books.projection
    unit_x = x / np.linalg.norm(x, axis=1, keepdims=True)
    hidden = np.maximum(unit_x @ first.weight.T + first.bias, 0)
    np.testing.assert_allclose(
        books.project(x), hidden @ second.weight.T + second.bias, rtol=1e-4, atol=1e-5
    )
    z = np.ones((1, 6), np.float32)
    assert Codebooks(books.codewords).project(z) is z
    raw = replace(books, normalize=False)
    assert raw.fingerprint != books.fingerprint
    hidden = np.maximum(x @ first.weight.T + first.bias, 0)
    np.testing.assert_allclose(
        raw.project(x), hidden @ second.weight.T + second.bias, rtol=1e-4, atol=1e-5
    )


def test_normalized_features_may_have_any_length():
    books = make_codebooks()
    x = np.random.default_rng(2).standard_normal((9, 5), dtype=np.float32)
    want = books.embed(x)
    for scale in (1e-3, 1e25, 1e-30):
        np.testing.assert_allclose(books.embed(x * np.float32(scale)), want, rtol=1e-4, atol=1e-5)
    zero = books.project(np.zeros((1, 5)))
    np.testing.assert_array_equal(zero, replace(books, normalize=False).project(np.zeros((1, 5))))


def test_vectors_of_another_length_than_in_training_are_refused_with_both_figures(caplog):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)) + 8
    x *= 20 / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(0.9, 1.1, (200, 1))
    books = replace(make_codebooks(), normalize=False, statistics=VectorStatistics.of(x))
    books.embed(x)
    books.embed(1.5 * x[:3])
    assert not caplog.records
    with pytest.raises(
        InvalidInputError,
        match=r"vectors must have lengths as in training, 18\.1 to 21\.9, but 200 of 200 rows are "
        r"off by more than a factor of 2: their median is 0\.\d+\. Prepare them",
    ):
        books.embed(x / 20)
    mixed = np.concatenate([x[:80], x[80:] / 20])
    np.testing.assert_array_equal(books.embed(mixed), books.project(mixed))
    assert "18.1 to 21.9, but 120 of 200 rows are off" in caplog.text
    replace(books, statistics=None).embed(x / 20)
    replace(books, normalize=True).embed(x / 20)
    with pytest.raises(InvalidInputError, match=r"must have a spread .* 200 of 200 rows are off"):
        replace(books, normalize=True).embed(x - x.mean(axis=1, keepdims=True))
    z = books.project(x)
    np.testing.assert_array_equal(books.embed(z / 1000), (z / 1000))


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
    with pytest.raises(InvalidInputError, match="given must be 'features' or 'embeddings', got 'i"):
        square.embed(z, given="images")


def test_vectors_of_other_dtypes_are_converted():
    books = make_codebooks()
    x = np.arange(10).reshape(2, 5)
    for given in (x, x.tolist(), x.astype(np.float16), x.astype(float), torch.from_numpy(x)):
        found = books.embed(given)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, books.embed(x.astype(np.float32)))


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


def test_parts_of_another_kind_are_refused():
    c = unit((2, 4, 3))
    with pytest.raises(InvalidInputError, match="a projection layer must be a Layer, got ndarray"):
        Codebooks(c, [np.eye(6)])
    with pytest.raises(InvalidInputError, match="backbone must be a Backbone, got str"):
        Codebooks(c, backbone="vgg16")
    with pytest.raises(InvalidInputError, match="statistics must be a VectorStatistics, got dict"):
        Codebooks(c, statistics={})
    with pytest.raises(InvalidInputError, match="name of a backbone must be a string, got int"):
        Backbone(3, "ab", {})
    with pytest.raises(InvalidInputError, match="state of a backbone must be a dictionary of arr"):
        Backbone("a", "ab", {}, [np.ones(3)])
    for bad in (np.array([None]), np.ones(2, complex), np.ones(2, np.longdouble), "text"):
        with pytest.raises(InvalidInputError, match="must hold booleans, integers or floats of at"):
            Backbone("a", "ab", {}, {"w": bad})
    with pytest.raises(InvalidInputError, match=r"provenance\['when'\] must be a plain value"):
        Codebooks(c, provenance={"when": object()})
    with pytest.raises(InvalidInputError, match="report must be a dictionary, got list"):
        Codebooks(c, report=[1])


def test_weights_that_nobody_can_change_are_not_copied():
    backbone = make_codebooks().backbone
    again = replace(backbone, name="other")
    assert again.state["w"] is backbone.state["w"]
    writeable = np.ones(3)
    view = writeable.view()
    view.flags.writeable = False
    kept = Backbone("a", "ab", {}, {"w": view, "t": np.ones((2, 3)).T}).state
    writeable[0] = 5
    np.testing.assert_array_equal(kept["w"], [1, 1, 1])
    assert kept["t"].flags.c_contiguous


@pytest.mark.parametrize("name", ["c.npy", "c", "c.json"])
def test_a_name_that_is_no_codebook_file_is_not_written(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"must end in \.safetensors or \.pt, got 'c"):
        make_codebooks().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_does_not_come_back_does_not_take_the_name(tmp_path, monkeypatch, suffix):
    def damaged(path):
        structure, arrays = read(path)
        return {**structure, "provenance": {}}, arrays

    read = codebook_file._tensor_file.read
    if suffix == ".pt":
        content = replace(make_codebooks(), provenance={}).content()
        monkeypatch.setattr(codebook_file, "_read_any", lambda path: content)
    else:
        monkeypatch.setattr(codebook_file._tensor_file, "read", damaged)
    with pytest.raises(ArtifactError, match="was not written: read back, it differed from what"):
        make_codebooks().save(tmp_path / f"c{suffix}")
    assert not list(tmp_path.iterdir())


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
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files_are_refused(tmp_path, keep, suffix):
    path = tmp_path / f"c{suffix}"
    make_codebooks().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=rf"c\{suffix} is (empty|no|damaged)"):
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
        ({"codewords": None}, ": a tensor must be in this place, got NoneType"),
        ({"format": "else"}, "holds no codebooks. It must be a file of mecoq-index"),
    ],
)
def test_changed_files_are_refused(tmp_path, change, message):
    torch.save(torch_content(make_codebooks().content()) | change, tmp_path / "c.pt")
    with pytest.raises(ArtifactError, match=message):
        Codebooks.load(tmp_path / "c.pt")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_flipped_anywhere_never_give_other_codebooks(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
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
        except ArtifactError as exc:
            assert "\n" not in str(exc)  # noqa: PT017
            continue
        assert_same(again, books)


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


# Files of safetensors


def rewrite(path, change, arrays=()):
    """Change the JSON of a file, with a checksum that fits again."""
    structure, found = codebook_file._tensor_file.read(path)
    codebook_file._tensor_file.write(path, {**structure, **change}, {**found, **dict(arrays)})


@pytest.mark.parametrize(
    "change,message",
    [
        ({"version": FORMAT_VERSION + 1}, "has format version 3, but this release reads up to 2"),
        ({"version": "2"}, "has format version 2, but"),
        ({"format": "else"}, "holds no codebooks, but 'else'"),
        ({"fingerprint": "0" * 64}, "differ from the fingerprint written with them"),
        ({"normalize": False}, "differ from the fingerprint written with them"),
        ({"projection": 3}, "is damaged: a part of the codebook file is missing"),
        ({"projection": None}, "is damaged: a part of the codebook file is missing"),
        ({"backbone": {"name": "a"}}, "is damaged: a part of the codebook file is missing"),
        ({"statistics": {"count": 3}}, "is damaged: a part of the codebook file is missing"),
        ({"statistics": {"count": 0, "lengths": [1], "spread": [1]}}, "must be a count above 0"),
        ({"provenance": 3}, "provenance must be a dictionary, got int"),
    ],
)
def test_changed_safetensors_files_are_refused(tmp_path, change, message):
    make_codebooks().save(tmp_path / "c.safetensors")
    rewrite(tmp_path / "c.safetensors", change)
    with pytest.raises(ArtifactError, match=rf"c\.safetensors.*{message}"):
        Codebooks.load(tmp_path / "c.safetensors")


def test_safetensors_files_of_others_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "c.safetensors"
    save_file({"codewords": unit((2, 4, 3))}, path, {"format": "pt"})
    with pytest.raises(ArtifactError, match="holds no codebooks: its metadata has no entry 'mecoq"):
        Codebooks.load(path)
    for text in ("[", "3", "{}", "[" * 9999):
        save_file({"codewords": unit((2, 4, 3))}, path, {"mecoq_index": text})
        with pytest.raises(ArtifactError, match="is damaged: its metadata cannot be read"):
            Codebooks.load(path)
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ArtifactError, match=r"c\.safetensors is damaged, or no \.safetensors file"):
        Codebooks.load(path)


def test_safetensors_are_known_by_content_and_read_by_the_plain_package(tmp_path):
    from safetensors.numpy import load_file

    books = make_codebooks()
    books.save(tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(found["codewords"], books.codewords)
    np.testing.assert_array_equal(found["projection.1.bias"], books.projection[1].bias)
    (tmp_path / "c.safetensors").rename(tmp_path / "c.pt")
    assert_same(Codebooks.load(tmp_path / "c.pt"), books)


def test_weights_can_be_in_a_file_of_their_own(tmp_path):
    books = make_codebooks()
    codebook_file.write_weights(books.backbone.state, tmp_path / "w.safetensors")
    path = tmp_path / "c.safetensors"
    codebook_file.write(books.content(), path, weights_file="w.safetensors")
    assert_same(Codebooks.load(path), books)
    other = {"w": np.zeros(3)}
    codebook_file.write_weights(other, tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match=r"w\.safetensors holds other weights than those that"):
        Codebooks.load(path)
    books.save(tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match=r"w\.safetensors holds no weights, but 'mecoq-index c"):
        Codebooks.load(path)
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"needs the weights of its backbone in .*w\.safetens"):
        Codebooks.load(path)
    codebook_file.write(books.content(), path, weights_file="../w.safetensors")
    with pytest.raises(ArtifactError, match="it names weights outside its folder"):
        Codebooks.load(path)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "bool", "int64", "uint8"]
)
def test_tensors_of_all_types_become_arrays_and_come_back(dtype):
    from mecoq_index._torch_tensors import from_torch, to_torch

    tensor = torch.tensor([[0.5, 1, -2], [3, 0, 1]]).to(getattr(torch, dtype))
    for given in (tensor, tensor.T, tensor[0, 0]):
        again = to_torch(from_torch(given))
        assert again.dtype == given.dtype
        assert again.shape == given.shape
        assert torch.equal(again.double(), given.double())
    with pytest.raises(InvalidInputError, match="tensors of type float8_e8m0fnu cannot be kept"):
        from_torch(torch.zeros(2, dtype=torch.uint8).view(torch.float8_e8m0fnu))
