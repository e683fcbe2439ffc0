"""Buffers that keep their dtype when a model is converted."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class PinnedBuffers(nn.Module):
    """A module whose own buffers move between devices but never change dtype.

    `model.bfloat16()` would otherwise round balancing biases, which changes choices, and turn packed codes into
    something four times their size.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PinnedBuffers:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                # not by way of the other dtype, unless there are no values yet
                self._buffers[name] = new.to(old.dtype) if old.is_meta else old.to(new.device)
        return self
