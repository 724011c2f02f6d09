"""Only learn/objective knows which objectives there are; the rest of the package asks no one."""

import ast
from pathlib import Path

import pytest

import mecoq_index
from mecoq_index.learn.objective.settings import KINDS

PACKAGE = Path(mecoq_index.__file__).parent
OBJECTIVES = PACKAGE / "learn" / "objective"

# These make settings from names; the command line lists the names for its users.
EXCEPTED = {"__init__.py", "learn/presets.py", "learn/config.py"}


def classes():
    """The names of all classes that belong to one objective, or to one quantizer."""
    shared = {"Objective", "Shared", "Quantized"}
    found = set()
    for file in OBJECTIVES.glob("*.py"):
        tree = ast.parse(file.read_text())
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return found - shared


def asked_for(source, *, may_list_names=False):
    """Names and classes of objectives in the code of a file, its docstrings left out."""
    tree = ast.parse(source)
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            found |= {c.value for c in ast.walk(node) if _is_name(c)}
        elif not may_list_names and _is_name(node) and id(node) not in docstrings:
            found.add(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in CLASSES}
        elif not may_list_names and isinstance(node, ast.Name) and node.id in CLASSES:
            found.add(node.id)
    return found


def _is_name(node):
    return isinstance(node, ast.Constant) and node.value in KINDS


CLASSES = classes()


def test_no_other_file_asks_for_an_objective():
    wrong = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if OBJECTIVES in file.parents or name in EXCEPTED:
            continue
        found = asked_for(file.read_text(), may_list_names=name.startswith("cli/"))
        if found:
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize(
    "source",
    [
        'if config.objective.name == "distillation": pass',
        'if name in ("contrast", "signs"): pass',
        "isinstance(config.objective, (int, SignsSettings))",
        "quantizer = SignQuantizer(8, alpha=1.0)",
        'f(objective="signs")',
        'match name:\n    case "signs": pass',
    ],
)
def test_a_planted_question_would_be_found(source):
    assert asked_for(source)


def test_only_questions_count_where_names_may_be_listed():
    assert asked_for('Choice(["signs"])', may_list_names=True) == set()
    assert asked_for('if x == "signs": pass', may_list_names=True) == {"signs"}
    assert asked_for('"""Signs and contrast."""\n"signs"') == set()
