"""One thread in FAISS and torch, because the tests' arrays are small and machines are shared.

And Milvus: a real server, one for the whole session, and milvus-lite.
"""

import os
import re
import uuid
from importlib.util import find_spec

# Before gRPC is loaded: it prints the pings of milvus-lite's clients past every capture.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import pytest
from milvus_server import MilvusServer, MilvusServerError, install, unsupported

if find_spec("torch"):
    import torch

    torch.set_num_threads(1)
if find_spec("faiss"):
    import faiss

    faiss.omp_set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Run named files in this process: workers take longer to start than most files to run."""
    return 0 if config.option.file_or_dir else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if {"milvus_server", "installed_milvus"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("milvus")
            item.add_marker("slow")


@pytest.fixture(scope="session")
def installed_milvus():
    """The folder of the unpacked server, for tests that start their own."""
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip  # CI must not pass without it
    if why := unsupported():
        give_up(why)
    try:
        return install()
    except MilvusServerError as error:
        give_up(str(error))


@pytest.fixture(scope="session")
def milvus_server(installed_milvus, tmp_path_factory):
    """The server that all tests of the session share; they must not stop it."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()  # stopping it in good order takes seconds, and its data are deleted anyway


@pytest.fixture
def lite_uri(tmp_path):
    """The path of a milvus-lite file that does not exist yet."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    return str(tmp_path / "lite.db")


@pytest.fixture
def collection_name(request):
    """The name of a collection that no other test uses; it begins with the test's name."""
    test = re.sub(r"\W", "_", request.node.name, flags=re.ASCII)
    return f"{test[:80]}_{uuid.uuid4().hex[:8]}"
