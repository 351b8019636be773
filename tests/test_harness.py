"""The model class for lm-eval, against stock llama-cpp-python through the same harness."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("default")  # those of the harness are not ours

NEAR = 1e-4  # of a sum of some log-probabilities
CHOICES = [
    {"q": "The water of the number", "choices": [" time", " people"], "gold": 0, "text": "time"},
    {"q": "Hello", "choices": [" world", " way of the word", " x"], "gold": 1, "text": "way"},
    {"q": "He said", "choices": [" first", " than"], "gold": 1, "text": "than that"},
]


@pytest.fixture
def tasks(tmp_path: Path) -> list[dict[str, Any]]:
    """One task of each kind of request, whose data are a local file."""
    data = tmp_path / "rows.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in CHOICES), encoding="utf-8")
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(tmp_path / "cache"),
        },
        "test_split": "test",
    }
    return [
        {
            **common,
            **{"task": "choose", "output_type": "multiple_choice", "doc_to_text": "{{q}}"},
            **{"doc_to_choice": "choices", "doc_to_target": "gold", "target_delimiter": ""},
            "metric_list": [{"metric": "acc"}],
        },
        {
            **common,
            **{"task": "roll", "output_type": "loglikelihood_rolling", "doc_to_text": ""},
            **{
                "doc_to_target": "{{q}} {{text}} {{q}}",
                "metric_list": [{"metric": "bits_per_byte"}],
            },
        },
        {
            **common,
            **{"task": "write", "output_type": "generate_until", "doc_to_text": "{{q}}"},
            **{"doc_to_target": "text", "metric_list": [{"metric": "exact_match"}]},
            "generation_kwargs": {"until": ["e"], "max_gen_toks": 12, "do_sample": False},
        },
    ]


def stock_class() -> type[Any]:
    """Return stock llama-cpp-python as a model of the harness, the plain way."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Stock(TemplateLM):
        def __init__(self, path: Path, n_ctx: int) -> None:
            super().__init__()
            self.llm = llama_cpp.Llama(
                str(path), n_ctx=n_ctx, n_threads=1, n_threads_batch=1, logits_all=True,
                verbose=False,
            )  # fmt: skip

        @property
        def eot_token_id(self) -> int:
            return int(self.llm.token_eos())

        @property
        def prefix_token_id(self) -> int:
            return int(self.llm.token_bos())

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
        ) -> list[int]:
            add = add_special_tokens is not False
            return list(self.llm.tokenize(string.encode(), add_bos=add, special=True))

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = False, **kwargs: Any
        ) -> list[tuple[float, bool]]:
            out = []
            for _, context, wanted in requests:
                ids = [*context, *wanted]
                self.llm.reset()
                self.llm.eval(ids)
                logits = self.llm.scores[len(context) - 1 : len(ids) - 1].astype(np.float64)
                logits -= logits.max(axis=1, keepdims=True)
                logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
                total = logprobs[np.arange(len(wanted)), wanted].sum()
                out.append((float(total), logits.argmax(axis=1).tolist() == wanted))
            return out

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            totals = []
            for request in requests:
                ids = self.tok_encode(request.args[0], add_special_tokens=False)
                windows = get_rolling_token_windows(
                    ids, self.prefix_token_id, self.llm.n_ctx() - 1, 1
                )
                pairs = [(None, *make_disjoint_window(w)) for w in windows]
                totals.append(sum(one for one, _ in self._loglikelihood_tokens(pairs)))
            return totals

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            answers = []
            for request in requests:
                context, asked = request.args
                text = b""
                tokens = self.llm.generate(self.tok_encode(context), temp=0.0)
                for token in itertools.islice(tokens, asked["max_gen_toks"]):
                    if llama_cpp.llama_vocab_is_eog(self.llm._model.vocab, token):
                        break
                    text += self.llm.detokenize([token], special=False)
                    if asked["until"][0].encode() in text:
                        break
                answers.append(text.decode("utf-8", "replace").split(asked["until"][0])[0])
            return answers

    return Stock


def evaluated(lm: Any, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    # reading the thousands of tasks that come with the harness takes longer than all the rest
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=TaskManager(include_defaults=False),
    )
    assert isinstance(found, dict)
    return found


def compare(stock: dict[str, Any], found: dict[str, Any]) -> None:
    """Every request has the same answer, and every metric the same value."""
    for task in ("choose", "roll", "write"):
        pairs = list(zip(stock["samples"][task], found["samples"][task], strict=True))
        assert len(pairs) == len(CHOICES)
        for a, b in pairs:
            assert a["arguments"] == b["arguments"]
            if task == "write":
                assert a["resps"] == b["resps"]
                continue
            for x, y in zip(np.ravel(a["resps"]), np.ravel(b["resps"]), strict=True):
                assert float(x) == pytest.approx(float(y), abs=NEAR)
        for name, value in stock["results"][task].items():
            if isinstance(value, float):
                assert found["results"][task][name] == pytest.approx(value, abs=NEAR)


