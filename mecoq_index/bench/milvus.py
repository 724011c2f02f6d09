"""Learned codes and Hamming codes on one Milvus, in collections that are there while measured."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from .._arrays import Codes
from ..codebooks import Codebooks
from ..engines.abilities import BitsVariant, Variant
from ..engines.milvus.collection import MilvusCollection
from ..engines.milvus.connection import Connection, connect
from ..engines.milvus.engine import MilvusEngine, MilvusHamming
from ..engines.milvus.filling import fill
from ..engines.milvus.profile import Profile
from ..engines.milvus.profiles import Hamming, get_profile
from ..engines.milvus.schema import UNFINISHED

PREFIX = "mecoq_bench_"
"""What names of collections begin with that are made here."""


@dataclass(frozen=True, kw_only=True)
class MilvusPlace:
    """Where on which Milvus to measure what."""

    uri: str | Path | None = field(default=None, repr=False)
    """A server's address or a ``.db`` file; see `mecoq_index.engines.milvus.connection.connect`."""
    token: str | None = field(default=None, repr=False)
    """Credentials; see there."""
    profiles: Sequence[str] = ("exact",)
    """How to store learned codes; each is measured by itself."""

    @cached_property
    def connection(self) -> Connection:
        """The connection that all measurements share."""
        return connect(self.uri, token=self.token)

    def check(self, codebooks: Codebooks) -> None:
        """Refuse profiles that do not exist, or that the server cannot hold.

        Raises:
            InvalidInputError: If so.
            ServerError: If the server is out of reach or refuses the credentials.
        """
        for profile in [get_profile(name, codebooks) for name in self.profiles]:
            profile.check_server(self.connection.server)

    def why_no_hamming(self, bits: float, width: int) -> str | None:
        """Why codes of so many bits, of vectors of this width, cannot be compared; None if so.

        Raises:
            ServerError: If the server is out of reach or refuses the credentials.
        """
        if self.connection.server.is_lite:
            return "milvus-lite has no binary vectors"
        if bits % 8 or not 8 <= bits <= width:
            return f"{bits:g} bits are no whole bytes, or more than the vectors' width {width}"
        return None

    @contextmanager
    def learned(self, profile: str, codebooks: Codebooks, codes: Codes) -> Iterator[MilvusEngine]:
        """Learned codes in a collection, which is dropped afterwards."""
        with self._filled(get_profile(profile, codebooks), codes) as collection:
            yield MilvusEngine(collection, codebooks)

    @contextmanager
    def hamming(self, bits: Codes) -> Iterator[MilvusHamming]:
        """Packed bits (n, bits / 8) in a collection, which is dropped afterwards."""
        with self._filled(Hamming(8 * bits.shape[1]), bits) as collection:
            yield MilvusHamming(collection)

    def variants(self, codebooks: Codebooks, width: int) -> dict[str, Variant | BitsVariant]:
        """The profiles, and Hamming codes of vectors of this width, by the names of their rows.

        Raises:
            ServerError: If the server is out of reach or refuses the credentials.
        """
        found: dict[str, Variant | BitsVariant] = {
            f"MeCoQ (milvus, {profile})": partial(self.learned, profile)
            for profile in self.profiles
        }
        if not self.why_no_hamming(codebooks.bits, width):
            found["ITQ (milvus, hamming)"] = _HammingVariant(self)
        return found

    @contextmanager
    def _filled(self, profile: Profile, codes: Codes) -> Iterator[MilvusCollection]:
        name = f"{PREFIX}{uuid.uuid4().hex}"
        collection = MilvusCollection(self.connection, name, profile)
        try:
            fill(collection, codes)
            yield collection
        finally:
            for left in (collection, collection.renamed(name + UNFINISHED)):
                if left.exists():
                    left.drop()


@dataclass(frozen=True, eq=False)
class _HammingVariant:
    """Packed bits at a place; a `BitsVariant`."""

    place: MilvusPlace
    takes_bits = True

    def __call__(self, bits: Codes, /) -> AbstractContextManager[MilvusHamming]:
        return self.place.hamming(bits)
