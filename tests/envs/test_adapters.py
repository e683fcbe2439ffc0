"""Our environments under the interfaces of other trainers.

1. What is scored is the answer: reasoning, closed or cut off, and earlier messages are not, in plain text, in chats,
   and in chats that bring their reasoning along.
2. A reward function takes rows that were made here through the columns of a dataset; right answers earn 1, a failed
   scorer gives None and no 0; wrong columns are refused. Ids are read where the texts have lost their special tokens.
3. An episode is one problem, the same for a seed, on its side of the split, and can be answered once.
4. Nothing that a policy is shown holds what scoring needs.
5. Without the other library there is an error that says what to install.
6. Each adapter works with the library it is for, in an environment of its own (slow, and needs the network).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zaya
from tests.envs.tasks import SCRIPTED
from zaya.envs.adapters.episode import Episodes
from zaya.envs.adapters.gymnasium import gymnasium_env
from zaya.envs.adapters.openenv import openenv
from zaya.envs.adapters.trl import reward_function, rows
from zaya.envs.adapters.visible import visible
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem, Stream
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out
from zaya.errors import UsageError

SOURCE = Path(zaya.__file__).parents[1]


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


def assistant(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content, **more}]


@pytest.mark.parametrize(
    ("completion", "in_thinking", "seen"),
    [
        ("7", False, "7"),
        ("<think>5</think>\n\n7", False, "7"),
        ("5</think>7", True, "7"),
        ("5<think>6</think>7", True, "7"),
        ("\\boxed{7}", True, ""),  # cut off while it reasoned
        ("<think>\\boxed{7}", False, ""),
        ("", True, ""),
        (assistant("<think>5</think>7"), False, "7"),
        (assistant("5</think>7"), True, "7"),
        (assistant("\\boxed{7}"), True, ""),
        (assistant("7", reasoning_content="5"), True, "7"),  # the server took the reasoning out
        (assistant("7", reasoning="5"), True, "7"),
        (assistant("\\boxed{7}", reasoning_content=""), True, ""),  # or it did not find its end
        (assistant(None, reasoning_content="\\boxed{7}"), False, ""),
        (assistant([{"type": "text", "text": "7"}, {"type": "image"}, {"type": "text", "text": "8"}]), False, "78"),
        ([*assistant("6"), {"role": "tool", "content": "5"}, *assistant("7")], False, "7"),
        ([*assistant("7"), {"role": "user", "content": "\\boxed{5}"}], False, "7"),
        ([{"role": "user", "content": "\\boxed{5}"}], False, ""),
        ([], False, ""),
    ],
)
def test_what_is_scored(completion: Any, in_thinking: bool, seen: str) -> None:
    assert visible(completion, in_thinking=in_thinking) == seen


def problems(count: int) -> list[Problem]:
    return [ARITHMETIC.sample(seed, 1) for seed in range(count)]


def answer(problem: Problem) -> str:
    return f"\\boxed{{{ARITHMETIC.reference(problem)}}}"


def scripted(text: str) -> Problem:
    return Problem(SCRIPTED.name, f"say {text}", {}, 0, 0)


@pytest.mark.parametrize("chat", [True, False])
def test_rewards(pool: TaskPool, chat: bool) -> None:
    made = problems(4)
    table = rows(made, chat=chat)
    assert json.loads(json.dumps(table)) == table
    texts = [answer(made[0]), answer(made[2]), f"<think>{answer(made[2])}", f"<think>?</think>{answer(made[3])}"]
    completions: list[Any] = [assistant(text) for text in texts] if chat else texts
    columns = {name: [row[name] for row in table] for name in table[0]}
    asked = columns.pop("prompt")
    if chat:
        assert asked[0] == [{"role": "user", "content": made[0].prompt}]
    else:
        assert asked[0] == made[0].prompt
    reward = reward_function(pool, in_thinking=False)
    # trainers hand over much more than we asked for
    found = reward(prompts=asked, completions=completions, completion_ids=[[1]] * 4, trainer_state=None, **columns)
    assert found == [1.0, 0.0, 0.0, 1.0]
    assert reward(asked, completions, **columns) == found
    assert reward.__name__ == "verified"  # what trainers log it as


def test_a_scorer_that_failed_is_no_wrong_answer(pool: TaskPool) -> None:
    made = [scripted("a"), scripted("b"), ARITHMETIC.sample(1, 0)]
    reward = reward_function(pool, in_thinking=False)
    columns = {"problem": [row["problem"] for row in rows(made)]}
    assert reward(completions=["fine", "raise", "nothing"], **columns) == [1.0, None, 0.0]


def test_ids_are_read_where_texts_lost_their_tags(pool: TaskPool) -> None:
    spelled = {1: "\\boxed{0}", 2: "</think>", 4: "<|im_end|>"}
    (problem,) = problems(1)
    spelled[3] = answer(problem)
    columns = {"problem": [problem.to_json()] * 3}
    ids = [[1, 2, 3, 4], [3, 2, 1, 4], [1, 3]]
    without = ["".join(spelled[id] for id in one if id in (1, 3)) for one in ids]  # as TRL decodes them

    def decode(one: Any) -> str:
        return "".join(spelled[id] for id in one)

    assert reward_function(pool, in_thinking=True)(completions=without, completion_ids=ids, **columns) == [0, 0, 0]
    reward = reward_function(pool, in_thinking=True, decode=decode)
    assert reward(completions=without, completion_ids=ids, **columns) == [1, 0, 0]
    with pytest.raises(UsageError, match="no completion_ids"):
        reward(completions=without, **columns)


def test_the_end_of_a_turn_is_no_part_of_the_answer(pool: TaskPool) -> None:
    reward = reward_function(pool, in_thinking=False, decode=lambda ids: "die<|im_end|>" if ids else "")
    # the scripted task scores whatever text it gets 1, and dies of exactly `die`, which is no score
    assert reward(completion_ids=[[1]], problem=[scripted("x").to_json()]) == [None]


def test_wrong_columns(pool: TaskPool) -> None:
    reward = reward_function(pool, in_thinking=False)
    with pytest.raises(UsageError, match="no column 'problem'; it has answer, level"):
        reward(completions=["7"], answer=["7"], level=[1])
    with pytest.raises(UsageError, match="differ in number: 2, 1"):
        reward(completions=["7", "8"], problem=[scripted("x").to_json()])


def episodes(pool: TaskPool, **options: Any) -> Episodes:
    return Episodes("arithmetic", pool, in_thinking=False, **options)


def test_an_episode(pool: TaskPool) -> None:
    mine = episodes(pool, difficulty=1)
    first = mine.reset(seed=4)
    assert first.difficulty == 1
    assert mine.step(answer(first)).correct
    with pytest.raises(UsageError, match="the episode is over"):
        mine.step(answer(first))
    following = [mine.reset() for _ in range(5)]
    assert len({problem.prompt for problem in (first, *following)}) == 6
    assert not mine.step(answer(first)).correct  # of another problem
    assert mine.reset(seed=4) == first
    assert [mine.reset() for _ in range(5)] == following
    assert episodes(pool, difficulty=1).reset(seed=4) == first
    assert mine.reset(seed=5) != first
    assert mine.reset(difficulty=3).difficulty == 3
    with pytest.raises(UsageError, match="the episode is over"):
        episodes(pool).step("7")


def test_episodes_are_on_their_side(pool: TaskPool) -> None:
    for split in ("train", "held_out"):
        mine = episodes(pool, stream=Stream("mine", split, 0.5))
        assert {is_held_out(mine.reset(seed), 0.5) for seed in range(12)} == {split == "held_out"}
    assert episodes(pool, stream=Stream("a")).reset(1) != episodes(pool, stream=Stream("b")).reset(1)


def test_episodes_without_a_seed_differ(pool: TaskPool) -> None:
    assert episodes(pool, difficulty=4).reset() != episodes(pool, difficulty=4).reset()


@pytest.mark.parametrize("make", [gymnasium_env, openenv])
def test_without_the_library(pool: TaskPool, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gymnasium", "openenv.core.env_server"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match="cannot be imported") as caught:
        make("arithmetic", pool, in_thinking=False)
    assert caught.value.hint in ("pip install gymnasium", "pip install openenv")


def test_without_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    from zaya.envs.adapters import verifiers

    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    with pytest.raises(UsageError, match=r"verifiers\.v1 cannot be imported"):
        _ = verifiers.ZayaTaskset
    with pytest.raises(AttributeError, match="Other"):
        _ = verifiers.Other


def run_with(tmp_path: Path, code: str, *packages: str) -> str:
    """Run a script in a new environment that has these packages, and our source beside it. It is removed again:
    pytest keeps directories, and torch takes a gigabyte."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=900)
    script = tmp_path / "script.py"
    script.write_text("import warnings\n" + textwrap.dedent(code))
    done = subprocess.run(
        [python, script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path)]), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    shutil.rmtree(home)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.net
