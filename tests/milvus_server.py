"""A real Milvus for the tests: the standalone server 2.3.5 from PyPI, in one process.

The starter in its package decompresses 250 MB into every data folder, leaves the server running
when it is killed itself, and cannot run twice at the same time. This module therefore unpacks the
package once and starts the server in it directly. Run as a script, it only unpacks.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import lzma
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

VERSION = "2.3.5"
FOLDER_VARIABLE = "MECOQ_INDEX_TEST_MILVUS"
"""Names the folder with the unpacked server, instead of one in the user's cache."""
LOOPBACK = "127.0.0.1"
COMPONENTS = (
    "proxy", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode",
)  # fmt: skip
"""The parts of Milvus that have a port; clients talk to the first."""
PORTS = (*COMPONENTS, "internal", "etcd", "etcd-peer", "metrics")


class MilvusServerError(Exception):
    """The server cannot be downloaded, or does not start."""


def unsupported() -> str | None:
    """The reason why no server can run here; None if one can."""
    if (
        sys.platform != "linux"
        or platform.machine() != "x86_64"
        or platform.libc_ver()[0] != "glibc"
    ):
        return "the Milvus server on PyPI is for Linux on x86-64 with glibc"
    if importlib.util.find_spec("pymilvus") is None:
        return "needs pymilvus"
    return None


