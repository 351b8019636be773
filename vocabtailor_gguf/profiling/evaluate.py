"""Evaluate a profile on held-out texts and on what the model itself writes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.profiling.coverage import (
    Coverage,
    TokenisedExample,
    measure_coverage,
    own_outputs,
    tokenised,
)
from vocabtailor_gguf.profiling.inputs import Example, examples, expand
from vocabtailor_gguf.profiling.profile import Profile
from vocabtailor_gguf.profiling.report import Report, build_report
from vocabtailor_gguf.profiling.tasks import Task
from vocabtailor_gguf.runtime.tokenizer import Forms, Tokenizer, load_tokenizer

_N_CTX = 4096
_MAX_TOKENS = 128


def evaluate(
    vocab_path: str | os.PathLike[str],
    found: Profile,
    task: Task,
    *,
    held_out: Sequence[str] = (),
    core: str | os.PathLike[str] | None = None,
    n_own: int = 0,
    n_shots: int = 2,
    tolerances: Sequence[float] = (0.0, 0.01, 0.1),
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Return what the profile is worth.

    Args:
        vocab_path: ``NAME.vocab.gguf``.
        found: The profile.
        task: Fields and templates of the held-out files.
        held_out: Files or globs with texts that are in no corpus.
        core: ``NAME.core.gguf``, to measure on the model's own outputs too.
        n_own: Prompts of `held_out` that the model answers.
        n_shots: Examples of the corpus that precede each of these prompts.
        tolerances: Tolerances to show.
        n_threads: Threads; by default one per core.
        progress: Called with the answers that are done, and their number.

    Raises:
        BadFileError: A file or a record cannot be used.
        VocabTailorError: An argument is wrong.
    """
    if n_own and (core is None or not held_out):
        raise VocabTailorError("evaluate: own outputs need a core and held-out prompts")
    threads = n_threads or os.cpu_count() or 1
    files = expand(held_out)
    texts = [e for name in files for e in examples(name, task)]
    with VocabStore(vocab_path) as store:
        tokenizer = load_tokenizer(vocab_path)
        variants = Forms(tokenizer._model.vocab)

        def measure(of: Sequence[TokenisedExample]) -> Coverage:
            return measure_coverage(of, found.ranking, found.always_on, variants)

        try:
            reference = measure(list(tokenised(tokenizer, texts))) if texts else None
            own = None
            if n_own and core is not None:
                shots = _shots(found, task, n_shots)
                own = measure(
                    _answers(core, vocab_path, texts[:n_own], shots, task, threads, progress)
                )
            return build_report(
                found,
                store,
                Tokenizer(tokenizer._model).pieces(),
                tolerances=tolerances,
                held_out=reference,
                own=own,
                evaluated=files,
                n_threads=threads,
            )
        finally:
            variants.close()
            tokenizer.close()


def _shots(found: Profile, task: Task, n: int) -> list[Example]:
    """Return the first examples of the corpus."""
    corpus = (e for name in expand(found.data) if name != "-" for e in examples(name, task))
    return list(itertools.islice(corpus, n))


def _answers(
    core: str | os.PathLike[str],
    vocab_path: str | os.PathLike[str],
    texts: Sequence[Example],
    shots: Sequence[Example],
    task: Task,
    n_threads: int,
    progress: Callable[[int, int], None] | None,
) -> list[TokenisedExample]:
    llm = TailoredLlama(
        core,
        vocab_path=vocab_path,
        mode="full",
        n_ctx=_N_CTX,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        verbose=False,
    )
    try:
        done = []
        answers = own_outputs(llm, texts, shots=shots, stop=task.stop, max_tokens=_MAX_TOKENS)
        for answer in answers:
            done.append(answer)
            if progress is not None:
                progress(len(done), len(texts))
        return done
    finally:
        llm.close()
