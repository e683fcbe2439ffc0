"""What a model of a given shape costs on paper: parameters, cache, arithmetic, bytes. Imports no torch.

Parameters are counted from the one table of tensors, so they cannot disagree with the model. Arithmetic counts a
multiply-add as two operations and leaves out what is not a matrix product or a convolution (norms, activations,
softmax, rotary, biases): under 1 % at every published size. Source: spec pretraining 1, 2.1 and 11;
checkpoint-and-model 6.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

from zaya.model.config import ModelConfig
from zaya.model.init import tensor_table


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters by component. Balancing biases are state, not parameters, and are not counted."""

    embedding: int
    """The embedding, which is also the head."""
    attention: int
    router: int
    experts: int
    norms: int
    """Norms, and the scales and biases of the residual stream."""

    @property
    def total(self) -> int:
        return sum(astuple(self))

    @property
    def without_embedding(self) -> int:
        return self.total - self.embedding


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of a forward pass by component."""

    projections: int
    """Into queries, keys and values, and out of attention."""
    convolutions: int
    attention: int
    """Scores and weighted values; the only part that grows with the context."""
    router: int
    experts: int
    head: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


def parameters(config: ModelConfig) -> Parameters:
    """Every parameter of the model."""
    counts = dict.fromkeys(Parameters.__slots__, 0)
    for spec in tensor_table(config):
        if not spec.is_buffer:
            counts[_component(spec.name)] += spec.numel
    return Parameters(**counts)


def active_parameters(config: ModelConfig) -> Parameters:
    """The parameters that work on one token: all of them, but of the experts only those it is routed to."""
    every = parameters(config)
    return replace(every, experts=every.experts // config.num_experts * config.experts_per_token)


def kv_cache_bytes(config: ModelConfig, tokens: int, bytes_per_number: int = 2) -> int:
    """Keys and values of one sequence of that many tokens. A sliding layer never holds more than its window.

    With tokens=1: what one more token costs until the first window is full.
    """
    held = sum(min(tokens, config.window(layer) or tokens) for layer in range(config.num_layers))
    return held * 2 * config.key_size * bytes_per_number


def state_bytes(config: ModelConfig, bytes_per_number: int = 4) -> int:
    """The left context of CCA for one sequence: its last pre-convolution columns and one delayed value, every layer."""
    numbers = config.conv_channels * config.conv_context + config.key_size // 2
    return config.num_layers * numbers * bytes_per_number


def token_flops(config: ModelConfig, context: int) -> Flops:
    """Forward pass of one token that sees `context` tokens, itself included, as in decoding."""
    return _flops(config, 1, lambda window: min(context, window or context))


def sequence_flops(config: ModelConfig, length: int) -> Flops:
    """Forward pass of a whole causal sequence, logits at every token. Training costs three times as much."""

    def seen(window: int | None) -> int:
        w = min(length, window or length)
        # The first w tokens see 1, 2, ..., w tokens, all later ones see w.
        return w * (w + 1) // 2 + (length - w) * w

    return _flops(config, length, seen)


def decode_weight_bytes(config: ModelConfig, bytes_per_weight: int = 2) -> int:
    """Weights read to decode one token of one sequence: the active ones, the head included."""
    return active_parameters(config).total * bytes_per_weight


def _component(name: str) -> str:
    for part, component in ((".attention.", "attention"), (".router.", "router"), (".experts.", "experts")):
        if part in name:
            return component
    return "embedding" if name == "embed" else "norms"


def _flops(config: ModelConfig, tokens: int, seen: Callable[[int | None], int]) -> Flops:
    """`seen(window)`: how many pairs of a token and one it sees there are in a layer with that window."""
    c = config
    route = c.router_size
    per_layer = 2 * tokens * c.num_layers
    return Flops(
        projections=per_layer * 2 * c.hidden_size * (c.query_size + c.key_size),
        convolutions=per_layer * c.conv_channels * (c.conv_time0 + c.head_dim * c.conv_time1),
        attention=sum(2 * 2 * c.query_size * seen(c.window(layer)) for layer in range(c.num_layers)),
        router=per_layer * route * (c.hidden_size + 2 * route + c.num_classes),
        experts=per_layer * 3 * c.hidden_size * c.expert_size * c.experts_per_token,
        head=2 * tokens * c.hidden_size * c.vocab_size,
    )
