"""A model class for the Language Model Evaluation Harness (EleutherAI lm-eval).

``python -m vocabtailor_gguf.evaluation.harness`` is its command line with the model ``vocabtailor``
registered; in Python, importing this module does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from vocabtailor_gguf.errors import UnsupportedError, VocabTailorError
from vocabtailor_gguf.evaluation.chat import CHAT_TEMPLATE, chat_formatter, render
from vocabtailor_gguf.evaluation.generate import Answerer, Question
from vocabtailor_gguf.evaluation.rows import digest
from vocabtailor_gguf.llama import TailoredLlama
from vocabtailor_gguf.runtime.owner import Mode
from vocabtailor_gguf.runtime.states import Over

_DEFAULT_TOKENS = 256  # of an answer, where the task does not say
# how tasks say it, as the harness's own models understand them, the first one first
_MOST_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@register_model("vocabtailor")
class HarnessLM(TemplateLM):  # type: ignore[misc]
    """A split model in one of its modes.

    Log-likelihoods come from a softmax that reads the head in pieces: no array of n_vocab values
    for each position is made. In exact and full mode they are over the vocabulary, in tailored
    mode over the active set, where a continuation's tokens are active because they are given.

    Args:
        model: ``NAME.core.gguf``, or an unsplit model, which is split on its first use.
        vocab: ``NAME.vocab.gguf``; by default the one beside the core.
        mode: ``"exact"``, ``"full"`` or ``"tailored"``.
        token_set: Path of a token set.
        over: In tailored mode, what probabilities add up to one over: ``"active set"`` or
            ``"vocabulary"``.
        n_ctx: Tokens of the context.
        n_threads: Threads, by default one per core.
        batch_size: Taken, since the harness gives it; requests are computed one by one.
        max_batch_size: The same.
        device: The same; there is only the CPU.

    Raises:
        BadFileError: A file cannot be read.
        VocabTailorError: An argument is wrong.
    """

    def __init__(
        self,
        model: str,
        vocab: str | None = None,
        mode: Mode = "exact",
        token_set: str | None = None,
        over: Over = "active set",
        n_ctx: int = 2048,
        n_threads: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.llm = TailoredLlama(
            model,
            vocab_path=vocab,
            mode=mode,
            token_set=token_set,
            logprobs_over=over,
            n_ctx=int(n_ctx),
            n_threads=n_threads,
            n_threads_batch=n_threads,
            verbose=False,
        )

    # ---- tokens ----

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.llm.token_eos())

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context: BOS where the model has one."""
        bos = int(self.llm.token_bos())
        return bos if bos >= 0 else self.eot_token_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Return the (n,) token ids of a text.

        Args:
            string: The text.
            add_special_tokens: Begin with BOS; by default as the model's own tokenizer does, and
                never twice.
            **kwargs: Nothing.
        """
        add = add_special_tokens is not False
        bos = int(self.llm.token_bos())
        # a chat template may have written it
        if bos >= 0 and string.startswith(self.llm._model.token_get_text(bos)):
            add = False
        ids: list[int] = self.llm.tokenize(string.encode("utf-8"), add_bos=add, special=True)
        return ids

    # ---- log-likelihoods ----

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Return log-likelihoods, and whether greedy decoding gives them.

        Requests of one context are computed together; a context is cut at its begin where it does
        not fit, as the harness's own models do.
        """
        found: list[tuple[float, bool] | None] = [None] * len(requests)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (_, context, continuation) in enumerate(requests):
            groups.setdefault(tuple(self._cut(context, continuation)), []).append(i)
        with tqdm(total=len(requests), disable=disable_tqdm) as bar:
            for context_ids, members in groups.items():
                choices = [requests[i][2] for i in members]
                for i, one in zip(members, self._score(context_ids, choices), strict=True):
                    found[i] = one
                    key = requests[i][0]
                    if key is not None:
                        self.cache_hook.add_partial("loglikelihood", key, one)
                bar.update(len(members))
        return [one for one in found if one is not None]

    def _cut(self, context: list[int], continuation: list[int]) -> list[int]:
        room = self.llm.n_ctx() - len(continuation)
        if room < 1:
            raise VocabTailorError(
                f"a continuation of {len(continuation)} tokens: expected fewer than "
                f"n_ctx = {self.llm.n_ctx()}"
            )
        return context[-room:]

    def _score(
        self, context: Sequence[int], choices: Sequence[list[int]]
    ) -> list[tuple[float, bool]]:
        out = []
        for score in self.llm.score_continuations(context, choices, top=1):
            best = [next(iter(top)) for top in score.top]
            out.append((score.total, best == score.tokens.tolist()))
        return out

    def loglikelihood_rolling(
        self, requests: Iterable[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of whole texts, each token after as many as fit."""
        totals = []
        for request in tqdm(list(requests), disable=disable_tqdm):
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            windows = utils.get_rolling_token_windows(
                ids, self.prefix_token_id, self.llm.n_ctx() - 1, 1
            )
            total = 0.0
            for window in windows:
                context, wanted = utils.make_disjoint_window(window)
                total += self._score(context, [wanted])[0][0]
            totals.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # ---- generation ----

    def generate_until(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[str]:
        """Return greedy answers, each up to the first of its stop texts.

        Raises:
            UnsupportedError: A task asks for sampling.
        """
        answers = []
        answerer = Answerer(self.llm)
        for request in tqdm(list(requests), disable=disable_tqdm):
            context, asked = request.args
            stop, max_tokens = _limits(asked)
            room = self.llm.n_ctx() - max_tokens
            if room < 1:
                raise VocabTailorError(
                    f"an answer of {max_tokens} tokens: expected fewer than "
                    f"n_ctx = {self.llm.n_ctx()}"
                )
            ids = self.tok_encode(context)[-room:]
            answer = answerer.answer(Question("", tuple(ids), 0, max_tokens, stop)).text
            answers.append(answer)
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    # ---- chat ----

    @property
    def tokenizer_name(self) -> str:
        """Fingerprint of the tokenizer and its chat template, for the harness's cache."""
        template = digest(self.llm.metadata.get(CHAT_TEMPLATE))
        return f"vocabtailor-{self.llm.store.tokenizer_sha256}-{template}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the model's chat template, where one is asked for.

        Raises:
            UnsupportedError: Another one is asked for by name.
        """
        if isinstance(chat_template, str):
            raise UnsupportedError(f"chat template {chat_template!r}: a model here has only one")
        return self.llm.metadata.get(CHAT_TEMPLATE) if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return turns as one text.

        Without a generation prompt a last turn of the assistant is the begin of the answer, which
        goes on from there: what the template writes after it is left out.

        Raises:
            VocabTailorError: The model has no chat template, or it does not write the last turn.
        """
        formatter = chat_formatter(self.llm, add_generation_prompt=add_generation_prompt)
        text = render(formatter, chat_history)
        if add_generation_prompt or not chat_history or chat_history[-1]["role"] != "assistant":
            return text
        begun = chat_history[-1]["content"]
        for begin in (begun, begun.strip()):  # templates often strip turns
            if (at := text.rfind(begin)) >= 0:
                return text[: at + len(begin)]
        raise VocabTailorError(f"the model's chat template does not write the turn {begun!r}")


def _limits(asked: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Return stop texts and the most tokens of a request's arguments."""
    sampling = asked.get("do_sample")
    if sampling is None:  # where it is False, a temperature says nothing
        sampling = float(asked.get("temperature") or 0) > 0
    if sampling:
        raise UnsupportedError("generate_until: expected greedy decoding, found sampling")
    until = asked.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(s for s in until if s)
    most = (asked[name] for name in _MOST_TOKENS if asked.get(name) is not None)
    return stop, int(next(most, _DEFAULT_TOKENS))


def main() -> None:
    """Run the harness's command line, which then knows the model ``vocabtailor``."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
