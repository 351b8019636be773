"""What a completion tells of its log-probabilities, from the hidden states of its tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vocabtailor_gguf.runtime import states
from vocabtailor_gguf.runtime.score import top_dicts
from vocabtailor_gguf.runtime.session import Session
from vocabtailor_gguf.runtime.states import Over


class Record:
    """The tokens of a completion, and what they and others had for probabilities in their places.

    ``llama_cpp.Llama`` pairs rows of scores with a list of tokens, from the row of the last token
    of the prompt on, or with ``echo`` from the first row; so does this. Rows are computed while the
    request lives, because then its active set is there, and all at once where it is not streamed.

    Args:
        n_top: Best tokens of each row; below 0 it counts from the end, as a slice does.
        lead: Tokens of the completion that are not generated: where the prompt is empty, a BOS.
        bos: The token that a prompt may begin with.
        echo: Whether the prompt is part of the completion.
        over: The tokens whose probabilities add up to 1.
    """

    def __init__(self, n_top: int, *, lead: list[int], bos: int, echo: bool, over: Over) -> None:
        self.over = over
        self.prompt: list[int] = []
        self.tokens: list[int] = []  # of the list that is paired with rows
        self._n_top = n_top
        self.lead = lead
        self._bos = bos
        self._echo = echo
        self._session: Session | None = None
        self._holder: object | None = None
        self._from = self._n_rows = 0
        self._rows: dict[int, dict[int, float]] = {}
        self._logprobs: dict[tuple[int, int], float] = {}

    @property
    def completion(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[self._n_echoed :]

    @property
    def _n_echoed(self) -> int:
        if not self._echo or not self.prompt:
            return 0
        return len(self.prompt) - (self.prompt[0] == self._bos)

    def first(self, prompt: npt.NDArray[np.int32]) -> int:
        """Return the first row that is paired with a token of the list."""
        return 0 if self._echo else max(int(prompt.size) - 1, 0)

    @contextlib.contextmanager
    def follow(
        self, session: Session, prompt: npt.NDArray[np.int32]
    ) -> Iterator[Callable[[int], None]]:
        """Follow the live request of a session; yields what notes a generated token."""
        self.prompt = prompt.tolist()
        echoed = self.prompt[len(self.prompt) - self._n_echoed :] if self._echo else []
        self.tokens = echoed + self.lead
        self._session, self._holder = session, session.holder
        self._from = self.first(prompt)

        def note(token: int) -> None:
            if not session.engine.tokenizer.is_end(token):
                self.tokens.append(token)

        try:
            yield note
        except GeneratorExit:
            self._compute_all()
            raise
        self._compute_all()

    def _compute_all(self) -> None:
        """Compute the rows of all tokens of the list that are not there yet."""
        assert self._session is not None
        with self._session.lock:
            if not self._session.is_open or self._session.holder is not self._holder:
                return  # there is no text, or it is another request's
            n = max(0, min(len(self.tokens), self._session.n_tokens - self._from))
            self._n_rows = n
            new = [pair for pair in self.pairs() if pair not in self._logprobs]
            if new:
                self._compute(new)

    def _compute(self, pairs: list[tuple[int, int]]) -> None:
        session = self._session
        assert session is not None
        positions, of = np.unique(np.array([p for p, _ in pairs]), return_inverse=True)
        found = states.logprobs(
            session,
            positions,
            self.over,
            targets=np.array([t for _, t in pairs], dtype=np.int32),
            of=of,
            n_top=len(range(session.engine.n_vocab)[: self._n_top]),
        )
        self._rows.update(zip(positions.tolist(), top_dicts(found), strict=True))
        self._logprobs.update(zip(pairs, found.targets.tolist(), strict=True))

    def of(self, position: int, token: int) -> tuple[float, dict[int, float]]:
        """Return a token's log-probability in a row, and the row's best tokens."""
        if (position, token) not in self._logprobs:
            self._compute([(position, token)])
        return self._logprobs[position, token], self._rows[position]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Give rows and their tokens, as many as there are of both."""
        yield from ((self._from + i, self.tokens[i]) for i in range(self._n_rows))


def say_over(out: Any, over: Over) -> Any:
    """Say in a response, or in the chunks of one, which probabilities it tells."""
    if not isinstance(out, dict):
        return (say_over(chunk, over) for chunk in out)
    for choice in out["choices"]:
        if choice.get("logprobs"):
            choice["logprobs"]["over"] = over
    return out


