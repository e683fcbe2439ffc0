"""Draws the figures of the documentation from the code's own numbers: `make docs`, or `python docs/draw.py`.

Each figure has a function that measures and one that draws. What was measured is rounded, drawn, and written into the
SVG's description; tests/test_docs.py measures again and compares. The same numbers give the same bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor, nn

import zaya
from zaya.core.rng import derive_seed
from zaya.engine.engine import Engine
from zaya.engine.types import Completion, Request, SamplingParams
from zaya.model.block import ResidualScaling
from zaya.model.cache import NoCache
from zaya.model.cca import CCA
from zaya.model.config import PRESETS, ModelConfig, preset
from zaya.model.init import tensor_table
from zaya.model.router import Router, choose
from zaya.model.transformer import ZayaModel
from zaya.ops.rope import rotary_angles
from zaya.ops.segments import Segments

DOCS = Path(__file__).resolve().parent
PACKAGE = Path(zaya.__file__).parent

BLUE, ORANGE, GREEN, GREY, FAINT, INK = "#0072b2", "#e69f00", "#009e73", "#8c959f", "#59636e", "#1f2328"

Numbers = dict[str, Any]

SMALL = ModelConfig(
    vocab_size=16, hidden_size=64, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=16, num_experts=3,
    expert_size=16, router_size=16, rope_theta=10_000.0,
)  # fmt: skip
"""The shape that is measured where the shape does not matter: two KV heads, three experts and the skip class."""


# ----- compressed convolutional attention


class Probe(NoCache):
    """A context that keeps what a layer hands to attention."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        self.seen = {"query": q, "key": k, "value, head 0": v[:, 0], "value, head 1": v[:, 1]}
        return super().attend(layer, q, k, v, window)


