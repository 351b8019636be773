"""Text of models and files on a terminal, which would obey the control characters in it."""

from __future__ import annotations

from typing import TextIO

# ESC as ^[, DEL as ^?, and so on; CSI, which UTF-8 can write too, as <U+009B>
_SHOWN = {c: f"^{chr(c ^ 64)}" for c in (*range(32), 127) if chr(c) not in "\t\n"} | {
    c: f"<U+{c:04X}>" for c in range(0x80, 0xA0)
}


def shown(text: str, stream: TextIO) -> str:
    """Return a text as a stream may have it.

    On a terminal control characters, tabs and line ends aside, become visible ones, so that nobody
    but the user moves the cursor, retitles the window or fills the clipboard. A pipe or a file gets
    the text as it is.
    """
    return text.translate(_SHOWN) if stream.isatty() else text
