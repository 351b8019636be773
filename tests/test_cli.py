"""The command line, in this process, and once as a command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.cli import main

Split = Any


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as e:
        code = int(e.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "vocabtailor COMMAND" in err
    assert run(capsys, "none")[0] == 2
    assert run(capsys, "split")[0] == 2
    assert run(capsys, "run", "-m", "x")[0] == 2
    assert run(capsys, "run", "-m", "x", "-p", "a", "-t", "0")[0] == 2
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert "llama-cpp-python" in out
    for command in ("split", "merge", "inspect", "verify", "doctor", "run", "bench"):
        code, out, err = run(capsys, command, "--help")
        assert (code, err) == (0, "")
        assert f"vocabtailor {command}" in out


def test_split_inspect_verify_merge(
    capsys: pytest.CaptureFixture[str], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tmp_path / "m.gguf"
    shutil.copy(tiny("phi2"), model)
    code, out, err = run(capsys, "split", model)
    core, vocab = (Path(line) for line in out.splitlines())
    assert (code, core.name, vocab.name) == (0, "m.core.gguf", "m.vocab.gguf")
    assert "bit-identical" in err
    code, out, err = run(capsys, "split", model)
    assert (code, out) == (1, "")
    assert "--force" in err

    code, out, _ = run(capsys, "split", model, "--force", "--json")
    assert code == 0
    assert json.loads(out)["core"] == str(core)

    code, out, _ = run(capsys, "inspect", vocab)
    assert code == 0
    assert "vocabtailor.pair_id" in out
    assert "output.bias" in out
    code, out, _ = run(capsys, "inspect", core, "--json", "--tensors")
    assert json.loads(out)["keys"]["tokenizer.ggml.model"] == "no_vocab"

    code, out, _ = run(capsys, "verify", "-m", core, "--source", model)
    assert code == 0
    assert "output.bias" in out
    assert "bit-identical" in out

    merged = tmp_path / "merged.gguf"
    code, out, err = run(capsys, "merge", "-m", core, "-o", merged)
    assert (code, out.strip()) == (0, str(merged))
    assert "identical with the source" in err
    assert merged.read_bytes() == model.read_bytes()


def test_verify_finds_a_flipped_bit(
    capsys: pytest.CaptureFixture[str], tiny_split: Callable[[str], Split], tmp_path: Path
) -> None:
    files = tiny_split("llama")
    core = Path(shutil.copy(files.core, tmp_path / "m.core.gguf"))
    data = bytearray(files.vocab.read_bytes())
    data[-1000] ^= 1
    (tmp_path / "m.vocab.gguf").write_bytes(data)
    code, out, err = run(capsys, "verify", "-m", core)
    assert (code, out) == (1, "")
    assert "sha256" in err and "output.weight" in err


def test_requantise(
    capsys: pytest.CaptureFixture[str], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = ["split", tiny("llama"), "-o", tmp_path, "--output-tensor-type"]
    code, out, err = run(capsys, *asked, "q4_0")
    assert code == 0
    assert "merged model" in err
    code, out, _ = run(capsys, "inspect", out.splitlines()[1])
    assert "Q4_0" in out
    code, _, err = run(capsys, *asked, "q4_k", "--force")
    assert code == 1
    assert "blocks have 256" in err
    code, _, err = run(capsys, *asked, "q99", "--force")
    assert code == 1
    assert "unknown tensor type" in err


def test_run_streams_text_and_tells_json(
    capsys: pytest.CaptureFixture[str], tiny_split: Callable[[str], Split], tmp_path: Path
) -> None:
    core = tiny_split("llama").core
    token_set = tmp_path / "s.tokens.json"
    TokenSet(range(300, 420)).save(token_set)
    common = ["run", "-m", core, "-n", 12, "-c", 128, "-t", 2, "--temp", 0]
    asked = [*common, "--mode", "tailored", "--token-set", token_set]
    code, text, err = run(capsys, *asked, "-p", "hello")
    assert code == 0
    assert "tailored mode" in err
    assert "tokens/s" in err
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("hello", encoding="utf-8")
    code, out, _ = run(capsys, *asked, "-f", prompt, "--json")
    found = json.loads(out)
    assert found["text"] == text.removesuffix("\n")
    assert len(found["ids"]) == 12
    assert found["stats"]["head_rows"] < 517
    assert found["memory"]["head"] > 0
    code, out, err = run(capsys, *common, "-p", "hello", "--mode", "full", "--json")
    assert json.loads(out)["stats"]["head_rows"] == 517
    assert "tailored mode" not in err
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "1" [0-9] [0-9]', encoding="utf-8")
    code, out, _ = run(capsys, *common, "-p", "hello", "--grammar-file", grammar)
    assert code == 0
    assert out.strip().isdigit() and len(out.strip()) == 3
    code, out, _ = run(capsys, *common, "-p", "hello", "-j", '{"type": "boolean"}')
    assert out.strip() in ("true", "false")
    assert run(capsys, *common, "-p", "", "--json")[0] == 0


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_prompts_from_files(
    capsys: pytest.CaptureFixture[str], tiny_split: Callable[[str], Split], tmp_path: Path
) -> None:
    core = str(tiny_split("llama").core)
    code, out, err = run(capsys, "run", "-m", core, "-f", "/dev/zero")
    assert (code, out) == (1, "")
    assert err == "vocabtailor: error: /dev/zero: larger than 64 MiB\n"
    # a pipe is read to its end; a byte order mark and the line ends of Windows are no text
    plain = ["run", "-m", core, "-n", "4", "--temp", "0", "--json"]
    expected = json.loads(run(capsys, *plain, "-p", "hello\nyou")[1])
    read, write = os.pipe()
    os.write(write, b"\xef\xbb\xbfhello\r\nyou")
    os.close(write)
    found = json.loads(run(capsys, *plain, "-f", f"/dev/fd/{read}")[1])
    os.close(read)
    assert (found["ids"], found["prompt_tokens"]) == (expected["ids"], expected["prompt_tokens"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "none.core.gguf", "-p", "a"], "none"),
        (["-m", "CORE", "-p", "a", "--token-set", "none.json"], "none.json"),
        (["-m", "CORE", "-p", "a", "--temp", "-1"], "--temp"),
        (["-m", "CORE", "-p", "a", "--top-p", "2"], "--top-p"),
        (["-m", "CORE", "-p", "a", "-c", "-5"], "-c"),
        (["-m", "CORE", "-f", "none.txt"], "none.txt"),
        (["-m", "CORE", "-p", "a " * 500, "-c", "64"], "raise -c"),
        (["-m", "CORE", "-p", "a", "-j", "{"], "grammar"),
        (["-m", "CORE", "--vocab", "CORE", "-p", "a"], "store"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else v,
)
def test_run_refuses(
    capsys: pytest.CaptureFixture[str],
    tiny_split: Callable[[str], Split],
    arguments: list[str],
    message: str,
) -> None:
    core = str(tiny_split("llama").core)
    code, out, err = run(capsys, "run", *(core if a == "CORE" else a for a in arguments))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("vocabtailor: error: ")
    assert message in err


def test_as_a_command(tiny_split: Callable[[str], Split]) -> None:
    command = [sys.executable, "-m", "vocabtailor_gguf", "inspect", str(tiny_split("llama").core)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "core" in done.stdout
    script = Path(sys.executable).with_name("vocabtailor")
    piped = f"'{script}' inspect --keys '{tiny_split('llama').vocab}' | head -n 1"
    done = subprocess.run(["sh", "-c", piped], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
