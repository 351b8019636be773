"""Talk with a model in its own chat template; replies on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Collection, Iterable, Iterator
from types import FrameType

from vocabtailor_gguf.chat import commands, reader
from vocabtailor_gguf.chat.conversation import Conversation
from vocabtailor_gguf.cli import _color, _common, _generation, _screen
from vocabtailor_gguf.errors import VocabTailorError
from vocabtailor_gguf.runtime.owner import Mode
from vocabtailor_gguf.sets.kept import Kept, learned_file
from vocabtailor_gguf.sets.token_set import TokenSet

_EPILOG = """\
On a terminal lines can be edited, Ctrl-C stops a reply, Ctrl-D ends, and /help lists the commands:
other sets and modes, figures, saved conversations. Elsewhere each line of standard input is a
message, and an error ends the command.

"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG + _generation.CHOICES
    _generation.add_model(parser)
    parser.add_argument(
        "-sys", "--system", metavar="TEXT", help="the system prompt (default: the template's)"
    )
    parser.add_argument(
        "-n", "--n-predict", type=int, default=-1, metavar="N",
        help="tokens of a reply (-1: to the context)",
    )  # fmt: skip
    _generation.add_sampling(parser)
    parser.add_argument(
        "--no-learn", action="store_true",
        help="do not keep in the cache which tokens exact mode found missing",
    )  # fmt: skip
    parser.add_argument("--history", metavar="FILE", help="keep what was typed from chat to chat")
    _color.add_color(parser)


def run(args: argparse.Namespace) -> int:
    """Talk until the end of the input."""
    _generation.check_ranges(args)
    system = None if args.system is None else _common.utf8("--system", args.system)
    notes = _color.Notes(args.color)
    with contextlib.closing(_Model(args, notes)) as model:
        conversation = Conversation(
            model.llm,
            name=args.model or args.hf_repo,
            system=system,
            seed=args.seed,
            sampling={
                "temperature": args.temp, "top_k": args.top_k, "top_p": args.top_p,
                "min_p": args.min_p, "max_tokens": args.n_predict,
            },
        )  # fmt: skip
        known = commands.Commands(conversation, model.set_mode, model.set_token_set)
        with contextlib.suppress(commands.Quit):
            if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
                notes.tell(f"{commands.describe(conversation.llm)}; /help lists commands")
                plain = not _color.is_colored(args.color, sys.stdout)
                _talk(conversation, known, reader.typed(known.names, args.history, plain), notes)
            else:
                for line in reader.piped():
                    _answer(conversation, known, line, notes, ())
    return 0


class _Model:
    """The loaded model, and what it learns: into the file of --learn, else into the cache."""

    def __init__(self, args: argparse.Namespace, notes: _color.Notes) -> None:
        self._args = args
        self._notes = notes
        files = _common.find_files(args)
        self._given = _generation.first_set(args)
        learn = args.mode == "exact" and not args.no_learn
        self.llm = _generation.load(args, files, token_set=self._given, learn=learn)
        self._kept: Kept | None = None
        if not (args.learn or args.no_learn):
            store = self.llm.store
            self._kept = Kept(learned_file(files[0]), store.tokenizer_sha256, store.n_vocab)
        self._begin()

    def _begin(self) -> None:
        """Let exact mode draft with what the cache knows; other modes have the set alone."""
        if self._kept is not None and self.llm.mode == "exact":
            self.llm.learn_tokens(self._kept.tokens()[1])
        self._before = self.llm.needed_tokens()

    def _note(self) -> None:
        """Count what exact mode needed since the last time."""
        if self._kept is not None and self.llm.mode == "exact":
            needed = self.llm.needed_tokens() - self._before
            if self.llm.stats.tokens:
                self._kept.note(needed)

    def set_mode(self, mode: Mode) -> None:
        """Go on in another mode; the text stays."""
        if self._args.learn:
            raise VocabTailorError("/mode: --learn stays in the mode it began with")
        self._note()
        try:
            self.llm.set_mode(
                mode,
                audit=self._args.audit if mode == "tailored" else 0.0,
                learn=mode == "exact" and not self._args.no_learn,
            )
        finally:
            self._begin()

    def set_token_set(self, path: str | None) -> None:
        """Take another set, which what was learned joins as it did the first; None for none."""
        given = None if path is None else TokenSet.load(path)
        if given is not None:
            given.check(self.llm.store, str(path))
        self._note()
        try:
            if self._args.learn:
                given = _generation.joined(_generation.learned_set(self.llm), given)
            self.llm.set_token_set(given)
        finally:
            self._begin()

    def close(self) -> None:
        if self.llm.stats.tokens and self._args.learn:
            self._notes.tell(_generation.save_learned(self.llm, self._args.learn))
        self._note()
        if self._kept is not None:
            self._kept.save()
        self.llm.close()


def _talk(
    conversation: Conversation,
    known: commands.Commands,
    lines: Iterable[reader.Line],
    notes: _color.Notes,
) -> None:
    """Go on after errors, and after keys that interrupt."""
    for line in lines:
        try:
            if line is reader.INTERRUPTED:
                notes.tell("Ctrl-D ends")
            else:
                with _stoppable() as stop:
                    _answer(conversation, known, line, notes, stop)
        except VocabTailorError as e:
            notes.tell(f"error: {e}", "error")
        except KeyboardInterrupt:  # the second key, in the middle of a step or a command
            conversation.llm.reset()
            notes.tell("\nstopped; Ctrl-D ends")


def _answer(
    conversation: Conversation,
    known: commands.Commands,
    line: str,
    notes: _color.Notes,
    stop: Collection[int],
) -> None:
    """Carry out a command, or print the reply to a message until `stop` is not empty."""
    if line.startswith("/"):
        notes.tell(known.do(line.rstrip()))
        return
    if not line.strip():
        return
    with contextlib.closing(conversation.reply(line.strip())) as pieces:
        for piece in pieces:
            print(_screen.shown(piece, sys.stdout), end="", flush=True)
            if stop:
                break
    print(flush=True)
    if stop:
        notes.tell("stopped")
    elif conversation.was_cut:
        notes.tell("the reply was cut: -n or the context (-c) is full")


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Let the first Ctrl-C be noted, which is looked at between two tokens; the second interrupts.

    More of them change nothing, so that what a second one broke off can be put in order.
    """
    stopped: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        if len(stopped) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
