"""Adding to and removing from bundles on disk, with others at the same bundle."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("faiss")

from on_disk import add_items, remove_items

from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index import bundle as bundle_module
from mecoq_index.index.bundle import Bundle, Content, update_bundle, write_bundle
from mecoq_index.index.columns import ItemColumns
from mecoq_index.index.names import Names
from mecoq_index.index.stored import open_bundle, save_bundle, save_changes

REMOVABLE = ["numpy", "MeCoQ,IDMap2", "IVF4,MeCoQ"]
LAYOUTS = [*REMOVABLE, "MeCoQ", "MeCoQ4x4fs", "IVF4,MeCoQ4x4fs", "IVF4,MeCoQ4x4fs,Refine(MeCoQ)"]


def make_codebooks(seed=0):
    c = np.random.default_rng(seed).standard_normal((4, 16, 4))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


BOOKS = make_codebooks()
CODES = np.random.default_rng(2).integers(16, size=(200, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def make(path, layout="numpy", n=100, *, ids=None, names=()):
    if layout == "numpy":
        engine = NumpyEngine.build(BOOKS, CODES[:n], ids)
    else:
        engine = FaissEngine.build(BOOKS, CODES[:n], ids, factory=layout)
    save_bundle(engine, path, names=names)
    return path


def held(path):
    """Codes by id, and names."""
    engine, bundle = open_bundle(path)
    ids = np.sort(engine.ids())
    return dict(zip(ids.tolist(), engine.codes(ids).tolist(), strict=True)), list(bundle.names)


def by_id(codes, ids):
    return dict(zip([int(i) for i in ids], codes.tolist(), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_added_items_have_the_next_numbers(tmp_path, layout):
    path = make(tmp_path / "x", layout)
    np.testing.assert_array_equal(add_items(path, CODES[100:150]), np.arange(100, 150))
    np.testing.assert_array_equal(add_items(path, CODES[150:]), np.arange(150, 200))
    assert held(path) == (by_id(CODES, range(200)), [])
    assert Bundle.open(path).manifest["description"]["items"] == 200
    assert Bundle.open(path).generation == 2


@pytest.mark.parametrize("layout", ["numpy", "MeCoQ,IDMap2", "IVF4,MeCoQ", "IVF4,MeCoQ4x4fs"])
def test_added_items_have_the_ids_given(tmp_path, layout):
    ids = np.random.default_rng(3).permutation(1000)[:200].astype(np.int64)
    path = make(tmp_path / "x", layout, ids=ids[:100])
    np.testing.assert_array_equal(add_items(path, CODES[100:], ids[100:]), ids[100:])
    assert held(path) == (by_id(CODES, ids), [])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_added_items_have_the_names_given(tmp_path, layout):
    names = [f"{i}.jpg" for i in range(200)]
    path = make(tmp_path / "x", layout, names=names[:100])
    add_items(path, CODES[100:], names[100:])
    assert held(path) == (by_id(CODES, range(200)), names)


@pytest.mark.parametrize("layout", REMOVABLE)
def test_removed_items_are_gone_with_their_names(tmp_path, layout):
    names = [f"{i}.jpg" for i in range(100)]
    path = make(tmp_path / "x", layout, names=names)
    assert remove_items(path, ["3.jpg", "99.jpg", "3.jpg"]) == 2
    assert remove_items(path, np.array([5, 3, 1000])) == 1
    left = [i for i in range(100) if i not in (3, 5, 99)]
    assert held(path) == (by_id(CODES[left], left), [names[i] for i in left])
    added = add_items(path, CODES[:1], ["3.jpg"])
    np.testing.assert_array_equal(Bundle.open(path).names.ids_of(["3.jpg"]), added)


def test_nothing_is_written_when_nothing_is_removed(tmp_path):
    path = make(tmp_path / "x")
    assert remove_items(path, np.array([100, 200])) == 0
    assert Bundle.open(path).generation == 0


def test_a_bundle_may_become_empty_and_be_filled_again_otherwise(tmp_path):
    path = make(tmp_path / "x", names=[str(i) for i in range(100)])
    assert remove_items(path, np.arange(100)) == 100
    assert held(path) == ({}, [])
    add_items(path, CODES[:3], np.array([7, 8, 9]))
    assert held(path) == (by_id(CODES[:3], [7, 8, 9]), [])


@pytest.mark.parametrize(
    "named,ids,message",
    [
        (True, None, "have names, so new items need names too"),
        (True, np.arange(300, 400), "have names, so new items need names too"),
        (False, ["a"] * 100, "have no names, so new items cannot have any"),
        (True, ["a"], "names must be one an item, 100 in all, got 1"),
        (True, ["a"] * 100, "names must be distinct, but 'a' occurs more than once"),
        (True, [str(i) for i in range(99, 199)], "names must be new, but 1 are taken"),
        (False, np.arange(99, 199), "ids must be new, but 1 are taken already, for instance 99"),
        (False, np.arange(99), r"ids must be one an item, 100 in all, got 99"),
        (False, np.arange(100) - 1, "ids must not be negative"),
    ],
)  # fmt: skip
def test_ids_that_do_not_fit_are_refused_and_change_nothing(tmp_path, named, ids, message):
    path = make(tmp_path / "x", names=[str(i) for i in range(100)] if named else ())
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(InvalidInputError, match=message):
        add_items(path, CODES[100:], ids)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


def test_codes_that_do_not_fit_are_refused(tmp_path):
    path = make(tmp_path / "x")
    for codes, message in (
        (CODES[:, :3], r"codes must have shape \(n, 4\), got a width of 3"),
        (CODES + np.uint8(16), "codes must be below K=16"),
        (CODES.tolist(), "vectors must be features of width P=16 .* got width 4"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            add_items(path, codes)
    assert Bundle.open(path).generation == 0


def test_items_that_cannot_be_removed_are_refused(tmp_path):
    named = make(tmp_path / "named", names=[str(i) for i in range(100)])
    for path, ids, message in (
        (make(tmp_path / "x"), ["a"], "have no names. Give their ids as integers"),
        (
            named,
            ["a", "5"],
            "those of items, but 1 of 2 are not, the first of them 'a'",
        ),
        (make(tmp_path / "y", "MeCoQ4x4fs"), np.array([5]), "cannot remove items. Build with"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            remove_items(path, ids)
        assert Bundle.open(path).generation == 0


# Others at the same bundle


def test_a_bundle_that_was_changed_since_it_was_opened_is_refused(tmp_path):
    path = make(tmp_path / "x")
    engine, bundle = open_bundle(path)
    add_items(path, CODES[100:110])
    engine.add(CODES[150:])
    with pytest.raises(ArtifactError, match="was changed by another program after it was opened"):
        save_changes(engine, bundle, bundle.names)
    assert held(path) == (by_id(CODES[:110], range(110)), [])


def test_a_bundle_that_was_made_anew_since_it_was_opened_is_refused(tmp_path):
    path = make(tmp_path / "x")
    engine, bundle = open_bundle(path)
    path.rename(tmp_path / "old")
    make(path, n=50)  # of the same generation
    engine.add(CODES[150:])
    with pytest.raises(ArtifactError, match="was changed by another program after it was opened"):
        save_changes(engine, bundle, bundle.names)
    assert held(path) == (by_id(CODES[:50], range(50)), [])


def test_a_bundle_that_stays_locked_is_refused(tmp_path, monkeypatch):
    from filelock import FileLock

    path = make(tmp_path / "x")
    monkeypatch.setattr(bundle_module, "_LOCK_SECONDS", 0.1)
    with FileLock(path / ".lock"):
        with pytest.raises(ArtifactError, match=r"another program is at work in .*x\. Try again"):
            add_items(path, CODES[100:])
        assert len(open_bundle(path)[0]) == 100  # readers need no lock
    add_items(path, CODES[100:])


def test_a_second_writer_waits_for_the_first_and_is_refused(tmp_path, monkeypatch):
    path = make(tmp_path / "x")
    inside, on = threading.Event(), threading.Event()
    commit = bundle_module._commit

    def slow_commit(*args, **options):
        inside.set()
        on.wait(10)
        commit(*args, **options)

    monkeypatch.setattr(bundle_module, "_commit", slow_commit)
    first = threading.Thread(target=add_items, args=(path, CODES[100:150]))
    first.start()
    assert inside.wait(10)
    errors = []

    def second():
        try:
            add_items(path, CODES[150:])
        except ArtifactError as exc:
            errors.append(str(exc))

    other = threading.Thread(target=second)
    other.start()
    other.join(0.2)
    assert other.is_alive()
    on.set()
    first.join(10)
    other.join(10)
    assert len(errors) == 1
    assert "was changed by another program" in errors[0]
    assert len(open_bundle(path)[0]) == 150


ADDER = """
import sys
import numpy as np
from on_disk import add_items
from mecoq_index.errors import ArtifactError

