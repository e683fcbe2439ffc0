"""The engine that a server would have, alone in a process, and the chats that both are asked. Used by
`benchmarks.bench_serve` and `benchmarks.soak`."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from zaya.engine.types import Completion, Request, SamplingParams

LENGTHS = (64, 192)


def chat(number: int) -> dict[str, Any]:
    """A chat as /v1/chat/completions takes it, in the words that the micro model was trained on. Its answer has a
    length of its own and does not end before, so that every way of asking draws as many tokens."""
    draw = random.Random(number)
    question = f"What is {draw.randrange(100)} + {draw.randrange(100)}?\nGive the answer in \\boxed{{}}."
    body = {"messages": [{"role": "user", "content": question}], "seed": number}
    return {**body, "max_tokens": draw.randint(*LENGTHS), "ignore_eos": True}


def opened(options: Sequence[str]) -> Any:
    """The engine that `zaya serve` makes of these options."""
    from zaya.cli import serve
    from zaya.cli.asking import open_chat_model, open_engine

    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    args = parser.parse_args(options)
    return open_engine(*open_chat_model(args.model, args), args, max_batch=args.max_batch)


def requests_of(engine: Any, chats: Sequence[Mapping[str, Any]]) -> list[Request]:
    """Chats with their prompts as ids: to render them is the server's work, and none of the engine's."""
    from zaya.text import render

    return [
        Request(
            prompt_ids=render(engine.tokenizer, body["messages"], enable_thinking=True).ids,
            params=SamplingParams(max_tokens=body["max_tokens"], ignore_eos=body["ignore_eos"]),
            seed=body["seed"],
        )
        for body in chats
    ]


def by_turns(engine: Any, requests: Sequence[Request], streams: int) -> list[Completion]:
    """What `Engine.complete` does, except that a request comes when another has ended."""
    waiting, under_way, results = iter(requests), [], []
    while True:
        while len(under_way) < streams and (request := next(waiting, None)) is not None:
            generations = engine._generations(request, "the request")
            engine._inbox.append(generations)
            under_way.append(generations[0].handle)
        if not under_way:
            return results
        engine._step()
        results += [handle.completed()[0] for handle in under_way if handle.is_done]
        under_way = [handle for handle in under_way if not handle.is_done]


async def streamed(engine: Any, requests: Sequence[Request], streams: int) -> int:
    """The same as streams in an event loop of this process. Returns how many tokens came."""
    waiting, drawn = iter(requests), 0

    async def stream() -> None:
        nonlocal drawn
        for request in waiting:
            async for delta in engine.submit(request):
                drawn += len(delta.ids)

    await asyncio.gather(*(stream() for _ in range(streams)))
    return drawn


def _process(connection: Any, options: Sequence[str]) -> None:
    engine = opened(options)
    connection.send(None)
    while (asked := connection.recv()) is not None:
        way, numbers, streams = asked
        requests = requests_of(engine, [chat(number) for number in numbers])
        begun, cpu = time.perf_counter(), time.process_time()
        if way == "engine":
            drawn = sum(len(completion.ids) for completion in by_turns(engine, requests, streams))
        else:
            drawn = asyncio.run(streamed(engine, requests, streams))
        seconds, spent = time.perf_counter() - begun, time.process_time() - cpu
        connection.send({"seconds": seconds, "tokens": drawn, "rate": drawn / seconds, "us": spent / drawn * 1e6})
    engine.close()


Ask = Callable[[str, Sequence[int], int], dict[str, float]]


@contextmanager
def beside(options: Sequence[str]) -> Iterator[Ask]:
    """An engine in a process of its own: asked for a way ("engine", "streamed"), chats by number, and how many at a
    time, it says tokens, seconds, and processor time a token."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_process, args=(there, options))
    process.start()
    there.close()
    here.recv()

    def ask(way: str, numbers: Sequence[int], streams: int) -> dict[str, float]:
        here.send((way, numbers, streams))
        return here.recv()

    try:
        yield ask
    finally:
        here.send(None)
        process.join()
