"""Inputs made from others, which know what checksums and archives would refuse at once."""

import io
import json
import zipfile

import numpy as np

from hostile import damages

_SMALL = [d for name, d in damages.DAMAGES.items() if name not in ("bomb", "nested", "noise")]
_PIECES = (
    *(b"IVF", b"HNSW", b"MeCoQ", b"x4fs", b"Refine(", b")", b",", b"RFlat", b"IDMap2", b"_", b"9"),
    *(b"http://", b"https://", b"root:S3cretOfTheTests@", b"?token=S3cretOfTheTests", b".db", b"/"),
    *(b"[::1]", b":19530", b"@", b"#", b"%2F", b"\\", b"\xff", b"\n", b"\x00", "²".encode(), b" "),
)


def mutated(rng, data, blind):
    """One input made from another.

    Args:
        rng: A generator of NumPy.
        data: The input.
        blind: Changes bytes without any knowledge of formats.
    """
    if not data or rng.random() < 0.4:
        return blind(data)
    if data.startswith(b"PK"):
        return _in_archive(rng, data, blind)
    if data[8:9] == b"{":
        return _in_safetensors(rng, data, blind)
    if data[:1] in b"{[":
        return _in_json(rng, data, blind)
    if rng.random() < 0.5:
        return _SMALL[int(rng.integers(len(_SMALL)))](rng, data)
    at = int(rng.integers(len(data) + 1))
    return data[:at] + _PIECES[int(rng.integers(len(_PIECES)))] + data[at:]


def _in_json(rng, data, blind):
    try:
        document = json.loads(data)
        values = list(damages.VALUES.values())
        changed = damages.mutated(rng, document, values[int(rng.integers(len(values)))])
        return json.dumps(changed).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return blind(data)


def _in_archive(rng, data, blind):
    """Change one member, or its name, and compute the checksums anew."""
    stream = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
            members = [(info.filename, old.read(info)) for info in old.infolist()]
            chosen = int(rng.integers(len(members)))
            for i, (name, content) in enumerate(members):
                if i == chosen:
                    content = _member(rng, content, blind)
                    name = name if rng.random() < 0.95 else members[0][0] + "x"
                if i != chosen or rng.random() < 0.97:
                    new.writestr(name, content)
    except Exception:  # the archive was damaged already
        return blind(data)
    return stream.getvalue()


def _member(rng, content, blind):
    if not content or rng.random() < 0.5:
        return blind(content)
    return _SMALL[int(rng.integers(len(_SMALL)))](rng, content)


def _in_safetensors(rng, data, blind):
    """Change the description or the numbers, and compute the digest anew."""
    from safetensors.numpy import load, save

    from mecoq_index._tensor_file import KEY, _text, digest

    try:
        length = int.from_bytes(data[:8], "little")
        whole = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
        arrays = load(data)
        if rng.random() < 0.6:
            values = list(damages.VALUES.values())
            value = values[int(rng.integers(len(values)))]
            whole["content"] = damages.mutated(rng, whole["content"], value)
        else:
            name = sorted(arrays)[int(rng.integers(len(arrays)))]
            changes = list(damages.ARRAYS.values())
            arrays[name] = changes[int(rng.integers(len(changes)))](rng, arrays[name])
        if rng.random() < 0.5:
            whole["content"]["fingerprint"] = None
        whole["sha256"] = digest(arrays, _text(whole["content"], whole["types"]))
        stored = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return save(stored, {KEY: json.dumps(whole)})
    except Exception:  # the file was damaged already, or cannot hold what was to be put in
        return blind(data)


def blindly(rng):
    """Changes of bytes for where no fuzzer with coverage is at hand."""

    def change(data):
        if not data:
            return rng.bytes(int(rng.integers(1, 40)))
        return _SMALL[int(rng.integers(len(_SMALL)))](rng, data)

    return change
