"""Named arrays and one JSON value in a ``.safetensors`` file, read and written without torch.

The JSON text is the only entry of the file's metadata, under the key ``mecoq_index``:

    content     the value
    types       for arrays of types that NumPy lacks, such as bfloat16, the name of the type; the
                file holds them as unsigned integers of the same bytes
    sha256      over ``content``, ``types``, and name, type, shape and bytes of every array

Equal content gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._json import parse_json
from ._reading import check_readable, named_damage
from .errors import ArtifactError

Arrays = Mapping[str, npt.NDArray[Any]]

KEY = "mecoq_index"
# Types of torch that NumPy lacks, and the unsigned integers that hold their bytes.
FOREIGN_TYPES = {"bfloat16": "<u2", "float8_e4m3fn": "|u1", "float8_e5m2": "|u1"}
_SIZES_OF_KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}


def foreign_dtype(name: str) -> np.dtype[np.void]:
    """Return the dtype that stands for a type that NumPy lacks: a record of one integer."""
    return np.dtype([(name, FOREIGN_TYPES[name])])


def foreign_name(dtype: np.dtype[Any]) -> str | None:
    """Return the name of the type that a dtype of `foreign_dtype` stands for, else None."""
    name = dtype.names[0] if dtype.names else None
    return name if name in FOREIGN_TYPES and dtype == foreign_dtype(name) else None


def is_storable(dtype: np.dtype[Any]) -> bool:
    """Whether a file can hold arrays of this dtype: booleans, integers, floats of up to 8 bytes."""
    return bool(foreign_name(dtype)) or dtype.itemsize in _SIZES_OF_KINDS.get(dtype.kind, ())


def digest(arrays: Arrays, head: str = "") -> str:
    """SHA-256 over ``head`` and name, type, shape and bytes of all arrays, in order of names."""
    sha = hashlib.sha256(head.encode())
    for name in sorted(arrays):
        array = arrays[name]
        dtype = foreign_name(array.dtype) or array.dtype.newbyteorder("<").str
        sha.update(repr((name, dtype, array.shape)).encode())
        sha.update(_little_endian(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def write(path: Path, content: Any, arrays: Arrays) -> None:
    """Write arrays that `is_storable`, and a JSON value, to a file."""
    from safetensors.numpy import save

    types = {name: found for name, a in arrays.items() if (found := foreign_name(a.dtype))}
    whole = {"content": content, "types": types, "sha256": digest(arrays, _text(content, types))}
    stored = {
        name: _little_endian(array).view(FOREIGN_TYPES[types[name]])
        if name in types
        else _little_endian(array)
        for name, array in arrays.items()
    }
    # Were there more entries in the metadata, their order would change from run to run.
    path.write_bytes(save(stored, {KEY: json.dumps(whole)}))


def read(path: Path) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """Return the JSON value and the arrays of a file, after comparing them with their checksum.

    Raises:
        ArtifactError: If the file is missing, damaged, or holds no such value.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = check_readable(path).read_bytes()
    with named_damage(f"{path} is damaged, or no .safetensors file", SafetensorError):
        arrays = load(data)  # compares all sizes and places with each other and with the file's
        length = int.from_bytes(data[:8], "little")
        metadata = parse_json(data[8 : 8 + length]).get("__metadata__") or {}
    if KEY not in metadata:
        raise ArtifactError(
            f"{path} holds no codebooks: its metadata has no entry {KEY!r}. It must be a file that "
            "mecoq-index wrote."
        )
    with named_damage(f"{path} is damaged: its metadata cannot be read"):
        # Earlier releases wrote numbers that are not finite.
        whole = parse_json(metadata[KEY], finite=False)
        content, types, recorded = whole["content"], whole["types"], whole["sha256"]
        for name, foreign in types.items():
            arrays[name] = arrays[name].view(foreign_dtype(foreign))
        found = digest(arrays, _text(content, types))
    if found != recorded:
        raise ArtifactError(
            f"{path} is damaged: its content differs from the checksum written with it. "
            "Restore the file from a copy."
        )
    return content, arrays


def _text(content: Any, types: Mapping[str, str]) -> str:
    return json.dumps([content, types], sort_keys=True)


def _little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    dtype = array.dtype.newbyteorder("<")
    return np.asarray(array, dtype=dtype, order="C")
