"""Names, against a dictionary from id to string."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index import names as module
from mecoq_index.index import texts
from mecoq_index.index.names import Names

# What os.fsdecode makes of file names: any bytes at all.
file_names = st.binary(max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape"))
# Few letters, NUL among them, in lengths around the words that are hashed.
close_names = st.text("a\0b", max_size=17)
any_names = st.one_of(
    file_names, st.text(max_size=20).filter(lambda s: s.isprintable()), close_names
)
tables = st.dictionaries(st.integers(0, 40), any_names, max_size=25).map(
    lambda table: {id: name for name, id in {name: id for id, name in table.items()}.items()}
)
MANY = {"max_examples": 60, "deadline": None, "derandomize": True}


def make(table):
    return Names.from_strings(list(table.values()), np.array(list(table), np.int64))


def check(names, table):
    assert len(names) == len(table)
    assert names.ids.tolist() == sorted(table)
    assert list(names) == [table[id] for id in sorted(table)]
    for id, name in table.items():
        assert names[id] == name
    assert names.ids_of(list(table.values())).tolist() == list(table)


@pytest.fixture(params=[1, 3, 1 << 16], ids="block of {}".format)
def block(request, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
class TestAgainstADictionary:
    # The fixture sets one constant for all examples, so it need not be set anew for each.
    @settings(**MANY)
    @given(table=tables)
    def test_names_come_back_by_id_and_ids_by_name(self, table):
        check(make(table), table)

    @settings(**MANY)
    @given(table=tables, moving=st.sets(st.integers(0, 40)))
    def test_two_halves_added_are_the_whole(self, table, moving):
        left = {id: name for id, name in table.items() if id not in moving}
        right = {id: name for id, name in table.items() if id in moving}
        check(make(left).added(make(right)), table)

    @settings(**MANY)
    @given(table=tables, leaving=st.lists(st.integers(0, 45), unique=True))
    def test_without_takes_out_what_is_there(self, table, leaving):
        rest = {id: name for id, name in table.items() if id not in leaving}
        check(make(table).without(np.array(leaving, np.int64)), rest)

    @settings(**MANY)
    @given(table=tables)
    def test_a_file_brings_all_back_and_has_the_same_bytes_each_time(self, table):
        names = make(table)
        with tempfile.TemporaryDirectory() as folder:
            path, again = Path(folder) / "a.names", Path(folder) / "b"
            names.save(path)
            check(Names.load(path), table)
            Names.load(path).save(again)
            assert path.read_bytes() == again.read_bytes()

    @settings(**MANY)
    @given(table=tables.filter(len), other=any_names)
    def test_unknown_names_are_told_from_known_ones(self, table, other):
        names = make(table)
        if other in table.values():
            assert table[names.ids_of([other]).item()] == other
        else:
            with pytest.raises(InvalidInputError, match="those of items, but 1 of 2 are not"):
                names.ids_of([next(iter(table.values())), other])


def test_ids_default_to_the_numbers_from_0():
    check(Names.from_strings(("b", "a", "")), {0: "b", 1: "a", 2: ""})
    check(Names.from_strings([]), {})
    check(Names.from_strings(np.array(["x", "yy"])), {0: "x", 1: "yy"})


def test_names_that_share_a_hash_are_still_told_apart(monkeypatch):
    monkeypatch.setattr(
        module, "_hash", lambda offsets, text: np.zeros(len(offsets) - 1, np.uint64)
    )
    table = {3 * i: f"name {i % 7}/{i}" for i in range(30)}
    check(make(table), table)
    with pytest.raises(InvalidInputError, match="1 of 2 are not, the first of them 'name'"):
        make(table).ids_of(["name 1/1", "name"])
    with pytest.raises(InvalidInputError, match="'name 3/3' occurs more than once"):
        Names.from_strings([*table.values(), "name 3/3"])


def test_hashes_of_many_names_do_not_meet():
    texts = [f"images/{i % 100:03d}/{i}.jpg" for i in range(50_000)]
    names = Names.from_strings(texts + ["\0" * i for i in range(100)])
    assert len(np.unique(module._hash(names.offsets, names.text))) == len(names)


def test_a_hash_depends_on_the_name_and_not_on_its_place(monkeypatch):
    monkeypatch.setattr(texts, "BLOCK", 4)
    words = ["", "a", "abcdefgh", "abcdefghi", "a\0", "ü" * 9, "x" * 100]
    together = Names.from_strings(words)
    alone = [Names.from_strings([text]) for text in words]
    np.testing.assert_array_equal(
        module._hash(together.offsets, together.text),
        np.concatenate([module._hash(one.offsets, one.text) for one in alone]),
    )


@pytest.mark.parametrize(
    "names,ids,message",
    [
        (["a", 3], None, r"^names must be strings, got int\.$"),
        (["a", None], None, r"^names must be strings, got NoneType\.$"),
        ([b"a"], None, r"^names must be strings, got bytes\.$"),
        ("abc", None, r"names must be a sequence of strings, got one: 'abc'"),
        (["\ud800"], None, r"text that UTF-8 can hold, got '\\ud800'"),
        (["a", "b", "a"], None, r"names must be distinct, but 'a' occurs more than once"),
        (["a"], np.array([1, 2]), r"ids must have shape \(1,\), got \(2,\)"),
        (["a", "b"], np.array([2, 2]), r"ids must be distinct, but 1 repeat"),
        (["a"], np.array([-1]), r"ids must not be negative, got -1"),
        (["a"], np.array([1], np.int32), r"ids must be an int64 array, got int32"),
    ],
)
def test_names_and_ids_that_cannot_be_are_refused(names, ids, message):
    with pytest.raises(InvalidInputError, match=message):
        Names.from_strings(names, ids)


@pytest.mark.parametrize("id", [-1, 1, 3, 2**62, 2**70, 1.5])
def test_an_unknown_id_is_refused(id):
    with pytest.raises(InvalidInputError, match=rf"id must be one of the 2 .*, got {id}\."):
        Names.from_strings(["a", "b"], np.array([2, 0]))[id]


def test_the_first_unknown_name_is_named_and_they_are_counted():
    names = Names.from_strings(["a", "b"])
    with pytest.raises(InvalidInputError, match=r"2 of 3 are not, the first of them 'x'"):
        names.ids_of(["a", "x", "y"])
    with pytest.raises(InvalidInputError, match="names must be strings, got int"):
        names.ids_of([0])
    assert names.ids_of(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert names.ids_of([]).shape == (0,)


def test_what_is_added_must_be_new():
    small, large = Names.from_strings(["a"]), make({1: "b", 2: "ä", 3: "a"})
    for one, other in [(small, large), (large, small)]:
        with pytest.raises(InvalidInputError, match="1 are taken already, for instance 'a'"):
            one.added(other)
    with pytest.raises(InvalidInputError, match="2 have a name already, for instance 1"):
        large.added(make({2: "x", 1: "y"}))


def test_what_leaves_must_be_ids():
    with pytest.raises(InvalidInputError, match="ids must be an int64 array, got float64"):
        Names.from_strings(["a"]).without(np.array([0.0]))


def test_nothing_can_be_changed_and_nothing_the_caller_has_is_held():
    ids = np.array([1, 2])
    names = Names.from_strings(["a", "b"], ids)
    ids[0] = 7
    assert names[1] == "a"
    for array in (names.ids, names.offsets, names.text):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError, match="cannot assign to field 'ids'"):
        names.ids = ids
    names.added(make({3: "c"}))
    names.without(np.array([1]))
    check(names, {1: "a", 2: "b"})


GOOD = {
    "ids": np.array([0, 2]),
    "offsets": np.array([0, 1, 3]),
    "text": np.frombuffer(b"abc", np.uint8),
}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"ids": np.array([2, 0])}, "ids must ascend from 0 or more"),
        ({"ids": np.array([2, 2])}, "ids must ascend from 0 or more"),
        ({"ids": np.array([-1, 2])}, "ids must ascend from 0 or more"),
        ({"ids": np.array([0, 2], np.int32)}, r"ids must be an array of int64 .* got int32 \(2,\)"),
        ({"ids": np.array([[0, 2]])}, r"one axis, got int64 \(1, 2\)"),
        ({"ids": np.array([0])}, "offsets must be one more than ids, 2, got 3"),
        ({"offsets": np.array([0, 3])}, "offsets must be one more than ids, 3, got 2"),
        ({"offsets": np.array([0, 4, 3])}, "offsets must ascend from 0 to the 3 bytes"),
        ({"offsets": np.array([1, 1, 3])}, "they go from 1 to 3"),
        ({"offsets": np.array([0, 1, 4])}, "they go from 0 to 4"),
        ({"offsets": np.array([0, 1, 2])}, "they go from 0 to 2"),
        ({"offsets": np.array([0.0, 1, 3])}, "offsets must be an array of int64 .* got float64"),
        ({"text": np.array([1, 2, 3])}, "text must be an array of uint8 .* got int64"),
        ({"text": np.array(["abc"])}, "text must be an array of uint8 .* got <U3"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_also_in_a_file(tmp_path, change, message):
    np.savez(tmp_path / "x.npz", **(GOOD | change))
    with pytest.raises(ArtifactError, match=rf"x\.npz is damaged: .*{message}"):
        Names.load(tmp_path / "x.npz")
    with pytest.raises(InvalidInputError, match=message):
        Names(**(GOOD | change))


def test_equal_names_in_a_file_are_noticed_when_they_are_looked_for(tmp_path):
    np.savez(
        tmp_path / "x.npz",
        **(GOOD | {"text": np.frombuffer(b"aa", np.uint8)}) | {"offsets": np.array([0, 1, 2])},
    )
    names = Names.load(tmp_path / "x.npz")
    assert names[2] == "a"
    with pytest.raises(InvalidInputError, match="names must be distinct, but 'a' occurs more"):
        names.ids_of(["a"])


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    Names.from_strings(["a", "bc", "ü"]).save(path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ArtifactError, match=r"x\.npz is (empty|no readable file of names)"):
            Names.load(path)


@pytest.mark.filterwarnings("ignore")  # zipfile and NumPy warn of some damages before they fail
def test_a_file_with_a_changed_byte_is_refused_or_says_the_same(tmp_path):
    path, table = tmp_path / "x.npz", {0: "a", 4: "bc", 7: "ü"}
    make(table).save(path)
    content = path.read_bytes()
    masks = np.random.default_rng(0).integers(1, 256, len(content))
    for at, mask in enumerate(masks.tolist()):
        path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
        try:
            names = Names.load(path)
        except ArtifactError:
            continue
        check(names, table)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"none does not exist"):
        Names.load(tmp_path / "none")
    for name, content in [("x.npy", {}), ("y.npz", {"ids": np.arange(2)})]:
        path = tmp_path / name
        np.savez(path, **content) if content else np.save(path, np.arange(2))
        with pytest.raises(ArtifactError, match=rf"{name} is no readable file of names: "):
            Names.load(path)
    np.savez(tmp_path / "z.npz", **(GOOD | {"text": np.array([{}], object)}))
    with pytest.raises(ArtifactError, match=r"z\.npz is no readable .*: Object arrays cannot"):
        Names.load(tmp_path / "z.npz")
