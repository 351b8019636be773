"""What the doctor finds, on this machine and on sick ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf.child import Ended
from vocabtailor_gguf.cli import main
from vocabtailor_gguf.doctor import build, machine, trial
from vocabtailor_gguf.doctor.check import Check
from vocabtailor_gguf.doctor.examine import examine
from vocabtailor_gguf.doctor.tiny import write_tiny_model

NAMES = (
    "contention", "threads", "memory", "versions", "compiler", "cpu", "buffers", "scan",
    "stock decode", "split decode", "identity",
)  # fmt: skip


@pytest.mark.slow
def test_this_machine_is_ready(
    capsys: pytest.CaptureFixture[str], tiny_split: Callable[[str], Any]
) -> None:
    assert main(["doctor", "--json", "-m", str(tiny_split("llama").core)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert [c["name"] for c in found["checks"]] == [*NAMES, "model", "speed", "drafts"]
    for check in found["checks"]:
        assert check.keys() == {"name", "status", "found", "advice"}
        assert check["status"] in ("ok", "warn")
    by_name = {c["name"]: c["found"] for c in found["checks"]}
    assert llama_cpp.__version__ in by_name["versions"]
    assert "bit for bit" in by_name["identity"]
    assert "tokens/s" in by_name["speed"]


def test_the_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trial, "check_decode", lambda: [Check("stock decode", "fail", "x " * 90, "do y")]
    )
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.endswith("not ready: see the lines that failed\n")
    assert "fail  stock decode" in out
    assert "-> do y" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", ["none", "none.core.gguf"])
def test_a_missing_model_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any, name: str
) -> None:
    monkeypatch.setattr(trial, "check_decode", lambda: [])
    assert main(["doctor", "-m", name, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["checks"][-1]["status"] == "fail"
    assert found["checks"][-1]["found"] == f"{name}: no such file"
    assert "split the model again" not in found["checks"][-1]["advice"]


def test_a_crash_of_stock_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run_child(module: str, mode: str, *_: Any, **__: Any) -> Ended:
        asked.append(mode)
        return Ended(None, "", "was stopped by SIGSEGV (a memory fault)", ("the log",))

    monkeypatch.setattr(trial, "run_child", run_child)
    monkeypatch.setattr(trial, "built_flags", lambda: {"AMX_INT8"})
    (check,) = trial.check_decode()
    assert asked == ["stock"]
    assert (check.name, check.status) == ("stock decode", "fail")
    assert "SIGSEGV" in check.found and "the log" in check.found
    assert "AMX" in check.advice
    monkeypatch.setattr(trial, "built_flags", lambda: {"AVX2"})
    assert "AMX" not in trial.check_decode()[0].advice


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"digests": ["a", "b"], "exact": [1, 2]}, None),
        ({"digests": ["a", "c"], "exact": [1, 2]}, "step 1"),
        ({"digests": ["a", "b"], "exact": [1, 3]}, "exact mode"),
    ],
)
def test_other_bits_are_a_failure(split: dict[str, Any], words: str | None) -> None:
    check = trial._compare({"digests": ["a", "b"], "tokens": [1, 2]}, split)
    assert check.status == ("ok" if words is None else "fail")
    assert (words or "stock's") in check.found


@pytest.mark.parametrize(
    ("built", "cpu", "status"),
    [
        ({"AVX2", "FMA"}, {"avx2", "fma", "sse2"}, "ok"),
        ({"AVX2", "AMX_INT8"}, {"avx2"}, "fail"),
        ({"AVX2"}, {"avx2", "avx512f", "avx512_vnni"}, "warn"),
        ({"AVX2"}, {"avx2", "amx_int8"}, "warn"),
        ({"AVX2"}, set(), "ok"),
    ],
)
def test_flags_of_the_build_and_the_cpu(
    monkeypatch: pytest.MonkeyPatch, built: set[str], cpu: set[str], status: str
) -> None:
    monkeypatch.setattr(build, "built_flags", lambda: built)
    monkeypatch.setattr(build, "cpu_flags", lambda: cpu)
    check = build.check_cpu()
    assert check.status == status
    assert bool(check.advice) == (status != "ok")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_busy_process_is_named() -> None:
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        # other work on the machine may leave it less than it wants for a while
        for _ in range(40):
            check = machine.check_contention()
            if str(busy.pid) in check.found:
                break
            time.sleep(0.25)
        busy.kill()
    assert check.status == "warn"
    assert f"({busy.pid})" in check.found
    assert "OMP_WAIT_POLICY=passive" in check.advice


def test_cores_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 1 <= machine.physical_cores() <= (os.cpu_count() or 1)
    assert machine.check_memory().status in ("ok", "warn")
    cpuinfo = "".join(
        f"processor : {i}\nphysical id\t: 0\ncore id\t\t: {i // 2}\n\n" for i in range(8)
    )
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    (tmp_path / "meminfo").write_text("MemTotal: 4000000 kB\nMemAvailable: 500000 kB\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "allowed_cores", lambda: 8)
    assert machine.physical_cores() == 4
    threads = machine.check_threads()
    assert (threads.status, "1.5" in threads.found) == ("warn", True)
    assert machine.check_memory().status == "warn"


def test_the_tiny_model_uses_every_buffer(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    llm = llama_cpp.Llama(str(model), n_ctx=64, n_threads=1, verbose=False)
    llm.eval(llm.tokenize(b"two words"))
    pointer: Any = llama_cpp.llama_get_logits_ith(llm._ctx.ctx, -1)
    logits = np.ctypeslib.as_array(pointer, shape=(llm.n_vocab(),))
    assert np.isfinite(logits).all() and logits.std() > 0
    llm.close()


def test_checks_stop_where_nothing_can_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Check("versions", "fail", "another llama.cpp", "install again")
    monkeypatch.setattr(build, "check_versions", lambda: [broken])
    found = examine()
    assert not found.ok
    assert [c.name for c in found.checks][-1] == "cpu"
