"""The shape of a ZAYA1 model, and the presets. Imports no torch.

One name per idea, ours; published names live in `zaya.model.layouts` and stop there. Source: spec
checkpoint-and-model 2 and 5, report table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from zaya.errors import ConfigError, did_you_mean

AttentionSpan = Literal["full", "sliding"]
SkipOutput = Literal["zero", "identity"]
Precision = Literal["report", "float32"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that decides what a ZAYA1 model computes. The defaults are ZAYA1-8B."""

    vocab_size: int = 262_272
    """Rows of the embedding; a tokenizer may be smaller, the rest is padding and is never sampled."""
    hidden_size: int = 2048
    """Width of the residual stream."""
    num_layers: int = 40
    """Layers; one layer is an attention block and a mixture-of-experts block."""
    num_heads: int = 8
    """Query heads. `num_heads * head_dim` need not equal `hidden_size`: CCA attends in a compressed space."""
    num_kv_heads: int = 2
    """Key and value heads; each serves `num_heads / num_kv_heads` query heads."""
    head_dim: int = 128
    """Channels of one head."""
    conv_time0: int = 2
    """Taps of the depth-wise convolution over queries and keys."""
    conv_time1: int = 2
    """Taps of the grouped convolution that follows it."""
    num_experts: int = 16
    """Experts of one layer, without the skip class."""
    experts_per_token: int = 1
    """Experts that work on one token. Every published model uses 1."""
    expert_size: int = 2048
    """Inner width of one SwiGLU expert."""
    router_size: int = 256
    """Width of the router's own MLP and of the state it hands from layer to layer."""
    skip_class: bool = True
    """The router scores one class more than there are experts. Off is an ablation that cannot be exported."""
    skip_output: SkipOutput = "zero"
    """What a token gets that chooses the skip class: nothing, or its own normed input times the router's weight.
    Set by the layout that was read (spec 5.8)."""
    sliding_window: int | None = None
    """Tokens a sliding layer sees, itself included. None where no layer slides."""
    sliding_layers: tuple[int, ...] = ()
    """Indices of the layers that slide; all others attend to everything before them."""
    rope_theta: float = 5_000_000.0
    """Rotary base of full layers."""
    rope_fraction: float = 0.5
    """Part of each head that full layers rotate."""
    sliding_rope_theta: float = 10_000.0
    """Rotary base of sliding layers."""
    sliding_rope_fraction: float = 0.5
    """Part of each head that sliding layers rotate."""
    norm_eps: float = 1e-5
    """Added to the mean square inside RMSNorm."""
    max_positions: int = 131_072
    """Context length the model was trained for. Nothing in the computation depends on it."""
    pad_id: int = 0
    """Token id of padding."""
    bos_id: int = 2
    """Token id that opens every text."""
    eos_id: int = 106
    """Token id that ends a turn."""
    more_eos_ids: tuple[int, ...] = ()
    """Further ids that end a text, where a checkpoint names several."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")
        for name, least in _NUMBERS.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{name} must be a finite number of at least {least:g}: {value}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads must be a multiple of num_kv_heads: {self.num_heads}, {self.num_kv_heads}")
        if self.num_kv_heads * self.head_dim % 2:
            raise ConfigError(
                "num_kv_heads * head_dim must be even, half of the value is the previous token's: "
                f"{self.num_kv_heads} * {self.head_dim}"
            )
        if self.experts_per_token > self.num_classes:
            raise ConfigError(
                f"experts_per_token exceeds the router's classes: {self.experts_per_token} > {self.num_classes}"
            )
        if self.skip_output not in get_args(SkipOutput):
            raise ConfigError(f"skip_output must be 'zero' or 'identity': {self.skip_output!r}")
        for span in ("full", "sliding"):
            size = self.rotary_size(span)
            if size % 2 or not 0 <= size <= self.head_dim:
                raise ConfigError(
                    f"a {span} layer must rotate an even part of head_dim {self.head_dim}: {size} channels"
                )
        bad = [i for i in self.sliding_layers if not 0 <= i < self.num_layers]
        if bad or len(set(self.sliding_layers)) != len(self.sliding_layers):
            raise ConfigError(f"sliding_layers must be distinct layer indices below {self.num_layers}: {bad}")
        if self.sliding_layers and (self.sliding_window is None or self.sliding_window < 1):
            raise ConfigError(
                f"sliding_window must be at least 1 where layers slide: {self.sliding_window}",
                hint="the window includes the token itself",
            )

    def span(self, layer: int) -> AttentionSpan:
        """Whether a layer sees everything before a token or only a window."""
        return "sliding" if layer in self.sliding_layers else "full"

    def window(self, layer: int) -> int | None:
        """Tokens visible in a layer, the token itself included; None for all."""
        return self.sliding_window if layer in self.sliding_layers else None

    def rotary_size(self, span: AttentionSpan) -> int:
        """Channels of a head that are rotated."""
        return int(self.head_dim * (self.rope_fraction if span == "full" else self.sliding_rope_fraction))

    def rotary_theta(self, span: AttentionSpan) -> float:
        return self.rope_theta if span == "full" else self.sliding_rope_theta

    @property
    def num_classes(self) -> int:
        """Classes the router scores: the experts, and the skip class where there is one."""
        return self.num_experts + int(self.skip_class)

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of the keys of one token, and of its values."""
        return self.num_kv_heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels the convolutions run over: queries, then keys."""
        return self.query_size + self.key_size

    @property
    def conv_context(self) -> int:
        """Earlier tokens the two convolutions look at together."""
        return self.conv_time0 + self.conv_time1 - 2


_COUNTS = (
    "vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "conv_time0", "conv_time1",
    "num_experts", "experts_per_token", "expert_size", "router_size",
)  # fmt: skip

_NUMBERS = {
    "norm_eps": 0.0, "rope_theta": 1.0, "sliding_rope_theta": 1.0, "rope_fraction": 0.0, "sliding_rope_fraction": 0.0,
}  # fmt: skip

PRESETS: dict[str, ModelConfig] = {
    # small enough to train in minutes on two CPU cores
    "micro": ModelConfig(
        vocab_size=2048, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=16,
        num_experts=8, expert_size=128, router_size=32, max_positions=4096, rope_theta=10_000.0,
    ),
    # the proportions of the 8B (half-width queries, an eighth for keys and values) at about 20 M parameters
    "tiny": ModelConfig(
        vocab_size=8192, hidden_size=256, num_layers=6, num_heads=8, num_kv_heads=2, head_dim=16,
        num_experts=16, expert_size=256, router_size=64, max_positions=8192, rope_theta=10_000.0,
    ),
    "small": ModelConfig(
        vocab_size=32_768, hidden_size=512, num_layers=12, num_heads=8, num_kv_heads=2, head_dim=32,
        num_experts=16, expert_size=512, router_size=128, max_positions=32_768, rope_theta=1_000_000.0,
    ),
    "zaya1-8b": ModelConfig(),
    # the published preview; which of two neighbours slides is not published, and neither is the context length
    "zaya1-74b": ModelConfig(
        hidden_size=4096, num_layers=60, num_heads=16, num_experts=24, expert_size=4096,
        sliding_window=4097, sliding_layers=tuple(range(0, 60, 2)),
    ),
}  # fmt: skip


def preset(name: str, **changes: object) -> ModelConfig:
    """A named shape, with fields replaced. Raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"no model preset is called {name!r}", hint=did_you_mean(name, PRESETS))
    return replace(PRESETS[name], **changes)  # type: ignore[arg-type]
