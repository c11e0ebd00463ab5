# SPDX-License-Identifier: Apache-2.0
"""What an interrupted job leaves behind, and how it goes away."""

from __future__ import annotations

import contextlib
import glob
import shutil
from pathlib import Path

from retake.core.run_layout import STAGES, TAKE_VIDEO
from retake.core.run_store import remove_leftovers


def sweep(output: Path, *, remove_empty: bool = True) -> None:
    """Remove what an interrupted job left: temporaries in and beside its folder, pixels without sidecar, an empty folder."""
    remove_leftovers(output)
    with contextlib.suppress(OSError):
        for beside in output.parent.glob(f".{glob.escape(output.name)}.*.tmp"):
            shutil.rmtree(beside, ignore_errors=True)
        if {p.name for p in output.iterdir()} == {TAKE_VIDEO}:
            (output / TAKE_VIDEO).unlink()
        if remove_empty:
            output.rmdir()  # refused by the system when it holds results
            if output.parent.parent.name in STAGES:
                output.parent.rmdir()  # a world of which no camera was made
