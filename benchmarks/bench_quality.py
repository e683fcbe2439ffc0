"""What weights, keys and values in fewer bits cost: how far the distributions move, and how many answers that changes.

    python -m benchmarks.bench_quality [--formats bf16 int8 ...] [--kv model int8] [--k 16]
    python -m benchmarks.bench_quality --parts int4         # one kind of matrix, and one layer, packed at a time
    python -m benchmarks.bench_quality --full DIR           # the full shape: relative error of the logits

On the embedded model. The text is what it answers in float32 to the held-out problems of recipes/micro/eval.toml, one
sample of each. Against its float32 distributions on every token of an answer: the mean and the 99 % quantile of the
Kullback-Leibler divergence in nats, and the share of tokens of which another is the most likely one. Accuracy is that
of the recipe: its problems, seeds and temperature; differences from bf16 are paired. "bf16" computes by the report's
precision policy. The others keep what is not packed in float32, as the micro model is run, so that what they cost is
the packing; "float32" packs nothing. Keys and values are in the type of the model, or in int8.

--parts goes by the model's own operations: the compiled pass expects the projections of a layer in one form.

--full reads random tokens, since the weights of that shape are random too, through the compiled kernels. The reference
is the bfloat16 checkpoint with keys in float32, a few tokens at a time, which keeps activations in float32. Experts are
forced to the reference's, and free; "many" is forced, as a long prompt is read: in bfloat16 where there are tile
registers. DIR-int8 and so on are used where they exist; what does not is packed in memory. The line behind a table is
the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zaya import config as configuration
from zaya.core.rng import derive_seed
from zaya.engine.engine import Engine
from zaya.engine.paged import KVDtype, PagedCache
from zaya.engine.pages import PageTable
from zaya.engine.types import Request, SamplingParams
from zaya.envs.base import Problem
from zaya.envs.pool import TaskPool
from zaya.eval.metrics import avg_at_k, paired_difference
from zaya.eval.records import by_problem
from zaya.eval.report import percent
from zaya.eval.suite import SuiteConfig, problem_sets, samples_of
from zaya.eval.systems import local_system
from zaya.eval.tasks import TaskSet
from zaya.model.embedded import embedded_directory
from zaya.model.init import TensorSpec, tensor_table
from zaya.model.layouts import load, load_model
from zaya.model.layouts.quantising import FORMATS as TILED
from zaya.model.layouts.quantising import form_of, quantized
from zaya.model.native import NativeModel
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.packed import Fp8Weight, Mxfp4Weight, PackedWeight

RECIPE = Path(__file__).resolve().parents[1] / "recipes/micro/eval.toml"
FORMATS = ("bf16", "float32", *TILED, "fp8-experts", "mxfp4-experts")
PAGE = 32

Choose = Callable[[TensorSpec], str | None]
"""The form in which a tensor is packed; None where it stays as it is."""


# ----- packing


def fp8_of(dense: Tensor) -> Fp8Weight:
    """As published: the largest value of a row becomes 448, the largest of e4m3."""
    dense = dense.float()
    scale = dense.abs().amax(-1, keepdim=True) / 448
    return Fp8Weight((dense / scale.where(scale > 0, 1)).to(torch.float8_e4m3fn), scale)


_MIDDLES = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, torch.inf])
"""Between the magnitudes of e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6."""


def mxfp4_of(dense: Tensor) -> Mxfp4Weight:
    """As the format's standard (OCP microscaling 1.0, 6.3) has it: the scale is the power of two that brings the
    largest value of a block to between 4 and 8, codes are the nearest, of two the even one, cut at 6."""
    blocks = dense.float().unflatten(-1, (-1, Mxfp4Weight.BLOCK))
    exponent = torch.frexp(blocks.abs().amax(-1, keepdim=True)).exponent - 3
    sizes = torch.ldexp(blocks.abs(), -exponent)
    codes = torch.bucketize(sizes, _MIDDLES)
    codes += (codes % 2 == 1) & (sizes == _MIDDLES[codes])
    codes += 8 * torch.signbit(blocks)
    codes = codes.to(torch.uint8).flatten(-2)
    return Mxfp4Weight(codes[..., ::2] | codes[..., 1::2] << 4, (exponent.squeeze(-1) + 127).to(torch.uint8))


def packed_as(weight: Tensor, form: str) -> PackedWeight:
    """A matrix, or a stack of them, in a form: int8, int4, fp8 or mxfp4."""
    if form in ("int8", "int4"):
        return quantized(weight, form)[0]  # type: ignore[arg-type]
    of = fp8_of if form == "fp8" else mxfp4_of
    if weight.dim() == 2:
        return of(weight)
    each = [of(matrix) for matrix in weight]  # a stack of the full shape would take gigabytes on the way
    return type(each[0])(torch.stack([x.codes for x in each]), torch.stack([x.scale for x in each]))


def chooser(format: str) -> Choose:
    """What a format packs, and how."""
    if format in TILED:
        return lambda spec: form_of(spec, format)
    if format in ("bf16", "float32"):
        return lambda spec: None
    form = format.removesuffix("-experts")
    return lambda spec: form if spec.group == "expert" else None


@torch.no_grad()
def pack(model: ZayaModel, choose: Choose) -> ZayaModel:
    """The model itself, with what is chosen packed."""
    for spec in tensor_table(model.config):
        if (form := choose(spec)) is not None:
            owner, _, leaf = spec.name.rpartition(".")
            module = model.get_submodule(owner)
            packed = packed_as(getattr(module, leaf), form)
            delattr(module, leaf)
            setattr(module, leaf, packed)
    return model


def nbytes(model: ZayaModel) -> int:
    return sum(x.nbytes for x in (*model.parameters(), *model.buffers()))


# ----- reading


@torch.inference_mode()
def read(
    model: ZayaModel,
    native: NativeModel | None,
    ids: Sequence[int],
    *,
    kv: KVDtype = "model",
    keys: torch.dtype | None = None,
    may_round: bool = False,
    routes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A text in one pass, by the kernels where they can: logits (tokens, vocab) and routes (tokens, layers).

    keys: of what type keys and values are where `kv` leaves it to the model; none for that of its weights.
    """
    pages = PageTable(2 + len(ids) // PAGE, page_size=PAGE, slots=1, snapshots=0)
    cache = PagedCache(model.config, pages, dtype=keys or model.dtype, kv_dtype=kv)
    context, tokens, bounds = cache.begin_pass([(pages.open(), len(ids))]), torch.tensor(ids), [0, len(ids)]
    if native is None:
        forced = None if routes is None else routes.unsqueeze(-1)
        out = model(tokens, cu_seqlens=bounds, cache=context, routes=forced, want=Want(routes=True))
        assert out.logits is not None
        assert out.routes is not None
        return out.logits, out.routes.squeeze(-1)
    zero, rows = torch.zeros(1, dtype=torch.int32), torch.arange(len(ids), dtype=torch.int32)
    found = native.forward(
        tokens, torch.tensor(bounds, dtype=torch.int32), zero, zero, torch.tensor(context.table), cache.past, rows=rows,
        may_round=may_round, routes=routes, want_routes=True,
    )  # fmt: skip
    assert found.routes is not None
    return found.logits, found.routes


# ----- distributions


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far distributions are from those of a reference, over tokens."""

    mean: float
    """Kullback-Leibler divergence in nats, from the reference."""
    high: float
    """Its 99 % quantile."""
    changed: float
    """Share of tokens of which another is the most likely one."""


def divergence(reference: Tensor, logprobs: Tensor) -> Divergence:
    """Of log-probabilities (tokens, vocab) against others."""
    each = (reference.exp() * (reference - logprobs)).sum(-1).double()
    changed = (reference.argmax(-1) != logprobs.argmax(-1)).double()
    return Divergence(float(each.mean()), float(each.quantile(0.99)), float(changed.mean()))


@dataclass(frozen=True, slots=True)
class Text:
    """A problem and what was answered."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def answers(engine: Engine, problems: Sequence[Problem], max_tokens: int) -> list[Text]:
    """One answer to each problem, at temperature 1."""
    params = SamplingParams(max_tokens=max_tokens)
    requests = [
        Request(
            messages=[{"role": "user", "content": problem.prompt}],
            params=params,
            seed=derive_seed(0, "quality", problem.digest),
        )
        for problem in problems
    ]
    return [Text(tuple(one.prompt_ids), tuple(one.ids)) for (one,) in engine.complete(requests)]


def logprobs(
    model: ZayaModel,
    texts: Sequence[Text],
    never: Sequence[int],
    kv: KVDtype = "model",
    *,
    native: NativeModel | None,
) -> Tensor:
    """Of every token of every answer (tokens, ids that can be drawn)."""
    found = []
    kept = torch.ones(model.config.vocab_size, dtype=torch.bool)
    kept[list(never)] = False
    for text in texts:
        logits, _ = read(model, native, (*text.prompt, *text.answer[:-1]), kv=kv)
        found.append(logits[len(text.prompt) - 1 :, kept].log_softmax(-1))
    return torch.cat(found)


# ----- the embedded model


@dataclass(frozen=True, slots=True)
class Held:
    """What every format is measured on."""

    recipe: SuiteConfig
    sets: list[TaskSet]
    texts: list[Text]
    never: tuple[int, ...]
    reference: Tensor
    """Log-probabilities of the float32 model on the texts."""


def held(pool: TaskPool) -> Held:
    recipe = configuration.load(SuiteConfig, RECIPE)
    sets = problem_sets(recipe, pool, print)
    problems = [problem for task in sets for problem in task.problems]
    model, tokenizer = load(embedded_directory(), dtype="float32")
    engine = Engine(model, tokenizer, max_batch=recipe.max_batch)
    texts = answers(engine, problems, recipe.max_tokens)
    return Held(recipe, sets, texts, engine.never, logprobs(model, texts, engine.never, native=NativeModel.of(model)))


def compare(formats: Sequence[str], kvs: Sequence[KVDtype], k: int) -> None:
    with TaskPool(1) as pool:
        given = held(pool)
        print(f"{len(given.reference):,} tokens of {len(given.texts)} answers; avg@{k}")
        print(
            f"{'':13} {'keys':5} {'MB':>5} {'KL':>9} {'99 %':>8} {'other':>6}  {'accuracy':>9}  {'- bf16, paired':>14}"
        )
        result: list[dict[str, Any]] = []
        baseline: dict[str, list[float]] | None = None
        for format in formats:
            for kv in kvs:
                model, tokenizer = load(embedded_directory(), dtype="bfloat16" if format == "bf16" else "float32")
                pack(model, chooser(format))
                found = divergence(
                    given.reference, logprobs(model, given.texts, given.never, kv, native=NativeModel.of(model))
                )
                engine = Engine(model, tokenizer, max_batch=given.recipe.max_batch, kv_dtype=kv)
                assert tokenizer is not None
                system = local_system(engine, tokenizer)
                values = by_problem(
                    record
                    for task in given.sets
                    for record in samples_of(f"{format}, {kv}", system, replace(task, k=k), given.recipe, pool, None)
                )
                baseline = values if baseline is None else baseline
                accuracy, gain = avg_at_k(values), paired_difference(values, baseline)
                print(
                    f"{format:13} {kv:5} {nbytes(model) / 1e6:5.2f} {found.mean:9.6f} {found.high:8.5f} "
                    f"{found.changed:6.2%}  {percent(accuracy):>9}  {percent(gain):>14}",
                    flush=True,
                )
                row = {"format": format, "kv": kv, "bytes": nbytes(model), **asdict(found)}
                result.append(row | {"accuracy": asdict(accuracy), "difference": asdict(gain)})
    print(json.dumps({"k": k, "tokens": len(given.reference), **about(), "rows": result}))


def parts(form: str) -> None:
    """What each kind of matrix, and each layer, costs when it alone is packed."""
    with TaskPool(1) as pool:
        given = held(pool)
    model, _ = load(embedded_directory())
    specs = [spec for spec in tensor_table(model.config) if form_of(spec, "int4-all") is not None]
    kinds = list(dict.fromkeys(kind_of(spec) for spec in specs))
    result = []
    print(f"{form}, {len(given.reference):,} tokens")
    print(f"{'':16} {'KL':>9} {'99 %':>8} {'other':>6}")
    for name, matches in (
        ("nothing", lambda spec: False),
        *((kind, lambda spec, kind=kind: kind_of(spec) == kind) for kind in kinds),
        ("attention", lambda spec: ".attention." in spec.name),
        ("experts", lambda spec: spec.group == "expert"),
        *(
            (f"layer {i}", lambda spec, i=i: spec.name.startswith(f"blocks.{i}."))
            for i in range(model.config.num_layers)
        ),
        ("all", lambda spec: True),
    ):
        packed = {spec.name for spec in specs if matches(spec)}
        model, _ = load(embedded_directory(), dtype="float32")
        pack(model, lambda spec, packed=packed: form if spec.name in packed else None)
        found = divergence(given.reference, logprobs(model, given.texts, given.never, native=None))
        print(f"{name:16} {found.mean:9.6f} {found.high:8.5f} {found.changed:6.2%}", flush=True)
        result.append({"packed": name, **asdict(found)})
    print(json.dumps({"form": form, "tokens": len(given.reference), **about(), "rows": result}))


def kind_of(spec: TensorSpec) -> str:
    return spec.name.rpartition(".")[2]


# ----- the full shape


def full(directory: Path, formats: Sequence[str], tokens: int) -> None:
    model = load_model(directory)
    stream = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (tokens,), generator=stream).tolist()
    exact, routes = read(model, native_of(model), ids, keys=torch.float32)
    del model
    print(f"{directory.name}, {tokens} random tokens, {routes.numel():,} choices of an expert")
    print(f"{'':13} {'keys':8} {'forced':>7} {'many':>7} {'free':>7} {'choices':>8}")
    result: list[dict[str, Any]] = []
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("float32", {"keys": torch.float32}), ("bfloat16", {}), ("int8", {"kv": "int8"})
    )  # fmt: skip
    for format, model in full_models(directory, formats):
        native = native_of(model)
        for name, options in kinds:
            forced, _ = read(model, native, ids, routes=routes, **options)
            many, _ = read(model, native, ids, routes=routes, may_round=True, **options)
            free, chosen = read(model, native, ids, **options)
            errors = {
                "forced": relative(forced, exact), "many": relative(many, exact), "free": relative(free, exact),
                "changed": float((chosen != routes).double().mean()),
            }  # fmt: skip
            *shown, changed = errors.values()
            print(f"{format:13} {name:8} " + " ".join(f"{x:7.4f}" for x in shown) + f" {changed:8.2%}", flush=True)
            result.append({"format": format, "kv": name, **errors})
        del model, native  # before the next is packed
    print(json.dumps({"full": directory.name, "tokens": tokens, **about(), "rows": result}))


