"""The engine on the full shape, beside transformers and what the machine could do at most, in one run.

    python -m benchmarks.make_checkpoint DIR --single-file           # once: 17.7 GB of random weights
    python -m benchmarks.bench_engine DIR [--formats bf16 int8 int4 int4-all] [--batch 1 8 16] [--no-theirs]

Each system runs in a process of its own, one after the other. What is quantised is made beside DIR where it is not
there yet (DIR-int4 and so on). A random model sends all its tokens to the same few experts, so the choice is forced
here, in both: uniform over the experts, anew for every token and layer. Theirs draws greedily, ours at temperature 1.

The floors, just before each: memory is a gigabyte read, by torch's sum or by our product with one vector of int8, what
is faster; a pass moves at least the bytes of every matrix it touches once. Products: torch's bfloat16 product of
2048 x 2048 x 4096. The files of each are read through first and alone in the page cache, where they fit. Medians over
passes; the line behind the table is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

PROMPT, PREFILL, CONTEXT = 64, 2048, 32_768
PASSES = {1: 30, 8: 14, 16: 12}
FORMATS = ("bf16", "int8", "int4", "int4-all")


def median_s(run: Callable[[], object], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def floors(threads: int) -> dict[str, float]:
    from zaya.ops.cpu.matrix import product
    from zaya.ops.packed import Int8Weight

    torch.set_num_threads(threads)
    numbers = torch.ones(1 << 27, dtype=torch.int64)
    read = numbers.nbytes / min(median_s(numbers.sum, 5), median_s(numbers.sum, 5))
    weight, one = (
        Int8Weight(torch.ones(Int8Weight.stored_shape((1 << 19, 2048)), dtype=torch.uint8)),
        torch.ones(1, 2048),
    )
    if product(one, weight) is not None:
        read = max(read, weight.nbytes / median_s(lambda: product(one, weight), 9))
    a, b = torch.randn(2048, 2048, dtype=torch.bfloat16), torch.randn(4096, 2048, dtype=torch.bfloat16)
    multiplied = 2 * 2048 * 2048 * 4096 / median_s(lambda: torch.nn.functional.linear(a, b))
    return {"bytes_s": read, "flop_s": multiplied}


# ----- theirs


def theirs(directory: str, batches: list[int]) -> dict[str, Any]:
    from transformers import ZayaForCausalLM

    model = ZayaForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    experts = model.config.num_experts

    def spread(_module: object, _args: object, out: tuple) -> tuple:
        logits, probs, index, state = out
        return logits, probs, torch.randint_like(index, experts), state

    layers: Any = model.model.layers
    for layer in layers:
        layer.mlp.gate.register_forward_hook(spread)
    found: dict[str, Any] = {"ways": {}}
    for way in ("eager", "batched_mm", "grouped_mm"):
        try:
            model.set_experts_implementation(way)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found["ways"][f"{way}, {threads} threads"] = _their_pass_s(model, 1, 6)
        except Exception as error:  # a way that this machine or release does not have
            found["ways"][way] = str(error).splitlines()[0]
    timed = {name: s for name, s in found["ways"].items() if isinstance(s, float)}
    found["best"] = min(timed, key=lambda name: timed[name])
    way, threads = found["best"].split(", ")
    model.set_experts_implementation(way)
    torch.set_num_threads(int(threads.split()[0]))
    found["pass_s"] = {batch: _their_pass_s(model, batch, PASSES.get(batch, 10)) for batch in batches}
    ids = torch.randint(3, model.config.vocab_size, (1, PREFILL))
    with torch.inference_mode():
        found["prefill_s"] = median_s(lambda: model(ids, logits_to_keep=1), 3)
    found["resident"] = resident()
    return found


def _their_pass_s(model: Any, batch: int, passes: int) -> float:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids, times = torch.randint(3, model.config.vocab_size, (batch, PROMPT)), []
    with torch.inference_mode():
        for _ in range(passes + 2):
            start = time.perf_counter()
            ids = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:].argmax(-1)
            times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


# ----- ours


def ours(directory: str, batches: list[int], threads: int, with_context: bool) -> dict[str, Any]:
    import zaya
    from zaya.engine.types import Request

    torch.set_num_threads(threads)
    start = time.perf_counter()
    model, _ = zaya.load(directory)
    engine = zaya.Engine(model, None, max_batch=max(batches), prefix_cache=False)
    next(iter(engine.stream([5] * PROMPT, zaya.SamplingParams(max_tokens=1))))
    found: dict[str, Any] = {"first_token_s": time.perf_counter() - start, "pass_s": {}, "outside_s": {}, "bytes": {}}
    found["has_kernels"] = engine._runner.native is not None
    touch(model)
    engine.stop_ids = frozenset()
    generator = torch.Generator().manual_seed(0)
    distinct: list[tuple[int, float]] = []
    with spread(engine, generator, distinct):
        for batch in batches:
            params = zaya.SamplingParams(max_tokens=PASSES.get(batch, 10) + 4)
            prompts = torch.randint(3, model.config.vocab_size, (batch, PROMPT), generator=generator).tolist()
            requests = [Request(prompt_ids=prompt, params=params, seed=i) for i, prompt in enumerate(prompts)]
            distinct.clear()
            whole, outside, calls = passes_of(engine, batch, lambda r=requests: engine.complete(r))
            found["pass_s"][batch], found["outside_s"][batch], found["calls"] = whole, outside, calls
            found["bytes"][batch] = bytes_of_pass(
                model, statistics.mean(count for tokens, count in distinct if tokens == batch)
            )
        prompt = torch.randint(3, model.config.vocab_size, (PREFILL,), generator=generator).tolist()
        once = Request(prompt_ids=prompt, params=zaya.SamplingParams(max_tokens=1))
        found["prefill_s"] = median_s(lambda: engine.complete([once]), 3)
    found["prefill_flop"] = 2 * PREFILL * numbers_of_token(model)
    found["resident"] = resident()
    if with_context:
        found["context"] = context_s(model)
    return found


def touch(model: torch.nn.Module) -> None:
    """Have every page of the weights mapped, as it is once a model has run for a while."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.view(-1).view(torch.uint8)[::4096].sum()


