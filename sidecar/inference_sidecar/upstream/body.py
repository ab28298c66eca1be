"""An answer's body, as it comes from its connection.

Enters: a connection on which an answer's head is here. Leaves: the body's bytes, piece by piece, or an `UpstreamError`; the
connection, given back. Must not know which connections there are.
"""

from __future__ import annotations

from collections.abc import Callable

from .connection import Connection
from .framing import Answer


class Home:
    """Where a connection comes from."""

    def give_back(self, connection: Connection | None, *, keep: bool, kept_for: int | None = None) -> None:
        """The end of a request, whatever it was. `keep`: another may follow on its connection, for `kept_for` seconds where
        the peer says so."""
        raise NotImplementedError


class Body:
    """An answer's body as it comes, and its head. Frees the place once: at its end, at a failure, or when it is closed.

    `changed`: the head's lines no longer count, but those of the response that this is the body of.
    """

    def __init__(self, home: Home, connection: Connection, answer: Answer, *, keep: bool) -> None:
        self.answer = answer
        self.changed = False
        self._home = home
        self._connection: Connection | None = connection
        self._keep = keep

    @property
    def ended(self) -> bool:
        """Whether the last piece was the end, too."""
        return self._connection is None

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def next(self) -> bytes | None:
        """The next piece, None at the end: what iterating gives, without what that costs."""
        connection = self._connection
        if connection is None:
            return None
        try:
            piece = await connection.read(self.answer)
        except BaseException:
            self.close()
            raise
        if connection.drained(self.answer):
            self.close()
        return piece or None

    def here(self) -> bytes:
        """What has come and was not given; b"" where that is nothing."""
        connection = self._connection
        if connection is None:
            return b""
        piece = connection.here()
        if connection.drained(self.answer):
            self.close()
        return piece

    async def pour(self, sink: Callable[[bytes], bool]) -> bool:
        """The rest of the body, piece by piece, as `Connection.pour` does."""
        connection = self._connection
        if connection is None:
            return True
        try:
            ended = await connection.pour(self.answer, sink)
        except BaseException:
            self.close()
            raise
        if ended:
            self.close()
        return ended

    def close(self) -> None:
        """Give the connection back, where that has not been done."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._home.give_back(connection, keep=self._keep, kept_for=self.answer.kept_for)
