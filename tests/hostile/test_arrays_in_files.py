"""Files of arrays and tables that declare what they do not hold, or are damaged.

Every file meets every reader, in a process with little memory.
"""

import io
import os
import sys
import tempfile
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hostile.limited import mutated, report, run
from mecoq_index._array_file import load_npy, open_archive
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.feature_file import FeatureFile
from mecoq_index.data.features import FeatureViews
from mecoq_index.data.metadata import load_ids, load_labels
from mecoq_index.data.source import open_source
from mecoq_index.data.vectors import open_vectors
from mecoq_index.embed.embedder import Embedder
from mecoq_index.engines.arrays import CodeArray
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index.columns import ItemColumns
from mecoq_index.index.names import Names

BOOKS = Codebooks(np.eye(4, dtype=np.float32)[None].repeat(2, axis=0))
HUGE = 10**12
MEMORY = 300 << 20
PACKAGES = ["torch", "h5py", "pyarrow.parquet", "pyarrow.compute"]


def npy(shape, descr="'<f4'", order=False, body=b"", version=1, pad=0):
    head = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}" + " " * pad + "\n"
    size = len(head).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + head.encode() + body


def good(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content in members:
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def encrypted(content):
    """An archive whose members claim to be encrypted."""
    changed = bytearray(content)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + place] |= 1
            at = changed.find(mark, at + 4)
    return bytes(changed)


def lying(content, size):
    """An archive whose list declares another size of its members."""
    changed = bytearray(content)
    at = changed.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 24 : at + 28] = size.to_bytes(4, "little")
        at = changed.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


VECTORS = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
IDS = np.arange(30)
NAMES = Names.from_strings([f"n{i}" for i in range(30)])
ROLES = ["features", "view0", "view1", "ids", "offsets", "text", "names", "codes", "labels"]
ROLES += ["fingerprint", "scale", "backbone", "paths", "database", "queries", "0.values"]


def everywhere(content):
    """The content under every name that a reader asks for."""
    return [(role, content) for role in ROLES]


DEEP = b"[" * 100_000


