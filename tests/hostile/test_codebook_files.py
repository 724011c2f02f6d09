"""Codebook files from somebody else: damaged, lying, or asking for code or other files."""

import copy
import json
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hostile.limited import mutated, report, run
from mecoq_index import _tensor_file
from mecoq_index.codebook_file import torch_content
from mecoq_index.codebooks import Backbone, Codebooks, Layer, VectorStatistics
from mecoq_index.errors import ArtifactError, InvalidInputError

EYE = np.eye(4, dtype=np.float32)[None].repeat(2, axis=0)
BOOKS = Codebooks(
    EYE,
    [Layer(np.ones((8, 3)), np.zeros(8))],
    Backbone("mecoq:small", "ab" * 32, {"resize": 16}, {"w": np.ones((2, 2), np.float32)}),
    {"seed": 1},
    statistics=VectorStatistics(10, (1, 2, 3), (0.1, 0.2, 0.3)),
)
SUFFIXES = (".pt", ".safetensors")


# What a file may not hold, as changes of a good one; a new attack is one line.


def deep(levels=300):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def backbone(**changes):
    return {"backbone": {**torch_content(BOOKS.content())["backbone"], **changes}}


def layer(**tensors):
    return {"projection": [{"weight": torch.ones(8, 3), **tensors}]}


def statistics(count):
    return {"statistics": {"count": count, "lengths": [1, 2, 3], "spread": [0, 0, 0]}}


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is to be given up by torch
        return torch.quantize_per_tensor(torch.ones(2, 4, 4), 1, 0, torch.qint8)


# torch.load refuses some of these itself.
TORCH = {
    "expanded codewords": {"codewords": torch.ones(1).expand(8, 256, 10**8)},
    "expanded bias": layer(bias=torch.zeros(1).expand(10**12)),
    "sparse codewords": {"codewords": torch.ones(2, 4, 4).to_sparse()},
    "codewords without values": {"codewords": torch.empty(2, 4, 4, device="meta")},
    "one number": {"codewords": torch.tensor(1.0)},
    "complex codewords": {"codewords": torch.ones(2, 4, 4, dtype=torch.complex64)},
    "codewords of bfloat16": {"codewords": torch.ones(2, 4, 4, dtype=torch.bfloat16)},
    "quantized codewords": {"codewords": quantized()},
    "no codewords": {"codewords": None},
    "a list of numbers": {"codewords": [[[1.0]]]},
    "projection of numbers": {"projection": [1, 2]},
    "projection is a text": {"projection": "linear"},
    "a layer without bias": layer(),
    "backbone is a list": {"backbone": [1]},
    "state is a text": backbone(state="w"),
    "state of lists": backbone(state={"w": [1]}),
    "deep provenance": {"provenance": deep()},
    "provenance is a text": {"provenance": "yes"},
    "provenance by numbers": {"provenance": {1: 2}},
    "huge integers": {"provenance": {"seed": 10**5000}},
    "statistics of text": statistics("many"),
    "infinite statistics": statistics(float("inf")),
    "statistics by other names": {"statistics": {"n": 1}},
    "version is a list": {"version": [1]},
    "version of another planet": {"version": 10**30},
    "normalize is a text": {"normalize": "false"},
    "fingerprint is a number": {"fingerprint": 3},
}


def structure(**changes):
    """The plain values of a good .safetensors file, with changes."""
    path = Path(tempfile.mkdtemp()) / "x.safetensors"
    BOOKS.save(path)
    found, arrays = _tensor_file.read(path)
    return {**found, **changes}, arrays


def weights(file, names=()):
    found = {"name": "a", "weights_sha256": "b", "base_sha256": None, "transform": {}}
    return {"backbone": {**found, "weights": {"names": [*names], "sha256": "", "file": file}}}


SAFETENSORS = {
    "a trillion layers": {"projection": 10**12},
    "layers by text": {"projection": "all"},
    "weights of other names": weights(None, ["x"] * 1000),
    "weights elsewhere": weights("../../etc/passwd"),
    "weights in an absolute place": weights("/etc/passwd"),
    "weights in no file": weights("a\0b"),
    "weights in a number": weights(3),
    "deep report": {"report": deep(45)},
    "report is null": {"report": None},
    "normalize is a text": {"normalize": "false"},
    "format is null": {"format": None},
}


