"""The plain generator: against transformers' own, and its promises."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import make_pair
from tests.parity.shapes import SHAPES
from zaya.errors import UsageError
from zaya.model import generate as module
from zaya.model.generate import generate

PROMPT = [2, 17, 40, 5, 61, 9, 33]


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_2_4"])
def test_greedy_is_what_transformers_generates(name: str) -> None:
    theirs, ours = make_pair(SHAPES[name], seed=11)
    expected = theirs.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    actual = list(generate(ours, PROMPT, max_tokens=12, temperature=0, stop_ids=[]))
    assert actual == expected[0, len(PROMPT) :].tolist()


def test_chunked_prefill_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_pair(SHAPES["alternating"], seed=11)[1]
    whole = list(generate(model, PROMPT, max_tokens=8, stop_ids=[]))
    monkeypatch.setattr(module, "PREFILL_CHUNK", 3)
    assert list(generate(model, PROMPT, max_tokens=8, stop_ids=[])) == whole


def test_stops_seeds_and_padding_rows() -> None:
    model = make_pair(SHAPES["two_kv_heads"], seed=11)[1]
    ids = list(generate(model, PROMPT, max_tokens=20, stop_ids=[], seed=1))
    assert ids == list(generate(model, PROMPT, max_tokens=20, stop_ids=[], seed=1))
    assert ids != list(generate(model, PROMPT, max_tokens=20, stop_ids=[], seed=2))
    stopped = list(generate(model, PROMPT, max_tokens=20, stop_ids=[ids[5]], seed=1))
    assert stopped == ids[: ids.index(ids[5]) + 1]
    assert max(generate(model, PROMPT, max_tokens=40, stop_ids=[], never=range(30, 97))) < 30


@pytest.mark.parametrize("prompt", [[], [-1], [97]])
def test_impossible_prompts_are_refused(prompt: list[int]) -> None:
    model = make_pair(SHAPES["two_kv_heads"])[1]
    with pytest.raises(UsageError, match="a prompt is at least one id below 97"):
        next(generate(model, prompt, max_tokens=1))
