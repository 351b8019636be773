"""What a TailoredLlama tells about itself."""

from __future__ import annotations

import dataclasses

from vocabtailor_gguf.record import Record


@dataclasses.dataclass(frozen=True)
class Stats(Record):
    """Counters since the model was loaded.

    Attributes:
        tokens: Tokens decoded, prompts included.
        ms: Time in the native part, in ms: embedding rows, core, head and sampling.
        ms_core: Of it in llama.cpp's core.
        ms_head: Of it in the LM head.
        ms_sample: Of it in the sampler chain.
        head_rows: Rows of the active set now.
        rows_read: Rows read from the store, of either table.
        misses: Prompt tokens that the static set lacked and that were added for a request.
        drafted: Tokens drafted in exact mode.
        rejected: Of them those that were not the whole vocabulary's choice.
        ms_verify: Time of the scans of the whole head, in ms; not part of `ms`.
    """

    tokens: int
    ms: float
    ms_core: float
    ms_head: float
    ms_sample: float
    head_rows: int
    rows_read: int
    misses: int
    drafted: int = 0
    rejected: int = 0
    ms_verify: float = 0.0


@dataclasses.dataclass(frozen=True)
class AuditReport(Record):
    """How often the whole vocabulary's choice lay outside the active set.

    Attributes:
        audited: Steps that were checked.
        outside: Of them those whose choice was not active.
        rate: Their share, 0 where nothing was checked.
        tokens: These tokens, and how often each.
    """

    audited: int
    outside: int
    rate: float
    tokens: dict[int, int]


@dataclasses.dataclass(frozen=True)
class MemoryReport(Record):
    """Memory in bytes. Parts measured from the system are 0 where it does not tell.

    Attributes:
        embedding: Embedding rows of the current batch, and hidden states.
        head: Rows of the active set.
        whole_head: Rows of the whole vocabulary that exact mode or an audit keeps in memory; where
            they are mapped, they are part of `file` instead.
        logits: Logits and sampling candidates.
        tokenizer: llama.cpp's tables of the vocabulary (growth of anonymous memory at load).
        core: Tensors of the core, mapped from its file.
        context: KV cache and compute buffers (growth of allocated memory when it was made).
        anon: Anonymous resident memory of the whole process.
        file: File-backed resident memory of the whole process.
    """

    embedding: int
    head: int
    whole_head: int
    logits: int
    tokenizer: int
    core: int
    context: int
    anon: int
    file: int