def native_of(model: ZayaModel) -> NativeModel:
    native = NativeModel.of(model)
    if native is None:
        raise SystemExit("--full measures what the compiled kernels compute, and they do not run here")
    return native


def full_models(directory: Path, formats: Sequence[str]) -> Iterator[tuple[str, ZayaModel]]:
    """One at a time: who is through with one lets go of it before asking for the next."""
    for format in formats:
        if format == "float32":
            continue  # of the micro model
        made = directory.with_name(f"{directory.name}-{format}")
        if made.is_dir():
            yield format, load_model(made)
        else:
            yield format, pack(load_model(directory), chooser(format))


def relative(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference by the norm."""
    return float((actual - expected).norm() / expected.norm())


def about() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.processor()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--kv", nargs="+", choices=("model", "int8"), default=["model", "int8"])
    parser.add_argument("--k", type=int, default=16, help="samples of each problem")
    parser.add_argument("--parts", choices=("int8", "int4"), help="pack one kind of matrix at a time instead")
    parser.add_argument("--full", type=Path, metavar="DIR", help="a bfloat16 checkpoint of any size instead")
    parser.add_argument("--tokens", type=int, default=48, help="of --full")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.full is not None:
        full(args.full, args.formats, args.tokens)
    elif args.parts is not None:
        parts(args.parts)
    else:
        compare(args.formats, args.kv, args.k)


if __name__ == "__main__":
    main()
