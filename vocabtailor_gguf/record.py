"""Results that read as attributes and as a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


class Record(Mapping[str, Any]):
    """Base of frozen dataclasses that go into JSON with ``dict(record)``."""

    def __getitem__(self, name: str) -> Any:
        """Return the value of a field."""
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the fields."""
        return iter(self._names())

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self._names())

    def _names(self) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(self))  # type: ignore[arg-type]
