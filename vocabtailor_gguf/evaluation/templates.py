"""Templates: an example as a model sees it, in a text file with fields in braces."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from vocabtailor_gguf.errors import BadFileError

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of ``{name}``, in one pass; other names and braces stay.

    Example:
        >>> fill("{a} {b} {}", {"a": "{b}"})
        '{b} {b} {}'
    """
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), text)


@dataclasses.dataclass(frozen=True)
class Template:
    """An example that is cut where its output begins.

    White space directly before the output belongs to the output: " word" and "word" are different
    tokens, and a prompt that ends in a space asks for rare ones.

    Attributes:
        before: What precedes the output.
        after: The output's field and what follows.
        fields: Fields of a record that the part before names.
    """

    before: str
    after: str
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, output: str, variables: Mapping[str, str], where: str) -> Template:
        """Read a template.

        Args:
            text: Its text.
            output: The field of the text that is wanted.
            variables: Names that are not fields, and what stands for them.
            where: Named by errors.

        Raises:
            BadFileError: The output's field is not there exactly once, or fields follow it.
        """
        text = fill(text, variables)
        place = f"{{{output}}}"
        if text.count(place) != 1:
            raise BadFileError(f"{where}: found {place} {text.count(place)} times, expected once")
        at = len(text[: text.index(place)].rstrip())
        after = text[at:]
        if _PLACE.findall(after) != [output]:
            raise BadFileError(f"{where}: found a field after {place}, expected none")
        return cls(text[:at], after, tuple(dict.fromkeys(_PLACE.findall(text[:at]))))

    def prompt(self, record: Mapping[str, str]) -> str:
        """Return what precedes the output of a record."""
        return fill(self.before, record)

    def answer(self, record: Mapping[str, str]) -> str:
        """Return the output of a record, with the space before it and all that follows."""
        return fill(self.after, record)
