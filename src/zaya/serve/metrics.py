"""What the server tells whoever watches it: /metrics, in the words of Prometheus.

Names and meanings are vLLM's (0.33) behind a prefix of our own, which `--metrics-prefix vllm:` makes theirs, so that
dashboards made for it find what they look for. What the engine counts is asked for when somebody looks; what clients
live through is observed when a request ends, and between the pieces of a stream.

A request of n completions is n requests here, as it is there; its prompt is read, and counted, once.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from zaya.engine.types import Completer, FinishReason, Handle, Request
from zaya.errors import UsageError

PREFIX = "zaya:"

_MODEL = "model_name"
_PREFIX = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5)
_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CANCELLED: "abort"}


def check_prefix(prefix: str) -> None:
    """Raises UsageError for one that no name can have."""
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"a prefix of metrics has letters, digits, _ and :, and no digit first: {prefix!r}")


class Metrics:
    """Of one model. Observed and read in the event loop."""

    def __init__(self, model: str, completer: Completer, prefix: str = PREFIX) -> None:
        """Raises UsageError for a prefix that no name can have."""
        check_prefix(prefix)
        self._registry = CollectorRegistry()

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            found = Histogram(prefix + name, help, [_MODEL], buckets=buckets, registry=self._registry)
            return found.labels(model)

        def counter(name: str, help: str) -> Counter:
            return Counter(prefix + name, help, [_MODEL], registry=self._registry).labels(model)

        self._first = histogram("time_to_first_token_seconds", "From a request to its first token.", _SECONDS)
        self._each = histogram(
            "request_time_per_output_token_seconds", "Behind the first token, the mean of a request.", _SECONDS
        )
        self._whole = histogram("e2e_request_latency_seconds", "From a request to the end of its answer.", _SECONDS)
        self._prompt_sizes = histogram("request_prompt_tokens", "Tokens of a prompt.", _TOKENS)
        self._answer_sizes = histogram("request_generation_tokens", "Tokens drawn for a completion.", _TOKENS)
        self._prompts = counter("prompt_tokens", "Tokens of prompts.")
        self._cached = counter("prompt_tokens_cached", "Those of them that were known already.")
        self._queries = counter("prefix_cache_queries", "Tokens that were looked up in the prefix cache.")
        self._hits = counter("prefix_cache_hits", "Those of them that were found.")
        help = (
            "Completions that have ended: stop, length, abort (its client, its deadline or the server), error (ours)."
        )
        ended = Counter(prefix + "request_success", help, [_MODEL, "finished_reason"], registry=self._registry)
        # from the beginning, so that a rate is known as soon as there is one
        self._ended = {reason: ended.labels(model, reason) for reason in (*_REASONS.values(), "error")}
        self._under_way: dict[Handle, tuple[Request, float]] = {}
        """With the time when each came."""
        self._live = _Live(model, completer, self._under_way, prefix)
        self._registry.register(self._live)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def gap(self, seconds: float, tokens: int) -> None:
        """So many tokens came so long after the one before them."""
        self._live.gaps[bisect_left(_SECONDS, seconds / tokens)] += tokens
        self._live.gap_seconds += seconds

    def begin(self, request: Request, handle: Handle, begun: float) -> None:
        """A completer has got a request, which came at the time `begun`."""
        self._under_way[handle] = (request, begun)
        prompt = len(request.prompt_ids or ())
        self._prompts.inc(prompt)
        self._prompt_sizes.observe(prompt)

    def end(self, handle: Handle) -> None:
        """Nothing more is wanted of it, before it is cancelled."""
        request, begun = self._under_way.pop(handle)
        now = time.monotonic()
        self._live.drawn += handle.drawn
        if handle.first_at is not None:
            self._first.observe(max(handle.first_at - begun, 0))
        if not handle.is_done:
            self._ended["abort"].inc(request.n)
            return
        try:
            completions = handle.completed()
        except Exception:  # told to its client already
            completions = []
        self._ended["error"].inc(request.n - len(completions))
        for completion in completions:
            self._ended[_REASONS[completion.finish_reason]].inc()
            self._queries.inc(completion.prompt_tokens)
            self._hits.inc(completion.cached_tokens)
            self._answer_sizes.observe(completion.generated_tokens)
            if handle.first_at is not None and completion.generated_tokens > 1:
                self._each.observe((now - handle.first_at) / (completion.generated_tokens - 1))
        if completions:
            self._cached.inc(min(completion.cached_tokens for completion in completions))
            self._whole.observe(now - begun)


class _Live(Collector):
    """What is so at the moment when somebody asks."""

    def __init__(
        self, model: str, completer: Completer, under_way: Mapping[Handle, tuple[Request, float]], prefix: str
    ) -> None:
        self._model = model
        self._completer = completer
        self._under_way = under_way
        self._prefix = prefix
        self.drawn = 0
        """Tokens of the requests that have ended."""
        self.gaps = [0] * (len(_SECONDS) + 1)
        """Tokens by the time since the one before, in the buckets of `_SECONDS`, and of longer ones. Counted here
        because the library's histogram takes one at a time, which cost a stream more than its JSON."""
        self.gap_seconds = 0.0

    def collect(self) -> Iterator[Metric]:
        drawn = self.drawn + sum(handle.drawn for handle in self._under_way)
        yield self._counter("generation_tokens", "Tokens drawn.", drawn)
        yield self._between_tokens()
        stats: Any = getattr(self._completer, "stats", None)
        if stats is None:  # it does not say which of them wait
            running = sum(request.n for request, _ in self._under_way.values())
            yield self._gauge("num_requests_running", "Completions that are drawn.", running)
            return
        yield self._gauge("num_requests_running", "Completions that are drawn.", stats.running)
        yield self._gauge("num_requests_waiting", "Completions that wait for their turn.", stats.waiting)
        total = stats.pages_used + stats.pages_free
        used = (total - stats.pages_reclaimable) / max(total, 1)  # replicas that are all dead have none
        yield self._gauge("kv_cache_usage_perc", "Part of the pages that is in use, from 0 to 1.", used)
        yield self._counter("num_preemptions", "Sequences that lost their pages and read again.", stats.preemptions)
        drafts = "Tokens that were guessed ahead."
        yield self._counter("spec_decode_num_draft_tokens", drafts, stats.drafts_proposed)
        yield self._counter("spec_decode_num_accepted_tokens", "Those that were right.", stats.drafts_accepted)

    def _between_tokens(self) -> Metric:
        help = "Between the tokens of a stream, as they are handed out."
        family = HistogramMetricFamily(self._prefix + "inter_token_latency_seconds", help, labels=[_MODEL])
        bounds = [*map(floatToGoString, _SECONDS), "+Inf"]
        family.add_metric([self._model], [*zip(bounds, accumulate(self.gaps), strict=True)], self.gap_seconds)
        return family

    def _gauge(self, name: str, help: str, value: float) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, help, labels=[_MODEL])
        family.add_metric([self._model], value)
        return family

    def _counter(self, name: str, help: str, value: float) -> Metric:
        family = CounterMetricFamily(self._prefix + name, help, labels=[_MODEL])
        family.add_metric([self._model], value)
        return family
