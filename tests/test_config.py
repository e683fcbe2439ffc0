"""The configuration reader: what it accepts, what it refuses and in which words, and that what it writes it reads."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.config import describe, from_mapping, load, to_mapping, to_toml
from zaya.errors import ConfigError
from zaya.model.config import PRESETS, ModelConfig


class Rule(Enum):
    MUON = "muon"
    ADAMW = "adamw"


@dataclass(frozen=True, kw_only=True, slots=True)
class Optim:
    lr: float = 3e-4
    """Peak learning rate, reached at
    the end of warmup."""
    steps: int = 10
    nesterov: bool = True
    rule: Rule = Rule.MUON
    """Which update."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    path: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    name: str
    """What the run is called."""
    mode: Literal["fast", "exact"] = "fast"
    level: Literal[1, 2] = 1
    limit: int | None = None
    note: str | None = None
    clip: float | None = 1.0
    port: int | str = 0
    betas: tuple[float, float] = (0.9, 0.95)
    layers: tuple[int, ...] = ()
    mix: dict[str, float] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    optim: Optim = Optim()
    slow_optim: Optim = Optim(lr=1e-5)


def run(**values: object) -> Run:
    return from_mapping(Run, {"name": "r", **values})


def message(*overrides: str, **values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Run, overrides=["name=r", *overrides]) if overrides else run(**values)
    return str(caught.value)


def test_defaults_are_the_dataclass_own():
    assert run() == Run(name="r")
    assert load(ModelConfig) == ModelConfig()


def test_nested_values_leave_their_neighbours_alone():
    assert run(optim={"lr": 1}) == Run(name="r", optim=Optim(lr=1.0))
    assert run(slow_optim={"steps": 3}) == Run(name="r", slow_optim=Optim(lr=1e-5, steps=3))


