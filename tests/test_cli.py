"""The command line, in this process, and once as a command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabtailor_gguf import TokenSet
from vocabtailor_gguf.cli import _screen, main
from vocabtailor_gguf.errors import BadFileError

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


SCRIPT = Path(sys.executable).with_name("vocabtailor")


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Return what a real command printed, as bytes."""
    given = [os.fsencode(a) if isinstance(a, Path | str) else a for a in arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([SCRIPT, *given], check=False, timeout=120, **options)


GREEDY = ("-c", "64", "-t", "1", "-n", "4", "--temp", "0")


@pytest.mark.skipif(sys.platform == "win32", reason="names are not bytes there")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_prints_utf8_whatever_the_console_says(
    encoding: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    model = shutil.copy(tiny("llama-tied"), tmp_path / "\u6771\u4eac m.gguf")
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = command("split", model, env=env)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    core, _ = done.stdout.decode("utf-8").splitlines()
    assert Path(core).name == "\u6771\u4eac m.core.gguf"
    done = command("run", "-m", core, *GREEDY, "--json", "-p", "\u00e9 \u65e5\u672c", env=env)
    assert done.returncode == 0
    assert json.loads(done.stdout.decode("utf-8"))["prompt_tokens"] > 1
    done = command("inspect", tmp_path / "\u65e5.gguf", env=env)
    assert done.stderr.decode("utf-8").endswith("\u65e5.gguf: cannot be opened: no such file\n")


@pytest.mark.skipif(sys.platform != "linux", reason="file systems there want UTF-8")
def test_names_and_texts_that_are_not_utf8(
    tiny_split: Callable[[str], Split], tmp_path: Path
) -> None:
    files = tiny_split("llama")
    core = os.path.join(os.fsencode(tmp_path), b"caf\xe9.core.gguf")
    shutil.copy(files.core, core)
    shutil.copy(files.vocab, core.replace(b".core.", b".vocab."))
    done = command("inspect", core)
    assert done.returncode == 0
    assert done.stdout.startswith(core + b": core, ")
    done = command("inspect", core, "--json")
    assert os.fsencode(json.loads(done.stdout)["path"]) == core
    done = command("merge", "-m", core, "-o", tmp_path / "merged.gguf")
    assert done.returncode == 0
    for arguments, text in (
        (
            ("run", "-m", core, "-p", "a"),
            b"a name that is not UTF-8, which llama-cpp-python cannot",
        ),
        (("split", core), b"a name that is not UTF-8"),
        (
            ("run", "-m", files.core, "-p", b"caf\xe9"),
            b"the prompt: byte 0xe9 at 3, expected",
        ),
        (("run", "-m", files.core, "-p", "a", "-j", b"\xe9"), b"--json-schema: byte 0xe9 at 0"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"vocabtailor: error: ") and done.stderr.count(b"\n") == 1
        assert text in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["inspect", "CORE"],
        ["inspect", "CORE", "--json"],
        ["run", "-m", "CORE", *GREEDY, "-p", "a"],
        ["run", "-m", "CORE", *GREEDY, "-p", "a", "--json"],
    ],
    ids=" ".join,
)
def test_full_disk(arguments: list[str], tiny_split: Callable[[str], Split]) -> None:
    core = tiny_split("llama").core
    with open("/dev/full", "wb") as full:
        done = command(*(core if a == "CORE" else a for a in arguments), stdout=full)
    assert done.returncode == 1
    last = b"vocabtailor: error: standard output: No space left on device\n"
    assert done.stderr.endswith(last)
    assert b"Traceback" not in done.stderr


def test_a_prompt_on_standard_input(tiny_split: Callable[[str], Split], tmp_path: Path) -> None:
    asked = ("run", "-m", tiny_split("llama").core, *GREEDY, "--json")
    expected = command(*asked, "-p", "the caf\u00e9\n")
    assert expected.returncode == 0
    path = tmp_path / "p.txt"
    for prompt in ("the caf\u00e9\n", "\ufeffthe caf\u00e9\r\n"):
        path.write_bytes(prompt.encode())
        for file, given in (("-", prompt.encode()), (path, b""), ("/dev/stdin", prompt.encode())):
            done = command(*asked, "-f", file, input=given)
            found, text = json.loads(done.stdout), json.loads(expected.stdout)
            assert (found["text"], found["ids"]) == (text["text"], text["ids"])
    for given, words in (
        ("the".encode("utf-16"), b"not UTF-8, but a text in UTF-16"),
        (b"caf\xe9", b"not UTF-8: unexpected end of data at byte 3"),
        (b"\x1f\x8b\x08", b"not UTF-8, but a gzip archive"),
    ):
        path.write_bytes(given)
        for file in ("-", path):
            done = command(*asked, "-f", file, input=given)
            assert (done.returncode, done.stdout) == (1, b"")
            name = "standard input" if file == "-" else file
            told = f"vocabtailor: error: {name}: cannot be read: ".encode()
            assert done.stderr == told + words + b"\n"


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes by number")
def test_a_closed_pipe_ends_quietly(tiny_split: Callable[[str], Split]) -> None:
    for arguments in (
        ("run", "-m", tiny_split("llama").core, *GREEDY, "-p", "a", "--json"),
        ("inspect", tiny_split("llama").vocab, "--keys"),
        ("--help",),
    ):
        read, write = os.pipe()
        os.close(read)
        done = command(*arguments, stdout=write)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="has no descriptors by number")
