"""The C API, used from C: the header, the example program and the commands of docs/c-api.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from vocabtailor_gguf import TailoredLlama, TokenSet

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "native" / "examples" / "generate.c"
DOCUMENT = ROOT / "docs" / "c-api.md"
# the installed package, also where a source tree comes first on sys.path
PACKAGE = Path(str(distribution("vocabtailor_gguf").locate_file("vocabtailor_gguf")))
LIBRARIES = (PACKAGE / "lib", Path(llama_cpp.__file__).parent / "lib")
INCLUDES = (PACKAGE / "include", Path(sysconfig.get_path("platlib")) / "include")
STRICT = ("-Wall", "-Wextra", "-Werror")

PROMPT = "hello world, this is what they said when"
# llama.cpp's own default for flash attention, which llama_cpp.Llama turns off
COMMON: dict[str, Any] = {
    "n_ctx": 256,
    "n_threads": 2,
    "n_threads_batch": 2,
    "flash_attn": True,
    "verbose": False,
}

Split = Any
Run = Callable[..., subprocess.CompletedProcess[bytes]]


def compile_c(*arguments: str | Path) -> None:
    done = subprocess.run(["cc", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a function that runs the example program, compiled against the installed package."""
    program = tmp_path_factory.mktemp("c_api") / "generate"
    include = [f"-I{path}" for path in INCLUDES]
    search = [flag for path in LIBRARIES for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    libraries = ["-lvocabtailor", "-lllama"]
    compile_c("-std=c11", *STRICT, *include, SOURCE, "-o", program, *search, *libraries)

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, timeout=300)

    return call


def greedy(llm: llama_cpp.Llama, prompt: str, n: int) -> bytes:
    """Returns what a model says, as the program prints it."""
    text = b""
    tokens = llm.generate(llm.tokenize(prompt.encode(), special=True), temp=0.0)
    for _, token in zip(range(n), tokens, strict=False):
        if llama_cpp.llama_vocab_is_eog(llm._model.vocab, token):
            break
        text += llm.detokenize([token])
    return text


def stock_text(path: Path, prompt: str, n: int) -> bytes:
    llm = llama_cpp.Llama(str(path), **COMMON)
    try:
        return greedy(llm, prompt, n)
    finally:
        llm.close()


@pytest.mark.parametrize("language", [("c", "c11"), ("c++", "c++17")], ids=lambda x: x[1])
def test_the_header_stands_alone(language: tuple[str, str], tmp_path: Path) -> None:
    source = tmp_path / "header.c"
    source.write_text("#include <vocabtailor.h>\nint vt_header_only = VT_OK;\n")
    flags = ("-x", language[0], f"-std={language[1]}", *STRICT, "-Wpedantic", f"-I{INCLUDES[0]}")
    compile_c(*flags, "-c", source, "-o", tmp_path / "header.o")


@pytest.mark.parametrize("mode", ["full", "exact"])
# phi2: a head with a bias; mamba: a memory that cannot go back; gemma4: rows for each layer
@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "phi2", "mamba", "gemma4"])
def test_full_and_exact_mode_are_stock_on_tiny_models(
    name: str, mode: str, run: Run, tiny: Callable[[str], Path], tiny_split: Callable[[str], Split]
) -> None:
    files = tiny_split(name)
    done = run(files.core, files.vocab, mode, PROMPT, 24, 2)
    assert done.returncode == 0, done.stderr
    expected = stock_text(tiny(name), PROMPT, 24)
    assert expected
    assert done.stdout == expected
    assert done.stderr == b""


@pytest.mark.model
def test_full_and_exact_mode_are_stock_on_gemma(run: Run, gemma: Path, gemma_split: Split) -> None:
    prompt = "The capital of Italy is"
    expected = stock_text(gemma, prompt, 24)
    for mode in ("full", "exact"):
        done = run(gemma_split.core, gemma_split.vocab, mode, prompt, 24, 2)
        assert done.returncode == 0, done.stderr
        assert done.stdout == expected