class Told:
    """Log-probabilities in the form of ``llama_cpp.Llama``'s completions.

    Args:
        llm: Whose completion; a ``llama_cpp.Llama``.
        prompt: As the caller gave it.
        n_top: As of `Record`.
        echo: Whether the prompt is part of the completion.
        stream: Whether it comes in chunks.
        stop: What ends the text.
        over: The tokens whose probabilities add up to 1.
        says_over: Whether the response says so, which stock's does not.
    """

    def __init__(
        self,
        llm: Any,
        prompt: str | list[int],
        *,
        n_top: int,
        echo: bool,
        stream: bool,
        stop: str | list[str],
        over: Over,
        says_over: bool,
    ) -> None:
        self._llm = llm
        self._n_prompt_text = len(prompt)
        self._bos = int(llm.token_bos())
        self._echo = echo and not stream
        self._stream = stream
        self._stops = [s.encode("utf-8") for s in ([stop] if isinstance(stop, str) else stop)]
        self._over = over if says_over else None
        lead = [] if len(prompt) > 0 else [self._bos]
        self.record = Record(n_top, lead=lead, bos=self._bos, echo=self._echo, over=over)

    def add(self, out: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Give a completion, or its chunks, with log-probabilities."""
        for found in self._streamed(out) if self._stream else self._whole(out):
            yield found if self._over is None else say_over(found, self._over)

    def _bytes(self, tokens: list[int], before: list[int] | None = None) -> bytes:
        out: bytes = self._llm.detokenize(tokens, prev_tokens=before)
        return out

    def _text(self, tokens: list[int], before: list[int] | None = None) -> str:
        return self._bytes(tokens, before).decode("utf-8", errors="ignore")

    def _best(
        self, row: dict[int, float], before: list[int] | None, text: str, logprob: float
    ) -> dict[str, float]:
        return {**{self._text([i], before): p for i, p in row.items()}, text: logprob}

    def _whole(self, out: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for response in out:
            response["choices"][0]["logprobs"] = self._logprobs()
            yield response

    def _logprobs(self) -> dict[str, Any]:
        tokens = self.record.tokens
        begin = 0 if self._echo else self._n_prompt_text
        out: dict[str, list[Any]] = {
            "tokens": [],
            "text_offset": [],
            "token_logprobs": [],
            "top_logprobs": [],
        }
        for i, (position, token) in enumerate(self.record.pairs()):
            if token == self._bos:
                continue
            logprob, row = self.record.of(position, token)
            text = self._text([token], tokens[:i])
            out["tokens"].append(text)
            out["text_offset"].append(begin + len(self._text(tokens[:i])))
            out["token_logprobs"].append(logprob)
            out["top_logprobs"].append(self._best(row, tokens[:i], text, logprob))
        if self._echo and out["tokens"]:  # nothing comes before the first token
            out["token_logprobs"][0] = out["top_logprobs"][0] = None
        return out

    def _streamed(self, chunks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Give a token a chunk.

        Those that come without log-probabilities are cut in other places; each of them but the last
        says that there are new tokens.
        """
        cut = _Cut(self, self._stops)
        for chunk in chunks:
            choice = chunk["choices"][0]
            told = list(cut.more())
            if choice["finish_reason"] is not None:
                told += cut.rest()
            for text, logprobs in told:
                part = {**choice, "text": text, "logprobs": logprobs, "finish_reason": None}
                yield {**chunk, "choices": [part]}
            if choice["finish_reason"] is not None:
                yield chunk

    def one(self, token: int, n_returned: int, *, rest: bool) -> dict[str, Any]:
        """Return the ``logprobs`` of the chunk after `n_returned` tokens.

        Those that are told when the stream ends have their place in bytes, and no text before.
        """
        record = self.record
        done = record.completion[:n_returned]
        before = record.prompt + done
        offset = self._bytes(done, before)
        logprob, row = record.of(len(record.prompt) + n_returned - 1, token)
        text = self._text([token], None if rest else before)
        n = len(offset) if rest else len(offset.decode("utf-8", errors="ignore"))
        return {
            "tokens": [text],
            "text_offset": [self._n_prompt_text + n],
            "token_logprobs": [logprob],
            "top_logprobs": [self._best(row, None, text, logprob)],
        }


class _Cut:
    """Where ``llama_cpp.Llama`` cuts a stream of tokens with log-probabilities into chunks."""

    def __init__(self, told: Told, stops: list[bytes]) -> None:
        self._told = told
        self._record = told.record
        self._stops = stops
        self._n_seen = len(told.record.lead)  # tokens of the completion
        self._n_returned = 0
        self._n_missing = 0  # bytes of a character

    def more(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give texts and log-probabilities of what can be told of the tokens up to now."""
        told, record = self._told, self._record
        while self._n_seen < len(record.completion):
            self._n_seen += 1
            tokens = record.completion[: self._n_seen]
            text = told._bytes(tokens, record.prompt)
            for k, byte in enumerate(text[-3:]):
                for n, pattern in ((2, 192), (3, 224), (4, 240)):
                    if n > 3 - k and pattern & byte == pattern:
                        self._n_missing = n - (3 - k)
            if self._n_missing > 0:
                self._n_missing -= 1
                continue
            if any(s in text for s in self._stops):
                return
            yield from self._tell(tokens)

    def _tell(self, tokens: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        told, record = self._told, self._record
        left = tokens[self._n_returned :]
        text = told._bytes(left, record.prompt + tokens[: self._n_returned])
        # what may be the beginning of a stop string waits
        waits = max(
            (i for s in self._stops for i in range(1, len(s) + 1) if text.endswith(s[:i])),
            default=0,
        )
        end = 0
        for token in left:
            if token == told._bos:
                continue
            before = record.prompt + tokens[: self._n_returned]
            end += len(told._bytes([token], before))
            if end > len(text) - waits:
                break
            logprobs = told.one(token, self._n_returned, rest=False)
            self._n_returned += 1
            yield told._text([token], record.prompt + tokens[: self._n_returned]), logprobs

    def rest(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give what was held back, up to a stop string."""
        told, record = self._told, self._record
        tokens = record.completion
        left = tokens[self._n_returned :]
        text = told._bytes(left, record.prompt + tokens[: self._n_returned])
        stop = min((text.index(s) for s in self._stops if s in text), default=len(text))
        end = 0
        for token in left:
            end += len(told._bytes([token], record.prompt + tokens[: self._n_returned]))
            if token == told._bos:
                continue
            logprobs = told.one(token, self._n_returned, rest=True)
            self._n_returned += 1
            piece = told._bytes([token])
            if end >= stop:
                piece = piece[: len(piece) - (end - stop)]
            yield piece.decode("utf-8", errors="ignore"), logprobs
            if end >= stop:
                return
