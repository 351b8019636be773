"""What may be asked, by the real client of OpenAI."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from servers import CHAT, PROMPTS, Running


def test_choices_and_lists_of_prompts(client: openai.OpenAI, stock: Any) -> None:
    ids = stock.tokenize(PROMPTS[1].encode(), add_bos=False)
    for prompts in ([PROMPTS[0], PROMPTS[1]], [ids, ids[:3]]):
        found = client.completions.create(
            model="tiny", prompt=prompts, n=2, max_tokens=8, seed=5, temperature=1.0
        )
        assert [c.index for c in found.choices] == [0, 1, 2, 3]
        expected = [
            stock.create_completion(p, max_tokens=8, seed=seed, temperature=1.0)
            for p in prompts
            for seed in (5, 6)
        ]
        assert [c.text for c in found.choices] == [e["choices"][0]["text"] for e in expected]
        assert found.usage is not None
        n_prompt = sum(e["usage"]["prompt_tokens"] for e in expected) // 2
        assert found.usage.prompt_tokens == n_prompt
    texts = ["", ""]
    for chunk in client.completions.create(
        model="tiny", prompt=PROMPTS[0], n=2, max_tokens=8, seed=5, temperature=1.0, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts[0] != texts[1]
    assert (
        client.completions.create(model="tiny", prompt=ids, max_tokens=3, temperature=0)
        .choices[0]
        .text
    )
    assert (
        client.completions.create(model="tiny", prompt="", max_tokens=3, temperature=0)
        .choices[0]
        .text
    )
    echoed = client.completions.create(model="tiny", prompt="Rome", echo=True, max_tokens=3)
    assert echoed.choices[0].text.startswith("Rome")


def test_usage_of_a_stream(server: Running, client: openai.OpenAI) -> None:
    stream: Any = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=9, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert {c.id for c in chunks} == {chunks[0].id}
    assert all(c.usage is None for c in chunks[:-1])
    last = chunks[-1]
    assert last.choices == []
    whole: Any = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=9, temperature=0
    )
    assert last.usage == whole.usage
    told = last.vocabtailor
    assert told["mode"] == "exact"
    assert told["head_rows"] > 0
    assert told["drafted"] >= last.usage.completion_tokens - 1


def test_stop_bias_and_limits(client: openai.OpenAI, stock: Any) -> None:
    given: dict[str, Any] = {"temperature": 0.0, "max_tokens": 24}
    text = stock.create_completion(PROMPTS[0], **given)["choices"][0]["text"]
    stop = text[len(text) // 2 :][:3]
    expected = stock.create_completion(PROMPTS[0], stop=[stop], **given)["choices"][0]
    found = client.completions.create(model="tiny", prompt=PROMPTS[0], stop=stop, **given)
    assert (found.choices[0].text, found.choices[0].finish_reason) == (expected["text"], "stop")
    null: Any = client.completions.create(
        model="tiny", prompt=PROMPTS[0], extra_body={"temperature": None, "stop": None}, seed=2
    )
    assert null.choices[0].text == stock.create_completion(PROMPTS[0], seed=2)["choices"][0]["text"]
    biased = client.completions.create(
        model="tiny", prompt=PROMPTS[0], logit_bias={"300": 100}, temperature=0.0, max_tokens=4
    )
    assert biased.choices[0].text == stock.detokenize([300] * 4).decode("utf-8", "ignore")


def test_models_tokenize_and_health(server: Running, client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    url = f"{server.url}/v1/tokenize"
    ids = httpx.post(url, json={"content": "Rome is"}).json()["tokens"]
    assert ids == server.pool.slots[0].llm.tokenize(b"Rome is", add_bos=False)
    pieces = httpx.post(url, json={"content": "Rome is", "with_pieces": True}).json()["tokens"]
    assert "".join(p["piece"] for p in pieces) == "Rome is"


def test_a_seed_is_drawn_and_told(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "prompt": PROMPTS[0], "max_tokens": 16}
    ask["extra_body"] = {"cache_prompt": False}
    first, second = (client.completions.create(**ask) for _ in range(2))
    seeds = [found.vocabtailor["seed"] for found in (first, second)]  # type: ignore[attr-defined]
    assert seeds[0] != seeds[1]
    again = client.completions.create(**ask, seed=seeds[0])
    for seed in (-1, 2**32 - 1):  # one and the same number for llama.cpp, which draws a seed then
        drawn: Any = client.completions.create(**ask, seed=seed)
        assert drawn.vocabtailor["seed"] != 2**32 - 1
        told = client.completions.create(**ask, seed=drawn.vocabtailor["seed"])
        assert told.choices[0].text == drawn.choices[0].text
    assert again.choices[0].text == first.choices[0].text
