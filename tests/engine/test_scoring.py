"""How likely a given text is.

1. The log-probabilities are those of one plain pass over the whole text, in however many chunks it is read.
2. They are those that a completion has of the same ids, and ids without a token have no part in them.
3. The likeliest ids are those of a sorted row.
4. Others are answered meanwhile; ids and lengths that cannot be are refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tolerances import assert_close
from zaya.engine import scoring
from zaya.engine.engine import Engine
from zaya.engine.types import Request, SamplingParams
from zaya.errors import UsageError
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer

TOKENIZER = byte_tokenizer()
MODEL = ZayaModel(preset("micro", vocab_size=280, max_positions=128), precision="float32", seed=3)
IDS = [(7 * i * i + 3 * i + 2) % 268 for i in range(70)]


def plain_scores() -> torch.Tensor:
    """Of a plain pass, [len(IDS) - 1, 268]."""
    with torch.inference_mode():
        logits = MODEL(torch.tensor([IDS]))[0, :-1]
    return logits[:, :268].log_softmax(-1)


@pytest.mark.parametrize("chunk", [1, 7, 69, 512])
def test_a_plain_pass(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    monkeypatch.setattr(scoring, "_MOST_LOGITS", 280 * 5)
    scores = Engine(MODEL, TOKENIZER, max_batch=2).score(IDS, 3)
    expected = plain_scores()
    own = expected.gather(1, torch.tensor(IDS[1:])[:, None]).squeeze(1)
    assert_close(torch.from_numpy(scores.logprobs), own, "float32")
    values, index = expected.topk(3)
    assert scores.top_ids.tolist() == index.tolist()
    assert_close(torch.from_numpy(scores.top_logprobs), values, "float32")
    assert scores.logprobs.dtype == np.float32


def test_a_completion_of_the_same_ids() -> None:
    engine = Engine(MODEL, TOKENIZER, max_batch=2)
    request = Request(prompt_ids=IDS[:20], params=SamplingParams(max_tokens=30, ignore_eos=True), seed=1)
    [[completion]] = engine.complete([request])
    scores = engine.score([*IDS[:20], *completion.ids])
    assert completion.logprobs is not None
    assert_close(torch.from_numpy(scores.logprobs[19:]), torch.from_numpy(completion.logprobs), "float32")
    assert scores.top_ids.shape == (49, 0)


def test_others_are_answered_meanwhile() -> None:
    engine = Engine(MODEL, TOKENIZER, max_batch=2)
    alone = engine.score(IDS).logprobs
    handle = engine.submit(Request(prompt_ids=IDS[:5], params=SamplingParams(max_tokens=40, ignore_eos=True)))
    together = engine.score(IDS).logprobs
    engine.close()
    assert handle.is_done
    assert np.array_equal(alone, together)


@pytest.mark.parametrize(("ids", "words"), [([2, 280], "from 0 to 279: 280"), ([2] * 129, "129 tokens")])
def test_refused(ids: list[int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Engine(MODEL, TOKENIZER, max_batch=2).score(ids)


@pytest.mark.parametrize("ids", [[], [2]])
def test_nothing_stands_before_the_first(ids: list[int]) -> None:
    scores = Engine(MODEL, TOKENIZER, max_batch=2).score(ids, 2)
    assert (scores.logprobs.shape, scores.top_ids.shape) == ((0,), (0, 2))
