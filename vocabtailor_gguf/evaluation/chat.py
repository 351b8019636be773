"""A model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_chat_format as chat_format

from vocabtailor_gguf.errors import BadFileError, VocabTailorError

CHAT_TEMPLATE = "tokenizer.chat_template"  # key of GGUF


def chat_formatter(llm: Any, *, add_generation_prompt: bool = True) -> Any:
    """Return llama-cpp-python's formatter for the chat template of a ``llama_cpp.Llama``.

    Raises:
        BadFileError: The template cannot be read.
        VocabTailorError: The model has none.
    """
    template = llm.metadata.get(CHAT_TEMPLATE)
    if template is None:
        raise VocabTailorError("the model has no chat template: take base prompts")

    def text(token: int) -> str:
        return str(llm._model.token_get_text(token)) if token >= 0 else ""

    try:
        return chat_format.Jinja2ChatFormatter(
            template,
            eos_token=text(llm.token_eos()),
            bos_token=text(llm.token_bos()),
            add_generation_prompt=add_generation_prompt,
        )
    except Exception as e:  # of Jinja2, which is llama-cpp-python's
        raise BadFileError(f"the model's chat template: {type(e).__name__}: {e}") from e


def render(formatter: Any, messages: Sequence[dict[str, str]]) -> str:
    """Return messages as one text.

    Raises:
        BadFileError: The template refuses them.
    """
    try:
        return str(formatter(messages=list(messages)).prompt)
    except Exception as e:  # a template may raise anything
        raise BadFileError(f"the model's chat template: {type(e).__name__}: {e}") from e
