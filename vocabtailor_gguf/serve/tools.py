"""Tools: one that is named is upstream's; a choice among several is an answer in JSON.

The model is told in a system message which functions there are, and a grammar lets it write a
``{"tool_call": {"name": ..., "arguments": ...}}`` or a ``{"response": ...}``. So it does not depend
on the chat template, like the generic format of llama.cpp's server.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import uuid
from collections.abc import Generator, Iterator
from typing import Any

from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.serve.errors import ApiError
from vocabtailor_gguf.serve.grammars import schema_grammar
from vocabtailor_gguf.serve.schema import ChatRequest, NamedTool


def wanted_tools(body: ChatRequest) -> list[dict[str, Any]]:
    """Return the tools that an answer may or must call: none, a named one, or all.

    Raises:
        ApiError: There is no such tool.
    """
    tools = [tool.model_dump() for tool in body.tools or []]
    choice = body.tool_choice
    if isinstance(choice, NamedTool):
        name = choice.function.name
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            raise _bad(f"there is no tool {name!r}")
    if choice == "required" and not tools:
        raise _bad("there are no tools")
    if choice == "none" or not tools:
        return []
    if body.response_format is not None and body.response_format.type != "text":
        raise _bad("an answer cannot obey a response_format and call tools")
    return tools


def named_arguments(llm: TailoredLlama, tool: dict[str, Any]) -> dict[str, Any]:
    """Return upstream's arguments that make an answer call one tool.

    Raises:
        ApiError: There is no grammar of its parameters.
    """
    schema_grammar(llm, tool["function"]["parameters"])  # upstream would take any JSON instead
    named = {"type": "function", "function": {"name": tool["function"]["name"]}}
    return {"tools": [tool], "tool_choice": named}


def choice_arguments(
    llm: TailoredLlama, tools: list[dict[str, Any]], *, may_answer: bool
) -> dict[str, Any]:
    """Return the arguments that let an answer call one of several tools, or answer by itself.

    Raises:
        ApiError: There is no grammar of their parameters.
    """
    shared: dict[str, Any] = {}  # the tools' own definitions, whose references begin at the root
    calls: list[dict[str, Any]] = [
        _object(
            "tool_call",
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "arguments": _moved(tool["function"]["parameters"], f"{i}.", shared),
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            },
        )
        for i, tool in enumerate(tools)
    ]
    if may_answer:
        calls.append(_object("response", {"type": "string"}))
    return {"grammar": schema_grammar(llm, {"anyOf": calls, "$defs": shared})}


def _moved(schema: dict[str, Any], prefix: str, shared: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without its definitions, which join the shared ones under a prefix."""

    def renamed(value: Any, depth: int = 0) -> Any:
        if depth > 64:
            raise _bad("the parameters of a tool are too deep")
        if isinstance(value, list):
            return [renamed(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        out = {key: renamed(item, depth + 1) for key, item in value.items()}
        found = re.fullmatch(r"#/(?:\$defs|definitions)/([^/]+)", str(out.get("$ref")))
        return {**out, "$ref": f"#/$defs/{prefix}{found[1]}"} if found else out

    out: dict[str, Any] = renamed(schema)
    for key in ("$defs", "definitions"):
        own = out.pop(key, {})
        if isinstance(own, dict):
            shared |= {f"{prefix}{name}": item for name, item in own.items()}
    return out


def _object(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }


def told_messages(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, may_answer: bool
) -> list[dict[str, Any]]:
    """Return messages whose first one tells of the tools."""
    functions = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    text = (
        f"You have these functions: {functions}\n"
        'To call one, answer in JSON: {"tool_call": {"name": ..., "arguments": {...}}}.'
    )
    if may_answer:
        text += ' To reply without a call: {"response": ...}.'
    if messages[0]["role"] in ("system", "developer"):
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def plain_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages with calls and results of tools as text, which every template knows."""
    out = []
    for message in messages:
        calls = message.get("tool_calls")
        if message["role"] == "assistant" and isinstance(calls, list) and calls:
            shown = [json.dumps({"tool_call": c.get("function")}, ensure_ascii=False)
                     for c in calls if isinstance(c, dict)]  # fmt: skip
            text = "\n".join(filter(None, [message["content"], *shown]))
            message = {"role": "assistant", "content": text}
        elif message["role"] == "tool":
            message = {"role": "user", "content": f"Result of the call: {message['content']}"}
        out.append(message)
    return out


def with_calls(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of `choice_arguments` as OpenAI has it; one that was cut off stays text."""
    out = copy.deepcopy(answer)
    choice = out["choices"][0]
    try:
        found = json.loads(choice["message"]["content"])
    except (ValueError, RecursionError):
        return out
    if "response" in found:
        choice["message"]["content"] = _whole(found["response"])
        return out
    call = found["tool_call"]
    arguments = _whole(json.dumps(call["arguments"], ensure_ascii=False))
    choice["message"] = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call_{uuid.uuid4().hex}",
                "type": "function",
                "function": {"name": call["name"], "arguments": arguments},
            }
        ],
    }
    choice["finish_reason"] = "tool_calls"
    return out


def named_once(chunks: Generator[dict[str, Any], None, None]) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a named call, whose id and name only the first part of it tells.

    Upstream repeats them in each, and clients put together what they get.
    """
    is_named = False
    with contextlib.closing(chunks):
        for chunk in chunks:
            for choice in chunk["choices"]:
                delta = choice["delta"]
                calls = delta.get("tool_calls")
                if calls and is_named:
                    for call in calls:
                        del call["id"], call["type"], call["function"]["name"]
                    delta["function_call"].pop("name", None)
                is_named = is_named or bool(calls)
            yield chunk


def as_chunks(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an answer as the chunks of a stream."""
    choice = answer["choices"][0]
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": i, **c} for i, c in enumerate(delta["tool_calls"])]
    first = {"index": 0, "delta": delta, "logprobs": choice["logprobs"], "finish_reason": None}
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    yield {**answer, "choices": [first]}
    yield {**answer, "choices": [last]}


def _whole(text: str) -> str:
    """Return a text without the halves of surrogate pairs that JSON's escapes can write."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _bad(message: str) -> ApiError:
    return ApiError(400, f"tool_choice: {message}", param="tool_choice")
