"""What stock itself does not pass of llama-cpp-python's tests with our models, and why.

All else must pass, in every mode.
"""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("exact", "full", "tailored")
# models that the general tests run on
SETS = ("tiny", "smollm2", "gemma")

_LLAMA = "test_llama.py::"
_HYBRID = "[llama_cpp_hybrid_model_path-False-True]"


@dataclass(frozen=True)
class Known:
    """A test that does not pass with stock.

    Attributes:
        test: Its name.
        reason: Why not.
        sets: The models with which it does not pass.
        same: Whether exact and full mode end with the very message of stock.
    """

    test: str
    reason: str
    sets: tuple[str, ...] = SETS
    same: bool = True


_OWN_MODEL = "compares with the text of its own model"
_NO_HYBRID = "has no small hybrid model to run on"
_LONG_PROMPT = (
    "its prompt is longer than the context that it asks for, though not than what llama.cpp "
    "gives, all of which TailoredLlama has, and stock has not"
)

STOCK = (
    Known(_LLAMA + "test_real_model", "compares token ids of its own model; not of the class"),
    Known(_LLAMA + "test_real_llama", _OWN_MODEL, sets=("smollm2",)),
    Known(_LLAMA + "test_real_llama", _LONG_PROMPT, sets=("tiny",), same=False),
    Known(
        _LLAMA + "test_real_llama",
        "wants two draws at temperature 1 to differ, which with this model are equal",
        sets=("gemma",),
    ),
    Known(_LLAMA + "test_real_llama_repeated_prompt_cache", _OWN_MODEL, sets=("smollm2",)),
    Known(
        _LLAMA + "test_real_llama_repeated_prompt_cache", _LONG_PROMPT, sets=("tiny",), same=False
    ),
    Known(_LLAMA + "test_hybrid_model_prompt_cache_reset", _NO_HYBRID),
    *(
        Known(f"{_LLAMA}test_{name}_matches_fresh{_HYBRID}", _NO_HYBRID)
        for name in (
            "exact_cached_prompt_reuse",
            "loaded_exact_cached_prompt_reuse",
            "ram_cache_exact_prompt_hit",
            "shorter_prompt_prefix_reuse",
        )
    ),
)
