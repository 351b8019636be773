"""Texts through the server are stock's, whatever the slots do."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llama_cpp
import openai
import pytest
from servers import CHAT, OPTIONS, PROMPTS, SAMPLINGS, Running, joined, serving, until


@pytest.mark.parametrize("name", SAMPLINGS)
def test_completions_are_stocks(client: openai.OpenAI, stock: Any, name: str) -> None:
    for prompt in PROMPTS:
        sampling = SAMPLINGS[name]
        expected = stock.create_completion(prompt, max_tokens=32, **sampling)
        found = client.completions.create(model="tiny", prompt=prompt, max_tokens=32, **sampling)
        assert found.choices[0].text == expected["choices"][0]["text"]
        assert found.choices[0].finish_reason == expected["choices"][0]["finish_reason"]
        assert found.usage is not None
        assert found.usage.model_dump(include=set(expected["usage"])) == expected["usage"]
        chunks = stock.create_completion(prompt, max_tokens=32, stream=True, **sampling)
        stream = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=32, stream=True, **sampling
        )
        assert joined(stream) == "".join(c["choices"][0]["text"] for c in chunks)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_chats_are_stocks(client: openai.OpenAI, stock: Any, name: str) -> None:
    sampling = SAMPLINGS[name]
    expected = stock.create_chat_completion(CHAT, max_tokens=24, **sampling)
    found: Any = client.chat.completions.create(
        model="tiny", messages=CHAT, max_completion_tokens=24, **sampling
    )
    assert found.choices[0].message.content == expected["choices"][0]["message"]["content"]
    assert found.usage.completion_tokens == expected["usage"]["completion_tokens"]
    chunks = stock.create_chat_completion(CHAT, max_tokens=24, stream=True, **sampling)
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    stream: Any = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=24, stream=True, **sampling
    )
    assert joined(stream, chat=True) == text


def ask_all(server: Running, n: int, max_tokens: int, mode: str = "exact") -> list[str]:
    """Several clients at once, each with another prompt and sampling.

    No two prompts begin alike: llama.cpp computes what follows a known beginning in another batch,
    which may have other last bits, in stock as here.
    """
    extra = {"vocabtailor": {"mode": mode}}

    def ask(i: int) -> str:
        sampling = list(SAMPLINGS.values())[i % 3]
        prompt = f"{chr(65 + i)}: {PROMPTS[i % 2]}"
        with server.client() as client:
            if i % 4 < 2:
                stream = client.completions.create(
                    model="tiny",
                    prompt=prompt,
                    max_tokens=max_tokens,
                    stream=True,
                    extra_body=extra,
                    **sampling,
                )
                return joined(stream)
            return (
                client.completions.create(
                    model="tiny",
                    prompt=prompt,
                    max_tokens=max_tokens,
                    extra_body=extra,
                    **sampling,
                )
                .choices[0]
                .text
            )

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(ask, range(n)))


def alone(stock: Any, n: int, max_tokens: int) -> list[str]:
    """The same from a stock model, one after another."""
    texts = []
    for i in range(n):
        sampling = list(SAMPLINGS.values())[i % 3]
        prompt = f"{chr(65 + i)}: {PROMPTS[i % 2]}"
        if i % 4 < 2:
            chunks = stock.create_completion(prompt, max_tokens=max_tokens, stream=True, **sampling)
            texts.append("".join(c["choices"][0]["text"] for c in chunks))
        else:
            out = stock.create_completion(prompt, max_tokens=max_tokens, **sampling)
            texts.append(out["choices"][0]["text"])
    return texts


@pytest.mark.parametrize("mode", ["exact", "full"])
def test_slots_at_once_give_what_they_give_alone(server: Running, stock: Any, mode: str) -> None:
    assert ask_all(server, 24, 40, mode) == alone(stock, 24, 40)


@pytest.mark.parametrize("mode", ["exact", "full"])
@pytest.mark.parametrize("name", ["greedy", "seeded"])
def test_streams_that_take_turns(
    server: Running, client: openai.OpenAI, stock: Any, name: str, mode: str
) -> None:
    """Two slots, read token by token in turns; one stream is broken off and asked for again."""
    ask = {"max_tokens": 40, **SAMPLINGS[name]}
    expected = []
    for prompt in PROMPTS:
        stock.reset()
        chunks = stock.create_completion(prompt, stream=True, **ask)
        expected.append("".join(c["choices"][0]["text"] for c in chunks))
    extra = {"vocabtailor": {"mode": mode}, "cache_prompt": False}

    def begin(prompt: str) -> Any:
        return client.completions.create(
            model="tiny", prompt=prompt, stream=True, extra_body=extra, **ask
        )

    def turns(streams: list[Any], texts: list[str], n: int) -> None:
        for _ in range(n):
            for i, stream in enumerate(streams):
                chunk = next(stream, None)
                texts[i] += chunk.choices[0].text if chunk else ""

    streams, texts = [begin(p) for p in PROMPTS], ["", ""]
    turns(streams, texts, 5)
    streams[0].close()
    assert expected[0].startswith(texts[0])
    assert until(lambda: server.pool.n_busy < 2)
    streams[0], texts[0] = begin(PROMPTS[0]), ""
    turns(streams, texts, 60)
    assert texts == expected
    for stream in streams:
        assert next(stream, None) is None


@pytest.mark.model
def test_a_real_model(smollm2: Path, smollm2_split: Any) -> None:
    stock = llama_cpp.Llama(str(smollm2), **OPTIONS)
    with serving(smollm2_split.core) as server, server.client() as client:
        assert ask_all(server, 6, 24) == alone(stock, 6, 24)
        expected = stock.create_chat_completion(CHAT, max_tokens=24, temperature=0)
        found: Any = client.chat.completions.create(
            model="tiny", messages=CHAT, max_tokens=24, temperature=0
        )
        assert found.choices[0].message.content == expected["choices"][0]["message"]["content"]
        begun = f"{PROMPTS[1]} 5"  # a known beginning changes the last bits of what follows
        for history in (f"{PROMPTS[1]} 1", f"{PROMPTS[1]} 3"):
            stock.create_completion(history, max_tokens=4)
            stock.reset()
            out = stock.create_completion(begun, max_tokens=24, **SAMPLINGS["penalties"])
            client.completions.create(model="tiny", prompt=history, max_tokens=4)
            anew = client.completions.create(
                model="tiny", prompt=begun, max_tokens=24, **SAMPLINGS["penalties"],
                extra_body={"cache_prompt": False},
            )  # fmt: skip
            assert anew.choices[0].text == out["choices"][0]["text"]
        schema = {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        }
        answer: Any = client.chat.completions.create(
            model="tiny", messages=CHAT, max_tokens=64, temperature=0,
            response_format={
                "type": "json_schema", "json_schema": {"name": "place", "schema": schema},
            },
        )  # fmt: skip
        assert set(json.loads(answer.choices[0].message.content)) == {"city"}
    stock.close()
