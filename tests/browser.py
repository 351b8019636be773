"""A headless Chromium that is spoken to through a pipe, in its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One page."""

    def __init__(self, read: int, write: int, url: str) -> None:
        self._from = os.fdopen(read, "rb")
        self._to = os.fdopen(write, "wb")
        self._n = 0
        self._rest = b""
        self._session: str | None = None
        target = self._ask("Target.createTarget", url=url)["targetId"]
        found = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        there = f'location.href.startsWith("{url}") && document.readyState === "complete"'
        assert self.waits_for(there)

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events are passed over."""
        self._n += 1
        message: dict[str, Any] = {"id": self._n, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = json.loads(self._next())
            if answer.get("id") == self._n:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> bytes:
        while b"\0" not in self._rest:
            part = self._from.read1()
            assert part, "the browser has ended"
            self._rest += part
        found, _, self._rest = self._rest.partition(b"\0")
        return found

    def run(self, script: str) -> Any:
        """The value of an expression, of a promise what it becomes."""
        out = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in out, out
        return out["result"].get("value")

    def waits_for(self, script: str) -> bool:
        """Whether an expression becomes true."""
        return until(lambda: bool(self.run(script)))

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._from.close()
        self._to.close()


@contextlib.contextmanager
def browsing(url: str, folder: Path) -> Iterator[Page]:
    """A browser that shows a page, until the block ends."""
    assert CHROMIUM is not None
    commands, write = os.pipe()
    read, answers = os.pipe()
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=900,900",
        f"--user-data-dir={folder}", "--remote-debugging-pipe",
    ]  # fmt: skip
    # it reads from descriptor 3 and writes to 4
    script = f'exec "$@" 3<&{commands} 4>&{answers}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", CHROMIUM, *options],
        pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands)
    os.close(answers)
    try:
        page = Page(read, write, url)
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(60)
