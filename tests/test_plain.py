import copy
import datetime
import enum
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mecoq_index._plain import FrozenDict, FrozenList, plain, plain_dict, thaw
from mecoq_index.errors import InvalidInputError


class Color(enum.IntEnum):
    RED = 3


class Word(str):
    __slots__ = ()


def test_values_of_numpy_and_paths_become_plain():
    given = {
        "f": np.float64(0.5),
        "i": np.int8(3),
        "b": np.True_,
        "a": np.arange(3),
        "p": Path("a/b"),
        "t": (1, None, "x"),
        "e": Color.RED,
        "s": np.str_("s"),
        Word("w"): {"deep": [np.float32(2)]},
    }
    found = plain(given, "it")
    assert found == {
        "f": 0.5, "i": 3, "b": True, "a": [0, 1, 2], "p": str(Path("a/b")), "t": [1, None, "x"],
        "e": 3, "s": "s", "w": {"deep": [2.0]},
    }  # fmt: skip
    assert {type(found[key]) for key in ("f", "i", "b", "e", "s")} == {float, int, bool, str}
    assert {type(key) for key in found} == {str}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "value,message",
    [
        (
            datetime.date(2020, 1, 1),
            r"it\['x'\] must be a plain value .* got date\. Convert it fir",
        ),
        (np.datetime64("2020-01-01"), "got date"),
        (b"bytes", "got bytes"),
        ({1, 2}, "got set"),
        (1j, "got complex"),
        ([{"y": object()}], r"it\['x'\]\[0\]\['y'\] must be a plain value .* got object"),
        ({1: 2}, r"the keys of it\['x'\] must be strings, got 1\. Use str\(1\) instead"),
    ],
)
def test_other_values_are_refused_by_their_place(value, message):
    with pytest.raises(InvalidInputError, match=message):
        plain({"x": value}, "it")
    with pytest.raises(InvalidInputError, match="it must be a dictionary, got list"):
        plain_dict([("x", 1)], "it")


CHANGES = [
    lambda d: d.__setitem__("a", 1),
    lambda d: d.pop("list"),
    lambda d: d.popitem(),
    lambda d: d.clear(),
    lambda d: d.update(a=1),
    lambda d: d.setdefault("a", 1),
    lambda d: d.__delitem__("list"),
    lambda d: d.__ior__({"a": 1}),
    lambda d: d["list"].append(1),
    lambda d: d["list"].extend([1]),
    lambda d: d["list"].__iadd__([1]),
    lambda d: d["list"].__imul__(2),
    lambda d: d["list"].__setitem__(0, 1),
    lambda d: d["list"].__delitem__(0),
    lambda d: d["list"].insert(0, 1),
    lambda d: d["list"].pop(),
    lambda d: d["list"].remove(3),
    lambda d: d["list"].reverse(),
    lambda d: d["list"].sort(),
    lambda d: d["list"].clear(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_frozen_values_and_their_copies_cannot_be_changed(change):
    frozen = plain({"list": [3, 2], "dict": {}}, "it")
    for value in (frozen, copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert type(value) is FrozenDict
        assert type(value["list"]) is FrozenList
        with pytest.raises(TypeError, match="cannot be changed; change a copy of it"):
            change(value)
        assert value == {"list": [3, 2], "dict": {}}
    thawed = thaw(frozen)
    change(thawed)
    assert thawed != frozen
