"""The whole chain in miniature, with the recipes that ship: text, four stages of training, evaluation, a model.

1. A cascade that is stopped between two stages, and in the middle of one, goes on and ends; run again it does nothing.
2. What it ships opens with `zaya.load` and in transformers, with equal logits, and generates; the manifest names the
   recipe and the weights, the card what was measured.
3. Stages that were made with other settings, their own or those before them, are not built upon; what does not decide
   a result may change. A result of other making is not overwritten.
4. A recipe with a misspelt key names the nearest; so do the stages, and the commands where a stage before is missing.
5. Every recipe under recipes/ loads and can be shown before it is carried out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ZayaForCausalLM

import zaya
from tests.tolerances import assert_close
from zaya.cli import main
from zaya.config import from_mapping, load, to_mapping, to_toml
from zaya.core.tensorfile import read_header
from zaya.engine.engine import Engine
from zaya.engine.types import SamplingParams
from zaya.errors import ConfigError, UsageError
from zaya.rl import cascade as chain
from zaya.rl import trainer
from zaya.rl.cascade import MANIFEST, MODEL, Cascade, Stage, dry_run, open_cascade, run_cascade
from zaya.train import loop
from zaya.train.reward import RewardConfig
from zaya.ttc import corpus
from zaya.ttc.corpus import CorpusConfig

RECIPES = Path(__file__).parents[2] / "recipes"
ALONE = {"reward/pairs.toml": CorpusConfig, "reward/train.toml": RewardConfig}
"""Recipes of no cascade."""
MICRO = RECIPES / "micro" / "cascade.toml"

SUMS = '{sums={env="arithmetic",difficulties=[0,1]}}'
CORPUS = "runs/micro/corpus"
OVERRIDES = [
    f"corpus.tasks={SUMS}",
    'corpus.files={pretrain={kind="text",problems=150,slip=0.1},midtrain={kind="dialogue",problems=100},'
    'midtrain-aggregate={kind="aggregation",problems=60,slip=0.1},sft={kind="conversation",problems=80},'
    'sft-aggregate={kind="aggregation",problems=60,slip=0.1}}',
    "corpus.vocabulary=320", 'corpus.library_exclude=["[!j]*"]',
    "pretrain.model={vocab_size=320,max_positions=256,num_layers=2,hidden_size=16,num_heads=2,num_kv_heads=2,"
    "head_dim=4,num_experts=4,expert_size=16,router_size=8}",
    f'pretrain.data={{problems={{kind="text_lines",path="{CORPUS}/pretrain.jsonl"}}}}',
    f'midtrain.data={{dialogues={{kind="conversation_lines",path="{CORPUS}/midtrain.jsonl"}},'
    f'aggregations={{kind="conversation_lines",path="{CORPUS}/midtrain-aggregate.jsonl"}}}}',
    *(f"{stage}.validation.held_out=0.2" for stage in ("pretrain", "midtrain", "sft")),
    "pretrain.schedule={total_tokens=6000}", "pretrain.loader.bins_per_step=4",
    "midtrain.schedule={total_tokens=8000}", "midtrain.loader.bins_per_step=2",
    "sft.schedule={total_tokens=8000}", "sft.loader.bins_per_step=2", "sft.run.eval_every=2",
    f"rl.tasks={SUMS}", "rl.run.steps=2", "rl.run.warmup_steps=0", "rl.run.decay_steps=0",
    "rl.sampling={prompts=2,group_size=4,max_tokens=12,max_rounds=1}",
    f"eval.tasks={SUMS}", "eval.problems=6", "eval.k=2", "eval.max_tokens=12",
    "eval.ttc.micro.rsa={population=2,fan_in=2,rounds=1,think_budget=12,tail_tokens=8,final_budget=20,answer_reserve=8}",
]  # fmt: skip
NAMES = ["corpus", "pretrain", "midtrain", "sft", "rl", "eval"]


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_SAMPLE_TEXTS", 200)
        yield
    torch.set_num_threads(threads)


def opened(root: Path, *more: str) -> Cascade:
    """With these overrides in the place of ours."""
    keys = tuple(override.partition("=")[0] + "=" for override in more)
    return open_cascade(MICRO, [*(o for o in OVERRIDES if not o.startswith(keys or "\0")), *more], root)


def run(cascade: Cascade) -> tuple[Any, list[str]]:
    """What came of it, and the stages that were begun or passed."""
    headings: list[str] = []
    return run_cascade(cascade, lambda _: None, lambda stage: headings.append(stage.name)), headings


@dataclass(frozen=True, slots=True)
class Made:
    root: Path
    result: Any


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A cascade that was interrupted before its second stage of training and in its third."""
    root = tmp_path_factory.mktemp("cascade") / "out"

    def stop(stage: Stage) -> None:
        if stage.name == "midtrain":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cascade(opened(root), lambda _: None, stop)
    assert sorted(p.name for p in root.iterdir()) == ["cascade.json", "corpus", "pretrain"]

    calls, original = count(1), loop.train_step
    with pytest.MonkeyPatch.context() as patch:

        def step(*args: Any, **settings: Any) -> Any:
            number = next(calls)
            if number == first_of_sft + 2:
                signal.raise_signal(signal.SIGINT)
            return original(*args, **settings)

        def begin(stage: Stage) -> None:
            nonlocal first_of_sft
            if stage.name == "sft":
                first_of_sft = next(calls)

        first_of_sft = 10**6
        patch.setattr(loop, "train_step", step)
        assert run_cascade(opened(root), lambda _: None, begin) is None
    assert (root / "midtrain" / "model").is_dir()
    assert not (root / "sft" / "model").exists()
    assert not (root / "rl").exists()

    notices: list[str] = []
    result = run_cascade(opened(root), notices.append, lambda _: None)
    assert result is not None
    assert any(re.fullmatch(r"resuming .*/sft after step \d+", notice) for notice in notices)
    return Made(root, result)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# 1 and 2


