"""What several commands share: options, a progress bar, JSON."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from vocabtailor_gguf import reading
from vocabtailor_gguf.errors import BadFileError, VocabTailorError
from vocabtailor_gguf.runtime.drafts import Drafts

# control characters that JSON takes as they are, and bytes of a name that is not UTF-8
_ESCAPED = re.compile("[\x7f-\x9f\ud800-\udfff]")


def add_core(parser: argparse.ArgumentParser, *, or_unsplit: bool = False) -> None:
    """Add the options that name a split model, or one that is split on its first use."""
    names = "NAME.core.gguf, or an unsplit model" if or_unsplit else "NAME.core.gguf"
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-m", "--model", metavar="CORE", help=names)
    if or_unsplit:
        source.add_argument(
            "-hf", "--hf-repo", metavar="REPO[:FILE]",
            help="a repository of the Hugging Face hub, and the file or the quantisation of it "
            "(default: Q4_K_M, else the only one); kept in the hub's own cache",
        )  # fmt: skip
    parser.add_argument(
        "--vocab", metavar="FILE", help="NAME.vocab.gguf (default: the one beside the core)"
    )
    if or_unsplit:
        parser.add_argument(
            "--here", action="store_true", help="keep the split of an unsplit model beside it"
        )


def find_pair(model: str, vocab: str | None, *, here: bool = False) -> tuple[str, str | None]:
    """Return core and store; an unsplit model is split on its first use, with a bar and a line.

    Raises:
        VocabTailorError: There is no such file, llama.cpp cannot open it, or it cannot be split.
    """
    from vocabtailor_gguf.gguf.pair import split_kind
    from vocabtailor_gguf.runtime import backend
    from vocabtailor_gguf.split.cache import split_cached

    for path in (model, vocab or ""):
        backend.check_path(path)
    if vocab is not None or split_kind(model) is not None:
        return model, vocab
    with progress_bar("split, for the first use") as progress:
        entry = split_cached(model, here=here, progress=progress)
    if entry.is_new:
        told = f"split beside it, {entry.n_bytes / 1e6:.0f} MB" if here else entry.told
        print(f"{model}: {told}", file=sys.stderr)
    return str(entry.core), str(entry.vocab)


def find_files(args: argparse.Namespace) -> tuple[str, str | None]:
    """Return core and store of what -m, -hf, --vocab and --here name.

    Raises:
        VocabTailorError: There is no such file or repository, or it cannot be split.
    """
    if args.hf_repo is None:
        return find_pair(args.model, args.vocab, here=args.here)
    if args.here:
        raise VocabTailorError("--here: a model of the hub lies in its cache; leave it out, or -m")
    from vocabtailor_gguf.hub import fetch

    found = fetch(args.hf_repo)
    vocab = str(found.vocab) if found.vocab and args.vocab is None else args.vocab
    return find_pair(str(found.model), vocab)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def print_json(value: Any) -> None:
    """Print a value as JSON; dataclasses and paths are converted, control characters escaped."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=2)
    print(_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return str(value) if isinstance(value, Path) else value.tolist()


@contextlib.contextmanager
def progress_bar(what: str, *, unit: str = "B") -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr, where that is a terminal; by default of bytes."""
    from tqdm import tqdm

    is_shown = sys.stderr is not None and sys.stderr.isatty()
    scaled = unit == "B"
    bar = tqdm(desc=what, unit=unit, unit_scale=scaled, disable=not is_shown, delay=0.1)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield update


def positive(text: str) -> int:
    """Parse a positive integer that fits native code."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a positive integer")
    return value


def read_text(path: str) -> str:
    """Return the text of a UTF-8 file, which may be a pipe, or "-" for standard input.

    Raises:
        BadFileError: It cannot be read.
    """
    if path != "-":
        return reading.read_text(path, pipes=True)
    if sys.stdin is None:
        raise BadFileError("-: standard input is closed")
    return _all_of_stdin()


def read_stdin() -> str | None:
    """Return the UTF-8 text of a pipe or file at standard input; None where there is none.

    Raises:
        BadFileError: It is not UTF-8, or larger than a prompt may be.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        return _all_of_stdin() or None
    except OSError:
        return None


def _all_of_stdin() -> str:
    raw = sys.stdin.buffer.read(reading.MAX_BYTES + 1)
    if len(raw) > reading.MAX_BYTES:
        raise BadFileError(f"standard input: larger than {reading.MAX_BYTES >> 20} MiB")
    return reading.text_of("standard input", raw)


def utf8(option: str, text: str) -> str:
    """Return the text of an option.

    Raises:
        VocabTailorError: It has bytes that are not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        at, byte = len(text[: e.start].encode("utf-8")), ord(text[e.start]) & 0xFF
        raise VocabTailorError(f"{option}: byte 0x{byte:02x} at {at}, expected UTF-8") from e
    return text


def add_drafts(parser: argparse.ArgumentParser) -> None:
    """Add --drafts."""
    parser.add_argument(
        "--drafts", choices=get_args(Drafts), default="auto",
        help="what exact mode drafts: auto: tokens of the active set, and what followed the same "
        "words before where that changes no bit (default); active: the former; text: as auto, and "
        "say so where it cannot be; none: decide each token on the whole vocabulary",
    )  # fmt: skip


def add_draft_max(parser: argparse.ArgumentParser) -> None:
    """Add --draft-max."""
    parser.add_argument(
        "--draft-max", type=int, metavar="N",
        help="let a pass of the core take up to N tokens while drafting, 1 to 16 (default: as many "
        "as change no bit; more round otherwise, and texts may leave stock's)",
    )  # fmt: skip
