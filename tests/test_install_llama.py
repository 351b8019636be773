"""How llama-cpp-python is compiled on machines and compilers of all kinds."""

from __future__ import annotations

import importlib.util
import platform
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CRASH = "the probe ended by signal 4"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("install_llama", ROOT / "tools/install_llama.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


install_llama = _load()


def kind_of(flags: Sequence[str]) -> str:
    joined = " ".join(flags)
    return "include" if "-include" in joined else "no-amx" if "-mno-amx" in joined else "as it is"


# what the probe says as it is, with the forced include, and without AMX
OUTCOMES = {
    "no AMX on the CPU": (("absent", "absent", "absent"), "plain"),
    "a sound compiler": (("sound", "sound", "absent"), "amx"),
    "mended": ((CRASH, "sound", "absent"), "mended"),
    "wrong products, mended": (("wrong", "sound", "absent"), "mended"),
    "beyond mending": ((CRASH, CRASH, "absent"), "without"),
    "wrong in every way": (("wrong", "wrong", "absent"), "without"),
    "no compiler": (("the probe does not run",) * 3, "plain"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_of_the_probe(outcome: str) -> None:
    words, kind = OUTCOMES[outcome]
    said = dict(zip(("as it is", "include", "no-amx"), words, strict=True))
    build = install_llama.decide(lambda flags: said[kind_of(flags)])
    assert build.kind == kind
    expected = {"plain": "as it is", "amx": "as it is", "mended": "include", "without": "no-amx"}
    assert kind_of(build.flags) == expected[kind]
    assert "\n" not in build.why and build.why


def fake_compiler(folder: Path, said: dict[str, str]) -> Path:
    """A compiler whose programs say, or do, what they are told for each kind of flags."""
    script = folder / "fake-c++"
    script.write_text(
        f"""#!{sys.executable}
import pathlib, sys
flags = " ".join(sys.argv[1:])
if "--version" in flags or "-dM" in flags:
    print("fake 1.0", flags)
    sys.exit(0)
kind = "include" if "-include" in flags else "no-amx" if "-mno-amx" in flags else "as it is"
word = {said!r}[kind]
if word == "does not compile":
    sys.exit(1)
out = pathlib.Path(sys.argv[-1])
out.write_text("#!/bin/sh\\n" + ("kill -ILL $$" if word == "crash" else f"echo {{word}}") + "\\n")
out.chmod(0o755)
""",
        encoding="utf-8",
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


on_x86_linux = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="AMX is x86-64's"
)


@on_x86_linux
@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        (("sound", "sound", "absent"), "amx", "AMX works"),
        (("crash", "sound", "absent"), "mended", "signal 4"),
        (("wrong", "does not compile", "absent"), "without", "wrong"),
        (("absent", "absent", "absent"), "plain", "no AMX"),
    ],
)
def test_programs_of_a_compiler_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], kind: str, why: str
) -> None:
    said = dict(zip(("as it is", "include", "no-amx"), words, strict=True))
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, said)))
    build = install_llama.decide(install_llama.run_probe)
    assert build.kind == kind
    assert why in build.why


@on_x86_linux
def test_the_compiler_of_this_machine_ends_sound_or_without() -> None:
    build = install_llama.decide(install_llama.run_probe)
    assert install_llama.run_probe(build.flags) in ("sound", "absent")


def test_wheels_of_another_build_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [install_llama.Build(k, (), "") for k in ("plain", "amx", "mended", "without")]
    keys = {install_llama.build_key(b, "0.3.36") for b in kinds}
    assert len(keys) == len(kinds)
    assert install_llama.build_key(kinds[0], "0.3.37") not in keys
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, {})))
    assert install_llama.build_key(kinds[0], "0.3.36") not in keys
    command = install_llama.pip_command("0.3.36", tmp_path / "cache")
    assert command[command.index("--cache-dir") + 1] == str(tmp_path / "cache")
    assert command[command.index("--no-binary") + 1] == "llama-cpp-python"
    assert "--force-reinstall" in command


def test_flags_go_after_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXXFLAGS", "-g")
    monkeypatch.delenv("CFLAGS", raising=False)
    build = install_llama.Build("without", ("-mno-amx-tile", "a b"), "")
    env = install_llama.environment(build)
    assert env["CXXFLAGS"] == "-g -mno-amx-tile 'a b'"
    assert env["CFLAGS"] == "-mno-amx-tile 'a b'"


def test_an_installed_build_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements, stamp = ROOT / "tools/requirements.txt", tmp_path / "stamp"
    ran: list[list[str]] = []

    class Done:
        returncode = 0
        stdout = str(tmp_path)

    def run(command: list[str], **_: Any) -> Done:
        ran.append(command)
        return Done()

    monkeypatch.setattr(install_llama, "run_probe", lambda flags: "absent")
    monkeypatch.setattr(install_llama, "build_key", lambda build, version: build.kind)
    monkeypatch.setattr(install_llama.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["install_llama.py", str(requirements), str(stamp)])
    assert install_llama.main() == 0
    assert any("--no-binary" in c for c in ran)
    ran.clear()
    assert install_llama.main() == 0
    assert ran == []
    # another CPU or compiler under the same environment
    monkeypatch.setattr(install_llama, "build_key", lambda build, version: "other")
    assert install_llama.main() == 0
    assert any("--no-binary" in c for c in ran)
