"""Damaged, foreign and newer files: refused in one sentence, or read as if nothing had happened."""

import io
import json
import zipfile

import numpy as np
import pytest

pytest.importorskip("faiss")
import torch

from mecoq_index.codebook_file import FORMAT_VERSION, torch_content
from mecoq_index.codebooks import Backbone, Codebooks, Layer
from mecoq_index.data.vectors import open_vectors
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import ArtifactError, MecoqError
from mecoq_index.index import bundle as bundle_module
from mecoq_index.index.bundle import _checksum
from mecoq_index.index.names import Names
from mecoq_index.index.stored import open_bundle, save_bundle

CODES = np.random.default_rng(2).integers(16, size=(60, 4), dtype=np.uint8)
IDS = np.random.default_rng(3).permutation(1000)[:60].astype(np.int64)
NAMES = Names.from_strings([f"photos/ä{i}.jpg" for i in range(60)], IDS)


def make_codebooks(seed=0):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((4, 16, 4))
    layer = Layer(rng.standard_normal((16, 5)), rng.standard_normal(16))
    state = {"w": rng.standard_normal((3, 3)).astype(np.float32)}
    backbone = Backbone("module:net", "ab" * 32, {"resize": 8, "mean": [0.5, 0.25]}, state)
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    return Codebooks(c, [layer], backbone, {"seed": seed, "versions": {"torch": "2.4"}})


BOOKS = make_codebooks()


def files_in(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


# Ways to damage a file


def flip_bits(rng, content):
    for at in rng.integers(len(content), size=rng.integers(1, 4)):
        content[at] ^= 1 << int(rng.integers(8))


def truncate(rng, content):
    del content[int(rng.integers(len(content))) :]


def extend(rng, content):
    content += rng.bytes(int(rng.integers(1, 40)))


def zero(rng, content):
    at = int(rng.integers(len(content)))
    content[at : at + 64] = bytes(len(content[at : at + 64]))


def cut_out(rng, content):
    at = int(rng.integers(len(content)))
    del content[at : at + int(rng.integers(1, 20))]


def put_in(rng, content):
    at = int(rng.integers(len(content)))
    content[at:at] = rng.bytes(int(rng.integers(1, 20)))


def overwrite(rng, content):
    at = int(rng.integers(len(content)))
    noise = rng.bytes(int(rng.integers(1, 30)))
    content[at : at + len(noise)] = noise


def repeat(rng, content):
    content += bytes(content)


DAMAGES = (flip_bits, flip_bits, flip_bits, truncate, extend, zero, cut_out, put_in, overwrite)
DAMAGES += (repeat,)


def saved(save, *args, **named):
    stream = io.BytesIO()
    save(stream, *args, **named)
    return stream.getvalue()


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return stream.getvalue()


FOREIGN = (
    b"",
    b"\0" * 5000,
    b"{}",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"format": "mecoq-index bundle", "version": 2}',
    b'{"format": "mecoq-index bundle", "version": ' + b"9" * 5000 + b"}",
    b"\x89PNG\r\n\x1a\n" + bytes(100),
    b"PK\x03\x04" + bytes(100),
    b"IxPq" + bytes(range(256)),
    b"\x93NUMPY\x01\x00" + bytes(100),
    archive(a="b"),
    saved(np.save, CODES),
    saved(np.savez, codes=CODES, ids=IDS, offsets=IDS, text=CODES.ravel()),
    saved(lambda stream: torch.save({"a": torch.ones(3)}, stream)),
    saved(lambda stream: torch.save([1, 2, 3], stream)),
)


def damaged(rng, content):
    """The bytes of a file after something happened to it."""
    if rng.random() < 0.1:
        return FOREIGN[int(rng.integers(len(FOREIGN)))]
    changed = bytearray(content)
    for _ in range(1 if rng.random() < 0.9 else 3):
        if changed:
            DAMAGES[int(rng.integers(len(DAMAGES)))](rng, changed)
    return bytes(changed)


