"""Models from a hub, which a folder stands for."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exactpair import COMMON, PROMPTS, take

from vocabtailor_gguf import TailoredLlama

REPO = "someone/tiny-GGUF"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of a repository that huggingface_hub seems to hold."""
    repository, cache = tmp_path / "hub", tmp_path / "downloads"
    repository.mkdir()
    monkeypatch.setenv("VOCABTAILOR_CACHE", str(tmp_path / "cache"))

    class FileSystem:
        def ls(self, repo_id: str, recursive: bool) -> list[str]:
            return [f"{repo_id}/{p.name}" for p in sorted(repository.iterdir())]

    def download(repo_id: str, filename: str, **options: Any) -> str:
        cache.mkdir(exist_ok=True)
        if not options.get("local_files_only"):
            shutil.copy(repository / filename, cache / filename)
        return str(cache / filename)

    module: Any = types.ModuleType("huggingface_hub")
    module.HfFileSystem, module.hf_hub_download = FileSystem, download
    utils: Any = types.ModuleType("huggingface_hub.utils")
    utils.validate_repo_id = lambda repo_id: None
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    return repository


def test_an_unsplit_model_is_split_on_arrival(
    hub: Path, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copy(tiny("llama"), hub / "tiny-Q8_0.gguf")
    expected = None
    for _ in range(2):
        llm = TailoredLlama.from_pretrained(REPO, "*Q8_0.gguf", mode="full", **COMMON)
        assert (tmp_path / "cache") in Path(llm.model_path).parents
        assert llm.mode == "full"
        found = take(llm, PROMPTS[0], 8, temp=0.0)
        assert expected in (None, found)
        expected = found
        llm.close()


@pytest.mark.parametrize("filename", ["*.core.gguf", "tiny.core.gguf"])
def test_a_split_model_works_as_it_is(
    hub: Path, tiny_split: Callable[..., Any], tmp_path: Path, filename: str
) -> None:
    files = tiny_split("llama")
    shutil.copy(files.core, hub / "tiny.core.gguf")
    shutil.copy(files.vocab, hub / "tiny.vocab.gguf")
    (hub / "README.md").write_text("x")
    llm = TailoredLlama.from_pretrained(REPO, filename, additional_files=["README.md"], **COMMON)
    assert Path(llm.model_path) == tmp_path / "downloads" / "tiny.core.gguf"
    assert (tmp_path / "downloads" / "README.md").exists()
    assert len(take(llm, PROMPTS[0], 8, temp=0.0)) == 8
    llm.close()
    assert not list((tmp_path / "cache").glob("*/*.gguf"))  # nothing was split


def test_what_a_repository_lacks(hub: Path, tiny_split: Callable[..., Any]) -> None:
    shutil.copy(tiny_split("llama").core, hub / "tiny.core.gguf")
    for filename, lacking in (("other.gguf", "other.gguf"), ("*.core.gguf", "vocab.gguf")):
        with pytest.raises(ValueError, match=lacking):
            TailoredLlama.from_pretrained(REPO, filename, **COMMON)
