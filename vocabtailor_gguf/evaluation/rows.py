"""Rows of a data set: records with the fields that a task names."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabtailor_gguf.errors import BadFileError, MismatchError
from vocabtailor_gguf.evaluation.tasks import EvalTask, Style
from vocabtailor_gguf.profiling.inputs import records


def digest(*parts: Any) -> str:
    """Return 32 hex digits that stand for values of JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class Row:
    """A record.

    Attributes:
        number: Its place in the file, from 0.
        fields: The texts of its fields.
        tests: Of a code task: the asserts that its answer must pass.
    """

    number: int
    fields: Mapping[str, str]
    tests: str = ""


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set: rows to test on, and others for examples and token sets.

    Attributes:
        name: Name of the file.
        rows: Rows to test on, at most the limit.
        train: Rows of the training file, none of which is in the test file.
        sha256: Of the fields of both files, those beyond the limit included.
    """

    name: str
    rows: tuple[Row, ...]
    train: tuple[Row, ...]
    sha256: str


def spread(rows: Sequence[Row], n: int) -> list[Row]:
    """Return `n` rows at equal distances, or all: neighbours are often of one text."""
    n = min(n, len(rows))
    return [rows[(2 * i + 1) * len(rows) // (2 * n)] for i in range(n)]


def training_file(data: str) -> str | None:
    """Return ``NAME.train.jsonl`` for ``NAME.test.jsonl``, if there is such a file."""
    path = Path(data)
    beside = path.with_name(path.name.replace(".test.", ".train."))
    return str(beside) if beside != path and beside.is_file() else None


def load_data(
    data: str, task: EvalTask, style: Style, *, train: str | None, limit: int | None = None
) -> Data:
    """Read a data set.

    Args:
        data: File of the rows to test on; kinds as `vocabtailor profile` reads.
        task: Names the fields.
        style: Whose template is used.
        train: File of the training rows, or None where none are needed.
        limit: The most rows to test on.

    Raises:
        BadFileError: A file or a record cannot be used, or there are no rows.
        MismatchError: A training row has the prompt of a test row.
    """
    tested = list(_rows(data, task, style))
    trained = [] if train is None else list(_rows(train, task, style))
    for name, rows in ((data, tested), (train, trained)):
        if name is not None and not rows:
            raise BadFileError(f"{name}: has no rows")
    prompt = task.form(style).template.prompt
    prompts = {prompt(row.fields) for row in tested}
    for row in trained:
        if prompt(row.fields) in prompts:
            raise MismatchError(
                f"{train}: row {row.number} is in {data} too: examples and token sets must not "
                "come from what is tested"
            )
    sha256 = digest([[{**r.fields}, r.tests] for r in tested], [{**r.fields} for r in trained])
    return Data(Path(data).name, tuple(tested[:limit]), tuple(trained), sha256)


def _rows(name: str, task: EvalTask, style: Style) -> Iterator[Row]:
    if not Path(name).is_file():
        raise BadFileError(f"{name}: no such file")
    wanted = task.fields(style)
    for number, (where, record) in enumerate(records(name)):
        if isinstance(record, BadFileError):
            raise record
        if not isinstance(record, Mapping):
            raise BadFileError(f"{where}: found {type(record).__name__}, expected an object")
        for key in wanted:
            if not isinstance(record.get(key), str):
                found = type(record[key]).__name__ if key in record else "nothing"
                raise BadFileError(f"{where}: field {key!r}: found {found}, expected a string")
            try:
                record[key].encode("utf-8")
            except UnicodeEncodeError as e:  # JSON can say "\\ud83d"
                raise BadFileError(f"{where}: field {key!r}: half of a surrogate pair") from e
        fields = {key: record[key] for key in wanted}
        yield Row(number, fields, _tests(where, record, task))


def _tests(where: str, record: Mapping[str, Any], task: EvalTask) -> str:
    """Return the lines that begin with "assert" of the field of a code task that has them."""
    if task.metric != "code":
        return ""
    key = task.options.get("tests", "tests")
    found = record.get(key)
    texts: Sequence[Any] = [found] if isinstance(found, str) else found or []
    if not isinstance(texts, Sequence) or not all(isinstance(t, str) for t in texts):
        raise BadFileError(f"{where}: field {key!r}: expected a text or a list of texts")
    lines = [line for text in texts for line in text.split("\n") if line.startswith("assert")]
    if not lines:
        raise BadFileError(f"{where}: field {key!r}: has no line that begins with assert")
    tests = "\n".join(lines)
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in texts
            ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        # one that goes on in a second line would fail every answer
        raise BadFileError(f"{where}: field {key!r}: {e}, expected asserts of one line") from e
    return tests