def opened(make, *args, refusals=ArtifactError):
    """What ``make`` gives; None if it refuses in one sentence. All else is raised."""
    try:
        return make(*args)
    except refusals as exc:
        message = str(exc)
        assert message.strip()
        assert "\n" not in message, message[:2000]
        assert len(message) < 1000, message[:2000]
        return None


# Bundles


def content_of(path):
    engine, bundle = open_bundle(path)
    ids = np.sort(engine.ids())
    return (
        bundle.manifest,
        ids.tolist(),
        engine.codes(ids).tolist(),
        bundle.names.ids.tolist(),
        list(bundle.names),
        codebooks_content(bundle.codebooks),
    )


def codebooks_content(books):
    backbone = books.backbone
    return (
        learned_content(books),
        dict(books.provenance),
        None
        if backbone is None
        else (
            backbone.name,
            backbone.weights_sha256,
            dict(backbone.transform),
            {name: (v.dtype, v.shape, v.tobytes()) for name, v in backbone.state.items()},
        ),
    )


def learned_content(books):
    layers = [(layer.weight.tobytes(), layer.bias.tobytes()) for layer in books.projection]
    return books.fingerprint, books.codewords.shape, books.codewords.tobytes(), layers


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The files of three bundles, and a folder to put them into."""
    root = tmp_path_factory.mktemp("fuzz")
    ivf = FaissEngine.build(BOOKS, CODES, IDS, factory="IVF4,MeCoQ")
    save_bundle(ivf, root / "ivf", names=NAMES)
    save_bundle(NumpyEngine.build(BOOKS, CODES, IDS), root / "numpy", names=NAMES)
    save_bundle(FaissEngine.build(make_codebooks(1), CODES), root / "other")
    (root / "work").mkdir()
    return root


def fill(folder, files):
    for file in folder.iterdir():
        file.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind,seed", [("ivf", 0), ("numpy", 1)])
def test_500_damaged_bundles_are_refused_or_unharmed(bundles, kind, seed):
    rng = np.random.default_rng(seed)
    whole, other = files_in(bundles / kind), files_in(bundles / "other")
    want, work = content_of(bundles / kind), bundles / "work"
    refused = 0
    for _ in range(500):
        files = dict(whole)
        name = sorted(files)[int(rng.integers(len(files)))]
        what = rng.random()
        if what < 0.05:
            second = sorted(files)[int(rng.integers(len(files)))]
            files[name], files[second] = files[second], files[name]
        elif what < 0.1:
            files[name] = sorted(other.values())[int(rng.integers(len(other)))]
        elif what < 0.13:
            del files[name]
        else:
            files[name] = damaged(rng, files[name])
        fill(work, files)
        found = opened(content_of, work)
        refused += found is None
        assert found is None or found == want
    assert refused > 400


def test_bundles_of_a_newer_version_are_refused(bundles):
    for version in (bundle_module.FORMAT_VERSION + 1, 99, "2", 2.0, True, None, 0, -1):
        files = files_in(bundles / "ivf")
        manifest = json.loads(files["manifest.json"]) | {"version": version}
        manifest["checksum"] = _checksum(manifest)
        fill(bundles / "work", files | {"manifest.json": json.dumps(manifest).encode()})
        with pytest.raises(ArtifactError, match=r"has format version .*, but this release"):
            open_bundle(bundles / "work")


def test_the_fuzzer_would_notice_what_is_not_checked(bundles, monkeypatch):
    whole = files_in(bundles / "numpy")
    manifest = json.loads(whole["manifest.json"])
    manifest["description"]["items"] = 61
    monkeypatch.setattr(bundle_module, "_checksum", lambda manifest: manifest["checksum"])
    fill(bundles / "work", whole | {"manifest.json": json.dumps(manifest).encode()})
    assert opened(content_of, bundles / "work") != content_of(bundles / "numpy")


# Single files


def fuzz(path, whole, seed, rounds, make, **options):
    """What ``make`` gives for many damaged files; how many of them it refuses."""
    rng, found, refused = np.random.default_rng(seed), [], 0
    for _ in range(rounds):
        path.write_bytes(damaged(rng, whole))
        result = opened(make, path, **options)
        refused += result is None
        found += [] if result is None else [result]
    return found, refused


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_codebook_files_are_refused_or_unharmed(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    BOOKS.save(path)
    whole = path.read_bytes()
    want = codebooks_content(BOOKS)
    found, refused = fuzz(path, whole, 2, 500, lambda path: codebooks_content(Codebooks.load(path)))
    assert all(content == want for content in found)
    assert refused > 200


def test_codebook_files_of_a_newer_version_are_refused(tmp_path):
    for version in (FORMAT_VERSION + 1, 99, "1", None, 0):
        torch.save(torch_content(BOOKS.content()) | {"version": version}, tmp_path / "c.pt")
        with pytest.raises(ArtifactError, match=r"has format version .*, but this release"):
            Codebooks.load(tmp_path / "c.pt")


def test_damaged_files_of_codes_are_refused_or_unharmed(tmp_path):
    engine = NumpyEngine.build(BOOKS, CODES, IDS)
    engine.save(tmp_path / "c.npz")

    def make(path):
        read = NumpyEngine.open(path, BOOKS)
        return read.ids().tolist(), read.codes(read.ids()).tolist()

    whole = (tmp_path / "c.npz").read_bytes()
    want = make(tmp_path / "c.npz")
    found, refused = fuzz(tmp_path / "c.npz", whole, 3, 500, make)
    assert all(content == want for content in found)
    assert refused > 250


def test_damaged_files_of_names_are_refused_or_unharmed(tmp_path):
    NAMES.save(tmp_path / "n.npz")

    def make(path):
        read = Names.load(path)
        return read.ids.tolist(), list(read)

    whole = (tmp_path / "n.npz").read_bytes()
    want = make(tmp_path / "n.npz")
    found, refused = fuzz(tmp_path / "n.npz", whole, 4, 300, make)
    assert all(content == want for content in found)
    assert refused > 150


def write_vectors(path):
    x = np.random.default_rng(5).standard_normal((50, 6)).astype(np.float32)
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".fbin":
        path.write_bytes(np.array([50, 6], "<u4").tobytes() + x.tobytes())
    elif path.suffix == ".fvecs":
        path.write_bytes(np.column_stack([np.full(50, 6, "<u4").view("<f4"), x]).tobytes())
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        column = pyarrow.array(list(x), pyarrow.list_(pyarrow.float32()))
        parquet.write_table(pyarrow.table({"z": column}), path, row_group_size=20)
    return x


def fuzz_vectors(path):
    """Shapes that are read from damaged files, with the files' sizes; how many are refused."""

    def make(path):
        file = open_vectors(path)
        rows = np.concatenate([rows for _, rows in file.chunks(16)]) if file.n else np.empty((0, 1))
        assert rows.shape[0] == file.n
        assert rows.size == 0 or rows.shape == (file.n, file.width)
        return rows.shape, path.stat().st_size

    whole = path.read_bytes()
    return fuzz(path, whole, 6, 250, make, refusals=MecoqError)


@pytest.mark.parametrize("suffix", [".npy", ".fbin", ".fvecs", ".parquet"])
def test_damaged_vector_files_are_refused_or_give_rows_of_the_shape_they_promise(tmp_path, suffix):
    """These formats have no checksums: another number in a row cannot be noticed."""
    path = tmp_path / f"x{suffix}"
    x = write_vectors(path)
    size = path.stat().st_size
    np.testing.assert_array_equal(open_vectors(path).read(0, 50), x)
    found, refused = fuzz_vectors(path)
    assert refused > 50
    if suffix in (".npy", ".fbin"):
        assert {length for shape, length in found if shape == x.shape} == {size}