# A new attack is one line: suffix of the file, and its bytes.
FILES = {
    "shape of a petabyte": (".npy", npy((HUGE, 1000))),
    "shape of a petabyte, read by columns": (".npy", npy((HUGE, 1000), order=True)),
    "shape beyond 64 bits": (".npy", npy((2**70, 2))),
    "negative shape": (".npy", npy((-1, -8), body=bytes(64))),
    "6 GB in a file of 1 KB": (".npy", npy((1_500_000_000,), body=bytes(1000))),
    "texts without bytes": (".npy", npy((HUGE,), "'<U0'")),
    "nothing, in a trillion columns": (".npy", npy((0, HUGE))),
    "nothing, in a trillion rows": (".npy", npy((HUGE, 0))),
    "Python objects": (".npy", npy((3,), "'|O'", body=b"cos\nsystem\n(S'true'\ntR." * 3)),
    "records": (".npy", npy((3,), "[('a', '<f4'), ('b', '<i8')]", body=bytes(36))),
    "nested records": (".npy", npy((1,), "[('a', [('b', '<f4', (10000, 10000))])]")),
    "a head of 60 KB": (".npy", npy((3, 4), body=bytes(48), pad=60_000)),
    "a head of 4 GB": (".npy", b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100)),
    "version 3": (".npy", npy((3, 4), body=bytes(48), version=3)),
    "dates": (".npy", npy((4,), "'<M8[s]'", body=bytes(32))),
    "a scalar": (".npy", good(np.float32(3))),
    "longer than it says": (".npy", good(VECTORS) + bytes(8)),
    "shorter than it says": (".npy", good(VECTORS)[:-8]),
    "members of 6 GB": (".npz", archive(everywhere(npy((1_500_000_000,), body=bytes(64))))),
    "compressed members that claim 1.5 GB": (
        ".npz", lying(archive(everywhere(good(IDS)), zipfile.ZIP_DEFLATED), 3 << 29),
    ),
    "members longer than listed": (".npz", lying(archive(everywhere(good(IDS))), 40)),
    "encrypted members": (".npz", encrypted(archive(everywhere(good(IDS))))),
    "two members of one name": (".npz", archive([("ids", good(IDS)), ("ids", good(IDS))])),
    "other compression": (".npz", archive(everywhere(good(IDS)), zipfile.ZIP_LZMA)),
    "no arrays": (".npz", archive(everywhere(b"text"))),
    "5,000 members": (".npz", archive((f"a{i}", good(np.float32(1))) for i in range(5000))),
    "empty archive": (".npz", archive([])),
    "objects in every place": (".npz", archive(everywhere(npy((3,), "'|O'", body=b"N." * 3)))),
    "deep JSON": (".npz", archive(everywhere(good(np.frombuffer(DEEP, np.uint8))))),
    "deep JSON as text": (".npz", archive(everywhere(good(np.array(DEEP.decode()))))),
    "offsets that wrap around": (
        ".npz",
        archive(
            [
                ("ids", good(np.arange(4))),
                ("names", good(np.frombuffer(b'["a"]', np.uint8))),
                *(
                    (name, good(np.array([0, 2**62, -(2**63), -(2**62), 3])))
                    for name in ("offsets", "0.offsets")
                ),
                *((name, good(np.frombuffer(b"abc", np.uint8))) for name in ("text", "0.text")),
            ]
        ),
    ),
    "views with a gap": (
        ".npz", archive([(name, good(VECTORS)) for name in ("view0", "view2")]),
    ),
    "scale is a vector": (
        ".npz", archive([("features", good(VECTORS)), ("scale", good(np.ones(3)))]),
    ),
    "scale is nothing in float32": (
        ".npz", archive([("features", good(VECTORS)), ("scale", good(np.float64(1e-300)))]),
    ),
    "scale is infinite": (
        ".npz", archive([("features", good(VECTORS)), ("scale", good(np.float64("inf")))]),
    ),
    "fvecs of a width beyond the file": (".fvecs", b"\xff\xff\xff\x7f" + bytes(100)),
    "fvecs of a negative width": (".fvecs", b"\xff\xff\xff\xff" + bytes(100)),
    "fvecs of width 0": (".fvecs", bytes(100)),
    "bvecs of changing width": (".bvecs", b"\4\0\0\0abcd\5\0\0\0abcd"),
    "fbin of a trillion": (".fbin", b"\xff" * 8 + bytes(100)),
    "fbin without width": (".fbin", b"\xff\xff\xff\xff\0\0\0\0"),
    "u8bin of two gigabytes": (".u8bin", b"\0\0\0\x80\1\0\0\0" + bytes(100)),
    "labels in other digits": (".txt", "²\n٣\n".encode()),
    "labels with two signs": (".txt", b"--5\n+-4\n"),
    "labels of 5,000 digits": (".txt", b"9" * 5000 + b"\n1\n"),
    "text that is no UTF-8": (".txt", b"\xff\xfe\n"),
}  # fmt: skip


def hdf5(path, **how):
    import h5py

    with h5py.File(path, "w") as file:
        for name in ("train", "test"):
            file.create_dataset(name, **how)


def linked_hdf5(path, link):
    import h5py

    with h5py.File(path, "w") as file:
        for name in ("train", "test"):
            file[name] = link(h5py)


def group_hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("train")
        file.create_group("test")


def virtual_hdf5(path):
    import h5py

    layout = h5py.VirtualLayout((HUGE, 8), "f4")
    layout[:30] = h5py.VirtualSource("/etc/passwd", "train", (30, 8))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("train", layout)


def parquet(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, store_schema=False)


def arrow(path, **columns):
    import pyarrow as pa

    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def repeated(text, n):
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))


def wide_rows(n, width):
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * width, np.float32)), width)


