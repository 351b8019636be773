"""Models of the Hugging Face hub, which lie in the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocabtailor_gguf.errors import BadFileError, UnsupportedError, VocabTailorError

DEFAULT = "Q4_K_M"

_CORE, _VOCAB = ".core.gguf", ".vocab.gguf"
# parts of models, and what is no language model
_OTHERS = re.compile(r"-\d{5}-of-\d{5}\.gguf$|(^|/)mmproj|imatrix", re.IGNORECASE)


@dataclass(frozen=True)
class HubModel:
    """Files of a repository, fetched.

    Attributes:
        model: An unsplit model, or ``NAME.core.gguf``.
        vocab: With a core, its store.
    """

    model: Path
    vocab: Path | None = None


def choose(names: Sequence[str], wanted: str | None, where: str) -> str:
    """Return the model that is meant by a file name, a quantisation or nothing.

    Args:
        names: Files of a repository.
        wanted: A file name, or what comes last in one, like ``Q8_0``; by default `DEFAULT`, else
            the only model.
        where: How errors begin.

    Raises:
        BadFileError: There is none, or there are several; the text lists them.

    Example:
        >>> choose(["m-Q4_K_M.gguf", "m-Q8_0.gguf"], "q8_0", "me/m")
        'm-Q8_0.gguf'
    """
    if wanted in names:
        return str(wanted)
    models = [n for n in names if n.endswith(".gguf") and not _OTHERS.search(n)]
    models = [n for n in models if not n.endswith(_VOCAB)]
    found = [n for n in models if _quantisation_is(n, wanted or DEFAULT)]
    if wanted is None and not found:
        found = models
    if len(found) == 1:
        return found[0]
    shown = ", ".join(found or models) or "no GGUF model"
    asked = f"{wanted}: " if wanted else ""
    raise BadFileError(f"{where}: {asked}found {shown}, expected one; name it as REPO:FILE")


def _quantisation_is(name: str, wanted: str) -> bool:
    stem = name.removesuffix(_CORE).removesuffix(".gguf").lower()
    return re.search(rf"(^|[-._/]){re.escape(wanted.lower())}$", stem) is not None


def fetch(asked: str) -> HubModel:
    """Fetch a model, or take it from the hub's cache.

    A repository that holds a core has its store beside it. Without a network the files of the
    cache are what there is.

    Args:
        asked: ``REPO``, or ``REPO:FILE`` as in `choose`; ``REPO`` is ``OWNER/NAME``.

    Raises:
        BadFileError: There is no such repository or file, or it cannot be fetched.
        UnsupportedError: The package ``huggingface_hub`` is not installed.
    """
    repo, _, wanted = asked.partition(":")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
    except ImportError as e:
        raise UnsupportedError(
            "models of the hub need the package huggingface_hub: pip install 'vocabtailor_gguf[hf]'"
        ) from e
    try:
        names, revision = _listed(repo)
        name = choose(names, wanted or None, repo)
        paths = [
            Path(huggingface_hub.hf_hub_download(repo, n, revision=revision))
            for n in _with_store(name, names, repo)
        ]
    except VocabTailorError:
        raise
    except (HFValidationError, OSError, RuntimeError) as e:
        raise BadFileError(f"{repo}: cannot be fetched: {_first_line(e)}") from e
    return HubModel(*paths)


def _listed(repo: str) -> tuple[list[str], str]:
    """Return the files of a repository and its newest revision, or of that in the cache."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = huggingface_hub.HfApi().model_info(repo)
        return [f.rfilename for f in info.siblings or ()], str(info.sha)
    except HfHubHTTPError:  # the hub's answer
        raise
    except Exception as unreachable:  # of the HTTP library, which differs between versions
        try:
            return _kept(repo)
        except LookupError:
            raise OSError(f"the hub cannot be reached: {_first_line(unreachable)}") from unreachable


def _kept(repo: str) -> tuple[list[str], str]:
    """Return the files of the newest revision in the cache, and its hash."""
    import huggingface_hub

    try:
        repos = huggingface_hub.scan_cache_dir().repos
    except huggingface_hub.CacheNotFound as e:
        raise LookupError(repo) from e
    found = [r for kept in repos if kept.repo_id == repo for r in kept.revisions if r.files]
    if not found:
        raise LookupError(repo)
    newest = max(found, key=lambda r: r.last_modified)
    folder = Path(newest.snapshot_path)
    names = [Path(f.file_path).relative_to(folder).as_posix() for f in newest.files]
    return sorted(names), str(newest.commit_hash)


def _with_store(name: str, names: Sequence[str], repo: str) -> list[str]:
    if not name.endswith(_CORE):
        return [name]
    store = name.removesuffix(_CORE) + _VOCAB
    if store not in names:
        raise BadFileError(f"{repo}: {name}: found no {store} beside it")
    return [name, store]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
