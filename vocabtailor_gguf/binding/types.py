"""Types of tables: names as llama.cpp spells them, sizes as ggml has them."""

from __future__ import annotations

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.errors import VocabTailorError


def type_name(ggml_type: int) -> str:
    """Return the name of a ggml type as llama.cpp spells it, such as ``Q8_0``."""
    name = native.ffi.new("char **")
    block = native.ffi.new("int64_t *")
    size = native.ffi.new("uint64_t *")
    try:
        native.call("vt_type_info", ggml_type, name, block, size)
    except VocabTailorError:  # not one of a table's rows
        from gguf.constants import GGMLQuantizationType  # slow to import

        known = {int(t): str(t.name) for t in GGMLQuantizationType}
        return known.get(ggml_type, f"type {ggml_type}")
    return bytes(native.ffi.string(name[0])).decode().upper()


def parse_type(name: str) -> int:
    """Return the ggml type of a name such as ``q4_k``.

    Raises:
        ValueError: There is no such type.
    """
    from gguf.constants import GGMLQuantizationType  # slow to import

    for t in GGMLQuantizationType:
        if t.name.lower() == name.lower():
            return int(t)
    known = ", ".join(t.name for t in GGMLQuantizationType)
    raise ValueError(f"unknown tensor type {name!r}, expected one of {known}")


def type_geometry(ggml_type: int) -> tuple[int, int]:
    """Return values per block and bytes per block of a type that is decodable by row.

    Raises:
        VocabTailorError: It is not.
    """
    name = native.ffi.new("char **")
    block = native.ffi.new("int64_t *")
    size = native.ffi.new("uint64_t *")
    native.call("vt_type_info", ggml_type, name, block, size)
    return int(block[0]), int(size[0])


def is_repacked(ggml_type: int, n_cols: int, n_rows: int) -> bool:
    """Return whether ggml keeps an (n_rows, n_cols) weight in a layout of its own here."""
    out = native.ffi.new("bool *")
    native.call("vt_is_repacked", ggml_type, n_cols, n_rows, out)
    return bool(out[0])


def weight_buffer(ggml_type: int, n_cols: int, n_rows: int) -> str:
    """Return ggml's name of the memory that llama.cpp puts an (n_rows, n_cols) weight into here.

    Raises:
        VocabTailorError: There is no such weight.
    """
    name = native.ffi.new("char[]", 64)
    native.call("vt_weight_buffer", ggml_type, n_cols, n_rows, name, len(name))
    return str(native.ffi.string(name).decode())
