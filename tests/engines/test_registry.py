from importlib.metadata import EntryPoint

import pytest

from mecoq_index.engines import registry
from mecoq_index.errors import InvalidInputError


def install(monkeypatch, name, value):
    entry = EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == entry.group else []
    )


def test_a_plug_in_is_an_engine_like_any_other(monkeypatch):
    install(monkeypatch, "mine", "mecoq_index.engines.numpy:NumpyEngine")
    assert set(registry.available_engines()) == {"faiss", "milvus", "mine", "numpy", "torch"}
    assert registry.get_engine("mine").name == "numpy"


def test_an_unknown_engine_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(InvalidInputError, match=r"unknown engine 'fais'; choose one of \['faiss'"):
        registry.get_engine("fais")


def test_the_default_engine_is_there():
    assert registry.DEFAULT_ENGINE in registry.available_engines()


def test_a_plug_in_may_not_replace_a_built_in_engine(monkeypatch):
    install(monkeypatch, "numpy", "x:Y")
    with pytest.raises(InvalidInputError, match=r"may not replace built-in ones: \['numpy'\]"):
        registry.available_engines()
