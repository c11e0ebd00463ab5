# SPDX-License-Identifier: Apache-2.0
"""Takes of any length: padding to the model's window, chained windows for longer ones, and a check of every seam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.errors import InputError

from .vae import TIME_STRIDE, covering_latent_frames

# A seam is a change of window between two frames. The limits are choices, not measurements on real takes:
# 25 dB is where a re-encoded frame is visibly not the same picture; a jump of three times the motion around it
# is a cut.
SEAM_PSNR_DB = 25.0
SEAM_JUMP = 3.0
_SEAM_NEIGHBOURS = 8


@dataclass(frozen=True)
class Window:
    """Frames [start, stop) of the episode, shown to the model as `length` frames (the last one repeated)."""

    start: int
    stop: int
    length: int

    @property
    def padding(self) -> int:
        """Repeated frames at the end, cut off again."""
        return self.length - (self.stop - self.start)

    def take(self, frames: np.ndarray) -> np.ndarray:
        """Episode frames (T, …) -> this window's, freeze-padded to (length, …)."""
        part = frames[self.start : self.stop]
        return np.concatenate([part, np.repeat(part[-1:], self.padding, axis=0)]) if self.padding else part


@dataclass(frozen=True)
class Seam:
    """Between frames `frame` and `frame + 1`. `psnr_db`: the chained frame against its regenerated copy.

    `jump`: mean absolute step across the seam over the median step of the frames around it.
    """

    frame: int
    psnr_db: float
    jump: float

    @property
    def ok(self) -> bool:
        return self.psnr_db >= SEAM_PSNR_DB and self.jump <= SEAM_JUMP


def window_length(num_frames: int) -> int:
    """The model's window for a request of `num_frames`: the next 1 + 4k. Raises InputError."""
    if isinstance(num_frames, bool) or not isinstance(num_frames, (int, np.integer)) or num_frames < 1:
        raise InputError(f"num_frames is {num_frames!r}; give a whole number of frames, 1 + 4k (81 is OSCAR's)")
    return (covering_latent_frames(int(num_frames)) - 1) * TIME_STRIDE + 1


def plan_windows(frames: int, num_frames: int) -> tuple[Window, ...]:
    """Windows that cover an episode of `frames`; each starts on the last frame of the one before. Raises InputError."""
    if frames < 1:
        raise InputError("the skeleton is empty; give at least one frame")
    length = window_length(num_frames)
    if length == 1 and frames > 1:
        raise InputError(f"a window of one frame cannot be chained over {frames} frames; raise num_frames")
    windows = [Window(0, min(length, frames), length)]
    while windows[-1].stop < frames:
        start = windows[-1].stop - 1
        windows.append(Window(start, min(start + length, frames), length))
    return tuple(windows)


def choose_window(frames: int, num_frames: int, events: Sequence[int]) -> Window:
    """The one window of a long episode that centres on its events (grasp and release). Raises InputError if none does."""
    length = window_length(num_frames)
    if frames < 1:
        raise InputError("the episode is empty")
    outside = [event for event in events if not 0 <= event < frames]
    if outside:
        raise InputError(f"events at frames {outside} lie outside the episode's 0 to {frames - 1}")
    if not events or frames <= length:
        return Window(0, min(frames, length), length)
    first, last = min(events), max(events)
    if last - first + 1 > length:
        raise InputError(f"events at frames {first} and {last} do not fit one window of {length} frames; use windows")
    start = min(max(0, round((first + last + 1 - length) / 2)), frames - length)
    return Window(start, start + length, length)


def check_seam(frames: np.ndarray, frame: int, regenerated: np.ndarray) -> Seam:
    """Measure one seam of a finished take. `frames` uint8 (T, H, W, 3); `regenerated` (H, W, 3) copies `frames[frame]`."""
    difference = frames[frame].astype(np.float64) - regenerated
    error = float(np.mean(difference**2))
    psnr = 10 * np.log10(255**2 / error) if error else float("inf")
    low, high = max(0, frame - _SEAM_NEIGHBOURS), min(len(frames), frame + 2 + _SEAM_NEIGHBOURS)
    steps = np.abs(np.diff(frames[low:high].astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    across = float(steps[frame - low])
    around = float(np.median(np.delete(steps, frame - low))) if len(steps) > 1 else across
    jump = across / around if around else (0.0 if not across else float("inf"))
    return Seam(frame, float(psnr), jump)


def windows_to_json(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Plain values, for a sidecar."""
    return [{"start": w.start, "stop": w.stop, "length": w.length, "padding": w.padding} for w in windows]
