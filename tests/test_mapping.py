"""How a core is loaded: no weight is in memory twice, unless the caller wants a map."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from exactpair import take
from llama_cpp import LLAMA_LOAD_MODE_MLOCK, LLAMA_LOAD_MODE_MMAP, LLAMA_LOAD_MODE_NONE

from vocabtailor_gguf import TailoredLlama
from vocabtailor_gguf.binding.types import is_repacked
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.gguf.header import GGUFHeader
from vocabtailor_gguf.runtime.mapping import share_copied

F32, Q4_0 = 0, 2
OPTIONS: dict[str, Any] = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


@pytest.mark.parametrize("model", ["tiny", "smollm2"])
def test_load_mode(request: pytest.FixtureRequest, tiny_split: Any, model: str) -> None:
    files = tiny_split("llama") if model == "tiny" else request.getfixturevalue("smollm2_split")
    is_copied = share_copied(GGUFHeader(files.core)) > 0.25
    texts = []
    for mode, options in (
        (LLAMA_LOAD_MODE_NONE if is_copied else LLAMA_LOAD_MODE_MMAP, {}),
        (LLAMA_LOAD_MODE_MMAP, {"use_mmap": True}),
        (LLAMA_LOAD_MODE_NONE, {"use_mmap": False}),
        (LLAMA_LOAD_MODE_MLOCK, {"use_mmap": False, "use_mlock": True}),
    ):
        with contextlib.closing(TailoredLlama(files.core, **OPTIONS, **options)) as llm:
            assert llm.model_params.load_mode == mode
            texts.append(take(llm, [5, 300, 301], 12, temp=0.0))
    assert all(text == texts[0] for text in texts)


def test_what_is_repacked() -> None:
    assert not is_repacked(F32, 64, 64)
    is_repacked(Q4_0, 256, 256)  # whatever this machine does
    for wrong in ((-1, 64, 64), (99, 64, 64), (Q4_0, 33, 64), (Q4_0, 0, 64)):
        with pytest.raises(VocabTailorError):
            is_repacked(*wrong)
