"""How likely a model finds a text that is given: the log-probability of each id behind those before it.

What evaluations by likelihood ask for. One sequence at a time, in chunks, so that neither its logits nor its keys are
all there at once. The distribution is that of `Completion.logprobs`: temperature 1, ids without a token left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from zaya.engine.types import Scores
from zaya.model.cache import DenseCache
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.sampling import log_sums

CHUNK = 512
"""Tokens of a pass."""
_MOST_LOGITS = 1 << 25
"""Logits that are there at once: 128 MiB."""


def score_chunks(model: ZayaModel, ids: Sequence[int], never: Sequence[int], top: int) -> Iterator[Scores]:
    """Scores of the ids, a chunk at a time: whoever has to share the model can let others in between two."""
    cache = DenseCache(model.config, device=model.device)
    rows = max(1, _MOST_LOGITS // model.config.vocab_size)
    row = torch.tensor(list(ids), dtype=torch.long, device=model.device)
    barred = torch.tensor(list(never), dtype=torch.long, device=model.device)
    for start in range(0, len(ids) - 1, CHUNK):
        with torch.inference_mode():
            # the last id is never read: nobody asks what follows it
            read, following = row[start : start + CHUNK][: len(ids) - 1 - start], row[start + 1 : start + 1 + CHUNK]
            hidden = model(read[None], cache=cache, want=Want(logits=None, hidden=True)).hidden
            assert hidden is not None
            parts = []
            for at in range(0, len(read), rows):
                logits = model.head(hidden[0, at : at + rows]).index_fill(1, barred, -torch.inf)
                sums = log_sums(logits)
                wanted = following[at : at + rows, None]
                own = logits.gather(1, wanted).squeeze(1) - sums
                values, index = logits.topk(top) if top else (logits[:, :0], wanted[:, :0])
                parts.append((own.cpu(), index.cpu(), (values - sums[:, None]).cpu()))
            own, index, values = (torch.cat(part) for part in zip(*parts, strict=True))
        yield Scores(own.numpy(), index.to(torch.int32).numpy(), values.numpy())


def joined(scores: Sequence[Scores], top: int) -> Scores:
    """Of chunks, those of the text."""
    nothing = Scores(np.zeros(0, np.float32), np.zeros((0, top), np.int32), np.zeros((0, top), np.float32))
    all = [nothing, *scores]
    return Scores(
        np.concatenate([each.logprobs for each in all]),
        np.concatenate([each.top_ids for each in all]),
        np.concatenate([each.top_logprobs for each in all]),
    )
