"""Files written by earlier releases stay readable, with the same content."""

import hashlib
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from on_disk import add_items

from mecoq_index import codebook_file
from mecoq_index.codebooks import Codebooks
from mecoq_index.errors import ArtifactError
from mecoq_index.index import bundle
from mecoq_index.index.stored import open_bundle, save_bundle

DATA = Path(__file__).parent / "golden"
QUERY = np.array([[2, 0, 0, -1]], np.float32)


def test_there_are_files_of_every_version():
    found = sorted(path.name for path in DATA.iterdir() if "-v" in path.name)
    assert found == sorted([
        *(f"codebooks-v{version + 1}.pt" for version in range(codebook_file.FORMAT_VERSION)),
        "codebooks-v2.safetensors",
        *(f"index-v{version + 1}.mecoq" for version in range(bundle.FORMAT_VERSION)),
    ])  # fmt: skip


def golden(name):
    return runpy.run_path(str(DATA / "make_golden.py"))[name]()


@pytest.mark.parametrize("name", ["codebooks-v2.pt", "codebooks-v2.safetensors", "index-v3.mecoq"])
def test_codebooks_of_version_2_are_read(name):
    want = golden("make_current_codebooks")
    if name.startswith("index"):
        books = bundle.Bundle.open(DATA / name).codebooks
    else:
        books = Codebooks.load(DATA / name)
    assert books.fingerprint == want.fingerprint
    assert books.fingerprint.startswith("c4db69bcbc1fb8b1")
    assert books.backbone.state_sha256 == want.backbone.state_sha256
    assert books.backbone.state_sha256.startswith("b476f508bf82e0d2")
    assert list(books.backbone.state) == ["w", "steps", "b"]
    assert books.backbone.base_sha256 == "cd" * 32
    assert books.normalize
    assert books.statistics == want.statistics
    assert books.report == {"recall": 0.5, "worst": ["a", None, True]}
    assert books.provenance == {"seed": 3}


def test_codebooks_of_version_1_are_read():
    want = golden("make_codebooks")
    books = Codebooks.load(DATA / "codebooks-v1.pt")
    assert books.fingerprint == want.fingerprint
    assert books.fingerprint.startswith("9539e8236aae39ab")
    np.testing.assert_array_equal(books.codewords, want.codewords)
    assert books.backbone.transform == {"resize": 8, "crop": 8}
    assert books.provenance == {"seed": 3}
    np.testing.assert_array_equal(books.backbone.state["w"], np.ones((2, 2)))
    assert not books.normalize
    assert books.statistics is None
    assert books.report == {}


@pytest.mark.parametrize(
    "version,ids,names",
    [
        (1, [0, 2, 1], ["a.jpg", "b.jpg", "c.jpg"]),
        (2, [10, 30, 7], ["b.jpg", "a.jpg", "ü.jpg"]),
        (3, [10, 30, 7], ["b.jpg", "a.jpg", "ü.jpg"]),
    ],
)
def test_an_index_of_every_version_is_read_and_searched(version, ids, names):
    engine, opened = open_bundle(DATA / f"index-v{version}.mecoq")
    hits = engine.search(QUERY, 3)
    assert list(opened.names) == names
    np.testing.assert_array_equal(hits.ids, [ids])
    np.testing.assert_allclose(hits.scores, [[1, 0, -1]], atol=1e-6)
    assert opened.manifest["version"] == version


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_index_of_every_version_can_be_changed_and_is_of_the_current_one_then(tmp_path, version):
    path = tmp_path / "x.mecoq"
    shutil.copytree(DATA / f"index-v{version}.mecoq", path)
    names = list(open_bundle(path)[1].names)
    [added] = add_items(path, np.array([[0, 0]], np.uint8), ["new.jpg"])
    engine, opened = open_bundle(path)
    assert list(opened.names) == [*names, "new.jpg"]
    assert opened.manifest["version"] == bundle.FORMAT_VERSION
    assert engine.search(QUERY, 4).ids[0, 0] == added
    weights = "backbone.safetensors" if version == 3 else "backbone-1.safetensors"
    assert sorted(p.name for p in path.iterdir()) == sorted([
        ".lock", "codebooks-1.safetensors", "codes-1.npz", "manifest.json", "names-1.npz", weights,
    ])  # fmt: skip
    save_bundle(engine, path, names=opened.names, overwrite=True)
    assert open_bundle(path)[1].generation == 2


@pytest.mark.parametrize("text", ["{", "3", '["a", "a", "b"]', '["a", 1, "b"]', '"abc"'])
def test_an_index_of_version_1_with_malformed_names_is_refused(tmp_path, text):
    path = tmp_path / "x.mecoq"
    shutil.copytree(DATA / "index-v1.mecoq", path)
    (path / "names.json").write_text(text)
    manifest = json.loads((path / "manifest.json").read_text())
    checksum = hashlib.sha256(text.encode()).hexdigest()
    manifest["files"]["names.json"] = {"bytes": len(text), "sha256": checksum}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"names\.json is damaged: "):
        open_bundle(path)


def test_an_index_of_version_2_cannot_pass_for_one_of_version_1(tmp_path):
    path = tmp_path / "x.mecoq"
    shutil.copytree(DATA / "index-v2.mecoq", path)
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"version": 2', '"version": 1'))
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged: it differs from its own"):
        open_bundle(path)
