"""TailoredLlama: ``llama_cpp.Llama`` on a core and its vocabulary store."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from vocabtailor_gguf.binding.store import token_array
from vocabtailor_gguf.binding.whole_head import Placement
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.gguf.pair import read_core, sibling_store, split_kind
from vocabtailor_gguf.runtime import backend
from vocabtailor_gguf.runtime.active import ActiveSet
from vocabtailor_gguf.runtime.arguments import (
    check_cache_types,
    check_own,
    check_path,
    check_upstream,
    n_threads,
    of_core,
    trained_context,
    with_upstream,
)
from vocabtailor_gguf.runtime.asked import Asked
from vocabtailor_gguf.runtime.drafts import Drafts
from vocabtailor_gguf.runtime.embeddings import Embeddings, ask_for_embeddings
from vocabtailor_gguf.runtime.facts import Closed, SplitContext, SplitModel, split_keys
from vocabtailor_gguf.runtime.forks import Forks
from vocabtailor_gguf.runtime.hub import Hub
from vocabtailor_gguf.runtime.loading import Wanted, load_engine, read_arguments
from vocabtailor_gguf.runtime.mapping import choose_load_mode
from vocabtailor_gguf.runtime.owner import Mode
from vocabtailor_gguf.runtime.persistence import Persistence
from vocabtailor_gguf.runtime.processors import bias_of, bias_processor, processed
from vocabtailor_gguf.runtime.reports import Reports
from vocabtailor_gguf.runtime.request import Request
from vocabtailor_gguf.runtime.scoring import Scoring
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.states import Over
from vocabtailor_gguf.runtime.steps import Sampling
from vocabtailor_gguf.runtime.stream import Stream
from vocabtailor_gguf.runtime.text import Text
from vocabtailor_gguf.sets.token_set import TokenSet
from vocabtailor_gguf.split.cache import find_pair

logger = logging.getLogger(__name__)

# how llama_cpp.Llama begins to say that a file could not be loaded
_NOT_LOADED = ("Failed to", "Model path does not exist")


class TailoredLlama(
    Text,
    ActiveSet,
    Scoring,
    Reports,
    Persistence,
    Embeddings,
    Hub,
    Forks,
    llama_cpp.Llama,  # type: ignore[misc]
):
    """A drop-in ``llama_cpp.Llama`` whose vocabulary lies in a store of its own.

    Mode ``"exact"``, the default, gives llama.cpp's own output for the same seed and sampler chain:
    it drafts with the active set (always-on tokens, the token set, the prompt's tokens) and
    verifies against the whole head before a token is yielded. Mode ``"full"`` computes every row of
    the LM head at every token. In mode ``"tailored"`` only tokens of the active set can be
    produced, so it wants a token set that fits the task.

    One generation at a time belongs to the text: a second one supersedes the first, whose next
    token is then a `SupersededError`. A second thread waits for the step of the first.

    Args:
        model_path: ``NAME.core.gguf``, or an unsplit model, which is split into the cache on its
            first use; see `vocabtailor_gguf.split.cache`.
        vocab_path: ``NAME.vocab.gguf``; by default the one beside the core.
        token_set: A `TokenSet`, the path of one, or None: then exact mode drafts with the
            tokenizer's most frequent tokens, tailored mode has always-on and prompt tokens only.
        mode: ``"exact"``, ``"tailored"`` or ``"full"``.
        drafts: What mode ``"exact"`` drafts, which changes its speed and nothing else. ``"auto"``:
            the active set's choices, and what followed the same words before in the text, several
            tokens in one pass of the core, where trying at load shows that no bit changes (see
            `stats`); ``"active"``: the active set's choices alone, a pass for each; ``"text"``: as
            auto, with a warning where it cannot be; ``"none"``: each token is decided on the whole
            vocabulary. What a grammar forces, and what a `draft_model` says, is drafted as the text
            is.
        draft_max: Tokens of a pass of the core while drafting, 1 to 16. None: as many as have the
            bits of single ones. With more than these (see `stats`), hidden states are rounded
            otherwise, and texts may leave stock's.
        logprobs_over: In mode ``"tailored"``, the tokens whose probabilities add up to 1:
            ``"active set"``, or ``"vocabulary"`` at the whole head's cost. Elsewhere, always the
            vocabulary.
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

    _model: Any
    _ctx: Any
    _is_only_vocabulary = False

    @with_upstream
    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        vocab_path: str | os.PathLike[str] | None = None,
        token_set: TokenSet | str | os.PathLike[str] | None = None,
        mode: Mode = "exact",
        drafts: Drafts = "auto",
        draft_max: int | None = None,
        whole_head: Placement = "mapped",
        learn: bool = False,
        audit: float = 0.0,
        prompt_expansion: bool = True,
        logprobs_over: Over = "active set",
        **kwargs: Any,
    ) -> None:
        check_own(
            mode, whole_head, logprobs_over, drafts, draft_max=draft_max, learn=learn, audit=audit
        )
        check_upstream(kwargs)
        check_path("model_path", model_path)
        check_path("vocab_path", vocab_path or "")
        self._mode = mode
        self._over = logprobs_over if mode == "tailored" else "vocabulary"
        self.token_set: TokenSet | None = None
        self._counted: dict[int, int] = {}  # what had been needed when the token set was put in
        self._asked = {
            "token_set": token_set,
            "mode": mode,
            "drafts": drafts,
            "draft_max": draft_max,
            "whole_head": whole_head,
            "learn": learn,
            "audit": audit,
            "prompt_expansion": prompt_expansion,
            "logprobs_over": logprobs_over,
            "logits_all": kwargs.get("logits_all", False),
        }
        if kwargs.get("vocab_only"):
            self._load_only_vocabulary(model_path, vocab_path, kwargs)
            return
        core, vocab = find_pair(model_path, vocab_path)
        self._asked["vocab_path"] = str(vocab)
        header = read_core(core)
        check_cache_types(header, kwargs)
        overrides = kwargs.get("kv_overrides") or {}
        if kwargs.get("n_ctx") == 0:
            kwargs["n_ctx"] = trained_context(header, overrides)
        told = read_arguments(kwargs)
        choose_load_mode(told.model_params, header, asked="use_mmap" in kwargs)
        self._core_overrides = of_core(told.model_params)  # kept as long as the params
        with contextlib.ExitStack() as undo:
            loaded = load_engine(
                header,
                vocab,
                told.model_params,
                Wanted(
                    placement=whole_head,
                    whole_head=mode == "exact" or audit > 0,
                    forms=prompt_expansion and mode != "full",
                    n_threads=n_threads(told.n_threads),
                    lora=[(told.lora_path, told.lora_scale)] if told.lora_path else (),
                    overrides=overrides,
                    verbose=told.verbose,
                ),
                lambda: self._load_vocabulary(vocab, kwargs, undo),
            )
            self._engine, self._tokenizer_bytes = loaded.engine, loaded.tokenizer_bytes
            self._load_ms = loaded.ms
            undo.callback(self._engine.close)
            self.model_params, self._c_tensor_split = told.model_params, told._c_tensor_split
            self._session_options = {
                "exact": mode == "exact",
                "drafts": drafts,
                "draft_max": draft_max,
                "draft_model": self.draft_model,
                "audit": audit,
                "learn": learn,
                "expand": prompt_expansion and mode != "full",
                "seed": kwargs.get("seed"),
                "logits_all": self._logits_all,
                "verbose": self.verbose,
            }
            session = Session(self._engine, self.context_params, **self._session_options)
            undo.callback(session.close)
            self._session = session
            self._ctx = SplitContext(session.context, self._rows, session)
            undo.callback(self._ctx.close)
            self._model = SplitModel(self._model, self._engine.core, (header, loaded.store_header))
            undo.callback(self._model.close)
            self.metadata = self._model.metadata()
            self._split_metadata = self._model.split_metadata
            if kwargs.get("tokenizer") is None:
                self.tokenizer_ = self.tokenizer()
            self._n_ctx = session.n_ctx
            self.model_path = str(core)
            self.set_token_set(token_set)
            undo.pop_all()
        if mode == "exact" and session.together.n == 1 and (drafts == "text" or self.verbose):
            logger.warning("drafts: nothing from the text: %s", session.together.why_alone)
        if mode == "tailored" and token_set is None:
            logger.warning(
                "tailored mode without a token set: only the prompt's tokens, other forms of its "
                "words and single bytes can be produced; give a token_set, or take mode exact"
            )

    def _load_only_vocabulary(
        self, model_path: Any, vocab_path: Any, kwargs: dict[str, Any]
    ) -> None:
        """Let ``llama_cpp.Llama`` load the store, or an unsplit model, as a vocabulary."""
        self._is_only_vocabulary = True
        self._absent = "the model is only a vocabulary, since it was loaded with vocab_only=True"
        is_core = split_kind(model_path) == "core"
        file = vocab_path or (sibling_store(model_path) if is_core else model_path)
        self._asked["vocab_path"] = vocab_path
        super().__init__(str(file), **kwargs)
        self.metadata, self._split_metadata = split_keys(self.metadata)
        self.model_path = str(model_path)

    def _load_vocabulary(
        self, vocab: Path, kwargs: dict[str, Any], undo: contextlib.ExitStack
    ) -> Any:
        """Let ``llama_cpp.Llama`` load the store as a model that is only a vocabulary; return that.

        So all that concerns text is its own. It is given a batch of one token because it sizes its
        (n_batch, n_vocab) scores by it.
        """
        sizes = {name: kwargs.get(name, 512) for name in ("n_ctx", "n_batch", "n_ubatch")}
        of_vocabulary: dict[str, Any] = {
            **{"n_ctx": sizes["n_ctx"], "n_batch": 1, "n_ubatch": 1, "vocab_only": True},
            **{"logits_all": False, "embedding": False, "lora_path": None},
            "use_mmap": kwargs.get("use_mmap", True) and kwargs.get("lora_path") is None,
        }
        try:
            # the warnings are about a context without layers, which is never used
            with backend.collect_log(forward=bool(kwargs.get("verbose", True))) as log:
                super().__init__(str(vocab), **{**kwargs, **of_vocabulary})
        except (ValueError, RuntimeError) as e:
            if not str(e).startswith(_NOT_LOADED):
                raise  # an argument's fault, and the text names it
            raise BadFileError(f"{vocab}: {backend.reason(log)}") from e
        undo.callback(super().close)
        self._ctx.close()
        self._candidates = None
        self.lora_path = kwargs.get("lora_path")
        # a draft model needs no logits of other tokens here
        self._logits_all = bool(kwargs.get("logits_all", False))
        self.n_batch = min(sizes["n_ctx"], sizes["n_batch"])
        params = self.context_params
        params.n_batch = self.n_batch
        params.n_ubatch = min(self.n_batch, sizes["n_ubatch"])
        # every token of a batch may be scored; a core has few logits, so that costs little
        params.n_outputs_max = self.n_batch
        params.n_threads = n_threads(params.n_threads)
        params.n_threads_batch = n_threads(params.n_threads_batch)
        if kwargs.get("embedding"):
            ask_for_embeddings(params)
        return self._model

    @property
    def split_metadata(self) -> dict[str, str]:
        """This package's own keys of the core and the store; `metadata` has the source's."""
        return dict(self._split_metadata)

    # ---- decoding ----

    def eval(self, tokens: Sequence[int]) -> None:
        """Decode tokens and add them to the active set.

        Args:
            tokens: (n,) token ids.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            VocabTailorError: The text does not fit into the context, or decoding failed.
        """
        self._text.feed(token_array(tokens))

    def sample(self, *args: Any, idx: int | None = None, **kwargs: Any) -> int:
        """Choose the token that follows the text; arguments as in ``llama_cpp.Llama.sample``.

        As there, the chain of the last generation goes on where there was one.
        """
        text = self._text
        if self.n_tokens == 0 or idx not in (None, self.n_tokens - 1):
            raise VocabTailorError(f"sample: no logits at position {idx}, only at the last one")
        if text.chain is not None:
            return text.go_on().token
        return text.decide_once(self._init_sampler(*args, **kwargs)).token

    def generate(
        self,
        tokens: Sequence[int],
        *args: Any,
        reset: bool = True,
        stopping_criteria: llama_cpp.StoppingCriteriaList | None = None,
        **kwargs: Any,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Yield tokens after a prompt; arguments as in ``llama_cpp.Llama.generate``.

        The prompt's tokens join the active set; when the generator ends, however it ends, the set
        falls back to the static one.

        Raises:
            SupersededError: Another generation was begun on this model, or the text was changed.
        """
        asked = Asked.of(kwargs.get("logits_processor"))
        ids = token_array(tokens)
        text = self._text
        chain = self._init_sampler(*args, **kwargs)
        sampling = asked.sampling(chain, ids)
        with (
            Request(text, sampling, ids, reset=reset) as request,
            asked.follow(text, ids) as note,
        ):
            while True:
                token = request.step().token
                if stopping_criteria is not None and stopping_criteria(
                    self._input_ids, self._scores[-1, :]
                ):
                    return
                note(token)
                more = yield token
                request.feed(token_array([token, *(more or ())]))

    def stream(
        self, tokens: Sequence[int], *, max_tokens: int | None = None, **sampling: Any
    ) -> Stream:
        """Return an iterator of `Step` after a prompt, with the text of each and its timings.

        Args:
            tokens: (n,) token ids of the prompt.
            max_tokens: Steps at most; by default to the end of the context.
            **sampling: As in ``llama_cpp.Llama.generate``.

        Raises:
            SupersededError: Another generation was begun on this model, or the text was changed.

        Example:
            >>> llm = TailoredLlama(CORE, n_ctx=64, verbose=False)
            >>> steps = list(llm.stream(llm.tokenize(b"Rome is"), max_tokens=4, temp=0.0))
            >>> len(steps)
            4
            >>> llm.close()
        """
        chain = self._init_sampler(**sampling)
        return Stream(self._text, Sampling(chain, budget=max_tokens), token_array(tokens))

    def _create_completion(
        self,
        *args: Any,
        max_tokens: int | None = 16,
        logit_bias: dict[int, float] | None = None,
        logits_processor: llama_cpp.LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        # llama_cpp.Llama makes a Python callback of a bias, which sees logits of all tokens
        bias = bias_of(logit_bias or {}, self.n_vocab())
        budget = max_tokens if max_tokens is not None and max_tokens > 0 else None
        # llama_cpp.Llama would make all rows, and sort them in Python
        n_top = kwargs.pop("logprobs", None)
        told = None if n_top is None else self._told(n_top, args[0] if args else None, kwargs)
        record = None if told is None else told.record
        asked = Asked(logits_processor or (), bias=bias, budget=budget, record=record)
        out = super()._create_completion(
            *args, max_tokens=max_tokens, logits_processor=asked, **kwargs
        )
        yield from out if told is None else told.add(out)

    def _init_sampler(
        self,
        *args: Any,
        logits_processor: llama_cpp.LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> Any:
        asked = Asked.of(logits_processor)
        chain = super()._init_sampler(*args, **kwargs)
        given = inspect.signature(super()._init_sampler).bind(*args, **kwargs).arguments
        chain.text_grammar = backend.names_no_token(given.get("grammar"))
        if not asked:
            return backend.with_bias(chain, asked.bias, self.store.n_vocab)
        # a bias comes after the processors, as in llama_cpp.Llama
        more = [bias_processor(asked.bias)] if asked.bias else []
        return processed(chain, [*asked, *more], lambda: self._input_ids, self.store.n_vocab)

    def reset(self) -> None:
        """Forget the text; the active set falls back to the static one."""
        self._text.reset()

    # ---- the end ----

    def close(self) -> None:
        """Free everything, forks first, after the step that is being computed. Twice is allowed."""
        if isinstance(self.__dict__.get("_model"), Closed):
            return
        self._close_forks()
        session, self._session = self._session, None
        if session is not None:
            self._ctx.close()  # and the model: before others may get their addresses
            if self._parent is None:
                self._model.close()
            session.close()
            self._close_batch()
            if self._parent is None:
                self._engine.close()
        elif not self._is_only_vocabulary:
            return  # loading has failed, and cleared up
        if self._parent is None:
            super().close()
        # what llama_cpp.Llama would go on with is gone
        self._model = self._ctx = self.tokenizer_ = Closed()
        self._absent = "the model is closed"
