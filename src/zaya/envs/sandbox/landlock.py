"""Landlock: which files a process may still reach. For good, for itself and all it starts.

Every right that the kernel knows is taken, then a few are given back: reading below some paths, reading and writing
below others. Where the kernel has the rules, TCP, signals to processes outside and abstract Unix sockets go as well.
Not covered by any version: stat, chdir, chmod, chown, times and attributes of files outside. The system calls that
change something are not among those `seccomp` allows; that a file exists, and how long it is, can be seen.
Source: the kernel's userspace-api/landlock.rst; spec post-training 9.4.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from zaya.envs.sandbox.kernel import system_call

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_CHANGE = ((1 << 13) - 1) & ~(_EXECUTE | _READ_FILE | _READ_DIR) & ~(1 << 6 | 1 << 9 | 1 << 11)
"""Rights of the first version that write, make or remove; devices and sockets are made by nobody."""
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many file rights a version has; 16 from version 5 on."""


def version() -> int:
    """Of the running kernel; 0 where it has no Landlock or does not use it."""
    try:
        return system_call("landlock", _SYS_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(read: Iterable[str], write: Iterable[str]) -> None:
    """Leave this process the reading below some paths, and all but executing below others. Needs no new privileges."""
    abi = version()
    handled = (1 << _RIGHTS.get(abi, 16)) - 1
    tcp = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0
    fields = [handled, *([tcp] if abi >= 4 else []), *([scopes] if abi >= 6 else [])]
    attributes = b"".join(field.to_bytes(8, "little") for field in fields)
    ruleset = system_call("landlock_create_ruleset", _SYS_CREATE_RULESET, attributes, len(attributes), 0)
    reading = _READ_FILE | _READ_DIR
    for path in read:
        _allow(ruleset, path, reading)
    for path in write:
        _allow(ruleset, path, (reading | _CHANGE | _REFER | _TRUNCATE) & handled)
    system_call("landlock_restrict_self", _SYS_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
    rule = rights.to_bytes(8, "little") + descriptor.to_bytes(4, "little")
    buffer = ctypes.create_string_buffer(rule, len(rule))
    system_call("landlock_add_rule", _SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, buffer, 0)
    os.close(descriptor)
