"""One thread in FAISS and torch: the tests' arrays are small, and machines that run them shared."""

from importlib.util import find_spec

import torch

torch.set_num_threads(1)
if find_spec("faiss"):
    import faiss

    faiss.omp_set_num_threads(1)
