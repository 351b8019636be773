"""Answers that obey a schema, and tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from servers import CHAT, Running, serving

from vocabtailor_gguf.serve import tools


def test_json_and_tools(client: openai.OpenAI) -> None:
    found: Any = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=200, temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "array", "items": {"const": 1},
                                                   "minItems": 2, "maxItems": 3}},
        },
    )  # fmt: skip
    assert set(json.loads(found.choices[0].message.content)) == {1}
    tool = {
        "type": "function",
        "function": {
            "name": "find",
            "parameters": {
                "type": "object",
                "properties": {"what": {"enum": ["a", "b"]}},
                "required": ["what"],
            },
        },
    }
    named = {"type": "function", "function": {"name": "find"}}
    for choice in ("required", named):
        answer: Any = client.chat.completions.create(
            model="tiny", messages=CHAT, tools=[tool], tool_choice=choice, temperature=0
        )
        call = answer.choices[0].message.tool_calls[0]
        assert call.function.name == "find"
        assert json.loads(call.function.arguments)["what"] in ("a", "b")
        stream: Any = client.chat.completions.create(
            model="tiny",
            messages=CHAT,
            tools=[tool],
            tool_choice=choice,
            temperature=0,
            stream=True,
        )
        parts = [c.choices[0].delta.tool_calls for c in stream]
        calls = [p[0] for p in parts if p]
        assert "".join(c.function.arguments for c in calls) == call.function.arguments
        # clients put together what they get
        assert "".join(c.function.name or "" for c in calls) == "find"
        assert [c.id for c in calls] == [calls[0].id] + [None] * (len(calls) - 1)


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "$defs": {"city": {"enum": ["Rome", "Oslo"]}},
        },
    },
}


TIME = {"type": "function", "function": {"name": "time"}}


@pytest.fixture(scope="module")
def roomy(core: Path) -> Iterator[Running]:
    """A server with room for tools."""
    with serving(core, slots=1, n_ctx=1024) as running:
        yield running


@pytest.mark.parametrize("choice", ["auto", "required", "none", None])
def test_a_choice_of_tools(roomy: Running, choice: str | None) -> None:
    client = roomy.client()
    history: list[Any] = [
        *CHAT,
        {
            "role": "assistant", "content": None,
            "tool_calls": [{"id": "1", "type": "function",
                            "function": {"name": "time", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
    ]  # fmt: skip
    given: dict[str, Any] = {} if choice is None else {"tool_choice": choice}
    seen = set()
    for seed in range(12):
        ask: dict[str, Any] = {
            "model": "tiny", "messages": history, "tools": [WEATHER, TIME], "temperature": 2.0,
            "seed": seed, "max_tokens": 60, **given,
        }  # fmt: skip
        answer: Any = client.chat.completions.create(**ask)
        message = answer.choices[0].message
        chunks: list[Any] = list(client.chat.completions.create(**ask, stream=True))
        deltas = [c.choices[0].delta for c in chunks]
        assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
        if message.tool_calls:
            assert answer.choices[0].finish_reason == "tool_calls"
            call = message.tool_calls[0].function
            if call.name == "weather":
                assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
            streamed = deltas[0].tool_calls[0].function
            assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
            seen.add(call.name)
        else:
            assert message.content is not None
            if choice != "none":
                assert "".join(d.content or "" for d in deltas) == message.content
            seen.add("text")
    client.close()
    assert seen <= {"weather", "time", "text"}
    if choice == "none":
        assert seen == {"text"}
    else:
        assert seen & {"weather", "time"}


@pytest.mark.parametrize(
    "content",
    [
        r'{"response": "half \ud83d"}',
        r'{"tool_call": {"name": "f", "arguments": {"a": "\udc00"}}}',
        '{"tool_call": {"name": "f", "arguments": ' + "[" * 5000,
    ],
)
def test_odd_json_of_a_model(content: str) -> None:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    answer = tools.with_calls({"choices": [choice]})
    json.dumps(answer, ensure_ascii=False).encode("utf-8")  # as it is sent
