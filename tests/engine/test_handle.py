"""When a reader of a request is woken.

1. The first delta and the end are told at once, whatever is between them.
2. What lies between is told to all readers of an event loop together, and then not for a while, longer where there are
   more of them; nothing is lost, and a reader who comes late waits with the others.
3. A reader who was silent for longer than that is told at once.
4. Deltas that nobody fetches are kept apart up to a bound, and are one when they are fetched.
5. A reader who gives up harms no other, and several may read one request.
6. Where what is told comes in pulses already, readers are woken at once, those of one pulse together.
7. Who watches is told whenever there is something to take, also if it came before, and the end.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from zaya.engine import handle as module
from zaya.engine.handle import Bell, RequestHandle
from zaya.engine.types import Completion, Delta, FinishReason

LONG = 3600.0


def made(n: int = 1) -> RequestHandle:
    return RequestHandle(n, lambda _: None, wants_deltas=True)


def tell(handle: RequestHandle, *ids: int) -> None:
    """As an engine does, in a thread of its own."""
    thread = threading.Thread(target=lambda: [handle.tell(Delta(index=0, ids=(id,), text=chr(id))) for id in ids])
    thread.start()
    thread.join()


def end(handle: RequestHandle) -> None:
    handle.complete(0, Completion(ids=(), text="", reasoning="", finish_reason=FinishReason.STOP, prompt_ids=(1,)))


async def read(handle: RequestHandle, into: list[tuple[int, ...]]) -> None:
    async for delta in handle:
        into.append(delta.ids)


async def settled() -> None:
    """All that was to happen at once has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@pytest.fixture(params=["LEAST_PAUSE_S", "PAUSE_PER_READER_S"])
