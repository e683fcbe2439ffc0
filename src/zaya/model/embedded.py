"""The model that comes with the package: a micro ZAYA, made by `zaya cascade recipes/micro/cascade.toml`.

Its checkpoint lies in `zaya/micro`, in the native layout and bfloat16. It solves small problems of a few kinds, in the
words it was trained on, and knows nothing else.
"""

from __future__ import annotations

from pathlib import Path

from zaya.envs.answers import INSTRUCTION
from zaya.errors import CheckpointError

_DIRECTORY = Path(__file__).resolve().parents[1] / "micro"
MANIFEST = "micro.json"
"""What a cascade writes last beside the model that it ships: what it was made from."""

_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def embedded_directory() -> Path:
    """Its checkpoint directory. Raises CheckpointError where the files are not there."""
    missing = [name for name in _NEEDED if not (_DIRECTORY / name).is_file()]
    if missing:
        raise CheckpointError(
            f"the embedded model is not there: {_DIRECTORY} has no {missing[0]}",
            hint="name a checkpoint; or, in a checkout, make micro trains the model and make embed puts it there",
        )
    return _DIRECTORY


def is_micro(model: str | None) -> bool:
    """Whether a model named on a command line, none for the embedded one, was made by a cascade as it was."""
    return model is None or (Path(model) / MANIFEST).is_file()


def as_trained(question: str) -> str:
    """The question with the instruction that ended every question of its training."""
    return question if INSTRUCTION in question else f"{question.rstrip()}\n{INSTRUCTION}"
