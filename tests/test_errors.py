"""Errors of this package, as people read them."""

import pickle

import pytest

from mecoq_index import errors

CLASSES = [found for found in vars(errors).values() if isinstance(found, type)]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_is_kept(kind):
    error = kind("x must be 1, got 2.")
    assert str(error) == "x must be 1, got 2."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_of_a_message_that_repeats_a_long_name_the_middle_is_left_out(kind):
    text = str(kind(f"the file names {'x' * 100_000!r}. Make it again."))
    assert text.startswith("the file names 'xxx")
    assert text.endswith("xxx'. Make it again.")
    assert len(text) < 2000
