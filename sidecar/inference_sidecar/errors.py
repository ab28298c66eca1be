"""Every fault that can end an exchange, by whose fault it was.

    SidecarError
    ├── ClientGone                  the app left; nobody is to blame
    ├── BadBody                     the app sent a body that cannot be read to its end
    └── UpstreamError               `code` says what happened, `sent` whether a byte of the request had gone up
        ├── UpstreamConnectError    no connection: refused, unreachable, unknown host, proxy
        ├── UpstreamTLSError        no trust: certificate, host name, protocol
        ├── UpstreamTimeout         no complete answer (plain) or first byte (stream) within timeout_secs
        ├── UpstreamIdleTimeout     a stream fell silent for longer than stream_idle_timeout_secs
        ├── UpstreamStreamTimeout   a stream lasted longer than stream_timeout_secs
        ├── UpstreamDisconnected    closed or reset before the answer was whole
        └── UpstreamProtocolError   the answer is no valid HTTP, or ended without being complete

Beside the tree, because nobody outside their room meets them: what unwinds a parser. They live here with the others
because modules that are compiled (decision 011) define no exceptions.

A refusal is no fault but a value: `records.Refusal`. Status codes live in `respond`.
Messages here are public: they name hosts and settings, never a key, a body or a header's value.
"""

from __future__ import annotations

from typing import ClassVar


class SidecarError(Exception):
    """Root of the tree. `str()` of it is safe to show to the app."""


class ClientGone(SidecarError):
    """The app closed its connection before its answer was complete."""


class BadBody(SidecarError):
    """The app's body broke a bound while it was being streamed."""


class UpstreamError(SidecarError):
    """The upstream, or the way to it, failed. `code` is low in cardinality and goes into the error body."""

    code: ClassVar[str] = "upstream_error"

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """`sent`: whether a byte of the request may have reached the upstream."""
        super().__init__(message)
        self.sent = sent


class UpstreamConnectError(UpstreamError):
    """No connection could be opened."""

    code = "upstream_connect_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class UpstreamTLSError(UpstreamError):
    """A connection was opened, but not trusted."""

    code = "upstream_tls_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class UpstreamTimeout(UpstreamError):
    """`http.timeout_secs` ran out."""

    code = "upstream_timeout"


class UpstreamIdleTimeout(UpstreamError):
    """`http.stream_idle_timeout_secs` ran out."""

    code = "upstream_idle_timeout"


class UpstreamStreamTimeout(UpstreamError):
    """`http.stream_timeout_secs` ran out."""

    code = "upstream_stream_timeout"


class UpstreamDisconnected(UpstreamError):
    """The connection ended before the answer did."""

    code = "upstream_disconnected"


class UpstreamProtocolError(UpstreamError):
    """What came was not a valid, complete answer."""

    code = "upstream_protocol_error"


class HeadTooLarge(Exception):
    """An app's request line and headers are larger than their bound."""


class Unwritable(ValueError):
    """A request that cannot be written as HTTP/1.1. Says nothing of what it held: that may be the key."""


class NotJson(ValueError):
    """A word that Python reads as a number and JSON does not know."""
