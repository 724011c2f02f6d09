"""A process that is forked after FAISS has worked in threads answers instead of waiting forever."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("faiss")
if not hasattr(os, "fork"):
    pytest.skip("processes cannot be forked here", allow_module_level=True)

PROGRAM = """
import os
import signal
import sys
import warnings

import faiss
import numpy as np
from faiss_layouts import make_codebooks

from mecoq_index.engines.faiss.engine import FaissEngine

books = make_codebooks(K=16)
codes = np.random.default_rng(0).integers(16, size=(5000, 4)).astype(np.uint8)
q = np.random.default_rng(1).standard_normal((200, 16), dtype=np.float32)
how = {"": {}, "allowed": {"allowed": np.arange(4000)}, "k_factor": {"k_factor": 2}}[sys.argv[3]]
faiss.omp_set_num_threads(1)
engine = FaissEngine.build(books, codes, factory=sys.argv[1])
faiss.omp_set_num_threads(int(sys.argv[2]))
want = engine.search(q, 5, **how)


def in_child():
    warnings.simplefilter("always")
    with warnings.catch_warnings(record=True) as caught:
        got = engine.search(q, 5, **how), engine.search(q, 5, **how)
        engine.add(codes[:10])
    same = all((hits.ids == want.ids).all() for hits in got)
    print(f"same={same} threads={faiss.omp_get_max_threads()} warnings={len(caught)}", flush=True)
    print(*(w.message for w in caught), flush=True)


for _ in range(2):  # the parent goes on in threads
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # whoever waits forever is killed
        in_child()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print(f"status={status} parent={faiss.omp_get_max_threads()}", flush=True)
    assert (engine.search(q, 5, **how).ids == want.ids).all()
"""


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "factory,how",
    [
        ("MeCoQ", ""),
        ("MeCoQ", "allowed"),
        ("MeCoQ4x4fs", ""),
        ("MeCoQ4x4fs", "k_factor"),
        ("IVF8,MeCoQ", ""),
        ("HNSW8,MeCoQ", ""),
    ],
)
def test_a_fork_after_a_parallel_search_answers_in_one_thread_and_says_so(factory, how):
    said = run(factory, "2", how)
    assert said.count("status=0 parent=2") == 2
    assert said.count("same=True threads=1 warnings=1") == 2
    assert "Start processes with the method 'spawn'" in said


def test_a_fork_of_a_process_with_one_thread_says_nothing():
    assert run("MeCoQ", "1", "").count("same=True threads=1 warnings=0") == 2
