"""A Milvus server on loopback that records which credentials reach it: milvus-lite, intercepted.

This package takes it for a server, not for a file, because it is reached by an address.
"""

from __future__ import annotations

import base64
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]


class RecordingServer(grpc.ServerInterceptor):  # type: ignore[misc]
    """The server; a context in which it runs.

    Args:
        folder: Its data.
        required: The token without which it refuses every call; None to accept all calls.

    Attributes:
        tokens: The token of every call, in their order; None for a call without one.
    """

    def __init__(self, folder: Path, *, required: str | None = None) -> None:
        self.required = required
        self.tokens: list[str | None] = []
        self._folder = folder

    def __enter__(self) -> RecordingServer:
        from milvus_lite.adapter.grpc.servicer import MilvusServicer
        from milvus_lite.db import MilvusLite
        from pymilvus.grpc_gen import milvus_pb2_grpc

        self._db = MilvusLite(str(self._folder))
        self._server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[self])
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(self._db), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=0).wait()
        self._db.close()

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def seen(self) -> set[str | None]:
        """The tokens of the calls since this was last asked."""
        found, self.tokens[:] = set(self.tokens), []
        return found

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Record the token of a call, and refuse the call if it has not the right one."""
        token = None
        for key, value in details.invocation_metadata:
            if key == "authorization":
                token = base64.b64decode(value).decode(errors="replace")
        self.tokens.append(token)
        if self.required is None or token == self.required:
            return continuation(details)

        def refuse(_: object, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")

        return grpc.unary_unary_rpc_method_handler(refuse)
