"""The soak of benchmarks/bench_serve.py in small: a deterministic server in a process of its own, half of whose clients
go in the midst of their answers.

1. What clients get is what the engine says when it is asked one at a time, id by id, whole or as far as it came.
2. When they have gone nothing more is drawn for them but what is under way, nothing is left of their requests, and the
   server stops as it should.
"""

from __future__ import annotations

import pytest

from benchmarks.soak import soak


@pytest.mark.slow
def test_a_soak() -> None:
    found = soak(8, 3.0, ["--threads", "1"], shared=16)
    assert found["whole"] > 5
    assert found["left"] > 5
    assert (found["wrong"], found["broken"], found["refused"]) == (0, 0, 0)
    assert found["retries"] > 0
    assert found["leaks"] == {}
    assert found["drawn_for_nobody"] < 0.4
    assert found["exit_code"] == 0
    assert found["metrics"]['kv_cache_usage_perc{model_name="zaya-micro"}'] == 0
