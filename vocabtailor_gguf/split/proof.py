"""Prove a split: the same tokens through the unsplit and the split model give the same bits.

The comparison runs in a process of its own, because llama.cpp aborts on models that it does not
expect, and a killed process must not leave files behind. The unsplit model runs to its end before
the split one is loaded, so that a crash names its culprit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.atomic import temporary_folder
from vocabtailor_gguf.binding.head import ActiveHead
from vocabtailor_gguf.binding.session import NativeSession
from vocabtailor_gguf.binding.store import VocabStore
from vocabtailor_gguf.child import mark, run_child
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.runtime import backend
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

_CHILD = __name__  # the module that runs in a process of its own
_ADVICE = '; "vocabtailor doctor" tells more'
# stages of the child: who is at fault when it crashes, and when it gives an error
_WHO = {
    "": "the proof of the split did not start",
    "vocabulary": "llama.cpp itself cannot load this model's vocabulary on this machine",
    "stock": "llama.cpp itself cannot run this model on this machine",
    "split": "llama.cpp runs this model, but the split model stopped it",
    "comparison": "the comparison of the split model with the unsplit one failed",
}
_WRONG = {
    "": _WHO[""],
    "vocabulary": "the vocabulary cannot be used",
    "stock": "llama.cpp itself cannot run this model",
    "split": "llama.cpp runs this model, but not the split one",
    "comparison": "the split model is not the same",
}


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
        return _run(source, source, core_path, vocab_path)
    with temporary_folder(core_path) as folder:
        merged = merge_model(core_path, vocab_path, folder / "merged.gguf").path
        return _run(source, merged, core_path, vocab_path)


def _run(source: Path, reference: Path, core: Path, vocab: Path) -> Proof:
    ended = run_child(_CHILD, reference, core, vocab, timeout=_TIMEOUT)
    kind = "source" if reference == source else "merged"
    where = f"{source}: " if kind == "source" else f"{source}: with the new tensor types: "
    if ended.result is None:
        raise VocabTailorError(f"{where}{_WHO[ended.stage]}: {ended.sentence}{_ADVICE}")
    if "error" in ended.result:
        raise VocabTailorError(f"{where}{_WRONG[ended.stage]}: {ended.result['error']}")
    return Proof(**ended.result, reference=kind)


class _Run:
    """A model that decodes the sample; hidden states and logits are kept output by output."""

    def __init__(self, path: Path, store: VocabStore | None, ids: npt.NDArray[np.int32]) -> None:
        self.head = ActiveHead(store) if store else None
        if self.head:
            self.head.set_static(ids)
        self.session = NativeSession(store, self.head)
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = backend.load_model(path, model_params, forward=False)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = 2 * (_N_PREFILL + _N_STEPS)
        params.n_batch = params.n_ubatch = _N_PREFILL
        params.n_threads = params.n_threads_batch = 2
        params.n_outputs_max = _N_PREFILL // _EVERY + 2
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.session.prepare(params)
        self.context = backend.new_context(self.model, params)
        self.session.attach(self.context.ctx)
        self.ids = ids

    def decode(
        self, tokens: npt.NDArray[np.int32], pos: int, outputs: npt.NDArray[np.int8]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """Return hidden states (B, n_embd) and logits at the ids, B times (n_ids,)."""
        self.session.decode(tokens, pos=pos, outputs=outputs)
        return self.session.hidden(), [
            self._logits(i, int(at)) for i, at in enumerate(np.flatnonzero(outputs))
        ]

    def _logits(self, i: int, at: int) -> npt.NDArray[np.float32]:
        if self.head:
            return self.session.logits(i)
        n_vocab = self.model.n_vocab()
        pointer: Any = llama_cpp.llama_get_logits_ith(self.context.ctx, at)
        return np.ctypeslib.as_array(pointer, shape=(n_vocab,))[self.ids].copy()

    def close(self) -> None:
        self.context.close()
        self.model.close()
        self.session.close()
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


_Output = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.float32]]


def _outputs(
    path: Path,
    store: VocabStore | None,
    tokens: npt.NDArray[np.int32],
    ids: npt.NDArray[np.int32],
) -> list[_Output]:
    """Run a model on the sample: where, hidden state (n_embd,), logits (n_ids,) of each output."""
    found: list[_Output] = []
    with contextlib.closing(_Run(path, store, ids)) as run:
        steps = [(0, _N_PREFILL), *((p, p + 1) for p in range(_N_PREFILL, tokens.size))]
        for begin, end in steps:
            outputs = np.zeros(end - begin, dtype=np.int8)
            outputs[::_EVERY] = outputs[-1] = 1
            hidden, logits = run.decode(tokens[begin:end].copy(), begin, outputs)
            for i, at in enumerate(np.flatnonzero(outputs)):
                where = f"token {begin + at} (id {tokens[begin + at]})"
                found.append((where, hidden[i], logits[i]))
    return found


def compare(reference: Path, core: Path, vocab: Path) -> dict[str, int]:
    """Run one model after the other, and compare.

    Raises:
        VocabTailorError: They differ; the text names the first difference.
    """
    mark("vocabulary")
    with VocabStore(vocab) as store:
        tokens = sample_tokens(store)
        random = np.random.default_rng(1).integers(0, store.n_vocab, _N_IDS)
        ids = np.unique(np.concatenate([random, tokens])).astype(np.int32)
        mark("stock")
        expected = _outputs(reference, None, tokens, ids)
        mark("split")
        found = _outputs(core, store, tokens, ids)
    mark("comparison")
    for ours, theirs in zip(found, expected, strict=True):
        _same(theirs[1], ours[1], f"hidden state of {ours[0]}, value", None)
        _same(theirs[2], ours[2], f"logit after {ours[0]} of id", ids)
    n = len(found)
    return {"n_tokens": int(tokens.size), "n_hidden": n, "n_logits": n * ids.size}


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
