"""How many may have a connection at once (`upstream.connections.Places`): none is lost, none is given twice, and who came
first has it first. With connections of real servers that is test_transport_cancel's.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from inference_sidecar.upstream.connections import Places


async def taken(places: Places) -> None:
    """As a request takes its place."""
    if not places.take():
        await places.wait()


def test_in_the_order_of_coming_without_those_who_left() -> None:
    async def scenario() -> None:
        places, served = Places(1), []
        assert places.take()
        assert not places.take()

        async def one(number: int) -> None:
            await places.wait()
            served.append(number)

        tasks = [asyncio.ensure_future(one(number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert len(places._waiting) == 4, "who left is forgotten"
        for _ in range(4):
            places.leave()
            await asyncio.sleep(0)
        assert served == [0, 2, 3, 4]
        assert not places.take(), "the last one has it still"
        places.leave()
        assert places.take()

    asyncio.run(scenario())


def test_a_place_that_was_given_to_who_is_cancelled_goes_on_to_the_next() -> None:
    async def scenario() -> None:
        places = Places(1)
        assert places.take()
        first, second = (asyncio.ensure_future(places.wait()) for _ in range(2))
        await asyncio.sleep(0)
        places.leave()  # to the first, who has not run yet
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await asyncio.wait_for(second, 5)
        assert not places.take()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_none_is_lost_or_given_twice(seed: int) -> None:
    chance, number = random.Random(seed), 3
    holding = most = 0

    async def one(places: Places) -> None:
        nonlocal holding, most
        await taken(places)
        holding += 1
        most = max(most, holding)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            holding -= 1
            places.leave()

    async def scenario() -> None:
        places = Places(number)
        tasks = [asyncio.ensure_future(one(places)) for _ in range(100)]
        for task in chance.sample(tasks, 60):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [places.take() for _ in range(number + 1)] == [True] * number + [False]

    asyncio.run(scenario())
    assert most == number
