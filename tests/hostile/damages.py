"""Ways to damage the content of a file: functions of a random generator and bytes, to bytes.

`DAMAGES` are for all files; those in `ARRAYS` change an array before it is written. One line more
is one attack more, on every command.
"""

import io
import json
import re
import struct
import zipfile
import zlib

import numpy as np

HUGE = (2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
ZEROS = 400 << 20  # what a bomb holds; more than a command may take


def empty(rng, content):
    return b""


def truncated(rng, content):
    return content[: int(rng.integers(len(content)))]


def flipped(rng, content):
    changed = bytearray(content)
    for at in rng.integers(len(content), size=rng.integers(1, 9)):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flipped_head(rng, content):
    head = content[:200]
    return flipped(rng, head) + content[200:]


def zeroed(rng, content):
    at = int(rng.integers(len(content)))
    hole = bytes(len(content[at : at + int(rng.integers(1, 300))]))
    return content[:at] + hole + content[at + len(hole) :]


def all_zero(rng, content):
    return bytes(len(content))


def noise(rng, content):
    return rng.bytes(int(rng.integers(1, 4000)))


def extended(rng, content):
    return content + rng.bytes(int(rng.integers(1, 100)))


def cut_out(rng, content):
    at = int(rng.integers(len(content)))
    return content[:at] + content[at + int(rng.integers(1, 40)) :]


def oversized(rng, content):
    """A size of many bytes in the head, as a number of 4 or 8 bytes."""
    size = 4 if rng.random() < 0.5 else 8
    value = int(rng.choice(np.array(HUGE, np.uint64))) % 2 ** (8 * size)
    at = int(rng.integers(max(1, min(len(content), 400) - size) // 4 + 1)) * 4
    packed = struct.pack("<I" if size == 4 else "<Q", value)
    return content[:at] + packed + content[at + size :]


def oversized_text(rng, content):
    """A number that is written in digits becomes larger; the file gets no longer if it can."""
    numbers = list(re.finditer(rb"\d+", content[:4000]))
    if not numbers:
        return oversized(rng, content)
    one = numbers[int(rng.integers(len(numbers)))]
    digits = b"9" * int(rng.choice([len(one[0]), len(one[0]) + 2, 12, 25]))
    rest = content[one.end() :]
    grown = len(digits) - len(one[0])
    padded = rest.replace(b" " * grown, b"", 1) if grown > 0 else rest
    return content[: one.start()] + digits + padded


def nested(rng, content):
    return b"[" * 100_000


def bomb(rng, content):
    """An archive or image whose few bytes unpack to very many."""
    if content.startswith(b"\x89PNG"):
        return _large_png()
    if not content.startswith(b"PK"):
        return content + bytes(1 << 20)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size).filename

    def change(name, part):
        return _zeros_after(part[:128]) if name == largest else part

    return _repacked(content, change, zipfile.ZIP_DEFLATED)


def member(rng, content):
    """Another damage, in one member of an archive whose checksums are right."""
    if not content.startswith(b"PK"):
        return flipped(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
    chosen = names[int(rng.integers(len(names)))]
    inner = (truncated, flipped, flipped_head, oversized, oversized_text, extended, empty)
    damage = inner[int(rng.integers(len(inner)))]

    def change(name, part):
        return damage(rng, part) if name == chosen and part else part

    return _repacked(content, change, zipfile.ZIP_STORED)


def objects(rng, content):
    """A pickle that would run code, as a file or as a member of an archive."""
    import pickle

    class Evil:
        def __reduce__(self):
            import os

            return os.mkdir, ("EXECUTED",)

    evil = pickle.dumps(Evil())
    if not content.startswith(b"PK"):
        array = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            array, {"descr": "|O", "fortran_order": False, "shape": (1,)}
        )
        return array.getvalue() + evil if content.startswith(b"\x93NUMPY") else evil
    return _repacked(
        content, lambda name, part: evil if name.endswith(".pkl") else part, zipfile.ZIP_STORED
    )


def evil_backbone(rng, content):
    """The name of a module that would be imported in place of a backbone's name."""
    return content.replace(b"mecoq:small", b"evil:net123")


def lines(rng, content):
    """Text with what a terminal or a reader of lines would trip over."""
    return b"a\x1b[31mred\r\nb\x00c\n\xff\xfe\n" + "é\u2028\u202e\n".encode() + content


def _repacked(content, change, method):
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(stream, "w", method, compresslevel=1) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return stream.getvalue()


def _zeros_after(head):
    """A member that claims in its head, if it is an array, to be as long as it is."""
    if not head.startswith(b"\x93NUMPY"):
        return bytes(ZEROS)
    stream = io.BytesIO()
    shape = (ZEROS // 64, 16)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(ZEROS)


def _large_png(side=13_000):
    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes((side * 3 + 1) * 100), 1)  # the rest of the rows is missing
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + chunk(b"IDAT", body) + chunk(b"IEND", b"")


DAMAGES = {
    damage.__name__: damage
    for damage in (
        *(empty, truncated, flipped, flipped_head, zeroed, all_zero, noise, extended, cut_out),
        *(oversized, oversized_text, nested, bomb, member, objects, evil_backbone, lines),
    )
}

# What a matrix, or a list of numbers, becomes before it is written in its format.
ARRAYS = {
    "no_rows": lambda rng, x: x[:0],
    "no_columns": lambda rng, x: x.reshape(len(x), -1)[:, :0],
    "one_row": lambda rng, x: x[:1],
    "scalar": lambda rng, x: np.array(x.flat[0]),
    "flat": lambda rng, x: x.ravel(),
    "four_axes": lambda rng, x: x.reshape(*x.shape, *[1] * (4 - x.ndim)),
    "narrow": lambda rng, x: x[..., :-1],
    "wide": lambda rng, x: np.repeat(x, 3, axis=-1),
    "transposed": lambda rng, x: np.asfortranarray(x.T),
    "nan": lambda rng, x: _with(x, rng, np.nan),
    "inf": lambda rng, x: _with(x, rng, -np.inf),
    "largest": lambda rng, x: _with(x, rng, 3.4e38),
    "all_largest": lambda rng, x: np.full(x.shape, 3.4e38, np.float32),
    "tiny": lambda rng, x: np.full(x.shape, 1e-45, np.float32),
    "zeros": lambda rng, x: np.zeros_like(x),
    "equal": lambda rng, x: np.broadcast_to(x[:1], x.shape).copy(),
    "negative": lambda rng, x: -np.abs(x.astype(np.int64)) - 1,
    "beyond_float32": lambda rng, x: _with(x.astype(np.float64), rng, 1e300),
    "float16": lambda rng, x: x.astype(np.float16),
    "big_endian": lambda rng, x: x.astype(">f8"),
    "longdouble": lambda rng, x: x.astype(np.longdouble),
    "complex": lambda rng, x: x.astype(np.complex64),
    "boolean": lambda rng, x: x > 0,
    "int64_bounds": lambda rng, x: np.full(x.shape, np.iinfo(np.int64).min),
    "uint64_bounds": lambda rng, x: np.full(x.shape, np.iinfo(np.uint64).max, np.uint64),
    "dates": lambda rng, x: np.zeros(x.shape, "M8[s]"),
    "texts": lambda rng, x: np.full(x.shape, "\x1b[2J\n"),
    "records": lambda rng, x: np.zeros(x.shape, [("a", "f4"), ("b", "i8")]),
}


def _with(x, rng, value):
    changed = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
    changed.flat[int(rng.integers(changed.size))] = value
    return changed


# What a value in a manifest, or in a file of settings, becomes.
VALUES = {
    "null": None,
    "zero": 0,
    "minus_one": -1,
    "beyond_64_bits": 2**80,
    "fraction": 0.5,
    "infinite": float("inf"),
    "not_a_number": float("nan"),
    "true": True,
    "empty_text": "",
    "long_text": "x" * 5000,
    "escape": "\x1b]0;owned\x07\n",
    "surrogate": "\udc80",
    "parent": "../neighbor/canary.txt",
    "absolute": "/etc/hostname",
    "here": ".",
    "list": [],
    "deep": [[[[[]]]]],
    "huge_list": [1, 10**12],
    "dictionary": {},
}


def mutated(rng, document, value):
    """A JSON document with one value, at a random place, replaced; and the place's name."""
    document = json.loads(json.dumps(document))
    places = list(_places(document))
    holder, key = places[int(rng.integers(len(places)))]
    holder[key] = value
    return document


def _places(value):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)
