"""Grammars of JSON schemas that clients send, within bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import llama_cpp
from llama_cpp import llama_grammar

from vocabtailor_gguf.serve.errors import ApiError
from vocabtailor_gguf.serve.schema import ResponseFormat

_MAX_DEPTH = 32
_MAX_COUNT = 500  # repetitions are written out in the grammar, and its reader is recursive
_OPTIONAL = 8  # how much an optional part of a pattern counts for
_MAX_GRAMMAR = 1 << 16  # bytes
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")


def grammar_of(llm: Any, wanted: ResponseFormat | None) -> llama_cpp.LlamaGrammar | None:
    """Return the grammar of a response format.

    Args:
        llm: A ``llama_cpp.Llama``, whose vocabulary the grammar is tried with.
        wanted: The format.

    Raises:
        ApiError: There is no grammar of the schema, or it is too large.
    """
    if wanted is None or wanted.type == "text":
        return None
    schema = wanted.schema_
    if wanted.type == "json_schema":
        if wanted.json_schema is None:
            raise _bad("a response_format of type json_schema needs the field json_schema")
        schema = wanted.json_schema.schema_
    if schema is None:
        return llama_cpp.LlamaGrammar.from_string(llama_grammar.JSON_GBNF, verbose=False)
    return schema_grammar(llm, schema)


def schema_grammar(llm: Any, schema: dict[str, Any]) -> llama_cpp.LlamaGrammar:
    """Return the grammar of a JSON schema; arguments and errors as of `grammar_of`."""
    for key, value in _numbers(schema, 0):
        if value > _MAX_COUNT:
            raise _bad(f"the schema's {key} is {value}, expected at most {_MAX_COUNT}")
    try:
        grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
    except Exception as e:  # the converter has no errors of its own
        raise _bad(f"no grammar can be made of the schema: {type(e).__name__}: {e}") from e
    text = grammar._grammar.encode("utf-8", "replace")
    if len(text) > _MAX_GRAMMAR:
        raise _bad(f"the schema's grammar has {len(text)} bytes, expected {_MAX_GRAMMAR} at most")
    sampler = llama_cpp.llama_sampler_init_grammar(
        llm._model.vocab, text, grammar._root.encode("utf-8")
    )
    if not sampler:
        raise _bad("llama.cpp cannot read the schema's grammar")
    llama_cpp.llama_sampler_free(sampler)
    return grammar


def _numbers(value: Any, depth: int) -> Iterator[tuple[str, int]]:
    """Yield how often parts are repeated, by the keyword that says so."""
    if depth > _MAX_DEPTH:
        raise _bad(f"the schema is more than {_MAX_DEPTH} levels deep")
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item, depth + 1)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in _COUNTS and isinstance(item, int | float):
            yield key, int(item)
        elif key == "pattern" and isinstance(item, str):
            yield key, _repetitions(item)
        else:
            yield from _numbers(item, depth + 1)


def _repetitions(pattern: str) -> int:
    """Return a bound of how often a part of a regular expression is repeated.

    Optional parts in a row cost llama.cpp the square of their number at each token of the
    vocabulary, so they count as more.
    """
    product = groups = 1
    for group, digits in re.findall(r"(\)?)\{([\d,\s]*)\}", pattern):
        count = max([1, *(int(n[:9]) for n in re.findall(r"\d+", digits))])
        product = min(product * count, 2**31)
        groups = min(groups * (count if group else 1), 2**31)
    n_optional = len(re.findall(r"[?*]|\{\s*[0,]", pattern))
    return max(product, _OPTIONAL * n_optional * groups)


def _bad(message: str) -> ApiError:
    return ApiError(400, message[:500], param="response_format")
