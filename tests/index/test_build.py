"""Builds: from anywhere, interrupted anywhere, in shards; always the same bytes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.data.reader import ArrayRows
from mecoq_index.data.vectors import open_vectors
from mecoq_index.embed import rows as encoding
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index import build as building
from mecoq_index.index.build import BuildOptions, Shard, build_bundle
from mecoq_index.index.bundle import Bundle
from mecoq_index.index.manifest import checksum
from mecoq_index.index.merge import merge_bundles
from mecoq_index.index.stored import open_bundle, save_bundle

N = 5000
LAYOUTS = ["MeCoQ", "IVF8,MeCoQ", "IVF8,MeCoQ4x4fs", "MeCoQ4x4fs,Refine(MeCoQ)", "MeCoQ,IDMap2"]
LAYOUTS += ["MeCoQ4x4fs", "IVF8,MeCoQ4x4fs,Refine(MeCoQ)", "IVF8_HNSW4,MeCoQ"]
LAYOUTS += ["IVF8,MeCoQ,IDMap2", "IVF8,MeCoQ4x4fs,Refine(MeCoQ),IDMap2"]
NUMPY = BuildOptions(engine="numpy")


def make_codebooks(seed=0, *, projection=()):
    c = np.random.default_rng(seed).standard_normal((4, 16, 4))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True), projection)


BOOKS = make_codebooks()
VECTORS = np.random.default_rng(1).standard_normal((N, 16)).astype(np.float32)
CODES = np.random.default_rng(2).integers(16, size=(N, 4), dtype=np.uint8)
QUERIES = np.random.default_rng(3).standard_normal((7, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Several chunks, each of them noted, in a build of few rows; the disk is not waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(encoding, "_MAX_CHUNK", 1024)
    monkeypatch.setattr(building, "_NOTE_SECONDS", -1)
    monkeypatch.setattr(building, "_ADDED_AT_A_TIME", 1500)


def called(ids):
    """Ids of any kind as arguments of build_bundle."""
    return {"ids": ids} if ids is None or isinstance(ids, np.ndarray) else {"names": ids}


def options_of(layout, *, shard=None, **more):
    if layout == "numpy":
        return BuildOptions(engine="numpy", shard=shard)
    return BuildOptions(shard=shard, options={"factory": layout, **more})


def content(path):
    """Every file of a bundle by name, but for the lock, which is empty."""
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != ".lock"}


def inside(folder):
    return sorted(p.name for p in folder.iterdir())


# What is built from what


@pytest.mark.parametrize("layout", ["numpy", *LAYOUTS])
def test_a_bundle_answers_as_an_engine_that_was_given_all_codes_at_once(tmp_path, layout):
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", options_of(layout, nprobe=None))
    engine, bundle = open_bundle(tmp_path / "x")
    if layout == "numpy":
        want = NumpyEngine.build(BOOKS, CODES)
    else:
        want = FaissEngine.build(BOOKS, CODES, factory=layout)
    assert engine.describe() == want.describe() == bundle.manifest["description"]
    np.testing.assert_array_equal(engine.codes(np.arange(N)), CODES)
    hits, wanted = engine.search(QUERIES, 5), want.search(QUERIES, 5)
    np.testing.assert_array_equal(hits.ids, wanted.ids)
    np.testing.assert_array_equal(hits.scores, wanted.scores)
    assert inside(tmp_path) == ["x"]


@pytest.mark.parametrize("kind", ["npy", "codes", "parquet", "folder"])
def test_files_give_the_bytes_that_arrays_give(tmp_path, kind):
    array = CODES if kind == "codes" else VECTORS
    source = tmp_path / f"rows.{'parquet' if kind == 'parquet' else 'npy'}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        column = pyarrow.array(list(array), pyarrow.list_(pyarrow.float32()))
        parquet.write_table(pyarrow.table({"z": column}), source, row_group_size=700)
    elif kind == "folder":
        source = tmp_path / "rows"
        source.mkdir()
        for i, at in enumerate(range(0, N, 600)):
            np.save(source / f"part{i}.npy", array[at : at + 600])
    else:
        np.save(source, array)
    for name, rows in (("a", ArrayRows(array)), ("b", open_vectors(source))):
        build_bundle(rows, BOOKS, tmp_path / name, BuildOptions(options={"factory": "IVF8,MeCoQ"}))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    np.testing.assert_array_equal(
        open_bundle(tmp_path / "b")[0].codes(np.arange(N)),
        CODES if kind == "codes" else scoring.encode(VECTORS, BOOKS),
    )


def test_features_are_projected(tmp_path):
    rng = np.random.default_rng(4)
    layer = Layer(rng.standard_normal((16, 9)).astype("f4"), rng.standard_normal(16).astype("f4"))
    books = make_codebooks(projection=[layer])
    features = rng.standard_normal((1500, 9)).astype(np.float32)
    build_bundle(ArrayRows(features), books, tmp_path / "x", NUMPY)
    want = scoring.encode(books.project(features), books)
    np.testing.assert_array_equal(open_bundle(tmp_path / "x")[0].codes(np.arange(1500)), want)


@pytest.mark.parametrize("layout", ["numpy", "IVF8,MeCoQ", "MeCoQ,IDMap2", "IVF8,MeCoQ4x4fs"])
def test_items_have_the_numbers_given(tmp_path, layout):
    ids = np.random.default_rng(5).permutation(10 * N)[:N].astype(np.int64)
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", options_of(layout), **called(ids))
    engine, _ = open_bundle(tmp_path / "x")
    np.testing.assert_array_equal(np.sort(engine.ids()), np.sort(ids))
    np.testing.assert_array_equal(engine.codes(ids), CODES)


@pytest.mark.parametrize("layout", ["numpy", *LAYOUTS])
def test_items_have_the_names_given(tmp_path, layout):
    names = [f"photo-{i}.jpg" for i in range(N)]
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", options_of(layout), **called(names))
    engine, bundle = open_bundle(tmp_path / "x")
    assert list(bundle.names) == names
    np.testing.assert_array_equal(engine.codes(bundle.names.ids_of(names[::-1])), CODES[::-1])


def test_rows_may_be_none(tmp_path):
    for layout in ("numpy", "MeCoQ", "MeCoQ4x4fs", "MeCoQ,IDMap2"):
        build_bundle(ArrayRows(CODES[:0]), BOOKS, tmp_path / layout, options_of(layout))
        assert len(open_bundle(tmp_path / layout)[0]) == 0


# What is refused, before any work


@pytest.mark.parametrize(
    "ids,message",
    [
        (np.arange(N - 1), r"ids must have shape \(5000,\), got \(4999,\)"),
        (["a"], "names must be one a row, 5000 in all, got 1"),
        (np.zeros(N, np.int64), "ids must be distinct, but 4999 repeat"),
        (np.arange(N) - 1, "ids must not be negative"),
        (np.arange(N, dtype=np.int32), "ids must be an int64 array, got int32"),
        (["a"] * N, "names must be distinct, but 'a' occurs more than once"),
        ([3] * N, "names must be strings, got int"),
        (np.arange(N)[::-1].copy(), "MeCoQ4x4 numbers its items itself, .* Use 'MeCoQ4x4,IDMap2'"),
    ],
)
def test_ids_that_do_not_fit_are_refused_before_a_row_is_encoded(
    tmp_path, monkeypatch, ids, message
):
    monkeypatch.setattr(encoding.RowEncoder, "encode", None)
    with pytest.raises(InvalidInputError, match=message):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", **called(ids))
    assert inside(tmp_path) == []


@pytest.mark.parametrize(
    "options,message",
    [
        (BuildOptions(options={"factory": "IVF5001,MeCoQ"}), "IVF5001 needs at least 5001 items"),
        (
            BuildOptions(options={"factory": "IVF8,MeCoQ", "seed": -1}),
            "seed must be an integer from 0",
        ),
        (
            BuildOptions(engine="numpy", options={"factory": "MeCoQ"}),
            "unknown option of the numpy engine 'factory'; there are no",
        ),
        (BuildOptions(engine="fais"), "unknown engine 'fais'"),
        (BuildOptions(options={"factory": "IVF8,MeCoQ", "nprobe": 9}), "nprobe"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_a_row_is_encoded(
    tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(encoding.RowEncoder, "encode", None)
    with pytest.raises(InvalidInputError, match=message):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", options)
    assert inside(tmp_path) == []


@pytest.mark.parametrize(
    "array,message",
    [
        (CODES[:, :3], r"codes must have shape \(n, 4\), got a width of 3"),
        (VECTORS[:, :5].copy(), "embeddings of width D=16, got width 5"),
        (VECTORS > 0, "rows must hold floats or integers, got bool"),
        (VECTORS[0], r"rows must be an array of shape \(n, width\), got \(16,\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, array, message):
    with pytest.raises(InvalidInputError, match=message):
        build_bundle(ArrayRows(array), BOOKS, tmp_path / "x")
    assert inside(tmp_path) == []


@pytest.mark.parametrize("shard", [None, Shard(2, 2)])
def test_a_row_that_is_not_finite_is_refused_by_its_number_in_the_whole(tmp_path, shard):
    bad = VECTORS.copy()
    bad[4321, 2] = np.inf
    with pytest.raises(InvalidInputError, match="vectors must be finite, but row 4321 holds NaN"):
        build_bundle(ArrayRows(bad), BOOKS, tmp_path / "x", BuildOptions(shard=shard))
    assert inside(tmp_path) == []


def test_a_code_that_is_too_large_is_refused_by_its_number_in_the_whole(tmp_path):
    bad = CODES.copy()
    bad[4321, 2] = 16
    with pytest.raises(InvalidInputError, match="codes must be below K=16, but row 4321 holds 16"):
        build_bundle(ArrayRows(bad), BOOKS, tmp_path / "x", BuildOptions(shard=Shard(2, 2)))
    assert inside(tmp_path) == []


def test_an_output_that_exists_is_replaced_only_when_told(tmp_path):
    build_bundle(ArrayRows(CODES[:9]), BOOKS, tmp_path / "x", NUMPY)
    for resume in (False, True):
        with pytest.raises(InvalidInputError, match=r"x exists already. .* with --overwrite"):
            build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, resume=resume)
    assert len(open_bundle(tmp_path / "x")[0]) == 9
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, overwrite=True)
    assert len(open_bundle(tmp_path / "x")[0]) == N
    assert inside(tmp_path) == ["x"]


def test_a_folder_that_appears_during_the_build_is_not_replaced(tmp_path):
    def disturb(text, done, total):
        if text == "writing" and not done:
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "mine").touch()

    with pytest.raises(InvalidInputError, match="x exists already"):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, on_progress=disturb)
    assert inside(tmp_path / "x") == ["mine"]


def test_two_programs_do_not_build_one_output_at_once(tmp_path):
    def build_too(text, done, total):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY)

    with pytest.raises(ArtifactError, match=r"another program is at work in .*\.x\.work"):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, on_progress=build_too)


# Interrupted, and gone on with


class StoppedError(Exception):
    pass


class InterruptAt:
    """Raises at one of the times at which the build tells how far it has come."""

    def __init__(self, number):
        self.number, self.seen = number, []

    def __call__(self, *told):
        self.seen.append(told)
        if len(self.seen) == self.number:
            raise StoppedError


CASES = {
    "numpy": ("numpy", VECTORS, None, {}),
    "numpy with numbers": ("numpy", CODES, np.arange(N)[::-1].copy(), {}),
    "flat": ("MeCoQ", VECTORS, None, {}),
    "IVF with names": ("IVF8,MeCoQ", CODES, [f"{i}.jpg" for i in range(N)], {}),
    "IVF FastScan": ("IVF8,MeCoQ4x4fs", VECTORS, None, {}),
    "Refine": ("IVF8,MeCoQ4x4fs,Refine(MeCoQ)", CODES, None, {}),
    "IDMap2": ("MeCoQ,IDMap2", CODES, np.arange(N)[::-1].copy(), {}),
    "HNSW": ("HNSW4,MeCoQ", CODES[:1500], None, {}),
    "a shard": ("IVF8,MeCoQ", VECTORS, None, {"shard": Shard(2, 3)}),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_build_that_was_interrupted_anywhere_ends_in_the_same_bytes(tmp_path, case, overwrite):
    layout, array, ids, more = CASES[case]

    def build(out, **options):
        made = BuildOptions(**{**vars(options_of(layout)), **more})
        build_bundle(ArrayRows(array), BOOKS, out, made, **called(ids), **options)

    whole, listener = tmp_path / "whole", InterruptAt(0)
    if overwrite:
        for out in (whole, tmp_path / "x"):
            build_bundle(ArrayRows(CODES[:9]), BOOKS, out, NUMPY)
    before = content(tmp_path / "x") if overwrite else None
    build(whole, overwrite=overwrite, on_progress=listener)
    stages = [text for text, _, _ in listener.seen]
    wanted = {"encoding", "writing"} | ({"placing", "making lists"} if "IVF" in case else set())
    assert wanted <= set(stages)
    # One after the other, each going on from the one before; only the last told is after the end.
    for number in range(1, len(stages)):
        with pytest.raises(StoppedError):
            build(tmp_path / "x", resume=number > 1, overwrite=overwrite,
                  on_progress=InterruptAt(2 if 1 < number < 4 else 1))  # fmt: skip
        assert (content(tmp_path / "x") if overwrite else None) == before
    listener = InterruptAt(0)
    build(tmp_path / "x", resume=True, overwrite=overwrite, on_progress=listener)
    assert "encoding" not in [text for text, _, _ in listener.seen]
    assert content(tmp_path / "x") == content(whole)
    assert inside(tmp_path) == ["whole", "x"]


@pytest.mark.parametrize("overwrite", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_single_interruption_can_be_gone_on_with(tmp_path, overwrite):
    options = BuildOptions(options={"factory": "IVF8,MeCoQ"})
    listener = InterruptAt(0)
    build_bundle(ArrayRows(VECTORS), BOOKS, tmp_path / "whole", options, on_progress=listener)
    want = content(tmp_path / "whole")
    if overwrite:
        build_bundle(ArrayRows(VECTORS), BOOKS, tmp_path / "whole", options, overwrite=True)
        want = content(tmp_path / "whole")
    for number in range(1, len(listener.seen) + 1):
        out = tmp_path / str(number)
        if overwrite:
            build_bundle(ArrayRows(VECTORS), BOOKS, out, options)
        told = InterruptAt(number)
        with pytest.raises(StoppedError):
            build_bundle(
                ArrayRows(VECTORS), BOOKS, out, options, overwrite=overwrite, on_progress=told
            )
        told_again = InterruptAt(0)
        build_bundle(ArrayRows(VECTORS), BOOKS, out, options, resume=True, overwrite=overwrite,
                     on_progress=told_again)  # fmt: skip
        assert content(out) == want
        # Of what was encoded before nothing is encoded again.
        ends = [done for text, done, _ in told.seen if text == "encoding"]
        ends_again = [done for text, done, _ in told_again.seen if text == "encoding"]
        assert not set(ends) & set(ends_again)
        assert not out.with_name(f".{out.name}.work").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_that_was_finished_but_not_tidied_up_is_known_as_such(
    tmp_path, monkeypatch, overwrite
):
    if overwrite:
        build_bundle(ArrayRows(CODES[:9]), BOOKS, tmp_path / "x", NUMPY)

    def build(**options):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building.Workspace, "_remove", lambda self: None)
        build(overwrite=overwrite)
    assert inside(tmp_path) == [".x.work", "x"]
    before = content(tmp_path / "x")
    build(resume=True, on_progress=InterruptAt(1))  # without --overwrite, and without any work
    assert content(tmp_path / "x") == before
    assert inside(tmp_path) == ["x"]


def test_another_bundle_in_the_place_of_a_finished_one_is_not_taken_for_it(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building.Workspace, "_remove", lambda self: None)
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY)
    build_bundle(ArrayRows(CODES[:9]), BOOKS, tmp_path / "y", NUMPY)
    (tmp_path / "x").rename(tmp_path / "gone")
    (tmp_path / "y").rename(tmp_path / "x")
    with pytest.raises(InvalidInputError, match="x exists already"):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, resume=True)
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, resume=True, overwrite=True)
    assert len(open_bundle(tmp_path / "x")[0]) == N


def test_what_is_left_of_a_folder_without_a_job_is_removed(tmp_path):
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY)
    (tmp_path / ".x.work").mkdir()
    (tmp_path / ".x.work" / ".lock").touch()
    with pytest.raises(InvalidInputError, match="x exists already"):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", NUMPY, resume=True)
    assert inside(tmp_path) == ["x"]


def interrupt(out, rows=None, *, number=2, codebooks=BOOKS, **options):
    with pytest.raises(StoppedError):
        build_bundle(rows or ArrayRows(VECTORS), codebooks, out, on_progress=InterruptAt(number),
                     **options)  # fmt: skip


@pytest.mark.parametrize(
    "change,message",
    [
        ({"options": BuildOptions(options={"factory": "IVF8,MeCoQ"})}, "differs in: factory"),
        ({"options": BuildOptions(options={"seed": 3})}, "differs in: seed"),
        ({"options": NUMPY}, "differs in: engine"),
        ({"options": BuildOptions(shard=Shard(1, 2))}, "differs in: shard"),
        ({"codebooks": make_codebooks(1)}, "differs in: codebooks"),
        ({"rows": ArrayRows(VECTORS[:-1])}, "differs in: number of rows, rows"),
        ({"rows": ArrayRows(VECTORS[::-1])}, r"differs in: rows\. "),
        ({"source": {"file": "b"}}, r"differs in: file\. "),
        ({"source": {}}, r"differs in: file\. "),
    ],
)
def test_the_work_of_another_job_is_refused_and_kept(tmp_path, change, message):
    same = {"rows": ArrayRows(VECTORS), "codebooks": BOOKS, "source": {"file": "a"}}
    interrupt(tmp_path / "x", source={"file": "a"})
    kept = content(tmp_path / ".x.work")
    with pytest.raises(InvalidInputError, match=f"left from another run, which {message}"):
        build_bundle(out=tmp_path / "x", resume=True, **(same | change))
    assert content(tmp_path / ".x.work") == kept


def test_a_file_that_was_changed_since_is_noticed(tmp_path):
    source = tmp_path / "rows"
    source.mkdir()
    np.save(source / "a.npy", VECTORS[:3000])
    np.save(source / "b.npy", VECTORS[3000:])
    interrupt(tmp_path / "x", open_vectors(source))
    changed = VECTORS[3000:].copy()
    changed[1234] += 1  # a row that no sample sees
    np.save(source / "b.npy", changed)
    os.utime(source / "b.npy", ns=(10**18, 10**18))
    with pytest.raises(InvalidInputError, match=r"another run, which differs in: rows\. Leave"):
        build_bundle(open_vectors(source), BOOKS, tmp_path / "x", resume=True)


def test_without_resume_a_build_starts_again(tmp_path):
    interrupt(tmp_path / "x", options=BuildOptions(options={"factory": "IVF8,MeCoQ"}), number=20)
    told = InterruptAt(0)
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", on_progress=told)
    assert told.seen[0] == ("encoding", 1024, N)
    np.testing.assert_array_equal(open_bundle(tmp_path / "x")[0].codes(np.arange(N)), CODES)
    assert inside(tmp_path) == ["x"]


def test_a_refused_build_keeps_what_another_one_has_left(tmp_path):
    interrupt(tmp_path / "x")
    kept = content(tmp_path / ".x.work")
    with pytest.raises(InvalidInputError, match="unknown engine"):
        build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "x", BuildOptions(engine="fais"))
    assert content(tmp_path / ".x.work") == kept


@pytest.mark.parametrize(
    "damage",
    [
        *("{", "[]", "", '{"jobs": {}}', '{"jobs": {"build": 3}, "written": {}}'),
        *('{"jobs": {"build": {"about": {}}}, "written": {}}', '{"jobs": {}, "written": 3}'),
        "[" * 100_000,
    ],
)
def test_damaged_notes_are_refused(tmp_path, damage):
    interrupt(tmp_path / "x")
    (tmp_path / ".x.work" / "job.json").write_text(damage)
    with pytest.raises(ArtifactError, match=r"job.json is damaged. Leave out --resume"):
        build_bundle(ArrayRows(VECTORS), BOOKS, tmp_path / "x", resume=True)
    build_bundle(ArrayRows(VECTORS), BOOKS, tmp_path / "x")


@pytest.mark.parametrize("rows", [-1, N + 1, 2.5, "7", True, None, [3], 10**30])
def test_numbers_of_rows_that_cannot_be_are_refused(tmp_path, rows):
    interrupt(tmp_path / "x")
    file = tmp_path / ".x.work" / "job.json"
    found = json.loads(file.read_text())
    found["jobs"]["build"]["done"]["codes"] = rows
    file.write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match=r"job.json is damaged. Leave out --resume"):
        build_bundle(ArrayRows(VECTORS), BOOKS, tmp_path / "x", resume=True)


@pytest.mark.parametrize("size", [None, 0, 100])
def test_finished_work_that_is_gone_is_noticed(tmp_path, size):
    interrupt(tmp_path / "x")
    file = tmp_path / ".x.work" / "codes.npy"
    file.unlink() if size is None else os.truncate(file, size)
    with pytest.raises(ArtifactError, match=r"codes.npy lacks rows that were written. Leave out"):
        build_bundle(ArrayRows(VECTORS), BOOKS, tmp_path / "x", resume=True)


# Shards


def build_shards(folder, count, options, array=CODES, ids=None, order=1):
    parts = []
    for number in range(1, count + 1)[::order]:
        parts.append(folder / f"part{number}")
        made = replace(options, shard=Shard(number, count))
        build_bundle(ArrayRows(array), BOOKS, parts[-1], made, **called(ids))
    return parts


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("layout", ["numpy", *LAYOUTS])
def test_all_shards_in_any_order_give_the_bytes_of_the_whole(tmp_path, layout, named):
    ids = [f"{i}.jpg" for i in range(N)] if named else None
    options = options_of(layout, seed=7)
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "whole", options, **called(ids))
    parts = build_shards(tmp_path, 5, options, ids=ids)
    merge_bundles([parts[i] for i in (3, 0, 4, 1, 2)], tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")
    assert sum(len(open_bundle(part)[0]) for part in parts) == N
    np.testing.assert_array_equal(open_bundle(tmp_path / "merged")[0].codes(np.arange(N)), CODES)


@pytest.mark.parametrize("layout", ["numpy", "IVF8,MeCoQ", "MeCoQ,IDMap2"])
def test_shards_of_numbered_items_give_the_bytes_of_the_whole(tmp_path, layout):
    ids = np.random.default_rng(5).permutation(10 * N)[:N].astype(np.int64)
    options = options_of(layout)
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "whole", options, **called(ids))
    merge_bundles(build_shards(tmp_path, 3, options, ids=ids, order=-1), tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")


def test_shards_of_many_vectors_end_where_chunks_do(tmp_path):
    assert Shard(1, 2).bounds(33 * 1024 + 5, 1024) == (0, 16 * 1024)
    assert Shard(2, 2).bounds(33 * 1024 + 5, 1024) == (16 * 1024, 33 * 1024 + 5)
    assert Shard(2, 3).bounds(100, 1024) == (33, 66)
    vectors = np.random.default_rng(8).standard_normal((17 * 1024 + 77, 16)).astype(np.float32)
    build_bundle(ArrayRows(vectors), BOOKS, tmp_path / "whole", NUMPY)
    merge_bundles(build_shards(tmp_path, 2, NUMPY, vectors), tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    "shard", [["a", []], [1], [1, 2, 3], [True, 2], [0, 2], [3, 2], [1.0, 2], "1/2", {}, 7, False]
)
def test_a_shard_that_cannot_be_is_refused(tmp_path, shard):
    parts = build_shards(tmp_path, 2, NUMPY)
    sign(parts[0], shard)
    with pytest.raises(ArtifactError, match=r"part1 is damaged: a shard (must be two|i/n must)"):
        merge_bundles(parts, tmp_path / "merged")


def test_a_count_of_shards_takes_no_memory(tmp_path):
    parts = build_shards(tmp_path, 2, NUMPY)
    for number, part in enumerate(parts, 1):
        sign(part, [number, 10**12])
    with pytest.raises(InvalidInputError, match=r"the shards must be 1 to 1000000000000 of one"):
        merge_bundles(parts, tmp_path / "merged")


def sign(path, shard):
    """Let a bundle say that it is another shard."""
    manifest = dict(Bundle.read_manifest(path))
    manifest["description"] |= {"shard": shard}
    manifest["checksum"] = checksum(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("n", [0, 1, 7, 1000, 99_999])
@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_shards_cover_all_rows_once(n, count):
    bounds = [Shard(i, count).bounds(n, 1024) for i in range(1, count + 1)]
    assert [first for first, _ in bounds] + [n] == [0] + [last for _, last in bounds]


def test_a_shard_may_be_empty(tmp_path):
    build_bundle(ArrayRows(CODES[:2]), BOOKS, tmp_path / "whole")
    merge_bundles(build_shards(tmp_path, 5, options_of("MeCoQ"), CODES[:2]), tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")


@pytest.mark.parametrize("number,count", [(0, 3), (4, 3), (1, 0), (-1, 2)])
def test_a_shard_is_one_of_its_count(number, count):
    with pytest.raises(InvalidInputError, match=r"a shard i/n must have 1 <= i <= n, got"):
        Shard(number, count)


def test_shards_that_are_no_whole_are_refused(tmp_path):
    a, b, c = build_shards(tmp_path, 3, options_of("MeCoQ"))
    (tmp_path / "other").mkdir()
    d, _ = build_shards(tmp_path / "other", 2, options_of("MeCoQ"))
    build_bundle(ArrayRows(CODES), BOOKS, tmp_path / "whole")
    for parts, message in (
        ([a, c], "the shards must be 1 to 3 of one build, each once, got 1/3, 3/3"),
        ([a, b, c, b], "each once, got 1/3, 2/3, 3/3, 2/3"),
        ([b, b, c], "each once, got 2/3, 2/3, 3/3"),
        ([a, b, d], "each once, got 1/3, 2/3, 1/2"),
        ([a, b, tmp_path / "whole"], "whole is no shard, but others are"),
        ([a], "two or more bundles are needed to merge, got 1"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            merge_bundles(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"array": CODES[::-1].copy()}, "differs from .* in its source"),
        ({"array": CODES[:-1]}, "differs from .* in its source"),
        ({"options": options_of("MeCoQ4x4fs")}, "differs from .* in its factory"),
        ({"options": options_of("numpy")}, "differs from .* in its engine"),
        ({"ids": [str(i) for i in range(N)]}, "either all of the bundles must have names, or none"),
    ],
)
def test_a_shard_of_another_build_is_refused_before_the_work(
    tmp_path, monkeypatch, change, message
):
    a, _ = build_shards(tmp_path, 2, options_of("MeCoQ"))
    (tmp_path / "other").mkdir()
    _, b = build_shards(tmp_path / "other", 2, **({"options": options_of("MeCoQ")} | change))
    monkeypatch.setattr("mecoq_index.index.merge.open_bundle", None)
    with pytest.raises(InvalidInputError, match=message):
        merge_bundles([a, b], tmp_path / "merged")


def test_shards_with_other_lists_are_refused(tmp_path):
    a, _ = build_shards(tmp_path, 2, options_of("IVF8,MeCoQ", seed=0))
    (tmp_path / "other").mkdir()
    _, b = build_shards(tmp_path / "other", 2, options_of("IVF8,MeCoQ", seed=1))
    with pytest.raises(InvalidInputError, match=r"in its lists \(made from other items"):
        merge_bundles([a, b], tmp_path / "merged")


# Bundles with ids of their own


@pytest.mark.parametrize("layout", ["numpy", "MeCoQ,IDMap2", "MeCoQ4x4fs,IDMap2"])
def test_bundles_with_ids_of_their_own_are_joined(tmp_path, layout):
    ids = np.random.default_rng(5).permutation(10 * N)[:N].astype(np.int64)
    parts = [tmp_path / str(i) for i in range(3)]
    for i, part in enumerate(parts):
        build_bundle(
            ArrayRows(CODES[i::3].copy()), BOOKS, part, options_of(layout), **called(ids[i::3])
        )
    told = []
    merge_bundles(parts, tmp_path / "merged", on_progress=lambda *step: told.append(step))
    engine, _ = open_bundle(tmp_path / "merged")
    np.testing.assert_array_equal(engine.codes(ids), CODES)
    assert len(engine) == N
    assert told == [("merging", i, 3) for i in (1, 2, 3)]


def test_named_items_keep_their_names_in_another_bundle(tmp_path):
    from mecoq_index.index.names import Names

    parts = [tmp_path / str(i) for i in range(5)]
    for i, part in enumerate(parts):
        ids = np.arange(10 * i, 10 * i + 4)[::-1].copy()
        names = Names.from_strings([f"{n}.jpg" for n in ids], ids)
        save_bundle(NumpyEngine.build(BOOKS, CODES[ids], ids), part, names=names)
    merge_bundles(parts, tmp_path / "merged")
    engine, bundle = open_bundle(tmp_path / "merged")
    np.testing.assert_array_equal(bundle.names.ids_of(["23.jpg", "0.jpg"]), [23, 0])
    np.testing.assert_array_equal(engine.codes(bundle.names.ids), CODES[bundle.names.ids])


def test_bundles_that_cannot_be_told_apart_are_not_joined(tmp_path):
    for name, first in (("a", 0), ("b", 90)):
        ids = np.arange(first, first + 100)
        build_bundle(ArrayRows(CODES[:100]), BOOKS, tmp_path / name, NUMPY, **called(ids))
        build_bundle(ArrayRows(CODES[:100]), BOOKS, tmp_path / f"{name}flat")
    with pytest.raises(InvalidInputError, match="10 occur more than once, for instance 90"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    with pytest.raises(InvalidInputError, match="numbers its items from 0, as the others do"):
        merge_bundles([tmp_path / "aflat", tmp_path / "bflat"], tmp_path / "merged")
    other = NumpyEngine.build(make_codebooks(1), CODES[:100])
    save_bundle(other, tmp_path / "c")
    with pytest.raises(InvalidInputError, match=r"c differs from .* in its codebooks"):
        merge_bundles([tmp_path / "a", tmp_path / "c"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merged_bundle_may_replace_one_of_its_parts(tmp_path):
    for name, first in (("a", 0), ("b", 100)):
        ids = np.arange(first, first + 100)
        build_bundle(ArrayRows(CODES[:100]), BOOKS, tmp_path / name, NUMPY, **called(ids))
    with pytest.raises(InvalidInputError, match=r"a exists already. .*--overwrite"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "a")
    merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "a", overwrite=True)
    assert len(open_bundle(tmp_path / "a")[0]) == 200
    assert inside(tmp_path) == ["a", "b"]


# Memory

MEASURED = r"""
import re
from pathlib import Path
from mecoq_index.codebooks import Codebooks
from mecoq_index.index.build import BuildOptions, build_bundle
from mecoq_index.data.vectors import open_vectors

