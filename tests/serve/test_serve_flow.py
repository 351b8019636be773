"""The queue, clients that go, what is counted, and the end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from servers import Gate, Running, metric, serving, until

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.serve.preset import Preset


def test_a_full_queue(core: Path, gate: Gate) -> None:
    with serving(core, slots=1, queue=1) as server, ThreadPoolExecutor(2) as threads:
        with server.client() as client:
            ask = {"model": "tiny", "prompt": "Rome is", "max_tokens": 3, "temperature": 0.0}
            first = threads.submit(client.completions.create, **ask)
            assert until(lambda: gate.n_waiting == 1)
            second = threads.submit(client.completions.create, **ask)
            assert until(lambda: server.pool.n_waiting == 1)
            with pytest.raises(openai.RateLimitError) as refused:
                client.completions.create(**ask)
            assert int(refused.value.response.headers["retry-after"]) >= 1
            assert metric(server, "vocabtailor_queue_length") == 1
            assert metric(server, "vocabtailor_slots_busy") == 1
            gate.opened.set()
            assert first.result().choices[0].text == second.result().choices[0].text


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes(core: Path, gate: Gate, stream: bool) -> None:
    body = {"prompt": "Rome is", "max_tokens": 200, "temperature": 0.0, "stream": stream}
    with serving(core, slots=1, queue=1) as server:
        url = f"{server.url}/v1/completions"
        for n in (1, 2):
            with pytest.raises(httpx.TimeoutException):
                # the first token is held, so no headers come
                httpx.post(url, json=body, timeout=httpx.Timeout(60, read=0.3))
            assert until(lambda n=n: gate.n_waiting >= n)
            assert until(lambda: server.pool.n_busy == 1)
            if n == 1:
                with pytest.raises(httpx.TimeoutException):  # and one that waits
                    httpx.post(url, json=body, timeout=httpx.Timeout(60, read=0.3))
                assert until(lambda: server.pool.n_waiting == 0)
            gate.opened.set()
            assert until(lambda: server.pool.n_busy == 0)
            gate.opened.clear()
        gate.opened.set()
        assert until(lambda: metric(server, "vocabtailor_cancelled_total") == 2)
        assert metric(server, "vocabtailor_tokens_total") <= 4
        assert httpx.post(url, json={**body, "stream": False}).status_code == 200


def test_a_stream_that_is_left(core: Path) -> None:
    with serving(core, slots=1, n_ctx=4096) as server, server.client() as client:
        stream = client.completions.create(
            model="tiny", prompt="Rome", max_tokens=4000, temperature=0, stream=True
        )
        next(iter(stream))
        stream.close()
        assert until(lambda: server.pool.n_busy == 0)
        assert metric(server, "vocabtailor_cancelled_total") == 1
        assert metric(server, "vocabtailor_tokens_total") < 4000


def test_a_client_that_goes_before_its_work_begins(core: Path) -> None:
    """Its slot has the rows that it has, though no token has told of them."""
    begun = threading.Event()
    body = json.dumps({"prompt": "Rome is", "max_tokens": 2})
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with serving(core, slots=1) as server:
        (slot,) = server.pool.slots
        slot.thread.submit(begun.wait, 60)
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.sendall((head + body).encode())
            assert until(lambda: slot.thread._work_queue.qsize() == 1)
        assert until(
            lambda: metric(server, 'vocabtailor_requests_total{path="/v1/completions"') == 1
        )
        begun.set()
        assert until(lambda: metric(server, "vocabtailor_cancelled_total") == 1)
        assert metric(server, "vocabtailor_head_rows") == slot.llm.active_ids.size > 0


def test_bytes_that_are_no_text_have_an_end(core: Path) -> None:
    """Upstream goes on as long as they may become a character, and ever slower in a stream."""
    with serving(core, slots=1, n_ctx=1024) as server, server.client() as client:
        llm = server.pool.slots[0].llm
        byte = next(t for t in range(llm.n_vocab()) if llm.detokenize([t]) == b"\xff")
        ask: dict[str, Any] = {
            "model": "tiny", "prompt": "Rome", "temperature": 0, "logit_bias": {str(byte): 100},
        }  # fmt: skip
        chunks = list(client.completions.create(**ask, max_tokens=1000, stream=True))
        assert {chunk.choices[0].text for chunk in chunks} == {""}
        assert chunks[-1].choices[0].finish_reason == "length"
        assert metric(server, "vocabtailor_tokens_total") < 100
        for max_tokens, n in ((20, 84), (1020, None)):
            whole = client.completions.create(**ask, max_tokens=max_tokens)
            assert whole.choices[0].finish_reason == "length"
            assert whole.usage is not None
            assert whole.usage.completion_tokens == n or whole.usage.total_tokens == 1024


def test_metrics(server: Running, client: openai.OpenAI) -> None:
    names = ("tokens_total", "prompt_tokens_total", "drafted_total", "misses_total")
    before = [metric(server, f"vocabtailor_{name}") for name in names]
    found: Any = client.completions.create(
        model="tiny", prompt="Rome wasn't built", max_tokens=12, temperature=0, logit_bias={"1": -9}
    )
    told, usage = found.vocabtailor, found.usage
    added = [usage.completion_tokens, usage.prompt_tokens, told["drafted"], told["misses"]]
    after = [metric(server, f"vocabtailor_{name}") for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == added
    for name in ("rejected_total", "time_to_first_token_seconds_count", "tokens_per_second_count",
                 "head_rows", "memory_bytes", "queue_length", "requests_total"):  # fmt: skip
        assert metric(server, f"vocabtailor_{name}") >= 0
    text = httpx.get(f"{server.url}/metrics").text
    assert 'vocabtailor_requests_total{path="/v1/completions",status="200"}' in text


def test_names_with_slashes(core: Path) -> None:
    with serving(core, slots=1, settings={"models": {"org/tiny": Preset()}}) as server:
        client = server.client()
        assert client.models.retrieve("org/tiny").id == "org/tiny"
        assert httpx.get(f"{server.url}/v1/models/org").status_code == 404
        client.close()


def start(core: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """The command, and where it listens."""
    command = [sys.executable, "-m", "vocabtailor_gguf", "serve", "-m", str(core), "--port", "0"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "http://" in line:
            return process, line.split()[-1]
    raise AssertionError(f"it ended with {process.wait()}")


def test_sigterm_drains(core: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.tokens.json"
    TokenSet(range(300, 320)).save(few)
    process, url = start(core, "-c", "4096", "-t", "1", "--slots", "2", "--alias", "other",
                         "--alias", f"few={few},full", "--alias", "own,tailored")  # fmt: skip
    with process:
        models = [m["vocabtailor"] for m in httpx.get(f"{url}/v1/models").json()["data"]]
        assert [m["mode"] for m in models] == ["exact", "exact", "full", "tailored"]
        assert [m["token_set"] for m in models] == ["default", "default", "few", "default"]
        body = {"prompt": "Rome", "max_tokens": 1500, "temperature": 0, "stream": True,
                "model": "other"}  # fmt: skip
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=120) as answer:
            lines = answer.iter_lines()
            next(lines)
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(60) == 0


def test_a_slot_that_does_not_end_is_left(core: Path, gate: Gate) -> None:
    with serving(core, slots=1) as server, ThreadPoolExecutor(1) as threads:
        url = f"{server.url}/v1/completions"
        asked = threads.submit(httpx.post, url, json={"prompt": "Rome", "max_tokens": 2})
        assert until(lambda: gate.n_waiting == 1)
        assert not server.pool.close(0.1)
        gate.opened.set()
        assert asked.result().status_code == 200


def test_tokenizing_lets_others_ask(core: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(core, slots=1) as server, ThreadPoolExecutor(1) as threads:
        begun, ended = threading.Event(), threading.Event()
        llm = server.pool.slots[0].llm
        detokenize = llm.detokenize

        def waits(*args: Any, **options: Any) -> Any:
            begun.set()
            ended.wait(20)
            return detokenize(*args, **options)

        monkeypatch.setattr(llm, "detokenize", waits)
        body = {"content": "Rome is", "with_pieces": True}
        asked = threads.submit(httpx.post, f"{server.url}/v1/tokenize", json=body, timeout=60)
        try:
            assert begun.wait(20)
            assert httpx.get(f"{server.url}/health").status_code == 200
        finally:
            ended.set()
        assert "".join(t["piece"] for t in asked.result().json()["tokens"]) == "Rome is"


def test_options_are_checked(core: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "vocabtailor_gguf", "serve", "-m", str(core)]
    for options, code in (
        (["--port", "70000"], 2),
        (["--slots", "0"], 2),
        (["--audit", "2"], 2),
        (["--token-set", "missing.json"], 1),
        (["--alias", "=x"], 1),
        (["--alias", "a,b"], 1),
        (["--alias", "a", "--alias", "a,full"], 1),
        (["--alias", core.name.removesuffix(".core.gguf")], 1),
    ):
        assert subprocess.run([*command, *options], timeout=120).returncode == code
        said = capfd.readouterr().err
        assert "error" in said
        assert "Traceback" not in said
