# SPDX-License-Identifier: Apache-2.0
"""The panel's run folders: a new one by the clock, the one that is typed in, and how much room its disk has."""

from __future__ import annotations

import shutil
import time
from itertools import count
from pathlib import Path

from retake.core.errors import InputError
from retake.core.files import user_path


def new(runs: Path, now_s: float, *, besides: Path | None = None) -> Path:
    """A run folder in `runs` that nobody has, named by the time; nor is it `besides`, which may not be written yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now_s))
    named = (runs / (stamp if n == 1 else f"{stamp}-{n}") for n in count(1))
    return next(folder for folder in named if folder != besides and not folder.exists())


def typed(text: str) -> Path:
    """The folder that a person typed in. Raises InputError where none is: "" would be the folder that Kit runs in."""
    if not text.strip():
        raise InputError("the field Folder is empty; give the run folder that the recording goes to")
    return user_path(text)


def space(folder: Path, used_bytes: int) -> str:
    """What a recording has taken and what its disk has left, for the status line."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return f"{used_bytes / 1e6:.0f} MB of pictures taken, {free / 1e9:.0f} GB free"
