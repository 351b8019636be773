"""Become a process that can only compute and read, then run code; the program of `sandbox`.

It imports nothing of the package, because it runs alone: ``python -I -S confine.py``.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

REFUSED = "not-confined"

# linux/prctl.h, linux/seccomp.h
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 1, 38, 22, 2
_ALLOW, _KILL, _DENY = 0x7FFF0000, 0x80000000, 0x00050001  # deny: errno 1, EPERM
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data; the arguments' low halves follow
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# what an interpreter needs once it runs: memory, time, reading, the end; numbers of the kernel
ALLOWED: dict[str, dict[str, int]] = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7,
        "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
        "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20,
        "access": 21, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32,
        "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63, "fcntl": 72, "getcwd": 79,
        "readlink": 89, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99, "times": 100,
        "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
        "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
        "getdents64": 217, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
        "exit_group": 231, "newfstatat": 262, "readlinkat": 267, "faccessat": 269,
        "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "getrandom": 318, "statx": 332,
        "rseq": 334, "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17, "dup": 23, "fcntl": 25, "faccessat": 48, "close": 57, "getdents64": 61,
        "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
        "pselect6": 72, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93,
        "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
        "sched_getaffinity": 123, "sched_yield": 124, "sigaltstack": 132, "rt_sigaction": 134,
        "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "uname": 160, "getrusage": 165,
        "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175,
        "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214, "munmap": 215,
        "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278,
        "statx": 291, "rseq": 293, "faccessat2": 439,
    },
}  # fmt: skip
# AUDIT_ARCH of linux/audit.h; openat and, where there is one, open, with the place of its flags
_MACHINES: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "x86_64": (0xC000003E, ((257, 2), (2, 1))),
    "aarch64": (0xC00000B7, ((56, 2),)),
}


def _instruction(code: int, yes: int, no: int, value: int) -> bytes:
    """Return a struct sock_filter: in either case the number of instructions to skip."""
    return struct.pack("=HBBI", code, yes, no, value)


def filter_program(machine: str) -> bytes:
    """Return the filter: calls of `ALLOWED`, opening for reading, nothing else."""
    arch, opens = _MACHINES[machine]
    program = [
        _instruction(_LOAD, 0, 0, _ARCH),
        _instruction(_EQUAL, 1, 0, arch),
        _instruction(_RETURN, 0, 0, _KILL),
        _instruction(_LOAD, 0, 0, _NUMBER),
    ]
    for number, place in opens:
        program += [
            _instruction(_EQUAL, 0, 4, number),
            _instruction(_LOAD, 0, 0, 16 + 8 * place),
            _instruction(_ANY_BIT, 0, 1, _WRITES),
            _instruction(_RETURN, 0, 0, _DENY),
            _instruction(_RETURN, 0, 0, _ALLOW),
        ]
    for number in sorted(ALLOWED[machine].values()):
        program += [
            _instruction(_EQUAL, 0, 1, number),
            _instruction(_RETURN, 0, 0, _ALLOW),
        ]
    return b"".join([*program, _instruction(_RETURN, 0, 0, _DENY)])


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("n", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(machine: str) -> None:
    """Let this process, from now on, only compute and read.

    Raises:
        OSError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = filter_program(machine)
    program = _Program(len(code) // 8, code)
    for call in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # nothing outlives the caller's limit of time
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _limit(seconds: int, memory: int) -> None:
    for what, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 64 << 20),
    ):
        _, most = resource.getrlimit(what)
        limit = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(what, (limit, limit))


def _run(given: dict[str, Any]) -> str:
    """Return how code and tests ended."""
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for part in ("code", "tests"):
            exec(compile(given[part], f"<{part}>", "exec"), names)
    except BaseException as e:  # also SystemExit
        return type(e).__name__
    return "passed"


def main() -> None:
    """Read what to run on stdin, write the word and how it ended on stdout."""
    given = json.load(sys.stdin)
    told = sys.stdout.fileno()
    nowhere = os.open(os.devnull, os.O_RDWR)
    # answers print and read what they like
    result = os.dup(told)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    try:
        _limit(given["seconds"], given["memory"])
        confine(given["machine"])
        if os.getppid() != given["parent"]:
            return
    except (OSError, ValueError) as e:
        os.write(result, f"{REFUSED} {e}".encode())
        return
    ended = _run(given)
    os.write(result, f"{given['word']} {ended}".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
