"""The standard OTEL_* variables, read once at the start: what is exported, where to, and how.

Enters: the environment. Leaves: `Settings`, or every problem at once as a ConfigError. Pure, and knows nothing of
OpenTelemetry's packages: a process that exports nothing never imports them. Must not show a header's value.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from inference_config import __version__
from inference_config.load import ConfigError
from inference_config.problems import Problem, one_line, shown

from ..runtime.proxy import Proxy, proxy_for

SERVICE_NAME: Final = "inference-sidecar"
TIMEOUT_S: Final = 3.0
"""Of one export where no variable says otherwise: the specification's 10 s is longer than the whole end may take."""
LEAST_TIMEOUT_MS: Final = 100
"""Less is a number of seconds, which some SDKs take here: told, rather than every export failing."""
DEFAULT_ENDPOINT: Final = "http://localhost:4318"

SAMPLERS: Final = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
    "parentbased_traceidratio",
)  # fmt: skip
_PROTOCOL: Final = "http/protobuf"
_GRPC_PORT: Final = 4317
_CONTENT: Final = {
    "true": True,
    "span_only": True,
    "span_and_event": True,
    "false": False,
    "no_content": False,
}
_MASK: Final = "********"


@dataclass(frozen=True, slots=True)
class Signal:
    """Where one signal goes by OTLP. `compression` is none, gzip or deflate; `proxy` is None for the direct way; the
    rest are paths of PEM files."""

    endpoint: str
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    compression: str
    certificate: str | None
    client_certificate: str | None
    client_key: str | None
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """How spans are gathered: at most `queue` wait, `size` go at once, at the latest after `delay_ms`."""

    queue: int
    size: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it. `traces` and `metrics` are None where a signal is not exported by OTLP. `metrics_off` says why
    /metrics is not served, None where it is. `resource` has every attribute as text. `traceparent`: the app's is
    taken. `content`: messages are put on spans. `excluded`: a pattern of URLs, attempts at which have no span."""

    resource: Mapping[str, str]
    traces: Signal | None = None
    metrics: Signal | None = None
    metrics_off: str | None = None
    sampler: str = "parentbased_always_on"
    ratio: float = 1.0
    traceparent: bool = True
    batch: Batch = Batch(2048, 512, 5000)
    interval_s: float = 60.0
    content: bool = False
    excluded: str = ""


def read(environ: Mapping[str, str]) -> Settings:
    """Read the variables. Raises ConfigError; what has no effect (a sampler where nothing is traced) is not read."""
    reading = _Reading(environ)
    settings = reading.settings()
    if reading.problems:
        raise ConfigError(reading.problems)
    return settings


class _Reading:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._environ = environ

    def settings(self) -> Settings:
        resource = self._resource()
        if self._text("OTEL_SDK_DISABLED").lower() == "true":
            return Settings(resource, metrics_off="OTEL_SDK_DISABLED is true")
        to_traces = self._exporters("TRACES", ("otlp", "none"))
        to_metrics = self._exporters("METRICS", ("otlp", "prometheus", "none"))
        traces = self._signal("TRACES", to_traces, "OTEL_BSP_EXPORT_TIMEOUT")
        metrics = self._signal("METRICS", to_metrics, "OTEL_METRIC_EXPORT_TIMEOUT")
        off = to_metrics is not None and "prometheus" not in to_metrics
        sampler, ratio = self._sampler() if traces else ("parentbased_always_on", 1.0)
        if metrics:
            self._only("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative")
            self._only(
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"
            )
        return Settings(
            resource,
            traces,
            metrics,
            metrics_off="OTEL_METRICS_EXPORTER has no prometheus in it" if off else None,
            sampler=sampler,
            ratio=ratio,
            traceparent=self._propagators() if traces else True,
            batch=self._batch() if traces else Batch(2048, 512, 5000),
            interval_s=self._number("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000 if metrics else 60.0,
            content=self._content() if traces else False,
            excluded=self._excluded() if traces else "",
        )

    def _text(self, name: str) -> str:
        """A variable's value; one that is empty is as good as none."""
        return self._environ.get(name, "").strip()

    def _problem(self, name: str, found: str, valid: str, hint: str = "") -> None:
        self.problems.append(Problem(name, found, valid, hint, origin="environment"))

    def _first(self, *names: str) -> tuple[str, str]:
        """The first variable that is set, with its name; the last one's name where none is."""
        name = next((name for name in names if self._text(name)), names[-1])
        return name, self._text(name)

    def _of(self, signal: str, what: str) -> tuple[str, str]:
        """A variable of one signal, which goes before that of all signals."""
        return self._first(f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}")

    def _exporters(self, signal: str, valid: tuple[str, ...]) -> frozenset[str] | None:
        name = f"OTEL_{signal}_EXPORTER"
        words = [word.strip().lower() for word in self._text(name).split(",") if word.strip()]
        if not words:
            return None
        known = not any(word not in valid for word in words)
        if not known or ("none" in words and len(set(words)) > 1):
            self._problem(
                name, shown(self._text(name), masked=False), f"a list of {', '.join(valid[:-1])}, or none"
            )
        return frozenset(words)

    def _signal(self, signal: str, exporters: frozenset[str] | None, bound: str) -> Signal | None:
        name, endpoint = self._of(signal, "ENDPOINT")
        if (exporters is None and not endpoint) or (exporters is not None and "otlp" not in exporters):
            return None
        protocol_name, protocol = self._of(signal, "PROTOCOL")
        if protocol and protocol.lower() != _PROTOCOL:
            self._problem(protocol_name, shown(protocol, masked=False), _PROTOCOL, "only that is built in")
        whole = name == f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
        self._check_endpoint(name, endpoint or DEFAULT_ENDPOINT)
        timeout_name, _ = self._of(signal, "TIMEOUT")
        timeout = self._number(timeout_name, int(TIMEOUT_S * 1000), LEAST_TIMEOUT_MS)
        compression_name, compression = self._of(signal, "COMPRESSION")
        if (compression or "none").lower() not in ("none", "gzip", "deflate"):
            self._problem(compression_name, shown(compression, masked=False), "gzip, deflate or none")
        endpoint = endpoint if whole else _below(endpoint or DEFAULT_ENDPOINT, f"/v1/{signal.lower()}")
        return Signal(
            endpoint=endpoint,
            headers=self._headers(*self._of(signal, "HEADERS")),
            timeout_s=min(timeout, self._number(bound, 30_000, LEAST_TIMEOUT_MS)) / 1000,
            compression=(compression or "none").lower(),
            certificate=self._file(*self._of(signal, "CERTIFICATE")),
            client_certificate=self._file(*self._of(signal, "CLIENT_CERTIFICATE")),
            client_key=self._file(*self._of(signal, "CLIENT_KEY")),
            proxy=self._proxy(endpoint),
        )

    def _check_endpoint(self, name: str, endpoint: str) -> None:
        valid = "the URL of an OTLP receiver for HTTP, as in http://collector:4318"
        try:
            parts = urlsplit(endpoint)
            port = parts.port
        except ValueError:
            return self._problem(name, "a URL that cannot be read", valid)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return self._problem(name, shown(endpoint, masked=False), valid)
        if port == _GRPC_PORT:
            return self._problem(
                name,
                f"port {_GRPC_PORT}, which is gRPC's",
                valid,
                f"only {_PROTOCOL} is built in, and its port is 4318",
            )
        return None

    def _proxy(self, endpoint: str) -> Proxy | None:
        try:
            return proxy_for(endpoint, self._environ)
        except ValueError as error:
            name, _, fault = str(error).partition(": ")
            self._problem(name, fault, "http://HOST:PORT")
            return None

    def _headers(self, name: str, text: str) -> dict[str, str]:
        """`a=b,c=d`, percent-encoded. A fault is told without any of it: values are credentials."""
        headers = {}
        for number, pair in enumerate(text.split(","), 1):
            if not pair.strip():
                continue
            key, equals, value = (unquote(part.strip()) for part in pair.partition("="))
            if not equals or not key.isascii() or not key.replace("-", "").replace("_", "").isalnum():
                self._problem(
                    name, f"an entry {number} that is no NAME=VALUE", "NAME=VALUE,…, percent-encoded"
                )
            elif not value.isprintable() or not value.isascii():
                self._problem(name, f"a value {number} that no header can hold", "printable ASCII")
            else:
                headers[key.lower()] = value
        return headers

    def _file(self, name: str, path: str) -> str | None:
        if not path:
            return None
        try:
            Path(path).open("rb").close()
        except OSError as error:
            self._problem(
                name, f"{path}: {(error.strerror or 'an error').lower()}", "a file that can be read"
            )
        return path

    def _number(self, name: str, default: int, least: int = 1) -> int:
        text = self._text(name)
        if not text:
            return default
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            unit = "a whole number" if "_SIZE" in name else "milliseconds, a whole number"
            self._problem(name, shown(text, masked=False), f"{unit} from {least} on")
            return default
        return number

    def _batch(self) -> Batch:
        queue = self._number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        size_name = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
        size = self._number(size_name, min(512, queue))
        if size > queue:
            self._problem(size_name, str(size), f"at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}")
        return Batch(queue, size, self._number("OTEL_BSP_SCHEDULE_DELAY", 5000))

    def _sampler(self) -> tuple[str, float]:
        name = self._text("OTEL_TRACES_SAMPLER").lower() or "parentbased_always_on"
        if name not in SAMPLERS:
            self._problem("OTEL_TRACES_SAMPLER", shown(name, masked=False), ", ".join(SAMPLERS))
        text = self._text("OTEL_TRACES_SAMPLER_ARG")
        if not name.endswith("traceidratio") or not text:
            return name, 1.0
        try:
            ratio = float(text)
        except ValueError:
            ratio = math.nan
        if not 0.0 <= ratio <= 1.0:
            self._problem("OTEL_TRACES_SAMPLER_ARG", shown(text, masked=False), "a number from 0 to 1")
        return name, ratio

    def _propagators(self) -> bool:
        """Whether traceparent is taken. Baggage may be named, and is not read."""
        name = "OTEL_PROPAGATORS"
        words = {word.strip().lower() for word in self._text(name).split(",") if word.strip()}
        if not words <= {"tracecontext", "baggage", "none"}:
            self._problem(name, shown(self._text(name), masked=False), "tracecontext, baggage, or none")
        return not words or "tracecontext" in words

    def _content(self) -> bool:
        name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
        text = self._text(name).lower() or "false"
        if text not in _CONTENT:
            self._problem(name, shown(text, masked=False), ", ".join(_CONTENT))
        return _CONTENT.get(text, False)

    def _excluded(self) -> str:
        """URLs of attempts that have no span: the variable of OpenTelemetry's instrumentation of httpx."""
        name, text = self._first("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS")
        pattern = "|".join(part.strip() for part in text.split(",") if part.strip())
        try:
            re.compile(pattern)
        except re.error:
            self._problem(name, shown(text, masked=False), "regular expressions, with commas between them")
        return pattern

    def _only(self, name: str, valid: str) -> None:
        text = self._text(name)
        if text and text.lower() != valid:
            self._problem(name, shown(text, masked=False), valid)

    def _resource(self) -> dict[str, str]:
        attributes = {
            "service.name": SERVICE_NAME,
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
        }
        name = "OTEL_RESOURCE_ATTRIBUTES"
        for pair in self._text(name).split(","):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if equals and key:
                attributes[unquote(key)] = unquote(value)
            elif pair.strip():
                self._problem(
                    name, shown(pair.strip(), masked=False), "NAME=VALUE,…, percent-encoded where needed"
                )
        if service := self._text("OTEL_SERVICE_NAME"):
            attributes["service.name"] = service
        return attributes


