"""A policy of a few thousand parameters and a recipe to practise with, for the tests of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.train.stages import SHAPE
from zaya.config import from_mapping
from zaya.model.config import ModelConfig
from zaya.model.layouts import save
from zaya.model.transformer import ZayaModel
from zaya.rl.recipe import RlConfig
from zaya.text import byte_tokenizer


def policy(directory: Path) -> Path:
    """A policy that closes its reasoning soon and then says something, like a tag or a letter; it knows nothing."""
    model = ZayaModel(ModelConfig(**SHAPE, max_positions=1024, eos_id=106), precision="float32", seed=1)
    tokenizer = byte_tokenizer()
    with torch.no_grad():
        direction = torch.randn(16, generator=torch.Generator().manual_seed(0))
        model.input_bias.copy_(3 * direction)  # in every hidden state, so that the likely ids are likely everywhere
        likely = {tokenizer.tags.think_close: 2.0, tokenizer.id_of("a"): 1.5, tokenizer.id_of("b"): 1.0}
        for id, weight in {**likely, tokenizer.tags.turn_close: 1.5}.items():
            assert id is not None
            model.embed[id].add_(weight * direction / direction.norm())
    save(model, directory)
    tokenizer.save(directory)
    return directory


def recipe(init: Path, **changes: Any) -> RlConfig:
    """Four steps. `changes` go one table deep."""
    tree: dict[str, Any] = {
        "init": str(init),
        "run": {"steps": 4, "threads": 1, "warmup_steps": 2, "micro_tokens": 300, "save_every_s": 1e9},
        "tasks": {
            "lengths": {"env": "tests.rl.tasks:LENGTHS", "weight": 3.0},
            "sums": {"env": "arithmetic"},
        },
        "sampling": {"prompts": 2, "group_size": 4, "max_tokens": 16, "max_rounds": 3},
        "aggregation": {"share": 0.5, "fan_in": 2, "tail_tokens": 8},
        "advantage": {"length_weight": 0.5, "l_max": 16},
        "loss": {"length_norm": 16.0},
        "optim": {"lr": 2e-3},
    }
    for key, value in changes.items():
        tree[key] = tree.get(key, {}) | value if isinstance(value, dict) and key != "tasks" else value
    return from_mapping(RlConfig, tree)
