"""What an export to plain FAISS needs and holds: files that FAISS, NumPy and JSON read."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

faiss = pytest.importorskip("faiss")

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.plain import export_index, write_projection
from mecoq_index.errors import InvalidInputError
from mecoq_index.index.names import Names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faiss.md"
RNG = np.random.default_rng(3)


def layer(out, width):
    return Layer(
        RNG.standard_normal((out, width), dtype=np.float32),
        RNG.standard_normal(out, dtype=np.float32) / 10,
    )


PROJECTIONS = {
    "none": [],
    "linear": [layer(16, 20)],
    "mlp": [layer(24, 20), layer(16, 24)],
    "deep": [layer(24, 20), layer(30, 24), layer(16, 30)],
}


def make_codebooks(projection="mlp", normalize=False):
    c = np.random.default_rng(0).standard_normal((4, 16, 4)).astype(np.float32)
    c /= np.linalg.norm(c, axis=2, keepdims=True)
    return Codebooks(c, PROJECTIONS[projection], normalize=normalize)


def documented_reader():
    """The function of ten lines in docs/faiss.md."""
    [block] = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "def embed(" in block
    ]
    body = block[block.index("def embed(") :].strip().splitlines()
    assert len(body) <= 11
    names = {}
    exec(compile(block, "docs/faiss.md", "exec"), names)
    return names["embed"]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_documented_reader_embeds_as_the_codebooks_do(projection, normalize, tmp_path):
    books = make_codebooks(projection, normalize)
    x = RNG.standard_normal((50, books.P)) * np.logspace(-3, 3, 50)[:, None]
    x[7] = 0
    write_projection(tmp_path / "p.npz", books)
    got = documented_reader()(x, tmp_path / "p.npz")
    want = scoring.block_normalize(books.embed(x, given="features"), 4)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factory", ["MeCoQ", "IVF4,MeCoQ,IDMap2", "HNSW8,MeCoQ"])
@pytest.mark.parametrize("projection,normalize", [("mlp", False), ("mlp", True), ("linear", True)])
def test_an_export_with_its_projection_and_names_answers_by_aqs(
    factory, projection, normalize, tmp_path
):
    books = make_codebooks(projection, normalize)
    x = RNG.standard_normal((200, 20), dtype=np.float32)
    codes = scoring.encode(books.embed(x), books)
    ids = np.arange(200) * (3 if "IVF" in factory else 1)
    engine = FaissEngine.build(books, codes, ids if "IVF" in factory else None, factory=factory)
    names = Names.from_strings([f"bild {i} ü\udcff" for i in range(200)], ids)
    out = tmp_path / "x.faiss"
    note = export_index(out, books, engine=engine, names=names, takes="embeddings")
    assert note == json.loads((tmp_path / "x.faiss.json").read_text(encoding="utf-8"))
    assert (note["names"], note["M"]) == ("x.faiss.names.json", 4)
    assert note["takes"] == "embeddings, float32 (n, 16)"

    index = faiss.read_index(str(out))
    if hasattr(faiss.downcast_index(index), "hnsw"):
        faiss.downcast_index(index).hnsw.efSearch = 200
    leaf = faiss.downcast_index(getattr(index, "index", index))
    if hasattr(leaf, "nprobe"):
        leaf.nprobe = leaf.nlist
    q = documented_reader()(x[:9], tmp_path / note["projection"])
    scores, found = index.search(q, 5)
    if "HNSW" in factory:
        scores = books.M - scores / 2
    true = scoring.aqs(books.embed(x[:9]), codes, books)
    np.testing.assert_allclose(scores, -np.sort(-true, axis=1)[:, :5], rtol=0, atol=1e-5)
    read = json.loads((tmp_path / "x.faiss.names.json").read_text(encoding="ascii"))
    assert read == {str(i): names[i] for i in ids.tolist()}
    assert read[str(found[0, 0])] == names[int(found[0, 0])]


def test_by_default_features_go_in_if_faiss_can_apply_the_projection(tmp_path):
    takes = {}
    for projection in PROJECTIONS:
        for normalize in (False, True):
            out = tmp_path / f"{projection}{normalize}"
            note = export_index(out, make_codebooks(projection, normalize))
            takes[projection] = note["takes"].split(",")[0]
            beside = projection in ("mlp", "deep") or (projection == "none" and normalize)
            assert out.with_name(f"{out.name}.projection.npz").exists() == beside
            assert (note["projection"] is not None) == beside
            assert note["names"] is None
    assert takes == {
        "none": "embeddings",
        "linear": "features",
        "mlp": "embeddings",
        "deep": "embeddings",
    }


def test_features_for_a_projection_that_is_not_linear_are_refused(tmp_path):
    message = (
        r"^FAISS's transforms are linear, but the projection has 2 layers with ReLU between them, "
        r"so features cannot go in\. Export for embeddings, with the projection in a file beside "
        r"the index, or train with --set projection=linear\.$"
    )
    with pytest.raises(InvalidInputError, match=message):
        export_index(tmp_path / "x", make_codebooks(), takes="features")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["", ".json", ".names.json", ".projection.npz"])
def test_all_files_of_an_export_are_checked_before_the_first_is_written(suffix, tmp_path):
    books = make_codebooks()
    there = tmp_path / f"x{suffix}"
    there.write_text("mine")
    with pytest.raises(InvalidInputError, match=rf"x{suffix} exists already\. Choose another"):
        export_index(tmp_path / "x", books)
    assert [path.name for path in tmp_path.iterdir()] == [there.name]
    assert there.read_text() == "mine"
    there.unlink()
    there.mkdir()
    with pytest.raises(InvalidInputError, match=rf"x{suffix} is a folder, but a file is to be wri"):
        export_index(tmp_path / "x", books, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [there.name]


def test_overwriting_leaves_no_file_of_the_older_export(tmp_path):
    books = make_codebooks()
    engine = FaissEngine.build(books, np.zeros((3, 4), np.uint8))
    export_index(tmp_path / "x", books, engine=engine, names=Names.from_strings(["a", "b", "c"]))
    assert len(list(tmp_path.iterdir())) == 4
    export_index(tmp_path / "x", make_codebooks("linear"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.json"]
    assert faiss.read_index(str(tmp_path / "x")).d == 20


def test_many_names_are_written_in_parts(tmp_path, monkeypatch):
    from mecoq_index.engines.faiss import plain

    monkeypatch.setattr(plain, "_NAMES_AT_ONCE", 2)
    books, names = make_codebooks("none"), list("abcde")
    engine = FaissEngine.build(books, np.zeros((5, 4), np.uint8))
    export_index(tmp_path / "x", books, engine=engine, names=Names.from_strings(names))
    read = json.loads((tmp_path / "x.names.json").read_text())
    assert list(read.items()) == [(str(i), name) for i, name in enumerate(names)]
