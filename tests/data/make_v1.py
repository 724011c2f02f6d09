"""Writes the files of format version 1 beside this script; they must stay readable for ever.

python tests/data/make_v1.py
"""

from pathlib import Path

import numpy as np

from mecoq_index.codebooks import Backbone, Codebooks, Layer
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.engines.stored import save_bundle

HERE = Path(__file__).parent


def make_codebooks():
    """Codebooks whose every number is exact in float32."""
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    layer = Layer(np.arange(12).reshape(4, 3) / 4, np.array([0.5, -0.5, 0.25, 0.0]))
    backbone = Backbone("module:net", "ab" * 32, {"resize": 8, "crop": 8}, {"w": np.ones((2, 2))})
    return Codebooks(np.stack([corners, corners[::-1]]), [layer], backbone, {"seed": 3})


if __name__ == "__main__":
    books = make_codebooks()
    books.save(HERE / "codebooks-v1.pt")
    engine = NumpyEngine.build(books, np.array([[0, 1], [2, 3], [3, 3]], np.uint8))
    save_bundle(engine, HERE / "index-v1.mecoq", names=["a.jpg", "b.jpg", "c.jpg"], overwrite=True)
