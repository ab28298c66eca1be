"""What a request and an answer are made of, as httpx has it: header lines, and bodies.

Enters: lines, bytes. Leaves: what `httpx.Request` and `httpx.Response` take. Of the lines nobody here asks for more than
`raw`, so they are indexed only where somebody does: to make an index of both sides' takes 4 µs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import httpx

from ..records import Headers

NO_LINES: Final = httpx.Headers()
"""For a request or an answer that is given its lines once it is made: to look at None takes httpx 1 µs."""


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


class Whole(httpx.AsyncByteStream):
    """A request body that is here as a whole: `data`."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


class Once(httpx.AsyncByteStream):
    """A request body that is read once, as it comes."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces


class Readable(Protocol):
    """What `Pieces` needs: an iterator that can be ended early."""

    def __aiter__(self) -> Readable: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None: ...


class Pieces(httpx.AsyncByteStream):
    """An answer's body, piece by piece. Who iterates it gets `body` itself, and may know what else that can."""

    def __init__(self, body: Readable) -> None:
        self._body = body

    def __aiter__(self) -> Readable:
        return self._body

    async def aclose(self) -> None:
        self._body.close()
