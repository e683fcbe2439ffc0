"""A stage of a few thousand parameters and a few kB of text, for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from zaya import config as configuration
from zaya.core.checkpoint import latest_checkpoint
from zaya.text import byte_tokenizer
from zaya.train.loop import Outcome, train
from zaya.train.recipe import StageConfig
from zaya.train.stage import open_stage, part

SHAPE: dict[str, Any] = {
    "num_layers": 2, "vocab_size": 268, "hidden_size": 16, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4,
    "num_experts": 4, "expert_size": 16, "router_size": 8,
}  # fmt: skip
STEPS = 20
STEP_TOKENS = 4 * 48


def texts(folder: Path) -> Path:
    """Forty small texts."""
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02}.txt").write_text(" ".join(f"{i * j % 17}+{j}" for j in range(12 + i)))
    return folder


def conversations(file: Path) -> Path:
    """Forty questions and answers, half of the answers with reasoning."""
    lines = []
    for i in range(40):
        reply = {"role": "assistant", "content": f"A{i}"} | ({"reasoning": f"r{i} " * (i % 5)} if i % 2 else {})
        lines.append(json.dumps({"messages": [{"role": "user", "content": f"Q {i}?"}, reply]}) + "\n")
    file.write_text("".join(lines))
    return file


def tokenizer(folder: Path) -> Path:
    byte_tokenizer().save(folder)
    return folder


def recipe(folder: Path, **changes: Any) -> StageConfig:
    """Twenty steps on texts in `folder`, which gets them where it has none. `changes` go one table deep."""
    if not (folder / "text").exists():
        texts(folder / "text")
        conversations(folder / "chat.jsonl")
        tokenizer(folder / "tok")
    tree: dict[str, Any] = {
        "tokenizer": str(folder / "tok"),
        "run": {"threads": 1, "micro_tokens": 96, "eval_every": 5, "save_every_s": 1e9},
        "model": SHAPE,
        "data": {
            "text": {"kind": "text_folder", "path": str(folder / "text"), "weight": 0.5},
            "chat": {"kind": "conversation_lines", "path": str(folder / "chat.jsonl"), "weight": 0.5},
        },
        "validation": {"held_out": 0.25, "bins": 2},
        "loader": {"context": 48, "bins_per_step": 4},
        # batches are not full, so that there are a few steps more than twenty
        "schedule": {"total_tokens": STEPS * STEP_TOKENS, "warmup_tokens": 400, "decay_tokens": 1000},
        "optim": {"lr": 8e-3},
    }
    for key, value in changes.items():
        tree[key] = tree.get(key, {}) | value if isinstance(value, dict) and key != "data" else value
    return configuration.from_mapping(StageConfig, {key: value for key, value in tree.items() if value is not None})


def carry_out(config: StageConfig, directory: Path) -> Outcome:
    return train(open_stage(config, pytest.fail), directory, pytest.fail)


def saved_weights(directory: Path) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(directory / "ckpt", pytest.fail)
    assert checkpoint is not None
    return part(checkpoint.tensors, "model")
