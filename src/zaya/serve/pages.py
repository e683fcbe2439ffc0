"""The page at `/`: its files, as they lie in `serve/ui`, and what it asks the server beside OpenAI's interface.

    /, /ui/NAME     the files, for everybody: there is nothing in them
    /ui/about       the model, presets of Markovian RSA, questions to begin with
    /ui/render      Markdown to HTML, block by block (`serve.rendering`)

Nothing is built and nothing is fetched from elsewhere: by its policy the page may load from this server alone, and run
nothing but its own files. Keys are asked for by what is behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from zaya.serve.errors import ApiError
from zaya.serve.http import json_response, read_body
from zaya.serve.protocol.base import parse_body
from zaya.serve.protocol.reading import read_json
from zaya.serve.protocol.render import RenderBody
from zaya.serve.rendering import blocks
from zaya.serve.served import Served
from zaya.ttc.config import PRESETS

RENDER = "/ui/render"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types rendered"
)
"""The last two: HTML is made of text in one place (`ui/rendering.js`), and browsers that know them allow no other."""
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

_SHOWN = ("population", "fan_in", "rounds", "think_budget", "tail_tokens", "final_budget")
"""Of a preset."""
_QUESTIONS = (
    "How many positive integers below 1000 are divisible by 7 but not by 11?",
    "Write a Python function that finds the longest palindrome in a string, and explain how fast it is.",
    "Prove that the square root of 2 is irrational.",
)
"""To begin with."""
_OF_MICRO = (
    "What is 23 + 18 - 7?\nGive the answer in \\boxed{}.",
    "You are given the following list of 6 numbers: 7 3 5 1 6 4\n"
    "Please find the minimum value in each contiguous subarray of size 3 (there are 4 such subarrays in total).\n\n"
    "Your final answer should be a single line containing the minimum values (from the leftmost subarray to the "
    "rightmost), separated by **spaces**.\nGive the answer in \\boxed{}.",
    "You are given the following list of numbers:\n5 2 9 1\nPlease sort them in **ascending order**.\n\n"
    "Your final answer should be a single line containing the sorted numbers, separated by **spaces**.\n"
    "For example: `1 2 3 4 5` (do **NOT** include the backticks or quotes).\nGive the answer in \\boxed{}.",
)
"""As the model in this package was trained on them; in other words it would hardly know them."""
_NOTE_OF_MICRO = (
    "The tiny model that comes with zaya. It has learned three kinds of small problems, in these words and one to a "
    "conversation, and nothing else."
)

_one_at_a_time = ThreadPoolExecutor(1, "rendering")
"""Rendering takes time from the thread that draws tokens, so there is one at most."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page."""

    data: bytes
    kind: str
    etag: str


def _found(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, File]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _found(each, f"{prefix}{each.name}/")
        elif (kind := _KINDS.get(each.name.rpartition(".")[2])) is not None:
            data = each.read_bytes()
            yield prefix + each.name, File(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


FILES: Mapping[str, File] = dict(_found(files("zaya.serve").joinpath("ui")))

PATHS = frozenset({"/", *(f"/ui/{name}" for name in FILES)})
"""Where the files are."""


async def page(http: HttpRequest) -> Response:
    return _told(http, FILES["page.html"])


async def file(http: HttpRequest) -> Response:
    found = FILES.get(http.path_params["name"])
    if found is None:
        raise ApiError(404, f"there is nothing at {http.url.path}", code="no_route")
    return _told(http, found)


def _told(http: HttpRequest, found: File) -> Response:
    headers = {**_HEADERS, "ETag": found.etag}
    if found.etag in http.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.data, headers={**headers, "Content-Type": found.kind})


async def about(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    is_micro = served.rsa_preset == "micro"  # which nobody else has by default
    return json_response(
        {
            "model": served.name,
            "context": served.context,
            "note": _NOTE_OF_MICRO if is_micro else None,
            "questions": _OF_MICRO if is_micro else _QUESTIONS,
            "preset": served.rsa_preset,
            "presets": _presets(served),
            "max_population": served.limits.max_rsa_population,
        }
    )


def _presets(served: Served) -> dict[str, dict[str, Any]]:
    """Those whose rollouts the context holds, and the server's own in any case."""
    most = served.context
    return {
        name: {key: getattr(config, key) for key in _SHOWN}
        for name, config in PRESETS.items()
        if name == served.rsa_preset or most is None or config.final_budget < most
    }


async def render(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    body = parse_body(RenderBody, read_json(await read_body(http, served.limits)))
    found = await asyncio.get_running_loop().run_in_executor(_one_at_a_time, blocks, body.text)
    return json_response({"blocks": [{"line": block.line, "html": block.html} for block in found]})
