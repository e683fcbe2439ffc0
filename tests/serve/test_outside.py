"""Programs of others against the server, each in an environment of its own (slow, and needs the network).

1. schemathesis reads the document and sends what it allows and what it does not: no answer is a mistake of ours or
   other than the document says.
2. lm-eval asks through chats and gets the answers; repeated, they differ where the server does not take its one seed.
3. Its log-likelihoods, from ids that the server's tokenizer gave it, are the engine's.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serve.fakes import Typist, running
from zaya.engine.engine import Engine
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer

pytestmark = [pytest.mark.net, pytest.mark.slow]

SCHEMATHESIS = "schemathesis==4.32.5"
LM_EVAL = "lm_eval[api]==0.4.13"

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "negative_data_rejection", "unsupported_method",
)  # fmt: skip
"""Those that ask whether all that the document allows is accepted are left out: what fits into a context, or which
messages may follow each other, no schema says."""


@contextmanager
def installed(home: Path, *packages: str) -> Iterator[Path]:
    """The programs of packages. They are removed again: pytest keeps directories."""
    venv.create(home, with_pip=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", *packages], check=True, timeout=900)
    yield programs
    shutil.rmtree(home)


def output_of(command: list[Any], where: Path) -> str:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(where / "hf"), "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        command, cwd=where, env={**os.environ, **offline}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


# ----- 1


def test_schemathesis(tmp_path: Path) -> None:
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=160), precision="float32", seed=3)
    with (
        installed(tmp_path / "venv", SCHEMATHESIS) as programs,
        Engine(model, byte_tokenizer(), max_batch=8, pages=200) as engine,
        running(engine, byte_tokenizer(), max_completions=4) as server,
    ):
        output_of(
            [programs / "st", "run", f"{server.url}/openapi.json", "--checks", ",".join(CHECKS),
             "--max-examples", "100", "--seed", "1", "--request-timeout", "20", "--no-color"],
            tmp_path,
        )  # fmt: skip
        assert [line for line in server.log if line["status"] >= 500 or "error" in line] == []
        assert len(server.log) > 500


# ----- 2, 3


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(tmp_path_factory.mktemp("lm_eval") / "venv", LM_EVAL) as programs:
        yield programs / "lm-eval"


def evaluated(program: Path, where: Path, task: dict[str, Any], rows: list[dict[str, Any]], *options: str) -> Any:
    """The results of a task over rows, and its samples."""
    (where / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(where / "rows.jsonl")}}}
    # what is JSON is YAML as well
    (where / "task.yaml").write_text(json.dumps({"task": "mine", **data, "test_split": "test", **task}))
    output_of(
        [program, "run", "--tasks", "mine", "--include_path", where, "--output_path", where / "out", "--log_samples",
         *options],
        where,
    )  # fmt: skip
    [results] = (where / "out").rglob("results_*.json")
    [samples] = (where / "out").rglob("samples_*.jsonl")
    lines = samples.read_text("utf-8").splitlines()
    return json.loads(results.read_text("utf-8"))["results"]["mine"], [json.loads(line) for line in lines]


def sums(prompt: str, seed: int, index: int) -> str:
    a, b = re.findall(r"(\d+) \+ (\d+)", prompt)[-1]
    return f"let me see {seed}\n</think>\n\n{int(a) + int(b)}"


@pytest.mark.parametrize("ignore", [False, True])
def test_lm_eval_chats(lm_eval: Path, tmp_path: Path, ignore: bool) -> None:
    task = {
        "output_type": "generate_until", "doc_to_text": "What is {{a}} + {{b}}?", "doc_to_target": "{{a + b}}",
        "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 100, "temperature": 1.0}, "repeats": 3,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    rows = [{"a": a, "b": 5} for a in range(4)]
    typist = Typist(sums)
    with running(typist, ignore_client_seed=ignore) as server:
        results, samples = evaluated(
            lm_eval, tmp_path, task, rows, "--model", "local-chat-completions", "--apply_chat_template",
            "--model_args", f"model=m,base_url={server.url}/v1/chat/completions,num_concurrent=3",
        )  # fmt: skip
    assert (results["exact_match,none"], len(samples)) == (1.0, 4)
    assert len(typist.requests) == 12
    assert len({request.seed for request in typist.requests}) == (12 if ignore else 1)


def test_lm_eval_log_likelihoods(lm_eval: Path, tmp_path: Path) -> None:
    task = {
        "output_type": "multiple_choice", "doc_to_text": "<bos>{{question}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": 0, "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    rows = [{"question": f"Which {i}?", "choices": ["this", "that one", "neither"]} for i in range(3)]
    tokenizer = byte_tokenizer()
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=400), precision="float32", seed=3)
    with Engine(model, tokenizer, max_batch=8, pages=400) as engine, running(engine, tokenizer) as server:
        _, samples = evaluated(
            lm_eval, tmp_path, task, rows, "--model", "local-completions", "--model_args",
            f"model=m,base_url={server.url}/v1/completions,tokenizer_backend=remote,max_length=400",
        )  # fmt: skip
        assert len(samples) == 3
        for sample in samples:
            row = sample["doc"]
            for choice, [[found, _]] in zip(row["choices"], sample["resps"], strict=True):
                ids = tokenizer.encode(row["question"] + " " + choice)
                count = len(ids) - len(tokenizer.encode(row["question"]))
                expected = float(engine.score(ids).logprobs[-count:].sum())
                assert math.isclose(float(found), expected, rel_tol=1e-4), (row, choice)
