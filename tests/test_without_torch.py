"""Everything that serves works in an environment without torch; the rest says what to install."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mecoq_index.codebooks import Backbone, Codebooks, Layer

BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

sys.meta_path.insert(0, Block())
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with codebooks in both formats, vectors, and a bundle with names."""
    root, rng = tmp_path_factory.mktemp("serving"), np.random.default_rng(0)
    c = rng.standard_normal((4, 16, 4))
    books = Codebooks(
        c / np.linalg.norm(c, axis=-1, keepdims=True),
        [Layer(rng.standard_normal((16, 6)), np.zeros(16))],
        Backbone("module:net", "ab" * 32, {}, {"w": np.ones(3, np.float16)}),
    )
    books.save(root / "c.pt")
    books.save(root / "c.safetensors")
    np.save(root / "x.npy", rng.standard_normal((200, 6), dtype=np.float32))
    return root


def run(code, work):
    """Run code in a process in which torch cannot be imported."""
    tree = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code],
        cwd=work, env={**os.environ, "PYTHONPATH": tree}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_cannot_be_imported_in_these_tests(work):
    code = "\ntry: import torch\nexcept ImportError: print('blocked')"
    assert run(code, work) == "blocked\n"


@pytest.mark.parametrize("engine,factory", [("numpy", None), ("faiss", "IVF4,MeCoQ")])
def test_an_index_is_built_saved_opened_and_searched(work, engine, factory):
    if engine == "faiss":
        pytest.importorskip("faiss")
    options = {} if factory is None else {"factory": factory}
    out = run(
        f"""
import numpy as np
import mecoq_index as mi
books = mi.Codebooks.load("c.safetensors")
z = books.embed(np.load("x.npy"))
codes = mi.encode(z, books)
engine = mi.get_engine({engine!r}).build(books, codes, **{options})
before = engine.search(z[:3], 5)
from mecoq_index.index.stored import open_bundle, save_bundle
save_bundle(engine, "{engine}.mecoq", names=[f"{{i}}.jpg" for i in range(200)])
opened, bundle = open_bundle("{engine}.mecoq")
after = opened.search(z[:3], 5)
np.testing.assert_array_equal(after.ids, before.ids)
bundle.codebooks.save("again.safetensors")
print(after.ids[:, 0].tolist(), bundle.names[int(after.ids[0, 0])], "torch" in sys.modules)
""",
        work,
    )
    ids, _, rest = out.partition("]")
    assert len(ids.split(",")) == 3
    assert rest.split() == [f"{ids[1:].split(',')[0]}.jpg", "False"]


def test_the_commands_build_and_search(work):
    pytest.importorskip("faiss")
    out = run(
        """
from mecoq_index.cli import main
def cli(*args):
    try: main(list(args))
    except SystemExit as done: assert not done.code, args
cli("build", "--codebooks", "c.safetensors", "--input", "x.npy", "--out", "cli.mecoq")
cli("inspect", "cli.mecoq", "--json")
cli("search", "cli.mecoq", "x.npy", "-k", "3", "--json")
print("torch" in sys.modules)
""",
        work,
    )
    assert '"kind": ' in out
    assert '"score": ' in out or '"scores": ' in out
    assert out.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "code,message",
    [
        ("mi.Codebooks.load('c.pt')", "reading c.pt needs 'torch', which is not installed. Install "
         "it with: pip install 'mecoq-index[train]'. Or convert the file where torch is installed: "
         "Codebooks.load('c.pt').save('c.safetensors')"),
        ("mi.Codebooks.load('c.safetensors').save('d.pt')", "writing a .pt file needs 'torch'"),
        ("mi.get_engine('torch')", "the 'torch' engine needs 'torch', which is not installed. "
         "Install it with: pip install 'mecoq-index[train]'"),
        ("from mecoq_index._devices import pick_device; pick_device(None)",
         "choosing a device needs 'torch'"),
    ],
)  # fmt: skip
def test_torch_is_asked_for_by_name_where_it_is_needed(work, code, message):
    code = f"""
import mecoq_index as mi
try: {code}
except mi.MissingDependencyError as exc: print(exc)
"""
    assert message in run(code, work)
    assert not (work / "d.pt").exists()