def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

def build(name, out):
    options = BuildOptions(options={"factory": "MeCoQ"})
    build_bundle(open_vectors(name), Codebooks.load("c.npy"), out, options)

build("small.npy", "small")
Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
before = peak()
build("large.npy", "large")
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_but_by_the_index(tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("measures by /proc of Linux")
    n, width = 600_000, 64
    codewords = np.zeros((4, 16, 16), np.float32)
    codewords[:, np.arange(16), np.arange(16)] = 1
    np.save(tmp_path / "c.npy", codewords)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "small.npy", rng.standard_normal((70_000, width), np.float32))
    large = np.lib.format.open_memmap(
        tmp_path / "large.npy", mode="w+", dtype=np.float32, shape=(n, width)
    )
    for at in range(0, n, 60_000):
        large[at : at + 60_000] = rng.standard_normal((60_000, width), np.float32)
    del large
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEASURED], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=True)  # fmt: skip
    grown, index = int(json.loads(done.stdout)), n * 2  # 4 codes of 4 bits
    assert len(open_bundle(tmp_path / "large")[0]) == n
    # The rows are 154 MB; an index of 1.2 MB may take a few times that while it grows.
    assert grown < 4 * index + (32 << 20), grown
    assert Bundle.open(tmp_path / "large").manifest["description"]["items"] == n
