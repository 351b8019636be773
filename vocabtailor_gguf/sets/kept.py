"""What exact mode was found to lack, kept in the cache from one use of a model to the next."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from vocabtailor_gguf.atomic import temporary_files
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.keys import PAIR_ID
from vocabtailor_gguf.gguf.pair import read_core
from vocabtailor_gguf.sets.learning import KEY, learned_counts
from vocabtailor_gguf.sets.token_set import TokenSet
from vocabtailor_gguf.split.cache import learned_folder

logger = logging.getLogger(__name__)

_DECAY = 0.8  # of what uses before this one counted: what was not needed for long is dropped
_LEAST = 0.5  # of a count that stays
_MOST = 4096  # tokens


def learned_file(core: str | os.PathLike[str]) -> Path:
    """Return where the learned tokens of a core lie, whether there are any or not.

    Raises:
        BadFileError: The core is malformed.
    """
    pair = str(read_core(core).require(PAIR_ID, str))
    stem = Path(core).name.removesuffix(".gguf").removesuffix(".core")
    return learned_folder() / f"{stem}-{pair[:16]}.tokens.json"


class Kept:
    """Tokens that drafts of one model lacked, and how often each was needed.

    Threads may share one; processes may share its file, since each adds what it counted itself to
    what lies there. Neither is ever a reason to fail: what cannot be read or written is told once.

    Args:
        path: The file; None to keep nothing beyond this process.
        tokenizer: Fingerprint of the tokenizer.
        n_vocab: Tokens of the vocabulary.
    """

    def __init__(self, path: Path | None, tokenizer: str, n_vocab: int) -> None:
        self._path = path
        self._tokenizer = tokenizer
        self._n_vocab = n_vocab
        self._lock = threading.Lock()  # of what is counted
        self._writing = threading.Lock()
        self._told: set[str] = set()
        self._new: Counter[int] = Counter()  # since the file was written
        self._is_used = False
        self._decay = _DECAY  # of what the file counts; 1 once that was done
        self._counts = Counter(self._read())
        self._tokens = list(self._counts)
        self._version = 0

    def tokens(self) -> tuple[int, list[int]]:
        """Return a version and what is known, in the order in which it became known.

        Of one version there are only ever more tokens, at the end.
        """
        with self._lock:
            return self._version, list(self._tokens)

    def note(self, needed: Mapping[int, int]) -> None:
        """Count tokens that a use needed and had not, or had from here; there may be none."""
        with self._lock:
            self._is_used = True
            self._new.update(needed)
            self._counts.update(needed)
            known = set(self._tokens)
            self._tokens += [t for t in needed if t not in known]
            if len(self._tokens) > _MOST:
                self._counts = Counter(dict(self._counts.most_common(_MOST // 2)))
                self._tokens = list(self._counts)
                self._version += 1

    def save(self) -> None:
        """Add what was counted since the last time to what the file holds, atomically."""
        with self._writing:
            with self._lock:
                new, is_used = self._new, self._is_used
                self._new, self._is_used = Counter(), False
            if self._path is None or not is_used or (self._decay == 1 and not new):
                return
            try:
                self._write(self._path, new)
                self._decay = 1
            except (VocabTailorError, OSError) as e:
                self._tell(f"what was learned is not kept: {e}")
                with self._lock:
                    self._new.update(new)
                    self._is_used = True

    def _write(self, path: Path, new: Mapping[int, int]) -> None:
        if not (new or self._read()):
            return  # nothing was known, and still is not
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_files(path) as (temporary,):
            # no other writer is at it from here on
            before = self._read()
            counts = Counter({t: self._decay * n for t, n in before.items()})
            counts.update(new)
            kept = {t: n for t, n in counts.most_common(_MOST) if n >= _LEAST} or before
            told = {str(t): kept[t] for t in sorted(kept)}
            TokenSet(sorted(kept), self._tokenizer, {KEY: told}).write(temporary)

    def _read(self) -> dict[int, float]:
        """Return the counts of the file, the highest first; nothing where there are none."""
        if self._path is None:
            return {}
        try:
            found = TokenSet.load(self._path)
            counts = learned_counts(found)
        except VocabTailorError as e:
            if not isinstance(e.__cause__, FileNotFoundError):
                self._tell(f"{self._path}: what was learned before is left out: {e}")
            return {}
        if found.tokenizer != self._tokenizer:
            self._tell(f"{self._path}: what was learned before is of another tokenizer")
            return {}
        ids = set(found.ids.tolist())
        usable = Counter(
            {
                t: n
                for t, n in counts.items()
                if t in ids and t < self._n_vocab and n > 0 and math.isfinite(n)
            }
        )
        return dict(usable.most_common(_MOST))

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", what)
