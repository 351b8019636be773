"""Records of a corpus: JSONL, JSON, CSV, TSV, Parquet and text, compressed or not, file by file."""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vocabtailor_gguf.contents import N_BYTES, kind_of_bytes
from vocabtailor_gguf.errors import BadFileError
from vocabtailor_gguf.profiling.packed import SUFFIXES, Unpacked, missing
from vocabtailor_gguf.profiling.tasks import Task

_MAX_LINE = 64 << 20  # characters
_PARQUET_ROWS = 1024  # held in memory at once


@dataclass(frozen=True)
class Example:
    """What one record gives: the text of the prompt and of the output."""

    prompt: str
    output: str


class BadRecord(BadFileError):
    """A record that cannot be used; the text names file, line and field."""


def expand(patterns: Iterable[str]) -> list[str]:
    """Return the files that paths and globs name, "-" for standard input.

    Raises:
        BadFileError: One names nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        if pattern == "-" or Path(pattern).is_file():
            found.append(pattern)
            continue
        matches = sorted(p for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
        if not matches:
            raise BadFileError(f"{pattern}: {_why_not(pattern)}")
        found += matches
    return found


def _why_not(name: str) -> str:
    if os.path.isdir(name):
        return "is a folder; name its files, such as " + os.path.join(name, "*.jsonl")
    if os.path.exists(name):
        return 'is no regular file; "-" stands for standard input'
    return "no such file"


def kind_of(name: str) -> str:
    """Return what a file holds by its name: jsonl, json, csv, tsv, parquet or text."""
    suffixes = [s.lower() for s in Path(name).suffixes if s.lower() not in SUFFIXES]
    known = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
    last = suffixes[-1] if suffixes else ""
    if last in known:
        return {"ndjson": "jsonl"}.get(last[1:], last[1:])
    return "jsonl" if name == "-" else "text"


def examples(
    name: str, task: Task, *, skipped: Callable[[BadRecord], None] | None = None
) -> Iterator[Example]:
    """Yield the examples of one file.

    Args:
        name: A path, or "-" for JSONL on standard input.
        task: Says which fields are read.
        skipped: Called for a bad record, which is then left out; by default it is an error.

    Raises:
        BadRecord: A record cannot be used.
        BadFileError: The file cannot be read.
    """
    for where, record in records(name, text_field=task.output_field or "text"):
        try:
            if isinstance(record, BadRecord):
                raise record
            yield _example(where, record, task)
        except BadRecord as e:
            if skipped is None:
                raise
            skipped(e)


def _example(where: str, record: Any, task: Task) -> Example:
    if not isinstance(record, Mapping):
        raise BadRecord(f"{where}: found {type(record).__name__}, expected an object")

    def field(key: str) -> str:
        value = record.get(key)
        if not isinstance(value, str):
            found = "missing" if value is None else f"of type {type(value).__name__}"
            raise BadRecord(f"{where}: field {key!r}: {found}, expected a string")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as e:  # JSON can say "\\ud83d"
            raise BadRecord(f"{where}: field {key!r}: half of a surrogate pair") from e
        return value

    extra = {key: field(key) for key in task.extra_fields}
    given = field(task.input_field) if task.input_field else ""
    wanted = field(task.output_field) if task.output_field else ""
    prompt = task.prompt.replace("{input}", given)
    for key, value in extra.items():
        prompt = prompt.replace(f"{{{key}}}", value)
    return Example(prompt, task.output.replace("{output}", wanted))


def records(name: str, *, text_field: str = "text") -> Iterator[tuple[str, Any]]:
    """Yield where each record of a file stands, and what it holds; of any type, or a `BadRecord`.

    Args:
        name: A path, or "-" for JSONL on standard input.
        text_field: Field that gets the paragraphs of a plain text.

    Raises:
        BadFileError: The file cannot be read.
    """
    kind = kind_of(name)
    if kind == "parquet":
        yield from _parquet(name)
        return
    with Unpacked(name) as raw:
        _check_is_text(name, raw)
        if raw.peek().startswith(codecs.BOM_UTF8):
            raw.read(3)
        stream: Any = raw
        text = io.TextIOWrapper(stream, encoding="utf-8", newline=None)
        try:
            if kind == "jsonl":
                yield from _jsonl(name, text)
            elif kind == "json":
                yield from _json(name, text)
            elif kind in ("csv", "tsv"):
                yield from _csv(name, text, "," if kind == "csv" else "\t")
            else:
                yield from _paragraphs(name, text, text_field)
        except UnicodeDecodeError as e:
            at = raw.n_read - len(e.object) + e.start
            raise BadFileError(f"{name}: not UTF-8: {e.reason} at byte {at}") from e
        except csv.Error as e:
            raise BadFileError(f"{name}: {e}") from e


def _check_is_text(name: str, raw: Unpacked) -> None:
    found = kind_of_bytes(raw.peek()[:N_BYTES])
    if found is not None:
        raise BadFileError(f"{name}: not UTF-8, but {found}")


def _jsonl(name: str, text: IO[str]) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := text.readline(_MAX_LINE):
        number += 1
        where = f"{name}: line {number}"
        if len(line) == _MAX_LINE:
            raise BadFileError(f"{where}: longer than {_MAX_LINE} characters")
        if line.strip():
            found = _parse(where, line)
            if number == 1 and isinstance(found, BadRecord) and line.lstrip().startswith("["):
                found = BadRecord(f"{found}; a list of objects is read from a file named .json")
            yield where, found


def _parse(where: str, line: str) -> Any:
    try:
        return json.loads(line.lstrip("\ufeff"))  # where files were put one after another
    except (ValueError, RecursionError) as e:
        return BadRecord(f"{where}: not JSON: {e}")


def _json(name: str, text: IO[str]) -> Iterator[tuple[str, Any]]:
    whole = text.read()
    data = _parse(name, whole)
    if isinstance(data, BadRecord):
        first = whole.lstrip("\ufeff\n \t").partition("\n")[0]
        if isinstance(_parse(name, first), dict):  # lines, whatever the name says
            yield from _jsonl(name, io.StringIO(whole))
            return
        raise BadFileError(str(data))
    if not isinstance(data, list):
        raise BadFileError(f"{name}: found {type(data).__name__}, expected a list of objects")
    for i, record in enumerate(data):
        yield f"{name}: item {i}", record


def _csv(name: str, text: IO[str], delimiter: str) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(_MAX_LINE)
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    for record in reader:
        yield f"{name}: line {reader.line_num}", record


def _paragraphs(name: str, text: IO[str], field: str) -> Iterator[tuple[str, Any]]:
    """Each paragraph of a plain text is a document."""
    lines: list[str] = []
    start = 1
    for number, line in enumerate(text, 1):
        if line.strip():
            lines.append(line)
            continue
        if lines:
            yield f"{name}: line {start}", {field: "".join(lines)}
        lines, start = [], number + 1
    if lines:
        yield f"{name}: line {start}", {field: "".join(lines)}


def _parquet(name: str) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise missing(name, "pyarrow") from e
    try:
        with pyarrow.parquet.ParquetFile(name) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for record in batch.to_pylist():
                    yield f"{name}: row {number}", record
                    number += 1
    except (OSError, pyarrow.ArrowException) as e:
        raise BadFileError(f"{name}: cannot be read: {e}") from e