def measure_cca() -> Numbers:
    """How much of a query, key or value comes from which token, and what a token leaves in the cache.

    reach: of each part at the last token, squared derivatives by the layer's input, summed over channels, as shares
    over the tokens from 0 back to 5 back. Weights are random: the zeros are the structure, the rest is one example.
    """
    tokens = 8
    layer, probe = CCA(SMALL, 0), Probe(SMALL)
    randomize(layer, "cca")
    x = draw("cca input", tokens, SMALL.hidden_size).requires_grad_()
    segments = Segments.from_lengths([tokens])
    probe.begin(segments)
    rope = rotary_angles(torch.arange(tokens), SMALL.rotary_size("full"), SMALL.rope_theta)
    layer(x, segments, probe, rope)
    reach = {}
    for name, part in probe.seen.items():
        rows = [torch.autograd.grad(channel, x, retain_graph=True)[0] for channel in part[-1].flatten()]
        squares = torch.stack(rows).square().sum((0, 2)).flip(0)[:6]
        reach[name] = (squares / squares.sum()).tolist()

    c = preset("zaya1-8b")
    heads = c.hidden_size // c.head_dim
    kv_heads = {"MHA": heads, "GQA": heads * c.num_kv_heads // c.num_heads, "CCA": c.num_kv_heads}
    state = c.conv_context * c.conv_channels + c.key_size // 2
    per_head = c.num_layers * 2 * c.head_dim * 2
    return {
        "reach": reach,
        "bytes_per_token": {f"{name}, {n} KV heads": n * per_head for name, n in kv_heads.items()},
        "bytes_per_sequence": c.num_layers * state * 4,
        "positions": c.max_positions,
    }


def draw_cca(n: Numbers) -> Figure:
    figure, (left, right) = panels(3.0, (1.25, 1))
    names = list(n["reach"])
    shares = [row[::-1] for row in n["reach"].values()]
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            text = "0" if share == 0 else f"{share:.2f}"
            color = GREY if share == 0 else "white" if share > 0.7 else INK
            left.text(x, y, text, ha="center", va="center", color=color)
    back = range(len(shares[0]) - 1, -1, -1)
    left.set_xticks(range(len(shares[0])), ["t" if b == 0 else f"t−{b}" for b in back])
    left.set_yticks(range(len(names)), names)
    left.set_xticks([x + 0.5 for x in range(5)], minor=True)
    left.set_yticks([y + 0.5 for y in range(3)], minor=True)
    left.grid(which="minor", color="white", linewidth=2)
    left.tick_params(which="both", length=0)
    left.spines[:].set_visible(False)
    left.set_title("where a token's query, key and value come from,\nbefore any attention (random weights)")

    costs = n["bytes_per_token"]
    right.barh(list(costs), [b / 1024 for b in costs.values()], color=[GREY, GREY, BLUE], height=0.55)
    for y, cost in enumerate(costs.values()):
        whole = cost * n["positions"] / 2**30
        right.text(cost / 1024 + 6, y, f"{cost / 1024:.0f} KiB   ({whole:.0f} GiB)", va="center")
    once = n["bytes_per_sequence"] / 1024
    right.text(6, 2.45, f"and {once:.0f} KiB per sequence, once, in float32", va="center", color=BLUE)
    right.set_ylim(2.7, -0.5)
    right.set_xlim(0, 540)
    right.set_xticks([])
    right.tick_params(length=0)
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.set_title(f"keys and values of one token (of {n['positions']:,})\nat the width of ZAYA1-8B, bfloat16")
    return figure


# ----- the router


def measure_router() -> Numbers:
    """What a router state remembers of earlier layers, and what a balancing bias moves.

    depth: derivative of the last state by the projection of each layer before it, for three state scales.
    path: inputs along half a circle, random router: probabilities, and choices without and with a bias found by
    plain descent on load minus even load.
    """
    config = replace(SMALL, num_layers=16)
    depth = {}
    for scale in (1.0, 0.9, 0.5):
        routers = [Router(config, layer) for layer in range(config.num_layers)]
        state = None
        for layer, router in enumerate(routers):
            randomize(router, f"router {layer}")
            if router.state_scale is not None:
                nn.init.constant_(router.state_scale, scale)
            state = router(draw(f"router input {layer}", 1, config.hidden_size), state).state
        assert state is not None
        grads = torch.autograd.grad(state[0, 0], [router.down_bias for router in routers])
        depth[str(scale)] = [grad[0].item() for grad in grads][::-1]

    router = Router(SMALL, 0)
    randomize(router, "router on a path")
    with torch.no_grad():
        router.out_proj.mul_(3)  # as decided as a trained router, so that the classes differ
        angle = torch.linspace(0, math.pi, 105)[:, None]
        ends = draw("path", 2, SMALL.hidden_size)
        routing = router(angle.cos() * ends[0] + angle.sin() * ends[1], None)
        before = routing.choice.squeeze(1)
        experts = SMALL.num_experts
        for _ in range(400):
            choice = choose(routing.probs, router.balancing_bias, 1).squeeze(1)
            load = torch.bincount(choice, minlength=experts)[:experts] / choice.numel()
            router.balancing_bias[:experts] -= 0.01 * (load - 1 / experts)
        # away from the exact tie at which the descent stops, so that every processor makes the same choices
        router.balancing_bias.copy_(router.balancing_bias.round(decimals=3))
        after = choose(routing.probs, router.balancing_bias, 1).squeeze(1)
    return {
        "depth": depth,
        "probs": routing.probs.T.tolist(),
        "choice": {"without bias": before.tolist(), "with bias": after.tolist()},
        "bias": router.balancing_bias.tolist(),
    }


def draw_router(n: Numbers) -> Figure:
    figure, (left, right) = panels(3.3, (1, 1.3))
    for (scale, weights), color in zip(n["depth"].items(), (GREY, BLUE, ORANGE), strict=True):
        left.plot(weights, color=color, marker="o", markersize=3)
        left.annotate(f"scale {scale}", (4, weights[4]), (4, 5), textcoords="offset points", color=color)
    left.set_ylim(-0.03, 1.12)
    left.set_xlabel("layers back")
    left.set_title("weight of earlier layers' projections\nin one router state")

    colors = (BLUE, ORANGE, GREEN, GREY)
    for i, (probs, color) in enumerate(zip(n["probs"], colors, strict=True)):
        skip = i == len(n["probs"]) - 1
        right.plot(probs, color=color, linewidth=1, linestyle="--" if skip else "-")
    steps = range(len(n["probs"][0]))
    weight = [n["probs"][c][i] for i, c in enumerate(n["choice"]["with bias"])]
    right.scatter(steps, weight, s=7, color=[colors[c] for c in n["choice"]["with bias"]], zorder=3)
    for (name, choice), y in zip(n["choice"].items(), (-0.14, -0.31), strict=True):
        for start, stop, c in runs(choice):
            right.barh(y, stop - start, left=start - 0.5, height=0.1, color=colors[c])
        load = " / ".join(f"{100 * choice.count(c) / len(choice):.0f}" for c in range(len(colors) - 1))
        right.text(len(choice) + 3, y, f"{name}\nload {load} %", va="center")
    handles = [Line2D([], [], color=c) for c in colors[:3]]
    handles += [Line2D([], [], color=GREY, linestyle="--")]
    handles += [Line2D([], [], color=INK, marker="o", markersize=3, linestyle="")]
    labels = ["expert 0", "expert 1", "expert 2", "skip class", "weight that\nmultiplies the\nexpert's output"]
    right.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, handlelength=1.6)
    right.set_ylim(-0.38, 1)
    right.set_yticks([0, 0.5, 1])
    right.set_xticks([])
    right.set_xlabel("inputs along a path")
    right.spines["bottom"].set_visible(False)
    right.set_title("probabilities, and the choice\nwithout and with a balancing bias")
    return figure


