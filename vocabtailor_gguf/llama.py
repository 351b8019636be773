"""TailoredLlama: ``llama_cpp.Llama`` on a core and its vocabulary store."""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal, get_args

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.store import VocabStore, token_array
from vocabtailor_gguf.binding.verifier import MAX_BLOCK, Verifier
from vocabtailor_gguf.binding.whole_head import Placement, WholeHead
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError
from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.runtime.reports import AuditReport, MemoryReport, Stats
from vocabtailor_gguf.runtime.sampler import biased
from vocabtailor_gguf.runtime.scores import LastPosition, LazyScores
from vocabtailor_gguf.runtime.split_llama import SplitLlama, not_supported
from vocabtailor_gguf.runtime.tokenizer import Variants, always_on
from vocabtailor_gguf.sets.learning import learned, learned_counts
from vocabtailor_gguf.sets.token_set import TokenSet

Mode = Literal["exact", "tailored", "full"]

logger = logging.getLogger(__name__)

_NO_TOKENS = np.empty(0, dtype=np.int32)


class TailoredLlama(SplitLlama):
    """A drop-in ``llama_cpp.Llama`` whose vocabulary lies in a store of its own.

    Mode ``"exact"``, the default, gives llama.cpp's own output for the same seed and sampler chain:
    it drafts with the active set (always-on tokens, the token set, the prompt's tokens) and
    verifies against the whole head before a token is yielded. Mode ``"full"`` computes every row of
    the LM head at every token. In mode ``"tailored"`` only tokens of the active set can be
    produced, so it wants a token set that fits the task.

    Args:
        model_path: ``NAME.core.gguf``.
        vocab_path: ``NAME.vocab.gguf``; by default the one beside the core.
        token_set: A `TokenSet`, the path of one, or None for always-on and prompt tokens only.
        mode: ``"exact"``, ``"tailored"`` or ``"full"``.
        whole_head: Where exact mode and audits have the whole LM head: ``"mapped"``, as pages of
            the store's file; ``"memory"``, as a copy; ``"streamed"``, nowhere: it is read through
            a buffer of some MB each time, which takes two to three times as long.
        learn: After each request, keep the tokens that the static set turned out to lack.
        audit: In mode ``"tailored"``, the share of steps that are checked against the whole
            vocabulary, 0 to 1; see `audit_report`.
        prompt_expansion: Let a prompt's token also bring the tokens that write its word in
            another form: with or without a leading space, in another case.
        **kwargs: Arguments of ``llama_cpp.Llama``.

    Raises:
        BadFileError: A file cannot be read or is malformed.
        MismatchError: Core, store and token set do not belong together.
        UnsupportedError: An argument is not supported.

    Example:
        >>> llm = TailoredLlama(CORE, mode="full", n_ctx=64, verbose=False)
        >>> out = llm.create_completion("Rome is", max_tokens=4, temperature=0)
        >>> out["usage"]["completion_tokens"]
        4
        >>> llm.close()
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        vocab_path: str | os.PathLike[str] | None = None,
        token_set: TokenSet | str | os.PathLike[str] | None = None,
        mode: Mode = "exact",
        whole_head: Placement = "mapped",
        learn: bool = False,
        audit: float = 0.0,
        prompt_expansion: bool = True,
        **kwargs: Any,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode: found {mode!r}, expected one of {', '.join(get_args(Mode))}")
        if not 0 <= audit <= 1 or (audit and mode != "tailored"):
            raise ValueError(f"audit: found {audit}, mode {mode}: expected 0 to 1, mode tailored")
        if learn and mode != "exact" and not audit:
            raise ValueError("learn: only exact mode and audits find tokens to learn")
        self._mode = mode
        self._learn = learn
        self._audit = audit
        self._random = random.Random(kwargs.get("seed"))
        self._misses = 0
        self._prompt = _NO_TOKENS
        self._exact: Verifier | None = None
        self._exact_sampler: Any = None  # whose chain the exact mode has cloned
        self._counted: dict[int, int] = {}  # what had been missed when the token set was put in
        self._n_left: int | None = None  # tokens that the request may still ask for
        self._variants: Variants | None = None
        self._bias: dict[int, float] = {}  # of the request
        super().__init__(model_path, vocab_path=vocab_path, **kwargs)
        try:
            if mode == "exact" or audit:
                n_threads = self.context_params.n_threads
                self._whole = WholeHead(self._store, placement=whole_head, n_threads=n_threads)
                self._stack.callback(self._whole.close)
                self._exact = Verifier(self._session, self._whole, self._model.vocab)
                self._stack.callback(self._exact.close)
            self._always_on = always_on(self._model.vocab)
            if prompt_expansion and mode != "full":
                self._variants = Variants(self._model.vocab)
                self._stack.callback(self._variants.close)
            self.set_token_set(token_set)
            if mode == "tailored" and token_set is None:
                logger.warning(
                    "tailored mode without a token set: only the prompt's tokens, other forms of "
                    "its words and single bytes can be produced; give a token_set, or take mode "
                    "exact"
                )
        except BaseException:
            self.close()
            raise

    # ---- the active set ----

    @property
    def mode(self) -> Mode:
        """``"exact"``, ``"tailored"`` or ``"full"``."""
        return self._mode

    @property
    def store(self) -> VocabStore:
        """The open vocabulary store."""
        return self._store

    @property
    def active_ids(self) -> npt.NDArray[np.int32]:
        """The (K,) int32 ids of the active set, in the order of the head's rows.

        Always-on tokens and the token set come first, ascending, then learned ones; tokens that a
        prompt has added follow in order of first appearance, then other forms of its words, and in
        exact mode rows that a verification has listed.
        """
        return self._head.ids()

    def set_token_set(self, token_set: TokenSet | str | os.PathLike[str] | None) -> None:
        """Replace the static set. Tokens of the text that is being decoded stay active.

        Raises:
            BadFileError: The file is malformed.
            MismatchError: The set was made for another tokenizer.
            TokenIdError: An id is outside the vocabulary.
        """
        with self._exclusive():
            if isinstance(token_set, TokenSet) or token_set is None:
                chosen, where = token_set, "token set"
            else:
                chosen, where = TokenSet.load(token_set), os.fspath(token_set)
            if chosen is not None:
                chosen.check(self._store, where)
            watched = list(learned_counts(chosen))
            if self._exact is not None:
                self._exact.watch(watched)
                self._counted = self._needed()
            if self._mode == "full":
                ids = np.arange(self._store.n_vocab, dtype=np.int32)
            elif chosen is None:
                ids = self._always_on
            else:
                ids = np.union1d(self._always_on, chosen.ids).astype(np.int32)
            self._head.set_static(ids)
            self.token_set = chosen
            self._append_prompt(self._prompt)
            if self.n_tokens:
                self._head.append(np.ascontiguousarray(self._input_ids, dtype=np.int32))

    def _append_prompt(self, ids: npt.NDArray[np.int32]) -> int:
        """Add a prompt's tokens and other forms of its words; return how many the set lacked."""
        missed = self._head.append(ids)
        self._head.append(np.array([t for t, b in self._bias.items() if b > 0], dtype=np.int32))
        if self._variants is not None and ids.size:
            self._head.append(self._variants.find(ids))
        return missed

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
        new = {t: n - self._counted.get(t, 0) for t, n in self._needed().items()}
        new = {t: n for t, n in new.items() if n}
        return learned(base, new, self._store.tokenizer_sha256, decay=decay, least=least)

    def _needed(self) -> Counter[int]:
        """How often tokens were needed that the set lacked, or has learned."""
        if self._exact is None:
            return Counter()
        return Counter(self._exact.missed()) + Counter(self._exact.watched())

    def _keep_learned(self) -> None:
        """Let learned tokens join the static rows, after those that are there."""
        static = self._head.ids()
        new = np.setdiff1d(np.fromiter(self._verifier.missed(), dtype=np.int32), static)
        if new.size:
            self._head.set_static(np.concatenate([static, new]))
            self._verifier.watch([*self._verifier.watched(), *new.tolist()])

    def audit_report(self) -> AuditReport:
        """Return what the audits of tailored mode found since the model was loaded."""
        if self._exact is None:
            return AuditReport(audited=0, outside=0, rate=0.0, tokens={})
        native = self._exact.stats()
        n, outside = int(native.n_audited), int(native.n_outside)
        return AuditReport(
            audited=n,
            outside=outside,
            rate=outside / n if n else 0.0,
            tokens=self._exact.missed() if n else {},
        )

    def last_logits(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return ids (K,) and logits (K,) of the last position, in the order of `active_ids`.

        Raises:
            VocabTailorError: Nothing has been decoded yet.
        """
        with self._exclusive():
            n_outputs = self._session.n_outputs
            if n_outputs == 0:
                raise VocabTailorError("nothing has been decoded yet")
            return self._head.ids(), self._session.logits(n_outputs - 1)

    # ---- decoding ----

    def eval(self, tokens: Sequence[int]) -> None:
        """Decode tokens and add them to the active set.

        Args:
            tokens: (n,) token ids.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            VocabTailorError: The text does not fit into the context, or decoding failed.
        """
        ids = token_array(tokens)
        if ids.size == 0:
            return
        with self._exclusive():
            self._misses += self._head.append(ids)
            self._requires_eval = True
            if self._mode == "exact":
                if self._verifier.n_past > self.n_tokens:
                    self._verifier.rewind(self.n_tokens)
                self._verifier.decode(ids)
            else:
                self._session.decode(ids, pos=self.n_tokens)
            self.input_ids[self.n_tokens : self.n_tokens + ids.size] = ids
            self.n_tokens += int(ids.size)
            self._requires_eval = False

    def sample(self, *args: Any, idx: int | None = None, **kwargs: Any) -> int:
        """Sample a token from the active set; arguments as in ``llama_cpp.Llama.sample``."""
        if self.n_tokens == 0 or idx not in (None, self.n_tokens - 1):
            raise VocabTailorError(f"sample: no logits at position {idx}, only at the last one")
        sampler = self._sampler or self._init_sampler(*args, **kwargs)
        with self._exclusive():
            if self._mode == "exact":
                return self._sample_exactly(sampler)
            if self._audit and self._random.random() < self._audit:
                self._verifier.audit(sampler.sampler)
            return self._session.sample(sampler.sampler, self._session.n_outputs - 1)

    def _sample_exactly(self, sampler: Any) -> int:
        if sampler is not self._exact_sampler:
            self._verifier.begin(sampler.sampler)
            self._exact_sampler = sampler
        # what nobody will ask for need not be drafted
        n = MAX_BLOCK if self._n_left is None else min(self._n_left, MAX_BLOCK)
        if self._n_left is not None:
            self._n_left -= 1
        # a sampler for one token only: nothing else of a block would be asked for
        return self._verifier.sample(max_block=max(n, 1) if self._sampler else 1)

    @property
    def _verifier(self) -> Verifier:
        assert self._exact is not None
        return self._exact

    def generate(
        self, tokens: Sequence[int], *args: Any, **kwargs: Any
    ) -> Generator[int, Sequence[int] | None, None]:
        """Yield tokens after a prompt; arguments as in ``llama_cpp.Llama.generate``.

        The prompt's tokens join the active set; when the generator ends, however it ends, the set
        falls back to the static one.
        """
        ids = token_array(tokens)
        with self._exclusive():
            self._head.reset()
            self._misses += self._append_prompt(ids)
        self._prompt = ids
        try:
            yield from super().generate(ids.tolist(), *args, **kwargs)
        finally:
            self._prompt = _NO_TOKENS
            self._exact_sampler = None
            if not self._closed:
                if self._exact is not None:
                    self._exact.end()
                self._head.reset()
                if self._learn:
                    self._keep_learned()

    def _create_completion(
        self,
        *args: Any,
        max_tokens: int | None = 16,
        logit_bias: dict[int, float] | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        # llama_cpp.Llama makes a Python callback of a bias, which sees logits of all tokens
        bias = {int(token): float(value) for token, value in (logit_bias or {}).items()}
        for token in bias:
            if not 0 <= token < self._store.n_vocab:
                raise TokenIdError(
                    f"logit_bias: id {token}, expected 0 to {self._store.n_vocab - 1}"
                )
        self._bias = bias
        self._n_left = max_tokens if max_tokens is not None and max_tokens > 0 else None
        try:
            yield from super()._create_completion(*args, max_tokens=max_tokens, **kwargs)
        finally:
            self._bias = {}
            self._n_left = None

    def _init_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("logits_processor") is not None:
            not_supported("logits_processor")
        chain = super()._init_sampler(*args, **kwargs)
        return biased(chain, self._bias, self._store.n_vocab) if self._bias else chain

    def reset(self) -> None:
        """Forget the text; the active set falls back to the static one.

        Inside `generate` the tokens of its prompt stay, evaluated or not yet.
        """
        with self._exclusive():
            super().reset()
            self._head.reset()
            self._append_prompt(self._prompt)

    # ---- reports ----

    @property
    def stats(self) -> Stats:
        """Counters since the model was loaded."""
        native = self._session.stats()
        embed, core = native.t_embed_us / 1e3, native.t_core_us / 1e3
        head, sample = native.t_head_us / 1e3, native.t_sample_us / 1e3
        if self._exact is not None:
            verifier = self._exact.stats()
            head += verifier.t_head_us / 1e3
            sample += verifier.t_sample_us / 1e3
        return Stats(
            tokens=int(native.n_decoded),
            ms=embed + core + head + sample,
            ms_core=core,
            ms_head=head,
            ms_sample=sample,
            head_rows=self._head.n_rows,
            rows_read=self._store.n_read,
            misses=self._misses,
            **self._exact_stats(),
        )

    def _exact_stats(self) -> dict[str, Any]:
        if self._exact is None:
            return {}
        native = self._exact.stats()
        return {
            "drafted": int(native.n_drafted),
            "rejected": int(native.n_rejected),
            "ms_verify": native.t_verify_us / 1e3,
        }

    def memory_report(self) -> MemoryReport:
        """Return where the memory goes."""
        now = process_memory()
        native = self._session.stats()
        return MemoryReport(
            embedding=int(native.n_bytes_hidden),
            head=self._head.n_bytes,
            whole_head=0 if self._exact is None else self._whole.n_bytes,
            logits=int(native.n_bytes_logits),
            tokenizer=self._tokenizer_bytes + (self._variants.n_bytes if self._variants else 0),
            core=int(llama_cpp.llama_model_size(self._core.model)),
            context=self._context_bytes,
            anon=now.anon,
            file=now.file,
        )

    @property
    def _scores(self) -> LastPosition:
        return LastPosition(LazyScores(self._store.n_vocab, self.last_logits))
