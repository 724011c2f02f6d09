"""Writes files of the current formats beside this script; they must stay readable for ever.

``codebooks-v1.pt`` and ``index-v1.mecoq`` are kept as earlier releases have written them.

    python tests/golden/make_golden.py
"""

import shutil
from pathlib import Path

import numpy as np

from mecoq_index.codebook_file import FORMAT_VERSION as CODEBOOKS_VERSION
from mecoq_index.codebooks import Backbone, Codebooks, Layer
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.index.bundle import FORMAT_VERSION
from mecoq_index.index.names import Names
from mecoq_index.index.stored import save_bundle

HERE = Path(__file__).parent


def make_codebooks():
    """Codebooks whose every number is exact in float32."""
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    layer = Layer(np.arange(12).reshape(4, 3) / 4, np.array([0.5, -0.5, 0.25, 0.0]))
    backbone = Backbone("module:net", "ab" * 32, {"resize": 8, "crop": 8}, {"w": np.ones((2, 2))})
    return Codebooks(np.stack([corners, corners[::-1]]), [layer], backbone, {"seed": 3})


if __name__ == "__main__":
    books, ids = make_codebooks(), np.array([10, 7, 30])
    if not (file := HERE / f"codebooks-v{CODEBOOKS_VERSION}.pt").exists():
        books.save(file)
    index = HERE / f"index-v{FORMAT_VERSION}.mecoq"
    shutil.rmtree(index, ignore_errors=True)
    engine = NumpyEngine.build(books, np.array([[0, 1], [2, 3], [3, 3]], np.uint8), ids)
    save_bundle(engine, index, names=Names.from_strings(["a.jpg", "b.jpg", "ü.jpg"], ids))