def bomb(path):
    """Half a megabyte that unpacks to 512 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("ids.npy", "w") as stream:
            stream.write(npy((1 << 26,), "'<i8'"))
            for _ in range(64):
                stream.write(bytes(1 << 23))


LONG = "x" * (1 << 20)

# Files that their own libraries write.
WRITTEN = {
    "rows that were never written.hdf5": partial(hdf5, shape=(HUGE, 8), dtype="f4", chunks=(64, 8)),
    "a chunk of 2 GB.hdf5": partial(
        hdf5, shape=(8, 8), maxshape=(None, None), dtype="u1", chunks=(1 << 16, 1 << 15),
        compression="gzip",
    ),
    "a single value.hdf5": partial(hdf5, data=3.0),
    "texts.hdf5": partial(hdf5, data=["a", "b"]),
    "external storage.hdf5": partial(
        hdf5, shape=(30, 8), dtype="f4", external=[("/etc/passwd", 0, 960)]
    ),
    "a dangling link.hdf5": partial(linked_hdf5, link=lambda h: h.SoftLink("/none")),
    "a link to another file.hdf5": partial(
        linked_hdf5, link=lambda h: h.ExternalLink("/etc/passwd", "x")
    ),
    "a link in a circle.hdf5": partial(linked_hdf5, link=lambda h: h.SoftLink("/train")),
    "groups.hdf5": group_hdf5,
    "virtual.hdf5": virtual_hdf5,
    "half a megabyte that unpacks to 512 MB.npz": bomb,
    "a long text for each row.parquet": lambda path: parquet(path, s=repeated(LONG, 5000)),
    "a long text for each row.arrow": lambda path: arrow(path, s=repeated(LONG, 5000)),
    "rows of zeros.parquet": lambda path: parquet(path, v=wide_rows(1 << 16, 512)),
}  # fmt: skip


def read_vectors(path):
    rows = open_vectors(path)
    for _ in rows.chunks(1024):
        pass


def encode(path):
    items = open_source(path)
    codes = Embedder(BOOKS, given="features").encode(items).codes
    assert len(codes) == len(items)


READERS = {
    "vectors": read_vectors,
    "codes": encode,
    "ids": load_ids,
    "labels": load_labels,
    "views": FeatureViews.load,
    "features": lambda path: FeatureFile(path).array("features"),
    "backbone": lambda path: FeatureFile(path).backbone,
    "names": Names.load,
    "columns": ItemColumns.load,
    "code array": lambda path: CodeArray.load(path, BOOKS),
    "codebooks": Codebooks.load,
}


def attacks():
    folder = Path(tempfile.mkdtemp())
    paths = {}
    for name, (suffix, content) in FILES.items():
        paths[name] = folder / f"{len(paths)}{suffix}"
        paths[name].write_bytes(content)
    for name, write in WRITTEN.items():
        paths[name] = folder / name
        write(paths[name])
    return [
        (f"{attack}, read as {reader}", partial(read, path))
        for attack, path in paths.items()
        for reader, read in READERS.items()
    ]


def mutations(seed, count):
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp())
    kinds = []
    np.save(folder / "a.npy", VECTORS)
    np.savez_compressed(folder / "b.npz", features=VECTORS, view0=VECTORS, view1=VECTORS, scale=2.0)
    NAMES.save(folder / "c.npz")
    ItemColumns.from_values({"year": IDS, "kind": ["a", "b"] * 15}, IDS).save(folder / "d.npz")
    array = CodeArray(BOOKS)
    array.add(np.zeros((30, 2), np.uint8), None)
    array.save(folder / "e.npz")
    (folder / "f.fvecs").write_bytes(b"".join(b"\10\0\0\0" + row.tobytes() for row in VECTORS))
    hdf5(folder / "g.hdf5", data=VECTORS)
    parquet(folder / "h.parquet", v=wide_rows(30, 8), s=[f"s{i}" for i in range(30)])
    arrow(folder / "i.arrow", v=wide_rows(30, 8), s=[f"s{i}" for i in range(30)])
    kinds = [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]
    readers = list(READERS.items())
    for i in range(count):
        suffix, content = kinds[i % len(kinds)]
        path = folder / f"x{suffix}"
        path.write_bytes(mutated(rng, content))
        for reader, read in readers:
            yield f"seed {seed}, {i}{suffix}, read as {reader}", partial(read, path)


@pytest.mark.slow
def test_files_that_declare_much_are_refused_before_they_take_memory():
    for package in ("h5py", "pyarrow"):
        pytest.importorskip(package)
    bad, counts = run(__file__, "attacks")
    assert bad == []
    assert int(counts.split()[1]) > 500


@pytest.mark.slow
def test_mutated_files_are_read_or_refused():
    for package in ("h5py", "pyarrow"):
        pytest.importorskip(package)
    bad, counts = run(__file__, 3, 450)
    assert bad == []
    assert int(counts.split()[0]) > 50


# Some attacks in this process, for every run: without a limit of memory, but with a watch on what
# NumPy is asked for.
LYING = [
    *("shape of a petabyte", "shape of a petabyte, read by columns", "shape beyond 64 bits"),
    *("negative shape", "6 GB in a file of 1 KB", "texts without bytes", "nested records"),
    *("a head of 60 KB", "a head of 4 GB", "version 3", "longer than it says"),
    "shorter than it says",
]


@pytest.mark.parametrize("name", LYING)
def test_an_array_is_measured_before_it_is_read(name, tmp_path, monkeypatch):
    (tmp_path / "x.npy").write_bytes(FILES[name][1])
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("its values were asked for"))
    with pytest.raises(ArtifactError, match=r"x\.npy is no (readable|complete) \.npy file"):
        load_npy(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "name,message",
    [
        ("members of 6 GB", "promises 6000000077 bytes, but 141 are there"),
        ("compressed members that claim 1.5 GB", "is compressed|stored uncompressed"),
        ("encrypted members", "must not be encrypted"),
        ("two members of one name", "two arrays of one name"),
        ("other compression", "stored uncompressed"),
        ("5,000 members", "at most 4096 arrays"),
        ("members longer than listed", "Bad CRC-32"),
    ],
)
def test_an_archive_is_measured_before_it_is_read(name, message, tmp_path):
    (tmp_path / "x.npz").write_bytes(FILES[name][1])
    for read in (Names.load, ItemColumns.load, lambda path: CodeArray.load(path, BOOKS)):
        with pytest.raises(ArtifactError, match=message):
            read(tmp_path / "x.npz")


def test_a_file_that_shrinks_in_memory_is_still_read(tmp_path):
    labels = np.zeros(1_000_000, np.int64)
    np.savez_compressed(tmp_path / "x.npz", features=VECTORS, labels=labels)
    assert len(FeatureFile(tmp_path / "x.npz").array("labels")) == len(labels)
    with pytest.raises(ArtifactError, match="must hold arrays stored uncompressed"):
        with open_archive(tmp_path / "x.npz", what="file of names"):
            pass


def test_a_pipe_is_refused_as_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(ArtifactError, match="must be a file, but it is a pipe"):
        load_npy(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["views with a gap", "scale is a vector"])
def test_what_is_wrong_is_said(name, tmp_path):
    (tmp_path / "x.npz").write_bytes(FILES[name][1])
    message = {"views with a gap": "view1 is missing and view2 is there"}.get(
        name, r"must be a number above 0, got float64 of shape \(3,\)"
    )
    with pytest.raises((ArtifactError, InvalidInputError), match=message):
        open_source(tmp_path / "x.npz").views  # noqa: B018
        FeatureFile(tmp_path / "x.npz").scale  # noqa: B018


if __name__ == "__main__":
    if sys.argv[1] == "attacks":
        report(attacks(), memory=MEMORY, packages=PACKAGES)
    else:
        report(mutations(*map(int, sys.argv[1:])), memory=MEMORY, packages=PACKAGES)
