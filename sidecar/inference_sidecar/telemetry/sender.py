"""Sends OTLP requests over HTTP, with OpenTelemetry's own client and a transport of the standard library's.

Enters: a `Signal`, and requests as bytes. Leaves: whether they were taken, and one log line when a signal's export
begins to fail and one when it works again. Blocks: it is called from threads that have nothing else to do.
Must not print a header's value or a URL's query, nor follow a collector to another place, nor read an answer without
a bound.

The client (retries, their waits, compression) is `_OTLPHTTPClient`, which is OpenTelemetry's for its own exporters. It
is pinned to one version, and tested by what it does.
"""

from __future__ import annotations

import base64
import http.client
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

from opentelemetry.exporter.http.transport._base import BaseHTTPResult, BaseHTTPTransport
from opentelemetry.exporter.otlp.common.http import Compression, _OTLPHTTPClient
from opentelemetry.sdk.version import __version__ as sdk_version

from inference_config import __version__

from ..runtime.authorities import with_some
from ..runtime.proxy import Proxy
from .environment import Signal, public_url
from .logs import LOGGER

AGENT: Final = f"inference-sidecar/{__version__} OTel-OTLP-Exporter-Python/{sdk_version}"
_MAX_ANSWER: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}
_KEPT_CHARACTERS: Final = "!#$%&'()*+,/:;=?@[]~"


def resource_of(attributes: Mapping[str, str]) -> dict[str, str]:
    """Who tells all this: its attributes, and OpenTelemetry's own of what tells it."""
    sdk = {"language": "python", "name": "opentelemetry", "version": sdk_version}
    return {**{f"telemetry.sdk.{name}": value for name, value in sdk.items()}, **attributes}


class Teller:
    """Says when one signal's export begins to fail, and when it works again; not one line a batch."""

    def __init__(self, signal: str, endpoint: str) -> None:
        self.reason = ""
        self._signal = signal
        self._endpoint = public_url(endpoint)
        self._failing = False

    def tell(self, *, worked: bool) -> None:
        """One export has ended."""
        if worked is not self._failing:
            return
        self._failing = not worked
        fields = {"signal": self._signal, "endpoint": self._endpoint}
        if worked:
            LOGGER.info("export works again", extra={"fields": fields})
        else:
            LOGGER.warning("export fails", extra={"fields": {**fields, "reason": self.reason or "unknown"}})


class Sender:
    """The way to one signal's collector. Not for several threads at once."""

    def __init__(self, signal: Signal, name: Literal["traces", "metrics"]) -> None:
        _silence()
        self._teller = Teller(name, signal.endpoint)
        self._client = _OTLPHTTPClient(
            transport=Transport(signal, self._teller),
            endpoint=signal.endpoint,
            kind="spans" if name == "traces" else "metrics",
            timeout=signal.timeout_s,
            compression=Compression(signal.compression),
            headers={"content-type": "application/x-protobuf", "user-agent": AGENT, **signal.headers},
        )

    def send(self, request: bytes) -> None:
        """Blocks for at most about the signal's timeout."""
        self._teller.tell(worked=self._client.export(request).success)

    def shutdown(self) -> None:
        """Close the connection. No wait between two tries is begun or finished from now on."""
        self._client.shutdown()


@dataclass(frozen=True, slots=True)
class _Result(BaseHTTPResult):
    """What became of one request. `told` are the answer's headers, names in lower case."""

    told: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    def content(self) -> bytes:
        """Nothing of an answer's body is kept."""
        return b""

    def headers(self) -> Mapping[str, str]:
        return self.told


class Redirected(Exception):
    """A collector is where the configuration says, and nowhere else."""


class Transport(BaseHTTPTransport):
    """One connection that is kept open; every fault is told by a word that holds nothing of the request."""

    def __init__(self, signal: Signal, teller: Teller) -> None:
        """Nothing is opened or read before it is used."""
        target, proxy = urlsplit(signal.endpoint), signal.proxy
        self._signal = signal
        self._teller = teller
        self._target = target
        self._proxy = proxy
        self._context: ssl.SSLContext | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._own: dict[str, str] = {}
        path = target._replace(scheme="", netloc="", fragment="").geturl()
        self._path = quote(path or "/", _KEPT_CHARACTERS)
        if target.username is not None:
            credentials = f"{unquote(target.username)}:{unquote(target.password or '')}"
            self._own["authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        if proxy is not None and target.scheme == "http":
            self._path = f"http://{target.netloc.rpartition('@')[2]}{self._path}"
            self._own |= _authorization(proxy)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        data: bytes | None = None,
    ) -> BaseHTTPResult:
        """`url` is the endpoint's. No error is raised: the result has it."""
        del url
        if timeout is not None and timeout <= 0.0:
            # The last try has used up the time, and its reason is the one to tell.
            return _Result(error=TimeoutError())
        try:
            connection = self._connected(timeout)
            connection.request(method, self._path, data, {**(headers or {}), **self._own})
            response = connection.getresponse()
            self._read(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._teller.reason = self._word(error)
            self.close()
            return _Result(error=error)
        if response.status >= 300:
            self._teller.reason = f"HTTP {response.status}"
        if 300 <= response.status < 400:
            return _Result(error=Redirected())
        told = {name.lower(): value for name, value in response.headers.items()}
        return _Result(response.status, response.reason, None, told)

    def close(self) -> None:
        """As its name says. It opens again where it is used again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def is_connection_error(self, exception: Exception | None) -> bool:
        """Whether another try may help."""
        return isinstance(exception, OSError | http.client.HTTPException)

    def _connected(self, timeout: float | None) -> http.client.HTTPConnection:
        connection = self._connection
        if connection is None or connection.sock is None:
            self._connection = connection = self._made(timeout)
            connection.connect()
        else:
            connection.sock.settimeout(timeout)
        return connection

    def _made(self, timeout: float | None) -> http.client.HTTPConnection:
        target, proxy = self._target, self._proxy
        first = target if proxy is None else urlsplit(proxy.url)
        host, port = first.hostname or "", first.port or _PORTS[first.scheme]
        if "https" not in (target.scheme, first.scheme):
            return http.client.HTTPConnection(host, port, timeout=timeout)
        if self._context is None:
            self._context = _context(self._signal)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        if proxy is not None and target.scheme == "https":
            connection.set_tunnel(
                target.hostname or "", target.port or _PORTS["https"], _authorization(proxy)
            )
        return connection

    def _read(self, response: http.client.HTTPResponse) -> None:
        response.read(_MAX_ANSWER)
        if not response.isclosed():
            self.close()

    def _word(self, error: Exception) -> str:
        connected = self._connection is not None and self._connection.sock is not None
        if isinstance(error, ssl.SSLError):
            return "SSLError"
        if isinstance(error, TimeoutError):
            return "ReadTimeout" if connected else "ConnectTimeout"
        if isinstance(error, OSError) and self._proxy is not None and not connected:
            return "ProxyError"
        return "InvalidRequest" if isinstance(error, ValueError) else "ConnectionError"


def _silence() -> None:
    """Keep the library's own lines away: they come once a batch, and may quote headers and URLs."""
    library = logging.getLogger("opentelemetry")
    library.propagate = False
    library.handlers[:] = [logging.NullHandler()]


def _authorization(proxy: Proxy) -> dict[str, str]:
    if proxy.authorization is None:
        return {}
    return {"proxy-authorization": proxy.authorization.get_secret_value()}


def _context(signal: Signal) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=signal.certificate)
    if signal.certificate is None:
        with_some(context)
    if signal.client_certificate is not None:
        context.load_cert_chain(signal.client_certificate, signal.client_key)
    return context
