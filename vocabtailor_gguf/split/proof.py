"""Prove a split: the same tokens through the unsplit and the split model give the same bits.

The comparison runs in a process of its own, because llama.cpp aborts on models that it does not
expect, and a killed process must not leave files behind.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import _internals as internals

from vocabtailor_gguf.binding.hook import ActiveHead, Hook
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.runtime.log import collect_log, reason
from vocabtailor_gguf.runtime.tokenizer import load_tokenizer
from vocabtailor_gguf.split.merge import merge_model

_SENTENCE = (
    "The river rose by 3.5 metres overnight; 'nobody', she said, had seen it coming. E = mc^2"
)
_N_PREFILL = 40  # tokens decoded at once
_N_STEPS = 4  # tokens decoded one by one after them
_EVERY = 7  # of the prefill's tokens is an output
_N_IDS = 1500  # ids whose logits are compared
_TIMEOUT = 1800  # seconds


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was compared, bit by bit.

    Attributes:
        n_tokens: Tokens decoded.
        n_hidden: Hidden states compared, each of n_embd values.
        n_logits: Logits compared, in all.
        reference: What the split model was compared with: the source, or the merged model where a
            table was requantised.
    """

    n_tokens: int
    n_hidden: int
    n_logits: int
    reference: str


def prove_split(
    source: Path, core_path: Path, vocab_path: Path, *, requantized: bool = False
) -> Proof:
    """Compare a split model with the model it came from.

    Raises:
        VocabTailorError: They differ, or llama.cpp does not run one of them.
    """
    if not requantized:
        return _run(source, core_path, vocab_path, "source")
    with tempfile.TemporaryDirectory(prefix=".merged-", dir=core_path.parent) as folder:
        merged = merge_model(core_path, vocab_path, Path(folder) / "merged.gguf").path
        return _run(merged, core_path, vocab_path, "merged")


