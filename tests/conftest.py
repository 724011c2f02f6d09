"""One thread in FAISS and torch: the tests' arrays are small, and machines that run them shared.

And the Milvus servers: a real one of the whole session, and Milvus Lite.
"""

import os
import re
import uuid
from importlib.util import find_spec

import pytest
from milvus_server import MilvusServer, MilvusServerError, install, unsupported

if find_spec("torch"):
    import torch

    torch.set_num_threads(1)
if find_spec("faiss"):
    import faiss

    faiss.omp_set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if {"milvus_server", "installed_milvus"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("milvus")


@pytest.fixture(scope="session")
def installed_milvus():
    """The folder of the unpacked server, for tests that start their own."""
    if why := unsupported():
        pytest.skip(why)
    try:
        return install()
    except MilvusServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def milvus_server(installed_milvus, tmp_path_factory):
    """The server that the session's tests share, with its `uri` and `token`; not to be stopped."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()  # its data are thrown away, and to stop it in good order takes seconds


@pytest.fixture
def lite_uri(tmp_path):
    """Where Milvus Lite may make its database."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    return str(tmp_path / "lite.db")


@pytest.fixture
def collection_name(request):
    """A collection's name that no other test uses, with the test's for whoever reads the log."""
    test = re.sub(r"\W", "_", request.node.name, flags=re.ASCII)
    return f"{test[:80]}_{uuid.uuid4().hex[:8]}"
