import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mecoq_index.codebooks import Backbone, Codebooks
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index.bundle import Bundle, Content, update_bundle, write_bundle
from mecoq_index.index.columns import ItemColumns
from mecoq_index.index.manifest import checksum
from mecoq_index.index.names import Names
from mecoq_index.index.stored import open_bundle, save_bundle, save_changes


def make_codebooks(seed=0):
    c = np.random.default_rng(seed).standard_normal((2, 4, 3))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


@pytest.fixture
def engine():
    return NumpyEngine.build(make_codebooks(), np.array([[0, 1], [2, 3]], np.uint8))


@pytest.fixture
def path(engine, tmp_path):
    save_bundle(engine, tmp_path / "x.mecoq", names=["a.jpg", "ü.jpg"])
    return tmp_path / "x.mecoq"


def test_a_bundle_holds_all_that_a_search_needs(path):
    assert sorted(p.name for p in path.iterdir()) == [
        "codebooks.safetensors",
        "codes.npz",
        "manifest.json",
        "names.npz",
    ]
    bundle = Bundle.open(path)
    assert list(bundle.names) == ["a.jpg", "ü.jpg"]
    assert bundle.codebooks.fingerprint == make_codebooks().fingerprint
    assert bundle.manifest["description"]["items"] == 2
    assert bundle.manifest["versions"]["numpy"] == np.__version__


def test_plain_faiss_reads_the_index_file(tmp_path):
    faiss = pytest.importorskip("faiss")
    from mecoq_index.engines.faiss.engine import FaissEngine

    books = make_codebooks()
    save_bundle(FaissEngine.build(books, np.zeros((5, 2), np.uint8)), tmp_path / "x.mecoq")
    assert faiss.read_index(str(tmp_path / "x.mecoq" / "index.faiss")).ntotal == 5


