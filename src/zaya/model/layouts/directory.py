"""Where a checkpoint lies: a directory of this machine, or the hub's copy of one. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from zaya.errors import CheckpointError


def local_directory(path: str | Path) -> Path:
    """The directory itself, or where the hub's copy of "org/name" lies after a download."""
    if Path(path).exists() or not isinstance(path, str) or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        return Path(path)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"there is no {path}, and fetching it as a hub id needs the extra 'hub'",
            hint="pip install 'openzaya[hub]'",
        ) from error
    try:
        return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"there is no {path} here, and it could not be fetched from the hub: {str(error).splitlines()[0]}",
            hint="check the name and the network, or give a directory",
        ) from error
