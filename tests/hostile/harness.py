"""Runs commands under attack, each in a process of its own, and checks what they leave behind.

    python tests/hostile/harness.py                      all cases, with a summary
    python tests/hostile/harness.py --sample 300         some of each command
    python tests/hostile/harness.py build search         those of some commands
    python tests/hostile/harness.py build0/1.c.pt/fifo/0 single ones, with what they printed

The rule for each case: it ends in time with exit code 0, 1 or 2, below a bound of memory; says no
traceback, but one sentence if it fails; prints no secret and nothing that controls a terminal; and
changes nothing but its output, which can be opened, or is as it was if the command failed.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)

from hostile.cases import by_name, cases_of, sample
from hostile.commands import COMMANDS


class Pool:
    """Processes that have loaded everything, and fork one child for each case.

    Args:
        size: The number of processes.
        folder: Where they work, and keep the good inputs; several pools may share one.
    """

    def __init__(self, size=2, folder=None):
        self._own = None if folder else tempfile.TemporaryDirectory(prefix="hostile-")
        self.folder = folder or Path(self._own.name)
        self.processes = [self._start() for _ in range(size)]

    def _start(self):
        environment = {
            **os.environ,
            **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, sys.path)]),
            "PYTHONWARNINGS": "default",
            # Large pages make forks three times faster.
            "PYTHONMALLOC": "malloc",
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "hostile.worker", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, cases, tell=lambda name, result: None):
        """What became of each case, by its name, in order.

        Args:
            cases: The cases.
            tell: Called with the name and the result of each case when it ends.

        Raises:
            RuntimeError: If a worker, which no case should be able to do, was ended by one.
        """
        waiting, results = collections.deque(cases), {}

        def feed(process):
            while True:
                try:
                    case = waiting.popleft()
                except IndexError:
                    return
                process.stdin.write(case.name + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                problem = {"problems": ["the worker died"]}
                results[case.name] = json.loads(line) if line else problem
                tell(case.name, results[case.name])
                if not line:
                    return

        threads = [threading.Thread(target=feed, args=(p,)) for p in self.processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if waiting:
            raise RuntimeError(f"all workers died, and {len(waiting)} cases were not run")
        return {case.name: results[case.name] for case in cases}

    def close(self):
        for process in self.processes:
            process.stdin.close()
            process.wait()
            process.stdout.close()
        if self._own:
            self._own.cleanup()


def bad(results):
    """The lines that name each case that broke the rule, and how."""
    return [
        f"{name}: {problem}" for name, result in results.items() for problem in result["problems"]
    ]


def print_bad(results):
    for line in bad(results):
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="commands, or cases")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all results to this JSON file")
    parser.add_argument("--sample", type=int, help="run so many cases of each command only")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    cases = []
    for name in options.names or COMMANDS:
        if "/" in name:
            cases.append(by_name(name))
        elif options.sample is not None:
            cases += sample(name, options.sample, options.seed)
        else:
            cases += cases_of(name)
    pool = Pool(min(options.processes, len(cases)))
    results = pool.run(cases, lambda name, result: print_bad({name: result}))
    pool.close()
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    if len(cases) < 10:
        for name, result in results.items():
            print(name, json.dumps(result, indent=1, ensure_ascii=False))
    found = bad(results)
    ends = collections.Counter(str(result.get("code")) for result in results.values())
    print(f"{len(cases)} cases, {len(found)} problems; exit codes {dict(ends)}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
