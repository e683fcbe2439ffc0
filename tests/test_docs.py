"""The documentation against the code.

1. Each figure shows what the code computes now: the numbers in its description are the numbers measured again.
2. Drawing twice gives the same bytes, so that a changed file means a changed figure.
3. Each is small enough to load with its page, and shown there.
4. They say what their pages say of them: reach, delay, depth averaging, steering, forgetting, where texts go on.
5. The sizes in the tables are those of the configurations.
6. What a page says is in a file, is in that file.
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zaya.engine.engine import PAGES_PER_BLOCK, PoolSizes
from zaya.model.cache import DenseCache
from zaya.model.config import preset
from zaya.model.init import tensor_table

DOCS = Path(__file__).resolve().parents[1] / "docs"


def load_draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_draw", DOCS / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = load_draw()
FIGURES = list(draw.FIGURES)


def assert_same(stored: Any, measured: Any, at: str) -> None:
    """Equal, floats to the three digits that are stored."""
    if isinstance(stored, dict):
        assert stored.keys() == measured.keys(), at
        for key in stored:
            assert_same(stored[key], measured[key], f"{at}.{key}")
    elif isinstance(stored, list):
        assert len(stored) == len(measured), at
        for i, (old, new) in enumerate(zip(stored, measured, strict=True)):
            assert_same(old, new, f"{at}[{i}]")
    elif isinstance(stored, float):
        assert math.isclose(stored, measured, rel_tol=0.006, abs_tol=1e-9), f"{at}: {stored}, now {measured}"
    else:
        assert stored == measured, at


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_show_what_the_code_computes(figure: str) -> None:
    _, measure, _ = draw.FIGURES[figure]
    assert_same(draw.stored_numbers(DOCS / figure), measure(), f"{figure} is old, `make docs` draws it again: numbers")


def test_a_stale_figure_is_noticed() -> None:
    numbers = draw.stored_numbers(DOCS / "figures/cca.svg")
    with pytest.raises(AssertionError, match=r"reach\.key\[0\]"):
        assert_same(numbers, numbers | {"reach": numbers["reach"] | {"key": [0.5] * 6}}, "")


@pytest.mark.parametrize("figure", FIGURES)
def test_drawing_again_gives_the_same_bytes(figure: str, tmp_path: Path) -> None:
    first = draw.save(figure, tmp_path / "a").read_bytes()
    assert first == draw.save(figure, tmp_path / "b").read_bytes()
    assert len(first) < 120_000


def test_every_figure_is_on_a_page() -> None:
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("concepts/*.md"))
    figures = {f"figures/{file.name}" for file in DOCS.glob("figures/*")}
    assert figures == {figure for figure in FIGURES if figure.startswith("figures/")}
    assert [figure for figure in figures if f"](../{figure})" not in pages] == []


def test_cca_reaches_three_tokens_and_delays_one_value_head() -> None:
    reach = draw.stored_numbers(DOCS / "figures/cca.svg")["reach"]
    seen = {name: [share > 0 for share in shares] for name, shares in reach.items()}
    assert seen["query"] == seen["key"] == [True] * 3 + [False] * 3
    assert seen["value, head 0"] == [True] + [False] * 5
    assert seen["value, head 1"] == [False, True] + [False] * 4


def test_router_averages_over_depth_and_is_steered() -> None:
    numbers = draw.stored_numbers(DOCS / "figures/router.svg")
    for scale, weights in numbers["depth"].items():
        assert_same([float(scale) ** back for back in range(16)], weights, scale)
    without, biased = numbers["choice"]["without bias"], numbers["choice"]["with bias"]
    skip = len(numbers["probs"]) - 1
    assert skip not in {*without, *biased}
    assert {biased.count(e) for e in range(skip)} <= {34, 35, 36}, "the bias evens the load"
    assert min(without.count(e) for e in range(skip)) < 10
    assert_same([1.0] * len(without), [sum(column) for column in zip(*numbers["probs"], strict=True)], "skip included")


def test_residual_scales_forget() -> None:
    numbers = draw.stored_numbers(DOCS / "figures/residual-scaling.svg")
    ones, forgets = numbers["all scales 1"], numbers["published product"]
    assert set(ones["left"]) == {1.0}
    assert_same(draw.PUBLISHED_PRODUCT, forgets["left"][0], "the product over all merges")
    assert_same(math.sqrt(81), ones["size"][-1], "independent outputs add as squares")
    assert max(forgets["size"]) < 2.5


def test_texts_go_on_where_a_state_was_kept() -> None:
    numbers = draw.stored_numbers(DOCS / "figures/engine.svg")
    prompt, drawn, _ = numbers["texts"]["a prompt and its answer"]
    read, block = prompt + drawn - 1, numbers["block"]
    assert numbers["kept"] == sorted({*range(block, read + 1, block), prompt - 1, read})
    known = {name: text[2] for name, text in numbers["texts"].items()}
    assert list(known.values()) == [0, prompt - 1, read, 2 * block]


def test_sizes_on_the_engine_page() -> None:
    page = (DOCS / "concepts/engine.md").read_text("utf-8")
    sizes = PoolSizes.of(preset("zaya1-8b"), page_size=32, itemsize=2, slots=1)
    block = PAGES_PER_BLOCK * sizes.page
    assert f"{sizes.state / 1024:.0f} KiB for every {block / 2**20:.0f} MiB" in page
    assert f"{100 * sizes.state / block:.1f} %" in page


def test_sizes_on_the_cache_page() -> None:
    page = (DOCS / "concepts/cache.md").read_text("utf-8")
    rows: dict[str, list[str]] = {"keys and values": [], "at 131,072": [], "CCA state": []}
    for config in (preset("zaya1-8b"), preset("zaya1-74b")):
        per_layer = 2 * config.key_size * 2
        held = [min(131_072, config.window(layer) or 131_072) for layer in range(config.num_layers)]
        snapshot = DenseCache(config).snapshot(0)
        rows["keys and values"].append(f"{config.num_layers * per_layer / 1024:.0f} KiB per token")
        rows["at 131,072"].append(f"{sum(held) * per_layer / 2**30:.1f} GiB")
        rows["CCA state"].append(f"{(snapshot.columns.nbytes + snapshot.delayed.nbytes) / 1024:.0f} KiB")
    for name, sizes in rows.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name}"))
        assert row.endswith(f"| {sizes[0]} | {sizes[1]} |"), sizes


def test_sizes_on_the_other_pages() -> None:
    specs = [spec for spec in tensor_table(preset("zaya1-8b")) if not spec.is_buffer]
    scaling = sum(spec.numel for spec in specs if "_merge." in spec.name or spec.name.startswith("input_"))
    assert f"| {scaling:,} |" in (DOCS / "concepts/residual-scaling.md").read_text("utf-8")
    router = sum(spec.numel for spec in specs if ".1.moe.router." in spec.name)
    assert f"| {router / 1e6:.2f} M |" in (DOCS / "concepts/router.md").read_text("utf-8")
    taps = ("blocks.1.attention.depthwise_weight", "blocks.1.attention.grouped_weight")
    mixing = sum(spec.numel for spec in specs if spec.name in taps)
    assert f"({mixing:,} multiply-adds" in (DOCS / "concepts/cca.md").read_text("utf-8")


ROW = re.compile(r"^\| ([^\n]+) \| \[[^]]+\]\((\S+)\) \|$", re.MULTILINE)
"""A name, or several, and the file that has them."""
ITEM = re.compile(r"^- \[test_[^]]+\]\((\S+)\):(.+?)(?=\n- |\Z)", re.MULTILINE | re.DOTALL)
"""A file of tests, and those of its tests that are named."""


@pytest.mark.parametrize(
    "page", ["cca", "router", "residual-scaling", "cache", "engine", "structured", "kernels", "evaluation"]
)
def test_names_are_where_the_page_says(page: str) -> None:
    text = (DOCS / f"concepts/{page}.md").read_text("utf-8")
    places = [(link, names) for names, link in ROW.findall(text)] + ITEM.findall(text)
    missing = [
        (link, part)
        for link, names in places
        for name in re.findall(r"`([\w.]+)`", names)
        for part in name.split(".")
        if not re.search(rf"\b{part}\b", (DOCS / "concepts" / link).read_text("utf-8"))
    ]
    assert missing == []
    assert len(places) > 5
