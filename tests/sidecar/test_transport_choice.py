"""Which transport a configuration gets, and that the other one's modules are never loaded.

Covered: every value of inference.http.transport with a proxy and without, a change of it, what a process imports.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from inference_config.problems import ConfigError
from inference_config.schema import Config
from inference_sidecar.runtime.target import target_of
from inference_sidecar.upstream import Wire, wire_for

OURS, STOCK = "AsyncioTransport", "PoolTransport"
PROXY = {"https_proxy": "http://proxy.example:3128"}


def wire(transport: str, environ: dict[str, str], current: Wire | None = None) -> Wire:
    config = Config.model_validate({"inference": {"api_key": "sk-x", "http": {"transport": transport}}})
    return wire_for(config, target_of(config.inference), environ, current)


@pytest.mark.parametrize(
    ("transport", "environ", "kind"),
    [
        ("auto", {}, OURS),
        ("auto", PROXY, STOCK),
        ("auto", {**PROXY, "no_proxy": "api.openai.com"}, OURS),
        ("asyncio", {}, OURS),
        ("asyncio", {**PROXY, "no_proxy": "api.openai.com"}, OURS),
        ("httpcore", {}, STOCK),
        ("httpcore", PROXY, STOCK),
    ],
)
async def test_what_a_configuration_gets(transport: str, environ: dict[str, str], kind: str) -> None:
    made = wire(transport, environ)
    assert type(made._transport).__name__ == kind
    assert made.usage() == (0, 0)
    await made.aclose()


def test_ours_is_refused_where_only_a_proxy_leads_out() -> None:
    """It knows none, and past it is not where the administrator wants requests to go."""
    with pytest.raises(ConfigError, match=r"inference\.http\.transport: found asyncio, with a proxy"):
        wire("asyncio", PROXY)


async def test_a_change_takes_a_new_wire() -> None:
    first = wire("asyncio", {})
    assert wire("asyncio", {}, first) is first
    second = wire("httpcore", {}, first)
    assert second is not first
    await first.aclose()
    await second.aclose()


@pytest.mark.parametrize(
    ("transport", "absent"),
    [("auto", "httpcore"), ("asyncio", "httpcore"), ("httpcore", "asyncio_transport")],
)
def test_only_what_is_used_is_imported(transport: str, absent: str) -> None:
    code = """
import asyncio, sys
from inference_config.schema import Config
from inference_sidecar.runtime.target import target_of
from inference_sidecar.upstream import wire_for
async def main():
    config = Config.model_validate({"inference": {"api_key": "sk-x", "http": {"transport": sys.argv[1]}}})
    await wire_for(config, target_of(config.inference), {}, None).aclose()
asyncio.run(main())
print(*sorted(sys.modules))
"""
    done: Any = subprocess.run(
        [sys.executable, "-c", code, transport], capture_output=True, text=True, check=True
    )
    assert not [name for name in done.stdout.split() if absent in name.split(".")]
