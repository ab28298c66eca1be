"""The containers beside the sidecar: they learn where the API is, and keep all that they have.

Enters: a container, the API's port, what the pod's annotation says. Leaves: the container with OPENAI_BASE_URL
and a placeholder for OPENAI_API_KEY where it has none, and warnings for what would keep its calls away from the
sidecar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .. import naming

BASE_URL: Final = "OPENAI_BASE_URL"
API_KEY: Final = "OPENAI_API_KEY"
PLACEHOLDER: Final = "inference-sidecar"
"""SDKs insist on a key; the sidecar drops whatever comes."""

_PROXIES: Final = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_NO_PROXIES: Final = ("NO_PROXY", "no_proxy")


def base_url(port: int) -> str:
    """127.0.0.1 and not localhost: some runtimes take that name for ::1 alone."""
    return f"http://127.0.0.1:{port}/v1"


def introduced(container: Mapping[str, Any], port: int, *, force: bool) -> dict[str, Any]:
    """`container` with the variables where they are absent; with `force` in place of its own.

    They stand first, so that the container's own variables can refer to them.
    """
    ours = {BASE_URL: base_url(port), API_KEY: PLACEHOLDER}
    theirs = list(container.get("env") or [])
    if force:
        theirs = [
            {"name": one["name"], "value": ours[one["name"]]} if one.get("name") in ours else one
            for one in theirs
        ]
    there = {one.get("name") for one in theirs}
    added = [{"name": name, "value": value} for name, value in ours.items() if name not in there]
    return {**container, "env": [*added, *theirs]} if added or force else dict(container)


def warnings(container: Mapping[str, Any], port: int, *, force: bool) -> Iterator[str]:
    """What in `container`, as it came, may lead its calls past the sidecar. `force`: its own URL is replaced."""
    name = container.get("name")
    variables = {one.get("name"): one for one in container.get("env") or []}
    theirs = variables.get(BASE_URL)
    if theirs is not None and theirs.get("value") != base_url(port) and not force:
        yield (
            f"container {name} has an {BASE_URL} of its own, which is kept: its calls may not reach the sidecar "
            f"(the annotation {naming.ENV_ANNOTATION}: force replaces it)"
        )
    if container.get("envFrom") and theirs is None and not force:
        yield f"container {name} has envFrom: if {BASE_URL} or {API_KEY} comes from there, the sidecar's value wins"
    proxies = [variables[proxy] for proxy in _PROXIES if _is_set(variables.get(proxy))]
    if proxies and not _is_exempt([variables[one] for one in _NO_PROXIES if one in variables]):
        yield (
            f"container {name} has {proxies[0]['name']} and no NO_PROXY with 127.0.0.1: its calls to the sidecar "
            "may go to the proxy"
        )


def _is_set(variable: Mapping[str, Any] | None) -> bool:
    return variable is not None and bool(variable.get("value") or variable.get("valueFrom"))


def _is_exempt(variables: Sequence[Mapping[str, Any]]) -> bool:
    """A list that comes from elsewhere cannot be read here: it gets the benefit of the doubt."""
    for variable in variables:
        parts = {part.strip() for part in str(variable.get("value") or "").split(",")}
        if variable.get("valueFrom") or parts & {"*", "127.0.0.1", "127.0.0.0/8"}:
            return True
    return False
