"""What TailoredLlama refuses: it would give a wrong answer, or is not done yet."""

from __future__ import annotations

from typing import Any, NoReturn

from vocabtailor_gguf.errors import UnsupportedError

# arguments of llama_cpp.Llama that would give a wrong answer here, and the value that is harmless
_ARGUMENTS: dict[str, Any] = {
    "logits_all": False,
}


def not_supported(what: str) -> NoReturn:
    """Raise an UnsupportedError."""
    raise UnsupportedError(f"{what} is not supported by TailoredLlama yet")


def check_supported(arguments: dict[str, Any]) -> None:
    """Refuse arguments that are not supported.

    Raises:
        UnsupportedError: One is not; the text names it.
    """
    for name, harmless in _ARGUMENTS.items():
        if arguments.get(name, harmless) != harmless:
            not_supported(f"{name}={arguments[name]!r}")


class Missing:
    """Methods that say so."""

    @property
    def eval_logits(self) -> NoReturn:
        """Not supported: there are no logits of the whole vocabulary."""
        not_supported("eval_logits")