def test_an_override_replaces_the_table_of_the_file(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text('name = "r"\n[slow_optim]\nlr = 1.0\nsteps = 3\n[mix]\nweb = 1.0\n')
    got = load(Run, file, ["slow_optim={steps=4}", "mix={code=2.0}"])
    assert got == Run(name="r", slow_optim=Optim(lr=1e-5, steps=4), mix={"code": 2.0})


def test_base_supplies_what_is_not_given():
    base = Run(name="b", optim=Optim(steps=7))
    assert load(Run, overrides=["optim.lr=1.0"], base=base) == Run(name="b", optim=Optim(steps=7, lr=1.0))


def test_an_int_is_widened_to_a_float_and_nothing_else_is_converted():
    assert isinstance(run(optim={"lr": 1}).optim.lr, float)
    assert message(optim={"steps": 1.0}) == "optim.steps = 1.0 is a float; expected int"
    assert message(optim={"steps": True}) == "optim.steps = True is a bool; expected int"
    assert message(optim={"lr": True}) == "optim.lr = True is a bool; expected float"
    assert message(optim={"nesterov": 1}) == "optim.nesterov = 1 is an int; expected bool"
    assert message(level=True) == "level = True is not allowed; expected 1 | 2"
    assert "too large" in message(optim={"lr": 10**400})


def test_wrong_types_say_what_was_expected():
    assert (
        message(optim={"lr": "3e-4"}) == "optim.lr = '3e-4' is a str; expected float\nhint: TOML numbers have no quotes"
    )
    assert message("optim.nesterov=True").endswith("hint: TOML writes true, in small letters and without quotes")
    assert message("optim.lr=fast") == "optim.lr = 'fast' is a str; expected float"
    assert message(limit="many") == "limit = 'many' is a str; expected int"
    assert message(port=1.5) == "port = 1.5 is a float; expected int | str"
    assert message(mode="quick") == "mode = 'quick' is not allowed; expected 'fast' | 'exact'"
    assert message(optim={"rule": "sgd"}) == "optim.rule = 'sgd' is not allowed; expected 'muon' | 'adamw'"
    assert message(optim=3) == "optim = 3 is an int; expected table"
    assert message(layers=3) == "layers = 3 is an int; expected tuple[int, ...]"
    assert message(layers=[1, "2"]).startswith("layers[1] = '2' is a str; expected int")
    assert message(betas=[0.9]) == "betas holds 2 values; 1 given: [0.9]"
    assert message(mix={"web": "a"}) == "mix.web = 'a' is a str; expected float"
    assert message(mix={"": 1.0}) == "mix has an empty key"
    assert message(sources=[{"weight": 1.0}]) == "required and not given: sources[0].path"


def test_unknown_keys_name_the_nearest():
    assert message(optim={"lrr": 1.0}) == "unknown key 'optim.lrr'\nhint: did you mean optim.lr?"
    assert message(nmae="x") == "unknown key 'nmae'\nhint: did you mean name?"
    assert "there are optim.lr, optim.nesterov" in message(optim={"zzzzzzz": 1.0})


def test_missing_values_are_named():
    with pytest.raises(ConfigError, match="required and not given: name"):
        load(Run)


def test_overrides_are_toml_and_bare_words_are_strings():
    got = load(
        Run,
        overrides=[
            "name=warm", "optim.lr=1e-3", "optim.nesterov=false", "layers=[1, 2]", 'mode="exact"', "limit=5",
            "clip=none", "mix.web=1", "mix.code=2.5", "optim.rule=adamw", "port=auto", 'sources=[{path="a"}]',
        ],
    )  # fmt: skip
    assert got == Run(
        name="warm", optim=Optim(lr=1e-3, nesterov=False, rule=Rule.ADAMW), layers=(1, 2), mode="exact", limit=5,
        clip=None, mix={"web": 1.0, "code": 2.5}, port="auto", sources=(Source(path="a"),),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["2026", "true", "1e5", "2026-11-22", "a = b", "x y", "[1]", "a\nb = 2", ""])
def test_a_string_field_takes_the_text_as_typed(text: str):
    assert load(Run, overrides=[f"name={text}"]).name == text


def test_a_quoted_string_loses_its_quotes():
    assert load(Run, overrides=['name="2026"', "note='none at all'"]).note == "none at all"
    assert load(Run, overrides=['name="2026"']).name == "2026"


@pytest.mark.parametrize("bad", ["name", "=1", "optim..lr=1", ".lr=1", "optim.=1", ""])
def test_overrides_without_a_proper_key_are_refused(bad: str):
    assert "an override reads key=value" in message(bad)


def test_one_key_is_overridden_once():
    assert message("limit=1", "limit=2") == "limit is overridden twice\nhint: the other override is limit=..."
    assert "overridden twice" in message("optim={lr=1.0}", "optim.lr=2.0")
    assert "overridden twice" in message("optim.lr=2.0", "optim={lr=1.0}")
    # a common beginning of two names is not a common key
    assert load(Run, overrides=["name=a", "note=b"]).note == "b"


def test_overrides_win_over_the_file(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text('name = "file"\n[optim]\nlr = 1e-5\nsteps = 3\n')
    assert load(Run, file, ["optim.steps=4"]) == Run(name="file", optim=Optim(lr=1e-5, steps=4))
    with pytest.raises(ConfigError, match="name is a str, not a table"):
        load(Run, file, ["name.first=1"])


def test_unreadable_files_are_the_users_errors(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*gone\.toml"):
        load(Run, tmp_path / "gone.toml")
    file = tmp_path / "bad.toml"
    file.write_text('name = "a"\nname = "b"\n')
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML: .*line 2"):
        load(Run, file)
    file.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(Run, file)


def test_describe_lists_every_leaf_with_its_help():
    rows = {row.key: row for row in describe(Run)}
    assert list(rows)[:2] == ["name", "mode"]
    assert rows["name"].default is None
    assert rows["name"].help == "What the run is called."
    assert rows["optim.lr"].help == "Peak learning rate, reached at the end of warmup."
    assert rows["optim.rule"].type == "'muon' | 'adamw'"
    assert rows["optim.rule"].default == '"muon"'
    assert rows["limit"].type == "int | none"
    assert rows["limit"].default == '"none"'
    assert rows["slow_optim.lr"].default == "1e-05"
    assert rows["optim.steps"].help == ""


def test_every_setting_of_the_model_has_a_help_text():
    assert [row.key for row in describe(ModelConfig) if not row.help] == []


def test_presets_round_trip(tmp_path: Path):
    for config in PRESETS.values():
        (tmp_path / "config.toml").write_text(to_toml(config))
        assert load(ModelConfig, tmp_path / "config.toml") == config


# TOML text cannot hold lone surrogates; "none" is the word for None.
texts = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: text != "none")
numbers = st.floats(allow_nan=False)
optims = st.builds(Optim, lr=numbers, steps=st.integers(), nesterov=st.booleans(), rule=st.sampled_from(Rule))
runs = st.builds(
    Run,
    name=texts, mode=st.sampled_from(["fast", "exact"]), level=st.sampled_from([1, 2]), limit=st.none() | st.integers(),
    note=st.none() | texts, clip=st.none() | numbers, port=st.integers() | texts, betas=st.tuples(numbers, numbers),
    layers=st.lists(st.integers()).map(tuple), mix=st.dictionaries(texts.filter(bool), numbers),
    sources=st.lists(st.builds(Source, path=texts, weight=numbers)).map(tuple), optim=optims,
)  # fmt: skip


@given(runs)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, config: Run):
    assert from_mapping(Run, to_mapping(config)) == config
    file = tmp_path_factory.getbasetemp() / "round_trip.toml"
    file.write_text(to_toml(config), encoding="utf-8", newline="")
    back = load(Run, file)
    assert back == config
    assert math.copysign(1, back.optim.lr) == math.copysign(1, config.optim.lr)


def test_a_class_without_source_has_no_help():
    code = (
        "from dataclasses import make_dataclass; from zaya.config import describe;"
        "print([r.help for r in describe(make_dataclass('A', [('x', int, 1)]))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "['']\n"
