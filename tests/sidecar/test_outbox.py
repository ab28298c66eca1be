"""What a turn of the loop sends, on asyncio and on uvloop.

Covered: nobody else, several in one turn, their order, the bound, what is added while it is sent. Left out: what connections
do with it, which test_server, test_server_turns and the transport's tests see with and without others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from inference_sidecar.outbox import MOST, Outbox, outbox_of

Scenario = Callable[[Outbox, list[int]], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runs(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario(outbox_of(runner.get_loop()), []))

    return runs


def test_a_loop_has_one(run: Run) -> None:
    async def scenario(outbox: Outbox, sent: list[int]) -> None:
        assert outbox_of(asyncio.get_running_loop()) is outbox

    run(scenario)


@pytest.mark.parametrize("others", [0, 1])
def test_where_there_is_no_other_it_is_sent_at_once(run: Run, others: int) -> None:
    async def scenario(outbox: Outbox, sent: list[int]) -> None:
        outbox.open = others
        outbox.add(lambda: sent.append(1))
        assert sent == [1]

    run(scenario)


def test_beside_others_it_is_sent_in_order_at_the_turns_end(run: Run) -> None:
    async def scenario(outbox: Outbox, sent: list[int]) -> None:
        outbox.open = 2
        for round_ in range(2):
            outbox.add(lambda: sent.append(1))
            outbox.add(lambda: sent.append(2))
            assert sent == [1, 2] * round_
            await asyncio.sleep(0)
            assert sent == [1, 2] * (round_ + 1)

    run(scenario)


def test_no_more_than_the_bound_wait(run: Run) -> None:
    async def scenario(outbox: Outbox, sent: list[int]) -> None:
        outbox.open = 2
        for number in range(MOST + 1):
            assert sent == (list(range(MOST)) if number == MOST else [])
            outbox.add(lambda number=number: sent.append(number))  # type: ignore[misc]
        await asyncio.sleep(0)
        assert sent == list(range(MOST + 1))

    run(scenario)


def test_what_is_added_while_it_is_sent_is_not_lost(run: Run) -> None:
    async def scenario(outbox: Outbox, sent: list[int]) -> None:
        def again() -> None:
            sent.append(1)
            outbox.add(lambda: sent.append(2))

        outbox.open = 2
        outbox.add(again)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sent == [1, 2]

    run(scenario)
