"""The supervisor of commands: exit codes, crashes, signals, a terminal. All with processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ends, is_running

from vocabtailor_gguf.cli import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no fork")

_PROGRAM = """
import os, signal, sys, time
from vocabtailor_gguf.cli.supervise import supervise

# as a terminal starts programs: nohup and shells may have had them ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

def tell(*what):
    print(*what, flush=True)

def command():
    {command}

sys.exit(supervise(command))
"""


def program(command: str) -> list[str]:
    return [sys.executable, "-c", _PROGRAM.format(command=command)]


def run(command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        program(command), capture_output=True, text=True, check=False, timeout=60, input="in\n"
    )
    return done


@pytest.mark.parametrize("code", [0, 1, 2, 77])
def test_exit_codes_pass(code: int) -> None:
    done = run(f"print(input()); return {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "in\n", "")
    assert run(f"sys.exit({code})").returncode == code


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SIGSEGV", "SIGSEGV (a memory fault)"),
        ("SIGBUS", "SIGBUS (a memory fault)"),
        ("SIGILL", "SIGILL (an instruction this CPU does not have)"),
        ("SIGABRT", "SIGABRT (a failed check inside llama.cpp)"),
        ("SIGFPE", "SIGFPE (a division by zero)"),
    ],
)
def test_a_crash_is_one_sentence(name: str, words: str) -> None:
    done = run(f"tell('text'); os.kill(os.getpid(), signal.{name})")
    assert (done.returncode, done.stdout) == (1, "text\n")
    assert done.stderr == (
        f"vocabtailor: error: llama.cpp stopped this command by {words}; "
        '"vocabtailor doctor" tells whether it runs on this machine\n'
    )


def test_other_signals() -> None:
    done = run("os.kill(os.getpid(), signal.SIGKILL)")
    assert (done.returncode, done.stderr) == (
        1,
        "vocabtailor: error: this command was stopped by SIGKILL (killed, perhaps for want of "
        "memory)\n",
    )
    stop = "signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"
    done = run(stop)
    assert (done.returncode, done.stderr) == (130, "")
    done = run("os.kill(os.getpid(), signal.SIGTERM)")
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_the_command_line_is_supervised() -> None:
    text = (
        "import os, signal, sys\n"
        "from vocabtailor_gguf import cli\n"
        "cli.main = lambda: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "sys.exit(cli.entry())\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("vocabtailor: error: llama.cpp stopped this command by SIGSEGV")
    for command in (["-m", "vocabtailor_gguf"], [Path(sys.executable).with_name("vocabtailor")]):
        start = [sys.executable, *map(str, command)] if command[0] == "-m" else command
        done = subprocess.run([*start, "none"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "invalid choice" in done.stderr


def test_nothing_heavy_comes_before_the_fork() -> None:
    text = (
        "import os, sys\n"
        "os.fork = lambda: 0\n"
        "os.getppid = os.getpid\n"
        "from vocabtailor_gguf import cli\n"
        "cli.main = lambda: print(sorted(sys.modules))\n"
        "cli.entry()\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert "'vocabtailor_gguf.cli.supervise'" in done.stdout, done.stderr
    assert all(f"'{name}'" not in done.stdout for name in ("numpy", "llama_cpp", "gguf", "cffi"))


def test_main_does_not_fork(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "fork", None)
    assert main(["inspect", str(tmp_path / "none.gguf")]) == 1


# ---- signals from outside ----

_SLEEPING = "tell(os.getpid()); time.sleep(600)"
_CATCHING = "signal.signal(signal.{0}, lambda *_: (tell('caught'), sys.exit(5))); " + _SLEEPING


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_are_passed_on(name: str) -> None:
    number = getattr(signal, name)
    for command, code in (
        (_CATCHING.format(name), 5),
        (_SLEEPING, 130 if name == "SIGINT" else -number),
    ):
        pipe = subprocess.PIPE
        with subprocess.Popen(program(command), stdout=pipe, stderr=pipe, text=True) as parent:
            assert parent.stdout and parent.stderr
            child = int(parent.stdout.readline())
            assert child != parent.pid
            parent.send_signal(number)
            assert parent.wait(60) == code
            assert parent.stdout.read() == ("caught\n" if code == 5 else "")
            assert parent.stderr.read() == ""
        assert ends(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a parent's death")
def test_the_command_dies_with_its_supervisor() -> None:
    with subprocess.Popen(program(_SLEEPING), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
        assert parent.stdout.read() == ""  # ends when the child has gone
    assert ends(child)


# ---- a terminal ----

# a shell that puts one job into the foreground of a terminal, and there again when it was stopped
_SHELL = """
import os, signal, sys

os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
for fd in range(3):
    os.dup2(terminal, fd)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])
while True:
    status = os.waitpid(job, os.WUNTRACED)[1]
    os.tcsetpgrp(0, os.getpid())
    if not os.WIFSTOPPED(status):
        print("code", os.waitstatus_to_exitcode(status), flush=True)
        break
    print("stopped", flush=True)
    input()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""


class _Terminal:
    def __init__(self, command: str) -> None:
        self.fd, self._other_end = os.openpty()
        name = os.ttyname(self._other_end)
        self.shell = subprocess.Popen([sys.executable, "-c", _SHELL, name, *program(command)])
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Read until the text comes."""
        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.fd], [], [], 1)[0]:
                self.seen += os.read(self.fd, 4096).decode()
        self.seen = self.seen.split(text, 1)[1]

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other_end)
        self.shell.kill()  # its end hangs up the terminal
        self.shell.wait(60)


@pytest.mark.parametrize(
    ("keys", "command", "code"),
    [
        (b"\x03", "tell('ready'); time.sleep(600)", 130),
        (b"\x03", "try:\n        tell('ready'); time.sleep(600)\n"
         "    except KeyboardInterrupt:\n        tell('once'); time.sleep(.3); return 7", 7),
        (b"\x1c", "tell('ready'); time.sleep(600)", -signal.SIGQUIT),
    ],
    ids=["Ctrl-C", "Ctrl-C caught", "Ctrl-backslash"],
)  # fmt: skip
def test_keys_that_end_a_command(keys: bytes, command: str, code: int) -> None:
    with contextlib.closing(_Terminal(command)) as terminal:
        terminal.wait_for("ready")
        terminal.type(keys)
        terminal.wait_for(f"code {code}\r\n")


def test_job_control() -> None:
    command = "tell('ready'); tell('read', input()); tell('and', input()); return 4"
    with contextlib.closing(_Terminal(command)) as terminal:
        terminal.wait_for("ready")
        terminal.type(b"one\n")
        terminal.wait_for("read one")
        terminal.type(b"\x1a")
        terminal.wait_for("stopped")
        terminal.type(b"fg\n")
        terminal.wait_for("fg")
        terminal.type(b"two\n")
        terminal.wait_for("and two")
        terminal.wait_for("code 4")
