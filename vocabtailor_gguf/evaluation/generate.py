"""Answers of a model, here or on the workers of a cluster."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np

from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.runtime.owner import Mode
from vocabtailor_gguf.sets.token_set import TokenSet


@dataclasses.dataclass(frozen=True, eq=False)
class Loading:
    """How a model is loaded.

    Attributes:
        key: What stands for all that decides the answers: pair, mode, set, context.
        core: ``NAME.core.gguf``.
        vocab: ``NAME.vocab.gguf``.
        mode: The mode.
        token_set: The set.
        prompt_expansion: Whether a prompt brings other forms of its words.
        n_ctx: Tokens of the context.
        n_threads: Threads, by default one per core.
    """

    key: str
    core: str
    vocab: str
    mode: Mode
    token_set: TokenSet | None
    prompt_expansion: bool
    n_ctx: int
    n_threads: int | None


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt that is to be answered, greedily.

    Attributes:
        key: What stands for it.
        tokens: Its ids.
        n_shared: Ids at its beginning that other prompts have too, fewer than all: examples.
        max_tokens: The most tokens of the answer.
        stop: Texts at which it ends; the token that completes one still counts.
        watched: Tokens of which it is counted how many are not active once the prompt is in.
    """

    key: str
    tokens: tuple[int, ...]
    n_shared: int
    max_tokens: int
    stop: tuple[str, ...]
    watched: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Generated:
    """An answer.

    Attributes:
        key: The question's.
        tokens: Its ids.
        text: Its text before a stop.
        prompt_ms: From the end of the shared beginning to the first token, in ms.
        ms: From the first token to the last, in ms.
        head_rows: Rows of the active set at the end, None where the answer has no token.
        n_outside: Watched tokens that were not active, None where the answer has no token.
        memory: Bytes of embedding rows, of the head and of logits, without mapped pages; None
            where the answer has no token.
    """

    key: str
    tokens: tuple[int, ...]
    text: str
    prompt_ms: float
    ms: float
    head_rows: int | None
    n_outside: int | None
    memory: int | None


class Answerer:
    """Answers questions with one model; an answer does not depend on the ones before.

    Batches of other lengths round otherwise. So the shared beginning of a prompt is decoded alone,
    on an empty context; it is kept while prompts have the same one, and no more than it.

    Args:
        llm: The model; its text is this object's as long as it answers.
    """

    def __init__(self, llm: TailoredLlama) -> None:
        self._llm = llm
        self._begin: tuple[int, ...] = ()  # what the text begins with, decoded alone

    def answer(self, question: Question) -> Generated:
        """Answer one question.

        Raises:
            VocabTailorError: The prompt does not fit into the context, or decoding failed.
        """
        llm = self._llm
        self._go_to(question.tokens[: question.n_shared])
        watched = np.array(question.watched, dtype=np.int32)
        tokens: list[int] = []
        text = ""
        head_rows = n_outside = memory = None
        steps = llm.stream(question.tokens, max_tokens=question.max_tokens, temp=0.0)
        for step in steps:
            # what a request adds is there only while it lives
            if not tokens:
                n_outside = int((~np.isin(watched, llm.active_ids)).sum())
            head_rows = llm.stats.head_rows
            tokens.append(step.token)
            text += step.text
            if any(s in text for s in question.stop):
                break
        else:
            text += steps.rest
        if tokens:
            report = llm.memory_report()
            memory = report.embedding + report.head + report.whole_head + report.logits
        steps.close()
        return Generated(
            key=question.key,
            tokens=tuple(tokens),
            text=cut(text, question.stop),
            prompt_ms=steps.timings.prompt_ms,
            ms=steps.timings.ms,
            head_rows=head_rows,
            n_outside=n_outside,
            memory=memory,
        )

    def _go_to(self, begin: tuple[int, ...]) -> None:
        """Let the text be the beginning of a prompt."""
        if begin and begin == self._begin:
            try:
                self._llm.n_tokens = len(begin)
                return
            except VocabTailorError:
                pass  # a memory that cannot be cut
        self._llm.reset()
        self._begin = begin
        if begin:
            self._llm.eval(begin)


class Loaded:
    """One model at a time, which stays loaded while the same one is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Dask runs several threads in a process
        self._asked: tuple[object, ...] | None = None  # what the loaded model is
        self._llm: TailoredLlama | None = None
        self._answerer: Answerer | None = None

    def answer(self, loading: Loading, questions: Sequence[Question]) -> list[Generated]:
        """Answer questions one after another."""
        with self._lock:
            # a worker outlives a run; the next one may want other threads
            asked = (loading.key, loading.core, loading.vocab, loading.n_threads)
            if self._answerer is None or self._asked != asked:
                self._close()
                self._llm = TailoredLlama(
                    loading.core,
                    vocab_path=loading.vocab,
                    mode=loading.mode,
                    token_set=loading.token_set,
                    prompt_expansion=loading.prompt_expansion,
                    n_ctx=loading.n_ctx,
                    n_threads=loading.n_threads,
                    n_threads_batch=loading.n_threads,
                    verbose=False,
                )
                self._answerer = Answerer(self._llm)
                self._asked = asked
            return [self._answerer.answer(question) for question in questions]

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._llm is not None:
            self._llm.close()
        self._llm = self._answerer = self._asked = None


_loaded = Loaded()  # of a worker process


def answer_on_worker(loading: Loading, questions: Sequence[Question]) -> list[Generated]:
    """Answer questions in a worker, which keeps its model."""
    return _loaded.answer(loading, questions)


def cut(text: str, stop: Sequence[str]) -> str:
    """Return what precedes the first of some texts."""
    ends = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text