@pytest.mark.slow
def test_gymnasium(tmp_path: Path) -> None:
    code = """
        warnings.simplefilter("error")
        import gymnasium
        from gymnasium.utils.env_checker import check_env
        from zaya.envs.adapters.gymnasium import gymnasium_env
        from zaya.envs.arithmetic import ARITHMETIC
        from zaya.envs.pool import TaskPool

        with TaskPool() as pool:
            env = gymnasium_env("arithmetic", pool, in_thinking=True)
            check_env(env, skip_render_check=True)
            env = gymnasium.wrappers.RecordEpisodeStatistics(env)
            question, info = env.reset(seed=1, options={"difficulty": 2})
            problem = ARITHMETIC.sample(info["seed"], info["difficulty"])
            assert problem.prompt == question and info["difficulty"] == 2
            assert set(info) == {"env", "version", "difficulty", "seed"}
            _, reward, terminated, truncated, info = env.step(f"</think>\\\\boxed{{{problem.meta['answer']}}}")
            assert (reward, terminated, truncated, info["status"]) == (1.0, True, False, "ok"), (reward, info)
            assert info["episode"]["r"] == 1.0
            env.reset(seed=1)
            assert env.step("\\\\boxed{1}")[4]["status"] == "bad_format"
            (tmp := __import__("pathlib").Path("broken.py")).write_text(
                "from zaya.envs.arithmetic import Arithmetic\\n"
                "class Broken(Arithmetic):\\n    name = 'broken:BROKEN'\\n"
                "    def score(self, problem, text): raise RuntimeError\\n"
                "BROKEN = Broken()\\n")
            env = gymnasium_env("broken:BROKEN", pool, in_thinking=False)
            env.reset(seed=1)
            _, reward, terminated, truncated, info = env.step("1")
            assert (reward, terminated, truncated, info["status"]) == (0.0, False, True, "infra")
        print("fine")
    """
    assert run_with(tmp_path, code, "gymnasium").endswith("fine\n")


