"""Parts of a build that several machines share."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInputError


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, counted from 1, of a build that several machines share."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidInputError(
                f"a shard i/n must have 1 <= i <= n, got {self.number}/{self.count}."
            )

    def bounds(self, n: int, chunk: int = 1) -> tuple[int, int]:
        """Its first row, and the one after its last, of n rows that are encoded in chunks.

        Where there are many chunks, shards end where chunks do: then every product of matrices is
        of the same rows as in a build of the whole, and rounded alike.
        """
        step = chunk if n >= 8 * self.count * chunk else 1
        first, last = (i * (n // step) // self.count * step for i in (self.number - 1, self.number))
        return first, n if self.number == self.count else last


def as_shard(shard: Shard | tuple[int, int] | None) -> Shard | None:
    """A shard that is given as an object or as a pair (number, count)."""
    return shard if shard is None or isinstance(shard, Shard) else Shard(*shard)
