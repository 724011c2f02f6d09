from importlib.metadata import EntryPoint

import pytest

from mecoq_index.engines import registry
from mecoq_index.errors import InvalidInputError


def plug_in(monkeypatch, name, value):
    entry = EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == entry.group else []
    )


def test_a_plug_in_is_an_engine_like_any_other(monkeypatch):
    plug_in(monkeypatch, "mine", "mecoq_index.engines.numpy:NumpyEngine")
    assert set(registry.available_engines()) == {"faiss", "milvus", "mine", "numpy", "torch"}
    assert registry.get_engine("mine").name == "numpy"


def test_a_plug_in_may_not_replace_a_built_in_engine(monkeypatch):
    plug_in(monkeypatch, "numpy", "x:Y")
    with pytest.raises(InvalidInputError, match=r"may not replace built-in ones: \['numpy'\]"):
        registry.available_engines()