@contextmanager
def spread(engine: Any, generator: torch.Generator, distinct: list[tuple[int, float]]) -> Iterator[None]:
    """Force every token to experts drawn at random; `distinct` gets (tokens, different ones a layer) of each pass."""
    native, config = engine._runner.native, engine.model.config
    target, name = (engine.model, "forward") if native is None else (native, "forward")
    run = getattr(target, name)

    def forced(ids: torch.Tensor, *args: Any, **options: Any) -> Any:
        routes = torch.randint(config.num_experts, (len(ids), config.num_layers), generator=generator)
        distinct.append((len(ids), sum(len(column.unique()) for column in routes.T) / config.num_layers))
        routes = routes.to(torch.uint8) if native is not None else routes[..., None]
        return run(ids, *args, **options, routes=routes)

    setattr(target, name, forced)
    try:
        yield
    finally:
        delattr(target, name)


@contextmanager
def counted(library: Any, calls: list[int]) -> Iterator[None]:
    """Count the calls of compiled kernels."""
    names = [] if library is None else ["zaya_forward", "zaya_draw", "zaya_log_sums", "zaya_linear"]
    before = {name: getattr(library, name) for name in names}

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[0] += 1
            return function(*args)

        return call

    for name, function in before.items():
        setattr(library, name, counting(function))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(library, name, function)


