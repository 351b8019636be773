"""Check that a core and its store are whole and belong together."""

from __future__ import annotations

import argparse

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.split.verify import verify_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _common.add_core(parser)
    parser.add_argument(
        "--source", metavar="MODEL", help="the unsplit model: compare both, bit by bit"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Verify, then say what was found."""
    with _common.progress_bar("verify") as progress:
        found = verify_model(args.model, args.vocab, source=args.source, progress=progress)
    if args.json:
        _common.print_json(dict(found))
        return 0
    print(f"pair {found.pair_id}: sha256 and values of {', '.join(found.tensors)} are right")
    if found.proof:
        p = found.proof
        print(
            f"{p.n_hidden} hidden states and {p.n_logits} logits of {p.n_tokens} tokens are "
            f"bit-identical with the {p.reference} model"
        )
    return 0
