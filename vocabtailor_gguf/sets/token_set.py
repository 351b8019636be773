"""Static token sets: which rows of the LM head a task needs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.binding.store import VocabStore, token_array
from vocabtailor_gguf.errors import BadFileError, MismatchError, TokenIdError
from vocabtailor_gguf.reading import read_json

FORMAT = "vocabtailor.tokens"
VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSet:
    """A set of token ids of one tokenizer.

    Attributes:
        ids: (n,) int32, ascending and unique; any order and repeats may be given.
        tokenizer: Fingerprint of the tokenizer (``VocabStore.tokenizer_sha256``), or None where it
            is not known; then only the range of the ids is checked.
        provenance: Where the set comes from: corpus, stages, tolerance, counts.

    Raises:
        TokenIdError: The ids are empty, negative or not integers.

    Example:
        >>> TokenSet([7, 3, 3]).ids.tolist()
        [3, 7]
    """

    ids: npt.NDArray[np.int32]
    tokenizer: str | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __init__(
        self,
        ids: Sequence[int] | npt.NDArray[Any],
        tokenizer: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        unique = np.unique(token_array(ids))
        if unique.size == 0:
            raise TokenIdError("token set: empty")
        unique.flags.writeable = False
        object.__setattr__(self, "ids", unique)
        object.__setattr__(self, "tokenizer", tokenizer)
        object.__setattr__(self, "provenance", dict(provenance or {}))

    def __len__(self) -> int:
        """Return the number of ids."""
        return int(self.ids.size)

    def union(self, other: TokenSet) -> TokenSet:
        """Return the ids of either set.

        Raises:
            MismatchError: The sets are of different tokenizers.
        """
        return self._combined(other, np.union1d(self.ids, other.ids), "union")

    def intersection(self, other: TokenSet) -> TokenSet:
        """Return the ids of both sets; see `union`.

        Raises:
            TokenIdError: There are none.
        """
        return self._combined(other, np.intersect1d(self.ids, other.ids), "intersection")

    def difference(self, other: TokenSet) -> TokenSet:
        """Return the ids that `other` lacks; see `union`.

        Raises:
            TokenIdError: There are none.
        """
        return self._combined(other, np.setdiff1d(self.ids, other.ids), "difference")

    def _combined(self, other: TokenSet, ids: npt.NDArray[np.int32], how: str) -> TokenSet:
        known = {s.tokenizer for s in (self, other) if s.tokenizer is not None}
        if len(known) > 1:
            raise MismatchError(f"{how}: the sets were made for different tokenizers")
        provenance = {how: [dict(self.provenance), dict(other.provenance)]}
        return TokenSet(ids, next(iter(known), None), provenance)

    def check(self, store: VocabStore, where: str = "token set") -> None:
        """Check that the set fits a store.

        Raises:
            MismatchError: It was made for another tokenizer.
            TokenIdError: An id is outside the vocabulary.
        """
        if self.tokenizer is not None and self.tokenizer != store.tokenizer_sha256:
            raise MismatchError(
                f"{where}: made for the tokenizer {self.tokenizer[:16]}, "
                f"but {store.path} has {store.tokenizer_sha256[:16]}"
            )
        if self.ids[-1] >= store.n_vocab:
            raise TokenIdError(f"{where}: id {self.ids[-1]}, expected 0 to {store.n_vocab - 1}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenSet:
        """Read ``NAME.tokens.json``, or the ``{token: id}`` JSON of the reference implementation.

        A file has at most 64 MiB and a million ids; a byte order mark is skipped.

        Raises:
            BadFileError: The file cannot be read or is malformed.
        """
        where = Path(path)
        data = read_json(where)
        if not isinstance(data, dict):
            raise BadFileError(f"{where}: found {type(data).__name__}, expected an object")
        if "format" not in data and set(map(type, data.values())) == {int}:
            return cls._from_list(where, list(data.values()), None, {"source": where.name})
        for key, expected in (("format", FORMAT), ("version", VERSION)):
            if data.get(key) != expected or isinstance(data.get(key), bool):
                raise BadFileError(
                    f"{where}: {key}: found {data.get(key)!r}, expected {expected!r}"
                )
        tokenizer, provenance = data.get("tokenizer"), data.get("provenance", {})
        if not isinstance(tokenizer, str | None) or not isinstance(provenance, dict):
            raise BadFileError(f"{where}: tokenizer or provenance has a wrong type")
        return cls._from_list(where, data.get("ids"), tokenizer, provenance)

    @classmethod
    def _from_list(
        cls, where: Path, ids: Any, tokenizer: str | None, provenance: dict[str, Any]
    ) -> TokenSet:
        # bool is an int for isinstance, and 1.0 for numpy
        if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
            raise BadFileError(f"{where}: ids: expected a list of integers")
        try:
            array = np.sort(np.array(ids, dtype=np.int64))
            again = array[1:][array[1:] == array[:-1]]
            if again.size:
                raise BadFileError(f"{where}: ids: {again[0]} appears twice")
            return cls(array, tokenizer, provenance)
        except (TokenIdError, OverflowError) as e:
            raise BadFileError(f"{where}: ids: {e}") from e

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``NAME.tokens.json``, atomically.

        Raises:
            BadFileError: The file cannot be written.
        """
        with temporary_files(Path(path)) as (temporary,):
            self.write(temporary)

    def write(self, path: Path) -> None:
        """Write the JSON of a set into a file, and sync it to disk; see `save`.

        Raises:
            OSError: It cannot be written.
        """
        data = {
            "format": FORMAT,
            "version": VERSION,
            "tokenizer": self.tokenizer,
            "provenance": dict(self.provenance),
            "ids": self.ids.tolist(),
        }
        with open(path, "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False)
            f.flush()
            os.fsync(f.fileno())