def test_streams_that_are_closed(
    tiny: Callable[[str], Path], tiny_split: Callable[[str], Split], tmp_path: Path
) -> None:
    def closing(fds: str, *arguments: object) -> int:
        closed = " ".join(f"{fd}>&-" for fd in fds)
        shell = ["sh", "-c", f'"$@" {closed}', "sh", SCRIPT, *map(str, arguments)]
        return subprocess.run(shell, check=False, timeout=120).returncode

    model = shutil.copy(tiny("llama-tied"), tmp_path / "m.gguf")
    assert closing("012", "split", model) == 0
    # nothing that llama.cpp prints has gone into a file
    assert closing("012", "verify", "-m", tmp_path / "m.core.gguf", "--source", model) == 0
    assert closing("012", "inspect", tmp_path / "none") == 1
    vocab = tmp_path / "m.vocab.gguf"
    asked = ["profile", "-m", vocab, "--data", "-", "-o", tmp_path / "s.json"]
    assert closing("0", *asked) == 1


def wrong_files(folder: Path) -> dict[str, str]:
    """Return files that are no split model, and what a command says of each."""
    contents = {
        "empty": (b"", "0 bytes"),
        "page": (b"<!DOCTYPE html>\n<html></html>", "an HTML page"),
        "m.safetensors": (b"\x02" + bytes(7) + b"{}" + bytes(9), "a safetensors file"),
        "m.bin": (b"PK\3\4" + bytes(99), "a ZIP archive, perhaps a PyTorch checkpoint"),
        "text": (b"Entry not found", 'a text that begins with "Entry not found"'),
        "zeros": (bytes(99), "zeros"),
    }
    found = {"folder": "a folder", "none": "no such file"}
    (folder / "folder").mkdir()
    for name, (content, words) in contents.items():
        (folder / name).write_bytes(content)
        found[name] = words
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["run", "-p", "a", "-m"],
        ["run", "-p", "a", "-m", "CORE", "--vocab"],
        ["split"],
        ["inspect"],
        ["verify", "-m"],
        ["verify", "-m", "CORE", "--vocab"],
        ["verify", "-m", "CORE", "--source"],
        ["merge", "-o", "out", "-m"],
        ["bench", "-m", "CORE", "-r", "1", "-n", "1", "-p", "0", "--baseline"],
        ["bench", "--baseline", "CORE", "-m"],
        ["profile", "-o", "out", "--language", "it", "-m"],
    ],
    ids=" ".join,
)
def test_wrong_files(
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    tiny_split: Callable[[str], Split],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    core = str(tiny_split("llama").core)
    for name, words in wrong_files(tmp_path).items():
        code, out, err = run(capsys, *(core if a == "CORE" else a for a in command), name)
        assert (code, out) == (1, ""), err
        assert err.splitlines()[-1].startswith(f"vocabtailor: error: {name}: "), err
        assert words in err.splitlines()[-1]


def test_debug_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadFileError, match="none: cannot be opened"):
        run(capsys, "--debug", "inspect", "none")

    def fault(*_: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("vocabtailor_gguf.cli.inspect.run", fault)
    code, out, err = run(capsys, "inspect", "none")
    assert (code, out) == (1, "")
    told = "ZeroDivisionError: by zero (vocabtailor --debug COMMAND tells where)"
    assert err == f"vocabtailor: error: {told}\n"
    with pytest.raises(ZeroDivisionError):
        run(capsys, "--debug", "inspect", "none")


def test_what_an_interrupt_breaks_off_is_learned_from(
    tiny_split: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = tmp_path / "l.tokens.json"
    asked = ["run", "-m", str(tiny_split("qwen2").core), "-c", "256", "-t", "1", "--temp", "1.5"]
    asked += ["--seed", "5", "-p", "hello", "--learn", str(learned)]
    shown, n_shown = _screen.shown, 0

    def interrupted(*args: Any) -> str:
        nonlocal n_shown
        n_shown += 1
        if n_shown == 40:
            signal.raise_signal(signal.SIGINT)
        return shown(*args)

    monkeypatch.setattr(_screen, "shown", interrupted)
    assert main(asked) == 130 and n_shown >= 40
    assert len(TokenSet.load(learned)) > 0
