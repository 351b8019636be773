"""Which slot a request gets, and what that generates with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from servers import PROMPTS, Running, post, serving

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.serve.preset import Preset


def test_a_prompt_goes_to_the_slot_that_has_it(server: Running, client: openai.OpenAI) -> None:
    def slot(prompt: str) -> int:
        found: Any = client.completions.create(model="tiny", prompt=prompt, max_tokens=2)
        return int(found.vocabtailor["slot"])

    first, second = slot(PROMPTS[0]), slot(PROMPTS[1])
    assert first != second
    for _ in range(2):
        assert slot(f"{PROMPTS[0]} not") == first
        assert slot(f"{PROMPTS[1]} not") == second


def test_presets(core: Path) -> None:
    """A name stands for a set and a mode; the field vocabtailor takes others, for this once."""
    full, few = Preset(mode="full"), TokenSet(range(300, 320))
    settings = {
        "models": {"tiny": Preset(mode="tailored"), "few": Preset("few", "tailored"), "full": full},
        "sets": frozenset({"default", "few"}),
    }
    with (
        serving(
            core, slots=1, preset=Preset(mode="tailored"), token_set=TokenSet(range(256, 448)),
            sets={"few": few}, settings=settings,
        ) as server,
        server.client() as client,
    ):  # fmt: skip

        def told(model: str, **extra: Any) -> dict[str, Any]:
            found: Any = client.completions.create(
                model=model,
                prompt="Rome",
                max_tokens=6,
                temperature=0,
                extra_body={"vocabtailor": extra},
            )
            out: dict[str, Any] = found.vocabtailor
            return out

        def rows(model: str, **extra: Any) -> int:
            return int(told(model, **extra)["head_rows"])

        assert rows("few") < rows("tiny")
        assert rows("tiny", token_set="few") == rows("few", mode="tailored", audit=0)
        assert rows("full") == rows("few", mode="full") == 448
        assert told("few", mode="exact")["drafted"] > 0
        assert told("full", mode="tailored")["token_set"] == "default"
        audited = told("few", audit=1.0)
        assert audited["audited"] >= 6 >= audited["outside"]
        assert "audited" not in told("few")
        wrong: tuple[dict[str, Any], ...] = (
            {"mode": "none"}, {"mode": "exact", "audit": 0.5}, {"audit": 2}, {"token_set": "none"},
            {"unknown": 1},
        )  # fmt: skip
        for extra in wrong:
            with pytest.raises(openai.BadRequestError):
                rows("tiny", **extra)
        models: Any = client.models.list()
        assert [m.vocabtailor["mode"] for m in models] == ["tailored", "tailored", "full"]


def test_exact_mode_learns(core: Path) -> None:
    """Later requests draft with what earlier ones lacked; other modes see nothing of it."""
    few = TokenSet(range(300, 320))

    def told(server: Running, mode: str) -> tuple[str, int]:
        out = post(
            server, "completions", mode=mode, prompt=PROMPTS[0], max_tokens=48, temperature=0
        )[0]
        return out["choices"][0]["text"], out["vocabtailor"]["rejected"]

    with serving(core, slots=1, token_set=few, learn=False) as server:
        text, rejected = told(server, "exact")
        tailored = told(server, "tailored")
        again = told(server, "exact")
        assert again[0] == text and min(rejected, again[1]) > 2
    with serving(core, slots=1, token_set=few) as server:
        assert told(server, "tailored") == tailored
        again = told(server, "exact")
        assert again[0] == text and again[1] > 2
        assert told(server, "exact") == (text, 0)
        assert told(server, "tailored") == tailored
        assert told(server, "exact")[0] == text
        assert told(server, "exact") == (text, 0)