def test_run_again_it_does_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("this was done before")

    for place, name in ((loop, "train_step"), (trainer, "update"), (trainer, "roll_out"), (chain, "save")):
        monkeypatch.setattr(place, name, never)
    monkeypatch.setattr(Engine, "complete", never)
    before = contents(made.root)
    result, headings = run(opened(made.root))
    assert result == made.result
    assert headings == NAMES
    assert contents(made.root) == before


def test_what_is_shipped(made: Made) -> None:
    directory = made.root / MODEL
    theirs = ZayaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model, tokenizer = zaya.load(directory, dtype="float32")
    assert tokenizer is not None
    ids = torch.tensor([tokenizer.encode("What is 47 + 38?\nSo \\boxed{85}.")])
    with torch.no_grad():
        assert_close(model(ids), theirs(ids, use_cache=False).logits, "float32")
    header = read_header(directory / "model.safetensors")
    assert {tensor.dtype for name, tensor in header.items() if "balancing_bias" not in name} == {"BF16"}
    stored = zaya.load(directory)[0]
    assert stored.precision == "report"
    # it is the result of reinforcement learning, rounded
    exact = zaya.load(made.root / "rl" / "model", dtype="float32")[0].state_dict()
    for name, tensor in stored.state_dict().items():
        rounded = exact[name] if "balancing_bias" in name else exact[name].bfloat16()
        assert torch.equal(tensor, rounded), name
    engine = Engine(model, tokenizer)
    chat = [{"role": "user", "content": "What is 1 + 1?"}]
    [completion] = engine.generate([chat], SamplingParams(max_tokens=9))
    assert 1 <= len(completion.ids) <= 9
    before, after = (zaya.load(made.root / name / "model", dtype="float32")[0] for name in ("pretrain", "midtrain"))
    assert (before.config.max_positions, after.config.max_positions) == (256, 1024)
    assert after.config.rope_theta == 100_000