def _run(reference: Path, core: Path, vocab: Path, kind: str) -> Proof:
    command = [sys.executable, "-m", __name__, str(reference), str(core), str(vocab)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as e:
        raise VocabTailorError(f"{reference}: the proof took longer than {_TIMEOUT} s") from e
    if done.returncode < 0 or not done.stdout.strip():
        tail = done.stderr.decode("utf-8", errors="replace").strip().splitlines()[-6:]
        raise VocabTailorError(
            f"{reference}: llama.cpp stopped with status {done.returncode} when the split model "
            "was compared with it; the end of its log: " + " | ".join(tail)
        )
    result = json.loads(done.stdout.splitlines()[-1])
    if "error" in result:
        raise VocabTailorError(f"{reference}: the split model is not the same: {result['error']}")
    return Proof(**result, reference=kind)


class _Run:
    """A model that decodes the sample; hidden states and logits are kept output by output."""

    def __init__(self, path: Path, store: VocabStore | None, ids: npt.NDArray[np.int32]) -> None:
        self.head = ActiveHead(store) if store else None
        if self.head:
            self.head.set_static(ids)
        self.hook = Hook(store, self.head)
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        with collect_log(forward=False) as log:
            try:
                self.model = internals.LlamaModel(
                    path_model=str(path), params=model_params, verbose=False
                )
            except ValueError as e:
                raise VocabTailorError(f"llama.cpp cannot load {path.name}: {reason(log)}") from e
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = 2 * (_N_PREFILL + _N_STEPS)
        params.n_batch = params.n_ubatch = _N_PREFILL
        params.n_threads = params.n_threads_batch = 2
        params.n_outputs_max = _N_PREFILL // _EVERY + 2
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.hook.prepare(params)
        self.context = internals.LlamaContext(model=self.model, params=params, verbose=False)
        self.hook.attach(self.context.ctx)
        self.ids = ids

    def decode(
        self, tokens: npt.NDArray[np.int32], pos: int, outputs: npt.NDArray[np.int8]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """Return hidden states (B, n_embd) and logits at the ids, B times (n_ids,)."""
        self.hook.decode(tokens, pos=pos, outputs=outputs)
        return self.hook.hidden(), [
            self._logits(i, int(at)) for i, at in enumerate(np.flatnonzero(outputs))
        ]

    def _logits(self, i: int, at: int) -> npt.NDArray[np.float32]:
        if self.head:
            return self.hook.logits(i)
        n_vocab = self.model.n_vocab()
        pointer: Any = llama_cpp.llama_get_logits_ith(self.context.ctx, at)
        return np.ctypeslib.as_array(pointer, shape=(n_vocab,))[self.ids].copy()

    def close(self) -> None:
        self.context.close()
        self.model.close()
        self.hook.close()
        if self.head:
            self.head.close()


def sample_tokens(store: VocabStore) -> npt.NDArray[np.int32]:
    """Return a fixed (n,) sample of ids: begin of sequence, a sentence, special and random ids."""
    tokenizer = load_tokenizer(store.path)
    if tokenizer.n_vocab() != store.n_vocab:
        raise VocabTailorError(f"the store's tokenizer has {tokenizer.n_vocab()} tokens")
    vocab = tokenizer._model.vocab
    control = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
    special = [
        i for i in range(store.n_vocab) if llama_cpp.llama_vocab_get_attr(vocab, i) & control
    ][:6]
    sentence = tokenizer.tokenize(_SENTENCE.encode(), add_bos=tokenizer.token_bos() >= 0)
    tokenizer.close()
    n_random = _N_PREFILL + _N_STEPS
    random = np.random.default_rng(0).integers(0, store.n_vocab, n_random)
    ids = [*sentence[: _N_PREFILL // 2], *special, *random]
    return np.array(ids[: _N_PREFILL + _N_STEPS], dtype=np.int32)


def compare(reference: Path, core: Path, vocab: Path) -> dict[str, int]:
    """Run both models and compare.

    Raises:
        VocabTailorError: They differ; the text names the first difference.
    """
    with VocabStore(vocab) as store:
        tokens = sample_tokens(store)
        random = np.random.default_rng(1).integers(0, store.n_vocab, _N_IDS)
        ids = np.unique(np.concatenate([random, tokens])).astype(np.int32)
        stock, split = _Run(reference, None, ids), _Run(core, store, ids)
        try:
            return _compare_runs(stock, split, tokens, ids)
        finally:
            split.close()
            stock.close()


def _compare_runs(
    stock: _Run, split: _Run, tokens: npt.NDArray[np.int32], ids: npt.NDArray[np.int32]
) -> dict[str, int]:
    n_hidden = n_logits = 0
    steps = [(0, _N_PREFILL), *((p, p + 1) for p in range(_N_PREFILL, tokens.size))]
    for begin, end in steps:
        outputs = np.zeros(end - begin, dtype=np.int8)
        outputs[::_EVERY] = outputs[-1] = 1
        expected, found = (
            r.decode(tokens[begin:end].copy(), begin, outputs) for r in (stock, split)
        )
        for i, at in enumerate(np.flatnonzero(outputs)):
            where = f"token {begin + at} (id {tokens[begin + at]})"
            _same(expected[0][i], found[0][i], f"hidden state of {where}, value", None)
            _same(expected[1][i], found[1][i], f"logit after {where} of id", ids)
            n_hidden += 1
            n_logits += ids.size
    return {"n_tokens": int(tokens.size), "n_hidden": n_hidden, "n_logits": n_logits}


def _same(
    expected: npt.NDArray[np.float32],
    found: npt.NDArray[np.float32],
    what: str,
    names: npt.NDArray[np.int32] | None,
) -> None:
    different = np.flatnonzero(expected.view(np.uint32) != found.view(np.uint32))
    if different.size:
        i = int(different[0])
        raise VocabTailorError(
            f"{what} {i if names is None else names[i]}: {found[i]!r}, expected {expected[i]!r} "
            f"({different.size} of {expected.size} differ)"
        )


def _main(reference: str, core: str, vocab: str) -> None:
    try:
        result: dict[str, Any] = dict(compare(Path(reference), Path(core), Path(vocab)))
    except (VocabTailorError, ValueError, RuntimeError) as e:
        result = {"error": str(e)}
    print(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
