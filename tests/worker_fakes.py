# SPDX-License-Identifier: Apache-2.0
"""Backends for the worker's tests: deterministic pictures, and every way to misbehave, asked for in a job's settings."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError, TakeError
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.takes.base import TakeRequest

SIZE = (64, 48)
_poison: list[str] = []
"""What every job of this process says once its CUDA context is broken."""


def frame_of(seed: int, index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 RGB (h, w, 3): a colour of the seed with a bar that moves."""
    rng = np.random.default_rng(seed)
    image = np.broadcast_to(rng.integers(0, 200, 3).astype(np.uint8), (size[1], size[0], 3)).copy()
    image[:, (3 * index) % size[0] : (3 * index) % size[0] + 6] = 255
    return image


class SleepyBackend:
    """A take of `request.frames` frames, `settings.sleep_s` (default: the option) for each."""

    name, version, domain, licence = "sleepy", "1", "composite", "Apache-2.0"
    model, revision = "sleepy-model", "r1"

    def __init__(self, sleep_s: float = 0.0, ballast_mb: int = 0, gpu: str = "") -> None:
        self._sleep_s = sleep_s
        self._ballast = np.ones(ballast_mb << 20, np.uint8)
        self.tier = ""

    def use_tier(self, name: str) -> None:
        self.tier = name

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[np.ndarray]:
        wish, total = request.settings, request.frames
        pause = float(wish.get("sleep_s", self._sleep_s))
        if _poison:
            raise RuntimeError(_poison[0])
        for index in range(total):
            if not wish.get("deaf"):
                check_cancel()
            time.sleep(pause)
            if index == int(wish.get("at", total // 2)):
                self._misbehave(wish)
            progress(index + 1, total, "painting")
            yield frame_of(request.seed, index)

    def _misbehave(self, wish: dict[str, Any]) -> None:
        if "say" in wish:
            print(wish["say"])
        if "die" in wish:
            os.kill(os.getpid(), getattr(signal, wish["die"]))
        if "die_once" in wish and _first_time(wish["die_once"]):
            os.kill(os.getpid(), signal.SIGKILL)
        if "error" in wish:
            raise TakeError(wish["error"])
        if "wrong_input" in wish:
            raise InputError(wish["wrong_input"])
        if "error_once" in wish and _first_time(wish["error_once"]):
            raise RuntimeError("the first time always fails")
        if "poison_once" in wish and _first_time(wish["poison_once"]):
            _poison.append(wish["poison"])
            raise RuntimeError(_poison[0])
        if "oom_once" in wish and _first_time(wish["oom_once"]):
            raise MemoryError("CUDA out of memory (pretended)")
        if "hang_s" in wish:
            time.sleep(float(wish["hang_s"]))
        while "disk_full" in wish and Path(wish["disk_full"]).exists():
            with open("/dev/full", "wb") as stream:  # the system's own ENOSPC
                stream.write(b"x" * 100_000)


def _first_time(marker: str) -> bool:
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class BrokenBackend:
    """Cannot even be loaded."""

    def __init__(self) -> None:
        raise RuntimeError("weights are missing (pretended)")
