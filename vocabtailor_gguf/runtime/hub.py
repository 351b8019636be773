"""Models of the Hugging Face hub: a part of TailoredLlama."""

from __future__ import annotations

from typing import Any

from vocabtailor_gguf.gguf.pair import CORE_SUFFIX, VOCAB_SUFFIX
from vocabtailor_gguf.runtime.owner import SessionOwner


class Hub(SessionOwner):
    """Loading by the name of a repository."""

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None,
        additional_files: list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Load a model of the Hugging Face hub; as ``llama_cpp.Llama.from_pretrained``.

        An unsplit model is split into the cache when it arrives. Where `filename` ends in
        ``.core.gguf`` the store beside it comes too.

        Raises:
            ValueError: There is no such file, or more than one.
        """
        more = list(additional_files or ())
        if filename is not None and filename.endswith(CORE_SUFFIX):
            more.append(filename.removesuffix(CORE_SUFFIX) + VOCAB_SUFFIX)
        upstream: Any = super()
        return upstream.from_pretrained(repo_id, filename, more or None, *args, **kwargs)
