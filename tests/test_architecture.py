"""The shape of the package: what may import what, and what an import may cost."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
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
        *("_plain", "_json", "_array_file", "_tensor_file", "_torch_tensors"),
        *("_locks", "_reading", "_system_errors", "_addresses"),
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
    """Path and dotted name of every module but the package itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            is_package = parts[-1] == "__init__"
            # resolve_name wants the package; a package's own module is one level deeper
            yield path, ".".join(("mecoq_index", *parts[:-1], "_" if is_package else parts[-1]))


def test_every_module_has_a_layer():
    layered = {part for layer in LAYERS for part in layer}
    assert {module.split(".")[1] for _, module in modules()} == layered


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


def runtime_imports(source, module, known):
    """The modules out of ``known`` that the source text imports when it, or a function of it, runs.

    Imports under ``if TYPE_CHECKING`` are for type checkers alone and do not count.
    """
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {
                line for part in node.body for line in range(part.lineno, part.end_lineno + 1)
            }
    found = set()
    for node in ast.walk(ast.parse(source)):
        if getattr(node, "lineno", None) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = resolve_name("." * node.level + base, module.rpartition(".")[0])
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= {member if member in known else base for member in members}
    return found & known


def circle(sources):
    """Modules that import each other in a circle; empty if there are none.

    Args:
        sources: Source texts by the dotted names of their modules.
    """
    packages = {module.rpartition(".")[0] for module in sources}
    graph = {}
    for module, source in sources.items():
        # Relative imports of a package start in itself.
        inside = f"{module}.__init__" if module in packages else module
        graph[module] = runtime_imports(source, inside, set(sources))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return exc.args[1]
    return []


def package_sources():
    sources = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("mecoq_index", *path.relative_to(PACKAGE).with_suffix("").parts)
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return sources


def test_no_modules_import_each_other_in_a_circle():
    assert circle(package_sources()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from .b import B",
        "from . import b",
        "def f():\n    from .b import B",
        "import mecoq_index.x.b",
        "if TYPE_CHECKING:\n    from .c import C\nelse:\n    from .b import B",
    ],
)
def test_a_planted_circle_would_be_found(planted):
    sources = {
        "mecoq_index": "",
        "mecoq_index.x": "",
        "mecoq_index.x.a": planted,
        "mecoq_index.x.b": "class B:\n    def c(self):\n        from ..c import C",
        "mecoq_index.c": "import os\nfrom .x.a import A",
    }
    assert set(circle(sources)) == {"mecoq_index.x.a", "mecoq_index.x.b", "mecoq_index.c"}
    sources["mecoq_index.x.a"] = "if TYPE_CHECKING:\n    from .b import B"
    assert circle(sources) == []


@pytest.mark.slow
def test_a_circle_is_found_in_the_package_itself():
    sources = package_sources()
    sources["mecoq_index.scoring"] += "\ndef f():\n    from .engines.numpy import NumpyEngine\n"
    assert "mecoq_index.scoring" in circle(sources)


# Folders of engines, which nothing else knows: code above them asks the registry.
ENGINES = {"faiss", "milvus"}


def engines_known_to(source, module):
    """The engines whose folder the source text imports from, or that it names in a string.

    In ``require("faiss")`` the string names a library.
    """
    found = {name.split(".")[2] for name in imports_of(source, module) if ".engines." in name}
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    libraries = {
        argument for call in calls if ast.unparse(call.func) == "require" for argument in call.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set() if node in libraries else {node.value}
    return found & ENGINES


def test_only_the_registry_knows_which_engines_there_are():
    found = set()
    for path, module in modules():
        parts = path.relative_to(PACKAGE).parts
        is_engine = parts[0] == "engines" and parts[1] in ENGINES
        is_registry = parts == ("engines", "registry.py")
        if not is_engine and not is_registry and engines_known_to(path.read_text(), module):
            found.add("/".join(parts))
    assert found == set()


@pytest.mark.parametrize(
    "planted",
    [
        "from ..engines.faiss.engine import FaissEngine",
        "def f():\n    from ..engines.faiss import engine",
        "if TYPE_CHECKING:\n    import mecoq_index.engines.faiss.gpu",
        "x = get_engine('faiss')",
    ],
)
def test_a_planted_use_of_an_engine_would_be_found(planted):
    assert engines_known_to(planted, "mecoq_index.index.x") == {"faiss"}
    for allowed in ("from ..engines.base import Engine", "require('faiss', extra='cpu')"):
        assert engines_known_to(allowed, "mecoq_index.index.x") == set()


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


@pytest.mark.slow
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
    sizes = {
        str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size > 400} == {}
