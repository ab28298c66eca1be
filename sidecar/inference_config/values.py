"""The types of values that settings can have: what each accepts, and the one form in which it is kept.

Enters: a plain Python value. Leaves: the value in its normal form, or a ValueError.
The text of a ValueError completes the words "valid: "; it never repeats the value, which may be a key.
Must not know which setting uses a type.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

HEADERS_OF_A_REQUEST = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("authorization", "api-key", "proxy-authenticate", "proxy-authorization"),
        *("accept-encoding", "content-encoding", "content-length", "content-type", "expect", "host"),
    )
)
"""Headers that belong to one hop, to one body or to the key: no setting may add them to every request."""

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Valid:
    """What a type of text accepts, in words; beside the type's validators in its annotation."""

    text: str


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("text without control characters")
    return value


def _header_text(value: str) -> str:
    """A header value that every HTTP implementation carries unchanged: visible ASCII and inner blanks."""
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("ASCII without control characters, and without blanks at either end")
    return value


def _header_secret(value: SecretStr) -> SecretStr:
    _header_text(value.get_secret_value())
    return value


def _header_name(value: str) -> str:
    if value.lower() in HEADERS_OF_A_REQUEST:
        raise ValueError("a header that is neither the key's nor made anew for each request")
    return value


def _no_twins(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("each header once, whatever its capitals")
    return value


def key_text(value: SecretStr) -> SecretStr:
    """A key goes into a header: trimmed, not empty, ASCII, no blanks and no control characters."""
    key = value.get_secret_value().strip()
    if not key:
        raise ValueError("a key that is not empty")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("ASCII without blanks or control characters")
    return SecretStr(key)


def _host(value: str) -> str:
    """A host name or an address, in lower case; IPv6 without brackets."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if re.fullmatch(r"[0-9A-Za-z_]([0-9A-Za-z_.-]{0,251}[0-9A-Za-z_.])?", bare):
        return bare.lower()
    try:
        return str(ipaddress.IPv6Address(bare))
    except ValueError:
        raise ValueError("a host name or an IP address, without scheme, port or path") from None


def _split(value: str, shape: str) -> tuple[str, str, int | None, str, str]:
    """`value` as scheme, host, port, path, query; the rest is refused. `shape`: what is valid."""
    if not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise ValueError(f"{shape}, ASCII without blanks")
    try:
        parts = urlsplit(value)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError(shape) from None
    if "@" in parts.netloc:
        raise ValueError(f"{shape} without a user name or password; api_key and api_key_file carry the key")
    if "#" in value:
        raise ValueError(f"{shape} without a fragment")
    return parts.scheme, f"[{host}]" if ":" in host else host, port, parts.path, parts.query


def _base_url(value: str) -> str:
    """Without a slash at its end, so that a path can be put behind it."""
    shape = "an absolute http:// or https:// URL"
    scheme, host, port, path, query = _split(value, shape)
    if scheme not in DEFAULT_PORTS:
        raise ValueError(shape)
    if any(segment.lower().replace("%2e", ".") in (".", "..") for segment in path.split("/")):
        raise ValueError(f"{shape} without . or .. in its path")
    path = path.rstrip("/")
    for endpoint in ("/chat/completions", "/completions", "/embeddings", "/responses", "/models"):
        if path.endswith(endpoint):
            raise ValueError(f"the root of the API: the URL without {endpoint}")
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    if query and names != ["api-version"]:
        raise ValueError(f"{shape} without a query other than api-version")
    return urlunsplit((scheme, host if port is None else f"{host}:{port}", path, query, ""))


def _origin(value: str) -> str:
    """As browsers write it in the Origin header: lower case, without the scheme's own port."""
    shape = "an origin, scheme://host or scheme://host:port"
    scheme, host, port, path, query = _split(value, shape)
    if not scheme or path or query or value.endswith("?"):
        raise ValueError(f"{shape}, nothing behind it")
    return f"{scheme}://{host}" if port in (None, DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256),
    AfterValidator(_header_text),
    Valid("1 to 256 ASCII characters"),
]
Names = Annotated[tuple[Name, ...], BeforeValidator(_as_tuple)]
FilePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096),
    AfterValidator(_printable),
    Valid("the path of a file"),
]
Host = Annotated[str, AfterValidator(_host), Valid("a host name or an IP address")]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(_as_tuple)]
Origin = Annotated[str, AfterValidator(_origin), Valid("an origin such as https://example.com:8443")]
Origins = Annotated[tuple[Origin, ...], BeforeValidator(_as_tuple)]
BaseUrl = Annotated[
    str,
    StringConstraints(max_length=2048),
    AfterValidator(_base_url),
    Valid("an absolute http:// or https:// URL"),
]
Key = Annotated[SecretStr, AfterValidator(key_text), Valid("ASCII without blanks or control characters")]
HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"),
    AfterValidator(_header_name),
    Valid("a header name"),
]
HeaderValue = Annotated[
    SecretStr,
    Field(max_length=8192),
    AfterValidator(_header_secret),
    Valid("a text of at most 8192 ASCII characters"),
]
ExtraHeaders = Annotated[
    dict[HeaderName, HeaderValue],
    Field(max_length=64),
    AfterValidator(_no_twins),
    Valid("a mapping of at most 64 header names to texts"),
]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrOff = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
