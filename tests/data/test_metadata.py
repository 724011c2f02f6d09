"""Ids, names and labels of items, from files and from Python."""

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecoq_index.data.metadata import Metadata, as_ids_or_names, as_labels, load_ids, load_labels
from mecoq_index.errors import ArtifactError, InvalidInputError


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=1),
    end=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_lines_of_text_come_back_as_strings(lines, end, closed, mark):
    if lines[0].startswith("\ufeff"):
        lines[0] = "x" + lines[0]
    if lines[-1] == "":
        closed = True  # nothing else tells an empty last line from none
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.txt"
        path.write_bytes((mark + end.join(lines) + end * closed).encode())
        assert load_ids(path) == lines


def test_numbers_in_a_text_file_stay_strings(tmp_path):
    (tmp_path / "x.txt").write_text("007\n7\n")
    assert load_ids(tmp_path / "x.txt") == ["007", "7"]


def test_ids_come_from_an_array_of_integers(tmp_path):
    path = tmp_path / "x.npy"
    for dtype in (np.int64, np.int32, np.uint8):
        np.save(path, np.array([3, 1, 4], dtype))
        ids = load_ids(path)
        assert ids.dtype == np.int64
        assert ids.tolist() == [3, 1, 4]
    for wrong, came in [(np.zeros(3), "float64"), (np.zeros((3, 1), int), r"int64 \(3, 1")]:
        np.save(path, wrong)
        with pytest.raises(InvalidInputError, match=rf"integers of shape \(n,\), got {came}"):
            load_ids(path)


def test_id_files_of_another_kind_or_encoding_are_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(ArtifactError, match=r"must be UTF-8 text, but line 3 is not"):
        load_ids(tmp_path / "x.txt")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(ArtifactError, match=r"of ids: one of \.npy, \.txt, .* read, got \.csv"):
        load_ids(tmp_path / "x.csv")
    with pytest.raises(ArtifactError, match="folder"):
        load_ids(tmp_path)
    with pytest.raises(InvalidInputError, match=r"a column cannot be chosen in .*x\.txt"):
        load_ids(tmp_path / "x.txt", column="id")


@pytest.mark.parametrize("ids", [[5, 2], np.array([5, 2], np.uint16), (5, 2)])
def test_whole_numbers_are_ids(ids):
    found, names = as_ids_or_names(ids)
    assert found.dtype == np.int64
    assert (found.tolist(), names) == ([5, 2], None)


@pytest.mark.parametrize("ids", [["a", "b"], np.array(["a", "b"])])
def test_strings_are_names(ids):
    assert as_ids_or_names(ids) == (None, ["a", "b"])


@pytest.mark.parametrize(
    "ids,message",
    [
        ([1.5, 2.0], r"integers or strings of shape \(n,\), got float64"),
        ([[1], [2]], r"got int64 \(2, 1\)"),
        ([[1], [2, 3]], "must be integers or strings, one an item"),
        (np.array([1, 2**63], np.uint64), r"ids must be below 2\*\*63"),
    ],
)
def test_other_ids_are_refused(ids, message):
    with pytest.raises(InvalidInputError, match=message):
        as_ids_or_names(ids)


def test_labels_come_from_files_and_values(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0, 1], [1, 1]], np.uint8))
    assert load_labels(tmp_path / "x.npy").tolist() == [[0, 1], [1, 1]]
    (tmp_path / "x.txt").write_text("3\n-1\n")
    assert as_labels(tmp_path / "x.txt").tolist() == [3, -1]
    (tmp_path / "x.txt").write_text("cat\n7\ncat\n")
    assert load_labels(tmp_path / "x.txt").tolist() == [1, 0, 1]
    assert as_labels([True, False]).tolist() == [1, 0]
    assert as_labels(np.array([2.0, 1.0])).tolist() == [2, 1]
    assert as_labels(np.array(["b", "a"], object)).tolist() == [1, 0]


@pytest.mark.parametrize(
    "labels,message",
    [
        ([0.5, 1], r"labels must be classes \(n,\), .* got float64 \(2,\)"),
        ([[0, 2]], r"of shape \(n, L\) must be 0 or 1 everywhere"),
        ([[0], [0, 1]], "labels must be integers or strings"),
        (3, r"got int64 \(\)"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(InvalidInputError, match=message):
        as_labels(labels)


def test_one_long_label_takes_the_room_of_one(tmp_path):
    lines = ["b", "a", "x" * (1 << 20), *"ab" * 500]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    tracemalloc.start()
    try:
        labels = load_labels(tmp_path / "labels.txt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert labels.tolist() == [1, 0, 2, *[0, 1] * 500]
    assert as_labels(np.array(lines, object)).tolist() == labels.tolist()
    assert peak < 10 << 20


def test_files_of_labels_are_named_in_errors(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 2)) + 0.5)
    with pytest.raises(InvalidInputError, match=r"x\.npy: labels must be classes"):
        load_labels(tmp_path / "x.npy")
    (tmp_path / "x.csv").write_text("1")
    with pytest.raises(ArtifactError, match=r"must be a file of labels: .* got \.csv"):
        load_labels(tmp_path / "x.csv")


def test_metadata_of_some_items_stay_in_step():
    whole = Metadata(
        np.arange(4) * 10, list("abcd"), {"x": np.array([0.5, 1.5, 2.5, 3.5])}, np.eye(4, dtype=int)
    )
    some = whole.check(4).take(np.array([3, 1]))
    assert some.ids.tolist() == [30, 10]
    assert some.names == ["d", "b"]
    assert some.columns["x"].tolist() == [3.5, 1.5]
    assert some.labels.argmax(1).tolist() == [3, 1]
    with pytest.raises(InvalidInputError, match="ids must be one an item, 5 in all, got 4"):
        whole.check(5)
