# SPDX-License-Identifier: Apache-2.0
"""What a test has left open in its process: only its own, because tests of other files share the process."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def threads_begun(prefix: str) -> Callable[[], list[threading.Thread]]:
    """A function that lists the living threads of such a name that did not live at this moment."""
    before = set(threading.enumerate())
    return lambda: [one for one in threading.enumerate() if one.name.startswith(prefix) and one not in before]


def open_under(folder: Path) -> list[str]:
    """The files below a folder, and itself, that this process has open; empty where the system does not tell."""
    found = []
    for handle in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:  # the handle that read the list is closed by now
            continue
    return sorted(name for name in found if Path(name).is_relative_to(folder.resolve()))