def described(settings: Settings) -> list[tuple[str, str]]:
    """What `check` prints: a name and its value each; of headers the names only."""
    lines = [
        ("traces", _where(settings.traces)),
        ("metrics", _where(settings.metrics)),
        (
            "/metrics",
            "served on the admin port" if settings.metrics_off is None else f"off: {settings.metrics_off}",
        ),
    ]
    if settings.traces is not None:
        ratio = f" {settings.ratio:g}" if settings.sampler.endswith("traceidratio") else ""
        lines += [
            ("sampler", f"{settings.sampler}{ratio}"),
            ("traceparent", "taken from the app" if settings.traceparent else "not read"),
            (
                "batches",
                f"{settings.batch.size} spans of at most {settings.batch.queue}, every {settings.batch.delay_ms} ms",
            ),
            ("content", "messages are put on spans" if settings.content else "never"),
        ]
    if settings.metrics is not None:
        lines.append(("interval", f"{settings.interval_s:g} s"))
    told = {name: value for name, value in sorted(settings.resource.items()) if name != "service.instance.id"}
    lines.append(("resource", ", ".join(f"{name}={value}" for name, value in told.items())))
    return [(f"telemetry: {name}", one_line(value)) for name, value in lines]


def public_url(url: str) -> str:
    """A URL without what may be a credential: user, password, query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _below(url: str, path: str) -> str:
    """The URL of one signal below that of all; one that cannot be read comes back, and is told as a problem."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(path=parts.path.rstrip("/") + path).geturl()


def _where(signal: Signal | None) -> str:
    if signal is None:
        return "not exported by OTLP"
    more = [f"timeout {signal.timeout_s:g} s"]
    if signal.compression != "none":
        more.append(signal.compression)
    more += [f"{name}={_MASK}" for name in signal.headers]
    return f"{public_url(signal.endpoint)} ({', '.join(more)})"
