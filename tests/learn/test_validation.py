from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from mecoq_index.errors import InvalidInputError
from mecoq_index.learn.validation import check_values


@dataclass(frozen=True)
class Numbers:
    count: int = 3
    rate: float = 0.5
    mode: Literal["fast", "slow"] = "fast"

    def __post_init__(self):
        check_values(
            self, lowest={"count": 2}, positive=("rate",), below_one=("rate",), shares=("rate",)
        )


def test_numbers_of_numpy_become_plain():
    made = Numbers(np.int64(4), np.float32(0.25), np.str_("slow"))
    assert [type(value) for value in (made.count, made.rate, made.mode)] == [int, float, str]
    assert made == Numbers(4, 0.25, "slow")
    assert type(Numbers(rate=np.float64(0.5)).rate) is float


@pytest.mark.parametrize(
    "values,message",
    [
        ({"count": 1}, "count must be at least 2, got 1"),
        ({"count": 2.0}, r"count must be int, got 2\.0"),
        ({"count": np.float32(2)}, r"count must be int, got 2\.0"),
        ({"count": True}, "count must be int, got True"),
        ({"count": np.True_}, "count must be int, got True"),
        ({"count": None}, "count must be int, got None"),
        ({"rate": 0}, "rate must be above 0, got 0"),
        ({"rate": 1}, r"rate must lie in \[0, 1\), got 1"),
        ({"rate": float("inf")}, "rate must be finite, got inf"),
        ({"rate": np.float32("nan")}, "rate must be finite, got nan"),
        ({"rate": "1"}, "rate must be float, got '1'"),
        ({"mode": "fats"}, r"mode must be one of \['fast', 'slow'\], got 'fats'"),
        ({"mode": ["fast"]}, r"mode must be one of .*, got \['fast'\]"),
        ({"mode": np.array(["fast", "slow"])}, r"mode must be one of .*, got array"),
    ],
)
def test_values_of_another_type_or_out_of_range_are_refused(values, message):
    with pytest.raises(InvalidInputError, match=message):
        Numbers(**values)


@dataclass(frozen=True)
class Share:
    share: float

    def __post_init__(self):
        check_values(self, shares=("share",))


def test_a_share_may_be_zero_or_one_but_no_more():
    assert (Share(0).share, Share(1.0).share) == (0, 1)
    for wrong in (-0.1, 1.1):
        with pytest.raises(InvalidInputError, match=rf"share must lie in \[0, 1\], got {wrong}"):
            Share(wrong)


@dataclass(frozen=True)
class Whole:
    part: Numbers | Share

    def __post_init__(self):
        check_values(self)


def test_a_part_must_be_of_one_of_its_classes():
    assert Whole(Numbers()).part == Numbers()
    with pytest.raises(InvalidInputError, match="part must be one of the settings' classes, got 3"):
        Whole(3)
