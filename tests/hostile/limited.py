"""Attacks in a process of their own, whose memory is bounded, and which says what went wrong.

A test file is also a script: pytest starts it with ``run``, and as a script it calls ``report`` on
its cases. A case is good if it returns, or raises an error of ours.
"""

import os
import resource
import subprocess
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from mecoq_index.errors import MecoqError

ROOT = Path(__file__).parents[1]
SECONDS = 20


def run(script, *arguments, warnings="default", timeout=300):
    """Run a script of attacks; return the lines that it printed on bad cases, and the last one."""
    done = subprocess.run(
        [sys.executable, "-W", warnings, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[:3], *_inherited()]),
            "OMP_NUM_THREADS": "1",
        },
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise AssertionError(f"{done.returncode}\n{done.stdout}\n{done.stderr}")
    return lines[:-1], lines[-1]


def _inherited():
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def limit_memory(more):
    """Let this process take so many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def report(cases, *, memory, packages):
    """Run cases, pairs of a name and a function; print bad ones, then how many did what.

    Args:
        cases: The cases.
        memory: The bytes that the process may take beside what it has when it begins. A case that
            wants more raises MemoryError, or fails at the limit in a message of ours.
        packages: Modules that the cases load, whose own size is not to be counted.
    """
    for name in packages:
        import_module(name)
    limit_memory(memory)
    done = refused = bad = 0
    for name, call in cases:
        start = time.monotonic()
        try:
            call()
        except MecoqError as exc:
            refused += 1
            wrong = "MemoryError" in str(exc) or "Unable to allocate" in str(exc)
            reason = f"took memory before it was refused: {exc}" if wrong else ""
        except BaseException:
            reason = traceback.format_exc(limit=-3).replace("\n", " | ")
        else:
            done += 1
            reason = ""
        if time.monotonic() - start > SECONDS:
            reason += f" took {time.monotonic() - start:.0f} s"
        if reason:
            bad += 1
            print(f"{name}: {reason}".encode("ascii", "backslashreplace").decode())
    print(f"{done} {refused} {bad}")


def mutated(rng, content):
    """Return bytes with some of them flipped, removed, repeated, or exchanged."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(found) + 1))
        size = int(rng.integers(1, 24))
        kind = int(rng.integers(7))
        if kind == 0:
            for place in rng.integers(len(found), size=4) if found else ():
                found[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            del found[at : at + size]
        elif kind == 3:
            found[at:at] = rng.bytes(size)
        elif kind == 4:
            found[at : at + size] = rng.bytes(size)
        elif kind == 5:
            found[at : at + 4] = b"\xff\xff\xff\x7f"
        else:
            other = int(rng.integers(len(found) + 1))
            found[at:at] = found[other : other + 200]
    return bytes(found)