def runs(values: list[int]) -> Iterator[tuple[int, int, int]]:
    """Start, stop and value of every stretch of equal values."""
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            yield start, i, values[start]
            start = i


# ----- residual scaling

PUBLISHED_PRODUCT = 6.8e-6
"""Channel median of the product of all 80 residual scales of ZAYA1-8B, as read from the released weights."""


def measure_residual() -> Numbers:
    """What is left of each block's output in the last residual stream, and how large the stream is on the way.

    Two chains of 80 merges over random outputs of size 1: all scales 1, and scales that forget as much as the published
    ones: 1 at attention merges, at expert merges one value whose product over the layers is the published product.
    """
    layers = preset("zaya1-8b").num_layers
    forgets = PUBLISHED_PRODUCT ** (1 / layers)
    return {
        "all scales 1": residual_chain([1.0] * (2 * layers)),
        "published product": residual_chain([1.0, forgets] * layers),
    }


def residual_chain(scales: list[float], size: int = 4096) -> Numbers:
    inputs = [draw(f"residual {i}", 1, size).requires_grad_() for i in range(len(scales) + 1)]
    stream, rms = inputs[0], []
    for branch, scale in zip(inputs[1:], scales, strict=True):
        merge = ResidualScaling(size)
        for name, value in (("branch_scale", 1), ("branch_bias", 0), ("residual_scale", scale), ("residual_bias", 0)):
            nn.init.constant_(getattr(merge, name), value)
        stream = merge(branch, stream)
        rms.append(stream.square().mean().sqrt().item())
    left = torch.autograd.grad(stream[0, 0], inputs)
    return {"left": [grad[0, 0].item() for grad in left], "size": rms}


def draw_residual(n: Numbers) -> Figure:
    figure, (left, right) = panels(3.0, (1, 1))
    for (name, chain), color in zip(n.items(), (GREY, BLUE), strict=True):
        left.plot(chain["left"], color=color)
        right.plot(range(1, len(chain["size"]) + 1), chain["size"], color=color)
        x, above = (2, -12) if chain["left"][0] == 1 else (42, -8)
        left.annotate(name, (x, chain["left"][x]), (9, above), textcoords="offset points", color=color)
        right.annotate(name, (40, chain["size"][39]), (-6, 7), textcoords="offset points", color=color, ha="right")
    embedding = n["published product"]["left"][0]
    left.plot([0], [embedding], color=BLUE, marker="o", markersize=4)
    label = f"embedding: {embedding:.1e}".replace("e-0", "e-")
    left.annotate(label, (0, embedding), (10, -3), textcoords="offset points", color=BLUE)
    left.set_yscale("log")
    left.set_ylim(1e-6, 3)
    left.set_xlabel("merge at which it came in")
    left.set_title("what is left of an output\nin the last residual stream")
    right.set_ylim(0, 10)
    right.set_xlabel("merges so far")
    right.set_title("size (rms) of the stream\nwhen every output has size 1")
    return figure