@pytest.fixture
def harness_lm(tiny_split: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    from vocabtailor_gguf.evaluation.harness import HarnessLM

    with contextlib.ExitStack() as stack:

        def get(core: Path | None = None, name: str = "llama", **options: Any) -> Any:
            path = str(core or tiny_split(name).core)
            lm = HarnessLM(path, **{"n_ctx": 256, "n_threads": 1, **options})
            stack.callback(lm.llm.close)
            return lm

        yield get


@pytest.mark.parametrize("name", ["llama", "gemma2", "mamba"])
def test_full_and_exact_mode_are_stock(
    tiny: Any, harness_lm: Callable[..., Any], tasks: list[dict[str, Any]], name: str
) -> None:
    stock = evaluated(stock_class()(tiny(name), 256), tasks)
    for mode in ("full", "exact"):
        compare(stock, evaluated(harness_lm(name=name, mode=mode), tasks))


@pytest.mark.model
def test_full_and_exact_mode_of_a_real_model_are_stock(
    smollm2: Path, smollm2_split: Any, harness_lm: Callable[..., Any], tasks: list[dict[str, Any]]
) -> None:
    stock = evaluated(stock_class()(smollm2, 256), tasks)
    for mode in ("full", "exact"):
        compare(stock, evaluated(harness_lm(smollm2_split.core, mode=mode), tasks))


def test_tailored_mode(harness_lm: Callable[..., Any], tasks: list[dict[str, Any]]) -> None:
    """Over fewer tokens the same ones are likelier; over the vocabulary they are as likely."""
    full = evaluated(harness_lm(mode="full"), tasks[:1])
    active = evaluated(harness_lm(mode="tailored"), tasks[:1])
    whole = evaluated(harness_lm(mode="tailored", over="vocabulary"), tasks[:1])
    resps = [
        np.array([float(r[0]) for s in found["samples"]["choose"] for r in s["filtered_resps"]])
        for found in (full, active, whole)
    ]
    assert (resps[1] > resps[0]).all()
    assert resps[2] == pytest.approx(resps[0], abs=NEAR)


def test_tokens_and_windows(harness_lm: Callable[..., Any]) -> None:
    from lm_eval.api.instance import Instance

    lm = harness_lm(mode="full")
    assert lm.tok_encode("<s>hello") == lm.tok_encode("hello")
    assert lm.tok_encode("hello", add_special_tokens=False)[0] != lm.prefix_token_id
    text = "the water of the number " * 40

    def request(kind: str, *arguments: Any) -> Instance:
        return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    ids = lm.tok_encode(text, add_special_tokens=False)
    assert len(ids) > lm.llm.n_ctx()
    (total,) = lm.loglikelihood_rolling([request("loglikelihood_rolling", text)])
    n = lm.llm.n_ctx() - 1
    expected = lm.llm.score([lm.prefix_token_id, *ids[:n]]).total
    begin = len(ids) - n - 1
    expected += lm.llm.score_continuations(ids[begin:n], [ids[n:]])[0].total
    assert total == pytest.approx(expected, abs=NEAR)
    # a context that is too long loses its begin
    ((found, _),) = lm._loglikelihood_tokens([(None, ids, [5, 6])], disable_tqdm=True)
    expected = lm.llm.score_continuations(ids[-(n - 1) :], [[5, 6]])[0].total
    assert found == pytest.approx(expected, abs=NEAR)
    with pytest.raises(VocabTailorError, match="continuation"):
        lm.loglikelihood([request("loglikelihood", "a", text)])
    with pytest.raises(UnsupportedError, match="greedy"):
        lm.generate_until([request("generate_until", "a", {"do_sample": True})])
    with pytest.raises(VocabTailorError, match="expected fewer"):
        lm.generate_until([request("generate_until", "a", {"max_gen_toks": 256})])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ((), 256)),
        ({"until": "\n", "max_new_tokens": 7}, (("\n",), 7)),
        ({"until": ["a", "", "b"], "max_completion_tokens": 8}, (("a", "b"), 8)),
        ({"max_tokens": 9, "max_gen_toks": 5}, ((), 5)),
        ({"do_sample": False, "temperature": 1.0}, ((), 256)),
    ],
)
def test_what_tasks_ask_of_an_answer(asked: dict[str, Any], expected: Any) -> None:
    from vocabtailor_gguf.evaluation.harness import _limits

    assert _limits(asked) == expected


def test_chat_templates(harness_lm: Callable[..., Any]) -> None:
    chats = harness_lm(name="qwen2")
    turns = [{"role": "user", "content": "Hi"}]
    text = "<|im_start|>user\nHi<|im_end|>\n"
    assert chats.apply_chat_template(turns) == f"{text}<|im_start|>assistant\n"
    assert chats.apply_chat_template(turns, add_generation_prompt=False) == text
    assert "im_start" in chats.chat_template(True) and chats.chat_template(False) is None
    begun = [*turns, {"role": "assistant", "content": "Hi, "}]
    # an answer that a task has begun goes on: no end of the turn
    expected = f"{text}<|im_start|>assistant\nHi, "
    assert chats.apply_chat_template(begun, add_generation_prompt=False) == expected
    assert chats.tokenizer_name != harness_lm().tokenizer_name
    name = chats.tokenizer_name
    chats.llm.metadata["tokenizer.chat_template"] += " "
    assert chats.tokenizer_name != name  # of the same tokenizer, but prompts are others
    with pytest.raises(VocabTailorError, match="no chat template"):
        harness_lm().apply_chat_template(turns)


@pytest.mark.slow
def test_the_command_line_knows_the_model(
    tiny_split: Callable[..., Any], tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    import yaml

    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "choose.yaml").write_text(yaml.safe_dump(tasks[0]), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vocabtailor_gguf.evaluation.harness"),
            *("run", "--model", "vocabtailor", "--include_path", str(folder)),
            *("--model_args", f"model={tiny_split('llama').core},n_ctx=256,n_threads=1"),
            *("--tasks", "choose"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "choose" in done.stdout and "acc" in done.stdout
