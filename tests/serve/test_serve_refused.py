"""What the server refuses, and how it says so."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from servers import CHAT, Running, serving

from vocabtailor_gguf.serve.limits import hosts_of

NUMBER: dict[str, Any] = {"type": "integer"}


DEEP = functools.reduce(lambda s, _: {"type": "array", "items": s}, range(200), NUMBER)


WRONG: dict[str, tuple[str, Any, int]] = {
    "no JSON": ("completions", b"{", 400),
    "no object": ("completions", b"[]", 400),
    "no UTF-8": ("completions", b'{"prompt": "\xff"}', 400),
    "half a surrogate": ("completions", rb'{"prompt": "\ud800"}', 400),
    "deep JSON": ("completions", b"[" * 100_000, 400),
    "no prompt": ("completions", {}, 400),
    "no prompts": ("completions", {"prompt": []}, 400),
    "no tokens": ("completions", {"prompt": [[]]}, 400),
    "negative token": ("completions", {"prompt": [-1]}, 400),
    "token outside": ("completions", {"prompt": [5, 448]}, 400),
    "huge token": ("completions", {"prompt": [2**40]}, 400),
    "long prompt": ("completions", {"prompt": [5] * 256}, 400),
    "NaN": ("completions", b'{"prompt": "a", "temperature": NaN}', 400),
    "infinity": ("completions", b'{"prompt": "a", "top_p": 1e999}', 400),
    "temperature": ("completions", {"prompt": "a", "temperature": -1}, 400),
    "top_k": ("completions", {"prompt": "a", "top_k": 2**31}, 400),
    "max_tokens": ("completions", {"prompt": "a", "max_tokens": 2**31}, 400),
    "no max_tokens": ("completions", {"prompt": "a", "max_tokens": 0}, 400),
    "seed": ("completions", {"prompt": "a", "seed": 2**70}, 400),
    "n": ("completions", {"prompt": "a", "n": 1000}, 400),
    "best_of": ("completions", {"prompt": "a", "best_of": 2}, 400),
    "suffix": ("completions", {"prompt": "a", "suffix": "b"}, 400),
    "logprobs": ("completions", {"prompt": "a", "logprobs": 21}, 400),
    "empty stop": ("completions", {"prompt": "a", "stop": [""]}, 400),
    "bias of no token": ("completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400),
    "bias outside": ("completions", {"prompt": "a", "logit_bias": {"448": 1}}, 400),
    "large bias": ("completions", {"prompt": "a", "logit_bias": {"5": 1e30}}, 400),
    "no such model": ("completions", {"prompt": "a", "model": "gpt"}, 404),
    "no messages": ("chat/completions", {"messages": []}, 400),
    "image": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        400,
    ),
    "no tools": ("chat/completions", {"messages": CHAT, "tool_choice": "required"}, 400),
    "no such tool": (
        "chat/completions",
        {
            "messages": CHAT,
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
        400,
    ),
    "top_logprobs alone": ("chat/completions", {"messages": CHAT, "top_logprobs": 2}, 400),
    "remote schema": ("chat/completions", {"schema": {"$ref": "https://127.0.0.1:1/x"}}, 400),
    "schema of nothing": ("chat/completions", {"schema": {"type": "nothing"}}, 400),
    "schema without end": ("chat/completions", {"schema": {"items": {"$ref": "#/no"}}}, 400),
    "large schema": (
        "chat/completions", {"schema": {"type": "array", "items": NUMBER, "maxItems": 10**9}}, 400,
    ),
    "large pattern": (
        "chat/completions", {"schema": {"type": "string", "pattern": "^(a{999}){999}$"}}, 400,
    ),
    "costly pattern": (
        "chat/completions", {"schema": {"type": "string", "pattern": "^(a?){500}$"}}, 400,
    ),
    "deep schema": ("chat/completions", {"schema": DEEP}, 400),
    "empty choice": ("chat/completions", {"schema": {"anyOf": []}}, 400),
    "nothing to embed": ("embeddings", {"input": []}, 400),
    "embedding of no text": ("embeddings", {"input": ["a", ""]}, 400),
    "embedding of a long text": ("embeddings", {"input": [5] * 257}, 400),
    "embedding of a token outside": ("embeddings", {"input": [5, 448]}, 400),
    "no such page": ("nothing", {}, 404),
    "tokenize nothing": ("tokenize", {}, 400),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(server: Running, name: str, stream: bool) -> None:
    path, body, status = WRONG[name]
    if isinstance(body, dict):
        if "schema" in body:
            form = {"type": "json_schema", "json_schema": {"name": "x", **body}}
            body = {"messages": CHAT, "response_format": form}
        body = json.dumps({**body, "stream": stream}).encode()
    answer = httpx.post(
        f"{server.url}/v1/{path}", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert len(error["message"]) < 1000
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_the_api_key_and_the_size(core: Path) -> None:
    settings = {"api_key": "secret", "max_body": 2000, "cors": ("https://example.org",)}
    with serving(core, slots=1, settings=settings) as server:
        for key in ("none", "secre", "secret2", "gehe\u00efm"):
            answer = httpx.get(
                f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}".encode()}
            )
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
        with pytest.raises(openai.AuthenticationError), server.client() as client:
            client.completions.create(model="tiny", prompt="a", max_tokens=1)
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(server.url).status_code == 200
        with server.client(api_key="secret") as client:
            assert client.completions.create(model="tiny", prompt="a", max_tokens=1).choices

        def parts() -> Iterator[bytes]:
            for _ in range(100):
                yield b" " * 100

        for content in (b" " * 2001, parts()):
            answer = httpx.post(
                f"{server.url}/v1/completions", content=content,
                headers={"Authorization": "Bearer secret", "Content-Type": "application/json"},
            )  # fmt: skip
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "too_large"
        allowed = "access-control-allow-origin"
        for origin in ("https://example.org", "https://example.com"):
            answer = httpx.get(f"{server.url}/health", headers={"Origin": origin})
            assert answer.headers.get(allowed) == (origin if origin.endswith("org") else None)


def test_clients_in_pages_have_headers_of_their_own(core: Path) -> None:
    with serving(core, slots=1, settings={"cors": ("https://example.org",)}) as server:
        answer = httpx.options(
            f"{server.url}/v1/chat/completions",
            headers={
                "Origin": "https://example.org",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
            },
        )
        assert answer.status_code == 200
        assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]


def test_there_is_no_cors_by_default(server: Running) -> None:
    answer = httpx.get(f"{server.url}/health", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("address", "is_own"),
    [
        ("127.0.0.1", True), ("127.0.0.2", True), ("127.1.2.3", True), ("127.1", True),
        ("localhost", True), ("LOCALHOST", True), ("::1", True), ("0:0:0:0:0:0:0:1", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("192.0.2.1", False), ("no such.", False),
    ],
)  # fmt: skip
def test_loopback_addresses_are_equal(address: str, is_own: bool) -> None:
    """What only this machine can reach answers only for its names."""
    hosts = hosts_of(address)
    assert bool(hosts) is is_own
    assert not is_own or {"127.0.0.1", "localhost", "::1", address.lower()} <= set(hosts)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("completions", {"prompt": 5}, "prompt"),
        ("completions", {"prompt": [-1]}, "prompt"),
        ("completions", {"prompt": {"str": 1}}, "prompt"),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": "a", "stop": [""]}, "stop"),
        ("completions", {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias.x"),
        ("completions", {"prompt": "a", "vocabtailor": {"audit": 2}}, "vocabtailor.audit"),
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ("chat/completions", {"messages": [{"content": "a"}]}, "messages.0.role"),
        ("chat/completions", {"messages": CHAT, "tool_choice": "some"}, "tool_choice"),
        ("embeddings", {"input": 5}, "input"),
        ("completions", b"{", None),
        ("completions", b"[]", None),
    ],
)  # fmt: skip
def test_errors_name_fields_that_there_are(
    server: Running, path: str, body: Any, field: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(
        f"{server.url}/v1/{path}", content=content, headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field), error
    assert error["message"].startswith(f"{field}: ") or field is None


def test_the_host_is_checked(core: Path) -> None:
    with serving(core, slots=1, settings={"hosts": ("127.0.0.1", "localhost", "::1")}) as server:
        for host in ("localhost:80", "127.0.0.1", "LOCALHOST", "[::1]:8080"):
            assert httpx.get(f"{server.url}/health", headers={"Host": host}).status_code == 200
        answer = httpx.get(f"{server.url}/health", headers={"Host": "example.org"})
        assert answer.status_code == 421
        assert "example.org" in answer.json()["error"]["message"]
