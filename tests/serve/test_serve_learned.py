"""What slots learn: from request to request, from slot to slot, from start to start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import pytest
from servers import PROMPTS, Running, post, serving, until

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.sets.kept import learned_file

FEW = TokenSet(range(300, 320))


def told(server: Running, mode: str, prompt: str = PROMPTS[0], **more: Any) -> tuple[str, Any]:
    body = {"prompt": prompt, "max_tokens": 48, "temperature": 0, **more}
    (out,) = post(server, "completions", mode=mode, **body)
    return out["choices"][0]["text"], out["vocabtailor"]


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    return tmp_path / "learned" / "m.tokens.json"


def test_the_next_start_knows_it(core: Path, learned: Path, stock: llama_cpp.Llama) -> None:
    """Texts are stock's; a tailored request has the same text and rows, whatever was learned."""
    want = [
        stock.create_completion(p, max_tokens=48, temperature=0.0)["choices"][0]["text"]
        for p in PROMPTS
    ]
    with serving(core, slots=1, token_set=FEW, learn=False, learned=learned) as server:
        tailored = told(server, "tailored")
        text, first = told(server, "exact")
        assert text == want[0] and first["rejected"] > 2
        text, again = told(server, "exact")
        assert text == want[0] and again["rejected"] > 2
    assert not learned.exists()
    with serving(core, slots=1, token_set=FEW, learned=learned) as server:
        assert told(server, "exact")[0] == want[0]
    assert len(TokenSet.load(learned)) > 2
    with serving(core, slots=2, token_set=FEW, learned=learned) as server:
        for _ in range(2):
            for i, prompt in enumerate(PROMPTS):
                text, found = told(server, "exact", prompt)
                assert text == want[i]
                assert i or found["rejected"] == 0
            text, found = told(server, "tailored")
            assert (text, found["head_rows"]) == (tailored[0], tailored[1]["head_rows"])
            assert told(server, "full")[0] == want[0]
        for slot in server.pool.slots:
            assert slot.llm.token_set is FEW
    counts = TokenSet.load(learned).provenance["learned"]
    assert sum(counts.values()) > len(counts)  # what was needed again counts again


def test_slots_learn_from_each_other(core: Path) -> None:
    with serving(core, slots=2, token_set=FEW) as server:
        first, second = (told(server, "exact", prompt)[1]["slot"] for prompt in PROMPTS)
        assert first != second
        own, others = (set(server.pool.slots[n].llm.needed_tokens()) for n in (first, second))
        assert own - others
        assert own <= set(server.pool.slots[second].llm.active_ids)


def test_some_are_forgotten(
    core: Path, stock: llama_cpp.Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocabtailor_gguf.sets.kept._MOST", 4)
    with serving(core, slots=1, token_set=FEW) as server:
        for prompt in (*PROMPTS, *PROMPTS):
            want = stock.create_completion(prompt, max_tokens=48, temperature=0.0)
            assert told(server, "exact", prompt)[0] == want["choices"][0]["text"]
        (slot,) = server.pool.slots
        tokens = [slot.llm.active_ids.size for _ in range(1) if slot.catch_up() is None]
        slot.llm.set_token_set(FEW)
        assert tokens[0] <= slot.llm.active_ids.size + 4


def test_it_is_kept_now_and_then(core: Path, learned: Path) -> None:
    with serving(
        core, slots=1, token_set=FEW, learned=learned, settings={"save_every": 0.05}
    ) as server:
        told(server, "exact")
        assert until(learned.exists)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("more", [(), ("--no-learn",)], ids=["", "no-learn"])
def test_a_signal(
    core: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, more: tuple[str, ...]
) -> None:
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path))
    few = tmp_path / "few.tokens.json"
    FEW.save(few)
    script = Path(sys.executable).with_name("vocabtailor")
    command = [script, "serve", "-m", core, "--port", "0", "-c", "256", "-t", "1"]
    process = subprocess.Popen(
        [*map(str, command), "--token-set", str(few), *more], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.rsplit(" ", 1)[1].strip()
        body = {"prompt": PROMPTS[0], "max_tokens": 48, "temperature": 0}
        assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200
        process.send_signal(number)
        assert process.wait(60) in (0, 130)
    finally:
        process.kill()
        process.wait(60)
        assert process.stderr is not None
        process.stderr.close()
    assert learned_file(core).exists() == (not more)
