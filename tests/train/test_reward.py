"""Promises of train/reward:

1. The loss of a pair is -log sigmoid(chosen - rejected), by numbers on paper, and the score is the last token's hidden
   state times one row of the embedding, whatever else is packed beside it.
2. Loss and gradients are those of all pairs of a step, however it is cut into micro-batches.
3. A tiny model trained on pairs orders pairs that it has not seen, and what is saved gives the same scores when loaded.
4. A run that was stopped goes on to the same weights.
5. A reward is in (0, 1] whatever the score; behind a checker it is 0 where that fails and above 0 where it passes.
6. Both forms of a line mean the same pair; a prompt has all its pairs on one side; lines of another shape are named.
7. A step's pairs are a function of its number, and each epoch has every pair once.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tolerances import assert_close
from tests.train.stages import SHAPE, saved_weights
from zaya.errors import CheckpointError, ConfigError, DataError
from zaya.model.config import preset
from zaya.model.layouts import save
from zaya.model.transformer import Want, ZayaModel
from zaya.text import byte_tokenizer
from zaya.train import reward
from zaya.train.optim import OptimConfig
from zaya.train.recipe import RunConfig
from zaya.train.reward import Pair, RewardConfig, RewardModel, agreement, gated, pair_losses, to_unit
from zaya.train.schedule import ScheduleConfig

TOKENIZER = byte_tokenizer()
HEAD = reward.head_of(TOKENIZER)
WORDS = ("tea", "sea", "sun", "map", "owl", "fig", "ink", "jar")


def messages(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def lines() -> list[dict[str, object]]:
    """Pairs whose chosen answer ends in an exclamation mark, and the other in a full stop."""
    return [
        {"prompt": f"{one} or {other}?", "chosen": f"{said}!", "rejected": f"{said}."}
        for one in WORDS
        for other in WORDS
        for said in (one, other)
        if one != other
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    TOKENIZER.save(folder / "tok")
    save(ZayaModel(preset("micro", **SHAPE), precision="float32", seed=3), folder / "init", text_from=folder / "tok")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    return folder


def recipe(folder: Path, steps: int) -> RewardConfig:
    return RewardConfig(
        init=str(folder / "init"),
        pairs=str(folder / "pairs.jsonl"),
        schedule=ScheduleConfig(total_tokens=steps * 600, warmup_tokens=600),
        context=64,
        pairs_per_step=8,
        held_out=0.2,
        run=RunConfig(threads=1, micro_tokens=256, eval_every=1000, save_every_s=1e9),
        optim=OptimConfig(lr=1e-2),
    )


def model() -> ZayaModel:
    return ZayaModel(preset("micro", **SHAPE), precision="float32", seed=3)


def some_pairs() -> list[Pair]:
    generator = torch.Generator().manual_seed(0)
    lengths = ((5, 9), (3, 3), (12, 4), (7, 8), (2, 20))
    return [Pair(*(torch.randint(1, 256, (n,), generator=generator).tolist() for n in pair)) for pair in lengths]


def test_the_loss_is_what_paper_says() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.0, 0.0, 1.0])
    by_hand = [math.log(1 + math.exp(-1)), math.log(2), math.log(1 + math.exp(3))]
    assert pair_losses(chosen, rejected).tolist() == pytest.approx(by_hand, rel=1e-6)
    seen = agreement(chosen, rejected)
    assert seen.loss == pytest.approx(sum(by_hand) / 3, rel=1e-6)
    assert seen.accuracy == pytest.approx((1 + 0.5 + 0) / 3)
    assert seen.margin == pytest.approx((1 + 0 - 3) / 3)


def test_the_score_is_read_at_the_last_token_and_sees_no_neighbour() -> None:
    whole, sequences = model(), [ids for pair in some_pairs() for ids in (pair.chosen, pair.rejected)]
    scores, _ = reward.last_scores(whole, HEAD, sequences)
    for ids, score in zip(sequences, scores, strict=True):
        hidden = whole(torch.tensor([ids]), want=Want(logits=None, hidden=True)).hidden
        assert hidden is not None
        assert_close(score, hidden[0, -1] @ whole.embed[HEAD], "float32")


def test_micro_batches_change_nothing() -> None:
    gradients = []
    for micro_tokens in (1, 40, 1000):
        whole, seen = model(), some_pairs()
        for chosen, rejected, _ in reward._passes(whole, HEAD, seen, micro_tokens):
            (pair_losses(chosen, rejected).sum() / len(seen)).backward()
        gradients.append({name: p.grad for name, p in whole.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            assert_close(other[name], gradient, "float32_random_gradient")


def test_a_tiny_one_orders_what_it_has_not_seen(folder: Path) -> None:
    config = recipe(folder, steps=14)
    _, held_out = reward.load_pairs(config, TOKENIZER, pytest.fail)
    at = reward.train(config, folder / "run", pytest.fail)
    assert at.finished
    assert len(held_out) >= 10
    trained = RewardModel.load(folder / "run" / "model")
    seen = agreement(*reward.evaluate(trained.model, HEAD, held_out, 256))
    assert seen.accuracy > 0.95
    assert seen.margin > 0.5
    log = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)  # the head begins at 0
    assert log[-1]["val_accuracy"] == pytest.approx(seen.accuracy)
    assert log[-1]["val_loss"] == pytest.approx(seen.loss, rel=1e-4)
    liked, disliked = trained.rewards([messages("map or tea?", "tea!"), messages("map or tea?", "tea.")])
    assert 0 < disliked < liked <= 1
    scores = [*map(float, torch.cat(reward.evaluate(trained.model, HEAD, held_out, 256)))]
    assert trained.mean == pytest.approx(sum(scores) / len(scores), abs=1e-4)
    notices: list[str] = []
    assert reward.train(config, folder / "run", notices.append).finished
    assert "finished before" in notices[0]


def test_a_stopped_run_goes_on_to_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(folder, steps=4)
    whole = reward.train(config, folder / "whole", pytest.fail)
    step, calls = reward.train_step, []

    def stops_after_two(*args: object, **options: object) -> dict[str, object]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*args, **options)  # pyright: ignore[reportArgumentType]

    eager = replace(config, run=replace(config.run, save_every_s=0.0))
    monkeypatch.setattr(reward, "train_step", stops_after_two)
    with pytest.raises(KeyboardInterrupt):
        reward.train(eager, folder / "parts", pytest.fail)
    monkeypatch.setattr(reward, "train_step", step)
    notices: list[str] = []
    assert reward.train(config, folder / "parts", notices.append) == whole
    assert "after step 2" in notices[-1]
    one, other = saved_weights(folder / "whole"), saved_weights(folder / "parts")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_reward_is_above_zero_and_a_gate_holds() -> None:
    assert to_unit(2.0, 2.0, 3.0) == 0.5
    assert to_unit(5.0, 2.0, 3.0) == pytest.approx(1 / (1 + math.exp(-1)))
    for score in (-1e30, -1e3, 0.0, 1e3, 1e30):
        for std in (0.0, 1e-300, 1.0):
            assert 0 < to_unit(score, 0.0, std) <= 1
    for rm in (-5.0, 0.0, 1e-320, 0.3, 1.0, 7.0, math.nan, math.inf, -math.inf):
        assert gated(False, rm) == 0
        assert 0 < gated(True, rm) <= 1
    assert gated(True, 0.3) == 0.3


def test_both_forms_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    prompt = [{"role": "user", "content": "a?"}]
    forms = [
        {"prompt": "a?", "chosen": "b", "rejected": "c"},
        {"prompt": prompt, "chosen": "b", "rejected": "c"},
        {"chosen": messages("a?", "b"), "rejected": messages("a?", "c")},
    ]
    file.write_text("\n".join(map(json.dumps, forms)))
    read = [(list(chosen), list(rejected)) for _, chosen, rejected in reward.read_pairs(file)]
    assert read == [(messages("a?", "b"), messages("a?", "c"))] * 3
    for bad in ("[]", "{", '{"chosen": "a", "rejected": "b"}', '{"prompt": "a", "chosen": [], "rejected": []}'):
        file.write_text(f"\n{bad}\n")
        with pytest.raises(DataError, match=r"pairs\.jsonl:2"):
            list(reward.read_pairs(file))


def test_a_prompt_is_on_one_side(folder: Path) -> None:
    config = recipe(folder, 1)
    sides = reward.load_pairs(config, TOKENIZER, pytest.fail)

    def prompts(pairs: list[Pair]) -> set[str]:
        return {TOKENIZER.decode(pair.chosen).partition("?")[0] for pair in pairs}

    train, held_out = map(prompts, sides)
    assert not train & held_out
    assert len(train) + len(held_out) == 56
    notices: list[str] = []
    with pytest.raises(DataError, match="too few"):
        reward.load_pairs(replace(config, context=8), TOKENIZER, notices.append)
    assert "112 pairs" in notices[0]


def test_each_epoch_has_every_pair_once() -> None:
    seen = some_pairs()
    taken = [pair for step in range(5) for pair in reward.step_pairs(seen, 3, 1, step)]
    for epoch in range(3):
        assert sorted(map(id, taken[5 * epoch : 5 * epoch + 5])) == sorted(map(id, seen))
    assert reward.step_pairs(seen, 3, 1, 4) == taken[12:]
    assert [*map(id, taken[:5])] != [*map(id, taken[5:10])]


def test_what_cannot_be(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="held_out"):
        replace(recipe(folder, 1), held_out=0.0)
    with pytest.raises(ConfigError, match="hold a pair"):
        replace(recipe(folder, 1), context=129)
    with pytest.raises(CheckpointError, match="no reward model"):
        RewardModel.load(folder / "init")
