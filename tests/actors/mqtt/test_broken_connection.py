"""What a connection that breaks looks like from outside: itself, and nothing while we leave."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from config_manager.actors.mqtt.port import BrokerUnavailable, broken_as_itself


async def breaks(while_leaving: bool) -> None:
    try:
        if while_leaving:
            await trio.sleep_forever()
    finally:
        raise BrokerUnavailable("dropped")


async def test_it_passes_without_the_groups_around_it() -> None:
    with pytest.raises(BrokerUnavailable, match="dropped"), broken_as_itself():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaks, False)
            await trio.sleep_forever()


async def test_a_connection_that_breaks_while_we_leave_is_nobodys_failure() -> None:
    with trio.CancelScope() as scope, broken_as_itself():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaks, True)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_what_else_failed_is_not_lost() -> None:
    with pytest.raises(ExceptionGroup) as caught, broken_as_itself():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaks, True)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("ours")
    assert caught.value.split(ValueError)[0] is not None
