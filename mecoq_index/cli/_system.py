"""What the system refuses, in a sentence: the file, the reason, and what to do."""

from __future__ import annotations

import errno
import os

from ..errors import first_line

_REMEDIES = {
    errno.ENOSPC: "Free some space.",
    errno.EDQUOT: "Free some space, or have the quota raised.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or write to another disk.",
    errno.EACCES: "Change the permissions of it or of its folder, or choose another place.",
    errno.EPERM: "Change the permissions of it or of its folder, or choose another place.",
    errno.EROFS: "Choose a place that can be written.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Choose a path without links that lead back to it.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n).",
    errno.ENFILE: "Close other programs.",
    errno.EIO: "Check the disk, or the connection to it.",
    errno.ESTALE: "Check the connection to the disk.",
}
_MEMORY = "Close other programs, or use a machine with more memory."


def explained(exc: OSError | MemoryError | RuntimeError) -> str | None:
    """What a person is told of an error of the system; None if it is none.

    torch raises a RuntimeError when memory is out; other errors of this class are bugs.
    """
    if isinstance(exc, MemoryError) or (isinstance(exc, OSError) and exc.errno == errno.ENOMEM):
        return f"not enough memory{_details(exc)}. {_MEMORY}"
    if isinstance(exc, RuntimeError):
        out_of_memory = type(exc).__name__ == "OutOfMemoryError" or "allocate memory" in str(exc)
        return f"not enough memory{_details(exc)}. {_MEMORY}" if out_of_memory else None
    reason = os.strerror(exc.errno) if exc.errno else str(exc) or type(exc).__name__
    reason = " ".join(reason.split())
    named = isinstance(exc.filename, (str, bytes, os.PathLike))
    file = f" {os.fsdecode(exc.filename)}" if named else ""
    remedy = _REMEDIES.get(exc.errno or 0, "")
    return f"the system refuses{file}: {reason}. {remedy}".rstrip()


def _details(exc: BaseException) -> str:
    return f" ({first_line(exc).rstrip('. ')})" if str(exc) else ""
