"""Codes in plain arrays with an id a row: what the engines without a library of their own share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import Codes, Ids, check_codes, check_ids, distinct_ids
from .._files import UNREADABLE, atomic_file, check_readable, first_line
from ..codebooks import Codebooks
from ..errors import ArtifactError, InvalidInputError


class Rows:
    """n codes (n, M) and their ids (n,), in the order in which they were added."""

    def __init__(self, codebooks: Codebooks) -> None:
        self.codebooks = codebooks
        self.codes: Codes = np.empty((0, codebooks.M), np.uint8)
        self.ids: Ids = np.empty(0, np.int64)
        self._next_id = 0

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, codes: Codes, ids: Ids | None) -> None:
        """Append codes under ``ids``, or under the numbers after the largest id ever held.

        Raises:
            InvalidInputError: If codes or ids are malformed, or an id is held already.
        """
        codes = check_codes(codes, self.codebooks.M, self.codebooks.K)
        if ids is None:
            ids = np.arange(self._next_id, self._next_id + len(codes), dtype=np.int64)
        ids = check_ids(ids, len(codes))
        if len(taken := np.intersect1d(ids, self.ids)):
            raise InvalidInputError(
                f"ids must be new, but {len(taken)} are held already, for instance {taken[0]}. "
                "Remove them first to replace them."
            )
        self.codes = np.concatenate([self.codes, codes])
        self.ids = np.concatenate([self.ids, ids])
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)

    def remove(self, ids: Ids) -> int:
        """Remove the rows with these ids; return how many there were."""
        leaving = np.isin(self.ids, check_ids(ids, len(ids)))
        self.codes, self.ids = self.codes[~leaving], self.ids[~leaving]
        return int(leaving.sum())

    def codes_of(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids, which may repeat.

        Raises:
            InvalidInputError: If ids are malformed, or one is not held.
        """
        wanted, places = distinct_ids(ids)
        order = np.argsort(self.ids)
        rows = np.searchsorted(self.ids, wanted, sorter=order)
        if len(missing := np.setdiff1d(wanted, self.ids)):
            raise InvalidInputError(
                f"ids must be held, but {len(missing)} are not, for instance {missing[0]}."
            )
        found: Codes = self.codes[order[rows]][places]
        return found

    def save(self, path: Path) -> None:
        """Write an ``.npz`` of codes, ids and the codebooks' fingerprint."""
        with atomic_file(Path(path)) as partial, partial.open("wb") as stream:
            np.savez(
                stream,
                codes=self.codes,
                ids=self.ids,
                fingerprint=np.array(self.codebooks.fingerprint),
            )

    @classmethod
    def load(cls, path: Path, codebooks: Codebooks) -> Rows:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is damaged, or belongs to other codebooks.
        """
        path = check_readable(Path(path))
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                content: dict[str, Any] = {name: archive[name] for name in archive.files}
            codes, ids, fingerprint = content["codes"], content["ids"], str(content["fingerprint"])
        except UNREADABLE as exc:
            raise ArtifactError(f"{path} is no readable file of codes: {first_line(exc)}") from exc
        if fingerprint != codebooks.fingerprint:
            raise ArtifactError(
                f"{path} was built with other codebooks ({fingerprint[:12]}) than the ones given "
                f"({codebooks.fingerprint[:12]}). Search it with its own."
            )
        rows = cls(codebooks)
        try:
            rows.add(codes, ids)
        except InvalidInputError as exc:
            raise ArtifactError(f"{path} is damaged: {exc}") from exc
        return rows
