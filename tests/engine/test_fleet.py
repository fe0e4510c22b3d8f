"""Patience: it begins with a failure and not with the last answer, and lasts while a server is answering."""

import asyncio
from collections.abc import Awaitable

import pytest

from pipo_core.engine.fleet import Fleet, PassingError
from pipo_core.errors import MachineError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.engine.fleet._FIRST_PAUSE_S", 0.01)


async def answer(fleet: Fleet, takes: Awaitable[object], *, fails: bool = False) -> None:
    async with fleet.server():
        await takes
        if fails:
            raise PassingError("reset")


def test_a_failure_after_a_long_try_has_its_own_patience() -> None:
    async def run() -> None:
        fleet = Fleet(["http://one"], patience_s=0.1)
        fleet.start()
        with pytest.raises(PassingError):
            await answer(fleet, asyncio.sleep(0.3), fails=True)
        await answer(fleet, asyncio.sleep(0))

    asyncio.run(run())


def test_nobody_gives_up_while_the_server_answers_another() -> None:
    async def run() -> None:
        fleet, end = Fleet(["http://one"], patience_s=0.05), asyncio.Event()
        fleet.start()
        long = asyncio.create_task(answer(fleet, end.wait()))
        await asyncio.sleep(0)
        with pytest.raises(PassingError):
            await answer(fleet, asyncio.sleep(0), fails=True)
        again = asyncio.create_task(answer(fleet, asyncio.sleep(0)))
        await asyncio.sleep(0.3)
        assert not again.done()
        end.set()
        await asyncio.gather(long, again)

    asyncio.run(run())


def test_after_its_patience_it_gives_up() -> None:
    async def run() -> None:
        fleet = Fleet(["http://one"], patience_s=0.1)
        fleet.start()
        with pytest.raises(MachineError, match="no server has answered"):
            while True:
                with pytest.raises(PassingError):
                    await answer(fleet, asyncio.sleep(0), fails=True)

    asyncio.run(run())
