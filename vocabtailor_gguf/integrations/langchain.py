"""LangChain: its own classes for llama.cpp, on a split model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self

import llama_cpp
from langchain_community.chat_models import ChatLlamaCpp
from langchain_community.llms import LlamaCpp
from langchain_core.utils import pre_init
from pydantic import model_validator

from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.runtime.owner import Mode


class TailoredLLM(LlamaCpp):  # type: ignore[misc]
    """A LangChain LLM; fields as of ``LlamaCpp``, and those of `TailoredLlama` that are named here.

    Further arguments of `TailoredLlama` belong into ``model_kwargs``.

    Attributes:
        model_path: ``NAME.core.gguf``, or an unsplit model.
        vocab_path: ``NAME.vocab.gguf``; by default the one beside the core.
        token_set: The path of a token set.
        mode: ``"exact"``, ``"tailored"`` or ``"full"``.

    Example:
        >>> from vocabtailor_gguf.integrations.langchain import TailoredLLM
        >>> llm = TailoredLLM(model_path=str(CORE), n_ctx=64, max_tokens=4, verbose=False)
        >>> text = llm.invoke("Rome is")
        >>> llm.client.close()
    """

    vocab_path: str | None = None
    token_set: str | None = None
    mode: Mode = "exact"

    @pre_init  # type: ignore[untyped-decorator]
    def validate_environment(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Load the model; this stands for the method that loads ``llama_cpp.Llama``."""
        return {**values, "grammar": _grammar(values), "client": _client(values)}

    @property
    def _llm_type(self) -> str:
        return "vocabtailor"


class ChatTailored(ChatLlamaCpp):  # type: ignore[misc]
    """A LangChain chat model; fields as of ``ChatLlamaCpp`` and `TailoredLLM`.

    Example:
        >>> from vocabtailor_gguf.integrations.langchain import ChatTailored
        >>> chat = ChatTailored(model_path=str(CORE), n_ctx=64, max_tokens=4, verbose=False)
        >>> chat.invoke("Where is Rome?").type
        'ai'
        >>> chat.client.close()
    """

    vocab_path: str | None = None
    token_set: str | None = None
    mode: Mode = "exact"

    @model_validator(mode="after")
    def validate_environment(self) -> Self:
        """Load the model; this stands for the method that loads ``llama_cpp.Llama``."""
        fields = dict(self)
        self.grammar = _grammar(fields)
        self.client = _client(fields)
        return self

    @property
    def _llm_type(self) -> str:
        return "vocabtailor"


def _client(fields: Mapping[str, Any]) -> TailoredLlama:
    """Return the model, of those fields of a class that are its arguments.

    Raises:
        VocabTailorError: A file is malformed, or does not belong to the model.
    """
    known = inspect.signature(TailoredLlama).parameters
    given = {k: v for k, v in fields.items() if k in known and v is not None}
    return TailoredLlama(**{**given, **fields["model_kwargs"]})


def _grammar(fields: Mapping[str, Any]) -> Any:
    """Return the grammar of a class, None where it has none.

    Raises:
        ValueError: It has two.
    """
    grammar, path = fields["grammar"], fields["grammar_path"]
    if grammar and path:
        raise ValueError("grammar and grammar_path: expected one of them")
    if path:
        return llama_cpp.LlamaGrammar.from_file(path, verbose=False)
    if isinstance(grammar, str):
        return llama_cpp.LlamaGrammar.from_string(grammar, verbose=False)
    return grammar
