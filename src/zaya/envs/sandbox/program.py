"""What happens inside: a Python program runs, and what it gives back is written to a pipe. Nobody here is trusted.

The program shares this process. It can patch all that follows, write to the pipe itself, or leave early; what it wins
is to say what its output is, which it may do anyway. Whether the output is right is decided outside, where the
expected one is. Another language would be another file like this one.

    request    {"program": source, "call": [name, arguments] or null}     read from a file in memory
    result     {"value": ...}, {"memory": true} or nothing                written to a pipe
"""

from __future__ import annotations

import atexit
import gc
import json
import linecache
import os
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, NoReturn

NAME = "program.py"


def run(request: int, result: int) -> NoReturn:
    """Run the program of a request to its end, and end the process as Python would."""
    try:
        with open(request, "rb") as file:
            asked = json.load(file)
        source, call = asked["program"], asked["call"]
        module = ModuleType("program" if call else "__main__")  # a call does not wake up the main of a script
        module.__dict__["__file__"] = NAME
        sys.modules[module.__name__] = module
        sys.argv = [NAME]
        linecache.cache[NAME] = (len(source), None, source.splitlines(keepends=True), NAME)
        gc.enable()
        code = _execute(source, call, module, result)
    except MemoryError:
        code = _out_of_memory(result)
    _end(code)


def _execute(source: str, call: list[Any] | None, module: ModuleType, result: int) -> int:
    try:
        exec(compile(source, NAME, "exec"), module.__dict__)
        if call:
            name, arguments = call
            value = module.__dict__[name](*arguments)
            _write(result, json.dumps({"value": value}))
    except SystemExit as stop:
        return _exit_code(stop)
    except MemoryError:
        return _out_of_memory(result)
    except BaseException as error:
        own = error.__traceback__
        traceback.print_exception(error.with_traceback(own and own.tb_next))
        return 1
    return 0


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _out_of_memory(result: int) -> int:
    _write(result, '{"memory": true}')
    return 1


def _write(result: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(result, data) :]


def _end(code: int) -> NoReturn:
    """As the interpreter does it: threads are waited for, and what is in the buffers goes out."""
    try:
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException:
        code = code or 1
    os._exit(code)
