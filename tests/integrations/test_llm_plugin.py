"""The plugin of the command llm, through that command."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from recipes import recipe

pytest.importorskip("llm")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs llm as a user does, with a folder of its own."""
    from click.testing import CliRunner
    from llm.cli import cli

    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))

    def llm(*arguments: str, input: str = "") -> str:
        done = CliRunner().invoke(cli, arguments, input=input, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return llm


def test_prompts_chats_and_schemas(
    run: Callable[..., str], tiny: Callable[..., Path], tiny_split: Callable[..., Any]
) -> None:
    core = tiny_split("qwen2").core
    (entry,) = importlib.metadata.entry_points(group="llm", name="llm-vocabtailor")
    assert entry.dist is not None
    plugins = json.loads(run("plugins"))
    assert entry.dist.name in [plugin["name"] for plugin in plugins]
    run("vocabtailor", "add", "tiny", str(core), "--ctx-size", "256")
    assert "SplitModel: tiny" in run("models")
    stock = llama_cpp.Llama(str(tiny("qwen2")), n_ctx=256, verbose=False)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    chunks = stock.create_chat_completion(chat, temperature=0, max_tokens=16, stream=True)
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    stock.close()
    options = shlex.split("-o temperature 0 -o max_tokens 16")
    told = run("prompt", "Where?", "-m", "tiny", "-s", "Be brief.", *options)
    assert told.strip() == text.strip()
    schema = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"]}
    found = run("prompt", "Where?", "-m", "tiny", "--schema", json.dumps(schema), *options)
    assert json.loads(found) == {"a": "b"}
    run("chat", "-m", "tiny", *options, input="One\nTwo\nquit\n")
    logs = json.loads(run("logs", "list", "-n", "0", "--json"))
    assert [entry["prompt"] for entry in logs] == ["Where?", "Where?", "One", "Two"]
    run("vocabtailor", "remove", "tiny")
    assert "tiny" not in run("models")


@pytest.mark.parametrize("content", ["{", "[1]", '{"tiny": 1}'])
def test_a_broken_file_of_models_hides_no_others(
    run: Callable[..., str], tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    from click.testing import CliRunner
    from llm.cli import cli

    path = tmp_path / "vocabtailor.json"
    path.write_text(content, encoding="utf-8")
    assert "OpenAI" in run("models")
    assert "vocabtailor.json: " in caplog.text
    done = CliRunner().invoke(cli, ["vocabtailor", "remove", "tiny"])
    assert done.exit_code == 1 and "vocabtailor.json: " in done.output
    assert path.read_text(encoding="utf-8") == content


def test_the_documented_commands(
    run: Callable[..., str], tiny_split: Callable[..., Any], tmp_path: Path
) -> None:
    core = str(tiny_split("qwen2").core)
    text = recipe("", "sh").replace("gemma-3-270m-it.core.gguf", core)
    for line in text.splitlines():
        command, *arguments = shlex.split(line)
        assert command == "llm"
        if "-m" in arguments:  # the tiny model seldom comes to an end
            arguments += ["-o", "max_tokens", "200"]
        run(*arguments, input="quit\n")
