"""The door's pure parts: Host and Origin, and which header lines go up."""

from __future__ import annotations

import pytest

from inference_config.schema import Server
from inference_sidecar.accept.body import read_head, up, wanted_coding
from inference_sidecar.accept.door import Door
from inference_sidecar.records import Reason


def reason(server: dict[str, object], **headers: str) -> Reason | None:
    door = Door(Server.model_validate(server))
    refused = door.judge(
        [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    ).refused
    return refused.reason if refused else None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:3000",
        "LOCALHOST:3000",
        "localhost.",
        "app.localhost:3000",
        "127.0.0.1:3000",
        "127.9.9.9",
        "[::1]:3000",
        "[::1]",
    ],
)
def test_loopback_hosts_come_in(host: str) -> None:
    assert reason({}, host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[fe80::1]",
        "0.0.0.0",
        "",
        "evil\xe9",
    ],
)
def test_other_hosts_do_not(host: str) -> None:
    assert reason({}, host=host) is Reason.FORBIDDEN_HOST
    assert reason({"host": "127.0.0.1"}, host=host) is Reason.FORBIDDEN_HOST


def test_listed_hosts_come_in_and_without_a_host_it_is_no_browser() -> None:
    assert reason({"allowed_hosts": ["gateway.example"]}, host="Gateway.example:3000") is None
    assert reason({}) is None


def test_bound_elsewhere_every_host_comes_in_unless_some_are_listed() -> None:
    assert reason({"host": "0.0.0.0"}, host="inference-server:3000", origin="https://x.example") is None
    assert reason({"host": "0.0.0.0", "allowed_hosts": ["a"]}, host="b") is Reason.FORBIDDEN_HOST
    assert (
        reason({"host": "0.0.0.0", "allowed_origins": ["https://a.example"]}, origin="https://b.example")
        is Reason.FORBIDDEN_ORIGIN
    )


@pytest.mark.parametrize(
    ("origin", "refused"),
    [
        ("http://localhost:5173", False), ("https://127.0.0.1", False), ("http://[::1]:8080", False), ("https://app.example", False),
        ("https://app.example.evil.example", True), ("http://app.example", True), ("null", True), ("", True), ("file://", True),
        ("http://evil.example", True),
    ],
)  # fmt: skip
def test_origins(origin: str, *, refused: bool) -> None:
    expected = Reason.FORBIDDEN_ORIGIN if refused else None
    assert reason({"allowed_origins": ["https://app.example"]}, host="localhost", origin=origin) is expected


def test_what_goes_up() -> None:
    kept = [
        (b"content-type", b"application/json"),
        (b"openai-organization", b"o"),
        (b"x-client-request-id", b"c"),
        (b"user-agent", b"u"),
        (b"x-new", b"1"),
    ]
    dropped = [
        b"authorization", b"api-key", b"x-api-key", b"cookie", b"host", b"content-length", b"transfer-encoding", b"connection",
        b"te", b"upgrade", b"expect", b"accept-encoding", b"origin", b"referer", b"x-forwarded-for", b"sec-fetch-site",
        b"proxy-authorization", b"x-stream-stats", b"traceparent", b"tracestate", b"baggage", b"x-named",
    ]  # fmt: skip
    lines = kept + [(name, b"x-named" if name == b"connection" else b"v") for name in dropped]
    assert up(lines, traced=False) == kept
    assert [name for name, _ in up(lines, traced=True)][-3:] == [b"traceparent", b"tracestate", b"baggage"]


@pytest.mark.parametrize(
    ("asked", "readable", "plain", "expected"),
    [
        ("", False, False, b"identity"), ("gzip, br", False, False, b"br, gzip"), ("gzip, br", True, False, b"gzip"),
        ("gzip, br", True, True, b"identity"), ("br", True, False, b"identity"), ("gzip;q=0, br;q=0.5", False, False, b"br"),
        ("identity", False, False, b"identity"),
    ],
)  # fmt: skip
def test_wanted_coding(asked: str, *, readable: bool, plain: bool, expected: bytes) -> None:
    head = read_head([(b"accept-encoding", asked.encode())] if asked else [])
    assert wanted_coding(head, readable=readable, plain=plain) == expected


def test_head() -> None:
    head = read_head(
        [
            (b"content-length", b"12"),
            (b"content-type", b"Application/JSON; charset=utf-8"),
            (b"x-stream-stats", b"True"),
        ]
    )
    assert (head.length, head.has_body, head.media, head.wants_stats) == (12, True, "application/json", True)
    assert read_head([(b"transfer-encoding", b"chunked")]).has_body
    assert not read_head([(b"content-length", b"0")]).has_body


@pytest.mark.parametrize(
    ("written", "length"),
    [
        (b"5", 5),
        (b"0", 0),
        (b"0" * 30 + b"5", 5),
        (b"9" * 19, 9999999999999999999),
        (b"+5", None),
        (b"", None),
    ],
)
def test_an_apps_length_is_what_its_digits_say(written: bytes, length: int | None) -> None:
    """However many they are: of a length that was not seen nothing would be read, and none refused."""
    head = read_head([(b"content-length", written)])
    assert (head.length, head.has_body) == (length, bool(length))
