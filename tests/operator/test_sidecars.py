"""Asking pods for their /status, over real sockets: bounds on size, time and number, and answers that are none.

Left out: what an answer means (test_rollout).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.admin import Admin, Admins, reply
from inference_operator.sidecars import AT_ONCE, POD_SECS, Address, Sidecars, Unheard

MAX_BYTES = 1000


@pytest.fixture
def admins() -> Iterator[Admins]:
    with Admins() as running:
        yield running


def at(admin: Admin) -> Address:
    return Address("127.0.0.1", admin.port)


async def ask(**admins: Admin) -> dict[str, bytes | Unheard]:
    async with Sidecars.asking(MAX_BYTES) as sidecars:
        return await sidecars.ask({name: at(admin) for name, admin in admins.items()})


async def test_an_answer_is_handed_on_as_it_is(admins: Admins) -> None:
    said = await ask(a=admins.add(raw=reply(b"\x00anything")))
    assert said == {"a": b"\x00anything"}


async def test_nobody_is_asked_for_nothing() -> None:
    assert await ask() == {}


@pytest.mark.parametrize("length", [MAX_BYTES, MAX_BYTES + 1, 50_000_000])
async def test_of_a_long_answer_the_bound_and_one_are_read(admins: Admins, length: int) -> None:
    began = time.monotonic()
    said = await ask(a=admins.add(raw=reply(b"x" * length)))
    assert said == {"a": b"x" * min(length, MAX_BYTES + 1)}
    assert time.monotonic() - began < POD_SECS


async def test_a_compressed_answer_is_not_unpacked(admins: Admins) -> None:
    raw = reply(b"\x1f\x8bno matter", "200 OK", "Content-Encoding: gzip")
    assert await ask(a=admins.add(raw=raw)) == {"a": b"\x1f\x8bno matter"}


async def test_a_redirect_is_not_followed(admins: Admins) -> None:
    other = admins.add(revision="r")
    raw = reply(b"", "302 Found", f"Location: http://127.0.0.1:{other.port}/status")
    assert await ask(a=admins.add(raw=raw)) == {"a": Unheard("its /status answered 302")}
    assert other.calls == 0


@pytest.mark.parametrize("status", ["204 No Content", "404 Not Found", "503 Service Unavailable"])
async def test_another_status_is_no_answer(admins: Admins, status: str) -> None:
    said = await ask(a=admins.add(raw=reply(b"", status)))
    assert said == {"a": Unheard(f"its /status answered {status.split(maxsplit=1)[0]}")}


async def test_what_is_no_http_is_no_answer(admins: Admins) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    said = await ask(a=admins.add(raw=b"SSH-2.0-garbage\r\n\r\n"), b=admins.add(raw=cut))
    assert all(isinstance(one, Unheard) and "port" in one.reason for one in said.values())


async def test_a_port_where_nobody_listens(admins: Admins) -> None:
    gone = admins.add()
    admins.close(gone)
    said = (await ask(a=gone))["a"]
    assert isinstance(said, Unheard)
    assert str(gone.port) in said.reason


async def test_a_silent_pod_costs_its_time_and_no_other_pod_its_answer(admins: Admins) -> None:
    began = time.monotonic()
    said = await ask(silent=admins.add(raw=b""), well=admins.add(raw=reply(b"{}")))
    assert POD_SECS <= time.monotonic() - began < 2 * POD_SECS
    assert said["well"] == b"{}"
    assert said["silent"] == Unheard(f"no answer from port {_port(said['silent'])} within {POD_SECS:g} s")


def _port(said: bytes | Unheard) -> int:
    assert isinstance(said, Unheard)
    return int(said.reason.split()[4])


async def test_an_address_that_is_none_is_no_answer() -> None:
    async with Sidecars.asking(MAX_BYTES) as sidecars:
        said = await sidecars.ask({"a": Address("127.0.0.1 x", 80), "b": Address("", 80)})
    assert all(isinstance(one, Unheard) for one in said.values())


async def test_an_address_of_ipv6(admins: Admins) -> None:
    async with Sidecars.asking(MAX_BYTES) as sidecars:
        said = await sidecars.ask({"a": Address("::ffff:127.0.0.1", admins.add(raw=reply(b"{}")).port)})
    assert said == {"a": b"{}"}


async def test_many_pods_are_asked_a_bounded_number_at_once(admins: Admins) -> None:
    many = [admins.add(raw=reply(b"{}")) for _ in range(20)]
    addresses = {(number, one.port): at(one) for number in range(20) for one in many}
    async with Sidecars.asking(MAX_BYTES) as sidecars:
        said = await sidecars.ask(addresses)
    assert set(said.values()) == {b"{}"}
    assert len(said) == len(addresses)
    assert 1 < admins.most <= AT_ONCE


async def test_those_that_there_was_no_time_for_are_left_out(
    admins: Admins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_operator.sidecars.ALL_SECS", 0.2)
    said = await ask(silent=admins.add(raw=b""), well=admins.add(raw=reply(b"{}")))
    assert said == {"well": b"{}"}
