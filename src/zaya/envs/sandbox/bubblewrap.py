"""bubblewrap, where it is installed: it may have namespaces where we may not, such as by a profile of AppArmor.

It wraps the server once, which then confines each run as it would without: it tries namespaces of its own again, and
needs Landlock where it does not get them. What it wins are a machine with no network and few files to begin with.
Source: spec post-training 9.4, bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable


def command(readable: Iterable[str]) -> list[str] | None:
    """What to put before the server's command line. None where there is no bubblewrap, or for root, whom it only
    takes rights from that the server needs to run programs as another user. `readable` is what the server imports."""
    found = shutil.which("bwrap")
    if found is None or os.geteuid() == 0:
        return None
    system = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", sys.base_prefix, sys.prefix]
    binds = [word for path in [*system, *readable] for word in ("--ro-bind-try", path, path)]
    # /tmp, because the server builds a narrower root there if it may.
    # Not --die-with-parent, which means the thread that started it; the server watches the process itself.
    return [found, "--unshare-all", "--dev", "/dev", "--proc", "/proc", "--dir", "/tmp", *binds, "--"]
