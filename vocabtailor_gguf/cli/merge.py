"""Put a core and its vocabulary store together again."""

from __future__ import annotations

import argparse
import sys

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.split.merge import merge_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _common.add_core(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the model to write")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Merge, then print the path."""
    merged = merge_model(args.model, args.vocab, args.output, args.force)
    if args.json:
        _common.print_json(merged)
        return 0
    note = (
        "identical with the source of the split"
        if merged.identical
        else ("not the source's bytes: a table was requantised")
    )
    print(f"sha256 {merged.sha256}: {note}", file=sys.stderr)
    print(merged.path)
    return 0
