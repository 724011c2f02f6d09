"""Importing pymilvus without the settings that it looks for, and without what it prints.

When it is imported, pymilvus parses the ``MILVUS_URI`` of the environment and fails, with a message
that repeats a password in it, if that is not the address of a server. It also reads a ``.env``
file, in an interactive session that of the working folder, which may be a downloaded one: such a
file could name the server that the token of the environment goes to. It is not read here.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ..._optional import require
from ...errors import InvalidInputError, MissingDependencyError
from .address import URI_VARIABLE, is_file, locate_database

_OLD_URI_VARIABLE = "MILVUS_DEFAULT_CONNECTION"  # read if the other is not set
_TIMEOUT_VARIABLE = "MILVUS_CONN_TIMEOUT"
_NO_FILE_VARIABLE = "PYTHON_DOTENV_DISABLED"
_LOGGERS = ("pymilvus", "pymilvus.milvus_client")


def import_pymilvus() -> ModuleType:
    """Import pymilvus, and keep it from printing the errors that this package raises.

    Raises:
        InvalidInputError: If a variable of the environment that pymilvus reads when it is imported
            is not what it must be.
        MissingDependencyError: If pymilvus is not installed.
    """
    if "pymilvus" not in sys.modules:
        _check_environment()
        with _environment_as_it_is():
            failure = _failure()
        if failure:  # not while handling the error, which may repeat a password
            raise InvalidInputError(
                f"pymilvus cannot be imported ({failure}), mostly because of variables that it "
                f"reads: {URI_VARIABLE} must be the address of a server, and {_TIMEOUT_VARIABLE} a "
                "number. Unset them."
            )
    pymilvus = require("pymilvus", extra="milvus", purpose="the milvus engine")
    quiet_pymilvus()
    return pymilvus


def _check_environment() -> None:
    for variable in (URI_VARIABLE, _OLD_URI_VARIABLE):
        uri = os.environ.get(variable, "")
        try:
            is_server = not uri or not is_file(locate_database(uri).uri)
        except InvalidInputError:
            is_server = False
        if not is_server:
            raise InvalidInputError(
                f"{variable} must be the address of a server, such as http://host:19530, because "
                "pymilvus cannot be imported otherwise. Unset it, and pass a file as the uri."
            )


def _failure() -> str:
    """Return the kind of error of an import of pymilvus with variables that it reads, or nothing.

    Its text is left out, because it may repeat a password.

    Raises:
        MissingDependencyError: If pymilvus is not installed.
        Exception: Any error of an import without such variables.
    """
    try:
        require("pymilvus", extra="milvus", purpose="the milvus engine")
    except (MissingDependencyError, ImportError):
        raise
    except Exception as exc:
        read = (URI_VARIABLE, _OLD_URI_VARIABLE, _TIMEOUT_VARIABLE)
        if not any(os.environ.get(name) for name in read):
            raise
        return type(exc).__name__
    return ""


@contextmanager
def _environment_as_it_is() -> Iterator[None]:
    """Keep a ``.env`` file from being read, or take back what was read from it."""
    before = dict(os.environ)
    os.environ[_NO_FILE_VARIABLE] = "1"  # known to python-dotenv 1.1.1 and later
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(
            {name: text for name, text in before.items() if os.environ.get(name) != text}
        )


_ours = threading.local()


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what pymilvus logs in this thread: this package raises it as an error."""
    _ours.depth = getattr(_ours, "depth", 0) + 1
    try:
        yield
    finally:
        _ours.depth -= 1


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not getattr(_ours, "depth", 0)


def quiet_pymilvus() -> None:
    """Keep pymilvus from printing errors, with tracebacks, of calls that this package makes.

    What other code of the process does with pymilvus is logged as before.
    """
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_is_not_ours)  # a filter that is there already is not added again
