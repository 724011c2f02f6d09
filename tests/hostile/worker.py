"""The process that runs cases: it reads names of cases, and writes a line of JSON for each.

Everything is loaded once. A case then gets a folder with copies of the inputs that it needs, and a
child that is forked for it; whatever happens to the child happens to nobody else.
"""

import contextlib
import functools
import gc
import importlib
import io
import itertools
import json
import os
import pkgutil
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from hostile import child, inputs
from hostile.cases import by_name
from hostile.scene import SECRET, Scene, UnfitError
from hostile.surroundings import snapshot, what_was_wrong

SECONDS, CPU_SECONDS = 180, 30  # machines are shared, so what counts is the time of the processor
MEMORY = 300 << 20  # what a command on such small inputs may add to what was loaded

_LOADED = (
    *("faiss", "torch", "pyarrow.parquet", "h5py", "PIL.Image", "pymilvus", "milvus_lite"),
    *("torchvision.transforms.v2", "torchvision.models", "matplotlib.pyplot", "filelock"),
    *("safetensors.numpy", "rich.console", "rich.progress", "pyarrow.dataset"),
)


def load_everything():
    import mecoq_index

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for module in pkgutil.walk_packages(mecoq_index.__path__, "mecoq_index."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def wait(pid, seconds, pipes=()):
    """The end of a child, its use of resources, and what it said; it is killed when it is late."""
    until = time.monotonic() + seconds
    said = {pipe: [] for pipe in pipes}
    done, open_pipes = 0, list(pipes)
    while not done and time.monotonic() < until:
        for pipe in select.select(open_pipes, [], [], 0.005)[0]:
            said[pipe].append(os.read(pipe, 1 << 16))
            if not said[pipe][-1]:
                open_pipes.remove(pipe)
        done, status, usage = os.wait4(pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # processes that load images, or a child that is late
    if not done:
        _, status, usage = os.wait4(pid, 0)
    for pipe in open_pipes:
        while block := os.read(pipe, 1 << 16):
            said[pipe].append(block)
    return status, usage, not done, [b"".join(said[pipe]) for pipe in pipes]


def run_child(arguments, scene, printed):
    """Run a command in a child; what it printed, its code and what was wrong with its end."""
    (out, child_out), (err, child_err) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        child.become(arguments, scene, printed, (child_out, child_err), CPU_SECONDS)
    for pipe in (child_out, child_err):
        os.close(pipe)
    status, usage, late, (said, told) = wait(pid, SECONDS, (out, err))
    for pipe in (out, err):
        os.close(pipe)
    out, err, problems = said, told, []
    if late:
        problems.append(f"not done after {SECONDS} s")
    elif os.WIFSIGNALED(status):
        problems.append(f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
    grown = usage.ru_maxrss * 1024 - least_memory() - (inherited() - inherited_at_first())
    if grown > MEMORY:
        problems.append(f"took {grown >> 20} MB")
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    return code, out, err, problems, grown, usage.ru_utime + usage.ru_stime


@functools.cache
def least_memory():
    """What a child has when it is born: of shared libraries, only what it uses is counted."""
    inherited_at_first()
    pid = os.fork()
    if not pid:
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss * 1024


def inherited():
    """Bytes of this process that a child has from its birth."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


inherited_at_first = functools.cache(inherited)


def touched_names(case, good):
    """What the command opens to write in a run that nobody disturbs, but for chance names."""
    with tempfile.TemporaryDirectory(dir=good.parent) as place:
        scene = prepare(case, Path(place), good)
        words, _ = case.template.filled(case.formats())
        before = snapshot(scene.folder)
        scene.setup["record"] = str(scene.folder)
        printed = Path(place)
        run_child(words, scene, printed)
        after = snapshot(scene.folder)
        recorded = (printed / "opened").read_text().splitlines()
    names = {*recorded, *(name for name in after if before.get(name) != after[name])}
    return sorted(name for name in names if not name.endswith(".partial"))


_touched = {}


def plant(case, scene, good):
    """Put what the case plants at a name that the command will open."""
    from mecoq_index.cli import main

    what = scene.setup.pop("planted")
    key = case.template.name
    if key not in _touched:
        _touched[key] = touched_names(case, good)
    names = [n for n in _touched[key] if not os.path.lexists(scene.folder / n)]
    names = [n for n in names if what == "junk" or (scene.folder / n).parent.is_dir()]
    if case.seed >= len(names):
        raise UnfitError
    path = scene.folder / names[case.seed]
    path.parent.mkdir(exist_ok=True)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "junk":  # as if it were left from a run before
        path.write_bytes(scene.rng.bytes(200) if case.seed % 2 else b'{"job": {}, "done": [1]}')
        if any("--resume" in option.opts for option in main.commands[case.template.command].params):
            scene.more += ["--resume"]
    else:
        targets = {"file": "canary.txt", "new": "new.txt", "folder": "inner"}
        path.symlink_to(scene.neighbor / targets[what])


def prepare(case, folder, good):
    """A folder with the inputs of a case, and a neighbor."""
    scene = Scene(np.random.default_rng(0), folder / "work", folder / "neighbor", good)
    for made in (scene.folder, scene.neighbor / "inner", folder / "temporary", folder / "home"):
        made.mkdir(parents=True)
    (scene.neighbor / "canary.txt").write_text("canary\n" * 1000)
    (scene.neighbor / "inner" / "canary.npy").write_bytes(b"canary")
    evil = "import os\nos.mkdir('EXECUTED')\ndef net123(*a, **k): pass\nnet = net123\n"
    (scene.folder / "evil.py").write_text(evil)
    (scene.folder / "conftest.py").write_text(evil)
    for name, place in zip(case.formats(), case.template.places, strict=True):
        source = good / name
        if place.role == "new":
            continue
        if source.is_dir():
            shutil.copytree(source, scene.folder / name)
        elif source.is_file():
            shutil.copyfile(source, scene.folder / name)
    return scene


def run_case(name, good):
    case = by_name(name)
    place = Path(tempfile.mkdtemp(dir=good.parent))
    printed = Path(tempfile.mkdtemp(dir=good.parent))
    try:
        scene = prepare(case, place, good)
        try:
            words, written = case.attacked(scene)
            if "planted" in scene.setup:
                plant(case, scene, good)
                words += scene.more
        except UnfitError:
            return {"problems": [], "code": "unfit"}
        before, root = snapshot(place), set(os.listdir("/"))
        code, out, err, problems, grown, seconds = run_child(words, scene, printed)
        after = snapshot(place)
        problems += what_was_wrong(code, out, err, SECRET, max(map(len, words)))
        problems += [f"made /{n}" for n in set(os.listdir("/")) - root]
        if code is not None:  # what was killed is known to be bad
            problems += itertools.islice(changes(scene, written, words, code, before, after), 5)
        if code == 0 and not problems:
            problems += unopened(scene, written, printed)
        if case.attack == "nothing" and code != 0:
            problems.append("the unharmed command failed")
        return {
            "problems": problems,
            "code": code,
            "error": err.decode(errors="backslashreplace")[-800:],
            "mb": grown >> 20,
            "seconds": round(seconds, 2),
        }
    finally:
        remove(place)
        remove(printed)


def changes(scene, written, words, code, before, after):
    """What a command changed that it should not have."""
    place = scene.folder.parent
    outputs, beside = [], []
    for path in [*written, *(w for w in scene.more if not w.startswith("-") and len(w) < 200)]:
        full = Path(os.path.normpath(scene.folder / path))
        outputs.append(os.path.relpath(full, place))
        stems = {full.stem, full.name} - {""}
        beside += [os.path.relpath(full.with_name(p + s + "."), place)
                   for s in stems for p in ("", ".") if full.name]  # fmt: skip
    may_replace = {"--overwrite", "--resume", "--save"} & set(words)
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        shown = f"{name!r} ({'new' if old is None else 'gone' if new is None else 'changed'})"
        if any(name == o or name.startswith(o + "/") for o in outputs):
            in_place = words[0] in ("add", "remove", "tune")
            if code == 0 and (old is None or may_replace or in_place):
                continue
            if code and old is None and len(written) > 1 and "file_size" in scene.setup:
                continue  # of several outputs, those that are whole may stay
            if name.endswith(("/.lock", ".db")) or ".db/" in name:
                continue
            yield f"its output {shown} after exit {code}"
        elif any(name.startswith(b) for b in beside) and (old is None or may_replace):
            continue
        elif any(name.startswith(b) and "/." in f"/{b}" for b in beside):
            continue  # names with a dot are the command's own
        elif ".db/" in name:
            continue  # a database of milvus-lite, which writes where it reads
        elif name.startswith("home/.cache/"):
            continue
        else:
            yield f"{shown} is none of its outputs"


def unopened(scene, written, printed):
    """What cannot be opened of what was written."""
    for path in written:
        full = scene.folder / path
        if not full.exists():
            if path.name == "plots":  # there are none without labels
                continue
            yield f"{path} was not written"
            continue
        code, _, err, problems, *_ = run_child(["inspect", "--quiet", str(path)], Scene(
            scene.rng, scene.folder, scene.neighbor, scene.good,
            setup={"open": full.suffix},
        ), printed)  # fmt: skip
        if code != 0 or problems:
            tail = err.decode(errors="replace").strip().splitlines()[-1:]
            yield f"{path} was written, but cannot be opened: {problems} {tail}"


def remove(path):
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def make_inputs(folder):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                os.environ["MILVUS_URI"] = ""
                inputs.make(folder)
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    status, *_ = wait(pid, 300)
    if status:
        raise RuntimeError("the good inputs could not be made")


def serve(folder):
    good, made = folder / "good", folder / "being-made"
    try:
        made.mkdir()
        is_first = True
    except FileExistsError:
        is_first = False
    load_everything()
    if is_first:
        make_inputs(made)
        made.rename(good)
    while not good.exists():  # another worker makes them
        time.sleep(0.05)
        if os.getppid() == 1:
            sys.exit("nobody is left who waits for an answer")
    warnings.simplefilter("ignore")  # of what the attacks do to arrays
    for line in sys.stdin:
        try:
            result = run_case(line.rstrip("\n"), good)
        except Exception as exc:
            result = {"problems": [f"the harness failed: {type(exc).__name__}: {exc}"]}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    os.environ["MILVUS_TOKEN"] = SECRET
    serve(Path(sys.argv[1]))
