"""Programs to write, judged by tests: LiveCodeBench and files of its form.

    a script       a test is what goes to stdin, and what has to come out
    a function     a test is a JSON value a line, the arguments, and the JSON value that has to be returned; `function`
                   names it, a method of `class Solution` where `starter` shows one

Tests are a list of objects with `input` and `output`, as it is, as JSON text, or as JSON text behind zlib and base64.
The original packs hidden tests as a pickled text. Loading a pickle runs what it says, so none is ever loaded: its
instructions are listed, and one that says anything but "this is a text" is refused.
All tests have to pass. A program sees the input of one test and never what is expected; it runs in the sandbox with the
standard library. Numbers are compared as in `envs.code.values`, printed lines without the white space at their ends,
and number by number where they differ as text. Source: spec post-training 9.3 and 12.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import pickletools
import time
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, ClassVar

from zaya.envs.base import Problem, Score, Status
from zaya.envs.code import values
from zaya.envs.files.base import Field, FileEnvironment, Item, Row, opened
from zaya.envs.pool import is_worker
from zaya.envs.sandbox.runner import Limits, Result, Sandbox
from zaya.errors import UsageError

LIMITS = Limits(seconds=6.0, memory_bytes=1 << 30, output_bytes=16 << 20, threads=4)
"""Of one test. Six seconds are LiveCodeBench's."""
TOTAL_S = 240.0
"""Of all tests of a program, which run one after another and end with the first that fails."""
LARGEST_TESTS = 256 << 20
"""Bytes of a problem's tests once they are unpacked."""
LONGEST_PROGRAM = 100_000
"""Characters of a program that is judged."""

_NO_BLOCK = Score(0.0, False, Status.BAD_FORMAT, detail="the answer does not end in a fenced block")
_ENTRY = "_zaya_call"
_PRELUDE = """\
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
from typing import *
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
"""
"""What problems with a function take for granted: their starters name types and modules that nobody imports."""
_CALL = f"""

def {_ENTRY}(name, arguments):
    found = globals().get(name)
    if found is None:
        found = getattr(globals()["Solution"](), name)
    return found(*arguments)
"""
_SCRIPT = (
    "Write a Python program that reads the input from standard input and prints the answer to standard output, with "
    "the standard library alone. End with the whole program in a block of its own:\n\n```python\n...\n```"
)
_FUNCTION = (
    "Write it in Python, with the standard library alone. Begin with this, and end with the whole program in a block "
    "of its own:\n\n```python\n%s\n```"
)

_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_HARMLESS = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"})

Test = tuple[str, str]
"""Input and output."""


class ProgramFile(FileEnvironment):
    """Its meta: `line`, where the tests stand in the file, for they may be large; a hash of them; `function`."""

    kind = "code"
    fields: ClassVar = {
        "prompt": Field("question_content"),
        "tests": Field("public_test_cases"),
        "hidden": Field("private_test_cases", is_required=False),
        "starter": Field("starter_code", is_required=False),
        "function": Field("metadata.func_name", is_required=False),
    }
    category = "code"
    frame = "```python\n%s\n```"
    score_timeout_s = TOTAL_S + 30

    def __init__(self, name: str) -> None:
        self._packed: dict[int, tuple[str, ...]] = {}
        """The tests of each line, as they were found: unpacked, those of a whole file may not fit in memory."""
        super().__init__(name)

    def item(self, row: Row) -> Item:
        packed = tuple(_as_text(row, field) for field in ("tests", "hidden") if row.find(field) is not None)
        if not packed:
            row.get("tests")
        function, starter = row.find("function") or None, str(row.find("starter") or "").strip()
        if not is_worker():  # unpacking a whole benchmark takes a while, and the parent did it
            _check(row.where, packed, is_function=function is not None)
        line = int(row.where.rpartition(":")[2])
        self._packed[line] = packed
        asked = _FUNCTION % starter if starter else _SCRIPT
        if function is not None and not starter:
            asked = _FUNCTION % f"def {function}(...):"
        digest = hashlib.blake2b("\0".join(packed).encode(), digest_size=16).hexdigest()
        meta = {"line": line, "tests": digest, "function": function}
        return Item(f"{row.text('prompt').strip()}\n\n{asked}", meta)

    def score(self, problem: Problem, text: str) -> Score:
        source = values.fenced(text, "python", "py", "python3")
        if source is None:
            return _NO_BLOCK
        if len(source) > LONGEST_PROGRAM:
            return Score(0.0, False, answer=source, detail=f"a program of {len(source):,} characters")
        tests = [test for packed in self._packed[problem.meta["line"]] for test in _tests(problem.env, packed)]
        return judge(source, tests, problem.meta["function"])

    def reference(self, problem: Problem) -> None:
        return None


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    """The one of this process. Its runs are confined one by one."""
    return Sandbox(LIMITS)


