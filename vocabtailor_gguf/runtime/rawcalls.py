"""True answers of llama.cpp's own functions for the pointers of a core.

The context of a core computes logits of the core's stub rows, while whoever reads through
``llama_get_logits`` expects n_vocab floats for an output; its model has no tokenizer, and llama.cpp
aborts where it is given text. So some ctypes functions of llama_cpp answer for such pointers with
what is true of the unsplit model. For all other pointers they are what they were.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import llama_cpp

from vocabtailor_gguf.errors import UnsupportedError

_stand_ins: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by address
# a collection of garbage may close another model while this thread holds it
_lock = threading.RLock()


def answer_for(pointer: Any, stand_in: Any) -> None:
    """Let a `SplitContext` or a `SplitModel` answer for a ctypes pointer, as long as it lives."""
    with _lock:
        _stand_ins[_address(pointer)] = stand_in
        for name, answer in _ANSWERS.items():
            getattr(llama_cpp, name).errcheck = answer


def forget(pointer: Any) -> None:
    """Let nobody answer for a pointer any more."""
    with _lock:
        _stand_ins.pop(_address(pointer), None)


def _address(pointer: Any) -> int:
    return int(ctypes.cast(pointer, ctypes.c_void_p).value or 0) if pointer is not None else 0


def _value(argument: Any) -> Any:
    return getattr(argument, "value", argument)


def _checked(answer: Callable[..., Any], *, of: int = 0) -> Callable[..., Any]:
    """Return what ctypes calls after a function, whose argument `of` says who answers."""

    @functools.wraps(answer)
    def check(result: Any, function: Any, args: tuple[Any, ...]) -> Any:
        stand_in = _stand_ins.get(_address(args[of]))
        return result if stand_in is None else answer(stand_in, result, *args)

    return check


def _sampled(stand_in: Any, result: Any, *args: Any) -> Any:
    raise UnsupportedError(
        "llama_sampler_sample: it would choose from the core's stub rows; use sample()"
    )


def _chat_template(model: Any, result: Any, pointer: Any, name: Any) -> Any:
    key = "tokenizer.chat_template"
    asked = _value(name)
    text = model.metadata().get(key if asked is None else f"{key}.{asked.decode()}")
    return None if text is None else text.encode("utf-8")


_ANSWERS = {
    "llama_get_logits": _checked(lambda context, *_: context.all_logits()),
    "llama_get_logits_ith": _checked(lambda context, r, ctx, i: context.logits_of(int(_value(i)))),
    "llama_sampler_sample": _checked(_sampled, of=1),
    "llama_model_get_vocab": _checked(lambda model, *_: model.vocab),
    "llama_model_n_params": _checked(lambda model, *_: model.n_params()),
    "llama_model_size": _checked(lambda model, *_: model.size()),
    "llama_model_chat_template": _checked(_chat_template),
}
