"""Which device to compute on, and what it is. The only file that asks.

CUDA and ROCm share torch's device API: an AMD accelerator is called `cuda` too. Everything else takes a `torch.device`
and does not care. Torch is imported when a device is asked for, not before.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What can be said of a device without computing on it."""

    name: str
    memory_bytes: int
    """All of it, used or not: the accelerator's own, or the machine's main memory."""
    is_rocm: bool
    has_bfloat16: bool
    """Computes in bfloat16. A CPU always does, slowly where it lacks the instructions."""


def pick(wanted: str = "auto") -> torch.device:
    """The device of that name: `cpu`, `cuda`, `cuda:1`; or `auto`, the first accelerator if there is one, else the CPU.

    Raises UsageError for a name that is none of these and for a device that is not there.
    """
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, index = wanted.partition(":")
    if wanted == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise UsageError(
            f"no device is called '{wanted}'",
            hint="there are auto, cpu, cuda and cuda:N; accelerators from AMD are called cuda as well",
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(index or 0)
    if number >= count:
        raise UsageError(
            f"{wanted} is not there: PyTorch {torch.__version__} sees {count} accelerators",
            hint="use cpu, or install PyTorch for your accelerator: make install TORCH=cuda or TORCH=rocm",
        )
    return torch.device("cuda", number)


def describe(device: torch.device) -> DeviceInfo:
    """What a device that `pick` returned is."""
    import torch

    if device.type == "cpu":
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        name = platform.processor() or platform.machine()
        return DeviceInfo(name=name, memory_bytes=memory_bytes, is_rocm=False, has_bfloat16=True)
    properties = torch.cuda.get_device_properties(device)
    with torch.cuda.device(device):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return DeviceInfo(
        name=properties.name,
        memory_bytes=properties.total_memory,
        is_rocm=torch.version.hip is not None,
        has_bfloat16=has_bfloat16,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device that `pick` returned: for a CPU what the machine, or the container
    this process runs in, has left."""
    import torch

    if device.type != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    found = [describe(device).memory_bytes]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    for limit, used in _CONTAINER_FILES:
        if limit.exists() and (most := limit.read_text().strip()) != "max":
            found.append(int(most) - int(used.read_text()))
    return max(0, min(found))


_CONTAINER_FILES = tuple(
    (Path("/sys/fs/cgroup", limit), Path("/sys/fs/cgroup", used))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    )
)
"""What a container may use, and what it does, under either version of control groups."""
