"""FAISS in forked processes: one thread instead of a wait that never ends.

FAISS works in threads of OpenMP, which the thread that called FAISS keeps for its next call. A
forked process has none of them, but does not know: the first parallel call of the thread that has
forked waits for them forever. Other threads of the new process begin with threads of their own.
"""

from __future__ import annotations

import os
import threading
import warnings

from ..._optional import import_faiss

_this_thread = threading.local()


def about_to_work() -> None:
    """Note that this thread calls FAISS, which may leave threads behind.

    Warns once in a forked process that works on one thread for that reason.
    """
    if import_faiss().omp_get_max_threads() > 1:
        _this_thread.has_helpers = True
    elif getattr(_this_thread, "lost_helpers", False):
        _this_thread.lost_helpers = False
        warnings.warn(
            "this process was forked after FAISS had worked in several threads, which it has not "
            "got, so FAISS works in one thread here. Start processes with the method 'spawn' or "
            "'forkserver', or fork before the first search, to use all cores.",
            RuntimeWarning,
            stacklevel=4,
        )


def _after_fork() -> None:
    if getattr(_this_thread, "has_helpers", False):
        import_faiss().omp_set_num_threads(1)
        _this_thread.has_helpers, _this_thread.lost_helpers = False, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
