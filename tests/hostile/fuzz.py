"""Coverage-guided fuzzing of what reads foreign bytes, with atheris.

    pip install atheris
    python tests/hostile/fuzz.py --list
    python tests/hostile/fuzz.py codebooks-safetensors --seconds 600

A finding is an exception that is none of ours, a message that is no sentence, a crash, more than
10 seconds, or more memory than a bound. Findings go to a folder, each once, with the input; the
fuzzer goes on. Inputs that reach new code are kept in a folder beside them.
"""

import argparse
import hashlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)

SECONDS = 10
MEMORY = 512 << 20


class TooSlowError(Exception):
    """An input takes too long."""


class TooLargeError(Exception):
    """An input takes too much memory."""


def watched(target, data):
    """Run a target within a time and below a bound of memory.

    Raises:
        Exception: What is a finding.
    """

    def late(*_):
        raise TooSlowError(f"not done after {SECONDS} s")

    before = _peak()
    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        return target(data)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        if _peak() - before > MEMORY:
            raise TooLargeError(f"took {(_peak() - before) >> 20} MB")


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def place_of(exc):
    """The last line of ours that an exception came from."""
    frames = traceback.extract_tb(exc.__traceback__)
    ours = [frame for frame in frames if "mecoq_index" in frame.filename] or frames
    return f"{type(exc).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


class Findings:
    """A folder of inputs, one for each place that an exception came from."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, exc, data):
        place = place_of(exc)
        file = self.folder / hashlib.sha256(place.encode()).hexdigest()[:12]
        if not file.exists():
            file.write_bytes(data)
            told = "".join(traceback.format_exception(exc))
            file.with_suffix(".txt").write_text(told, errors="backslashreplace")
            print(f"FOUND {place}: {str(exc)[:300]!a}", flush=True)


def fuzz(name, folder, seconds):
    """Fuzz in this process until it is killed or the time is over."""
    import atheris

    with atheris.instrument_imports(include=["mecoq_index"]):
        import mecoq_index  # noqa: F401
        from hostile import mutations, targets
    import numpy as np

    for module in ("torch", "pyarrow.parquet", "h5py"):  # before the clock of an input runs
        importlib.import_module(module)

    target, findings = targets.TARGETS[name], Findings(folder / "findings")
    with open("/proc/self/statm") as file:
        reserved = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + (4 << 30),) * 2)
    last = folder / "last"

    def one(data):
        last.write_bytes(data)  # what a crash leaves behind
        try:
            watched(target, data)
        except Exception as exc:
            findings.add(exc, data)

    def mutate(data, max_size, seed):
        def blind(content):
            return atheris.Mutate(content, max(len(content) + 16, 64)) if content else b"0"

        return mutations.mutated(np.random.default_rng(seed), data, blind)[:max_size]

    options = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=0", "-max_len=20000"]
    options += ["-len_control=0", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    arguments = [sys.argv[0], *options, str(folder / "corpus")]
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


def supervise(name, folder, seconds):
    """Start the fuzzer again after each crash; return executions, findings and crashes."""
    from hostile.targets import corpus

    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for content in corpus(name):
        (folder / "corpus" / hashlib.sha1(content).hexdigest()).write_bytes(content)
    until, executions, crashes = time.monotonic() + seconds, 0, 0
    while (left := int(until - time.monotonic())) > 0:
        words = [sys.executable, __file__, name, "--inside", "--seconds", str(left)]
        words += ["--folder", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        for line in done.stdout.splitlines():
            if line.startswith("FOUND"):
                print(line, flush=True)
        lines = done.stderr.splitlines()
        counted = [int(line.split()[-1]) for line in lines if "number_of_executed_units" in line]
        seen = [line.split()[0][1:] for line in lines if line.startswith("#")]
        executions += counted[-1] if counted else int(seen[-1]) if seen else 0
        if done.returncode:
            crashes += 1
            (folder / f"crash-{crashes}.input").write_bytes((folder / "last").read_bytes())
            (folder / f"crash-{crashes}.txt").write_text(done.stderr[-20_000:])
            print(f"CRASH {done.returncode} {lines[-3:]}", flush=True)
            if crashes > 20:
                break
    found = len(list((folder / "findings").glob("*.txt")))
    return {"target": name, "executions": executions, "findings": found, "crashes": crashes}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="for findings and new inputs")
    parser.add_argument("--list", action="store_true", help="print the targets")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return fuzz(options.target[0], options.folder, options.seconds)
    from hostile.targets import TARGETS

    if options.list:
        print(*TARGETS, sep="\n")
        return 0
    bad = 0
    for name in options.target or TARGETS:
        folder = (options.folder or Path("fuzzing")) / name
        folder.mkdir(parents=True, exist_ok=True)
        result = supervise(name, folder.resolve(), options.seconds)
        print(json.dumps(result), flush=True)
        bad += result["findings"] + result["crashes"]
    return bool(bad)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
