"""Models of a hub: which file is meant, and the commands against a hub of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakehub import REVISION, fake_hub

from vocabtailor_gguf.errors import BadFileError, UnsupportedError
from vocabtailor_gguf.hub import choose, fetch

_NAMES = ["README.md", "m-Q4_K_M.gguf", "m.Q8_0.gguf", "m-Q4_0.gguf", "mmproj-Q8_0.gguf"]


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (_NAMES, None, "m-Q4_K_M.gguf"),
        (_NAMES, "Q8_0", "m.Q8_0.gguf"),
        (_NAMES, "q4_0", "m-Q4_0.gguf"),
        (_NAMES, "mmproj-Q8_0.gguf", "mmproj-Q8_0.gguf"),
        (["a.gguf", "config.json"], None, "a.gguf"),
        (["q8_0/m.gguf", "q4_k_m.gguf"], None, "q4_k_m.gguf"),
        (["a.core.gguf", "a.vocab.gguf"], None, "a.core.gguf"),
        (["a-q4_k_m.core.gguf", "a-q4_k_m.vocab.gguf", "b.gguf"], None, "a-q4_k_m.core.gguf"),
        (["m-00001-of-00002.gguf", "m.gguf"], None, "m.gguf"),
    ],
)
def test_chosen(names: list[str], wanted: str | None, chosen: str) -> None:
    assert choose(names, wanted, "me/m") == chosen


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["README.md"], None, "me/m: found no GGUF model"),
        (["a.gguf", "b.gguf"], None, "found a.gguf, b.gguf, expected one"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], None, "found a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
        (_NAMES, "Q5_0", "Q5_0: found m-Q4_K_M.gguf"),
        (_NAMES, "0", "0: found"),
        (["m-00001-of-00002.gguf"], None, "no GGUF model"),
    ],
)
def test_not_chosen(names: list[str], wanted: str | None, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        choose(names, wanted, "me/m")


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnsupportedError, match=r"vocabtailor_gguf\[hf\]"):
        fetch("me/m")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command with caches of its own."""
    pytest.importorskip("huggingface_hub")
    script = Path(sys.executable).with_name("vocabtailor")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {
        "HF_HOME": str(tmp_path / "hf"), "VOCABTAILOR_CACHE": str(tmp_path / "split"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip

    def run(hub: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        asked = [script, *map(str, arguments), "-c", "64", "-t", "1", "--temp", "0", "-n", "4"]
        return subprocess.run(
            asked, env={**environment, "HF_ENDPOINT": hub}, capture_output=True, text=True,
            check=False, input="hello",
        )  # fmt: skip

    return run


def test_runs_models_of_a_hub(
    tiny: Callable[..., Path], tiny_split: Callable[[str], Any], command: Callable[..., Any]
) -> None:
    model, files = tiny("qwen2"), tiny_split("qwen2")
    repos = {
        "me/whole": {"t-Q4_K_M.gguf": model, "t-Q8_0.gguf": tiny("qwen2", seed=1)},
        "me/split": {"t.core.gguf": files.core, "t.vocab.gguf": files.vocab},
        "me/half": {"t.core.gguf": files.core},
        "me/text": {"README.md": Path(__file__)},
    }
    with fake_hub(repos) as (hub, asked):
        whole = command(hub, "run", "-hf", "me/whole")
        assert whole.returncode == 0, whole.stderr
        assert "cache clear" in whole.stderr
        assert f"GET /me/whole/resolve/{REVISION}/t-Q4_K_M.gguf" in asked
        assert not any("Q8_0" in a for a in asked)
        n = sum(a.startswith("GET /me") for a in asked)
        again = command(hub, "run", "-hf", "me/whole")
        assert (again.returncode, again.stdout) == (0, whole.stdout)
        assert "cache clear" not in again.stderr
        assert sum(a.startswith("GET /me") for a in asked) == n  # it lies in the cache
        split = command(hub, "run", "-hf", "me/split")
        assert (split.returncode, split.stdout) == (0, whole.stdout), split.stderr
        chat = command(hub, "chat", "-hf", "me/whole:q8_0")
        assert chat.returncode == 0, chat.stderr
        assert f"GET /me/whole/resolve/{REVISION}/t-Q8_0.gguf" in asked
        for repo, told in (
            ("me/half", "me/half: t.core.gguf: found no t.vocab.gguf beside it"),
            ("me/text", "me/text: found no GGUF model"),
            ("me/none", "me/none: cannot be fetched: "),
            ("me/whole:Q5_0", "me/whole: Q5_0: found t-Q4_K_M.gguf, t-Q8_0.gguf, expected one"),
            ("a b/c", "a b/c: cannot be fetched: "),
        ):
            done = command(hub, "run", "-hf", repo)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith(f"vocabtailor: error: {told}"), done.stderr
            assert done.stderr.count("\n") == 1
    # the hub has gone: what was fetched is there
    offline = command(hub, "run", "-hf", "me/whole:Q4_K_M")
    assert (offline.returncode, offline.stdout) == (0, whole.stdout), offline.stderr
    done = command(hub, "run", "-hf", "me/none")
    assert "the hub cannot be reached" in done.stderr


def test_options_that_exclude_each_other(command: Callable[..., Any]) -> None:
    assert command("", "run", "-hf", "me/m", "-m", "m.gguf").returncode == 2
    done = command("", "run", "-hf", "me/m", "--here")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--here" in done.stderr
