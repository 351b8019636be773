"""Score a text: how likely the model finds each token, and its perplexity."""

from __future__ import annotations

import argparse
import math

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.cli import _common
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.llama import TailoredLlama


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _common.add_core(parser, or_unsplit=True)
    parser.add_argument(
        "-f", "--file", required=True, metavar="FILE", help="the text, UTF-8; - for standard input"
    )
    parser.add_argument(
        "-c", "--ctx-size", type=_common.positive, default=2048, metavar="N",
        help="tokens of a window; longer texts are scored in windows that overlap by half",
    )  # fmt: skip
    parser.add_argument("-t", "--threads", type=_common.positive, metavar="N")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Score, then print perplexity and its standard error."""
    text = _common.read_text(args.file)
    core, vocab = _common.find_files(args)
    llm = TailoredLlama(
        core,
        vocab_path=vocab,
        n_ctx=args.ctx_size,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        verbose=False,
    )
    try:
        tokens = llm.tokenize(text.encode("utf-8"), add_bos=True, special=False)
        found = _windows(llm, tokens)
    finally:
        llm.close()
    if found.size == 0:
        raise VocabTailorError(f"{args.file}: {len(tokens)} tokens, expected two at least")
    mean = -float(found.mean())
    error = float(found.std(ddof=1)) / math.sqrt(found.size) if found.size > 1 else math.nan
    perplexity = math.exp(mean)
    if args.json:
        _common.print_json(
            {
                "tokens": len(tokens),
                "scored": int(found.size),
                "mean_logprob": -mean,
                "perplexity": perplexity,
                "perplexity_error": None if math.isnan(error) else perplexity * error,
            }
        )
        return 0
    print(f"perplexity {perplexity:.4f} +/- {perplexity * error:.4f} over {found.size:,} tokens")
    return 0


def _windows(llm: TailoredLlama, tokens: list[int]) -> npt.NDArray[np.float64]:
    """Return the log-probability of each token but the first, with half a window before it."""
    size = llm.n_ctx()
    step = max(size // 2, 1)
    parts: list[npt.NDArray[np.float32]] = []
    done = 1
    with _common.progress_bar("score", unit="tokens") as progress:
        for begin in range(0, max(len(tokens) - 1, 0), step):
            window = tokens[begin : begin + size]
            logprobs = llm.score(window).logprobs
            parts.append(logprobs[done - begin :])
            done = begin + len(window)
            progress(done, len(tokens))
            if done == len(tokens):
                break
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
