"""Verifying what was built looks at few rows here: test_verification.py tests it in full."""

from functools import partial
from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def short_verification(monkeypatch):
    if find_spec("pymilvus"):
        from mecoq_index.engines.milvus import builder

        monkeypatch.setattr(builder, "verify", partial(builder.verify, rows=50, queries=4))
