"""The connections to one upstream, shared by all generations of the configuration that speak the same way.

Enters: an `httpx.Request`. Leaves: an open `httpx.Response`. Closed when it is retired and its last
answer has ended, so that a reload cuts nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from inference_config.load import ConfigError, Problem
from inference_config.schema import Config, Http

from ..runtime import Target
from ..runtime.authorities import with_some
from ..runtime.proxy import Proxy, proxy_for
from .parts import Opened

if TYPE_CHECKING:
    from .asyncio_transport import AsyncioTransport
    from .transport import PoolTransport

MAX_CA_BYTES: Final = 16 * 1024 * 1024


class Wire:
    """One transport, with a count of what is open on it."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        key: object,
        usage: Callable[[], tuple[int, int]],
    ) -> None:
        """`key` is equal for configurations that may share this wire. `usage` counts the transport's connections:
        those in use, and those that are idle."""
        self.key = key
        self.usage = usage
        self.refuses_usage = False  # learned from the upstream; a changed upstream gets a new wire
        self._transport = transport
        self._send = transport.handle_async_request
        self._open = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None
        self._dropped: set[asyncio.Task[None]] = set()  # the loop itself would forget them

    def open(self, request: httpx.Request) -> Coroutine[Any, Any, httpx.Response]:
        """What sends one request, and holds this wire from now on. Once for each: `close` or `drop` where it gave a response,
        `ended` where it gave none."""
        self._open += 1
        return self._send(request)

    def ended(self) -> None:
        """A request that was opened holds this wire no more."""
        self._open -= 1
        self._close_if_unused()

    async def close(self, response: httpx.Response) -> None:
        """Give the response's connection back where its body was read to its end, close it where it was not."""
        if not self.close_now(response):
            try:
                await response.stream.aclose()  # type: ignore[union-attr]  # an async transport's
            finally:
                self.ended()

    def close_now(self, response: httpx.Response) -> bool:
        """As `close`, where that takes no waiting; False where it does, and nothing was done."""
        if not isinstance(response, Opened):
            return False
        try:
            response.body.close()
        finally:
            self.ended()
        return True

    def drop(self, response: httpx.Response) -> None:
        """As `close`, for whoever cannot wait: it begins at the loop's next turn."""
        task = asyncio.ensure_future(self.close(response))
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)

    def retire(self) -> None:
        """No new generation uses this wire: close it as soon as nothing is open on it."""
        self._retired = True
        self._close_if_unused()

    @property
    def closed(self) -> bool:
        """Whether it was retired and what was open on it has ended."""
        return self._closing is not None

    async def aclose(self) -> None:
        """Close now, whatever is open."""
        await self._transport.aclose()

    def _close_if_unused(self) -> None:
        if self._retired and self._open == 0 and self._closing is None:
            self._closing = asyncio.ensure_future(self._transport.aclose())


def wire_for(
    config: Config,
    target: Target,
    environ: Mapping[str, str],
    current: Wire | None,
) -> Wire:
    """The wire for a configuration: `current` where it speaks the same way already, else a new one.

    Raises ConfigError where the CA file or a proxy's URL is unusable.
    """
    inference = config.inference
    http = inference.http
    authorities = _read(http.ca_file)
    key = (
        inference.provider, inference.base_url, authorities, http.connect_timeout_secs, http.keep_alive_secs,
        http.max_idle_connections, http.max_connections, http.transport,
    )  # fmt: skip
    if current is not None and current.key == key:
        return current
    if inference.provider == "echo":
        from .embedded import EchoTransport  # noqa: PLC0415  only what is used is imported

        return Wire(EchoTransport(), key, lambda: (0, 0))
    context = _ssl_context(authorities, http.ca_file) if target.scheme == "https" else None
    transport = _transport(http, context, _proxy(target.origin, environ))
    return Wire(transport, key, lambda: transport.usage)


def _transport(
    http: Http, context: ssl.SSLContext | None, proxy: Proxy | None
) -> AsyncioTransport | PoolTransport:
    """What speaks HTTP. Only what is used is imported: each brings a parser and more of its own."""
    settings: dict[str, Any] = {
        "ssl_context": context,
        "connect_timeout": http.connect_timeout_secs,
        "keep_alive": http.keep_alive_secs,
        "max_idle": http.max_idle_connections,
        "max_connections": http.max_connections,
    }
    if http.transport == "asyncio" and proxy is not None:
        raise ConfigError(
            [
                Problem(
                    "inference.http.transport", "asyncio, with a proxy in the environment", "auto, httpcore"
                )
            ]
        )
    if http.transport == "httpcore" or proxy is not None:
        from .transport import PoolTransport  # noqa: PLC0415

        return PoolTransport(**settings, proxy=proxy)
    from .asyncio_transport import AsyncioTransport  # noqa: PLC0415

    return AsyncioTransport(**settings)


def _proxy(origin: str, environ: Mapping[str, str]) -> Proxy | None:
    try:
        return proxy_for(origin, environ)
    except ValueError as error:
        name, _, fault = str(error).partition(": ")
        raise ConfigError([Problem(name, fault, "http://HOST:PORT", origin="environment")]) from None


def _read(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()[:MAX_CA_BYTES].decode("ascii")
    except OSError as error:
        raise ConfigError(
            [Problem(path, (error.strerror or "an error").lower(), "a file that can be read")]
        ) from None
    except UnicodeDecodeError:
        raise _no_certificates(path) from None


def _ssl_context(authorities: str | None, path: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=authorities)
    except ssl.SSLError:
        raise _no_certificates(path or "") from None
    if authorities is None:
        with_some(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_certificates(path: str) -> ConfigError:
    return ConfigError([Problem(path, "no certificates", "certificates in PEM form")])
