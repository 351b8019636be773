"""Errors raised by this package.

They derive from the built-in types that llama-cpp-python raises in the same places too.
"""

from __future__ import annotations


class VocabTailorError(RuntimeError):
    """Base class of all errors of this package."""


class BadFileError(VocabTailorError, ValueError):
    """A file is malformed, or cannot be read or written."""


class ContextError(VocabTailorError, ValueError):
    """llama.cpp cannot make a context with the arguments it was given."""


class MismatchError(VocabTailorError, ValueError):
    """Two files or objects do not belong together."""


class TokenIdError(VocabTailorError, ValueError):
    """A token id is outside the vocabulary, or not an integer."""


class UnsupportedError(VocabTailorError, ValueError):
    """A model or a feature that this package does not support."""


class VersionError(VocabTailorError):
    """The installed llama.cpp is not the one the native library was built for."""


class SupersededError(VocabTailorError):
    """A generation was asked for a token after another one had begun on the same text."""
