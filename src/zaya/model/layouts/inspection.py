"""What a checkpoint is, said on a page: shape, counts, memory, and what is unusual about its values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zaya.model.config import ModelConfig
from zaya.model.flops import active_parameters, kv_cache_bytes, parameters, state_bytes
from zaya.model.init import tensor_table
from zaya.model.layouts.checkpoint import Checkpoint, Layout, open_checkpoint
from zaya.model.layouts.conversion import balancing_biases
from zaya.model.layouts.faithful import changed_by_transformers, skip_can_win

_COMPONENTS = {"embed": "embedding", "attention": "attention", "router": "router", "experts": "experts"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """The facts of one checkpoint. `str()` of it is the page."""

    path: Path
    layout: Layout
    packed: str | None
    """"fp8", "mxfp4", "int8" or "int4" where the experts are quantised."""
    config: ModelConfig
    num_tensors: int
    """As stored."""
    stored_bytes: dict[str, int]
    """Bytes in the files by component."""
    types: dict[str, int]
    """Bytes in the files by type."""
    total_parameters: int
    active_parameters: int
    """That work on one token, embedding included."""
    embedding_parameters: int
    memory_bytes: dict[str, int]
    """Weights in memory: as loaded in place, and as dense bfloat16 and float32."""
    kv_bytes_per_token: int
    """Keys and values in bfloat16."""
    state_bytes_per_sequence: int
    """The left context of CCA in float32."""
    ranges: dict[str, tuple[float, float]]
    """Smallest and largest value of the key temperatures and of the residual scales."""
    skip_can_win: list[int]
    """Layers whose router can choose the skip class."""
    changed_by_transformers: list[int]
    """Layers where transformers, which sets the skip class's bias to -1, may choose otherwise than the file says."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def inspect(path: str | Path) -> Inspection:
    """Read a checkpoint's headers and small tensors. Raises as `open_checkpoint` does for one that is not complete."""
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    counts, active = parameters(config), active_parameters(config)
    components: Counter[str] = Counter()
    for name in checkpoint.entries:
        components[_component(name)] += checkpoint.nbytes(name)
    types: Counter[str] = Counter()
    for stored in checkpoint.stored.values():
        types[stored.dtype] += stored.end - stored.start
    biases = balancing_biases(checkpoint)
    numbers = sum(spec.numel for spec in tensor_table(config))
    return Inspection(
        path=checkpoint.path,
        layout=checkpoint.layout,
        packed=next((packed.format for name, packed in checkpoint.packed.items() if ".experts." in name), None),
        config=config,
        num_tensors=len(checkpoint.stored),
        stored_bytes=dict(components),
        types=dict(types),
        total_parameters=counts.total,
        active_parameters=active.total,
        embedding_parameters=counts.embedding,
        memory_bytes={
            "as stored": sum(components.values()),
            "bfloat16": 2 * numbers,
            "float32": 4 * numbers,
        },
        kv_bytes_per_token=kv_cache_bytes(config, 1),
        state_bytes_per_sequence=state_bytes(config),
        ranges={leaf.replace("_", " "): _range(checkpoint, leaf) for leaf in _RANGES},
        skip_can_win=[layer for layer, values in enumerate(biases) if skip_can_win(values)],
        changed_by_transformers=changed_by_transformers(biases) if checkpoint.layout == "native" else [],
    )


_RANGES = ("key_temperature", "attention_merge.residual_scale", "moe_merge.residual_scale", "input_scale")


def _component(name: str) -> str:
    return next((_COMPONENTS[part] for part in name.split(".")[::-1] if part in _COMPONENTS), "norms and scales")


def _range(checkpoint: Checkpoint, leaf: str) -> tuple[float, float]:
    values = [next(checkpoint.pieces(name)) for name in checkpoint.entries if name.endswith(leaf)]
    return min(float(value.min()) for value in values), max(float(value.max()) for value in values)


def _lines(i: Inspection) -> list[str]:
    c = i.config
    sliding = f", {len(c.sliding_layers)} sliding over {c.sliding_window} tokens" if c.sliding_layers else ""
    without = i.total_parameters - i.embedding_parameters, i.active_parameters - i.embedding_parameters
    lines = [
        f"{i.path}: {i.layout} layout" + (f", experts packed as {i.packed}" if i.packed else ""),
        f"  tensors       {i.num_tensors} ({', '.join(f'{kind} {_size(n)}' for kind, n in i.types.items())})",
        f"  shape         {c.num_layers} layers{sliding}, width {c.hidden_size}, vocabulary {c.vocab_size:,}",
        f"  attention     {c.num_heads} query and {c.num_kv_heads} key heads of {c.head_dim}",
        f"  experts       {c.num_experts} of width {c.expert_size}, {c.experts_per_token} per token, "
        f"router width {c.router_size}",
        f"  context       {c.max_positions:,} tokens, rotary base {c.rope_theta:g}",
        f"  parameters    {i.total_parameters:,}, active {i.active_parameters:,}",
        f"    without the embedding {without[0]:,}, active {without[1]:,}",
        f"  cache         {i.kv_bytes_per_token:,} bytes per token (bfloat16), and "
        f"{i.state_bytes_per_sequence:,} per sequence (float32)",
        "  memory        " + ", ".join(f"{kind} {_size(size)}" for kind, size in i.memory_bytes.items()),
        "  files         " + ", ".join(f"{part} {_size(size)}" for part, size in i.stored_bytes.items()),
        *(f"  {name}: {low:.4g} to {high:.4g}" for name, (low, high) in i.ranges.items()),
    ]
    if i.ranges["key temperature"] == (0.0, 0.0):
        lines.append("  every key temperature is 0: all keys vanish and attention is uniform")
    winning = ", ".join(map(str, i.skip_can_win))
    lines.append(f"  the skip class can win in layers {winning}" if winning else "  the skip class can never win")
    if i.changed_by_transformers:
        layers = ", ".join(map(str, i.changed_by_transformers))
        lines.append(f"  transformers sets the skip class's bias to -1 and may choose otherwise in layers {layers}")
    return lines


def _size(nbytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes} B"
