"""A command runs in a child, so that a crash of llama.cpp becomes one sentence.

The child is a fork from before anything heavy is imported, in the same process group and on the
same terminal: keys such as Ctrl-C and Ctrl-Z reach it as they would without a supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from vocabtailor_gguf.cli import console
from vocabtailor_gguf.process import die_with, signal_words

_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGABRT", "SIGFPE", "SIGTRAP", "SIGSYS")


def supervise(command: Callable[[], int]) -> int:
    """Run a command in a child and return its exit code, in both processes.

    A crash gives 1 and a sentence on stderr, an interrupt 130; a signal that ends commands ends
    this process too. Where there is no fork the command runs here.
    """
    if sys.platform == "win32":
        return command()
    watched = {signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP}
    # blocked for good in the parent, which takes them one by one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # else the text would be written twice
    parent = os.getpid()
    child = os.fork()
    if child:
        return _exit_code(_wait(child, watched))
    die_with(parent)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return command()
    except KeyboardInterrupt:
        return 130


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """Pass on what is sent to this process alone, until the child has ended."""
    while True:
        if sys.platform == "darwin":  # does not tell who sent it
            number = int(signal.sigwait(watched))
            sent = number not in (signal.SIGINT, signal.SIGQUIT)
        else:
            found = signal.sigwaitinfo(watched)
            number = found.si_signo
            sent = found.si_code <= 0  # by a process; a terminal's reach the child by themselves
        if number == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)  # 0: stopped or continued
            if pid:
                return os.waitstatus_to_exitcode(status)
        elif sent:
            os.kill(child, number)  # not reaped yet, so the id is still its own


def _exit_code(code: int) -> int:
    if code >= 0:
        return code
    if code == -signal.SIGINT:
        return 130
    words = signal_words(-code)
    name = words.split()[0]
    if name in _CRASHES:
        console.say(
            f'llama.cpp stopped this command by {words}; "vocabtailor doctor" tells whether it '
            "runs on this machine"
        )
        return 1
    if name == "SIGKILL":
        console.say(f"this command was stopped by {words}")
        return 1
    with contextlib.suppress(OSError, ValueError):
        signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    return 128 - code