# ----- the engine


def measure_engine() -> Numbers:
    """Four texts through one engine, a block of its prefix cache being 8 tokens.

    texts: tokens of each prompt, tokens that were drawn, tokens that were known from before. kept: lengths at which the
    first text can be continued once it has ended.
    """
    prompt = [3 + i % 11 for i in range(21)]
    engine = small_engine()
    first = ask(engine, prompt, 6)
    chat = [*first.prompt_ids, *first.ids, 4, 9]
    found = {
        "a prompt and its answer": first,
        "the same prompt again": ask(engine, prompt, 6, seed=1),
        "the chat goes on": ask(engine, chat, 4),
        "the same beginning": ask(engine, [*prompt[:18], 4, 9], 6),
    }
    engine = small_engine()
    ask(engine, prompt, 6)
    # from the longest down: what an asking adds lies behind what is asked next
    kept = [n for n in range(27, 0, -1) if ask(engine, chat[: n + 1], 1).cached_tokens == n]
    return {
        "block": 8,
        "kept": kept[::-1],
        "texts": {name: [len(c.prompt_ids), len(c.ids), c.cached_tokens] for name, c in found.items()},
    }


def small_engine() -> Engine:
    engine = Engine(ZayaModel(SMALL), page_size=1, pages=200, max_batch=1)
    engine.stop_ids = frozenset()
    return engine


def ask(engine: Engine, prompt: Sequence[int], tokens: int, seed: int = 0) -> Completion:
    request = Request(prompt_ids=prompt, params=SamplingParams(max_tokens=tokens), seed=seed)
    return engine.complete([request])[0][0]


def draw_engine(n: Numbers) -> Figure:
    figure = Figure(figsize=(8, 2.9))
    ax = figure.add_axes((0.19, 0.03, 0.79, 0.85))
    longest = max(prompt + drawn for prompt, drawn, _ in n["texts"].values())
    ax.set(xlim=(-0.3, longest + 0.3), ylim=(len(n["texts"]) + 0.75, -0.55))
    for y, (prompt, drawn, known) in enumerate(n["texts"].values()):
        for x in range(prompt + drawn):
            color = "#d5dbe1" if x < known else BLUE if x < prompt else ORANGE
            ax.add_patch(Rectangle((x + 0.06, y), 0.88, 0.55, facecolor=color))
        if known:
            ax.plot([known], [y - 0.1], marker="v", color=GREEN, markersize=6, linestyle="")
    for length in n["kept"]:
        ax.plot([length, length], [-0.12, 0.67], color=GREEN, linewidth=1.2)
        ax.plot([length], [-0.2], marker="D", color=GREEN, markersize=4.5)
    ax.set_yticks([y + 0.28 for y in range(len(n["texts"]))], list(n["texts"]))
    ax.set_xticks(range(0, longest, n["block"]))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    patches = [Rectangle((0, 0), 1, 1, facecolor=color) for color in (BLUE, "#d5dbe1", ORANGE)]
    marks = [Line2D([], [], color=GREEN, marker=marker, markersize=5, linestyle="") for marker in "Dv"]
    labels = ["read", "known from before", "drawn", "a state is kept", "a text goes on from it"]
    ax.legend([*patches, *marks], labels, loc="lower left", ncols=5, frameon=False, handlelength=1, columnspacing=1.2)
    return figure


# ----- the overview

ROOMS = ("text", "engine", "serve", "train", "rl", "ttc", "eval")
"""The packages that are drawn as present where they exist, and dashed where they do not."""


