"""Every command under attack; see harness.py, which also runs single cases by their names.

Plain pytest runs a few dozen cases, and ``-m slow`` some hundreds; the script runs all.
"""

import fnmatch
import itertools
import os
import sys

import click
import pytest

if sys.platform != "linux":
    pytest.skip("limits of processes and capabilities are Linux's", allow_module_level=True)
for package in ("faiss", "torch", "torchvision", "pyarrow", "h5py", "milvus_lite", "matplotlib"):
    pytest.importorskip(package)

from hostile import harness, inputs, surroundings
from hostile.cases import by_name, cases_of, option_attacks, sample
from hostile.commands import COMMANDS, LONG, templates
from hostile.scene import SECRET
from mecoq_index.cli import main
from mecoq_index.data.images import SUFFIXES as IMAGES
from mecoq_index.data.vectors import SUFFIXES as VECTORS

SEED = 0
# Cases that break the rule today, as patterns of their names. This list must become empty.
KNOWN = ()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Processes for the cases; those of pytest-xdist have one each, and share the inputs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "hostile"
    folder.mkdir(exist_ok=True)
    made = harness.Pool(1 if "PYTEST_XDIST_WORKER" in os.environ else 2, folder)
    yield made
    made.close()


def check(pool, cases):
    results = pool.run(cases)
    found = [
        line
        for line in harness.bad(results)
        if not any(fnmatch.fnmatch(line, known) for known in KNOWN)
    ]
    again = "python tests/hostile/harness.py NAME runs one again"
    assert not found, f"{len(found)} of {len(cases)} cases; {again}:\n" + "\n".join(found)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - LONG))
def test_some_attacks_end_in_a_sentence_and_harm_nothing(pool, command):
    check(pool, sample(command, 4, SEED))


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_attacks_end_in_a_sentence_and_harm_nothing(pool, command):
    check(pool, sample(command, 25, SEED + 1))


# What is attacked


def test_every_command_is_attacked():
    assert set(COMMANDS) == set(main.commands)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_output_of_a_command_is_attacked(command):
    outputs = {
        option.opts[0]
        for option in main.commands[command].params
        if isinstance(option.type, click.Path) and not option.type.exists
    }
    words = [template.words for template in templates(command)]
    pairs = [pair for line in words for pair in itertools.pairwise(line)]
    attacked = {before for before, word in pairs if word.startswith("{new:")}
    assert outputs <= attacked


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_and_input_of_a_command_is_attacked(command):
    tried = {name.rpartition(".")[0] for name in option_attacks(command)}
    for parameter in main.commands[command].params:
        is_output = isinstance(parameter.type, click.Path) and not parameter.type.exists
        if isinstance(parameter, click.Option) and not is_output:
            assert parameter.opts[0] in tried


def test_every_format_is_attacked():
    assert set(inputs.WRITERS) == set(VECTORS)
    attacked = {f"x{suffix}" for suffix in VECTORS}
    assert attacked <= set(inputs.FORMATS["vectors"])
    images = {name[name.index(".") :] for name in inputs.FORMATS["image"]}
    assert images >= IMAGES - {".jpeg", ".tiff", ".ppm"}


def test_names_of_cases_are_unique_and_lead_to_the_case():
    cases = [case for command in COMMANDS for case in cases_of(command)]
    assert len({case.name for case in cases}) == len(cases) > 3000
    assert by_name(cases[700].name) == cases[700]


# The harness would notice


@pytest.mark.parametrize(
    "code,err,problem",
    [
        (70, b"Traceback (most recent call last):\nOSError: x\n", "traceback: OSError: x"),
        (3, b"", "exit code 3"),
        (1, b"what?\n", "no single sentence"),
        (1, b"Error: a\nError: b\n", "no single sentence"),
        (1, b"Error: a\nand b\n", "no single sentence"),
        (1, b"Error: \x1b[31m\n", "printed control characters"),
        (1, b"Error: no token root:S3cretOfTheTests\n", "printed a secret"),
        (0, b"warning: S3cretOfTheTests\n", "printed a secret"),
    ],
)
def test_a_bad_end_is_noticed(code, err, problem):
    found = list(surroundings.what_was_wrong(code, b"", err, SECRET, 0))
    assert [line for line in found if line.startswith(problem)] == found != []


def test_changes_of_the_surroundings_are_noticed(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("a")
    before = surroundings.snapshot(tmp_path)
    assert surroundings.snapshot(tmp_path) == before
    for change in (
        lambda: (tmp_path / "a").write_text("b"),
        lambda: (tmp_path / "a").chmod(0),
        lambda: (tmp_path / "c").mkdir(),
        lambda: ((tmp_path / "b").unlink(), (tmp_path / "b").symlink_to("c")),
    ):
        before = surroundings.snapshot(tmp_path)
        change()
        assert surroundings.snapshot(tmp_path) != before
