"""The compiled forward pass is the model's, token by token.

1. Texts read in segments of any length, several at once, in pages that lie anywhere, have the logits and routes of a
   plain pass, and leave behind the CCA state that `DenseCache` has.
2. Nothing depends on company: the same bits come out whatever else is in a pass, however a text is cut and however
   many threads work on it.
3. Weights in bfloat16 give what the same numbers in float32 give; keys in bfloat16 and int8 cost what they must.
4. Weights that change in place are taken over by `refresh`.
5. Many tokens of a bfloat16 model, which may take tile registers, come as near to exact as the model itself in
   bfloat16 does: in one piece, in chunks, beside single tokens, sliding, and with packed weights.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.parity.test_paths import draw_rows, make_model
from tests.tolerances import assert_close
from zaya.model.cache import DenseCache
from zaya.model.config import ModelConfig
from zaya.model.init import tensor_table
from zaya.model.layouts.quantising import form_of, quantized
from zaya.model.native import NativeModel, NativeOutput, Past
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.cpu import kernels

BASE = ModelConfig(
    vocab_size=101, hidden_size=64, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=32, num_experts=4,
    expert_size=96, router_size=32, rope_theta=10_000.0,
)  # fmt: skip
SHAPES = {
    "two_kv_heads": BASE,
    "one_kv_head": replace(BASE, num_kv_heads=1),
    "three_kv_heads": replace(BASE, num_heads=6, num_kv_heads=3, head_dim=64),
    "group_of_eight": replace(BASE, num_heads=16, head_dim=64),
    "group_of_three": replace(BASE, num_heads=6),
    "alternating": replace(BASE, num_layers=4, sliding_layers=(0, 2), sliding_window=5),
    "window_of_one": replace(BASE, sliding_layers=(1,), sliding_window=1),
    "conv_2_4": replace(BASE, conv_time1=4),
    "conv_1_1": replace(BASE, conv_time0=1, conv_time1=1),
    "skip_passes_input": replace(BASE, skip_output="identity"),
}
PAGE = 4


@pytest.fixture(params=kernels.BUILDS)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ZAYA_KERNELS", request.param)
    if kernels.library() is None:
        pytest.skip(f"no kernels for {request.param} here")
    return request.param


class Reader:
    """Texts read through the compiled pass, one slot and some scattered pages each."""

    def __init__(
        self, model: ZayaModel, texts: int, length: int, dtype: torch.dtype = torch.float32, *, page: int = PAGE
    ) -> None:
        native = NativeModel.of(model)
        assert native is not None
        self.native, c = native, model.config
        width = -(-length // page)
        order = torch.randperm(texts * width, generator=torch.Generator().manual_seed(1))
        self.table = order.view(texts, width).int()
        shape = (c.num_layers, texts * width, c.num_kv_heads, page)
        is_int8 = dtype == torch.int8
        self.past = Past(
            page_size=page,
            keys=torch.zeros(*shape, c.head_dim, dtype=dtype).unbind(),
            values=torch.zeros(*shape, c.head_dim, dtype=dtype).unbind(),
            key_scales=torch.zeros(shape).unbind() if is_int8 else None,
            value_scales=torch.zeros(shape).unbind() if is_int8 else None,
            columns=torch.zeros(c.num_layers, texts, c.conv_context, c.conv_channels),
            delayed=torch.zeros(c.num_layers, texts, c.key_size // 2),
        )
        self.lengths = [0] * texts

    def read(self, parts: dict[int, torch.Tensor], **options: bool) -> NativeOutput:
        """One pass: the next tokens of some texts. Logits of all tokens."""
        slots = list(parts)
        bounds = [0]
        for part in parts.values():
            bounds.append(bounds[-1] + len(part))
        out = self.native.forward(
            torch.cat(list(parts.values())),
            torch.tensor(bounds, dtype=torch.int32),
            torch.tensor([self.lengths[slot] for slot in slots], dtype=torch.int32),
            torch.tensor(slots, dtype=torch.int32),
            self.table[slots].contiguous(),
            self.past,
            rows=torch.arange(bounds[-1], dtype=torch.int32),
            **options,
        )
        for slot, part in parts.items():
            self.lengths[slot] += len(part)
        return out

    def read_all(self, rows: list[torch.Tensor], cuts: list[int], **options: bool) -> list[torch.Tensor]:
        """Every text in pieces of these lengths, as far as it goes; the logits of each."""
        logits: list[list[torch.Tensor]] = [[] for _ in rows]
        for cut in cuts:
            parts = {i: row[self.lengths[i] :][:cut] for i, row in enumerate(rows) if self.lengths[i] < len(row)}
            if parts:
                pieces = self.read(parts, **options).logits.split([len(part) for part in parts.values()])
                for i, piece in zip(parts, pieces, strict=True):
                    logits[i].append(piece)
        assert self.lengths == [len(row) for row in rows]
        return [torch.cat(pieces) for pieces in logits]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_routes_and_state_of_a_plain_pass(build: str, name: str) -> None:
    model = make_model(SHAPES[name], skip_bias=0.1)
    rows = draw_rows(model.config, [9, 3, 14])
    reader, cache = Reader(model, 3, 14), DenseCache(model.config, 3)
    found: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[], [], []]
    for cut in (5, 1, 1, 7):
        parts = {i: row[reader.lengths[i] :][:cut] for i, row in enumerate(rows) if reader.lengths[i] < len(row)}
        out = reader.read(parts, want_routes=True, want_columns=True)
        assert out.routes is not None
        sizes = [len(part) for part in parts.values()]
        for i, logits, routes in zip(parts, out.logits.split(sizes), out.routes.split(sizes), strict=True):
            found[i].append((logits, routes))
    with torch.inference_mode():
        for i, row in enumerate(rows):
            plain = model(row[None], want=Want(routes=True), cache=cache.select([i]))
            assert plain.logits is not None
            assert plain.routes is not None
            assert_close(torch.cat([logits for logits, _ in found[i]]), plain.logits[0])
            assert torch.cat([routes for _, routes in found[i]]).tolist() == plain.routes[0, :, :, 0].tolist()
            snap = cache.snapshot(i)
            assert_close(reader.past.columns[:, i], snap.columns)
            assert_close(reader.past.delayed[:, i], snap.delayed)
            for layer in range(model.config.num_layers):
                pages = reader.past.keys[layer][reader.table[i].long()].transpose(1, 2).flatten(0, 1)
                keys = cache.keys_values(i, layer)[0]
                assert_close(pages[len(row) - len(keys) : len(row)], keys)


def test_long_texts_are_attended_to_in_splits(build: str) -> None:
    config = replace(BASE, num_layers=2, sliding_layers=(1,), sliding_window=700, max_positions=2000)
    model = make_model(config)
    (row,) = draw_rows(config, [1300])
    (logits,) = Reader(model, 1, 1300).read_all([row], [600, 1, 500, 199])
    with torch.inference_mode():
        assert_close(logits, model(row[None])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_bits_do_not_depend_on_company_cuts_or_threads(
    build: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zaya.model.native.WIDE_NUMBERS", 0)  # or so small a model stays on one thread
    model = make_model(replace(BASE, sliding_layers=(1,), sliding_window=9))
    rows = draw_rows(model.config, [23, 40, 5, 31, 17, 23, 8])
    expected = Reader(model, 7, 40, dtype).read_all(rows, [40])
    for cuts in ([1] * 40, [3] * 14, [17, 1, 1, 21]):
        for actual, one in zip(Reader(model, 7, 40, dtype).read_all(rows, cuts), expected, strict=True):
            assert torch.equal(actual, one)
    assert torch.equal(Reader(model, 1, 40, dtype).read_all(rows[1:2], [40])[0], expected[1])
    torch.set_num_threads(3)
    try:
        for actual, one in zip(Reader(model, 7, 40, dtype).read_all(rows, [6] * 7), expected, strict=True):
            assert torch.equal(actual, one)
    finally:
        torch.set_num_threads(1)


def test_bfloat16_weights_are_read_as_they_are(build: str) -> None:
    model = make_model(BASE)
    model.set_precision("report")
    rows = draw_rows(BASE, [9, 12])
    actual = Reader(model, 2, 12).read_all(rows, [5, 1, 6])
    model.set_precision("float32")
    with torch.inference_mode():
        for logits, row in zip(actual, rows, strict=True):
            assert_close(logits, model(row[None])[0])


@pytest.mark.parametrize("name", ["two_kv_heads", "three_kv_heads"])  # heads of 32 and of 64
@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.int8, 0.03)])
def test_keys_in_fewer_bits(build: str, dtype: torch.dtype, most: float, name: str) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [30, 12])
    exact = Reader(model, 2, 30).read_all(rows, [30])
    for actual, expected in zip(Reader(model, 2, 30, dtype).read_all(rows, [7] * 5), exact, strict=True):
        error = (actual - expected).norm() / expected.norm()
        assert 1e-5 < error < most


ONE_LAYER = replace(BASE, num_layers=1, head_dim=64, max_positions=2000)
WHOLE = {
    "heads_of_64": ONE_LAYER,
    "heads_of_128": replace(ONE_LAYER, num_heads=8, head_dim=128),
    "one_head_a_key": replace(ONE_LAYER, num_heads=2),
    "three_heads_a_key": replace(ONE_LAYER, num_heads=6),
    "sliding": replace(ONE_LAYER, sliding_layers=(0,), sliding_window=37),
    "sliding_far": replace(ONE_LAYER, sliding_layers=(0,), sliding_window=700),
}


@pytest.mark.parametrize("page", [16, 32])
@pytest.mark.parametrize("name", WHOLE)
def test_int8_keys_in_large_pages(build: str, name: str, page: int) -> None:
    """Where there are tile registers, pages of whole tiles go through them; small ones are the oracle.

    Both count in whole numbers. A scale that is off in its last bit may tip one over, which is 3e-5 of a weight. In a
    second layer it would be a hundredth of a key.
    """
    model = make_model(WHOLE[name])
    lengths, cuts = ([1300, 530], [600, 1, 400, 17, 300]) if "far" in name else ([50, 16, 33], [7, 1, 1, 24, 20])
    rows = draw_rows(model.config, lengths)
    small = Reader(model, len(rows), max(lengths), torch.int8).read_all(rows, cuts)
    large = Reader(model, len(rows), max(lengths), torch.int8, page=page)
    for pool in (*large.past.key_scales, *large.past.value_scales):  # type: ignore[misc]
        pool.fill_(torch.nan)  # what others left behind may be anything
    found = large.read_all(rows, cuts)
    for actual, expected in zip(found, small, strict=True):
        assert (actual - expected).norm() / expected.norm() < 1e-5
    alone = Reader(model, 1, max(lengths), torch.int8, page=page).read_all(rows[:1], [13] * 100)[0]
    assert torch.equal(alone, found[0])


TILED = {
    "plain": replace(BASE, num_layers=2),
    "group_of_eight": replace(BASE, num_heads=16, num_layers=2),
    "one_kv_head": replace(BASE, num_kv_heads=1, head_dim=64, num_layers=2),
    "sliding": replace(BASE, sliding_layers=(1,), sliding_window=45),
    "skip_passes_input": replace(BASE, skip_output="identity", num_layers=2),
    "odd_sizes": replace(BASE, expert_size=160, hidden_size=96, num_experts=2, num_layers=2),
}


@pytest.mark.parametrize("kv", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("name", TILED)
def test_many_tokens_of_a_bfloat16_model(name: str, kv: torch.dtype) -> None:
    model = make_model(TILED[name], skip_bias=0.1)
    rows = draw_rows(model.config, [700, 33, 90, 20])
    if NativeModel.of(model) is None:
        pytest.skip("no kernels here")
    with torch.no_grad():
        model.set_precision("report")
        rounded = [model(row[None])[0] for row in rows]
        model.set_precision("float32")
        exact = [model(row[None])[0] for row in rows]
    usual = torch.cat([relative(x, expected) for x, expected in zip(rounded, exact, strict=True)])
    model.set_precision("report")
    expected = Reader(model, 4, 700, kv).read_all(rows, [700], may_round=False)
    for cuts in ([700], [300, 1, 399], [40] * 18):
        found = Reader(model, 4, 700, kv).read_all(rows, cuts)
        error = torch.cat([relative(x, y) for x, y in zip(found, expected, strict=True)])
        # the mean as well: a choice that rounding turns makes another token, and must be as rare
        assert error.median() < 1.5 * usual.median()
        assert error.mean() < 1.5 * usual.mean()


def relative(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (actual - expected).norm(dim=-1) / expected.norm(dim=-1)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_many_tokens_and_packed_weights(format: str) -> None:
    config = replace(BASE, expert_size=128, vocab_size=96)
    model = make_model(config)
    model.set_precision("report")
    for spec in tensor_table(config):
        if (form := form_of(spec, format)) is not None:
            owner, _, leaf = spec.name.rpartition(".")
            module = model.get_submodule(owner)
            packed, _ = quantized(getattr(module, leaf), form)
            delattr(module, leaf)
            setattr(module, leaf, packed)
    if NativeModel.of(model) is None:
        pytest.skip("no kernels here")
    rows = draw_rows(config, [200, 40])
    with torch.no_grad(), kernels.without_kernels():
        rounded = [model(row[None])[0] for row in rows]
    for actual, expected in zip(Reader(model, 2, 200).read_all(rows, [200]), rounded, strict=True):
        assert relative(actual, expected).median() < 0.03


def test_changed_weights_are_taken_over(build: str) -> None:
    model = make_model(BASE)
    model.set_precision("report")
    rows = draw_rows(BASE, [6])
    reader = Reader(model, 1, 6)
    before = reader.read_all(rows, [6])[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    reader.native.refresh()
    reader.lengths = [0]
    reader.past.columns.zero_()
    reader.past.delayed.zero_()
    after = reader.read_all(rows, [6])[0]
    assert torch.equal(after, Reader(model, 1, 6).read_all(rows, [6])[0])
    assert not torch.equal(after, before)


def test_what_the_kernels_cannot_run_is_left_to_the_plain_path() -> None:
    assert NativeModel.of(make_model(replace(BASE, head_dim=12))) is None
    with kernels.without_kernels():
        assert NativeModel.of(make_model(BASE)) is None
