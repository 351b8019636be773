"""The one-call way from a corpus to a token set."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vocabtailor_gguf.profiling.profile import profile
from vocabtailor_gguf.profiling.tasks import get_task
from vocabtailor_gguf.sets.token_set import TokenSet


def profile_corpus(
    vocab_path: str | os.PathLike[str],
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    input_field: str | None = None,
    output_field: str | None = None,
    task: str | None = None,
    script: str | Sequence[str] = (),
    tolerance: float = 0.01,
    rows: int | None = None,
    recipe: str | None = None,
    languages: Sequence[str] = (),
    n_words: int = 20_000,
    n_processes: int | None = None,
    skip_bad: bool = False,
) -> TokenSet:
    """Profile a corpus into a static token set.

    Args:
        vocab_path: ``NAME.vocab.gguf``.
        data: A file, a glob or several: JSONL, JSON, CSV, TSV, Parquet, text; compressed by
            gzip, bzip2, xz or Zstandard too.
        input_field: Field of the text that is given; None for data without inputs.
        output_field: Field of the text that is wanted.
        task: A preset of fields and templates: translation, summarisation, extraction, code,
            maths or text. By default what the fields say: translation with an input, else text.
        script: Unicode scripts to keep, such as ``"latin"``; none keeps all.
        tolerance: Share of documents that may lose a token (stage 3).
        rows: A budget of rows instead of a tolerance.
        recipe: ``"small"``, ``"balanced"`` or ``"wide"`` instead of a tolerance or a budget.
        languages: Languages whose word lists join the set.
        n_words: Words of each language.
        n_processes: Processes that tokenise; by default one per core.
        skip_bad: Leave out bad records instead of stopping.

    Returns:
        The set; always-on tokens are not in it. Its provenance has the counts of each stage.

    Raises:
        BadFileError: A file or a record cannot be used.
        VocabTailorError: An argument is wrong.

    Example:
        >>> import json
        >>> line = json.dumps({"source": "good", "target": "bello bello"})
        >>> _ = (OUT / "train.jsonl").write_text(line)
        >>> ts = profile_corpus(VOCAB, OUT / "train.jsonl", task="translation", tolerance=0)
        >>> len(ts) > 0
        True
    """
    name = task or ("translation" if input_field else "text")
    chosen = get_task(name, input_field=input_field, output_field=output_field)
    files = [data] if isinstance(data, str | os.PathLike) else list(data)
    found = profile(
        vocab_path,
        [os.fspath(f) for f in files],
        task=chosen,
        scripts=[script] if isinstance(script, str) else script,
        languages=languages,
        n_words=n_words,
        n_processes=n_processes,
        skip_bad=skip_bad,
    )
    if recipe is not None:
        return found.of_recipe(recipe)
    return found.at_tolerance(tolerance) if rows is None else found.with_rows(rows)
