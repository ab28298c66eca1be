"""Which values each type of the schema takes, and the one form in which it keeps them.

Covers: base_url, hosts, origins, extra headers, keys, file paths, numbers at their bounds, immutability.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from inference_config.schema import Config
from inference_config.settings import SETTINGS


def config_with(path: str, value: object) -> Config:
    tree: Any = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    return Config.model_validate(tree)


def kept(path: str, value: object) -> Any:
    return SETTINGS[path].of(config_with(path, value))


def refused(path: str, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        config_with(path, value)
    (error,) = caught.value.errors()
    return str(error.get("ctx", {}).get("error", error["msg"]))


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("HTTP://LocalHost:8000//", "http://localhost:8000"),
        ("https://r.openai.azure.com", "https://r.openai.azure.com"),
        ("https://[2001:DB8::1]:8443/v1", "https://[2001:db8::1]:8443/v1"),
        ("https://r/openai/deployments/D?api-version=2024-10-21", None),
        ("http://vllm.models.svc:8000/v1", None),
        ("https://gateway/v1/models-proxy", None),
    ],
)
def test_base_url(value: str, form: str | None) -> None:
    assert kept("inference.base_url", value) == (form or value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "absolute"),
        ("api.openai.com/v1", "absolute"),
        ("ftp://host", "absolute"),
        ("https:///v1", "absolute"),
        ("https://host:99999", "absolute"),
        ("https://[::1", "absolute"),
        ("https://a_b!c/v1", "absolute"),
        ("https://user:pass@host/v1", "user name"),
        ("https://host/v1#x", "fragment"),
        ("https://host/v1?key=1", "query"),
        ("https://host/v1?api-version=1&key=1", "query"),
        ("https://host/a b", "blanks"),
        ("https://host/\tv1", "blanks"),
        ("https://hóst/v1", "ASCII"),
        ("https://host\\@other/v1", "ASCII"),
        ("https://host/v1/../admin", "path"),
        ("https://host/v1/%2E%2e/admin", "path"),
        ("https://api.openai.com/v1/chat/completions", "without /chat/completions"),
        ("https://host/" + "x" * 2048, "at most 2048"),
    ],
)
def test_no_base_url(value: str, says: str) -> None:
    assert says in refused("inference.base_url", value)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("https://Example.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[::1]:80", "http://[::1]"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origins(value: str, form: str) -> None:
    assert kept("server.allowed_origins", [value]) == (form,)


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "null",
        "example.com",
        "https://*.example.com",
        "https://a/",
        "https://a?",
        "https://a#",
        "https://u@a",
        "",
    ],
)
def test_no_origins(value: str) -> None:
    assert "an origin" in refused("server.allowed_origins", [value])


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("[::1]", "::1"),
        ("FD00:0::1", "fd00::1"),
        ("My-Host.local", "my-host.local"),
        ("localhost", "localhost"),
    ],
)
def test_hosts(value: str, form: str) -> None:
    assert kept("server.host", value) == form
    assert kept("server.allowed_hosts", [value]) == (form,)


@pytest.mark.parametrize("value", ["", "http://a", "a:80", "a/b", "[a]:1", "-a", "a b", "x" * 300, "a\n"])
def test_no_hosts(value: str) -> None:
    assert "a host name or an IP address" in refused("server.host", value)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Authorization",
        "API-KEY",
        "Connection",
        "TE",
        "Transfer-Encoding",
        "Accept-Encoding",
    ],
)
def test_headers_that_no_setting_may_add(name: str) -> None:
    assert "neither the key's nor made anew" in refused("inference.extra_headers", {name: "x"})


@pytest.mark.parametrize(
    "headers", [{"a b": "x"}, {"": "x"}, {"a:": "x"}, {"X-A\n": "x"}, {"é": "x"}, {"x" * 129: ""}]
)
def test_names_that_are_no_headers(headers: dict[str, str]) -> None:
    refused("inference.extra_headers", headers)


@pytest.mark.parametrize("value", ["a\r\nb: c", "é", " a", "a\t", "x" * 8193])
def test_values_that_no_header_carries(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config_with("inference.extra_headers", {"X-A": value})
    (error,) = caught.value.errors()
    assert error["loc"] == ("inference", "extra_headers", "X-A")


def test_headers_are_bounded_and_once_each() -> None:
    assert "each header once" in refused("inference.extra_headers", {"X-A": "1", "x-a": "2"})
    refused("inference.extra_headers", {f"X-{n}": "" for n in range(65)})
    assert len(kept("inference.extra_headers", {f"X-{n}": "" for n in range(64)})) == 64


def test_a_key_is_trimmed() -> None:
    assert kept("inference.api_key", " sk-test\n").get_secret_value() == "sk-test"


@pytest.mark.parametrize("value", ["", " \n", "a b", "a\nb", "é", "a\x7f", "a\x00b"])
def test_no_key(value: str) -> None:
    refused("inference.api_key", value)


def test_a_path_may_hold_what_a_header_may_not() -> None:
    assert kept("inference.api_key_file", "/mnt/grüne schlüssel") == "/mnt/grüne schlüssel"
    refused("inference.api_key_file", "a\nb")
    refused("inference.api_key_file", "")


@pytest.mark.parametrize("path", [path for path, one in SETTINGS.items() if one.kind in ("int", "float")])
def test_bounds_in_words_are_bounds_in_fact(path: str) -> None:
    if path == "version":
        return
    words = SETTINGS[path].valid.replace(",", "").split()
    low, high = (float(word) for word in words if word.isdigit())
    number = int if SETTINGS[path].kind == "int" else float
    assert kept(path, number(high)) == high
    refused(path, number(high + 1))
    if "above" in words:
        refused(path, number(low))
    else:
        assert kept(path, number(low)) == low
        refused(path, number(low - 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "1"])
def test_what_is_no_number_of_seconds(value: object) -> None:
    refused("inference.http.timeout_secs", value)


def test_a_config_cannot_be_changed_and_shows_no_key() -> None:
    config = config_with("inference.api_key", "sk-test-1234")
    name = "port"
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config.server, name, 1)
    assert "sk-test-1234" not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
