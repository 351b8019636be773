"""What llama_cpp.Llama's sampler chains lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import llama_cpp
from llama_cpp import _internals as internals


def biased(chain: internals.LlamaSampler, bias: Mapping[int, float], n_vocab: int) -> Any:
    """Return a chain that adds to the logits of some tokens, then goes on as `chain`.

    Args:
        chain: Its samplers move to the new chain.
        bias: Token ids, and what is added to their logits.
        n_vocab: Tokens of the vocabulary.
    """
    array = (llama_cpp.llama_logit_bias * len(bias))(
        *(llama_cpp.llama_logit_bias(token, value) for token, value in bias.items())
    )
    out = internals.LlamaSampler()
    sampler = llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(bias), array)
    llama_cpp.llama_sampler_chain_add(out.sampler, sampler)
    for _ in range(llama_cpp.llama_sampler_chain_n(chain.sampler)):
        moved = llama_cpp.llama_sampler_chain_remove(chain.sampler, 0)
        llama_cpp.llama_sampler_chain_add(out.sampler, moved)
    chain.close()
    return out