def compressed(path):
    """A torch file whose parts are compressed: 400 MB in half a megabyte."""
    torch.save(torch.zeros(100), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            with archive.open(name, "w") as stream:
                stream.write(content)
                for _ in range(50 * name.endswith("data/0")):
                    stream.write(bytes(8 << 20))


def raw_metadata(text):
    """A .safetensors file whose metadata hold this text."""
    head = json.dumps({"__metadata__": {_tensor_file.KEY: text}}).encode()
    return len(head).to_bytes(8, "little") + head


def attacks():
    folder = Path(tempfile.mkdtemp())
    warnings.simplefilter("ignore")
    for number, (name, change) in enumerate(TORCH.items()):
        torch.save({**torch_content(BOOKS.content()), **change}, folder / f"{number}.pt")
        yield f".pt: {name}", partial(Codebooks.load, folder / f"{number}.pt")
    for name, value in (
        ("bare expanded", torch.ones(1).expand(8, 256, 10**8)),
        ("bare sparse", torch.ones(2, 4, 4).to_sparse()),
        ("official, expanded", {"pq_layer._C": torch.ones(1).expand(8, 256, 10**8)}),
        ("official, of numbers", {"pq_layer._C": 1, "projection.weight": 2, "projection.bias": 3}),
        ("an array", [1, 2]),
    ):
        torch.save(value, folder / "bare.pt")
        yield f".pt: {name}", partial(Codebooks.load, folder / "bare.pt")
    compressed(folder / "compressed.pt")
    yield ".pt: compressed", partial(Codebooks.load, folder / "compressed.pt")
    for name, change in SAFETENSORS.items():
        found, arrays = structure(**change)
        _tensor_file.write(folder / "x.safetensors", found, arrays)
        yield f".safetensors: {name}", partial(Codebooks.load, folder / "x.safetensors")
    for text in ("[" * 100_000, "{}", "[]", "3", '{"content": NaN, "types": {}, "sha256": ""}', ""):
        (folder / "raw.safetensors").write_bytes(raw_metadata(text))
        yield f".safetensors: {text[:20]}", partial(Codebooks.load, folder / "raw.safetensors")
    for size in (0, 2**63, 2**64 - 1, 100):
        (folder / "size.safetensors").write_bytes(size.to_bytes(8, "little") + b"{}")
        yield (
            f".safetensors of a head of {size}",
            partial(Codebooks.load, folder / "size.safetensors"),
        )


def mutations(seed, count):
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp())
    for suffix in SUFFIXES:
        BOOKS.save(folder / f"good{suffix}")
    torch.save(
        torch_content(BOOKS.content()), folder / "old.pth", _use_new_zipfile_serialization=False
    )
    kinds = [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]
    for i in range(count):
        suffix, content = kinds[i % len(kinds)]
        path = folder / f"x{suffix}"
        path.write_bytes(mutated(rng, content))
        yield f"seed {seed}, {i}{suffix}", partial(Codebooks.load, path)


@pytest.mark.slow
def test_lying_files_are_refused_before_they_take_memory():
    bad, counts = run(__file__, "attacks")
    assert bad == []
    read, refused, _ = map(int, counts.split())
    assert read <= 2  # a fingerprint is compared, and version 1 had no such values
    assert refused > 45


@pytest.mark.slow
def test_mutated_files_are_read_or_refused():
    bad, counts = run(__file__, 5, 1500)
    assert bad == []
    assert int(counts.split()[1]) > 1000


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5), np.linspace(0.1, 0.4, 3), [np.int8(3)], Path("a/b"), "caf\udce9",
        2**64 - 1, -(2**63), np.bool_(True), (1, 2),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_taken_comes_back(value, suffix, tmp_path):
    books = replace(BOOKS, provenance={"value": value})
    books.save(tmp_path / f"c{suffix}")
    again = Codebooks.load(tmp_path / f"c{suffix}")
    assert again.provenance == books.provenance
    assert json.loads(json.dumps(again.provenance, allow_nan=False)) == books.provenance


