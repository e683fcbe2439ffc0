"""What the tests of `serve.apart` have opened in a process of its own, which imports this file and no test."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.errors import CheckpointError

if TYPE_CHECKING:
    from zaya.engine.engine import Engine


def engine() -> Engine:
    """Small, random, and with a context that takes a while to fill."""
    from zaya.engine.engine import Engine  # here, for those that open nothing need not wait for torch
    from zaya.model.config import preset
    from zaya.model.transformer import ZayaModel
    from zaya.text import byte_tokenizer

    model = ZayaModel(preset("micro", vocab_size=280, max_positions=100_000), precision="float32", seed=3)
    return Engine(model, byte_tokenizer(), max_batch=8, pages=3400)


def slow() -> Engine:
    time.sleep(60)
    raise AssertionError


def refused() -> Engine:
    raise CheckpointError("no such weights", hint="look again")


def not_there() -> Engine:
    open("/no/such/file").close()
    raise AssertionError


def mistaken() -> Engine:
    raise ArithmeticError("a mistake of ours")


def dying_now_and_then(counter: Path) -> Engine:
    """Opened by every third process."""
    with counter.open("a") as file:
        file.write("x")
    if counter.stat().st_size % 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return engine()


def dying(counter: Path) -> Engine:
    """Leaves a mark each time."""
    with counter.open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