@pytest.mark.parametrize("ids", [[300, 7, 301, 302, 7, 5], None], ids=["file", "none"])
def test_a_static_set_is_that_of_tailored_mode(
    ids: Sequence[int] | None, run: Run, tiny_split: Callable[[str], Split], tmp_path: Path
) -> None:
    files = tiny_split("llama-tied")
    listed = tmp_path / "ids.txt"
    listed.write_text("\n".join(map(str, ids or [])))
    done = run(files.core, files.vocab, listed if ids else "-", PROMPT, 24, 2)
    assert done.returncode == 0, done.stderr
    chosen = TokenSet(ids) if ids else None
    llm = TailoredLlama(
        files.core, mode="tailored", token_set=chosen, prompt_expansion=False, **COMMON
    )
    try:
        assert done.stdout == greedy(llm, PROMPT, 24)
    finally:
        llm.close()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["core", "vocab", "-", "hello"],
        ["core", "vocab", "-", "hello", "8", "2", "more"],
        ["core", "vocab", "-", "hello", "0"],
        ["core", "vocab", "-", "hello", "-1"],
        ["core", "vocab", "-", "hello", "8x"],
        ["core", "vocab", "-", "hello", "99999999999"],
        ["core", "vocab", "-", "hello", "8", "0"],
        ["core", "vocab", "-", "hello", "8", "100000"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: Sequence[str], run: Run) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"usage: generate ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.gguf", "VOCAB", "-"), "missing.gguf: cannot be opened"),
        (("CORE", "missing.gguf", "-"), "missing.gguf: cannot be opened"),
        (("CORE", "VOCAB", "missing.txt"), "missing.txt: No such file"),
        (("VOCAB", "CORE", "-"), 'found "core", expected "vocab"'),
        (("VOCAB", "VOCAB", "-"), 'key vocabtailor.kind is "vocab", expected the core'),
        (("CORE", "CORE", "-"), 'found "core", expected "vocab"'),
        (("OTHER", "VOCAB", "-"), "do not belong together"),
        (("MODEL", "VOCAB", "-"), "an unsplit model, expected the core of a split model"),
        (("CORE", "VOCAB", "WORDS"), "words.txt: expected token ids"),
        (("CORE", "VOCAB", "BIG"), "token id 432"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_failures(
    arguments: Sequence[str],
    message: str,
    run: Run,
    tiny: Callable[..., Path],
    tiny_split: Callable[..., Split],
    tmp_path: Path,
) -> None:
    files = tiny_split("llama-tied")
    names = {
        "CORE": files.core,
        "VOCAB": files.vocab,
        "OTHER": tiny_split("llama-tied", seed=1).core,
        "MODEL": tiny("llama-tied"),
        "WORDS": tmp_path / "words.txt",
        "BIG": tmp_path / "big.txt",
    }
    names["WORDS"].write_text("1 2 three")
    names["BIG"].write_text("1 2 432")
    done = run(*(names.get(a, a) for a in arguments), PROMPT, 8, 2)
    assert done.returncode == 1
    assert done.stdout == b""
    assert message in done.stderr.decode()


@pytest.mark.parametrize(
    ("prompt", "n", "message"),
    [("word " * 300, 8, "model's context"), ("hello", 2**31 - 1, "model's context")],
    ids=["prompt", "N"],
)
def test_text_longer_than_the_context(
    prompt: str, n: int, message: str, run: Run, tiny_split: Callable[[str], Split]
) -> None:
    files = tiny_split("llama-tied")
    done = run(files.core, files.vocab, "-", prompt, n, 2)
    assert done.returncode == 1
    assert message in done.stderr.decode()


def blocks(language: str) -> list[str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_documented_command(tiny_split: Callable[[str], Split], tmp_path: Path) -> None:
    (command,) = blocks("sh")
    (tmp_path / "native").symlink_to(ROOT / "native")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path}
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, env=env, check=True)
    files = tiny_split("llama-tied")
    program = [str(tmp_path / "generate"), str(files.core), str(files.vocab), "-", PROMPT, "4"]
    assert subprocess.run(program, capture_output=True, check=True).stdout


def test_documented_code(tmp_path: Path) -> None:
    source = tmp_path / "essential.c"
    source.write_text("".join(blocks("c")))
    include = [f"-I{path}" for path in INCLUDES]
    compile_c("-std=c11", *STRICT, *include, "-c", source, "-o", tmp_path / "essential.o")
