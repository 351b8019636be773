"""Real logits behind llama.cpp's own functions.

The context of a core computes logits of the core's stub rows, while whoever reads through
``llama_get_logits`` expects n_vocab floats for an output. So the ctypes functions of llama_cpp
answer for such contexts with a row that is computed on demand; for all other contexts they are what
they were.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, Protocol

import llama_cpp

from vocabtailor_gguf.errors import UnsupportedError

_contexts: weakref.WeakValueDictionary[int, Answers] = weakref.WeakValueDictionary()  # by address
_lock = threading.Lock()


class Answers(Protocol):
    """Stands for a context whose own logits nobody may read."""

    def all_logits(self) -> Any:
        """Return a pointer to the logits of all outputs."""

    def logits_of(self, i: int) -> Any:
        """Return a pointer to the logits of the token `i` of the last batch."""


def answer_for(ctx: Any, answers: Answers) -> None:
    """Let `answers` answer for a ctypes llama_context, as long as it lives."""
    with _lock:
        _contexts[_address(ctx)] = answers
        functions: Any = llama_cpp
        functions.llama_get_logits.errcheck = _all_logits
        functions.llama_get_logits_ith.errcheck = _logits_of
        functions.llama_sampler_sample.errcheck = _sampled


def forget(ctx: Any) -> None:
    """Let nobody answer for a context any more."""
    with _lock:
        _contexts.pop(_address(ctx), None)


def _address(ctx: Any) -> int:
    return int(ctypes.cast(ctx, ctypes.c_void_p).value or 0) if ctx is not None else 0


def _find(ctx: Any) -> Answers | None:
    return _contexts.get(_address(ctx))


def _all_logits(result: Any, function: Any, args: tuple[Any, ...]) -> Any:
    found = _find(args[0])
    return result if found is None else found.all_logits()


def _logits_of(result: Any, function: Any, args: tuple[Any, ...]) -> Any:
    found = _find(args[0])
    return result if found is None else found.logits_of(int(getattr(args[1], "value", args[1])))


def _sampled(result: Any, function: Any, args: tuple[Any, ...]) -> Any:
    if _find(args[1]) is not None:
        raise UnsupportedError(
            "llama_sampler_sample: it would choose from the core's stub rows; use sample()"
        )
    return result
