"""Texts, an encoder and codebooks for the tests with other packages.

These packages are imported inside tests: they warn while they are imported, which the settings of
the whole suite would turn into errors.
"""

from zlib import crc32

import numpy as np
import pytest

from mecoq_index import Codebooks

WIDTH = 16
SUBJECTS = ("a cat", "two dogs", "the old lighthouse", "nobody", "a train", "every gull")
VERBS = ("sleeps on the roof", "watches the sea", "waits for rain", "is late again", "sings")


def pytest_collection_modifyitems(items):
    for item in items:
        if "integrations" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def encode_texts(texts):
    """Vectors (n, WIDTH) that count the texts' groups of three letters."""
    vectors = np.zeros((len(texts), WIDTH))
    for row, text in zip(vectors, texts, strict=True):
        for start in range(len(text) - 2):
            number = crc32(text[start : start + 3].encode())
            row[number % WIDTH] += 1 if number >> 31 else -1
    return vectors + 0.01


@pytest.fixture
def encoder():
    return encode_texts


@pytest.fixture
def texts():
    return [f"{subject} {verb}" for subject in SUBJECTS for verb in VERBS]


@pytest.fixture
def books():
    """M=4 codebooks of K=16 codewords, each the vectors of some texts."""
    vectors = encode_texts([f"{i} texts about {i % 7}" for i in range(16)]).reshape(16, 4, 4)
    codewords = vectors.transpose(1, 0, 2) + np.random.default_rng(0).standard_normal((4, 16, 4))
    return Codebooks(codewords / np.linalg.norm(codewords, axis=2, keepdims=True))
