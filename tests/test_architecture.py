"""The shape of the package: what may import what, and what an import may cost."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import mecoq_index
from mecoq_index.cli import main

PACKAGE = Path(mecoq_index.__file__).parent

# Each layer may import from itself and from those above it in this list.
LAYERS = [
    {"errors"},
    {
        *("_optional", "_arrays", "_files", "_devices", "_workspace", "_progress", "_arguments"),
        *("_plain", "_tensor_file", "_torch_tensors"),
    },
    {"codebooks", "codebook_file", "backbone", "vector_statistics"},
    {"scoring"},
    {"sparse_codes"},
    {"data"},
    {"embed", "engines"},
    {"learn", "index"},
    {"baselines", "embedding_function"},
    {"bench"},
    {"cli"},
    {"__main__"},
]
# Side by side, and allowed: the ground floor and the codebooks with their file.
FREE_LAYERS = 3


def imports_of(source, module):
    """Every module of this package that the source text imports, at any depth of its code."""
    found = set()
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = resolve_name("." * node.level + (node.module or ""), package)
            found |= {base} if node.module else {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("mecoq_index.")}


# The trainer and the engines know nothing of each other, though one lies higher.
STRANGERS = {("learn", "engines"), ("engines", "learn")}


def forbidden(source, module):
    """Imports that point upwards or sideways."""
    level = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    part = module.split(".")[1]
    wrong = []
    for name in imports_of(source, module):
        other = name.split(".")[1]
        if other == "__version__" or other == part:
            continue
        sideways = level[other] == level[part] and level[part] >= FREE_LAYERS
        if level[other] > level[part] or sideways or (part, other) in STRANGERS:
            wrong.append(name)
    return wrong


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            is_package = parts[-1] == "__init__"
            # resolve_name wants the package; a package's own module is one level deeper
            yield path, ".".join(("mecoq_index", *parts[:-1], "_" if is_package else parts[-1]))


def test_modules_import_only_from_layers_below():
    wrong = {m: f for path, m in modules() if (f := forbidden(path.read_text(), m))}
    assert wrong == {}


@pytest.mark.parametrize(
    "source,module",
    [
        ("from ..engines.base import Hits", "mecoq_index.learn.x"),
        ("from ..learn import trainer", "mecoq_index.engines.x"),
        ("def f():\n    from .bench import runner", "mecoq_index.scoring"),
        ("import mecoq_index.cli", "mecoq_index.bench.x"),
    ],
)
def test_a_planted_upward_import_would_be_found(source, module):
    assert forbidden(source, module)


HEAVY = (
    "('torch', 'faiss', 'pymilvus', 'matplotlib', 'h5py', 'PIL', 'torchvision', 'sklearn', "
    "'pyarrow')"
)


def loaded_by(code):
    program = f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import mecoq_index; mecoq_index.Codebooks; mecoq_index.encode; dir(mecoq_index)",
        "from mecoq_index.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_import_is_light(code):
    assert loaded_by(code) == "[]"


def test_the_test_of_light_imports_can_fail():
    assert loaded_by("import mecoq_index; mecoq_index.train") == "['torch']"


def test_all_names_are_sorted_visible_and_loadable():
    assert sorted(mecoq_index.__all__) == mecoq_index.__all__
    assert set(mecoq_index.__all__) == set(mecoq_index._HOMES)
    assert set(dir(mecoq_index)) >= set(mecoq_index.__all__)
    for name in mecoq_index.__all__:
        assert getattr(mecoq_index, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mecoq_index.nothing  # noqa: B018


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help_with_an_example(name):
    text = main.commands[name].help
    assert "Example:" in text
    assert f"mecoq-index {name}" in text


def test_no_file_has_outgrown_one_subject():
    sizes = {p.name: len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert max(sizes.values()) <= 400, sizes