@pytest.mark.parametrize(
    "value,message",
    [
        (float("nan"), "must be finite, since JSON knows no other numbers, got nan"),
        (np.array([1, np.inf]), r"\['value'\]\[1\] must be finite"),
        (2**64, "must be an integer of at most 64 bits"),
        ([10**5000], "must be an integer of at most 64 bits"),
        (np.longdouble(1), "must be a plain value .* got longdouble"),
        (np.datetime64("2020-01-01"), "must be a plain value .* got date"),
        (deep(), "must be nested at most 40 deep"),
    ],
)
def test_what_no_file_could_keep_is_refused_at_once(value, message):
    with pytest.raises(InvalidInputError, match=message):
        replace(BOOKS, provenance={"value": value})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_that_earlier_releases_wrote_are_read_as_unknown(suffix, tmp_path):
    content = {**BOOKS.content(), "report": {"recall": [0.5, float("nan")]}}
    if suffix == ".pt":
        torch.save(torch_content(content), tmp_path / "c.pt")
    else:
        found, arrays = structure(report=content["report"])
        _tensor_file.write(tmp_path / "c.safetensors", found, arrays)
    assert Codebooks.load(tmp_path / f"c{suffix}").report == {"recall": [0.5, None]}


def test_parameters_are_taken_as_codewords(tmp_path):
    content = torch_content(BOOKS.content())
    content["codewords"] = torch.nn.Parameter(content["codewords"])
    torch.save(content, tmp_path / "c.pt")
    torch.save(torch.nn.Parameter(torch.from_numpy(EYE.copy())), tmp_path / "bare.pt")
    assert Codebooks.load(tmp_path / "c.pt").fingerprint == BOOKS.fingerprint
    assert Codebooks.load(tmp_path / "bare.pt").M == 2


# Backbones that a file names


