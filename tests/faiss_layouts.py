"""Codebooks, and every layout of FAISS that `index_factory` accepts."""

import numpy as np

from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.engines.faiss.inject import layers_of


def make_codebooks(M=4, K=16, Ds=4, seed=0, projection=(), normalize=False):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    return Codebooks(c.astype(np.float32), projection=projection, normalize=normalize)


ACCEPTED = [
    (256, "MeCoQ"),
    (256, "MeCoQ4"),
    (256, "MeCoQ4x8np"),
    (256, "IDMap,MeCoQ4x8"),
    (256, "IDMap2,MeCoQ4x8"),
    (256, "MeCoQ4x8,IDMap2"),
    (256, "MeCoQ,RFlat"),
    (256, "IVF8,MeCoQ4x8"),
    (256, "IVF8_HNSW4,MeCoQ"),
    (256, "IVF8(HNSW4),MeCoQ"),
    (256, "IVF8(IVF3,Flat),MeCoQ"),
    (256, "IVF8,MeCoQ,IDMap2"),
    (256, "IVF8,MeCoQ,Refine(Flat)"),
    (256, "IDMap2,IVF8,MeCoQ4x8"),
    (256, "HNSW8,MeCoQ"),
    (256, "HNSW8,MeCoQ,IDMap2"),
    (256, "Projection,MeCoQ"),
    (256, "Projection,IVF8,MeCoQ,IDMap2"),
    (16, "MeCoQ4x4"),
    (16, "IVF8,MeCoQ4x4"),
    (16, "HNSW8,MeCoQ4x4"),
    (16, "MeCoQ4x4fs"),
    (16, "MeCoQ4x4fs_64"),
    (16, "MeCoQ4x4fs,IDMap2"),
    (16, "MeCoQ4x4fs,Refine(MeCoQ)"),
    (16, "MeCoQ4x4fs,RFlat,IDMap2"),
    (16, "IVF8,MeCoQ4x4fs"),
    (16, "IVF8_HNSW4,MeCoQ4x4fs,Refine(MeCoQ4x4),IDMap2"),
    (16, "IVF8,MeCoQ4x4fs_128,IDMap"),
    (16, "Projection,MeCoQ4x4fs,Refine(MeCoQ)"),
]


def layer(width=20):
    weight = np.random.default_rng(9).standard_normal((16, width), dtype=np.float32)
    return Layer(weight, np.linspace(-1, 1, 16, dtype=np.float32))


def codebooks_for(K, string):
    return make_codebooks(K=K, projection=[layer()] if "Projection" in string else ())


def width_of(books, string):
    return books.P if "Projection" in string else books.D


def holds(index, books):
    """Whether all product quantizers in an index hold exactly these codewords."""
    from faiss import vector_to_array

    found = [vector_to_array(holder.pq.centroids) for holder in layers_of(index).pq_holders]
    return all(np.array_equal(codewords, books.codewords.ravel()) for codewords in found)
