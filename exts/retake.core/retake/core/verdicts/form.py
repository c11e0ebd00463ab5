# SPDX-License-Identifier: Apache-2.0
"""What a take is before what it shows: its frames at working size, its length, aspect ratio and rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.errors import VerdictError
from retake.core.progress import CheckCancel
from retake.core.verdicts.clip import COARSEST, Clip, open_clip
from retake.core.verdicts.closeups import Watch
from retake.core.verdicts.footage import shrink
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import VerdictSettings
from retake.core.verdicts.stability import first_frame_error

Frames = Iterable[UInt8[np.ndarray, "H W 3"]]


@dataclass(frozen=True, eq=False)
class Film:
    """A take before what it shows.

    pictures: at the working size, no more than the episode offers. clip: the file; None for frames in memory. form: the
    checks of the file itself. identity: what a verdict says of the film and of what it is compared with. watched: frame -> what
    was asked to be kept of it.
    """

    pictures: UInt8[np.ndarray, "T h w 3"]
    clip: Clip | None
    form: tuple[Measurement, ...]
    identity: dict[str, Any]
    watched: dict[int, UInt8[np.ndarray, "h w 3"]]


def open_film(
    video: Path | str | Frames, episode: Episode, camera: str, settings: VerdictSettings, *,
    first_frame: UInt8[np.ndarray, "H W 3"] | None, start: int, frames: int | None, fps: float | None,
    check_cancel: CheckCancel, watch: Watch | None = None,
) -> Film:  # fmt: skip
    """A take as it is compared with the episode from frame `start` on; arguments and errors are those of `judge`. watch: what
    to keep of its frames besides."""
    spec = episode.header.camera(camera)
    if not 0 <= start < len(episode):
        raise VerdictError(f"start frame {start} is outside the episode, which has frames 0..{len(episode) - 1}")
    if frames is not None and frames < 1:
        raise VerdictError(f"a window of {frames} frames was asked for; expected at least one")
    rate, clip, source = float(episode.header.fps), None, video
    if isinstance(video, str | Path):
        clip = open_clip(Path(video), rate)
        source = clip.frames(rate)
        fps = (clip.fps or None) if fps is None else fps
    width = min(settings.working_width, spec.size[0])
    size = (width, round(spec.size[1] * width / spec.size[0]))
    offered = len(episode) - start
    watched: dict[int, np.ndarray] = {}
    pictures, total, take_size = take_frames(source, size, offered, check_cancel, watch, watched)  # type: ignore[arg-type]
    form = (
        length(total, offered, frames, clip, settings),
        size_of(take_size, spec.size),
        rate_of(fps, rate, clip, frames is not None),
        first_frame_error(pictures[0], first_frame, size),
    )
    return Film(pictures, clip, form, {
        "camera": camera, "start": start, "frames": total, "fps": float(fps if fps is not None else rate),
        "size": take_size, "episode_sha256": episode.content_sha256, "video_sha256": clip.sha256 if clip else "",
    }, watched)  # fmt: skip


def take_frames(
    source: Frames, size: tuple[int, int], offered: int, check_cancel: CheckCancel, watch: Watch | None,
    watched: dict[int, UInt8[np.ndarray, "h w 3"]],
) -> tuple[UInt8[np.ndarray, "T H W 3"], int, tuple[int, int]]:  # fmt: skip
    """Working-size frames (no more than the episode offers), number of frames in all, size of the take; what is watched goes
    into `watched`."""
    kept, total, take_size = [], 0, (0, 0)
    iterator = iter(source)
    for frame in islice(iterator, offered):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise VerdictError(f"take frame {total} is {frame.shape} {frame.dtype}; expected (H, W, 3) uint8 RGB")
        take_size = (frame.shape[1], frame.shape[0])
        kept.append(shrink(frame, size))
        if watch is not None and total in watch.labels and take_size[0] >= watch.size[0]:
            watched[total] = watch.seen(frame)
        total += 1
        if total % 16 == 0:
            check_cancel()
    total += sum(1 for _ in iterator)
    if not kept:
        raise VerdictError("the take has no frames; nothing can be judged")
    return np.stack(kept), total, take_size


def length(total: int, offered: int, frames: int | None, clip: Clip | None, settings: VerdictSettings) -> Measurement:
    """Frames beyond what was asked for (or what the episode offers), or missing to it."""
    window = min(frames, offered) if frames else min(offered, settings.window)
    slack = 1 if clip and clip.timed else 0
    surplus = max(total - (window if frames else offered) - slack, 0)
    missing = max(window - total - slack, 0)
    note = f"{total} frames; the episode offers {offered} from there on"
    if frames or missing:
        note += f", a take has {window}"
    if total < settings.min_frames:
        note += f"; at least {settings.min_frames} are needed to judge motion"
        return Measurement("length", float(missing) if missing else None, note)
    frame = window - 1 if surplus else total - 1 if missing else None
    return Measurement("length", float(surplus or missing), note, frame)


def size_of(take_size: tuple[int, int], size: tuple[int, int]) -> Measurement:
    """size: difference of the logarithms of both aspect ratios."""
    aspect = (take_size[0] / take_size[1]) / (size[0] / size[1])
    note = f"{take_size[0]}x{take_size[1]}, camera {size[0]}x{size[1]}"
    return Measurement("size", abs(float(np.log(aspect))), note)


def rate_of(fps: float | None, expected: float, clip: Clip | None, asked: bool) -> Measurement:
    """fps: a take that was asked for has the episode's rate; any other file is compared by its presentation times."""
    if fps is None or fps <= 0:
        why = "the take states no rate; frames are compared one to one"
        return Measurement("fps", None, why, applies=False, absent=True)
    note = f"{fps:.3g} per second, episode {expected:.3g}"
    if clip is None or not clip.timed or asked:
        return Measurement("fps", abs(fps / expected - 1), note)
    if fps < COARSEST * expected:
        return Measurement("fps", None, f"{note}: too far apart to be compared frame by frame")
    return Measurement("fps", 0.0, f"{note}; compared by presentation times")