def pause(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a test to be over before."""
    monkeypatch.setattr(module, request.param, LONG)


@pytest.mark.usefixtures("pause")
def test_the_first_and_the_end_are_told_at_once() -> None:
    async def work() -> None:
        handle, found = made(), []
        reader = asyncio.create_task(read(handle, found))
        await settled()
        tell(handle, 1)
        await settled()
        assert found == [(1,)]
        tell(handle, 2)  # nobody was told anything lately
        await settled()
        assert found == [(1,), (2,)]
        tell(handle, 3)
        tell(handle, 4, 5)
        await settled()
        assert found == [(1,), (2,)]
        end(handle)
        await reader
        assert found == [(1,), (2,), (3, 4, 5)]

    run(work())


@pytest.mark.usefixtures("pause")
def test_another_request_begins_at_once_in_between() -> None:
    async def work() -> None:
        first, second = made(), made()
        found: tuple[list[Any], list[Any]] = ([], [])
        readers = [asyncio.create_task(read(h, into)) for h, into in zip((first, second), found, strict=True)]
        await settled()
        tell(first, 1)
        await settled()
        tell(first, 2)
        await settled()
        tell(second, 7)
        await settled()
        assert found == ([(1,), (2,)], [(7,)])
        tell(second, 8)
        await settled()
        assert found[1] == [(7,)]
        end(first)
        end(second)
        await asyncio.gather(*readers)
        assert found == ([(1,), (2,)], [(7,), (8,)])

    run(work())


def test_all_are_told_together_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_PAUSE_S", 0.05)
    count, steps = 8, 200

    async def work() -> None:
        handles = [made() for _ in range(count)]
        found: list[list[Any]] = [[] for _ in handles]
        readers = [asyncio.create_task(read(h, into)) for h, into in zip(handles, found, strict=True)]
        begun = time.monotonic()

        def draw() -> None:
            for step in range(steps):
                for handle in handles:
                    handle.tell(Delta(index=0, ids=(step,), text=""))
                time.sleep(0.001)
            for handle in handles:
                end(handle)

        await asyncio.to_thread(draw)
        await asyncio.gather(*readers)
        most = 4 + (time.monotonic() - begun) / 0.05  # the first, the end, and one at either end of the pauses
        assert all(len(pieces) <= most for pieces in found), (most, [len(pieces) for pieces in found])
        assert all(len(pieces) > 2 for pieces in found)
        assert all([id for piece in pieces for id in piece] == [*range(steps)] for pieces in found)

    run(work())


def test_who_was_silent_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_PAUSE_S", 0.001)

    async def work() -> None:
        handle, found = made(), []
        reader = asyncio.create_task(read(handle, found))
        for id in range(1, 6):
            tell(handle, id)
            while len(found) < id:
                await asyncio.sleep(0.002)
        end(handle)
        await reader
        assert found == [(id,) for id in range(1, 6)]

    run(work())


def test_what_nobody_fetches() -> None:
    handle = made()
    for id in range(200):
        handle.tell(Delta(index=0, ids=(id,), text=chr(65 + id % 26), logprobs=np.array([id], dtype=np.float32)))
        assert len(handle._deltas[0]) < module.MOST_APART
    delta = handle.take()
    assert delta is not None
    assert delta.ids == tuple(range(200))
    assert delta.text == "".join(chr(65 + id % 26) for id in range(200))
    assert delta.logprobs is not None
    assert delta.logprobs.tolist() == [*range(200)]
    assert handle.take() is None


def test_a_reader_who_gives_up() -> None:
    async def work() -> None:
        handle, found, gone = made(), [], []
        leaving, reader = (asyncio.create_task(read(handle, into)) for into in (gone, found))
        await settled()
        leaving.cancel()
        tell(handle, 1, 2)
        await settled()
        assert leaving.cancelled()
        end(handle)
        await reader
        assert (found, gone) == ([(1, 2)], [])
        assert not handle._readers

    run(work())


def test_a_loop_that_is_over_is_forgotten() -> None:
    gc.collect()
    before = len(module._pulses)

    async def work() -> None:
        handle, found = made(), []
        reader = asyncio.create_task(read(handle, found))
        await settled()
        tell(handle, 1)
        tell(handle, 2)
        await settled()
        reader.cancel()

    run(work())
    gc.collect()
    assert len(module._pulses) == before


def test_pulses_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_PAUSE_S", LONG)

    async def tell_each(handles: list[RequestHandle], id: int) -> None:
        for handle in handles:
            handle.tell(Delta(index=0, ids=(id,), text=chr(id)))

    async def read(teller: asyncio.AbstractEventLoop) -> tuple[list[str], int]:
        bell, woken = Bell(teller), 0
        handles = [RequestHandle(1, lambda _: None, wants_deltas=True, bell=bell) for _ in range(3)]
        here = asyncio.get_running_loop()

        def counted(*call: Any) -> Any:
            nonlocal woken
            woken += call[0] is module._resolve_all
            return type(here).call_soon_threadsafe(here, *call)

        monkeypatch.setattr(here, "call_soon_threadsafe", counted)
        readers, found = [aiter(handle) for handle in handles], []
        for id in (97, 98):
            coming = [asyncio.ensure_future(anext(reader)) for reader in readers]
            await asyncio.sleep(0.01)
            asyncio.run_coroutine_threadsafe(tell_each(handles, id), teller).result(5)
            found += [(await asyncio.wait_for(delta, 5)).text for delta in coming]
        asyncio.run_coroutine_threadsafe(tell_each(handles, 99), teller).result(5)
        found += [(await asyncio.wait_for(anext(reader), 5)).text for reader in readers]
        return found, woken

    teller = asyncio.new_event_loop()
    thread = threading.Thread(target=teller.run_forever)
    thread.start()
    found, woken = asyncio.run(read(teller))
    teller.call_soon_threadsafe(teller.stop)
    thread.join()
    teller.close()
    assert "".join(found) == "aaabbbccc"
    assert woken == 2


def test_one_who_watches() -> None:
    handle, seen = made(2), []

    def watcher() -> None:
        delta = handle.take()
        seen.append("end" if delta is None else delta.text)

    tell(handle, 97)
    handle.watch(watcher)
    assert seen == ["a"]
    tell(handle, 98)
    handle.fail(ArithmeticError())
    assert seen == ["a", "b", "end"]
