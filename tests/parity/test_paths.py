"""One text, many ways through the model, one result.

1. A text fed in chunks of any length, through a cache, gives the logits and the gradients of the whole text.
2. So does a text that is padded, left or right, beside others in a batch.
3. So does a text packed in a row with others.
4. One pass may mix sequences that start and sequences that continue, in any order.
5. A fork continues like its source and disturbs nothing; rollback and restore forget exactly.
6. Routes that were recorded and are forced again change nothing; other routes change the result.
7. The skip class contributes nothing (native) or the normed input times its weight (legacy).
8. The fast paths of all operations together are the references together.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.oracle import make_pair
from tests.parity.shapes import BASE, SHAPES
from tests.tolerances import assert_close
from zaya.errors import UsageError
from zaya.model.cache import DenseCache
from zaya.model.config import ModelConfig
from zaya.model.router import choose
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.path import reference_path

NAMES = ["two_kv_heads", "one_kv_head", "three_kv_heads", "alternating", "conv_2_4", "conv_1_1"]


def make_model(config: ModelConfig, seed: int = 0, skip_bias: float = 0.0) -> ZayaModel:
    """A randomised model; by default the skip class wins now and then."""
    return make_pair(config, seed, skip_bias)[1]


def draw_rows(config: ModelConfig, lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [torch.randint(1, config.vocab_size, (n,), generator=stream) for n in lengths]


def gradients(model: ZayaModel, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a sum that weighs every logit differently."""
    model.zero_grad()
    weights = torch.linspace(-1, 1, logits.numel()).view(logits.shape) / logits.shape[0]
    (logits * weights).sum().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def alone(model: ZayaModel, rows: list[torch.Tensor]) -> torch.Tensor:
    """Logits of each row run on its own, concatenated: the plain case that the others are measured against."""
    return torch.cat([model(row[None])[0] for row in rows])


def assert_same(model: ZayaModel, actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert_close(actual, expected, what="logits")
    wanted = gradients(model, expected)
    for name, got in gradients(model, actual).items():
        assert_close(got, wanted[name], "float32_random_gradient", what=f"gradient of {name}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8])
def test_chunks(name: str, chunk: int) -> None:
    model = make_model(SHAPES[name])
    (row,) = draw_rows(model.config, [11])
    cache = DenseCache(model.config)
    actual = torch.cat([model(part[None], cache=cache)[0] for part in row.split(chunk)])
    assert_same(model, actual, alone(model, [row]))
    assert cache.lengths == (11,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding(name: str, side: str) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [7, 1, 4])
    ids = torch.full((3, 9), 5)  # padding is any token: it must not be looked at
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        start = {"left": 9 - len(row), "right": 0, "both": 1}[side]
        ids[i, start : start + len(row)], mask[i, start : start + len(row)] = row, True
    logits = model(ids, mask=mask)
    assert (logits[~mask] == 0).all()
    assert_same(model, logits[mask], alone(model, rows))


@pytest.mark.parametrize("name", NAMES)
def test_packing(name: str) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [3, 1, 8, 2])
    actual = model(torch.cat(rows), cu_seqlens=[0, 3, 4, 12, 14])
    assert_same(model, actual, alone(model, rows))


@pytest.mark.parametrize("name", NAMES)
def test_mixed_prefill_and_decode(name: str) -> None:
    """One pass continues one sequence by a token, another by three, and starts a third; the order is not theirs."""
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [6, 5, 4])
    cache = DenseCache(model.config, 3)
    first = model(torch.cat([rows[0][:5], rows[1][:2]]), cu_seqlens=[0, 5, 7], cache=cache.select([0, 1]))
    second = model(
        torch.cat([rows[2], rows[0][5:], rows[1][2:]]), cu_seqlens=[0, 4, 5, 8], cache=cache.select([2, 0, 1])
    )
    actual = torch.cat([first[:5], second[4:5], first[5:], second[5:], second[:4]])
    assert_same(model, actual, alone(model, rows))
    assert cache.lengths == (6, 5, 4)


