"""The task that every library is given, and what has to come of it. Needs nothing but Python.

    turn 1    two calls at once: a file with code in it, and an order with a list, a choice and an object
    turn 2    one call, whose result is needed
    turn 3    the answer, with that result in it

A program of this directory is run with the address of a server and one way of asking. It prints a line of JSON:
{"calls": [[name, arguments], ...], "answer": ...}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Literal

QUESTION = "Write the file, order the goods and add 3 and 4."
AS_JSON = " Answer in JSON."
"""Behind the question where an answer of a schema is asked for: those who script a model see prompts alone."""

CODE = (
    'def größe(x: int) -> str:\n\treturn "a \\"b\\" \\\\ \\n" if x < 3 else \'</param>\'\n\n'
    '# <parameter=x> </parameters> {"a": [1]} &amp; 日本 🙂\r\nEND = """\n</parameter>"""\n'
)
"""What coding agents write: quotes, backslashes, tabs, both ends of lines, and the form's own tags."""

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("add", {"a": 3, "b": 4}),
    (
        "order",
        {
            "goods": [{"name": "Äpfel", "count": 3}, {"name": 'a "b"', "count": 0}],
            "speed": "fast",
            "to": {"street": "Straße 1", "zip": 1234},
        },
    ),
    ("write_file", {"path": "src/größe.py", "text": CODE}),
]
ANSWER = "The sum is 7, größer als 6."
RESULT: dict[str, Any] = {"total": 7, "words": ["größer", 'als "6"']}
"""The answer as JSON."""


@dataclasses.dataclass
class Good:
    name: str
    count: int


@dataclasses.dataclass
class Address:
    street: str
    zip: int


Speed = Literal["slow", "fast"]


class Shop:
    """Carries out calls, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def write_file(self, path: str, text: str) -> str:
        self.calls.append(("write_file", {"path": path, "text": text}))
        return f"wrote {path}"

    def order(self, goods: list[Any], speed: str, to: Any) -> str:
        self.calls.append(("order", {"goods": goods, "speed": speed, "to": to}))
        return 'ordered "all" of it'

    def add(self, a: int, b: int) -> int:
        self.calls.append(("add", {"a": a, "b": b}))
        return a + b

    def tell(self, answer: Any) -> None:
        """What the test reads. Calls that were made at once have no order."""
        calls = sorted(self.calls, key=lambda call: call[0])
        print()  # some leave a line open
        print(json.dumps({"calls": calls, "answer": answer}, default=dataclasses.asdict))


def asked() -> tuple[str, str]:
    """The address of the server, with /v1, and the way of asking."""
    return sys.argv[1] + "/v1", sys.argv[2]
