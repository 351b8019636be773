"""The server's page, in a browser."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from browser import CHROMIUM, browsing
from servers import Gate, Running, serving, until

from vocabtailor_gguf.serve.preset import Preset

SEND = """
document.getElementById("text").value = {text};
document.getElementById("form").requestSubmit();
"""
LAST = 'document.querySelector(".turn:last-child")'


def test_the_page_is_one_file_that_asks_this_server_only(server: Running) -> None:
    page = httpx.get(server.url)
    assert page.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_chat_in_a_browser(core: Path, gate: Gate, tmp_path: Path) -> None:
    gate.opened.set()
    settings = {"models": {"tiny": Preset(), "all": Preset(mode="full")}}
    with (
        serving(core, n_ctx=1024, settings=settings) as server,
        browsing(server.url, tmp_path) as page,
    ):
        about = 'document.getElementById("about").textContent'
        expected = "exact \u00b7 448 tokens \u00b7 context 1024 \u00b7 2 slots"
        assert page.waits_for(f"{about} === {json.dumps(expected)}")
        page.run('document.getElementById("limit").value = 12')
        page.run('document.getElementById("temp").value = 0')
        for text in ("Where is Rome?", "And <b>Oslo</b>?"):
            page.run(SEND.format(text=json.dumps(text)))
            assert page.waits_for(f'{LAST}.textContent.includes("head rows")')
            told = page.run(f'{LAST}.querySelector(".told").textContent')
            for part in (" tokens \u00b7 ", "tokens/s", "first after", "drafted", "rejected"):
                assert part in told
            assert page.run('document.getElementById("send").textContent') == "Send"
        shown = 'Array.from(document.querySelectorAll(".user"), t => t.textContent)'
        assert page.run(shown) == ["Where is Rome?", "And <b>Oslo</b>?"]
        assert page.picture().startswith(b"\x89PNG")

        page.run('const chosen = document.getElementById("model"); chosen.value = "all";'
                 'chosen.dispatchEvent(new Event("change"))')  # fmt: skip
        assert page.run(about).startswith("full")
        page.run(SEND.format(text='"x".repeat(9000)'))
        assert page.waits_for(f'{LAST}.classList.contains("error")')
        assert "context" in page.run(f"{LAST}.textContent")

        gate.opened.clear()
        page.run(SEND.format(text='"Go on"'))
        assert until(lambda: server.pool.n_busy == 1)
        assert page.run('document.getElementById("send").textContent') == "Stop"
        page.run('document.getElementById("form").requestSubmit()')
        assert page.waits_for(f'{LAST}.textContent.includes("stopped")')
        gate.opened.set()
        assert until(lambda: server.pool.n_busy == 0)
        page.run('document.getElementById("clear").click()')
        assert page.run('document.querySelectorAll(".turn").length') == 0
