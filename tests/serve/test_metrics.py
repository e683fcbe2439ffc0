"""What the server tells Prometheus.

1. Every name that is promised is there, with the prefix that was asked for, and is read by Prometheus' own parser.
2. Tokens, requests and their ends are counted as the answers say: n completions are n requests, a prompt is one.
3. While it runs, a request is seen, and so is what it has drawn; counters never fall.
4. A client that goes is an abort, a failure of ours is an error.
5. Times are observed once for each request, and between the tokens of streams.
6. Every metric that the dashboard shows exists.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.fakes import Running, Typist, eventually, running
from tests.serve.test_errors import Broken
from zaya.engine.engine import Engine
from zaya.errors import CompletionError, UsageError
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.serve.limits import Limits
from zaya.serve.served import Served
from zaya.text import byte_tokenizer

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
ASK = {"messages": [{"role": "user", "content": "?"}]}
DASHBOARD = Path(__file__).parents[2] / "docs" / "guides" / "grafana.json"


def typist(**options: Any) -> Typist:
    return Typist(lambda *_: "a\n</think>\n\nb", **options)


def values(server: Running) -> dict[str, float]:
    """Each sample by its name, with the label beside the model's where it has one."""
    connection = server.connection()
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/plain; version=1.0.0; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.read().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model_name") == server.served.name
            found[sample.name + "".join(f"/{value}" for value in labels.values())] = sample.value
    connection.close()
    return found


