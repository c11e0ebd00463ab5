# SPDX-License-Identifier: Apache-2.0
"""A training's folder: the names in it, who is writing there, and the request to stop. Needs no torch.

```
OUT/
  model.json     base revision, terms, settings     state.json    step of the newest checkpoint
  command.json   the command that goes on           checkpoints/  curves/  latents/  prompts/
  lock           held while a process trains        stop          asks it to stop (`retake tune stop`)
```
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retake.core.errors import InputError
from retake.core.host import lock

LOCK, STOP, MODEL, STATE, COMMAND = "lock", "stop", "model.json", "state.json", "command.json"
PATIENCE_S = 0.5  # `is_running` holds the lock for an instant when nobody else does


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """This process trains in `folder`; the system lets go when it dies. Raises InputError while another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                lock(handle)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise InputError(
                        f"another process trains in {folder}; wait for it, stop it with `retake tune stop {folder}`, or "
                        "choose another folder"
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def is_running(folder: Path) -> bool:
    """Whether a process trains in `folder` on this machine (or on one that shares its locks)."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        lock(handle)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def ask_to_stop(folder: Path) -> None:
    """Leave the request that the training looks for between steps."""
    (folder / STOP).touch()


def take_request(folder: Path) -> bool:
    """Whether somebody asked to stop; the request is gone then."""
    try:
        (folder / STOP).unlink()
    except FileNotFoundError:
        return False
    return True
