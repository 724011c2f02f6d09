"""Files written by earlier releases stay readable, with the same content."""

import runpy
from pathlib import Path

import numpy as np

from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.stored import open_bundle

DATA = Path(__file__).parent / "data"


def test_codebooks_of_version_1_are_read():
    want = runpy.run_path(str(DATA / "make_v1.py"))["make_codebooks"]()
    books = Codebooks.load(DATA / "codebooks-v1.pt")
    assert books.fingerprint == want.fingerprint
    assert books.fingerprint.startswith("9539e8236aae39ab")
    np.testing.assert_array_equal(books.codewords, want.codewords)
    assert books.backbone.transform == {"resize": 8, "crop": 8}
    assert books.provenance == {"seed": 3}


def test_an_index_of_version_1_is_read_and_searched():
    engine, bundle = open_bundle(DATA / "index-v1.mecoq")
    hits = engine.search(np.array([[2, 0, 0, -1]], np.float32), 3)
    assert list(bundle.names) == ["a.jpg", "b.jpg", "c.jpg"]
    np.testing.assert_array_equal(hits.ids, [[0, 2, 1]])
    np.testing.assert_allclose(hits.scores, [[1, 0, -1]], atol=1e-6)
