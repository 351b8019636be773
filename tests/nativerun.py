"""A stock context, and a session with a verifier, both driven through the C functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.binding.verifier import Verifier
from vocabtailor_gguf.binding.whole_head import WholeHead
from vocabtailor_gguf.runtime.backend import collect_log

Samplers = Sequence[Callable[[], Any]]

PROMPT = [5, 300, 301, 302]


def i32(*ids: int) -> npt.NDArray[np.int32]:
    return np.array(ids, dtype=np.int32)


def greedy() -> Any:
    return llama_cpp.llama_sampler_init_greedy()


def top_k(k: int) -> Callable[[], Any]:
    return lambda: llama_cpp.llama_sampler_init_top_k(k)


def dist(seed: int) -> Callable[[], Any]:
    return lambda: llama_cpp.llama_sampler_init_dist(seed)


def chain(samplers: Samplers) -> Any:
    made = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in samplers:
        llama_cpp.llama_sampler_chain_add(made, sampler())
    return made


def context_params(**options: Any) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 256
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.swa_full = True
    for name, value in options.items():
        setattr(params, name, value)
    return params


def load(path: Path, *, vocab_only: bool = False) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers, params.vocab_only = 0, vocab_only
    with collect_log(forward=False):
        return llama_cpp.llama_model_load_from_file(str(path).encode(), params)


class Stock:
    """llama.cpp itself on an unsplit model."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.model = load(path)
        with collect_log(forward=False):
            self.ctx = llama_cpp.llama_init_from_model(self.model, context_params(**options))
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def decode(self, tokens: Sequence[int], pos: int = 0) -> None:
        memory = llama_cpp.llama_get_memory(self.ctx)
        assert llama_cpp.llama_memory_seq_rm(memory, 0, pos, -1)
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        assert llama_cpp.llama_decode(self.ctx, batch) == 0

    def sample(self, samplers: Any) -> int:
        return int(llama_cpp.llama_sampler_sample(samplers, self.ctx, -1))

    def logits(self) -> npt.NDArray[np.float32]:
        raw: Any = llama_cpp.llama_get_logits_ith(self.ctx, -1)
        return np.ctypeslib.as_array(raw, shape=(self.n_vocab,)).copy()

    def run(self, samplers: Samplers, n: int) -> list[int]:
        self.decode(PROMPT)
        made, out = chain(samplers), []
        for i in range(n):
            out.append(self.sample(made))
            self.decode(out[-1:], len(PROMPT) + i)
        llama_cpp.llama_sampler_free(made)
        return out

    def close(self) -> None:
        llama_cpp.llama_free(self.ctx)
        llama_cpp.llama_model_free(self.model)


class Split:
    """A session of its own on a split model; `static` are its head's rows."""

    def __init__(
        self,
        files: Any,
        static: Sequence[int],
        *,
        placement: Any = "memory",
        max_block: int = 16,
        share: Split | None = None,
        **options: Any,
    ) -> None:
        self.shares = share is not None
        self.store = share.store if share else VocabStore(files.vocab)
        self.head = ActiveHead(self.store, share=share.head if share else None)
        if share is None:
            self.head.set_static(i32(*static))
        self.session = NativeSession(self.store, self.head)
        self.core = share.core if share else load(files.core)
        params = context_params(**options)
        self.session.prepare(params)
        with collect_log(forward=False):
            self.ctx = llama_cpp.llama_init_from_model(self.core, params)
        self.session.attach(self.ctx)
        self.tokenizer = share.tokenizer if share else load(files.vocab, vocab_only=True)
        self.whole = share.whole if share else WholeHead(self.store, placement=placement)
        vocab = llama_cpp.llama_model_get_vocab(self.tokenizer)
        self.verifier = Verifier(self.session, self.whole, vocab, max_block=max_block)

    def begin(self, samplers: Samplers) -> None:
        self.verifier.rewind(0)
        self.head.append(i32(*PROMPT))
        self.verifier.decode(i32(*PROMPT))
        made = chain(samplers)
        self.verifier.begin(made)
        llama_cpp.llama_sampler_free(made)

    def go_on(self, n: int) -> list[int]:
        out = []
        for _ in range(n):
            out.append(self.verifier.sample())
            self.verifier.decode(i32(out[-1]))
        return out

    def run(self, samplers: Samplers, n: int) -> list[int]:
        self.verifier.end()
        self.begin(samplers)
        return self.go_on(n)

    def close(self) -> None:
        self.verifier.close()
        llama_cpp.llama_free(self.ctx)
        self.session.close()
        self.head.close()
        if not self.shares:
            self.whole.close()
            llama_cpp.llama_model_free(self.core)
            llama_cpp.llama_model_free(self.tokenizer)
            self.store.close()


def opened(stack: contextlib.ExitStack, thing: Any) -> Any:
    return stack.enter_context(contextlib.closing(thing))