@pytest.mark.net
@pytest.mark.slow
def test_openenv(tmp_path: Path) -> None:
    code = """
        from openenv.core.env_server import create_fastapi_app
        from starlette.testclient import TestClient
        from zaya.envs.adapters.openenv import openenv
        from zaya.envs.arithmetic import ARITHMETIC
        from zaya.envs.pool import TaskPool

        with TaskPool() as pool:
            adapter = openenv("arithmetic", pool, in_thinking=False)
            app = create_fastapi_app(adapter.environment, adapter.action, adapter.observation, max_concurrent_envs=2)
            client = TestClient(app)
            with client.websocket_connect("/ws") as one, client.websocket_connect("/ws") as other:
                def ask(socket, kind, **data):
                    socket.send_json({"type": kind, "data": data} if kind != "state" else {"type": kind})
                    return socket.receive_json()["data"]

                first = ask(one, "reset", seed=1, difficulty=2)
                second = ask(other, "reset", seed=2)
                state = ask(one, "state")
                problem = ARITHMETIC.sample(state["seed"], 2)
                assert first["observation"]["text"] == problem.prompt != second["observation"]["text"]
                assert not first["done"] and first["reward"] is None
                assert "answer" not in str(state) and "terms" not in str(first)
                text = f"<think>\\\\boxed{{1}}</think>\\\\boxed{{{problem.meta['answer']}}}"
                done = ask(one, "step", text=text)
                assert done["done"] and done["reward"] == 1.0 and done["observation"]["correct"], done
                assert "the episode is over" in ask(one, "step", text=text)["message"]
                wrong = ask(other, "step", text="\\\\boxed{-1}")
                assert wrong["done"] and wrong["reward"] == 0.0 and wrong["observation"]["status"] == "ok"
        print("fine")
    """
    assert run_with(tmp_path, code, "openenv").endswith("fine\n")


