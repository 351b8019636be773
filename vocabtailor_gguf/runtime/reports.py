"""What an engine and a session tell about themselves."""

from __future__ import annotations

import dataclasses

from vocabtailor_gguf.process import process_memory
from vocabtailor_gguf.record import Record
from vocabtailor_gguf.runtime.owner import SessionOwner
from vocabtailor_gguf.runtime.session import Session


@dataclasses.dataclass(frozen=True)
class Stats(Record):
    """Counters since the model was loaded.

    Attributes:
        tokens: Tokens decoded, prompts included.
        ms: Time in the native part, in ms: embedding rows, core, head and sampling.
        ms_core: Of it in llama.cpp's core.
        ms_head: Of it in the LM head, in exact mode the scans of the whole head too.
        ms_sample: Of it in the sampler chain.
        head_rows: Rows of the active set now.
        rows_read: Rows read from the store, of either table.
        misses: Prompt tokens that the static set lacked and that were added for a request.
        drafted: Tokens drafted in exact mode.
        rejected: Of them those that were not the whole vocabulary's choice.
        ms_verify: Time of verification, in ms: scans of the whole head, and what is decided again
            after them. It is part of `ms_head` and `ms_sample`.
        passes: Times that the core was run.
        ahead: Tokens that passes took in exact mode because they had followed the same words
            before, a grammar left hardly anything else, or a draft model said so.
        agreed: Of them those that needed no pass of their own.
        together: Tokens that a pass may take while drafting, as many as change no bit where
            `draft_max` was not given; 1: the text drafts nothing.
        why_alone: The reason where it is 1.
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
    passes: int = 0
    ahead: int = 0
    agreed: int = 0
    together: int = 1
    why_alone: str = ""


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
        tokenizer: llama.cpp's tables of the vocabulary (growth of anonymous
            memory at load, without the parts that are known).
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


def stats_of(session: Session) -> Stats:
    """Return a session's counters."""
    with session.lock:
        session.check_open()
        native = session.native.stats()
        proved = None if session.verifier is None else session.verifier.stats()
        head_rows = session.head.n_rows
    embed, core = native.t_embed_us / 1e3, native.t_core_us / 1e3
    head, sample = native.t_head_us / 1e3, native.t_sample_us / 1e3
    if proved is not None:
        head += proved.t_head_us / 1e3
        sample += proved.t_sample_us / 1e3
    return Stats(
        tokens=int(native.n_decoded),
        ms=embed + core + head + sample,
        ms_core=core,
        ms_head=head,
        ms_sample=sample,
        head_rows=head_rows,
        rows_read=session.engine.store.n_read,
        misses=session.n_missed,
        drafted=0 if proved is None else int(proved.n_drafted),
        rejected=0 if proved is None else int(proved.n_rejected),
        ms_verify=0.0 if proved is None else proved.t_verify_us / 1e3,
        passes=int(native.n_passes),
        ahead=0 if proved is None else int(proved.n_ahead),
        agreed=0 if proved is None else int(proved.n_agreed),
        together=session.together.n,
        why_alone=session.together.why_alone,
    )


def audit_of(session: Session) -> AuditReport:
    """Return what a session's audits found."""
    with session.lock:
        session.check_open()
        if session.verifier is None:
            return AuditReport(audited=0, outside=0, rate=0.0, tokens={})
        native = session.verifier.stats()
        n, outside = int(native.n_audited), int(native.n_outside)
        tokens = session.verifier.missed() if n else {}
    return AuditReport(audited=n, outside=outside, rate=outside / n if n else 0.0, tokens=tokens)


def memory_of(session: Session, *, tokenizer_bytes: int) -> MemoryReport:
    """Return where the memory of a session and its engine goes."""
    now = process_memory()
    with session.lock:
        session.check_open()
        native = session.native.stats()
        return MemoryReport(
            embedding=int(native.n_bytes_hidden),
            head=session.head.n_bytes,
            whole_head=session.engine.whole_head_bytes,
            logits=int(native.n_bytes_logits),
            tokenizer=tokenizer_bytes + session.engine.forms_bytes,
            core=session.engine.core_bytes,
            context=session.context_bytes,
            anon=now.anon,
            file=now.file,
        )


class Reports(SessionOwner):
    """Counters, memory, audits: a part of TailoredLlama."""

    _tokenizer_bytes: int
    _load_ms: dict[str, float]

    @property
    def load_ms(self) -> dict[str, float]:
        """Time of each part of loading by its name, in ms; they were loaded side by side."""
        self._text.check_open()
        return dict(self._load_ms)

    @property
    def stats(self) -> Stats:
        """Counters since the model was loaded."""
        return stats_of(self._text)

    def memory_report(self) -> MemoryReport:
        """Return where the memory goes."""
        return memory_of(self._text, tokenizer_bytes=self._tokenizer_bytes)

    def audit_report(self) -> AuditReport:
        """Return what the audits of tailored mode found since the model was loaded."""
        return audit_of(self._text)
