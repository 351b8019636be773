"""Pictures as SVG elements, drawn with the optional package ``matplotlib``."""

from __future__ import annotations

import io
from typing import Any

from vocabtailor_gguf.errors import UnsupportedError


def check_can_draw(what: str) -> None:
    """Check that pictures can be drawn.

    Args:
        what: What wants them, such as ``"a report"``.

    Raises:
        UnsupportedError: ``matplotlib`` is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as e:
        raise UnsupportedError(
            f"{what} needs the package matplotlib: pip install 'vocabtailor_gguf[report]'"
        ) from e


def new_drawing(size: tuple[float, float]) -> Any:
    """Return an empty matplotlib figure of a size in inches; see `check_can_draw`."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def element(drawing: Any) -> str:
    """Return a matplotlib figure as an SVG element, the same each time."""
    out = io.StringIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]
