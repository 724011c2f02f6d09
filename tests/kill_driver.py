"""Runs commands in children of a warm process, and kills or disturbs them; see writers.py.

The commands in its argument, a list in JSON, are run first, so that what a command needs is loaded
when the clock starts. Then a line of JSON comes in for each command, and one goes out at its end:

    {"run": [...], "after": seconds, "at_step": number, "sync": bool, "limit": bytes,
     "full_at": number, "flock": errno, "lock_seconds": seconds, "humble": bool}
    {"killed": bool, "failed": bool, "output": text, "seconds": number, "steps": number}

``run`` is what follows ``mecoq-index``, or ``["save", bundle, target]``: that writes what one
bundle holds over another. The child is killed ``after`` some time, or before the operation
``at_step``, counted from 1, by which it changes something in the folder of its last argument.
Without ``sync`` it does not wait for the disk, which matters to a power failure, not to a kill.

Other ways to disturb it: no file may grow beyond ``limit``; from the step ``full_at`` on, nothing
can be created; locks fail with ``flock``; and when ``humble``, root has no more rights than others.
"""

import ctypes
import fcntl
import io
import json
import os
import resource
import select
import signal
import sys
import time
import traceback

import click
import torch

import mecoq_index.cli
from mecoq_index.embed import rows as encoding
from mecoq_index.engines.faiss.inject import import_faiss
from mecoq_index.index import build as building
from mecoq_index.index import bundle as bundles
from mecoq_index.index.stored import open_bundle, save_bundle

# What Python tells its audit hooks before it does it.
STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


def run(arguments):
    if arguments[0] == "save":
        engine, bundle = open_bundle(arguments[1])
        save_bundle(engine, arguments[2], names=bundle.names, overwrite=True)
        print("saved", file=sys.stderr, flush=True)
    else:
        mecoq_index.cli.main(arguments, standalone_mode=False)


def drop_rights():
    """Give up what lets root write where the permissions of a file or folder forbid it."""
    if os.geteuid() == 0:
        head = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(head, data) == 0
        data[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        assert libc.capset(head, data) == 0


def disturb(command):
    if (limit := command.get("limit")) is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if (number := command.get("flock")) is not None:

        def no_locks(*_):
            raise OSError(number, os.strerror(number))

        fcntl.flock = no_locks
    bundles._LOCK_SECONDS = command.get("lock_seconds", bundles._LOCK_SECONDS)
    if command.get("humble"):
        drop_rights()
    if not command.get("sync"):
        os.fsync = lambda descriptor: None


def work(command, report):
    """The child: what it prints goes to ``report`` at once."""
    os.dup2(report, 1)
    os.dup2(report, 2)
    sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(report, "wb", 0), write_through=True)
    folder, steps = os.path.dirname(command["run"][-1]), 0

    def count(event, args):
        nonlocal steps
        if event not in STEPS or not str(args[0]).startswith(folder):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        steps += 1
        if steps == command.get("at_step"):
            os.kill(os.getpid(), signal.SIGKILL)
        creates = event == "os.mkdir" or (event == "open" and args[2] & os.O_CREAT)
        if creates and steps >= (command.get("full_at") or steps + 1):
            raise OSError(28, os.strerror(28), str(args[0]))

    sys.addaudithook(count)
    disturb(command)
    try:
        run(command["run"])
    except click.ClickException as exc:
        exc.show(sys.stderr)
        os._exit(exc.exit_code)
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    print(f"steps {steps}", flush=True)
    os._exit(0)


def parent(command):
    reading, writing = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if not child:
        os.close(reading)
        work(command, writing)
    os.close(writing)
    after = command.get("after")
    deadline = started + (60 if after is None else after)
    output = b""
    while select.select([reading], [], [], max(0, deadline - time.perf_counter()))[0]:
        if not (text := os.read(reading, 1 << 16)):
            break
        output += text
    else:
        os.kill(child, signal.SIGKILL)  # not waited for yet, so the number is still the child's
        while text := os.read(reading, 1 << 16):
            output += text
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    os.close(reading)
    text = output.decode()
    steps = text.rpartition("steps ")[2].strip()
    return {
        "killed": os.WIFSIGNALED(status),
        "failed": os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0,
        "output": text,
        "seconds": seconds,
        "steps": int(steps) if steps.isdigit() else 0,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    encoding._MAX_CHUNK, building._NOTE_SECONDS = 1 << 13, 0  # more moments to be killed at
    import_faiss().omp_set_num_threads(1)
    for warming in json.loads(sys.argv[1]):
        run(warming)
    print("\nready", flush=True)
    for line in sys.stdin:
        print(json.dumps(parent(json.loads(line))), flush=True)
