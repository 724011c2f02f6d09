"""Torch files, and arrays to torch tensors and back; torch is imported when needed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._optional import require
from ._reading import named_damage
from ._tensor_file import FOREIGN_TYPES, foreign_dtype, foreign_name
from .errors import ArtifactError, InvalidInputError

if TYPE_CHECKING:
    import torch

_WAY_OUT = (
    "Or convert the file where torch is installed: "
    "Codebooks.load('c.pt').save('c.safetensors') makes one that is read without torch."
)


def require_torch(purpose: str) -> None:
    """Check that torch is there to read or write a codebook file.

    Raises:
        MissingDependencyError: If it is not installed; names the extra and the way without torch.
    """
    require("torch", extra="train", purpose=purpose, otherwise=_WAY_OUT)


def to_torch(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return a tensor with a copy of an array; records of `foreign_dtype` become torch's own type.

    Raises:
        MissingDependencyError: If torch is not installed.
    """
    require_torch("making a tensor")
    import torch

    name = foreign_name(array.dtype)
    if name is None:
        return torch.from_numpy(np.array(array))
    integers = torch.from_numpy(np.array(array.view(f"i{array.dtype.itemsize}")))
    foreign: torch.dtype = getattr(torch, name)
    return integers.view(foreign)


def from_torch(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return an array with a tensor's values, on the CPU.

    Types that NumPy lacks, such as bfloat16, become records of one integer with the same bytes, of
    the dtype ``[("bfloat16", "<u2")]``; `to_torch` turns them back.

    Raises:
        InvalidInputError: If it is no tensor, or a codebook file can hold none of its kind.
    """
    require_torch("reading a tensor")
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise InvalidInputError(f"a tensor must be in this place, got {type(tensor).__name__}.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise InvalidInputError("tensors must be dense and hold their values, but one does not.")
    size = tensor.numel() * tensor.element_size()
    if size > tensor.untyped_storage().nbytes():
        raise InvalidInputError(
            f"a tensor must hold all of its values, but one of shape {tuple(tensor.shape)} repeats "
            "a part of them. Save a copy of it, made by .clone()."
        )
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if name in FOREIGN_TYPES:
        dtype = foreign_dtype(name)
        integers = tensor.view(torch.int16 if dtype.itemsize == 2 else torch.int8)
        return np.asarray(integers.numpy()).view(dtype)
    try:
        array: npt.NDArray[Any] = tensor.numpy()
    except (TypeError, RuntimeError) as exc:
        raise InvalidInputError(f"tensors of type {name} cannot be kept in a file.") from exc
    return array


def _check_container(path: Path) -> None:
    """Compare the checksums in the zip archive that a torch file is, which torch does not do.

    Raises:
        ArtifactError: If a part differs from its checksum, or is compressed: torch never does
            that, and takes the memory that such a part unpacks to.
    """
    with named_damage(f"{path} is damaged"), zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or (
            sum(part.file_size for part in parts) > path.stat().st_size
        ):
            raise ValueError("it must hold its parts uncompressed, each once")
        damaged = archive.testzip()
    if damaged is not None:
        raise ArtifactError(
            f"{path} is damaged: {damaged} in it differs from its checksum. "
            "Restore the file from a copy."
        )


def load_torch(path: Path) -> Any:
    """Read a torch file without ever running code from it.

    Raises:
        ArtifactError: If the file is damaged, is no torch file, or holds pickled objects.
        MissingDependencyError: If torch is not installed.
    """
    require_torch(f"reading {path.name}")
    import torch

    with path.open("rb") as stream:
        is_archive = stream.read(4) == b"PK\x03\x04"  # as torch decides it
    if is_archive:
        _check_container(path)
    try:
        # torch warns of what it finds odd in a file; here a file is read or refused.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise ArtifactError(
            f"{path} is no codebook file: it is damaged, or holds Python objects that would run "
            "code when loaded, and is refused. Save tensors and plain values only."
        ) from exc
    except Exception as exc:  # a damaged pickle can make torch raise anything at all
        raise ArtifactError(
            f"{path} is no readable torch file; it is truncated, damaged or of another kind."
        ) from exc
