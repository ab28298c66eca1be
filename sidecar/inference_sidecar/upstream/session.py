"""TLS between what goes over a wire and what it means. No I/O.

Enters: bytes as they came, plaintext. Leaves: plaintext, bytes as they go. Must not know who carries them.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

RECORD: Final = 16 * 1024
"""Bytes of plaintext that one record has at most; OpenSSL reads no further at once."""


class Session:
    """One side of a TLS connection, over whatever its owner moves from and to `incoming` and `outgoing`.

    `ended`: TLS itself told of the end. `failure`: what OpenSSL says once, and then never again.
    """

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.failure: ssl.SSLError | None = None
        self.ended = False
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)
        # What `SSLObject` has these two do, without its own call in Python, which would be all of Python's interpreter that a
        # request meets. Into a buffer, and what `read` returns is a number then.
        inner: Any = getattr(self.tls, "_sslobj", self.tls)
        self._read: Callable[[int, memoryview], Any] = inner.read
        self._write: Callable[[bytes | memoryview], Any] = inner.write

    @property
    def pending(self) -> bool:
        """Whether there is something to read, whole or not."""
        return bool(self.incoming.pending or self.tls.pending())

    def decrypt(self, room: memoryview, size: int) -> bytes:
        """What can be read of the `size` bytes that came, which stand at the beginning of `room`; there is space in it
        for a record, and what it holds is lost. Whether more can be expected, `ended` and `failure` say."""
        incoming, read = self.incoming, self._read
        incoming.write(room[:size])
        plain: list[bytes] = []
        try:
            # A read takes all of a record, so nothing is left of one but what is not whole yet.
            while incoming.pending:
                count: int = read(RECORD, room)
                if not count:
                    self.ended = True
                    break
                plain.append(bytes(room[:count]))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self.failure = exc
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """`data` as it goes over the wire. Raises ssl.SSLError."""
        if data:
            self._write(data)
        return self.outgoing.read()