def test_manifest_and_card(made: Made, tmp_path: Path) -> None:
    directory = made.root / MODEL
    about = json.loads((directory / MANIFEST).read_text())
    assert about["recipe"] == opened(tmp_path).recipe_digest == open_cascade(MICRO, OVERRIDES).recipe_digest
    assert about["recipe"] != open_cascade(MICRO).recipe_digest
    assert about["recipe"] != opened(tmp_path, "seed=7").recipe_digest
    assert about["weights"] == hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    assert about["data"].keys() == {
        "pretrain/problems", "midtrain/dialogues", "midtrain/aggregations", "sft/problems", "sft/aggregations",
    }  # fmt: skip
    assert about["made_by"]["torch"] == torch.__version__
    card = (directory / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "Context: 1,024 tokens" in card
    assert f"Recipe {about['recipe']}" in card
    for row in made.result.stages:
        assert f"| {row.name} |" in card
    assert [row.name for row in made.result.stages] == ["pretrain", "midtrain", "sft", "rl"]
    assert "| Markovian RSA micro, 1 round |" in card
    assert all(digest in card for digest in about["data"].values())
    assert "None" not in card


# 3


@pytest.mark.parametrize(
    ("override", "directory"),
    [("corpus.seed=3", "corpus"), ("pretrain.optim.lr=0.5", "pretrain"), ("eval.k=3", "eval"), ("seed=3", "corpus")],
)
def test_other_settings_are_refused(made: Made, override: str, directory: str) -> None:
    before = contents(made.root)
    with pytest.raises(ConfigError, match=rf"out/{directory} was made with other settings"):
        run(opened(made.root, override))
    assert contents(made.root) == before


def test_a_stage_is_not_built_on_another_one(made: Made, tmp_path: Path) -> None:
    """The text is gone and would be made anew, otherwise; what was learned from it stands."""
    (made.root / "corpus").rename(tmp_path / "corpus")
    try:
        with pytest.raises(ConfigError, match="out/pretrain was made with other settings"):
            run(opened(made.root, "corpus.seed=3"))
    finally:
        (tmp_path / "corpus").rename(made.root / "corpus")


def test_a_stage_that_was_taken_away_is_made_again(made: Made, tmp_path: Path) -> None:
    """By whatever settings, where nothing after it stands; those that decide no result may change anywhere."""
    taken = [(made.root / name, tmp_path / name) for name in ("eval", MODEL)]
    notes = (made.root / "cascade.json").read_bytes()
    weights = (made.root / MODEL / "model.safetensors").read_bytes()
    for place, aside in taken:
        shutil.copytree(place, aside)
        shutil.rmtree(place)
    try:
        result, _ = run(opened(made.root, "eval.k=1", "sft.run.threads=1", "rl.run.workers=2"))
        assert [row.accuracy.num_values for row in result.stages] == [6] * 4
        assert (made.root / MODEL / "model.safetensors").read_bytes() == weights
        (made.root / MODEL / "made_from").write_text("something else\n")
        with pytest.raises(UsageError, match="shipped holds another model"):
            run(opened(made.root, "eval.k=1"))
    finally:
        for place, aside in taken:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(aside, place)
        (made.root / "cascade.json").write_bytes(notes)


# 4


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("sft.optim.lrr=1", r"sft\.toml: unknown key 'optim\.lrr'", "did you mean optim.lr?"),
        ("corpus.vocabulry=1", r"corpus\.toml: unknown key 'vocabulry'", "did you mean vocabulary?"),
        ("eval.ttc.micro.rsa.populations=1", r"eval\.toml: unknown key 'populations'", "did you mean population?"),
        ("pretain.optim.lr=1", "begins with the name of a stage: 'pretain", "did you mean pretrain?"),
        ("steps=1", "begins with the name of a stage: 'steps=1'", None),
        ("rl.run.steps=0", r"rl\.toml: run\.steps must be at least 1", None),
    ],
)
def test_what_is_misspelt(override: str, message: str, hint: str | None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_cascade(MICRO, [override], tmp_path)
    assert hint is None or caught.value.hint == hint


def test_a_cascade_that_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cascade.toml"
    evaluation = f'[stages.eval]\nkind = "eval"\nrecipe = "{MICRO.parent / "eval.toml"}"\n'
    stage = f'[stages.rl]\nkind = "rl"\nrecipe = "{MICRO.parent / "rl.toml"}"\n{evaluation}'
    for text, message in (
        (f'root = "r"\nship = "rll"\n{stage}', "ship names no stage: 'rll'\nhint: did you mean rl?"),
        (f'root = "r"\nship = "rl"\n{stage}'.replace('kind = "rl"', 'kind = "eval"'), "makes no model: 'rl'"),
        (f'root = "r"\nship = "rl"\n{stage}'.replace("rl.toml", "no.toml"), "cannot read the configuration file"),
        (f'root = "r"\nship = "rl"\n{stage}'.replace('kind = "rl"', 'kind = "rll"'), r"stages\.rl\.kind = 'rll'"),
        (f'root = "r"\nship = "rl"\n{stage}'.removesuffix(evaluation), "no stage evaluates"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            open_cascade(file)
    file.write_text(f'root = "r"\nship = "rl"\n{stage}')
    assert [stage.directory for stage in open_cascade(file).stages] == [Path("r/rl"), Path("r/eval")]


@pytest.mark.parametrize(
    ("command", "recipe", "message"),
    [
        (
            "pretrain",
            "pretrain",
            "error: the tokenizer is not there: runs/micro/corpus/tokenizer\nhint: make it with zaya prepare",
        ),
        ("pretrain", "midtrain", "error: the stage to start from is not there: runs/micro/pretrain has no checkpoint"),
        ("sft", "sft", "error: the stage to start from is not there: runs/micro/midtrain has no checkpoint"),
        ("rl", "rl", "error: the stage to start from is not there: runs/micro/sft has no checkpoint"),
    ],
)
def test_a_stage_without_the_one_before(
    command: str, recipe: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "--config", str(RECIPES / "micro" / f"{recipe}.toml")]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not list(tmp_path.iterdir())


def test_an_empty_corpus(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The tokenizer is there and no text: no file at all, or one without a line."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs" / "micro" / "corpus"
    shutil.copytree(made.root / "corpus" / "tokenizer", place / "tokenizer")
    words = ["pretrain", "--config", str(RECIPES / "micro" / "pretrain.toml"), "--out", "run"]
    words += [override.removeprefix("pretrain.") for override in OVERRIDES if override.startswith("pretrain.")]
    assert main(words) == 2
    assert "error: data.problems, train: there is no such folder: runs/micro/corpus/pretrain.jsonl" in (
        capsys.readouterr().err
    )
    (place / "pretrain.jsonl").touch()
    assert main(words) == 2
    assert "error: data.problems, train: " in capsys.readouterr().err


# 5


def test_every_recipe_loads_and_is_shown() -> None:
    """Those of recipes/eval belong to no cascade; tests/cli/test_eval.py loads them."""
    everything = {path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.toml")}
    recipes = {name for name in everything if not name.startswith("eval/")}
    seen = set()
    for file in RECIPES.rglob("cascade.toml"):
        cascade = open_cascade(file)
        entries = tomllib.loads(file.read_text())["stages"]
        seen |= {file.relative_to(RECIPES).as_posix()}
        seen |= {(file.parent / entry["recipe"]).relative_to(RECIPES).as_posix() for entry in entries.values()}
        lines = "\n".join(dry_run(cascade))
        parts = re.split(r"^# (\w+): zaya \w+, in \S+\n", lines, flags=re.MULTILINE)[1:]
        shown = dict(zip(parts[::2], parts[1::2], strict=True))
        assert list(shown) == [stage.name for stage in cascade.stages] == list(entries)
        for stage in cascade.stages:
            assert shown[stage.name].startswith("#   ")
            assert from_mapping(type(stage.config), tomllib.loads(shown[stage.name])) == stage.config
    for name, kind in ALONE.items():
        config = load(kind, RECIPES / name)
        assert from_mapping(kind, tomllib.loads(to_toml(config))) == config
        seen.add(name)
    assert seen == recipes


def test_another_place_is_the_root_moved(tmp_path: Path) -> None:
    here, there = open_cascade(MICRO), open_cascade(MICRO, (), tmp_path)
    assert here.recipe_digest == there.recipe_digest
    for one, other in zip(here.stages, there.stages, strict=True):
        assert one.digest == other.digest
        assert other.directory == tmp_path / one.name
        assert str(to_mapping(one.config)).replace("runs/micro", str(tmp_path)) == str(to_mapping(other.config))
    assert "runs/micro" not in str([to_mapping(stage.config) for stage in there.stages])
