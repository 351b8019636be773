"""Results: JSON lines that are appended, and found again after a run that was broken off.

A line is a run (what was computed, with which model, set and prompts) or a row (the answer to one
prompt). Both have keys made from their content, so that nothing is computed twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.leftovers import lock

FORMAT = "vocabtailor.eval"
VERSION = 1
_MAX_LINE = 16 << 20  # bytes
_BEGINS = (
    f'{{"kind": "run", "format": "{FORMAT}"'.encode(),
    b'{"kind": "row", "run": "',
)  # of lines


@dataclasses.dataclass(frozen=True)
class Run:
    """What the rows of one variant have in common.

    Attributes:
        key: Made from all that decides the answers.
        group: The same for runs that may be compared: model, data, prompts, limits.
        model: Name of the core's file.
        pair: Pair id of core and store.
        data: Name of the test file.
        task: As it was asked for.
        metric: Of the task.
        options: Of the metric.
        style: ``"base"`` or ``"chat"``.
        shots: Examples before each prompt, where they fit.
        variant: Name of the variant.
        set_rows: Ids of its token set, without always-on ones; None without a set.
        n_threads: Threads that were asked for.
        llama: Version of llama-cpp-python.
    """

    key: str
    group: str
    model: str
    pair: str
    data: str
    task: str
    metric: str
    options: dict[str, str]
    style: str
    shots: int
    variant: str
    set_rows: int | None
    n_threads: int | None
    llama: str


@dataclasses.dataclass(frozen=True)
class RowResult:
    """An answer.

    Attributes:
        run: Key of its run.
        key: Made from the prompt and the row.
        row: Place of the row in the test file.
        reference: The text that was wanted.
        n_prompt: Tokens of the prompt.
        n_shots: Examples in it.
        tokens: Ids of the answer.
        text: The answer.
        prompt_ms: Time to the first token, without what prompts share.
        ms: From the first token to the last.
        head_rows: Rows of the active set at the end, None for an empty answer.
        n_outside: Tokens of the full vocabulary's answer that were not active, None for an empty
            answer.
        n_full: Tokens of the full vocabulary's answer.
        memory: Bytes of embedding rows, of the head and of logits; None for an empty answer.
        passed: Of a code task: whether the tests passed.
        ended: Of a code task: how they ended.
    """

    run: str
    key: str
    row: int
    reference: str
    n_prompt: int
    n_shots: int
    tokens: tuple[int, ...]
    text: str
    prompt_ms: float
    ms: float
    head_rows: int | None
    n_outside: int | None
    n_full: int
    memory: int | None
    passed: bool | None = None
    ended: str | None = None


@dataclasses.dataclass(frozen=True)
class Read:
    """What files of results hold: runs by key, and of each its rows by key."""

    runs: dict[str, Run] = dataclasses.field(default_factory=dict)
    rows: dict[str, dict[str, RowResult]] = dataclasses.field(default_factory=dict)

    def add(self, found: Run | RowResult) -> None:
        """Add a line; one of the same key stays as it is."""
        if isinstance(found, Run):
            self.runs.setdefault(found.key, found)
        else:
            self.rows.setdefault(found.run, {}).setdefault(found.key, found)

    def of(self, run: str) -> dict[str, RowResult]:
        """Return the rows of a run by key, in the order of the test file."""
        rows = self.rows.get(run, {}).values()
        return {row.key: row for row in sorted(rows, key=lambda row: row.row)}


def read_results(paths: Iterable[str | os.PathLike[str]]) -> Read:
    """Read files of results; a last line that was not written whole is left out.

    Raises:
        BadFileError: A file cannot be read, or a line is not one of results.
    """
    read = Read()
    for path in paths:
        try:
            with open(path, "rb") as f:
                for found in _lines(Path(path), f):
                    read.add(found)
        except OSError as e:
            raise BadFileError(f"{path}: cannot be read: {e.strerror}") from e
    return read


def _lines(path: Path, f: BinaryIO) -> Iterator[Run | RowResult]:
    number = 0
    while line := f.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise BadFileError(f"{path}: line {number}: longer than {_MAX_LINE >> 20} MiB")
        if line.endswith(b"\n"):
            yield _line(f"{path}: line {number}", line)


T = TypeVar("T", Run, RowResult)


def _line(where: str, line: bytes) -> Run | RowResult:
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as e:
        raise BadFileError(f"{where}: not JSON: {e}") from e
    kind = data.pop("kind", None)
    if kind == "run":
        given = (data.pop("format", None), data.pop("version", None))
        if given != (FORMAT, VERSION):
            raise BadFileError(f"{where}: found {given}, expected {(FORMAT, VERSION)}")
        return _record(where, Run, data)
    if kind == "row":
        if isinstance(data.get("tokens"), list):
            data["tokens"] = tuple(data["tokens"])
        return _record(where, RowResult, data)
    raise BadFileError(f"{where}: kind: found {kind!r}, expected 'run' or 'row'")


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "None": (type(None),),
    "tuple[int, ...]": (tuple,),
    "dict[str, str]": (dict,),
}


def _record(where: str, kind: type[T], data: dict[str, Any]) -> T:
    for field in dataclasses.fields(kind):
        if field.name not in data:
            raise BadFileError(f"{where}: {field.name}: found nothing")
        allowed = [t for name in str(field.type).split(" | ") for t in _TYPES[name]]
        value = data[field.name]
        if type(value) not in allowed:
            found = type(value).__name__
            raise BadFileError(f"{where}: {field.name}: found {found}, expected {field.type}")
    if len(data) != len(dataclasses.fields(kind)):
        raise BadFileError(f"{where}: found keys that a {kind.__name__.lower()} does not have")
    return kind(**data)


class ResultsFile:
    """A file of results that one process appends to.

    Args:
        path: The file; it is made where it is missing.

    Attributes:
        path: The file.
        read: What it holds.

    Raises:
        BadFileError: It cannot be read or written, or another process is at it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab+")
        except OSError as e:
            raise BadFileError(f"{path}: cannot be written: {e.strerror}") from e
        try:
            self._lock = lock(self.path)
            self.read = read_results([self.path])
            self._drop_torn_line()
        except BlockingIOError as e:
            self.close()
            raise BadFileError(f"{path}: is being written by another process") from e
        except OSError as e:
            self.close()
            raise BadFileError(f"{path}: cannot be written: {e.strerror}") from e
        except BaseException:
            self.close()
            raise

    def _drop_torn_line(self) -> None:
        """Cut off a last line that a kill has torn.

        Raises:
            BadFileError: It is not the begin of one of results, so the file is somebody's own.
        """
        size = self._file.seek(0, os.SEEK_END)
        start = max(0, size - _MAX_LINE)
        self._file.seek(start)
        tail = self._file.read()
        end = tail.rfind(b"\n") + 1
        torn = tail[end:]
        if not any(torn[: len(begin)] == begin[: len(torn)] for begin in _BEGINS):
            raise BadFileError(f"{self.path}: its last line has no end and is not one of results")
        if torn:
            self._file.truncate(start + end)
        self._file.seek(0, os.SEEK_END)

    def add(self, found: Run | RowResult) -> None:
        """Append a line, which a kill of this process cannot take back.

        Raises:
            BadFileError: It cannot be written.
        """
        kind: dict[str, Any] = {"kind": "row"}
        if isinstance(found, Run):
            if found.key in self.read.runs:
                return
            kind = {"kind": "run", "format": FORMAT, "version": VERSION}
        text = json.dumps({**kind, **dataclasses.asdict(found)}, ensure_ascii=False)
        try:
            self._file.write(text.encode("utf-8", errors="replace") + b"\n")
            self._file.flush()
        except OSError as e:
            raise BadFileError(f"{self.path}: cannot be written: {e.strerror}") from e
        self.read.add(found)

    def close(self) -> None:
        """Close it; twice is allowed."""
        with contextlib.suppress(OSError):  # what cannot be written, `add` has told
            self._file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> ResultsFile:
        """Return the file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
