"""Optional dependencies: installed versions, and imports that name the extra to install."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from .errors import MissingDependencyError


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def require(
    module: str, *, extra: str | None, purpose: str, otherwise: str | None = None
) -> ModuleType:
    """Import ``module`` and return it.

    Args:
        module: Dotted module name.
        extra: The extra of this distribution that installs it; None if there is none.
        purpose: The thing that needs the module; the first words of the error.
        otherwise: A sentence on how to do without the module; the last words of the error.

    Raises:
        MissingDependencyError: If the module's distribution is not installed. A module that is
            installed but fails to import raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module.partition(".")[0]:
            raise
        package = exc.name if extra is None else f"'mecoq-index[{extra}]'"
        raise MissingDependencyError(
            f"{purpose} needs {exc.name!r}, which is not installed. "
            f"Install it with: pip install {package}" + (f". {otherwise}" if otherwise else "")
        ) from exc


@cache
def import_faiss() -> Any:
    """The faiss module; installations are inspected once, since every search calls this.

    Raises:
        MissingDependencyError: If FAISS is not installed, or two builds of it overwrite each other.
    """
    if all(installed_version(name) for name in ("faiss-cpu", "faiss-gpu")):
        raise MissingDependencyError(
            "faiss-cpu and faiss-gpu are both installed and have overwritten each other's files. "
            "Keep one: pip uninstall -y faiss-cpu && "
            "pip install --force-reinstall --no-deps faiss-gpu"
        )
    return require("faiss", extra="cpu", purpose="FAISS")