@pytest.mark.parametrize("name", NAMES)
def test_batched_decode_with_padding(name: str) -> None:
    """Prompts of different lengths, left-padded, then token by token together."""
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [8, 5])
    mask = torch.tensor([[True] * 6, [False] * 3 + [True] * 3])
    ids = torch.zeros(2, 6, dtype=torch.long)
    ids[0], ids[1, 3:] = rows[0][:6], rows[1][:3]
    cache = DenseCache(model.config, 2)
    with torch.no_grad():
        logits = [model(ids, mask=mask, cache=cache)]
        logits += [model(torch.stack([rows[0][6 + i], rows[1][3 + i]])[:, None], cache=cache) for i in range(2)]
        expected = alone(model, rows)
    both = torch.cat(logits, dim=1)
    assert_close(torch.cat([both[0], both[1, 3:]]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_fork_rollback_restore(name: str) -> None:
    model = make_model(SHAPES[name])
    (row,) = draw_rows(model.config, [14])
    other = row.flip(0)
    cache = DenseCache(model.config)

    def feed(seq: int, part: torch.Tensor) -> torch.Tensor:
        return model(part[None], cache=cache.select([seq]))[0]

    with torch.no_grad():
        feed(0, row[:6])
        snap = cache.snapshot(0)
        twin = cache.fork(0)
        feed(twin, other[:4])  # must not reach sequence 0
        expected = alone(model, [row])
        assert_close(feed(0, row[6:9]), expected[6:9], what="after fork")
        assert_close(feed(twin, other[4:7]), alone(model, [torch.cat([row[:6], other[:7]])])[10:], what="the fork")
        feed(0, other[:5])
        cache.rollback(0, 5)
        assert cache.lengths[0] == 9
        assert_close(feed(0, row[9:11]), expected[9:11], what="after taking back a whole pass")
        feed(0, torch.cat([row[11:12], other[:3]]))
        cache.rollback(0, 3)
        assert_close(feed(0, row[12:]), expected[12:], what="after taking back part of a pass")
        cache.restore(0, snap)
        assert cache.lengths[0] == 6
        assert_close(feed(0, row[6:]), expected[6:], what="after restore")


def test_long_sliding_text_lets_go() -> None:
    """A sliding layer does not hold the whole text, and nothing changes by that."""
    config = replace(BASE, sliding_layers=(0, 2), sliding_window=4)
    model = make_model(config)
    (row,) = draw_rows(config, [300])
    cache = DenseCache(config)
    with torch.no_grad():
        actual = torch.cat([model(part[None], cache=cache)[0] for part in row.split(7)])
        assert_close(actual, alone(model, [row]))
    assert cache.keys_values(0, 0)[0].shape[0] < 100
    assert cache.keys_values(0, 1)[0].shape[0] == 300


def test_rollback_has_a_limit() -> None:
    model = make_model(BASE)
    (row,) = draw_rows(BASE, [9])
    cache = DenseCache(BASE, max_rollback=3)
    with torch.no_grad():
        model(row[None], cache=cache)
        with pytest.raises(UsageError, match="cannot take back 4 tokens; the last pass left 3"):
            cache.rollback(0, 4)
        cache.rollback(0, 3)
        assert_close(model(row[None, 6:], cache=cache)[0], alone(model, [row])[6:])


def test_a_failed_pass_leaves_the_cache_as_it_was() -> None:
    model = make_model(BASE)
    (row,) = draw_rows(BASE, [8])
    cache = DenseCache(BASE)
    with torch.no_grad():
        model(row[None, :5], cache=cache)
        hook = model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(row[None, 5:], cache=cache)
        hook.remove()
        assert cache.lengths == (5,)
        assert_close(model(row[None, 5:], cache=cache)[0], alone(model, [row])[5:])


def test_a_failed_pass_leaves_rollback_as_it_was() -> None:
    """Sliding layers let go of old tokens while a pass runs: not of those that taking back the one before needs."""
    config = replace(BASE, sliding_layers=(0, 2), sliding_window=4)
    model = make_model(config)
    (row,) = draw_rows(config, [160])
    cache = DenseCache(config)
    with torch.no_grad():
        model(row[None, :50], cache=cache)
        model(row[None, 50:60], cache=cache)
        hook = model.blocks[2].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(row[None, 60:], cache=cache)
        hook.remove()
        cache.rollback(0, 8)
        assert_close(model(row[None, 52:70], cache=cache)[0], alone(model, [row])[52:70])


def test_restore_of_what_is_no_longer_held_is_refused() -> None:
    config = replace(BASE, sliding_layers=(0, 2), sliding_window=4)
    model = make_model(config)
    (row,) = draw_rows(config, [200])
    cache = DenseCache(config)
    snaps = {}
    with torch.no_grad():
        for part in row.split(10):
            model(part[None], cache=cache)
            snaps[cache.lengths[0]] = cache.snapshot(0)
        held_from = 200 - cache.keys_values(0, 0)[0].shape[0]
        for length, snap in snaps.items():
            if length - 3 < held_from:  # the next token sees itself and the three before it
                with pytest.raises(UsageError, match="layer 0 no longer holds the 4 tokens before"):
                    cache.restore(0, snap)
        assert min(snaps) - 3 < held_from, "nothing was let go: the case tests nothing"
        cache.restore(0, snaps[190])
        with pytest.raises(UsageError, match="cannot take back 1 tokens; the last pass left 0"):
            cache.rollback(0, 1)
        assert_close(model(row[None, 190:], cache=cache)[0], alone(model, [row])[190:])
        with pytest.raises(UsageError, match="the snapshot was taken at 200 tokens"):
            DenseCache(config).restore(0, snaps[200])


@pytest.mark.parametrize("second", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("first", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_cache_passes_between_modes_of_autograd(first, second) -> None:
    model = make_model(SHAPES["alternating"])
    (row,) = draw_rows(model.config, [12])
    cache = DenseCache(model.config)
    with first():
        before = model(row[None, :5], cache=cache)
    with second():
        after = model(row[None, 5:9], cache=cache)
        cache.rollback(0, 2)
    with torch.no_grad():
        last = model(row[None, 7:], cache=cache)
        expected = alone(model, [row])
    assert_close(torch.cat([before, after[:, :2], last], dim=1)[0].detach(), expected)
    if second is torch.enable_grad:
        after.square().sum().backward()
        assert torch.as_tensor(model.blocks[0].attention.k_proj.grad).isfinite().all()


def test_select_takes_each_sequence_once() -> None:
    for wrong in ([0, 0], [2], [-1]):
        with pytest.raises(UsageError, match="select takes distinct indices below 2"):
            DenseCache(BASE, 2).select(wrong)


def test_equals_go_to_the_first() -> None:
    """A tie between an expert and the skip class goes to the expert, wherever it stands."""
    for expert in range(16):
        probs = torch.zeros(5, 17)
        probs[:, expert] = 0.25
        probs[:, 16] = 0.25
        assert (choose(probs, torch.zeros(17), 1) == expert).all()
    assert choose(torch.full((1, 4), 0.25), torch.zeros(4), 3).tolist() == [[0, 1, 2]]


def test_cache_refuses_another_number_of_sequences() -> None:
    model = make_model(BASE)
    with pytest.raises(UsageError, match="the cache holds 2 sequences; the input has 1"):
        model(torch.ones(1, 3, dtype=torch.long), cache=DenseCache(BASE, 2))


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating"])
def test_routes(name: str) -> None:
    model = make_model(SHAPES[name])
    ids = torch.stack(draw_rows(model.config, [6, 6]))
    free = model(ids, want=Want(routes=True))
    assert free.routes is not None
    assert free.routes.shape == (2, 6, model.config.num_layers, 1)
    assert_same(model, model(ids, routes=free.routes), model(ids))
    other = (free.routes + 1) % model.config.num_experts
    assert (model(ids, routes=other) - model(ids)).abs().max() > 1e-2
    packed = model(ids.flatten(), cu_seqlens=[0, 6, 12], routes=other.flatten(0, 1))
    assert_close(packed.unflatten(0, (2, 6)), model(ids, routes=other))


@pytest.mark.parametrize(("bad", "message"), [(-1, "below 5: -1"), (5, "below 5")])
def test_routes_must_be_classes(bad: int, message: str) -> None:
    model = make_model(BASE)
    with pytest.raises(UsageError, match=message):
        model(torch.ones(1, 2, dtype=torch.long), routes=torch.full((1, 2, 3, 1), bad))


@pytest.mark.parametrize("name", SHAPES)
def test_reference_path(name: str) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [6, 3])
    packed = torch.cat(rows)
    with reference_path():
        expected = model(packed, cu_seqlens=[0, 6, 9])
    assert_same(model, model(packed, cu_seqlens=[0, 6, 9]), expected)


@pytest.mark.parametrize("output", ["zero", "identity"])
def test_skip_output(output: str) -> None:
    """Force the skip class everywhere: what reaches the residual stream is known in closed form."""
    config = replace(BASE, num_layers=1, skip_output=output)
    model = make_model(config)
    (row,) = draw_rows(config, [5])
    seen: dict[str, torch.Tensor] = {}
    moe = model.blocks[0].moe
    moe.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0], out=out[0], weight=out[1].weight))
    model(row[None], routes=torch.full((1, 5, 1, 1), config.num_experts))
    expected = seen["weight"] * seen["x"] if output == "identity" else torch.zeros_like(seen["x"])
    assert_close(seen["out"], expected)
    assert seen["weight"].abs().min() > 0