def install() -> Path:
    """Return the folder with the unpacked server; download it (58 MB) if it is missing.

    Raises:
        MilvusServerError: If it cannot be downloaded; the message repeats the output of pip.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock", timeout=900):
        if not folder.exists():
            # It is renamed when it is complete, so that an interruption leaves no partial folder.
            with tempfile.TemporaryDirectory(
                dir=folder.parent, prefix=f".{folder.name}."
            ) as scratch:
                _unpack(_download(Path(scratch)), Path(scratch, "new"))
                Path(scratch, "new").rename(folder)
    return folder


def _folder() -> Path:
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).absolute()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "mecoq-index-tests" / f"milvus-{VERSION}"


def _download(folder: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    # Without its dependencies, which only its starter needs.
    wanted = ("--no-deps", "--only-binary=:all:", "--dest", str(folder), f"milvus=={VERSION}")
    try:
        subprocess.run(
            [*pip, "download", *wanted], check=True, timeout=600, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise MilvusServerError(f"no Milvus {VERSION} from PyPI: {error}\n{error.output}") from None
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, folder: Path) -> None:
    for name in ("bin", "configs"):
        (folder / name).mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("milvus/data/bin/") and name.endswith(".lzma"):
                program = folder / "bin" / Path(name).stem
                program.write_bytes(lzma.decompress(archive.read(name)))
                program.chmod(0o755)
        template = archive.read("milvus/data/config.yaml.template").decode()
        (folder / "configs" / "glog.conf").write_bytes(archive.read("milvus/data/glog.conf"))
    # Settings that the starter would fill in have defaults in the server, or come from _settings.
    config = re.sub(r"^.*\{\{.*$", "", template, flags=re.MULTILINE)
    (folder / "configs" / "milvus.yaml").write_text(config)


class MilvusServer:
    """A Milvus standalone server with authorization, on ports and in a folder of its own.

    It listens on every interface, because Milvus has no setting for that; only its etcd does not.
    It dies with the thread that started it, however that ends, so start it in the main thread.

    Args:
        data_dir: The folder for its data, log and settings; made if missing. A server that is
            started with the folder of an earlier one has the data of that.
    """

    token = "root:Milvus"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log = self.data_dir / "logs" / "server.log"
        self._log_start = 0
        self._etcd = self.data_dir / "etcd.yaml"
        self._ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MilvusServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def uri(self) -> str:
        """The address, which is the same for every start."""
        return f"http://{LOOPBACK}:{self._ports['proxy']}"

    @property
    def pid(self) -> int | None:
        """The only process of the server, or None if it is not running."""
        return self._process.pid if self._process else None

    def start(self, timeout: float = 90) -> None:
        """Start it, and return when it answers.

        Right after a kill, loading a collection waits for the sessions of the killed server to end.

        Raises:
            MilvusServerError: If it ends, or does not answer in time; the message repeats the end
                of its log.
        """
        if self._process:
            raise MilvusServerError(f"already running as process {self.pid}")
        home = install()
        for name in ("logs", "data"):
            (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        self._write_etcd_settings()
        environment = self._environment(home)
        program = [str(home / "bin" / "milvus"), "run", "standalone", "--alias", self._alias]
        me = Path(__file__).absolute()
        launch = [sys.executable, str(me), "--launch", str(os.getpid()), json.dumps(environment)]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*launch, *program], cwd=self.data_dir,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # Ctrl-C goes to the tests only, which stop the server when they end.
                start_new_session=True,
            )  # fmt: skip
        try:
            self._wait(timeout)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it abruptly, as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._tidy()

    def stop(self, grace: float = 5) -> None:
        """End it in good order, or kill it after ``grace`` seconds."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._tidy()

    def _tidy(self) -> None:
        for folder in (Path("/run/milvus"), Path("/tmp/milvus")):
            for name in (f"standalone-{self._alias}.pid", f"server_id_{self.pid}"):
                (folder / name).unlink(missing_ok=True)
        self._process = None

    @property
    def _alias(self) -> str:
        """The name of a lock: servers with the same alias cannot run at the same time."""
        return f"mecoq-{self._ports['proxy']}"

    def _environment(self, home: Path) -> dict[str, str]:
        # Milvus takes variables such as LOG_LEVEL for settings, so most are not passed on.
        environment = dict(_flat(self._settings()))
        environment |= {
            "MILVUSCONF": str(home / "configs"),
            "LD_LIBRARY_PATH": str(home / "bin"),
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._ports["metrics"]),
        }
        passed = ("PATH", "HOME", "TMPDIR", "OPENBLAS_CORETYPE")
        return environment | {name: os.environ[name] for name in passed if name in os.environ}

    def _settings(self) -> dict[str, Any]:
        data, port = self.data_dir / "data", self._ports
        settings: dict[str, Any] = {
            name: {"ip": LOOPBACK, "port": port[name]} for name in COMPONENTS
        }
        settings["proxy"]["internalPort"] = port["internal"]
        # In milliseconds. Tests do little and then wait, by default 3 s for a flush.
        settings["dataCoord"]["segment"] = {"assignmentExpiration": 200}
        settings["proxy"]["timeTickInterval"] = 50
        intervals = ("checkSegmentInterval", "checkChannelInterval", "distPullInterval")
        settings["queryCoord"] |= dict.fromkeys(intervals, 100)
        return settings | {
            "etcd": {"config": {"path": self._etcd}, "data": {"dir": data / "etcd"}},
            "localStorage": {"path": data},
            "rocksmq": {"path": data / "rocksmq"},
            "common": {
                "security": {"authorizationEnabled": "true"},
                # Half an hour by default, in which it waits for another node to take over.
                "gracefulStopTimeout": 1,
                # In seconds. The parts of a killed server block those of the next one for so long.
                "session": {"ttl": 10},
            },
        }

    def _write_etcd_settings(self) -> None:
        client, peer = (f"http://{LOOPBACK}:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        settings = {
            "name": "default",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        self._etcd.write_text(json.dumps(settings))  # which is YAML

    def _wait(self, timeout: float) -> None:
        assert self._process
        deadline = time.monotonic() + timeout
        while (why := self._silent(max(1, deadline - time.monotonic()))) is not None:
            if (code := self._process.poll()) is not None:
                raise MilvusServerError(f"Milvus ended with exit code {code}; {self._log_end()}")
            if time.monotonic() > deadline:
                raise MilvusServerError(
                    f"Milvus does not answer within {timeout} s ({why}); {self._log_end()}"
                )
            time.sleep(0.1)

    def _silent(self, timeout: float) -> str | None:
        """The reason why it does not answer within that time; None if it does."""
        try:  # first, because pymilvus logs every failed connection
            socket.create_connection((LOOPBACK, self._ports["proxy"]), timeout=1).close()
        except OSError as error:
            return str(error)
        from grpc import RpcError  # type: ignore[import-untyped]
        from pymilvus import MilvusClient, MilvusException

        try:
            client = MilvusClient(self.uri, token=self.token, timeout=timeout)
            try:
                client.list_collections(timeout=timeout)
            finally:
                client.close()
        except (MilvusException, RpcError) as error:
            return str(error)
        return None

    def _log_end(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            text = log.read().decode(errors="replace")
        # A panic of Go gives the reason first, and then the state of every goroutine.
        lines = text.split("\ngoroutine ")[0].splitlines()[-30:]
        return "\n".join([f"the end of {self.log}:", *(line[:400] for line in lines)])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)


def _free_ports(count: int) -> list[int]:
    """Free ports that outgoing connections, which use higher ones, cannot take before a restart."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 12_000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise MilvusServerError(f"there are no {count} free ports between 20000 and 32000")


def _launch(parent: str, environment: str, *program: str) -> None:
    """Become the server, and let the kernel end it together with the parent process."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() == int(parent):  # otherwise the parent has ended already
        os.execve(program[0], program, json.loads(environment))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--launch"]:
        _launch(*sys.argv[2:])
    elif why := unsupported():
        sys.exit(why)
    else:
        print(install())
