"""The active set of a model: a part of TailoredLlama."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import token_array
from vocabtailor_gguf.errors import TokenIdError
from vocabtailor_gguf.runtime.arguments import check_own
from vocabtailor_gguf.runtime.owner import Mode, SessionOwner
from vocabtailor_gguf.runtime.states import Over
from vocabtailor_gguf.sets.learning import learned, learned_counts
from vocabtailor_gguf.sets.token_set import TokenSet


class ActiveSet(SessionOwner):
    """The mode, token sets, and what turned out to lack in them."""

    token_set: TokenSet | None
    _over: Over
    _asked: dict[str, Any]  # this package's own arguments
    _session_options: dict[str, Any]
    _counted: dict[int, int]  # what had been needed when the token set was put in

    @property
    def mode(self) -> Mode:
        """``"exact"``, ``"tailored"`` or ``"full"``."""
        return self._mode

    def set_mode(self, mode: Mode, *, audit: float = 0.0, learn: bool | None = None) -> None:
        """Generate in another mode from here on; the text stays, a live generation is superseded.

        Args:
            mode: ``"exact"``, ``"tailored"`` or ``"full"``.
            audit: In mode ``"tailored"``, the share of steps that are audited.
            learn: After each request, keep the tokens that the static set turned out to lack; None
                for as before. What was kept before is dropped from the set in any case.

        Raises:
            ValueError: There is no such mode, or an argument does not fit it.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> llm.set_mode("full")
            >>> llm.active_ids.size == llm.n_vocab()
            True
            >>> llm.close()
        """
        asked = {**self._asked, "mode": mode, "audit": audit}
        if learn is not None:
            asked["learn"] = learn
        own = {"over": asked["logprobs_over"], "learn": asked["learn"], "audit": audit}
        drafting = {"drafts": asked["drafts"], "draft_max": asked["draft_max"]}
        check_own(mode, asked["whole_head"], **drafting, **own)
        with self._text.lock:
            before = self._asked
            try:
                self._use_mode(asked)
                self.set_token_set(self.token_set)
            except BaseException:
                self._use_mode(before)  # whose rows are still there
                raise

    def _use_mode(self, asked: dict[str, Any]) -> None:
        mode: Mode = asked["mode"]
        options = {
            "exact": mode == "exact",
            "audit": asked["audit"],
            "learn": asked["learn"],
            "expand": asked["prompt_expansion"] and mode != "full",
        }
        self._text.set_mode(**options)
        self._mode, self._asked = mode, asked
        self._over = asked["logprobs_over"] if mode == "tailored" else "vocabulary"
        self._session_options = {**self._session_options, **options}

    @property
    def active_ids(self) -> npt.NDArray[np.int32]:
        """The (K,) int32 ids of the active set, in the order of the head's rows.

        Always-on tokens and the token set come first, ascending, then learned ones; tokens that a
        prompt has added follow in order of first appearance, then other forms of its words. In
        exact mode those of scripts that the text is written in come next, then in order of time
        rows that verifications have listed or that came near, and more of a script that lacked.
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

    def needed_tokens(self) -> Counter[int]:
        """Return how often tokens were needed that the active set lacked, or had learned.

        Counted since the model was loaded: by exact mode at every token, by audits at theirs. A
        token that was learned is counted as long as it is in the set.
        """
        return self._text.needed()

    def learn_tokens(self, tokens: Sequence[int] | npt.NDArray[Any]) -> None:
        """Let tokens join the static set as if they had been learned, after those that are there.

        They stay until `set_token_set` or `set_mode`; `token_set` does not have them.

        Args:
            tokens: (n,) token ids; those that the set has stay where they are.

        Raises:
            TokenIdError: An id is outside the vocabulary.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> llm.learn_tokens([llm.n_vocab() - 1])
            >>> llm.n_vocab() - 1 in llm.active_ids
            True
            >>> llm.close()
        """
        ids = token_array(tokens)
        if ids.size and int(ids.max()) >= self.store.n_vocab:
            raise TokenIdError(f"token id {ids.max()}, expected 0 to {self.store.n_vocab - 1}")
        self._text.learn(ids)

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