def measure_overview() -> Numbers:
    """What exists, and how large ZAYA1-8B is, from the one table of tensors."""
    c = preset("zaya1-8b")
    specs = [spec for spec in tensor_table(c) if not spec.is_buffer]
    total = sum(spec.numel for spec in specs)
    experts = sum(spec.numel for spec in specs if spec.group == "expert")
    embedding = sum(spec.numel for spec in specs if spec.group == "embedding")
    return {
        "rooms": {room: (PACKAGE / room).is_dir() for room in ROOMS},
        "layers": c.num_layers,
        "experts": c.num_experts,
        "parameters": total,
        "active": total - embedding - experts + experts // c.num_experts * c.experts_per_token,
        "presets": list(PRESETS),
    }


def draw_overview(n: Numbers) -> Figure:
    figure = Figure(figsize=(8, 4.3))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 160), ylim=(3, 89))
    ax.axis("off")

    note(ax, 3, 85.5, "checkpoints", "left")
    for i, name in enumerate(("native (transformers)", "legacy", "FP8 experts", "MXFP4 experts")):
        box(ax, 3, 75.5 - 9 * i, 34, 7, name)
    note(ax, 3, 42.5, "or new, from a preset", "left")
    box(ax, 3, 26, 34, 13.5, "\n".join([", ".join(n["presets"][:3]), ", ".join(n["presets"][3:])]))
    arrow(ax, (49.5, 74.5), (38.5, 74.5), "save")
    arrow(ax, (38.5, 61), (49.5, 61), "load")
    arrow(ax, (38.5, 32.7), (49.5, 32.7))

    box(ax, 50.5, 24, 59, 61.5, face="#f2f8fc", edge=BLUE)
    ax.text(80, 81.7, "one model definition", ha="center", va="center", fontsize=11, weight="bold")
    total, active = n["parameters"] / 1e9, n["active"] / 1e9
    size = f"ZAYA1-8B: {total:.2f} B parameters,\n{active:.2f} B active per token, and the head"
    ax.text(80, 76, size, ha="center", va="center", fontsize=7.5)
    box(ax, 54, 66.5, 52, 6, "embedding, shifted and scaled", edge=BLUE)
    box(ax, 54, 39, 52, 25.5, edge=BLUE)
    ax.text(80, 61.6, f"{n['layers']} layers", ha="center", va="center", color=BLUE)
    blocks = ("compressed\nconvolutional attention", f"MLP router\nand 1 of {n['experts']} experts")
    for y, work in zip((50.5, 41), blocks, strict=True):
        box(ax, 56, y, 29, 8, work, edge=GREY)
        arrow(ax, (85.2, y + 4), (88.3, y + 4))
        box(ax, 88.5, y, 15.5, 8, "residual\nscaling", edge=GREY)
    box(ax, 54, 31, 52, 6, "norm and tied head", edge=BLUE)
    ax.text(80, 27.4, "on ops: each a fast path beside a readable reference", ha="center", va="center", fontsize=7.5)

    arrow(ax, (110.5, 75.5), (121.5, 75.5))
    box(ax, 122.5, 68.5, 34.5, 14, "generate\none sequence at a time")
    arrow(ax, (137, 67.5), (137, 62.5))
    arrow(ax, (142.5, 62.5), (142.5, 67.5))
    rooms = (
        ("text", 122.5, 47, 34.5, 14.5, "text\ntokenizer, chat template,\nparser"),
        ("engine", 122.5, 35.5, 34.5, 9.5, "engine\nmany sequences at once"),
        ("serve", 122.5, 24, 34.5, 9.5, "serve\nOpenAI-compatible"),
        ("train", 3, 5, 34, 11, "train\npretraining, SFT"),
        ("rl", 42.8, 5, 34, 11, "rl\nreinforcement learning"),
        ("ttc", 82.7, 5, 34, 11, "ttc\nMarkovian RSA"),
        ("eval", 122.5, 5, 34.5, 11, "eval\naccuracy with intervals"),
    )
    for name, x, y, width, height, text in rooms:
        box(ax, x, y, width, height, text, later=not n["rooms"][name])
    if not all(n["rooms"].values()):
        note(ax, 80, 19.8, "dashed: still to come, on this same model definition", "center")
    return figure


