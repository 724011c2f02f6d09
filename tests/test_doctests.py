"""Examples in docstrings print what they say."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import mecoq_index

MODULES = [
    found.name
    for found in walk_packages(mecoq_index.__path__, "mecoq_index.")
    if not found.name.endswith("__main__")
]


def examples(name):
    return [test for test in doctest.DocTestFinder().find(import_module(name)) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_there_are_examples_of_what_is_used_most():
    for name in ("index.index", "learn.training", "scoring", "embedding_function"):
        assert examples(f"mecoq_index.{name}")
