import pytest

from mecoq_index._arguments import check_known
from mecoq_index.errors import InvalidInputError


def test_known_names_pass():
    check_known(["a", "b"], {"a", "b", "c"}, what="setting")


@pytest.mark.parametrize(
    "given,known,message",
    [
        (["nprob"], ["nprobe", "k_factor"], r"unknown option 'nprob'; did you mean 'nprobe'\?"),
        (["xyz"], ["nprobe", "ef"], r"unknown option 'xyz'; the options are \['ef', 'nprobe'\]\."),
        (["xyz"], [], r"unknown option 'xyz'; there are no options here\."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(given, known, message):
    with pytest.raises(InvalidInputError, match=message):
        check_known(given, known, what="option")
