"""The active set of a model: a part of TailoredLlama."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.runtime.owner import Mode, SessionOwner
from vocabtailor_gguf.sets.learning import learned, learned_counts
from vocabtailor_gguf.sets.token_set import TokenSet


class ActiveSet(SessionOwner):
    """Token sets, and what turned out to lack in them."""

    token_set: TokenSet | None
    _counted: dict[int, int]  # what had been needed when the token set was put in

    @property
    def mode(self) -> Mode:
        """``"exact"``, ``"tailored"`` or ``"full"``."""
        return self._mode

    @property
    def active_ids(self) -> npt.NDArray[np.int32]:
        """The (K,) int32 ids of the active set, in the order of the head's rows.

        Always-on tokens and the token set come first, ascending, then learned ones; tokens that a
        prompt has added follow in order of first appearance, then other forms of its words, and in
        exact mode rows that a verification has listed.
        """
        return self._text.active_ids()

    def set_token_set(self, token_set: TokenSet | str | os.PathLike[str] | None) -> None:
        """Replace the static set. Tokens of the text that is being decoded stay active.

        Raises:
            BadFileError: The file is malformed.
            MismatchError: The set was made for another tokenizer.
            TokenIdError: An id is outside the vocabulary.
        """
        self._text.check_open()
        if isinstance(token_set, TokenSet) or token_set is None:
            chosen, where = token_set, "token set"
        else:
            chosen, where = TokenSet.load(token_set), os.fspath(token_set)
        if chosen is not None:
            chosen.check(self.store, where)
        watched = list(learned_counts(chosen))
        if self._mode == "full":
            ids = np.arange(self.store.n_vocab, dtype=np.int32)
        else:
            # a set of learned tokens only goes on from the guess that they were lacking in
            guess = self._mode == "exact" and (chosen is None or len(chosen) == len(watched))
            ids = self._engine.static_ids(chosen, guess=guess)
        with self._text.lock:
            self._text.watch(watched)
            self._text.set_static(ids)
            self._counted = self._text.needed()
            self.token_set = chosen

    def learned_token_set(
        self, *, previous: TokenSet | None = None, decay: float = 1.0, least: float = 0.5
    ) -> TokenSet:
        """Return the token set of this model with the tokens that it turned out to lack.

        Exact mode finds them at every token, tailored mode at those that are audited. How often
        they were needed since `set_token_set` is added to the counts in the provenance, so that
        sets can learn on from request to request and forget.

        Args:
            previous: A learned set whose counts go on; by default `token_set`.
            decay: Factor on the counts of `previous`.
            least: Learned tokens whose count falls below it are dropped.

        Raises:
            VocabTailorError: Nothing was learned and there is no set.
        """
        base = previous if previous is not None else self.token_set
        new = {t: n - self._counted.get(t, 0) for t, n in self._text.needed().items()}
        new = {t: n for t, n in new.items() if n}
        return learned(base, new, self.store.tokenizer_sha256, decay=decay, least=least)