def test_wanted_parts() -> None:
    model = make_model(BASE)
    rows = draw_rows(BASE, [4, 7])
    out = model(torch.cat(rows), cu_seqlens=[0, 4, 11], want=Want(logits="last", hidden=True, routes=True, router=True))
    full = alone(model, rows)
    assert out.logits is not None
    assert out.hidden is not None
    assert out.router is not None
    assert out.routes is not None
    assert_close(out.logits, full[[3, 10]])
    assert_close(model.head(out.hidden), full)
    one_hot = torch.nn.functional.one_hot(out.routes.squeeze(-1), BASE.num_classes)
    assert torch.equal(out.router.counts, one_hot.sum(0))
    assert_close(out.router.probs.sum(-1), torch.ones(3))
    assert (out.router.entropy > 0).all()
    assert (out.router.entropy <= torch.log(torch.tensor(BASE.num_classes)) + 1e-6).all()
    nothing = model(rows[0][None], want=Want(logits=None))
    assert nothing.logits is None
    assert nothing.router is None


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(NAMES), st.integers(0, 9), st.data())
@settings(max_examples=25)
def test_any_schedule(lengths: list[int], name: str, seed: int, data: st.DataObject) -> None:
    """Sequences fed in random pieces, in random company, agree with each run alone."""
    model = make_model(SHAPES[name], seed)
    rows = draw_rows(model.config, lengths, seed)
    cache = DenseCache(model.config, len(rows))
    fed = [0] * len(rows)
    logits: list[list[torch.Tensor]] = [[] for _ in rows]
    with torch.no_grad():
        while any(f < len(r) for f, r in zip(fed, rows, strict=True)):
            ready = [i for i, r in enumerate(rows) if fed[i] < len(r)]
            chosen = data.draw(st.permutations(ready))[: data.draw(st.integers(1, len(ready)))]
            sizes = [data.draw(st.integers(1, len(rows[i]) - fed[i])) for i in chosen]
            bounds = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
            ids = torch.cat([rows[i][fed[i] : fed[i] + n] for i, n in zip(chosen, sizes, strict=True)])
            out = model(ids, cu_seqlens=bounds, cache=cache.select(chosen))
            for i, n, part in zip(chosen, sizes, out.split(sizes), strict=True):
                logits[i].append(part)
                fed[i] += n
        assert_close(torch.cat([torch.cat(parts) for parts in logits]), alone(model, rows))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.ones(3, dtype=torch.long)), "ids must be \\(batch, seq\\)"),
        (lambda m: m(torch.ones(1, 0, dtype=torch.long)), "neither empty"),
        (lambda m: m(torch.ones(3, dtype=torch.long), cu_seqlens=[0, 2]), "ends at 2; there are 3 tokens"),
        (lambda m: m(torch.ones(3, dtype=torch.long), cu_seqlens=[0, 0, 3]), "increase strictly"),
        (lambda m: m(torch.ones(1, 3, dtype=torch.long), cu_seqlens=[0, 3]), "ids are \\(tokens,\\)"),
        (lambda m: m(torch.ones(1, 3, dtype=torch.long), mask=torch.ones(1, 3)), "mask must be bool"),
        (lambda m: m(torch.ones(1, 3, dtype=torch.long), routes=torch.ones(1, 3, 3)), "routes must be"),
        (lambda m: m(torch.ones(2, 3, dtype=torch.long), mask=torch.tensor([[1, 1, 1], [0, 0, 0]]) > 0), "row 1 of"),
        (lambda m: m(torch.ones(1, 3, dtype=torch.long), positions=torch.ones(3, dtype=torch.long)), "positions must"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_shapes_are_named(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(make_model(BASE))