def passes_of(engine: Any, batch: int, run: Callable[[], object]) -> tuple[float, float, int]:
    """Seconds from one pass of `batch` single tokens to the next, how much of it is not the model's, and how many calls
    of compiled kernels it makes."""
    runner, step, ends, inside, calls = engine._runner, engine._runner.step, [], [0.0], [0]
    native = runner.native if runner.native is not None else engine.model
    forward = native.forward

    def timed(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        out = forward(*args, **options)
        inside[0] = time.perf_counter() - start
        return out

    def noted() -> Any:
        before = runner.tokens_read
        got = step()
        ends.append((time.perf_counter(), runner.tokens_read - before, inside[0], calls[0]))
        return got

    runner.step, native.forward = noted, timed
    with counted(getattr(runner.native, "_library", None), calls):
        run()
    runner.step, native.forward = step, forward
    pairs = [(a, b) for a, b in pairwise(ends) if a[1] == b[1] == batch]
    return (
        statistics.median(b[0] - a[0] for a, b in pairs),
        statistics.median(b[0] - a[0] - b[2] for a, b in pairs),
        max(b[3] - a[3] for a, b in pairs),
    )


def bytes_of_pass(model: Any, distinct: float) -> float:
    """Bytes of every matrix that a pass touches, with so many experts a layer; norms and biases are small."""
    block = model.blocks[0]
    attention, router, experts = block.attention, block.moe.router, block.moe.experts
    always = (
        attention.q_proj, attention.k_proj, attention.v_proj_current, attention.v_proj_delayed, attention.o_proj,
        attention.grouped_weight, router.down_proj, router.fc1, router.fc2,
    )  # fmt: skip
    expert = (experts.gate_up.nbytes + experts.down.nbytes) / model.config.num_experts
    return model.config.num_layers * (sum(x.nbytes for x in always) + distinct * expert) + model.embed.nbytes


def numbers_of_token(model: Any) -> int:
    """Multiplications that a prompt's token takes in matrices; attention over others, and the head, are left out."""
    c = model.config
    projections = c.hidden_size * (2 * c.query_size + 2 * c.key_size) + c.conv_channels * c.head_dim * c.conv_time1
    router = c.router_size * (c.hidden_size + 2 * c.router_size + c.num_classes)
    return c.num_layers * (projections + router + 3 * c.hidden_size * c.expert_size)


def context_s(model: Any) -> dict[str, Any] | None:
    """Seconds that a long past adds to a token, and the bytes of it, for keys in bfloat16 and int8."""
    from zaya.model.native import NativeModel, Past

    native, c, size = NativeModel.of(model), model.config, 32
    if native is None:
        return None
    found: dict[str, Any] = {}
    pages = CONTEXT // size + 2
    for dtype in (torch.bfloat16, torch.int8):
        shape = (pages, c.num_kv_heads, size, c.head_dim)

        def pool(shape: tuple[int, ...] = shape, dtype: torch.dtype = dtype) -> list[torch.Tensor]:
            made = [torch.empty(shape, dtype=dtype) for _ in range(c.num_layers)]
            return [x.random_(-100, 100) if dtype == torch.int8 else x.normal_() for x in made]

        scales = None
        if dtype == torch.int8:
            scales = [torch.full(shape[:-1], 1 / 64) for _ in range(c.num_layers)]
        past = Past(
            page_size=size, keys=pool(), values=pool(), key_scales=scales, value_scales=scales,
            columns=torch.zeros(c.num_layers, 1, c.conv_context, c.conv_channels),
            delayed=torch.zeros(c.num_layers, 1, c.key_size // 2),
        )  # fmt: skip
        table = torch.arange(pages, dtype=torch.int32)[None]
        one = torch.tensor([0], dtype=torch.int32)

        def read(length: int, past: Past = past, table: torch.Tensor = table, one: torch.Tensor = one) -> None:
            routes = torch.randint(c.num_experts, (1, c.num_layers)).to(torch.uint8)
            bounds, start = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([length], dtype=torch.int32)
            native.forward(torch.tensor([7]), bounds, start, one, table, past, rows=one, commit=False, routes=routes)

        short = [median_s(lambda: read(1), 8) for _ in range(2)]
        long = [median_s(lambda: read(CONTEXT), 8) for _ in range(2)]
        held = c.num_layers * 2 * c.key_size * CONTEXT * past.keys[0].itemsize
        if scales is not None:
            held += c.num_layers * 2 * c.num_kv_heads * CONTEXT * 4
        found[str(dtype).removeprefix("torch.")] = {"added_s": min(long) - min(short), "bytes": held}
    return found


def resident() -> int:
    import psutil

    return psutil.Process().memory_info().rss


# ----- one run


def _child(connection: Any, work: Callable[..., dict[str, Any]], args: tuple) -> None:
    connection.send(work(*args))


def alone(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """In a fresh process, so that nobody sees another's memory or threads."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(there, work, args))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__}{args} ended without a result") from None
    finally:
        process.join()


def directory_of(source: Path, format: str) -> Path:
    if format == "bf16":
        return source
    made = source.with_name(f"{source.name}-{format}")
    if not made.is_dir():
        from zaya.model.layouts import quantize

        print(f"making {made}", flush=True)
        quantize(source, made, format)
    return made


def measured(threads: int, work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `work` finds, with the floors just before it: a machine with neighbours does not stay the same for long."""
    floor = alone(floors, threads)
    return {"floor": floor, **alone(work, *args)}


def read_through(directory: Path, all_of_them: Iterable[Path]) -> None:
    """Have these files alone in the page cache, as they are after a first reading. What lies between others' pages is
    read a quarter slower where it is used in place (docs/log.md)."""
    for file in (file for each in all_of_them for file in each.glob("*.safetensors")):
        forget(file)
    for file in directory.glob("*.safetensors"):
        with file.open("rb", buffering=0) as data:
            while data.read(1 << 24):
                pass


def forget(file: Path) -> None:
    """Take a file out of the page cache, where the system can be asked to."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as data:
            os.posix_fadvise(data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-theirs", action="store_true", help="leave transformers out")
    args = parser.parse_args()
    directories = {format: directory_of(args.directory, format) for format in args.formats}
    result: dict[str, Any] = {"threads": args.threads, "torch": torch.__version__, "machine": platform.processor()}
    their = None
    if not args.no_theirs:
        read_through(args.directory, directories.values())
        result["theirs"] = their = measured(args.threads, theirs, str(args.directory), args.batch)
        print(f"transformers bf16: {their['best']}")
        print_rows("theirs", their, their)
    for format, directory in directories.items():
        read_through(directory, directories.values())
        found = measured(args.threads, ours, str(directory), args.batch, args.threads, format == "int4")
        result[format] = found
        print_rows(format, found, their)
    print(json.dumps(result))


def print_rows(name: str, found: dict[str, Any], their: dict[str, Any] | None) -> None:
    floor = found["floor"]
    print(f"{name:9} floors {floor['bytes_s'] / 1e9:.1f} GB/s read, {floor['flop_s'] / 1e9:.0f} GFLOP/s")

    def against(mine: float, key: Callable[[dict[str, Any]], float]) -> str:
        return "" if their is None else f"{key(their) / mine:6.2f} x theirs"

    for batch, seconds in found["pass_s"].items():
        line = f"{name:9} decode {batch:3}   {seconds * 1e3:7.1f} ms {batch / seconds:8.1f} tokens/s "
        line += against(seconds, lambda t, b=batch: t["pass_s"][b])
        if "bytes" in found:
            moved = found["bytes"][batch]
            line += f"  {moved / 1e9:5.2f} GB, {moved / seconds / floor['bytes_s']:4.0%} of the floor"
            line += f", {found['outside_s'][batch] * 1e3:.1f} ms outside the pass, {found['calls']} calls"
        print(line)
    seconds = found["prefill_s"]
    line = f"{name:9} prefill {PREFILL} {seconds * 1e3:7.0f} ms {PREFILL / seconds:8.1f} tokens/s "
    line += against(seconds, lambda t: t["prefill_s"])
    if "prefill_flop" in found:
        line += f"  {found['prefill_flop'] / seconds / floor['flop_s']:4.0%} of the product's peak"
    print(line)
    line = f"{name:9} resident {found['resident'] / 1e9:.2f} GB"
    if "first_token_s" in found:
        line += f", load to first token {found['first_token_s']:.2f} s"
    print(line, flush=True)
    for kind, long in (found.get("context") or {}).items():
        least = long["bytes"] / floor["bytes_s"]
        print(
            f"{name:9} {CONTEXT} tokens of {kind} keys add {long['added_s'] * 1e3:.1f} ms, "
            f"{long['added_s'] / least:.2f} x the reading of {long['bytes'] / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
