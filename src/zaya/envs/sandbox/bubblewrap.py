"""bubblewrap, where it is installed: it may have namespaces where we may not, such as by a profile of AppArmor.

It wraps the server once, which then confines each run by Landlock and seccomp as it would without. A run gets no
scratch directory there. Source: spec post-training 9.4, bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def command(source: Path) -> list[str] | None:
    """What to put before the server's command line. None where there is no bubblewrap, or for root, whom it only
    takes rights from that the server needs to run programs as another user."""
    found = shutil.which("bwrap")
    if found is None or os.geteuid() == 0:
        return None
    visible = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", sys.base_prefix, sys.prefix, str(source)]
    visible += [path for path in sys.path if Path(path).is_dir()]
    binds = [word for path in visible for word in ("--ro-bind-try", path, path)]
    # Not --die-with-parent, which means the thread that started it; the server watches the process itself.
    return [found, "--unshare-all", "--dev", "/dev", "--proc", "/proc", *binds, "--"]
