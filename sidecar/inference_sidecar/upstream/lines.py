"""Header lines as httpx has them, read by it only where somebody asks for more than the lines themselves.

Enters: header lines. Leaves: an `httpx.Headers`. Of a request and its answer nobody here asks for more than `raw`, and to
make an index of both takes 4 µs.
"""

from __future__ import annotations

from typing import Any

import httpx

from ..records import Headers


class Lines(httpx.Headers):
    """As `httpx.Headers` of the same lines, which are not to be changed otherwise from then on."""

    def __init__(self, lines: Headers) -> None:
        self._lines = lines

    def __getattr__(self, name: str) -> Any:
        # Asked for what the base class would have: from now on it has it.
        if name not in ("_list", "_encoding"):
            raise AttributeError(name)
        super().__init__(self._lines)
        return self.__dict__[name]

    @property
    def raw(self) -> Headers:
        """The lines, as they came and in their order."""
        return super().raw if "_list" in self.__dict__ else self._lines
