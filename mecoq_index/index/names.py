"""What items are called, by id, in three arrays: a hundred million names without as many objects.

The names lie one after the other in one array of bytes, in the order of their ids. The way back
from a name to its id is an array of 64-bit hashes, made when it is first needed; the bytes decide
whether two names are the same, hashes only where to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from .._array_file import open_archive
from .._arrays import Ids, check_ids
from .._files import atomic_file
from ..errors import ArtifactError, InvalidInputError
from . import texts
from .texts import Bytes as Text
from .texts import Offsets, Rows, check_array, check_offsets, decode, encode, iterate, take

Hashes = npt.NDArray[np.uint64]  # (n,)

# Odd, so that multiplying by it loses nothing; its bits are those of the golden ratio.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Names:
    """Distinct names of n items. Make them with `from_strings` or `load`.

    Names are kept as UTF-8; what is no UTF-8 in a file name, and a lone surrogate in its string,
    comes back as it went in. The arrays are held, not copied, and become read-only.

    Attributes:
        ids: int64, shape (n,), ascending, none below 0.
        offsets: int64, shape (n + 1,). The name of ``ids[i]`` is the bytes
            ``text[offsets[i]:offsets[i + 1]]``.
        text: uint8, shape (offsets[n],).

    Raises:
        InvalidInputError: If the arrays do not fit together. That two names are the same is
            noticed when they are first looked for by name.

    Example:
        >>> names = Names.from_strings(["cat.jpg", "dog.jpg", "über.jpg"])
        >>> names[2], names.ids_of(["dog.jpg", "cat.jpg"])
        ('über.jpg', array([1, 0]))
    """

    ids: Ids
    offsets: Offsets
    text: Text

    def __post_init__(self) -> None:
        check_array("ids", self.ids, np.int64)
        check_array("offsets", self.offsets, np.int64)
        check_array("text", self.text, np.uint8)
        if (self.ids[:1] < 0).any() or (self.ids[1:] <= self.ids[:-1]).any():
            raise InvalidInputError(
                "ids must ascend from 0 or more, but they do not. Use Names.from_strings."
            )
        check_offsets(self.offsets, self.text, len(self.ids))
        for array in (self.ids, self.offsets, self.text):
            array.flags.writeable = False

    @classmethod
    def from_strings(cls, names: Sequence[str], ids: Ids | None = None) -> Names:
        """Names of the items ``ids`` (n,), in any order; of 0..n-1 if there are none given.

        Raises:
            InvalidInputError: If a name is no string or occurs twice, or ids are malformed.
        """
        offsets, text = encode(names)
        n = len(offsets) - 1
        if ids is None:
            made = cls(np.arange(n, dtype=np.int64), offsets, text)
        else:
            made = _sorted(np.array(check_ids(ids, n)), offsets, text)
        _ = made._index  # refuses equal names
        return made

    @classmethod
    def load(cls, path: str | Path) -> Names:
        """Read what `save` wrote.

        All bytes are a name, as in a file system, so no encoding can be wrong.

        Raises:
            ArtifactError: If the file is missing, damaged, or holds no names.
        """
        try:
            with open_archive(Path(path), what="file of names") as archive:
                return cls(archive["ids"], archive["offsets"], archive["text"])
        except InvalidInputError as exc:
            raise ArtifactError(f"{path} is damaged: {exc}") from exc

    def save(self, path: str | Path) -> None:
        """Write an uncompressed ``.npz`` under exactly this name; equal names give equal bytes."""
        # Given a path instead of a stream, NumPy would append a suffix to it.
        with atomic_file(Path(path)) as partial, partial.open("wb") as stream:
            np.savez(stream, ids=self.ids, offsets=self.offsets, text=self.text)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, id: int) -> str:
        """The name of one item.

        Raises:
            InvalidInputError: If no item has this id.
        """
        row = int(np.searchsorted(self.ids, id))
        if row == len(self) or self.ids[row] != id:
            raise InvalidInputError(f"id must be one of the {len(self)} with a name, got {id}.")
        return self._name(row)

    def __iter__(self) -> Iterator[str]:
        """All names in the order of their ids."""
        return iterate(self.offsets, self.text)

    def ids_of(self, names: Sequence[str]) -> Ids:
        """The ids of items with these names, in the order of ``names``, which may repeat.

        Raises:
            InvalidInputError: If a name is no string, or no item is called so.
        """
        rows = self._find(*encode(names))
        if len(unknown := np.flatnonzero(rows < 0)):
            raise InvalidInputError(
                f"names must be those of items, but {len(unknown)} of {len(names)} are not, the "
                f"first of them {names[int(unknown[0])]!r}."
            )
        return self.ids[rows]

    def of_ids(self, ids: Ids) -> Names:
        """The names of those of ``ids``, ascending, that have one."""
        rows = self._rows_of(ids)
        return Names(self.ids[rows], *take(self.offsets, self.text, rows))

    def added(self, other: Names) -> Names:
        """These names and those of ``other``.

        Raises:
            InvalidInputError: If the two have an id or a name in common.
        """
        small, large = sorted((self, other), key=len)
        if len(shared := large._rows_of(small.ids)):
            raise InvalidInputError(
                f"ids must be new, but {len(shared)} have a name already, for instance "
                f"{large.ids[shared[0]]}."
            )
        # Only the smaller one needs to be sorted by hash.
        found = small._find(large.offsets, large.text)
        if len(known := np.flatnonzero(found >= 0)):
            raise InvalidInputError(
                f"names must be new, but {len(known)} are taken already, for instance "
                f"{large._name(int(known[0]))!r}."
            )
        ids = np.concatenate([self.ids, other.ids])
        offsets = np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return _sorted(ids, offsets, np.concatenate([self.text, other.text]))

    def without(self, ids: Ids) -> Names:
        """These names but those of ``ids``; an id without a name is no error, as in an engine.

        Raises:
            InvalidInputError: If ``ids`` are malformed.
        """
        staying = np.ones(len(self), np.bool_)
        staying[self._rows_of(check_ids(ids, np.size(ids)))] = False
        rows = np.flatnonzero(staying)
        return Names(self.ids[rows], *take(self.offsets, self.text, rows))

    def _rows_of(self, ids: Ids) -> Rows:
        """The rows of those ``ids`` that have a name."""
        rows = np.searchsorted(self.ids, ids)
        inside = rows < len(self)
        rows, ids = rows[inside], ids[inside]
        return cast(Rows, rows[self.ids[rows] == ids])

    def _name(self, row: int) -> str:
        return decode(self.text[self.offsets[row] : self.offsets[row + 1]].tobytes())

    @cached_property
    def _index(self) -> tuple[Hashes, Rows]:
        """The hashes of all names in ascending order, and the rows that have them.

        Raises:
            InvalidInputError: If two names are the same.
        """
        hashes = _hash(self.offsets, self.text)
        rows = np.argsort(hashes, kind="stable")
        hashes = hashes[rows]
        alike = hashes[1:] == hashes[:-1]
        # Names with one hash are equal ones, or a few that meet by chance.
        seen: set[bytes] = set()
        for place in np.flatnonzero(np.append(alike, False) | np.insert(alike, 0, False)):
            row = int(rows[place])
            name = self.text[self.offsets[row] : self.offsets[row + 1]].tobytes()
            if name in seen:
                raise InvalidInputError(
                    f"names must be distinct, but {decode(name)!r} occurs more than once."
                )
            seen.add(name)
        return hashes, rows

    def _find(self, offsets: Offsets, text: Text) -> Rows:
        """The row of each name in ``text``, or -1."""
        hashes, rows = self._index
        found = np.full(len(offsets) - 1, -1, np.int64)
        for at in range(0, len(found), texts.BLOCK):
            bounds = offsets[at : at + texts.BLOCK + 1]
            wanted = _hash(bounds, text)
            places = np.searchsorted(hashes, wanted)
            asking = np.arange(len(wanted))
            while True:
                # Next place with the hash asked for; one step for nearly all of them.
                asking = asking[places[asking] < len(hashes)]
                asking = asking[hashes[places[asking]] == wanted[asking]]
                if not len(asking):
                    break
                candidates = rows[places[asking]]
                same = self._equal(candidates, asking, bounds, text)
                found[at + asking[same]] = candidates[same]
                asking = asking[~same]
                places[asking] += 1
        return found

    def _equal(
        self,
        mine: Rows,
        theirs: Rows,
        offsets: Offsets,
        text: Text,
    ) -> npt.NDArray[np.bool_]:
        """Whether my names in rows ``mine`` are those of ``text`` in rows ``theirs``."""
        lengths = self.offsets[mine + 1] - self.offsets[mine]
        same = lengths == offsets[theirs + 1] - offsets[theirs]
        bounds, left = take(self.offsets, self.text, mine[same])
        _, right = take(offsets, text, theirs[same])
        differences = np.cumsum(np.append(0, left != right))
        same[same] = differences[bounds[1:]] == differences[bounds[:-1]]
        return cast(npt.NDArray[np.bool_], same)


def _sorted(ids: Ids, offsets: Offsets, text: Text) -> Names:
    if (np.diff(ids) < 0).any():
        rows = np.argsort(ids, kind="stable")
        ids, (offsets, text) = ids[rows], take(offsets, text, rows)
    return Names(ids, offsets, text)


def _hash(offsets: Offsets, text: Text) -> Hashes:
    """A 64-bit hash of each name, the same on every machine."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for at in range(0, len(hashes), texts.BLOCK):
        hashes[at : at + texts.BLOCK] = _hash_block(offsets[at : at + texts.BLOCK + 1], text)
    return hashes


def _hash_block(offsets: Offsets, text: Text) -> Hashes:
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    # The 8 bytes from every position on, as one word; zeros follow the last name.
    padded = np.append(text[offsets[0] : offsets[-1]], np.zeros(7, np.uint8))
    words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    hashes = lengths.astype(np.uint64)
    rows, at = np.flatnonzero(lengths), 0
    while len(rows):
        left = lengths[rows] - at
        word = words[starts[rows] + at]
        ending = left < 8  # the bytes after these belong to the next name
        word[ending] &= (np.uint64(1) << (8 * left[ending]).astype(np.uint64)) - np.uint64(1)
        mixed = (hashes[rows] ^ word) * _MULTIPLIER
        hashes[rows] = mixed ^ (mixed >> np.uint64(29))
        rows, at = rows[left > 8], at + 8
    return hashes
