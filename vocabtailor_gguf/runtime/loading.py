"""Loads the parts of a model side by side.

llama.cpp takes half a second for the tables of a large vocabulary, in one thread and without
Python's lock. There, loading a model changes nothing but that model, apart from the log, which
`backend.collect_log` keeps apart by thread. So core and whole head do not wait for the vocabulary.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from llama_cpp import Llama

from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.binding.whole_head import Placement, WholeHead
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.runtime.beside import Beside
from vocabtailor_gguf.runtime.core import Core
from vocabtailor_gguf.runtime.engine import Engine
from vocabtailor_gguf.runtime.mapping import copied_bytes
from vocabtailor_gguf.runtime.tokenizer import Forms, Tokenizer
from vocabtailor_gguf.split.architectures import vocabulary_math

_T = TypeVar("_T")

_NO_FILE = "Model path does not exist"  # how llama_cpp.Llama says so


def read_arguments(arguments: Mapping[str, Any]) -> Any:
    """Return a ``llama_cpp.Llama`` that has put its arguments into parameter structs, and no more.

    It does that before it looks for the file, and is asked for one that there cannot be.

    Raises:
        ValueError: An argument does not fit.
    """
    told = object.__new__(Llama)
    try:
        Llama.__init__(told, "", **arguments)
    except ValueError as e:
        if not str(e).startswith(_NO_FILE):
            raise
    return told


class Wanted(NamedTuple):
    """What is loaded with a core.

    Attributes:
        placement: Where the whole head lies.
        whole_head: Whether it is needed at once.
        forms: Whether other forms of words are.
        n_threads: That prepare the whole head.
        lora: Adapters of the core, with their scales.
        overrides: Of keys, as a user gives them.
        verbose: As in ``llama_cpp.Llama``.
    """

    placement: Placement
    whole_head: bool
    forms: bool
    n_threads: int
    lora: Sequence[tuple[str, float]]
    overrides: Mapping[str, Any]
    verbose: bool


class Loaded(NamedTuple):
    """An engine, and what was found out on the way.

    Attributes:
        engine: The caller closes it.
        store_header: Of the store.
        tokenizer_bytes: Anonymous memory that llama.cpp's tables of the vocabulary take; 0 where
            the system does not tell.
        ms: Time of each part; all but store and vocabulary are loaded beside others.
    """

    engine: Engine
    store_header: GGUFHeader
    tokenizer_bytes: int
    ms: dict[str, float]


class _Watch:
    """Takes the time of parts that are made side by side."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def timed(self, name: str, make: Callable[[], _T]) -> Callable[[], _T]:
        """Return `make`, which also tells how long it took."""

        def timed() -> _T:
            begin = time.perf_counter()
            made = make()
            self.ms[name] = 1e3 * (time.perf_counter() - begin)
            return made

        return timed


def load_engine(
    core_header: GGUFHeader,
    vocab: Path,
    model_params: Any,
    wanted: Wanted,
    load_vocabulary: Callable[[], Any],
) -> Loaded:
    """Load core and store.

    Args:
        core_header: Of the core, which was checked.
        vocab: ``NAME.vocab.gguf``.
        model_params: ctypes llama_model_params of the core, which must outlive the engine.
        wanted: What else.
        load_vocabulary: Returns the store as a `backend.Model` that is only a vocabulary; called
            when the store was checked. Its model must outlive the engine.

    Raises:
        BadFileError: A file is malformed, or llama.cpp cannot load it.
        MismatchError: `vocab` is not a store.
        UnsupportedError: An adapter is of the vocabulary's tables.
    """
    placement, n_threads = wanted.placement, wanted.n_threads
    before = process_memory().anon
    watch = _Watch()
    with contextlib.ExitStack() as undo, Beside() as beside:

        def begin(name: str, make: Callable[[], _T]) -> Future[_T]:
            return beside.begin(watch.timed(name, make))

        store = undo.enter_context(watch.timed("store", lambda: VocabStore(vocab))())
        # not before the store is open: threads that touch new memory hold each other up
        core = begin(
            "core",
            lambda: Core(core_header.path, model_params, wanted.lora, verbose=wanted.verbose),
        )
        if wanted.overrides:
            math = vocabulary_math(core_header, store.architecture, store.n_embd, wanted.overrides)
            store.set_logits(scale=math.logit_scale, softcap=math.logit_softcap)
        whole_head = forms = None
        if wanted.whole_head:
            n = max(n_threads - 1, 1)  # one is the vocabulary's
            whole_head = begin(
                "whole_head", lambda: WholeHead(store, placement=placement, n_threads=n)
            )
        header = begin("header", lambda: GGUFHeader(vocab))
        model = watch.timed("vocabulary", load_vocabulary)()
        if wanted.forms:
            forms = begin("forms", lambda: Forms(model.vocab))
        engine = Engine(
            core.result(),
            store,
            Tokenizer(model),
            model_params,
            placement=placement,
            n_threads=n_threads,
            whole_head=None if whole_head is None else whole_head.result(),
            forms=None if forms is None else forms.result(),
        )
        store_header = header.result()
        undo.pop_all()  # the engine closes it
    others = copied_bytes(core_header, model_params) + engine.whole_head_bytes + engine.forms_bytes
    grown = process_memory().anon - before
    return Loaded(engine, store_header, max(0, grown - others), watch.ms)
