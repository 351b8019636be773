"""What is taken from the inner parts of llama_cpp. Nothing else imports them.

``_internals`` has the classes around models, contexts and sampler chains that ``llama_cpp.Llama``
itself is made of, ``_logger`` the callback of its log.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import _internals as internals
from llama_cpp import _logger

from vocabtailor_gguf.errors import BadFileError, ContextError

Model = internals.LlamaModel
Context = internals.LlamaContext
Batch = internals.LlamaBatch
Sampler = internals.LlamaSampler

# what decides the size of a context
_OF_CONTEXT = ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "type_k", "type_v")


class _Collector(NamedTuple):
    lines: collections.deque[str]
    forward: bool


_collectors: dict[int, list[_Collector]] = {}  # by thread, the innermost last
_lock = threading.Lock()


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _note(level: int, text: bytes, data: Any) -> None:
    own = _collectors.get(threading.get_ident())
    if own:
        line = text.decode("utf-8", errors="replace").strip(" .\n")
        if line:
            own[-1].lines.append(line)
    if not own or own[-1].forward:
        _logger.llama_log_callback(level, text, data)


@contextlib.contextmanager
def collect_log(n_lines: int = 50, *, forward: bool = True) -> Iterator[collections.deque[str]]:
    """Collect the last lines that llama.cpp logs in this thread.

    Args:
        n_lines: At most.
        forward: Also send them where they went.
    """
    mine = _Collector(collections.deque(maxlen=n_lines), forward)
    thread = threading.get_ident()
    with _lock:
        if not _collectors:
            llama_cpp.llama_log_set(_note, ctypes.c_void_p(0))
        _collectors.setdefault(thread, []).append(mine)
    try:
        yield mine.lines
    finally:
        with _lock:
            _collectors[thread].pop()
            if not _collectors[thread]:
                del _collectors[thread]
            if not _collectors:
                llama_cpp.llama_log_set(_logger.llama_log_callback, ctypes.c_void_p(0))


def reason(lines: Iterable[str]) -> str:
    """Return what a log says about a failure: the lines that tell of an error, else its end."""
    kept = list(lines)
    errors = [line for line in kept if "error" in line.lower() or "failed" in line.lower()]
    return " | ".join((errors or kept)[-3:]) or "llama.cpp gave no reason"


def load_model(
    path: str | os.PathLike[str], params: Any, *, verbose: bool = False, forward: bool = True
) -> Any:
    """Return llama.cpp's model of a file.

    Standard output and error are those of the process, and so is ``llama_cpp``'s way of hiding what
    is written to them: threads that do so at once may leave them hidden. So only the log is kept
    quiet here, which is all that llama.cpp writes.

    Args:
        path: A GGUF file that llama.cpp loads.
        params: ctypes llama_model_params.
        verbose: As in ``llama_cpp.Llama``.
        forward: Send llama.cpp's log where it went.

    Raises:
        BadFileError: llama.cpp cannot load it; the text ends with its log.
    """
    check_path(path)
    with collect_log(forward=forward and verbose) as log:
        try:
            model = Model(path_model=os.fspath(path), params=params, verbose=True)
        except ValueError as e:
            raise BadFileError(f"{path}: {reason(log)}") from e
    model.verbose = verbose
    return model


def overrides_of(params: Any) -> list[Any]:
    """Return copies of the llama_model_kv_override of ctypes llama_model_params."""
    found = []
    for one in params.kv_overrides or ():
        if not one.key:
            break  # behind the last one
        found.append(type(one).from_buffer_copy(one))
    return found


def check_path(path: str | os.PathLike[str]) -> None:
    """Check that llama-cpp-python can open a file by this name.

    Raises:
        BadFileError: It cannot.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as e:
        raise BadFileError(
            f"{os.fspath(path)!r}: a name that is not UTF-8, which llama-cpp-python cannot open"
        ) from e


def new_context(model: Any, params: Any, *, verbose: bool = False) -> Any:
    """Return a context of a model with ctypes llama_context_params.

    Raises:
        ContextError: llama.cpp cannot make it.
    """
    with collect_log(forward=verbose) as log:
        try:
            return Context(model=model, params=params, verbose=verbose)
        except ValueError as e:
            asked = ", ".join(f"{name}={getattr(params, name)}" for name in _OF_CONTEXT)
            raise ContextError(f"no context with {asked}: {reason(log)}") from e


# of GBNF: literals, sets of characters, comments
_TEXTS = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)


def names_no_token(grammar: Any) -> bool:
    """Whether a ``llama_cpp.LlamaGrammar`` has no ``<token>``, only texts."""
    return grammar is not None and "<" not in _TEXTS.sub("", grammar._grammar)


def with_bias(chain: Any, bias: Mapping[int, float], n_vocab: int) -> Any:
    """Return a chain that adds to the logits of some tokens, then goes on as `chain`.

    ``llama_cpp.Llama`` makes a Python callback of a bias, which sees logits of all tokens.

    Args:
        chain: A `Sampler`; its samplers move to the new chain.
        bias: Token ids, and what is added to their logits.
        n_vocab: Tokens of the vocabulary.
    """
    if not bias:
        return chain
    array = (llama_cpp.llama_logit_bias * len(bias))(
        *(llama_cpp.llama_logit_bias(token, value) for token, value in bias.items())
    )
    out = Sampler()
    sampler = llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(bias), array)
    llama_cpp.llama_sampler_chain_add(out.sampler, sampler)
    return move_samplers(chain, out)


def move_samplers(source: Any, target: Any) -> Any:
    """Move all samplers of a `Sampler` behind those of another one, which is returned."""
    for _ in range(llama_cpp.llama_sampler_chain_n(source.sampler)):
        moved = llama_cpp.llama_sampler_chain_remove(source.sampler, 0)
        llama_cpp.llama_sampler_chain_add(target.sampler, moved)
    source.close()
    target.text_grammar = getattr(source, "text_grammar", False)
    return target


def outputs_of(batch: Any, *, all: bool) -> npt.NDArray[np.intp]:
    """Return which tokens of a ctypes llama_batch have logits; `all`: whatever it says."""
    n = int(batch.n_tokens)
    if all:
        return np.arange(n)
    if not batch.logits:
        return np.array([n - 1])
    return np.flatnonzero(batch.logits[:n])
