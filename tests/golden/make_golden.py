"""Writes files of the current formats beside this script; they must stay readable forever.

The files of lower versions are kept as earlier releases wrote them.

    python tests/golden/make_golden.py
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from mecoq_index._tensor_file import foreign_dtype
from mecoq_index.codebook_file import FORMAT_VERSION as CODEBOOKS_VERSION
from mecoq_index.codebooks import Backbone, Codebooks, Layer, VectorStatistics
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


def make_current_codebooks():
    """The same with all that the current version of the formats can hold beside."""
    half = np.array([0x3F80, 0x4000], "<u2").view(foreign_dtype("bfloat16"))  # 1 and 2
    state = {"w": np.ones((2, 2), np.float16), "steps": np.array(3), "b": half}
    books = make_codebooks()
    return replace(
        books,
        backbone=replace(books.backbone, state=state, base_sha256="cd" * 32),
        normalize=True,
        statistics=VectorStatistics(5, (1.0, 2.0, 4.0), (0.5, 0.75, 1.0)),
        report={"recall": 0.5, "worst": ["a", None, True]},
    )


if __name__ == "__main__":
    books, ids = make_current_codebooks(), np.array([10, 7, 30])
    for suffix in ("pt", "safetensors"):
        books.save(HERE / f"codebooks-v{CODEBOOKS_VERSION}.{suffix}")
    index = HERE / f"index-v{FORMAT_VERSION}.mecoq"
    shutil.rmtree(index, ignore_errors=True)
    engine = NumpyEngine.build(books, np.array([[0, 1], [2, 3], [3, 3]], np.uint8), ids)
    save_bundle(engine, index, names=Names.from_strings(["a.jpg", "b.jpg", "ü.jpg"], ids))
