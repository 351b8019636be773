"""One text of an engine: its context, its tokens, the rows it added to the active set."""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.verifier import Verifier
from vocabtailor_gguf.errors import TokenIdError, VocabTailorError
from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.decide import Active, Audited, Decide, Verified
from vocabtailor_gguf.runtime.draft_models import DraftModel
from vocabtailor_gguf.runtime.drafts import Drafts, Together, tokens_together
from vocabtailor_gguf.runtime.engine import Engine
from vocabtailor_gguf.runtime.states import has_states
from vocabtailor_gguf.runtime.steps import Sampling, Step
from vocabtailor_gguf.runtime.tokenizer import Forms

_NO_TOKENS = np.empty(0, dtype=np.int32)
_NO_OUTPUTS = np.empty(0, dtype=np.intp)


class Session:
    """A text and everything that belongs to it alone.

    Each method holds the session's lock, so a second thread waits for the step of the first.

    Args:
        engine: What it is a session of; it must be closed later.
        params: ctypes llama_context_params of the core's context.
        exact: Prove each token against the whole vocabulary.
        drafts: With `exact`, what is drafted: ``"auto"`` and ``"text"``: the active set's choices,
            and what followed them before, as far as that changes no bit; ``"active"``: the former;
            ``"none"``.
        draft_max: Tokens of a pass while drafting, whatever bits they have; None: as many as have
            the bits of single ones.
        draft_model: A ``llama_cpp.llama_speculative.LlamaDraftModel`` that drafts, too.
        audit: Without `exact`, the share of steps that are compared with it.
        learn: After each request, keep the tokens that the static set turned out to lack.
        expand: Let a prompt's tokens bring other forms of their words.
        seed: Of the choice of audited steps.
        logits_all: Keep the hidden state of every token, as llama-cpp-python keeps logits; else
            none, but for requests that ask for probabilities.
        share: A session of the same engine, whose static rows this one has, too.
        verbose: As in ``llama_cpp.Llama``.

    Attributes:
        ids: (n_ctx,) int32, the text's tokens in front.
        n_tokens: Of the text.
        holder: The live request, None where there is none.
        sampling: Of the live or the last request.
        together: Tokens that a pass of the core may take while drafting.
    """

    def __init__(
        self,
        engine: Engine,
        params: Any,
        *,
        exact: bool,
        drafts: Drafts = "auto",
        draft_max: int | None = None,
        draft_model: Any = None,
        audit: float = 0.0,
        learn: bool = False,
        expand: bool = True,
        seed: int | None = None,
        logits_all: bool = False,
        share: Session | None = None,
        verbose: bool = False,
    ) -> None:
        self.engine = engine
        self.lock = threading.RLock()
        self.holder: object | None = None
        self.sampling: Sampling | None = None
        self._prompt = _NO_TOKENS  # of the live request
        self.n_tokens = 0
        self.outputs = _NO_OUTPUTS  # tokens of the last batch that have logits
        self.n_fed = 0  # its tokens, where they are the text's last ones
        self.n_missed = 0  # tokens of prompts that the static set lacked
        self.head: ActiveHead = ActiveHead(
            engine.store, share=None if share is None else share.head
        )
        self.native = NativeSession(engine.store, self.head)
        self.forms: Forms | None = None
        self.verifier: Verifier | None = None
        self.together = Together(why_alone="only exact mode drafts")
        self._drafts = drafts
        self._draft_max = draft_max
        self._draft_model = None if draft_model is None else DraftModel(draft_model)
        self._seed = seed
        self._learn = learn
        self._logits_all = logits_all
        self._n_batch = int(params.n_batch)
        self._is_closed = False
        before = process_memory()
        self.native.prepare(params)
        self.context = backend.new_context(engine.core, params, verbose=verbose)
        try:
            self.context_bytes = max(0, process_memory().data - before.data)
            engine.set_adapters(self.context.ctx)
            self.native.attach(self.context.ctx)
            self._keep_for(None)
            self.n_ctx = int(self.context.n_ctx())
            self.ids = np.empty(self.n_ctx, dtype=np.int32)
            self._set_mode(exact=exact, audit=audit, expand=expand)
        except BaseException:
            self.close()  # else an exception that is kept would keep it beyond its model
            raise

    # ---- how tokens are chosen ----

    def set_mode(
        self, *, exact: bool, audit: float = 0.0, learn: bool = False, expand: bool = True
    ) -> None:
        """Choose tokens in another way from here on; the text stays, a live request is superseded.

        Arguments as of the constructor.
        """
        with self.lock:
            self.check_open()
            self.use_chain(None)
            self._learn = learn
            self._set_mode(exact=exact, audit=audit, expand=expand)

    def _set_mode(self, *, exact: bool, audit: float, expand: bool) -> None:
        if expand and self.forms is None:
            self.forms = self.engine.forms
        if (exact or audit) and self.verifier is None:
            if exact:
                self.together = tokens_together(
                    self.native, self.engine, self.context.params, self._drafts, self._draft_max
                )
            self.verifier = Verifier(
                self.native,
                self.engine.whole_head,
                self.engine.tokenizer.vocab,
                max_pass=self.together.n,
                no_drafts=self._drafts == "none",
            )
        self._expand = expand
        self._owns_text = exact  # the verifier: drafts lie beyond the text
        self._decide: Decide = Active(self.native)
        if exact:
            assert self.verifier is not None
            self._decide = Verified(self.verifier)
        elif audit:
            assert self.verifier is not None
            self._decide = Audited(self.native, self.verifier, audit, self._seed)

    # ---- the active set ----

    def set_static(self, ids: npt.NDArray[np.int32]) -> None:
        """Replace the static rows by those of (n,) ids; tokens of the text stay active."""
        with self.lock:
            self.check_open()
            self.head.set_static(ids)
            self._add_text()

    def active_ids(self) -> npt.NDArray[np.int32]:
        """Return the (K,) int32 ids of the active set, in row order."""
        with self.lock:
            self.check_open()
            return self.head.ids()

    def watch(self, tokens: Sequence[int]) -> None:
        """Count from now on how often tokens are needed although the static set has them."""
        with self.lock:
            self.check_open()
            if self.verifier is not None:
                self.verifier.watch(tokens)

    def needed(self) -> Counter[int]:
        """Return how often tokens were needed that the set lacked, or that are watched."""
        with self.lock:
            self.check_open()
            if self.verifier is None:
                return Counter()
            return Counter(self.verifier.missed()) + Counter(self.verifier.watched())

    def learn(self, tokens: npt.NDArray[np.int32]) -> None:
        """Let (n,) tokens join the static rows, after those that are there, and watch them."""
        with self.lock:
            self.check_open()
            if self._join(tokens).size:
                self._add_text()
            self._watch_too(tokens)

    def _join(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Let (n,) tokens join the static rows; return those that did."""
        static = self.head.ids()[: self.head.n_static]
        new = np.setdiff1d(tokens, static)
        if new.size:
            self.head.set_static(np.concatenate([static, new]))
        return new

    def _watch_too(self, tokens: npt.NDArray[np.int32]) -> None:
        if self.verifier is not None and tokens.size:
            self.verifier.watch([*self.verifier.watched(), *tokens.tolist()])

    def _add_text(self) -> None:
        """Add the rows of the live request's prompt and of the text."""
        self._add_prompt(self._prompt)
        self.head.append(self.text)

    def _add_prompt(self, ids: npt.NDArray[np.int32]) -> int:
        """Add a prompt's tokens, what a bias raises, and other forms; return how many lacked."""
        n_missed = self.head.append(ids)
        if self.sampling is not None and self.holder is not None:
            self.head.append(self.sampling.raised)
        if self._expand and self.forms is not None and ids.size:
            self.head.append(self.forms.find(ids))
        return n_missed

    # ---- the text ----

    @property
    def text(self) -> npt.NDArray[np.int32]:
        """The (n_tokens,) int32 ids of the text; a view."""
        return self.ids[: self.n_tokens]

    @property
    def is_open(self) -> bool:
        """Whether the session was not closed."""
        return not self._is_closed

    def check_open(self) -> None:
        """Check that the session was not closed.

        Raises:
            VocabTailorError: It was.
        """
        if self._is_closed:
            raise VocabTailorError("the model is closed")

    def feed(self, ids: npt.NDArray[np.int32]) -> None:
        """Decode (n,) tokens, of `token_array`, at the end of the text and add their rows.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            VocabTailorError: They do not fit into the context, or decoding failed.
        """
        with self.lock:
            self._check_room(ids)
            if ids.size == 0:
                return
            self.n_missed += self.head.append(ids)
            try:
                if self._owns_text and self.verifier is not None:
                    self._expect_after(self.verifier, ids)
                    self.verifier.decode(ids)
                else:
                    self.native.decode(ids, pos=self.n_tokens)
            except VocabTailorError:
                # a failed decode leaves the text as it was, or nothing where that cannot be
                self.n_tokens = min(self.n_tokens, self._n_past)
                self._forget_outputs()
                raise
            self._extend(ids)

    def _expect_after(self, verifier: Verifier, ids: npt.NDArray[np.int32]) -> None:
        """Let the draft model, where there is one, say what may follow tokens that come next."""
        if self._draft_model is not None and self.together.n > 1:
            found = self._draft_model.after(self.text, ids)
            if found is not None:
                verifier.expect(found, pos=self.n_tokens + ids.size)

    def decode_batch(self, batch: Any) -> None:
        """Decode a ctypes llama_batch of token ids, whatever its sequences are.

        As in llama-cpp-python the text stays what it was, so whoever does this keeps count. A live
        request is superseded.

        Raises:
            VocabTailorError: llama.cpp does not take it.
        """
        with self.lock:
            self.check_open()
            self.use_chain(None)
            self._forget_outputs()
            self.native.decode_batch(batch)
            self.outputs = backend.outputs_of(batch, all=bool(self.context.params.embeddings))

    def _check_room(self, ids: npt.NDArray[np.int32]) -> None:
        self.check_open()
        if self.n_tokens + ids.size > self.n_ctx:
            raise VocabTailorError(
                f"{ids.size} tokens after a text of {self.n_tokens}: expected no more than "
                f"n_ctx = {self.n_ctx} in all"
            )

    def _extend(self, ids: npt.NDArray[np.int32]) -> None:
        self.ids[self.n_tokens : self.n_tokens + ids.size] = ids
        self.n_tokens += int(ids.size)
        self.n_fed = 1 + (int(ids.size) - 1) % self._n_batch
        every = self._logits_all or self.context.params.embeddings
        self.outputs = np.arange(0 if every else self.n_fed - 1, self.n_fed)

    def _forget_outputs(self) -> None:
        self.outputs, self.n_fed = _NO_OUTPUTS, 0

    def _keep_for(self, sampling: Sampling | None) -> None:
        """Let hidden states stay by position where somebody may ask for them."""
        scored = sampling is not None and sampling.first_scored is not None
        outputs = scored or self.context.params.embeddings
        self.native.keep("all" if self._logits_all else "outputs" if outputs else "none")

    def feed_scored(self, ids: npt.NDArray[np.int32]) -> None:
        """As `feed`, and keep the hidden state of every token."""
        with self.lock:
            self.check_open()
            self.native.keep("all")
            try:
                self.feed(ids)
            finally:
                self._keep_for(self.sampling)

    @property
    def _n_past(self) -> int:
        owner = self.verifier if self._owns_text and self.verifier is not None else self.native
        return owner.n_past

    def truncate(self, n: int) -> bool:
        """Cut the text to its first `n` tokens; false where the model's memory cannot."""
        with self.lock:
            self.check_open()
            if n == self.n_tokens:
                return True
            try:
                if self._owns_text and self.verifier is not None:
                    self.verifier.rewind(n)
                else:
                    self.native.truncate(n)
            except VocabTailorError:
                return False
            self.n_tokens = n
            self._forget_outputs()
            return True

    def reset(self) -> None:
        """Forget the text; the active set falls back to the static one and the prompt's tokens."""
        with self.lock:
            self.check_open()
            self.truncate(0)
            if self.holder is None:  # a batch of other texts, or a step that an interrupt broke off
                if self._owns_text and self.verifier is not None and self.verifier.n_past:
                    self.verifier.rewind(0)
                if self.native.n_past:
                    self.native.truncate(0)
                self._forget_outputs()
            self.head.reset()
            self._add_prompt(self._prompt)

    # ---- requests ----

    def begin(
        self,
        holder: object,
        sampling: Sampling,
        ids: npt.NDArray[np.int32],
        *,
        reset: bool,
    ) -> None:
        """Let a request have the text, and decode its prompt; a live one is superseded.

        Args:
            holder: The request.
            sampling: How it chooses.
            ids: (n,) token ids of the prompt, of `token_array`.
            reset: Begin a new text with the prompt; else the prompt follows the text.

        Raises:
            TokenIdError: An id is outside the vocabulary; nothing has changed.
            VocabTailorError: The prompt does not fit into the context, or decoding failed.
        """
        with self.lock:
            self.check_open()
            if ids.size and ids.max() >= self.engine.n_vocab:
                raise TokenIdError(f"token id {ids.max()}, expected 0 to {self.engine.n_vocab - 1}")
            self.end()
            self.holder, self.sampling, self._prompt = holder, sampling, ids
            self._keep_for(sampling)
            try:
                self.head.reset()
                if not reset:
                    self.head.append(self.text)
                self.n_missed += self._add_prompt(ids)
                rest = self._reuse(ids) if reset else ids
                first = sampling.first_scored
                # the state of the last token is there in any case
                every = first is not None and first < self.n_tokens + rest.size - 1
                (self.feed_scored if every else self.feed)(rest)
                self._decide.begin(sampling.chain)
            except BaseException:
                self.end()
                raise

    def _reuse(self, prompt: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Cut the text to what it has in common with a prompt; return what is left to decode."""
        n = min(self.n_tokens, prompt.size)
        differ = np.flatnonzero(self.ids[:n] != prompt[:n])
        same = int(differ[0]) if differ.size else n
        first = None if self.sampling is None else self.sampling.first_scored
        if first is not None and first < same:
            lacks = np.flatnonzero(~has_states(self, first, same))
            same = first + int(lacks[0]) if lacks.size else same
        if same == prompt.size == self.n_tokens and self.native.n_outputs:
            return _NO_TOKENS  # its last hidden state is here
        if same == prompt.size:
            same -= 1  # one token must be decoded to have a hidden state
        if same > 0 and self.truncate(same):
            return prompt[same:]
        self.truncate(0)
        return prompt

    def decide(self, left: int | None) -> Step:
        """Choose the token that follows the text with the chain of the live or the last request.

        Args:
            left: Steps that will be asked for at most, this one included; None where nobody knows.

        Raises:
            VocabTailorError: The chain failed.
        """
        with self.lock:
            self.check_open()
            assert self.sampling is not None
            return self._decide.next(self.sampling.chain, left)

    def decide_once(self, chain: Any) -> Step:
        """Choose the token that follows the text with a `backend.Sampler`, for this once.

        Raises:
            VocabTailorError: There is no text, or the chain failed.
        """
        with self.lock:
            self.check_open()
            self._decide.begin(chain)
            try:
                return self._decide.next(chain, 1)
            finally:
                if self.verifier is not None:
                    self.verifier.end()

    def end(self) -> None:
        """End the live request, if there is one: its rows are dropped, and its drafts."""
        with self.lock:
            if self.holder is None:
                return
            self.holder, self._prompt = None, _NO_TOKENS
            if self._is_closed:
                return
            if self._owns_text and self.verifier is not None:
                self.verifier.rewind(self.verifier.n_past)
            self.head.reset()
            if self._learn and self.verifier is not None:
                lacked = np.fromiter(self.verifier.missed(), dtype=np.int32)
                self._watch_too(self._join(lacked))

    # ---- chains without a request, as llama_cpp.Llama.sample has them ----

    @property
    def chain(self) -> Any:
        """The chain of the live or the last request, None where there was none."""
        return None if self.sampling is None else self.sampling.chain

    def use_chain(self, chain: Any) -> None:
        """Let `go_on` use a `backend.Sampler` from here on; None for none."""
        with self.lock:
            self.check_open()
            self.end()
            self.sampling = None if chain is None else Sampling(chain)
            self._keep_for(self.sampling)
            if chain is not None:
                self._decide.begin(chain)
            elif self.verifier is not None:
                self.verifier.end()

    def go_on(self) -> Step:
        """Choose the token that follows the text with the chain of the last request."""
        with self.lock:
            self.check_open()
            if self.holder is None:
                self.head.append(self.text)  # what the chain has accepted must be active
                if self.sampling is not None:
                    self.head.append(self.sampling.raised)
            return self.decide(None)

    # ---- what was found ----

    def last_logits(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return ids (K,) and logits (K,) of the last position, in the head's order."""
        with self.lock:
            self.check_open()
            if self.native.n_outputs == 0:
                raise VocabTailorError("nothing has been decoded yet")
            return self.head.ids(), self.native.logits(self.native.n_outputs - 1)

    def save(self) -> bytes:
        """Return llama.cpp's state of the context, which holds the text and nothing beyond.

        Raises:
            VocabTailorError: llama.cpp cannot give it.
        """
        with self.lock:
            self.check_open()
            if self._owns_text and self.verifier is not None:
                self.verifier.rewind(self.verifier.n_past)
            size = int(llama_cpp.llama_state_get_size(self.context.ctx))
            buffer = (ctypes.c_uint8 * size)()
            n = int(llama_cpp.llama_state_get_data(self.context.ctx, buffer, size))
            if not 0 < n <= size:
                raise VocabTailorError("llama.cpp cannot save the state of its context")
            return bytes(memoryview(buffer)[:n])

    def load(self, ids: npt.NDArray[np.int32], state: bytes) -> None:
        """Go back to a text that was saved; a live request is superseded, its chain goes on.

        The text's last token is decoded again before a token is chosen.

        Args:
            ids: (n,) token ids of the text.
            state: What `save` returned.

        Raises:
            VocabTailorError: llama.cpp cannot take the state, and the text is empty now.
        """
        with self.lock:
            self.check_open()
            self.end()
            self.reset()
            buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
            n = int(llama_cpp.llama_state_set_data(self.context.ctx, buffer, len(state)))
            self.native.attach(self.context.ctx)  # hidden states are those of another text
            is_whole = n == len(state) and self.native.n_past == ids.size
            if not is_whole:
                llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context.ctx), True)
            if self.verifier is not None:
                self.verifier.resume()
            if not is_whole:
                raise VocabTailorError("llama.cpp cannot take the state: it is another model's")
            self._extend(ids)
            self._forget_outputs()
            self.head.append(ids)

    def close(self) -> None:
        """Free all, after the step that another thread may be in. Twice is allowed."""
        with self.lock:
            if self._is_closed:
                return
            self._is_closed = True
            # in the opposite order of making
            if self.verifier is not None:
                self.verifier.close()
            self.context.close()
            self.native.close()
            self.head.close()