def dashboard_names() -> set[str]:
    """The metrics that its panels and its list of models ask for."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    assert all("$model_name" in expression for expression in asked if not expression.startswith("label_values"))
    return {name for expression in asked for name in re.findall(r"zaya:\w+", expression)}


# ----- 1, 6


ALWAYS = {
    "num_requests_running", "prompt_tokens_total", "prompt_tokens_cached_total", "generation_tokens_total",
    "prefix_cache_queries_total", "prefix_cache_hits_total", "request_success_total/stop",
    "request_success_total/length", "request_success_total/abort", "request_success_total/error",
    *(f"{name}_{part}" for part in ("count", "sum", "bucket/+Inf") for name in (
        "time_to_first_token_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
        "e2e_request_latency_seconds", "request_prompt_tokens", "request_generation_tokens",
    )),
}  # fmt: skip
OF_AN_ENGINE = {
    "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total", "spec_decode_num_draft_tokens_total",
    "spec_decode_num_accepted_tokens_total",
}  # fmt: skip


def test_the_engine_in_this_process() -> None:
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=2000), precision="float32", seed=3)
    with (
        Engine(model, byte_tokenizer(), max_batch=2, pages=200) as engine,
        running(engine, byte_tokenizer(), max_prompt_tokens=400) as server,
    ):
        assert {f"zaya:{name}" for name in ALWAYS | OF_AN_ENGINE} <= values(server).keys()
        assert values(server)["zaya:kv_cache_usage_perc"] == 0
        shown = dashboard_names()
        assert len(shown) >= 15
        assert shown <= {name.partition("/")[0] for name in values(server)}
        connection = server.connection()
        body = {"prompt": [7] * 320, "max_tokens": 1500, "ignore_eos": True, "n": 3, "cache_salt": "x"}
        connection.request("POST", RAW, json.dumps(body), {"Content-Type": "application/json"})
        assert eventually(lambda: values(server)["zaya:num_requests_running"] == 2)
        now = values(server)
        assert now["zaya:num_requests_waiting"] == 1
        assert 10 / 200 <= now["zaya:kv_cache_usage_perc"] <= 0.6
        connection.close()
        assert eventually(lambda: values(server)["zaya:num_requests_running"] == 0)
        assert eventually(lambda: values(server)["zaya:request_success_total/abort"] == 3)
        # what only the prefix cache holds is to be had
        assert engine.stats.pages_used > 0
        assert values(server)["zaya:kv_cache_usage_perc"] == 0


@pytest.mark.parametrize("prefix", ["vllm:", "a_b:"])
def test_another_prefix(prefix: str) -> None:
    served = Served(typist(), byte_tokenizer(), "m", metrics_prefix=prefix)
    names = re.findall(r"^# TYPE (\S+)", served.metrics.text().decode(), re.MULTILINE)
    assert names
    assert all(name.startswith(prefix) for name in names)


@pytest.mark.parametrize("prefix", ["1a", "a b", "a-b", "ä"])
def test_a_prefix_that_is_none(prefix: str) -> None:
    with pytest.raises(UsageError, match="a prefix of metrics has letters"):
        Served(typist(), byte_tokenizer(), "m", Limits(), metrics_prefix=prefix)


# ----- 2, 5


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_counted(stream: bool) -> None:
    with running(typist()) as server:
        usages = []
        asked = [
            (CHAT, {**ASK, "n": 2}),
            (CHAT, {**ASK, "max_tokens": 3}),
            (RAW, {"prompt": ["hi", "hello"], "max_tokens": 5}),
        ]
        for path, body in asked:
            if stream:
                usages.append(server.events(path, {**body, "stream_options": {"include_usage": True}})[-1]["usage"])
            else:
                usages.append(server.send(path, body)[1]["usage"])
        assert server.send(CHAT, {**ASK, "temperature": -1})[0] == 400
        assert eventually(lambda: not server.served.under_way)
        now = {name.removeprefix("zaya:"): value for name, value in values(server).items()}
    drawn = sum(usage["completion_tokens"] for usage in usages)
    prompts = sum(usage["prompt_tokens"] for usage in usages)
    assert now["generation_tokens_total"] == now["request_generation_tokens_sum"] == drawn
    assert now["prompt_tokens_total"] == now["request_prompt_tokens_sum"] == prompts
    assert [now[f"request_success_total/{why}"] for why in ("stop", "length", "abort", "error")] == [2, 3, 0, 0]
    # prompts: one chat for two, one chat, two texts; of each the typist knew three tokens
    assert now["prompt_tokens_cached_total"] == 4 * 3
    assert now["prefix_cache_hits_total"] == 5 * 3
    assert now["prefix_cache_queries_total"] == prompts + usages[0]["prompt_tokens"]
    assert now["request_generation_tokens_count"] == now["request_time_per_output_token_seconds_count"] == 5
    assert now["time_to_first_token_seconds_count"] == now["request_prompt_tokens_count"] == 4
    assert now["e2e_request_latency_seconds_count"] == 4
    assert 0 < now["time_to_first_token_seconds_sum"] <= now["e2e_request_latency_seconds_sum"]
    assert now["inter_token_latency_seconds_count"] <= (drawn - 5 if stream else 0)


def test_times_between_tokens() -> None:
    typist = Typist(lambda *_: "x" * 100, hold_after=4)
    with running(typist) as server:
        connection = server.connection()
        body = {"prompt": "hi", "max_tokens": 10, "stream": True}
        connection.request("POST", RAW, json.dumps(body), {"Content-Type": "application/json"})
        answer, begun = connection.getresponse(), time.monotonic()
        text = ""
        while len(text) < 4:  # as many pieces as there happen to be
            if (line := answer.readline().decode().removeprefix("data: ")).startswith("{"):
                text += json.loads(line)["choices"][0]["text"]
        before = values(server)
        time.sleep(0.03)
        typist.go_on.set()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert eventually(lambda: not server.served.under_way)
        now, passed = values(server), time.monotonic() - begun
    name = "zaya:inter_token_latency_seconds"
    assert now[f"{name}_count"] - before[f"{name}_count"] == 6
    assert 0.03 <= now[f"{name}_sum"] - before[f"{name}_sum"] <= passed
    assert 0.03 <= 9 * now["zaya:request_time_per_output_token_seconds_sum"] <= passed
    assert now["zaya:time_to_first_token_seconds_sum"] <= passed


# ----- 3, 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_under_way(stream: bool) -> None:
    typist = Typist(lambda *_: "x" * 100, hold_after=40)
    with running(typist) as server:
        connection = server.connection()
        body = {"prompt": [7] * 10, "max_tokens": 100, "stream": stream}
        connection.request("POST", RAW, json.dumps(body), {"Content-Type": "application/json"})
        assert eventually(lambda: typist.typed >= 40)
        now = values(server)
        assert (now["zaya:num_requests_running"], now["zaya:generation_tokens_total"]) == (1, 40)
        assert now["zaya:prompt_tokens_total"] == 10
        connection.sock.close()
        assert eventually(lambda: values(server)["zaya:request_success_total/abort"] == 1)
        after = values(server)
    assert (after["zaya:num_requests_running"], after["zaya:prompt_tokens_total"]) == (0, 10)
    assert 40 <= after["zaya:generation_tokens_total"] <= 41
    assert after["zaya:e2e_request_latency_seconds_count"] == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("x"), CompletionError("x", kind="broken_off")])
def test_a_failure(error: Exception, stream: bool) -> None:
    with running(Broken(error, at_once=False)) as server:
        server.events(CHAT, ASK) if stream else server.send(CHAT, ASK)
        assert eventually(lambda: values(server)["zaya:request_success_total/error"] == 1)


def test_a_deadline() -> None:
    with running(typist(hold_after=2), deadline_s=0.1) as server:
        assert server.send(CHAT, ASK)[0] == 504
        assert values(server)["zaya:request_success_total/abort"] == 1