@pytest.mark.parametrize("name", ["codes.npz", "codebooks.safetensors", "names.npz"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_file_is_refused_by_name(path, name, damage):
    file = path / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "truncate":
        del content[-3:]
    elif damage == "empty":
        content.clear()
    file.write_bytes(content)
    if damage == "remove":
        file.unlink()
    with pytest.raises(ArtifactError, match=rf"{name} (is damaged|is empty|does not exist)"):
        open_bundle(path)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"version": 99}, "has format version 99, but this release reads up to 3"),
        ({"format": "other"}, "is no bundle of mecoq-index"),
        ({"files": {}}, "is damaged: a part of it is missing"),
        ({"files": []}, "is damaged: a part of it is missing"),
        (
            {"files": {"codes.npz": 1, "codebooks.safetensors": 1}},
            "is damaged: a part of it is missing",
        ),
        ({"index_file": ["codes.npz"]}, "is damaged: a part of it is missing"),
        ({"engine": 1}, "is damaged: a part of it is missing"),
        ({"backbone_file": "backbone.safetensors"}, "is damaged: a part of it is missing"),
        ({"backbone_file": ["codes.npz"]}, "is damaged: a part of it is missing"),
        ({"index_file": "../secret"}, "is damaged: a part of it is missing"),
        ({"fingerprint": "0"}, "built with other codebooks than the ones inside it"),
    ],
)
def test_a_foreign_or_newer_manifest_is_refused(path, change, message):
    manifest = json.loads((path / "manifest.json").read_text()) | change
    # Signed anew, so that it is not the checksum that is noticed.
    (path / "manifest.json").write_text(json.dumps(manifest | {"checksum": checksum(manifest)}))
    with pytest.raises(ArtifactError, match=message):
        Bundle.open(path)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_manifest_that_is_no_json_object_is_refused(path, text):
    (path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest.json is (damaged|empty)|is no bundle of m"):
        Bundle.open(path)


def test_other_folders_are_no_bundles(tmp_path):
    with pytest.raises(ArtifactError, match=r"has no manifest.json"):
        Bundle.open(tmp_path)
    with pytest.raises(ArtifactError, match="must be the folder that build wrote"):
        Bundle.open(tmp_path / "missing")


def test_other_codebooks_are_refused(path):
    bundle = Bundle.open(path)
    bundle.check_codebooks(make_codebooks())
    with pytest.raises(ArtifactError, match="was built with other codebooks"):
        bundle.check_codebooks(make_codebooks(seed=1))


def test_an_existing_bundle_is_replaced_only_when_told(engine, path):
    with pytest.raises(InvalidInputError, match=r"x\.mecoq exists already"):
        save_bundle(engine, path)
    engine.add(np.zeros((1, 2), np.uint8))
    save_bundle(engine, path, overwrite=True)
    assert len(open_bundle(path)[0]) == 3
    assert [p.name for p in path.parent.iterdir()] == ["x.mecoq"]


def test_a_folder_that_is_no_bundle_is_never_overwritten(engine, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious")
    with pytest.raises(
        InvalidInputError, match="exists and is no bundle, so it is not overwritten"
    ):
        save_bundle(engine, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "precious"


def test_a_failing_save_leaves_nothing_behind(engine, path, monkeypatch):
    def fail(path):
        raise OSError("disk full")

    monkeypatch.setattr(engine, "save", fail)
    for target, overwrite in ((path, True), (path.with_name("new.mecoq"), False)):
        with pytest.raises(OSError, match="disk full"):
            save_bundle(engine, target, overwrite=overwrite)
    assert [p.name for p in path.parent.iterdir()] == ["x.mecoq"]
    assert len(open_bundle(path)[0]) == 2


def test_names_must_be_one_an_item(engine, tmp_path):
    with pytest.raises(InvalidInputError, match="names must be one an item, 2 in all, got 1"):
        save_bundle(engine, tmp_path / "y.mecoq", names=["a"])


def test_a_folder_with_a_manifest_of_something_else_is_never_overwritten(engine, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "a web app"}')
    (tmp_path / "app" / "index.html").write_text("precious")
    with pytest.raises(InvalidInputError, match="exists and is no bundle, so it is not overwr"):
        save_bundle(engine, tmp_path / "app", overwrite=True)
    assert (tmp_path / "app" / "index.html").read_text() == "precious"


def test_a_bundle_with_files_of_somebody_else_is_never_overwritten(engine, path):
    (path / "notes.txt").write_text("precious")
    with pytest.raises(InvalidInputError, match=r"files that are not the bundle's, .*: notes\.txt"):
        save_bundle(engine, path, overwrite=True)
    assert (path / "notes.txt").read_text() == "precious"
    open_bundle(path)


def test_names_are_refused_where_ids_are_not_their_places(tmp_path):
    codes = np.array([[0, 1], [2, 3], [1, 1]], np.uint8)
    removed = NumpyEngine.build(make_codebooks(), codes)
    removed.remove(np.array([0]))
    own = NumpyEngine.build(make_codebooks(), codes[:2], np.array([7, 9]))
    for engine in (removed, own):
        with pytest.raises(InvalidInputError, match=r"names are kept by id, .* for the ids 0\.\.1"):
            save_bundle(engine, tmp_path / "y.mecoq", names=["a", "b"])
        save_bundle(engine, tmp_path / "y.mecoq", overwrite=(tmp_path / "y.mecoq").exists())


def test_names_of_files_that_are_no_utf_8_come_back(engine, tmp_path):
    names = ["a\udcff.jpg", 'quo"te\\\n.jpg']
    save_bundle(engine, tmp_path / "y.mecoq", names=names)
    assert list(open_bundle(tmp_path / "y.mecoq")[1].names) == names


def test_names_must_be_strings(engine, tmp_path):
    with pytest.raises(InvalidInputError, match="names must be strings, got int"):
        save_bundle(engine, tmp_path / "y.mecoq", names=["a", 3])
    assert not list(tmp_path.iterdir())


def with_weights(seed=0):
    state = {"conv": np.random.default_rng(seed).standard_normal(20_000).astype(np.float32)}
    return replace(make_codebooks(), backbone=Backbone("module:net", "ab" * 32, {}, state))


def test_the_weights_of_a_backbone_are_written_once(tmp_path):
    path, books = tmp_path / "x.mecoq", with_weights()
    save_bundle(NumpyEngine.build(books, np.zeros((2, 2), np.uint8)), path)
    before = (path / "backbone.safetensors").stat()
    assert before.st_size > 80_000 > 10 * (path / "codebooks.safetensors").stat().st_size
    for generation in (1, 2):
        engine, _ = open_bundle(path)
        engine.add(np.zeros((1, 2), np.uint8))
        save_bundle(engine, path, overwrite=True)
        opened = Bundle.open(path)
        assert sorted(p.name for p in path.iterdir() if p.name != ".lock") == [
            "backbone.safetensors", f"codebooks-{generation}.safetensors",
            f"codes-{generation}.npz", "manifest.json",
        ]  # fmt: skip
        assert (path / "backbone.safetensors").stat().st_ino == before.st_ino
        assert (path / "backbone.safetensors").stat().st_mtime_ns == before.st_mtime_ns
        assert opened.codebooks.backbone.state_sha256 == books.backbone.state_sha256
    shutil.move(path, tmp_path / "y.mecoq")
    again = Codebooks.load(tmp_path / "y.mecoq" / "codebooks-2.safetensors")
    assert again.backbone.state_sha256 == books.backbone.state_sha256


@pytest.mark.parametrize("change", ["other", "damaged", "missing", "none"])
def test_a_file_of_weights_that_is_another_or_damaged_is_not_kept(tmp_path, change):
    path, books = tmp_path / "x.mecoq", with_weights()
    save_bundle(NumpyEngine.build(books, np.zeros((2, 2), np.uint8)), path)
    file = path / "backbone.safetensors"
    if change == "other":
        books = with_weights(seed=1)
    elif change == "damaged":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    elif change == "missing":
        file.unlink()
    else:
        books = make_codebooks()
    save_bundle(NumpyEngine.build(books, np.zeros((2, 2), np.uint8)), path, overwrite=True)
    found = Bundle.open(path).codebooks.backbone
    assert found is None or found.state_sha256 == books.backbone.state_sha256
    weights = [p.name for p in path.iterdir() if p.name.startswith("backbone")]
    assert weights == ([] if change == "none" else ["backbone-1.safetensors"])


def test_damaged_weights_are_refused_by_name(tmp_path):
    path = tmp_path / "x.mecoq"
    save_bundle(NumpyEngine.build(with_weights(), np.zeros((2, 2), np.uint8)), path)
    file = path / "backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"backbone\.safetensors is damaged: it differs from"):
        Bundle.open(path)


# What somebody planted, or a manifest that was signed anew


def sign(path, **change):
    """Change the manifest of a bundle, with a checksum that fits."""
    manifest = json.loads((path / "manifest.json").read_text()) | change
    (path / "manifest.json").write_text(json.dumps(manifest | {"checksum": checksum(manifest)}))


def listed(path, name, content=b"dear"):
    """List one more file in the manifest, as undamaged."""
    files = dict(Bundle.read_manifest(path)["files"])
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    sign(path, files=files)


def change(path, names=("c.jpg",)):
    engine, bundle = open_bundle(path)
    ids = np.arange(2, 2 + len(names))
    engine.add(np.zeros((len(names), 2), np.uint8), ids)
    save_changes(engine, bundle, Names.from_strings([*bundle.names, *names]))


@pytest.mark.parametrize(
    "name",
    ["diary.txt", ".bashrc", "../diary.txt", "/etc/passwd", "..", ".", "", "a\\b", "NUL", "C:x",
     "names-1-2.npz", "Names.npz", "names-1.npz", "codes-7.npz", "manifest.json", ".lock",
     "names.npz.bak", "codebooks.pt", "columns.npz", "names-\u0661.npz"],
)  # fmt: skip
def test_a_manifest_names_no_file_beyond_one_for_each_purpose(path, name):
    listed(path, name)
    (path / "diary.txt").write_text("dear")
    for act in (Bundle.open, open_bundle, change):
        with pytest.raises(ArtifactError, match="must name one file for each purpose, as bundles"):
            act(path)
    assert (path / "diary.txt").read_text() == "dear"


@pytest.mark.parametrize(
    "purpose,name",
    [
        ("index_file", "diary.txt"), ("index_file", "NUL.txt"), ("index_file", "com1"),
        ("index_file", "a..b"), ("index_file", "a."), ("index_file", ".a"), ("index_file", "a b"),
        ("index_file", "Names.npz"), ("index_file", "MANIFEST-1.json"), ("index_file", "..\\a"),
        ("index_file", "a:b"), ("index_file", "a\nb"), ("index_file", "ü.npz"),
        ("index_file", "names.npz"), ("index_file", "codes-3.npz"),
        ("names_file", "diary.txt"), ("names_file", "codes.npz"), ("codebooks_file", "diary.txt"),
        ("columns_file", "diary.txt"), ("backbone_file", "diary.txt"),
    ],
)  # fmt: skip
def test_each_purpose_has_a_file_of_a_name_of_its_own(path, purpose, name):
    listed(path, name)
    sign(path, **{purpose: name})
    with pytest.raises(ArtifactError, match=r"for each purpose|is damaged: the file of the numpy"):
        if name != "/":
            (path / name).write_bytes(b"dear")
        open_bundle(path)
    assert (path / name).read_bytes() == b"dear"


@pytest.mark.parametrize(
    "change_of",
    [{"generation": -1}, {"generation": True}, {"generation": 10**30}, {"generation": "1"}],
)
def test_a_manifest_of_an_impossible_generation_is_refused(path, change_of):
    sign(path, **change_of)
    with pytest.raises(
        ArtifactError, match=r"is damaged.*: (a part of it is missing|it holds an integer)"
    ):
        open_bundle(path)


@pytest.mark.parametrize(
    "recorded", [{"bytes": "4"}, {"bytes": 4.0}, {"sha256": 3}, {"bytes": None}]
)
def test_a_manifest_with_odd_records_is_refused(path, recorded):
    files = dict(Bundle.read_manifest(path)["files"])
    files["names.npz"] = files["names.npz"] | recorded
    sign(path, files=files)
    with pytest.raises(ArtifactError, match="is damaged: a part of it is missing"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["manifest.json", "codes.npz", "codebooks.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_file_of_a_bundle_is_a_file_of_its_own(path, tmp_path, name, kind):
    file = path / name
    file.rename(tmp_path / "elsewhere")
    if kind == "link":
        file.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(file) if kind == "pipe" else file.mkdir()
    with pytest.raises(ArtifactError, match=rf"{name} must be a file, but it is a {kind}"):
        open_bundle(path)


def test_a_bundle_may_lie_behind_a_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    change(tmp_path / "link")
    assert len(open_bundle(path)[0]) == 3
    with pytest.raises(InvalidInputError, match=r"must not be a link, but it leads to"):
        save_bundle(open_bundle(path)[0], tmp_path / "link", overwrite=True)


@pytest.mark.parametrize("target", ["victim", "absent"])
def test_a_change_writes_through_no_link(path, tmp_path, target):
    (tmp_path / "victim").write_text("precious")
    names = ("names-1.npz", "codes-1.npz", "codebooks-1.safetensors", "columns-1.npz")
    for name in names:
        (path / name).symlink_to(tmp_path / target)
    change(path)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "absent").exists()
    assert list(open_bundle(path)[1].names) == ["a.jpg", "ü.jpg", "c.jpg"]
    assert not any(file.is_symlink() for file in path.iterdir())


def test_a_plug_in_does_not_write_through_a_link_either(tmp_path):
    def content(text):
        return Content("theirs", "graph.bin", lambda file: file.write_text(text), make_codebooks(),
                       {}, Names.from_strings([]), ItemColumns.none())  # fmt: skip

    (tmp_path / "victim").write_text("precious")
    write_bundle(tmp_path / "y", content("0"))
    (tmp_path / "y" / "graph-1.bin").symlink_to(tmp_path / "victim")
    update_bundle(Bundle.open(tmp_path / "y"), content("1"))
    assert (tmp_path / "victim").read_text() == "precious"
    assert Bundle.open(tmp_path / "y").index_path.read_text() == "1"


def test_a_folder_at_the_name_of_the_next_generation_is_not_removed(path):
    (path / "names-1.npz").mkdir()
    (path / "names-1.npz" / "mine").touch()
    with pytest.raises(OSError, match=r"names-1\.npz"):
        change(path)
    assert (path / "names-1.npz" / "mine").exists()
    assert len(open_bundle(path)[0]) == 2


def test_a_change_that_is_complete_does_not_fail_because_of_what_it_cannot_tidy_up(path):
    (path / "names-0.npz").mkdir()  # called as a file of ours
    change(path)
    assert len(open_bundle(path)[0]) == 3


def test_a_file_that_only_a_manifest_calls_the_bundles_is_foreign(path, engine):
    """The manifest of a plug-in that is not installed may name anything."""
    (path / "codes.npz").rename(path / "diary.txt")
    files = dict(Bundle.read_manifest(path)["files"])
    files["diary.txt"] = files.pop("codes.npz")
    sign(path, engine="theirs", index_file="diary.txt", files=files)
    with pytest.raises(InvalidInputError, match=r"files that are not the bundle's.*: diary\.txt"):
        save_bundle(engine, path, overwrite=True)
    assert (path / "diary.txt").exists()
