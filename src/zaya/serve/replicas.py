"""Replicas that Ray Serve keeps alive on this machine.

    with started(spec, 2, max_pending=1024) as links, ReplicaCompleter(links) as completer:
        completer.wait()

Each replica is an application of its own, with one process (`serve.replica.Replica`): which of them gets a request is
for `serve.fleet` to say, which knows what each has read. Ray Serve starts another process where one has died or does
not answer its checks, and gives accelerators away, one each. Nothing of Ray's is reached over a network, its ports ask
for a token all the same, and it reports to nobody. When the block is left, or this process dies, all of it ends.

The one file that imports Ray, when it is needed. Imports no torch.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zaya.engine.types import Request
from zaya.errors import UsageError
from zaya.serve.lives import Link
from zaya.serve.replica import EngineSpec, Replica

_OBJECT_STORE_BYTES = 80 << 20
"""Ray's least is 75 MB. Messages larger than 100 kB go through it, one at a time."""
_CHECK_PERIOD_S = 2.0
"""How soon Ray Serve notices that a process is gone. Those who wait for it know at once (`serve.lives`)."""
_CHECK_TIMEOUT_S = 10.0
"""One that lets three of them pass is ended, and started again."""
_SPARE_CALLS = 64


@contextmanager
def started(spec: EngineSpec, count: int, *, max_pending: int) -> Iterator[Sequence[Link]]:
    """So many replicas, and all that Ray needs for them. `max_pending` completions are under way in one at most.
    Raises UsageError where there are fewer accelerators."""
    directory = tempfile.mkdtemp(prefix="zaya-")
    os.environ.update(_environment())  # read when Ray is imported
    import ray  # type: ignore[import-not-found]
    from ray import serve  # type: ignore[import-not-found]

    # `serve.fleet` says what is to be said. Of the second, deaths of workers on standard output, Ray has no setting.
    logging.getLogger("ray.serve").disabled = True
    vars(ray._private.worker)["_worker_logs_enabled"] = False
    try:
        # Ray's own processes do not see Ctrl-C: they end when this one says so, behind what is under way
        ray.init(
            address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL,
            object_store_memory=_OBJECT_STORE_BYTES, _temp_dir=directory,
        )  # fmt: skip
        accelerators = 0 if spec.device == "cpu" else 1
        there = int(ray.cluster_resources().get("GPU", 0))
        if accelerators * count > there:
            raise UsageError(f"{count} replicas need an accelerator each, and Ray sees {there}")
        serve.start(proxy_location="Disabled")
        deployment = serve.deployment(_Kept).options(
            num_replicas=1,
            max_ongoing_requests=max_pending + _SPARE_CALLS,
            ray_actor_options={"num_cpus": 0, "num_gpus": accelerators},  # threads are for the spec to say
            health_check_period_s=_CHECK_PERIOD_S,
            health_check_timeout_s=_CHECK_TIMEOUT_S,
        )
        targets = [
            serve.RunTarget(target=deployment.bind(spec), name=f"replica-{i}", route_prefix=None) for i in range(count)
        ]
        yield [_RayLink(handle) for handle in serve.run_many(targets)]
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def _environment() -> dict[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # a cluster of one machine, as on desktops: all that Ray itself opens is then on the loopback
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # other users of this machine reach the loopback as well, and who may call may run anything
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


class _Kept(Replica):
    """A replica in a process of Ray Serve's."""

    def __init__(self, spec: EngineSpec) -> None:
        _stay_on_loopback()
        super().__init__(spec.open)


def _stay_on_loopback() -> None:
    """Ray Serve opens one port in each replica, for deployments that call each other without Ray, on all interfaces and
    without a setting for it. Nothing here uses it."""
    from ray.serve._private import replica  # type: ignore[import-not-found]

    add_port: Any = replica.add_port_to_grpc_server
    vars(replica)["add_port_to_grpc_server"] = lambda server, _: add_port(server, "127.0.0.1:0")


class _RayLink:
    """The way to one replica (`serve.lives.Link`)."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def listen(self) -> AsyncGenerator[bytes, None]:
        stream = self._handle.options(stream=True).listen.remote()
        try:
            async for data in stream:
                yield data
        finally:
            stream.cancel()

    async def begin(self, life: str, id: int, request: Request) -> bytes:
        return await self._handle.begin.remote(life, id, request)

    async def end(self, life: str, id: int) -> None:
        await self._handle.end.remote(life, id)

    async def score(self, life: str, ids: Sequence[int], top_logprobs: int) -> bytes:
        return await self._handle.score.remote(life, ids, top_logprobs)
