"""Learned codes and Hamming codes on one Milvus, in collections that exist while measured."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..._arrays import Codes
from ...codebooks import Codebooks
from ..abilities import BitsVariant, Variant
from ..base import Engine
from .collection import MilvusCollection
from .connection import Connection, Server, connect
from .filling import fill
from .hamming import MilvusHamming
from .profile import Profile
from .profiles import Hamming, get_profile
from .schema import UNFINISHED

PREFIX = "mecoq_bench_"
"""The beginning of the names of collections that are made here."""

HAMMING = Hamming.name

_log = logging.getLogger("mecoq_index")

MakeEngine = Callable[[MilvusCollection, Codebooks], Engine]


def bench_variants(
    codebooks: Codebooks,
    make_engine: MakeEngine,
    *,
    uri: str | Path | None = None,
    token: str | None = None,
    profiles: str | Sequence[str] = ("exact",),
) -> dict[str, Variant | BitsVariant]:
    """The profiles to measure, and Hamming codes on the same server, by name.

    Hamming codes are left out, with a warning, if the Milvus cannot hold them.

    Args:
        codebooks: The learned codebooks.
        make_engine: Returns the engine of a collection.
        uri: A server's address or a ``.db`` file; see `connect`.
        token: Credentials; see `connect`.
        profiles: Forms in which learned codes are stored. A text is split at its commas.

    Returns:
        A `ProfileVariant` for each profile, then a `HammingVariant`.

    Raises:
        InvalidInputError: If a profile does not exist, or the server cannot hold it.
        ServerError: If the server is out of reach or refuses the credentials.
    """
    names = profiles.split(",") if isinstance(profiles, str) else profiles
    made = {name.strip(): get_profile(name.strip(), codebooks) for name in names}

    def check(server: Server) -> None:
        for profile in made.values():
            profile.check_server(server)

    connection = connect(uri, token=token, check=check)
    variants: dict[str, Variant | BitsVariant] = {
        name: ProfileVariant(connection, profile, make_engine) for name, profile in made.items()
    }
    if reason := why_no_hamming(connection, codebooks):
        _log.warning("Hamming codes are not measured: %s.", reason)
    else:
        variants[HAMMING] = HammingVariant(connection)
    return variants


def why_no_hamming(connection: Connection, codebooks: Codebooks) -> str:
    """The reason why Hamming codes of as many bits cannot be measured; empty if they can.

    Raises:
        ServerError: If the server is out of reach or refuses the credentials.
    """
    if connection.server.is_lite:
        return "milvus-lite has no binary vectors"
    width = min(codebooks.P, codebooks.D)
    if codebooks.bits % 8 or codebooks.bits > width:
        return f"{codebooks.bits:g} bits are not whole bytes, or exceed the vectors' width {width}"
    return ""


@dataclass(frozen=True, eq=False)
class ProfileVariant:
    """Learned codes in a collection that is dropped afterwards.

    Attributes:
        connection: The Milvus to measure.
        profile: How codes are stored.
        make_engine: Returns the engine of a collection.
    """

    connection: Connection
    profile: Profile
    make_engine: MakeEngine

    def __call__(self, codebooks: Codebooks, codes: Codes, /) -> AbstractContextManager[Engine]:
        """The engine with codes (n, M)."""
        return self._engine(codebooks, codes)

    @contextmanager
    def _engine(self, codebooks: Codebooks, codes: Codes) -> Iterator[Engine]:
        with _filled(self.connection, self.profile, codes) as collection:
            yield self.make_engine(collection, codebooks)


@dataclass(frozen=True, eq=False)
class HammingVariant:
    """Packed bits in a collection that is dropped afterwards.

    Attributes:
        connection: The Milvus to measure.
    """

    connection: Connection
    takes_bits = True

    def __call__(self, bits: Codes, /) -> AbstractContextManager[MilvusHamming]:
        """Packed bits (n, bits / 8), whose queries are packed bits (nq, bits / 8) as well."""
        return self._stored(bits)

    @contextmanager
    def _stored(self, bits: Codes) -> Iterator[MilvusHamming]:
        with _filled(self.connection, Hamming(8 * bits.shape[1]), bits) as collection:
            yield MilvusHamming(collection)


@contextmanager
def _filled(connection: Connection, profile: Profile, codes: Codes) -> Iterator[MilvusCollection]:
    name = f"{PREFIX}{uuid.uuid4().hex}"
    collection = MilvusCollection(connection, name, profile)
    try:
        fill(collection, codes)
        yield collection
    finally:
        for left in (collection, collection.renamed(name + UNFINISHED)):
            if left.exists():
                left.drop()