@pytest.mark.net
@pytest.mark.slow
def test_verifiers(tmp_path: Path) -> None:
    (tmp_path / "our_tasks.py").write_text(
        'from zaya.envs.adapters.verifiers import ZayaTaskset\n\n__all__ = ["ZayaTaskset"]\n'
    )
    code = """
        import asyncio
        import verifiers.v1 as vf
        from verifiers.v1.utils.loaders import load_taskset, taskset_config_type
        from zaya.envs.arithmetic import ARITHMETIC
        from zaya.envs.base import Problem

        def tasks(**settings):
            config = taskset_config_type("our_tasks").model_validate({"id": "our_tasks", **settings})
            return list(load_taskset(config).take(3))

        def traced(task, **message):
            agent = vf.AgentInfo(config=vf.AgentConfig())
            trace = vf.Trace(task=vf.TraceTask(type="ZayaTask", data=task.data), agent=agent)
            trace.nodes.append(vf.MessageNode(message=vf.AssistantMessage(**message), sampled=True))
            return trace

        async def main():
            task = tasks(difficulties=(2,))[0]
            assert {t.data.prompt for t in tasks(split="train")}.isdisjoint(
                t.data.prompt for t in tasks(split="held_out"))
            assert task.data.prompt == tasks(difficulties=(2,))[0].data.prompt
            assert task.data.prompt != tasks(difficulties=(2,), seed=1)[0].data.prompt
            problem = Problem.from_json(task.data.problem)
            assert problem.prompt == task.data.prompt and problem.difficulty == 2
            assert await task.validate(None) is True
            right = f"\\\\boxed{{{ARITHMETIC.reference(problem)}}}"
            for message, reward in (
                ({"content": right}, 1.0),
                ({"content": "\\\\boxed{-1}"}, 0.0),
                ({"content": f"<think>{right}"}, 0.0),
                ({"content": None, "reasoning_content": right}, 0.0),
                ({"content": right, "reasoning_content": "hm"}, 1.0),
            ):
                trace = traced(task, **message)
                await task.score(trace)
                assert trace.reward == reward, message
            thinker = tasks(difficulties=(2,), task={"in_thinking": True})[0]
            for text, reward in ((right, 0.0), (f"hm</think>{right}", 1.0)):
                trace = traced(thinker, content=text)
                await thinker.score(trace)
                assert trace.reward == reward, text
            gone = Problem("arithmetic", "?", {}, 0, 0, version=99)  # no longer what it was
            broken = task.with_data(problem=gone.to_json())
            trace = traced(broken, content=right)
            try:
                await broken.score(trace)
            except vf.TaskError:
                assert trace.rewards == {"verified": None}
            else:
                raise AssertionError(trace.rewards)

        asyncio.run(main())
        print("fine")
    """
    assert run_with(tmp_path, code, "verifiers").endswith("fine\n")


@pytest.mark.net
@pytest.mark.slow
def test_trl(tmp_path: Path) -> None:
    code = f"""
        import json, torch
        from datasets import Dataset
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        from trl import GRPOConfig, GRPOTrainer
        from zaya.envs.adapters.trl import reward_function, rows
        from zaya.envs.base import Stream
        from zaya.envs.mixture import Mixture, TaskConfig
        from zaya.envs.pool import TaskPool

        tokenizer = PreTrainedTokenizerFast.from_pretrained({str(SOURCE / "zaya" / "micro")!r})
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
        with TaskPool() as pool:
            mixture = Mixture({{"sums": TaskConfig(env="arithmetic")}}, Stream("trl"), pool, seed=0)
            verified = reward_function(pool, in_thinking=True, decode=tokenizer.decode)
            texts, kept = reward_function(pool, in_thinking=True), []

            def as_if_right(completions, completion_ids, problem, **others):
                "Every second completion, as it would reach us if it were right."
                for i in range(0, len(problem), 2):
                    answer = json.loads(problem[i])["meta"]["answer"]
                    text = "hm</think>\\\\boxed{{%d}}<|im_end|>" % answer
                    completion_ids[i] = tokenizer(text, add_special_tokens=False).input_ids
                completions = [[dict(role="assistant", content=tokenizer.decode(ids, skip_special_tokens=True))]
                               for ids in completion_ids]
                assert not any(texts(completions=completions, problem=problem)), "TRL keeps special tokens"
                kept.append(verified(completions=completions, completion_ids=completion_ids, problem=problem, **others))
                return kept[-1]

            trainer = GRPOTrainer(
                model=model, reward_funcs=[verified, as_if_right], processing_class=tokenizer,
                train_dataset=Dataset.from_list(rows(mixture.next(8))),
                args=GRPOConfig(output_dir="out", max_steps=1, per_device_train_batch_size=4, num_generations=4,
                                max_completion_length=8, report_to=[], use_cpu=True, bf16=False, save_strategy="no"))
            trainer.train()
        assert kept == [[1.0, 0.0, 1.0, 0.0]], kept
        log = trainer.state.log_history[0]
        assert log["rewards/verified/mean"] == 0.0 and log["rewards/as_if_right/mean"] == 0.5, log
        print("fine")
    """
    assert "fine\n" in run_with(tmp_path, code, "trl", "torch==2.13.0")