def judge(source: str, tests: Sequence[Test], function: str | None, *, total_s: float = TOTAL_S) -> Score:
    """1 where a program passes every test."""
    started = time.monotonic()
    if function is not None:
        source = source if "__future__" in source else _PRELUDE + source
        source += _CALL
    for number, (given, expected) in enumerate(tests, 1):
        if time.monotonic() - started > total_s:
            return Score(0.0, False, Status.ANSWER_LIMIT, source, f"all tests took more than {total_s:g} s")
        if function is None:
            result = _sandbox().run(source, stdin=given)
            passes = result.status == "ok" and same_output(result.stdout, expected)
        else:
            result = _sandbox().run(source, call=(_ENTRY, [function, _arguments("", given)]))
            passes = result.status == "ok" and values.same(result.value, _value("", expected))
        if not passes:
            return Score(0.0, False, answer=source, detail=f"test {number} of {len(tests)}: {_said(result)}")
    return Score(1.0, True, answer=source)


def same_output(printed: str, expected: str) -> bool:
    """Whether a program printed what it should: line by line, without white space at the ends of lines and of all."""
    found, wanted = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    return len(found) == len(wanted) and all(map(_same_line, found, wanted))


def _same_line(one: str, other: str) -> bool:
    if one == other:
        return True
    a, b = one.split(), other.split()
    try:
        return len(a) == len(b) and all(x == y or Decimal(x) == Decimal(y) for x, y in zip(a, b, strict=True))
    except InvalidOperation:
        return False


def _said(result: Result) -> str:
    if result.status == "ok":
        return "another output than expected"
    last = result.stderr.strip().rpartition("\n")[2]
    return f"{result.status}: {last}"[:300] if last else result.status


def _check(where: str, packed: Sequence[str], *, is_function: bool) -> None:
    tests = [test for text in packed for test in _tests(where, text)]
    if not tests:
        raise UsageError(f"{where} has no tests")
    for given, expected in tests if is_function else ():
        _arguments(where, given)
        _value(where, expected)


def _as_text(row: Row, field: str) -> str:
    value = row.get(field)
    return value if isinstance(value, str) else json.dumps(value)


def _tests(where: str, packed: str) -> list[Test]:
    """The tests of a field. Raises UsageError for what is none, and for pickles."""
    found = opened(packed)
    if isinstance(found, str):
        found = opened(_unpacked(where, found))
    if isinstance(found, Mapping) and "inputs" in found and "outputs" in found:
        found = [{"input": x, "output": y} for x, y in zip(found["inputs"], found["outputs"], strict=False)]
    if not isinstance(found, list) or not all(isinstance(test, Mapping) for test in found):
        raise UsageError(f"{where}: tests must be a list of objects with input and output: {packed!r:.60}")
    tests = []
    for test in found:
        if not isinstance(test.get("input"), str) or not isinstance(test.get("output"), str):
            raise UsageError(f"{where}: a test has an input and an output, both text: {test!r:.80}")
        tests.append((test["input"], test["output"]))
    return tests


def _unpacked(where: str, text: str) -> str:
    """What stands behind base64 and zlib, where that is a text."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), LARGEST_TESTS)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise UsageError(f"{where}: tests are neither JSON nor packed JSON: {text!r:.60}") from error
    if not unpacker.eof:
        raise UsageError(f"{where}: the tests are broken off, or larger than {LARGEST_TESTS >> 20} MiB unpacked")
    if data[:1] == b"\x80":
        return _text_of_pickle(where, data)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: the tests are no text once unpacked") from error


def _text_of_pickle(where: str, data: bytes) -> str:
    """The text that a pickle is of, from a list of its instructions: none of them is carried out."""
    try:
        found = [(code.name, value) for code, value, _ in pickletools.genops(data)]
    except (ValueError, EOFError, IndexError, KeyError) as error:
        raise UsageError(f"{where}: the tests are a pickle that is broken: {error}") from error
    texts = [str(value) for name, value in found if name in _TEXTS]
    others = sorted({name for name, _ in found} - _TEXTS - _HARMLESS)
    if len(texts) != 1 or others:
        raise UsageError(
            f"{where}: the tests are a pickle of more than a text, and loading one runs what it says: {others}",
            hint="write the tests as JSON, as it is or behind zlib and base64",
        )
    return texts[0]


def _arguments(where: str, given: str) -> list[Any]:
    return [_value(where, line) for line in given.split("\n") if line.strip()]


def _value(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: a test of a function holds JSON, a value a line: {text!r:.60}") from error
