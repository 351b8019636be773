"""Split a GGUF model into NAME.core.gguf and NAME.vocab.gguf, and prove the split."""

from __future__ import annotations

import argparse
import sys

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.split.split import split_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", metavar="MODEL", help="a GGUF model in one file")
    parser.add_argument(
        "-o", "--out-dir", metavar="DIR", help="target folder (default: the model's)"
    )
    parser.add_argument(
        "--token-embedding-type", metavar="TYPE", help="requantise the token embedding, e.g. q5_0"
    )
    parser.add_argument(
        "--output-tensor-type", metavar="TYPE", help="requantise the LM head, e.g. q4_0"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Split, then print the two paths."""
    with _common.progress_bar("split") as progress:
        files = split_model(
            args.model,
            args.out_dir,
            args.token_embedding_type,
            args.output_tensor_type,
            args.force,
            progress=progress,
        )
    if args.json:
        _common.print_json(files)
        return 0
    p = files.proof
    print(
        f"proof: {p.n_hidden} hidden states and {p.n_logits} logits of {p.n_tokens} tokens are "
        f"bit-identical with the {p.reference} model",
        file=sys.stderr,
    )
    print(files.core)
    print(files.vocab)
    return 0