path, first = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 15):
    try:
        add_items(path, np.full((1, 4), number % 16, np.uint8), np.array([number]))
        print(number, flush=True)
    except ArtifactError as exc:
        assert "was changed by another program" in str(exc), exc
"""


def test_no_item_that_was_reported_as_added_is_lost_when_two_programs_add_at_once(tmp_path):
    path = make(tmp_path / "x")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    programs = [
        subprocess.Popen([sys.executable, "-c", ADDER, str(path), str(first)], text=True,
                         env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for first in (1000, 2000)
    ]  # fmt: skip
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    reported = [int(line) for program in programs for line in program.communicate()[0].split()]
    assert [program.returncode for program in programs] == [0, 0]
    found, _ = held(path)
    assert set(found) - set(range(100)) == set(reported)
    assert all(found[number] == [number % 16] * 4 for number in reported)
    assert len(reported) >= 10
    assert Bundle.open(path).generation == len(reported)


@pytest.mark.parametrize("layout", ["numpy", "IVF4,MeCoQ"])
def test_a_reader_never_fails_while_a_writer_commits(tmp_path, layout):
    path = make(tmp_path / "x", layout, names=[str(i) for i in range(100)])
    failures, sizes, done = [], [], threading.Event()

    def read():
        while not done.is_set():
            try:
                engine, bundle = open_bundle(path)
                again = Bundle.open(path)
            except Exception as exc:  # any failure of a reader is the failure of this test
                failures.append(exc)
                return
            sizes.append((len(engine), len(bundle.names)))
            assert len(again.names) >= len(engine)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100, 130):
        add_items(path, CODES[number : number + 1], [str(number)])
    done.set()
    reader.join(20)
    assert failures == []
    assert all(n == named for n, named in sizes)
    assert [n for n, _ in sizes] == sorted(n for n, _ in sizes)
    assert len(open_bundle(path)[0]) == 130


@pytest.mark.parametrize("cls,name", [(Bundle, "_read"), (NumpyEngine, "open")])
def test_a_reader_that_is_overtaken_between_two_files_starts_again(
    tmp_path, monkeypatch, cls, name
):
    path = make(tmp_path / "x")
    original, calls = getattr(cls, name), []

    def overtaken(*args):
        calls.append(args)
        if len(calls) == 1:
            add_items(path, CODES[100:])
        return original(*args)

    monkeypatch.setattr(cls, name, overtaken)
    assert len(open_bundle(path)[0]) == 200
    assert len(calls) == 3  # the first, that of add_items, and the second


# Interrupted


def leave_something_behind(path):
    """What a commit leaves that was killed before the manifest was written."""
    for name in ("codes-1.npz", "index-7.faiss", ".codes-1.npz.0a1b2c3d.partial",
                 ".manifest.json.0a1b2c3d.partial", "names-1.npz"):  # fmt: skip
        (path / name).write_bytes(b"half")


def test_what_an_interrupted_change_has_left_is_passed_over_and_removed_by_the_next(tmp_path):
    path = make(tmp_path / "x")
    leave_something_behind(path)
    assert held(path) == (by_id(CODES[:100], range(100)), [])
    add_items(path, CODES[100:])
    assert sorted(p.name for p in path.iterdir()) == [
        ".lock", "codebooks-1.safetensors", "codes-1.npz", "manifest.json",
    ]  # fmt: skip
    leave_something_behind(path)
    save_bundle(NumpyEngine.build(BOOKS, CODES), path, overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == [
        ".lock", "codebooks-2.safetensors", "codes-2.npz", "manifest.json",
    ]  # fmt: skip


def test_a_change_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    path = make(tmp_path / "x", names=[str(i) for i in range(100)])
    before = {p.name: p.read_bytes() for p in path.iterdir()}

    def full(self, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Names, "save", full)
    with pytest.raises(OSError, match="disk full"):
        add_items(path, CODES[100:], [str(i) for i in range(100, 200)])
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.name != ".lock"} == before


def test_a_change_counts_from_the_moment_at_which_the_manifest_is_replaced(tmp_path, monkeypatch):
    path, replace = make(tmp_path / "x"), os.replace

    def stop(source, target):
        if os.path.basename(target) == "manifest.json":
            raise OSError("stopped")
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(OSError, match="stopped"):
        add_items(path, CODES[100:])
    after = {p.name: p.read_bytes() for p in path.iterdir()}
    assert {name: after[name] for name in before} == before
    assert held(path) == (by_id(CODES[:100], range(100)), [])


def test_files_of_somebody_else_in_a_bundle_are_never_removed(tmp_path):
    path = make(tmp_path / "x")
    mine = ["index-1.txt", "names.pt", "codes.faiss", "notes", "manifest.json.bak", ".hidden"]
    for name in mine:
        (path / name).write_text("precious")
    add_items(path, CODES[100:])
    assert all((path / name).read_text() == "precious" for name in mine)


def test_files_of_an_engine_of_somebody_else_do_not_pile_up(tmp_path):
    def content(text):
        return Content("theirs", "graph.bin", lambda file: file.write_text(text), BOOKS, {},
                       Names.from_strings([]), ItemColumns.none())  # fmt: skip

    path = tmp_path / "x"
    write_bundle(path, content("0"))
    update_bundle(Bundle.open(path), content("1"))
    (path / "graph-2.bin").write_text("half")
    update_bundle(Bundle.open(path), content("2"))
    assert Bundle.open(path).index_path.read_text() == "2"
    write_bundle(path, content("3"), overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == [
        ".lock", "codebooks-3.safetensors", "graph-3.bin", "manifest.json",
    ]  # fmt: skip


def test_a_description_is_read_as_it_was_written(tmp_path):
    engine = NumpyEngine.build(BOOKS, CODES)
    description = {9: "a", 10: ("b", 2.5), "ü\udcff": None}
    save_bundle(engine, tmp_path / "x", description=description)
    found = Bundle.open(tmp_path / "x").manifest["description"]
    assert found == {**engine.describe(), **json.loads(json.dumps(description))}


def test_the_next_number_follows_the_largest_held(tmp_path):
    path = make(tmp_path / "x", ids=np.arange(100) * 3)
    np.testing.assert_array_equal(add_items(path, CODES[:2]), [298, 299])
