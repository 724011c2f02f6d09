"""What a forked child does: take what it may not have, then be the command."""

import ctypes
import errno
import os
import resource
import signal
import sys
import traceback

ADDRESSES = 1 << 30  # bytes of memory that may be reserved beside those of the parent
FILE_SIZE = 64 << 20
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MAKING = ("os.mkdir", "os.rename", "os.truncate", "os.symlink", "os.link")


def become(arguments, scene, printed, pipes, cpu_seconds):
    """Be the command; this never returns."""
    code = 70
    try:
        os.setsid()
        _redirect(pipes)
        _limit(scene.setup, cpu_seconds)
        os.environ.update(HOME=str(scene.folder.parent / "home"), COLUMNS="200")
        os.environ["TMPDIR"] = str(scene.folder.parent / "temporary")
        os.chdir(scene.folder)
        sys.path.insert(0, "")  # as under python -m, where a module beside the data could be found
        if "record" in scene.setup:
            _record(scene.setup["record"], printed / "opened")
        if "flock" in scene.setup:
            _fail_to_lock(getattr(errno, scene.setup["flock"]))
        code = _open(arguments, scene) if "open" in scene.setup else _run(arguments)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                code = 71
        os._exit(0 if code is None else code)


def _run(arguments):
    from mecoq_index.cli import main

    sys.argv = ["mecoq-index", *arguments]
    main.main(prog_name="mecoq-index")


def _open(arguments, scene):
    """Open what a command has written, by its suffix."""
    path = scene.folder / arguments[-1]
    if path.suffix in (".mecoq", ".pt", ".safetensors"):
        return _run([*arguments[:-1], "--", arguments[-1]])
    if path.suffix in (".npy", ".npz"):
        from mecoq_index.data.source import open_source

        open_source(path).to_array()
    if path.suffix == ".faiss":
        from mecoq_index import read_index

        read_index(path)
    return 0


def _redirect(pipes):
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(pipe, number)
        os.close(pipe)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _limit(setup, cpu_seconds):
    with open("/proc/self/statm") as file:
        reserved = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (setup.get("file_size", FILE_SIZE),) * 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if os.geteuid() == 0:
        _obey_permissions()


def _obey_permissions():
    """Give up root's right to read and write what the modes of files forbid."""
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(head, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for word in range(3):
        sets[word] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    if libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _record(folder, log):
    """Note every name below a folder that is opened to be written, made or renamed to."""
    stream = os.fdopen(os.open(log, WRITING), "w", errors="surrogateescape")

    def hook(event, args):
        if event == "open":
            names = [args[0]] if isinstance(args[2], int) and args[2] & WRITING else []
        else:
            names = args[:2] if event in _MAKING else []
        for name in names:
            if isinstance(name, (str, bytes, os.PathLike)):
                full = os.path.abspath(os.fsdecode(name))
                if full.startswith(folder + "/"):
                    stream.write(os.path.relpath(full, folder) + "\n")
                    stream.flush()

    sys.addaudithook(hook)


def _fail_to_lock(code):
    import fcntl

    def flock(*_):
        raise OSError(code, os.strerror(code))

    fcntl.flock = fcntl.lockf = flock
