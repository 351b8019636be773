"""Numbers of the GGUF format: what a file begins with, and the types of its values.

They are those of ggml's ``docs/gguf.md``. PyPI's ``gguf`` has them too, but takes a tenth of a
second to import.
"""

from __future__ import annotations

import enum

MAGIC = 0x46554747  # "GGUF"
VERSION = 3


class ValueType(enum.IntEnum):
    """Type of a key's value, or of the elements of an array."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12