def box(
    ax: Axes, x: float, y: float, width: float, height: float, text: str = "",
    *, face: str = "white", edge: str = INK, later: bool = False,
) -> None:  # fmt: skip
    style = "round,pad=0,rounding_size=1.4"
    ink = FAINT if later else INK
    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle=style, facecolor="#fafbfc" if later else face,
            edgecolor=GREY if later else edge, linestyle=(0, (4, 3)) if later else "-", linewidth=0.9,
        )
    )  # fmt: skip
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, color=ink, linespacing=1.35)


def note(ax: Axes, x: float, y: float, text: str, align: str) -> None:
    ax.text(x, y, text, ha=align, va="center", fontsize=8, color=FAINT)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=INK, linewidth=0.9))
    if text:
        ax.text((start[0] + end[0]) / 2, start[1] + 1.2, text, ha="center", va="bottom", fontsize=8)


# ----- what the figures share


FIGURES: dict[str, tuple[str, Callable[[], Numbers], Callable[[Numbers], Figure]]] = {
    "figures/cca.svg": ("Reach and cache of compressed convolutional attention", measure_cca, draw_cca),
    "figures/router.svg": ("Depth averaging and balancing in the router", measure_router, draw_router),
    "figures/residual-scaling.svg": ("Forgetting by residual scaling", measure_residual, draw_residual),
    "figures/engine.svg": ("What is read, what is known, and where a state is kept", measure_engine, draw_engine),
    "overview.svg": ("What zaya is made of", measure_overview, draw_overview),
}
"""Path below docs -> title, what measures, what draws."""


def draw(stream: str, *shape: int) -> Tensor:
    """Normal numbers from the stream of that name."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed("docs", stream)))


def randomize(module: nn.Module, stream: str) -> None:
    """Matrices normal at the scale of their inputs, gains 1, biases 0."""
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.dim() > 1:
                tensor.copy_(draw(f"{stream} {name}", *tensor.shape) / tensor[0].numel() ** 0.5)
            else:
                tensor.fill_(0.0 if name.endswith("bias") else 1.0)
            if name.endswith("balancing_bias"):
                tensor[-1] = -1.0  # the skip class never wins


def rounded(x: Any, digits: int = 3) -> Any:
    """Every float to so many significant digits: what another processor computes a little differently is equal."""
    if isinstance(x, float):
        return float(f"{x:.{digits}g}")
    if isinstance(x, dict):
        return {key: rounded(value, digits) for key, value in x.items()}
    return [rounded(value, digits) for value in x] if isinstance(x, list) else x


def panels(height: float, widths: tuple[float, float]) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(8, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, wspace=0.06)  # type: ignore[union-attr]
    left, right = figure.subplots(1, 2, width_ratios=widths)
    return figure, (left, right)


@contextmanager
def style() -> Iterator[None]:
    """White ground and dark ink, readable on either theme of a page; letters as paths, so that fonts do not matter."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": "zaya", "svg.fonttype": "path", "font.size": 8.5, "axes.titlesize": 9,
                "legend.fontsize": 8, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
                "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
                "axes.linewidth": 0.7, "lines.linewidth": 1.6,
            }
        )  # fmt: skip
        yield


def save(figure: str, folder: Path) -> Path:
    """Measure, draw and write one figure, named as in FIGURES."""
    title, measure, sketch = FIGURES[figure]
    numbers = rounded(measure())
    path = folder / figure
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        description = json.dumps(numbers, separators=(",", ":"), ensure_ascii=False)
        about = {"Title": title, "Description": description, "Date": None, "Creator": None}
        sketch(numbers).savefig(path, metadata=about)
    path.write_text(re.sub(r"[ \t]+$", "", path.read_text("utf-8"), flags=re.MULTILINE), "utf-8")
    return path


def stored_numbers(path: Path) -> Numbers:
    """The numbers a figure was drawn from."""
    description = ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}description")
    assert description is not None, f"{path} has no description"
    return json.loads(description.text or "")


if __name__ == "__main__":
    for name in FIGURES:
        print(save(name, DOCS).relative_to(DOCS.parent))
