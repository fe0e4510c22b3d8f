"""Compiles grammars, one at a time and within a deadline: a short schema can take minutes and gigabytes."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from pipo_core.serve.schemas import BodyError
from pipo_core.serve.service import Refused, Service

_SECONDS = 10.0

T = TypeVar("T")


async def compiled(service: Service, make: Callable[[], T]) -> T:
    """Return what ``make`` returns; it runs in a thread of its own, which the end of the process does not wait for.

    A grammar that is given up is compiled to its end, because nothing can stop that; meanwhile no other one is begun.

    Raises:
        Refused: with status 429, if another grammar is being compiled all the while.
        BodyError: if this one takes too long, and what ``make`` raises.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            await service.compiling.acquire()
    except TimeoutError:
        raise Refused(429, "another grammar is being compiled; try again later", kind="rate_limit_error") from None
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: Exception | None) -> None:
        service.compiling.release()
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type] # without an error there is a result
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = make()
        except Exception as found:  # noqa: BLE001 - whoever waits gets it
            error = found
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="pipo-grammar", daemon=True).start()
    try:
        async with asyncio.timeout(_SECONDS):
            return await done
    except TimeoutError:
        raise BodyError(f"the grammar was not compiled within {_SECONDS:.0f} seconds: simplify its schema") from None
