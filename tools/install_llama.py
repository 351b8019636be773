"""Install llama-cpp-python, compiled so that it runs on this machine.

Usage: install_llama.py REQUIREMENTS STAMP

Compilers that get the AMX tile configuration wrong (see amx_tile.h) are found by a probe, not by a
list of versions: a small program, compiled with the flags of the build, configures tiles and
multiplies. STAMP is rewritten only when something was installed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGE = "llama-cpp-python"
_HERE = Path(__file__).resolve().parent
_PROBE = _HERE / "amx_probe.cpp"
_HEADER = _HERE / "amx_tile.h"
_MENDED = ("-include", str(_HEADER))
_WITHOUT = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
_TIMEOUT = 120  # seconds, for a compiler or the program it made


@dataclasses.dataclass(frozen=True)
class Build:
    """How llama-cpp-python is to be compiled.

    Attributes:
        kind: ``"plain"`` (no AMX in play), ``"amx"`` (it is, and the compiler is sound),
            ``"mended"`` (it is, with a forced include) or ``"without"`` (AMX switched off).
        flags: Added to the flags of C and C++.
        why: One line for the user.
    """

    kind: str
    flags: tuple[str, ...]
    why: str


def decide(probe: Callable[[Sequence[str]], str]) -> Build:
    """Choose a build by what the probe says when it is compiled with more flags.

    Args:
        probe: Takes flags, returns ``"sound"``, ``"absent"`` or what went wrong.
    """
    found = probe(())
    if found == "absent":
        return Build("plain", (), "no AMX on this machine: llama.cpp is built as it is")
    if found == "sound":
        return Build("amx", (), "AMX works with this compiler: llama.cpp is built as it is")
    broken = f"this compiler gets AMX wrong ({found})"
    if probe(_MENDED) == "sound":
        return Build(
            "mended", _MENDED, f"{broken}: llama.cpp is built with tools/{_HEADER.name}, AMX works"
        )
    if probe(_WITHOUT) == "absent":
        return Build("without", _WITHOUT, f"{broken} in every way: llama.cpp is built without it")
    # nothing that we could change; the compiler's own errors tell more than ours
    return Build("plain", (), f"AMX cannot be probed ({found}): llama.cpp is built as it is")


def compiler() -> list[str]:
    """Return the C++ compiler that CMake would take."""
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]


def _machine_flags() -> list[str]:
    """Return the flags that llama.cpp's own build gives the compiler, as far as they matter."""
    asked = os.environ.get("CMAKE_ARGS", "")
    native = not re.search(r"GGML_NATIVE(:BOOL)?=(OFF|0|NO|FALSE)", asked)
    user = shlex.split(os.environ.get("CXXFLAGS", ""))
    return ["-std=gnu++17", "-O3", "-DNDEBUG", *user, *(["-march=native"] if native else [])]


def run_probe(flags: Sequence[str]) -> str:
    """Compile the probe with more flags, run it, and return its word or what went wrong."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux":
        return "absent"
    with tempfile.TemporaryDirectory(prefix="amx-probe-") as folder:
        program = Path(folder) / "probe"
        command = [*compiler(), *_machine_flags(), *flags, str(_PROBE), "-o", str(program)]
        try:
            made = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
            if made.returncode != 0:
                return "the probe does not compile"
            done = subprocess.run([program], capture_output=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            return f"the probe does not run: {e}"
    if done.returncode < 0:
        return f"the probe ended by signal {-done.returncode}"
    return done.stdout.decode(errors="replace").strip() or f"status {done.returncode}"


def build_key(build: Build, version: str) -> str:
    """Return a name for wheels of this build: another compiler, CPU or flag has another one."""
    digest = hashlib.sha256(f"{version} {build.kind}".encode())
    if build.kind == "mended":
        digest.update(_HEADER.read_bytes())
    for flags in (["--version"], [*_machine_flags(), *build.flags, "-dM", "-E", "-x", "c++", "-"]):
        try:
            done = subprocess.run(
                [*compiler(), *flags], input=b"", capture_output=True, timeout=_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        digest.update(done.stdout)
    return f"{build.kind}-{digest.hexdigest()[:16]}"


def pip_command(version: str, cache: Path) -> list[str]:
    """Return the command that compiles and installs; wheels of other builds are not looked at."""
    return [
        *(sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--force-reinstall"),
        *("--no-binary", PACKAGE, "--cache-dir", str(cache), f"{PACKAGE}=={version}"),
    ]


def environment(build: Build) -> dict[str, str]:
    """Return the environment of the build: the user's, with our flags after theirs."""
    env = dict(os.environ)
    for name in ("CFLAGS", "CXXFLAGS"):
        env[name] = " ".join(filter(None, [env.get(name, ""), shlex.join(build.flags)]))
    return env


def _pip_cache() -> Path:
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return Path(found) if found else Path(tempfile.gettempdir()) / "pip-cache"


def _is_installed(version: str) -> bool:
    try:
        return importlib.metadata.version(PACKAGE) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def main() -> int:
    """Install unless the build of the stamp is there."""
    requirements, stamp = Path(sys.argv[1]), Path(sys.argv[2])
    text = requirements.read_text(encoding="utf-8")
    pinned = re.search(rf"^{PACKAGE}==(\S+)", text, flags=re.MULTILINE)
    if pinned is None:
        print(f"{requirements}: no line {PACKAGE}==VERSION", file=sys.stderr)
        return 1
    version = pinned[1]
    build = decide(run_probe)
    key = build_key(build, version)
    wanted = json.dumps({"key": key, "why": build.why})
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted and _is_installed(version):
        return 0
    print(f"== {build.why}", flush=True)
    print(
        f"== {PACKAGE} {version}: the first build takes 5 to 10 minutes in silence, later ones "
        "come from pip's cache",
        flush=True,
    )
    cache = _pip_cache() / f"{PACKAGE}-{key}"
    done = subprocess.run(pip_command(version, cache), env=environment(build), check=False)
    if done.returncode != 0:
        return 1
    stamp.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