@pytest.fixture
def photo(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    image.new("RGB", (16, 16)).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def naming(name):
    return replace(BOOKS, backbone=Backbone(name, "ab" * 32, {}))


CODE = ["pytest:main", "os:abort", "sys:exit", "photos.weights:net", "conftest:net", "vgg16:x"]
FILES_NAMED = [
    "torchvision:resnet18:/dev/zero",
    "torchvision:resnet18:w.pth",
    "torchvision:vgg16:a:b",
]


@pytest.mark.parametrize("name", [*CODE, *FILES_NAMED])
def test_code_and_files_that_only_a_file_names_are_left_alone(name, photo):
    from mecoq_index import MeCoQEmbeddingFunction
    from mecoq_index.embed.embedder import Embedder

    refusal = "code would be run" if name in CODE else "file of weights would be read"
    books = naming(name)
    for use in (
        lambda: Embedder(books).embed(photo),
        lambda: MeCoQEmbeddingFunction(books).encode_queries([photo / "a.png"]),
    ):
        with pytest.raises(InvalidInputError, match=f"whose {refusal}. If you trust it, say so"):
            use()
    with pytest.raises(InvalidInputError, match="were learned with the backbone"):
        Embedder(books, backbone="mecoq:small").embed(photo)


@pytest.mark.slow
def test_a_file_of_weights_that_the_caller_names_is_read(photo, tmp_path):
    from mecoq_index import MeCoQEmbeddingFunction

    pytest.importorskip("torchvision")
    name = f"torchvision:resnet18:{tmp_path / 'none.pth'}"
    with pytest.raises(ArtifactError, match=r"none\.pth does not exist"):
        MeCoQEmbeddingFunction(naming(name), backbone=name).encode_queries([photo / "a.png"])


COMMANDS = [
    "search x.mecoq photos",
    "add x.mecoq photos",
    "embed photos --codebooks c.safetensors --out z.npy",
    "build photos --codebooks c.safetensors --out y.mecoq --engine numpy",
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bundle_runs_no_code_even_where_it_lies_in_the_current_folder(command, photo, tmp_path):
    from mecoq_index.engines.arrays import CodeArray
    from mecoq_index.engines.numpy import NumpyEngine
    from mecoq_index.index.stored import save_bundle

    books = naming("conftest:net")
    save_bundle(NumpyEngine(CodeArray(books)), tmp_path / "x.mecoq")
    books.save(tmp_path / "c.safetensors")
    done = run_among_traps(tmp_path, command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "whose code would be run" in done.stderr
    assert "Traceback" not in done.stderr


def run_among_traps(folder, command):
    """Run a command in a folder with modules that take the place of packages, and are not run."""
    trap = f"open({str(folder / 'ran')!r}, 'w')\n"
    # timm, for instance, is imported where a file names a model of it.
    for name in ("conftest.py", "timm.py", "faiss.py", "h5py.py", "numpy.py", "click.py"):
        (folder / name).write_text(trap)
    done = subprocess.run(
        [sys.executable, "-m", "mecoq_index", *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(_tensor_file.__file__).parents[1])},
    )
    assert not (folder / "ran").exists()
    return done


def test_no_module_of_the_current_folder_is_imported(tmp_path):
    BOOKS.save(tmp_path / "c.safetensors")
    done = run_among_traps(tmp_path, "inspect c.safetensors")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "name,message",
    [
        ("json:loads", "must return an nn.Module when called without arguments"),
        ("json:JSONDecoder", "must return an nn.Module when called, got JSONDecoder"),
        ("json:__name__", "must return an nn.Module when called without arguments"),
        ("sys:exit", "must return an nn.Module when called without arguments"),
        (".x:y", "the 'package' argument is required"),
        (":y", "Empty module name"),
    ],
)
def test_a_backbone_that_is_none_is_one_sentence(name, message):
    from mecoq_index.embed.backbones import load_backbone

    with pytest.raises(InvalidInputError, match=message):
        load_backbone(name)


@pytest.mark.parametrize(
    "transform,message",
    [
        ({"resize": 10**9}, "resize of the codebooks' backbone must be 1 to 4096 pixels"),
        ({"crop": 0}, "crop of the codebooks' backbone must be 1 to 4096 pixels"),
        ({"crop": "all"}, "must be a number of pixels, got 'all'"),
        ({"mean": [0.5] * 7}, "mean of .* must be three finite numbers, got 7"),
        ({"mean": 3}, "mean of .* must be three numbers"),
        ({"std": [0, 1, 1]}, "std of .* must be above 0"),
    ],
)
def test_a_malformed_transform_is_refused_before_images_are_made(transform, message):
    from mecoq_index.embed.backbones import load_backbone, restore_backbone

    weights = load_backbone("mecoq:small").weights_sha256
    with pytest.raises(InvalidInputError, match=message):
        restore_backbone(Backbone("mecoq:small", weights, transform))


# Copies


def copies(value):
    yield pickle.loads(pickle.dumps(value))
    yield copy.deepcopy(value)
    yield copy.copy(value)


def test_codebooks_and_backbones_can_be_copied():
    for again in copies(BOOKS):
        assert again.fingerprint == BOOKS.fingerprint
        assert again.backbone.state_sha256 == BOOKS.backbone.state_sha256
        assert not again.codewords.flags.writeable


@pytest.mark.parametrize("kind", ["numpy", "torch", "faiss"])
def test_a_copy_of_an_engine_is_whole_and_apart(kind):
    from mecoq_index.engines.registry import get_engine

    pytest.importorskip("faiss")
    books = Codebooks(EYE)
    engine_class = get_engine(kind)
    from mecoq_index import Index

    z = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    index = Index.build(z, books, engine=kind, progress=False)
    assert isinstance(index.engine, engine_class)
    for again in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert len(again) == 40
        np.testing.assert_array_equal(again.search(z[:3], 5).ids, index.search(z[:3], 5).ids)
        again.add(z[:7])
        assert (len(again), len(again.engine), len(index)) == (47, 47, 40)
        np.testing.assert_array_equal(again.search(z[:3], 47).ids.max(), 46)


def embedded(function):
    return function.embed_query([0.9, 0.2, 0.1, 3.0, 1, 1, 1, 1])


@pytest.mark.slow
def test_objects_reach_processes_that_are_spawned():
    import multiprocessing

    from mecoq_index import MeCoQEmbeddingFunction

    function = MeCoQEmbeddingFunction(Codebooks(EYE))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(len, [b"x"]) == [1]
        (copy_,) = pool.map(copy.copy, [function])
    assert embedded(copy_) == embedded(function)


if __name__ == "__main__":
    cases = attacks() if sys.argv[1] == "attacks" else mutations(*map(int, sys.argv[1:]))
    report(cases, memory=400 << 20, packages=["torch"])
