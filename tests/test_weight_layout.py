"""Heads in buffers that need more bytes than the rows have, as AMX tiles do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest
from nativecheck import ROOT

from vocabtailor_gguf.binding import native

# heads that ggml interleaves everywhere, or puts into AMX tiles where the CPU has them
_TESTS = (
    "tests/test_head.py::test_other_rows_never_change_a_logit[Q4_0, 520]",
    "tests/test_head.py::test_other_rows_never_change_a_logit[Q8_0, soft cap]",
    "tests/test_head.py::test_other_rows_never_change_a_logit[IQ4_NL, tied, 448]",
    "tests/test_exact.py::test_where_the_whole_head_lies[memory-Q4_0, 520]",
    "tests/test_exact.py::test_where_the_whole_head_lies[streamed-Q4_0, 520]",
)


@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")
@pytest.mark.slow
def test_heads_in_larger_buffers(tmp_path: Path) -> None:
    package = Path(llama_cpp.__file__).parent
    library = tmp_path / "larger_buffers.so"
    source = ROOT / "tests/native/larger_buffers.cpp"
    include = package.parent / "include"
    command = ["c++", "-std=c++17", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{include}", str(source), "-o", str(library), f"-L{package / 'lib'}"]
    subprocess.run([*command, "-ldl"], check=True)
    env = {**os.environ, "LD_PRELOAD": str(library)}
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_TESTS]
    done = subprocess.run(asked, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert f"{len(_TESTS)} passed" in done.stdout


def test_names_of_buffers() -> None:
    name = native.ffi.new("char[]", 64)
    native.call("vt_weight_buffer", 0, 64, 512, name, 64)  # F32 is never repacked
    assert native.ffi.string(name) == b"CPU"
    for bad in ((-1, 64, 512), (8, 63, 512), (8, 64, 0), (4, 64, 512)):
        with pytest.raises(Exception, match=r"type|n_embd"):
            native.call("vt_weight_buffer", *bad, name, 64)
