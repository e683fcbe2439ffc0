"""Whether a layout can hold a model without changing what it computes. Imports no torch.

The two published layouts give the skip class different meaning: nothing in the native one, the normed input in the
legacy one. Where the class can never win, as in every released model that was looked at, both mean the same (spec
checkpoint-and-model 5.8).
"""

from __future__ import annotations

from collections.abc import Sequence

from zaya.errors import CheckpointError
from zaya.model.config import ModelConfig
from zaya.model.layouts import legacy
from zaya.model.layouts.checkpoint import LAYOUTS, Layout


def skip_can_win(biases: Sequence[float]) -> bool:
    """Whether one layer's router can ever choose the skip class, the last of its balancing biases.

    A class wins with the largest probability plus bias. The skip class reaches at most 1 + its bias, the others then
    have a probability of 0; a tie goes to the expert.
    """
    *experts, skip = biases
    return 1 + skip > max(experts)


def changed_by_transformers(biases: Sequence[Sequence[float]]) -> list[int]:
    """Layers in which transformers chooses otherwise than the file says.

    It overwrites the skip class's bias with -1 whenever it loads a checkpoint (seen in 5.23). That matters where the
    class can win with the bias of the file, or with -1.
    """
    return [
        layer
        for layer, (*experts, skip) in enumerate(biases)
        if skip != -1 and (skip_can_win([*experts, skip]) or skip_can_win([*experts, -1.0]))
    ]


def balancing_bias_names(config: ModelConfig) -> list[str]:
    """Our names of the balancing biases, layer by layer."""
    return [f"blocks.{i}.moe.router.balancing_bias" for i in range(config.num_layers)]


def check_faithful(config: ModelConfig, layout: Layout, biases: Sequence[Sequence[float]]) -> None:
    """Raise CheckpointError, with every reason, where writing a model in a layout would change what it computes.

    `biases` are the balancing biases of each layer.
    """
    reasons = _reasons(config, layout, biases)
    if reasons:
        others = [other for other in LAYOUTS if not _reasons(config, other, biases)]
        raise CheckpointError(
            f"the model cannot be written in the {layout} layout without changing what it computes:\n  "
            + "\n  ".join(reasons),
            hint=f"the {others[0]} layout can hold it" if others else None,
        )


def _reasons(config: ModelConfig, layout: Layout, biases: Sequence[Sequence[float]]) -> list[str]:
    reasons = []
    if not config.skip_class:
        reasons.append("it has no skip class, and the layout's router always scores one")
    if config.experts_per_token != 1:
        reasons.append(f"{config.experts_per_token} experts work on a token, and the layout defines one")
    if layout == "legacy":
        reasons += legacy.limits(config)
    means = LAYOUTS[layout].SKIP_OUTPUT
    if config.skip_class and config.skip_output != means:
        winning = [str(layer) for layer, values in enumerate(biases) if skip_can_win(values)]
        if winning:
            reasons.append(
                f"the skip class can win in layers {', '.join(winning)}: it gives {_GIVES[config.skip_output]} in "
                f"this model and {_GIVES[means]} in the layout"
            )
    return reasons


_GIVES = {"zero": "nothing", "identity": "the normed input"}
