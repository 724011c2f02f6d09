"""What is fuzzed: functions of bytes that may raise errors of ours, and nothing else.

One line in `TARGETS` is one more target; its first inputs lie in ``corpus/``, in files whose names
begin with the target's.
"""

import json
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mecoq_index import Codebooks
from mecoq_index.data.metadata import load_ids, load_labels
from mecoq_index.data.source import open_source
from mecoq_index.engines.faiss.grammar import parse
from mecoq_index.engines.milvus.address import is_address, locate, locate_database
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import MecoqError
from mecoq_index.index.bundle import Bundle
from mecoq_index.index.columns import ItemColumns
from mecoq_index.index.manifest import checksum
from mecoq_index.index.names import Names
from mecoq_index.learn.config import TrainConfig

CORPUS = Path(__file__).with_name("corpus")
SECRET = "S3cretOfTheTests"
_LONGEST = 3000  # characters of a repr


class BadMessageError(Exception):
    """An error of ours that is no sentence, or says too much."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        suffix: The suffix of the file that the bytes are put into; empty for text.
        read: Takes the path of the file, or the text.
    """

    suffix: str
    read: Callable[[object], object]

    def __call__(self, data):
        """Read some bytes; return whether they were accepted.

        Raises:
            Exception: Anything but an error of ours, which is a finding.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if self.suffix:
                    with _file(self.suffix, data) as path:
                        self.read(path)
                else:
                    self.read(data.decode("utf-8", "surrogateescape"))
            except MecoqError as exc:
                _check_message(str(exc))
                return False
        return True


def _check_message(message):
    if not message.strip():
        raise BadMessageError("an empty message")


@cache
def _folder():
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    return tempfile.TemporaryDirectory(prefix="fuzz-", dir=where)


@contextmanager
def _file(suffix, data):
    path = Path(_folder().name) / f"input{suffix}"
    path.write_bytes(data)
    yield path


@cache
def books(M=4, K=16):
    c = np.random.default_rng(0).standard_normal((M, K, 4))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


def _read_codebooks(path):
    read = Codebooks.load(path)
    assert len(repr(read)) < _LONGEST
    assert read.codewords.nbytes <= 64 * path.stat().st_size
    z = np.zeros((1, read.D), np.float32)
    z[:, 0] = 1
    assert np.isfinite(z).all()


def _read_rows(path):
    items = open_source(path)
    if not hasattr(items, "chunks"):
        return
    rows = 0
    for start, block in items.chunks(64):
        assert start == rows
        assert block.shape[1] == items.width
        rows += len(block)
    assert rows == items.n


def _read_tables(path):
    for column in ("v", None):
        open_source(path, vector_column=column, id_column="name", columns=["year"]).to_array()


def _read_ids(path):
    found = load_ids(path)
    assert len(found) <= path.stat().st_size + 1
    with suppress(MecoqError):  # ids need not be labels
        load_labels(path)


def _read_manifest(path):
    """A manifest among the files of a good index, as it is and with a checksum that agrees."""
    folder = path.with_name("index.mecoq")
    if not folder.exists():
        NumpyEngine.build(books(), np.zeros((3, 4), np.uint8)).save(path.with_name("codes.npz"))
        _save_index(folder)
    file = folder / "manifest.json"
    file.write_bytes(path.read_bytes())
    try:
        Bundle.open(folder)
    except MecoqError as exc:
        _check_message(str(exc))
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            return
        document["checksum"] = checksum(document)
        text = json.dumps(document)
    except (ValueError, TypeError, RecursionError):
        return
    file.write_text(text)
    Bundle.open(folder)


def _save_index(folder):
    from mecoq_index.index.stored import save_bundle

    engine = NumpyEngine.build(books(), np.zeros((3, 4), np.uint8))
    save_bundle(engine, folder, names=["a", "b", "c"])


def manifest_of_index():
    """The manifest that `_read_manifest` begins with."""
    with tempfile.TemporaryDirectory() as folder:
        _save_index(Path(folder) / "i.mecoq")
        return (Path(folder) / "i.mecoq" / "manifest.json").read_bytes()


def _read_names(path):
    names = Names.load(path)
    assert len(list(names)) == len(names.ids)


def _read_columns(path):
    columns = ItemColumns.load(path)
    assert len(columns.ids) >= len(columns)


def _read_codes(path):
    engine = NumpyEngine.open(path, books())
    engine.search(books().codewords[:, 0].reshape(1, -1), 3)


def _read_factory(text):
    for found in (books(), books(3, 256)):
        spec = parse(text, found, items=1000)
        assert parse(str(spec), found, items=1000) == spec


def _read_address(text):
    is_address(text)
    for read in (locate, locate_database):
        try:
            place = read(text or "x")
        except MecoqError as exc:
            _check_message(str(exc))
            # The names of files are shown; a word without these marks can hold no password.
            if SECRET in str(exc) and ".db" not in text and any(mark in text for mark in ":@="):
                raise BadMessageError(f"a secret in {exc}") from None
        else:
            shown = f"{place} {place!r}"
            if f":{SECRET}@" in text and SECRET in shown and ".db" not in text:
                raise BadMessageError(f"a secret in {shown!r}")


TARGETS = {
    "codebooks-safetensors": Target(".safetensors", _read_codebooks),
    "codebooks-pt": Target(".pt", _read_codebooks),
    "codebooks-npy": Target(".npy", _read_codebooks),
    "manifest": Target(".json", _read_manifest),
    "names": Target(".npz", _read_names),
    "columns": Target(".npz", _read_columns),
    "codes": Target(".npz", _read_codes),
    "rows-npy": Target(".npy", _read_rows),
    "rows-npz": Target(".npz", _read_rows),
    "rows-fvecs": Target(".fvecs", _read_rows),
    "rows-bvecs": Target(".bvecs", _read_rows),
    "rows-fbin": Target(".fbin", _read_rows),
    "rows-hdf5": Target(".hdf5", _read_rows),
    "rows-parquet": Target(".parquet", _read_tables),
    "rows-arrow": Target(".arrow", _read_tables),
    "ids-txt": Target(".txt", _read_ids),
    "ids-npy": Target(".npy", _read_ids),
    "ids-parquet": Target(".parquet", _read_ids),
    "config": Target(".json", TrainConfig.from_json),
    "factory": Target("", _read_factory),
    "address": Target("", _read_address),
}


def corpus(name):
    """The committed inputs of a target."""
    return [path.read_bytes() for path in sorted(CORPUS.glob(f"{name}.*"))]
