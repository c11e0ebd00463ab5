# SPDX-License-Identifier: Apache-2.0
"""What recorded pictures, times and actions say about themselves: clocks that drift, pictures that stand still, offsets.

Nothing is shifted or filled in: what does not fit is refused by number, or brought to the frame rate where that is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from retake.core.array_types import Float64, Int, UInt8
from retake.core.errors import InputError
from retake.core.export import encode
from retake.core.export.records import Segment

TOLERANCE_S = 1e-3
"""A row or picture further from k / fps than this is not at frame k. float32 seconds are good to 1e-4 for half an hour."""
MOVES = 0.02
"""A joint that changes by more than this (rad, or decimetres) between pictures moves: the pictures should, too."""
CHANGED_LEVELS = 10
"""A smoothed grey level that differs by more has changed; coding the same picture twice changes fewer."""


@dataclass(frozen=True)
class Grid:
    """Which recorded rows an Episode's frames come from, and when they were."""

    time_s: Float64[np.ndarray, "N"]
    row: Int[np.ndarray, "N"]
    """Nearest recorded row: whose picture is shown."""
    place: Float64[np.ndarray, "N"]
    """Place among the rows (fractional): where states are interpolated."""

    def vectors(self, rows: np.ndarray) -> Float64[np.ndarray, "N n"]:
        """(T, n) numbers of the rows at this grid, linear between them; untouched where the grid is the rows."""
        if np.array_equal(self.place, np.arange(len(rows))):
            return np.asarray(rows, np.float64)
        x = np.arange(len(rows))
        return np.stack([np.interp(self.place, x, column) for column in np.asarray(rows, np.float64).T], axis=-1)


def grid(stamps: np.ndarray | None, length: int, fps: int, *, resample: bool, where: str) -> Grid:
    """The frames of an episode whose rows bear `stamps` (T,) seconds (None: none are recorded).

    Raises InputError by number when a row is not at k / fps, unless `resample`: then frames are at n / fps from the first
    stamp to the last, states linear between rows, the nearest row's picture. Times that do not increase are always refused.
    """
    frame = np.arange(length)
    if stamps is None:
        return Grid(frame / fps, frame, frame.astype(np.float64))
    stamps = np.asarray(stamps, np.float64).reshape(-1)
    if not np.isfinite(stamps).all() or (np.diff(stamps) <= 0).any():
        bad = (
            int(np.flatnonzero(~np.isfinite(stamps))[0])
            if not np.isfinite(stamps).all()
            else int(np.argmax(np.diff(stamps) <= 0)) + 1
        )
        raise InputError(
            f"{where}: the timestamp of row {bad} is {stamps[bad]:g} s, not after that of the row before it"
        )
    since = stamps - stamps[0]
    away = np.abs(since - frame / fps)
    # float32 seconds are coarser the longer an episode lasts.
    allowed = TOLERANCE_S + np.abs(stamps) * 2.0**-22
    if not (away > allowed).any():
        return Grid(frame / fps, frame, frame.astype(np.float64))
    bad = int(np.argmax(away > allowed))
    if not resample:
        rate = (length - 1) / since[-1] if since[-1] > 0 else 0.0
        raise InputError(
            f"{where}: the clock drifts: row {bad} is at {since[bad]:.4f} s, where {bad} / {fps} is {bad / fps:.4f} s (the rows "
            f"run at {rate:.3f} per second, info.json says {fps}); --resample brings states and pictures to {fps} fps"
        )
    wanted = np.arange(int(np.floor(since[-1] * fps + 1e-3)) + 1) / fps
    place = np.interp(wanted, since, frame.astype(np.float64))
    return Grid(wanted, np.rint(place).astype(np.int64), place)


def check_clock(segment: Segment, fps: int, where: str) -> None:
    """Whether an encoded episode has its pictures at k / fps. Raises InputError naming the first that is not.

    LeRobot fetches a row's picture by its time, so a video with another clock shows other moments than its rows.
    """
    found = []
    av = encode.require("av")
    try:
        with av.open(str(segment.path)) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.pts is not None:
                    found.append(packet.pts * packet.time_base)
    except av.FFmpegError as error:
        what = "is missing" if not segment.path.exists() else f"is no readable video: {error}"
        raise InputError(f"{where}: {segment.path} {what}") from error
    times = sorted(found)[segment.start : segment.start + segment.length]
    if len(times) < segment.length:
        raise InputError(
            f"{where}: {segment.path.name} has {len(found) - segment.start} pictures from frame {segment.start}; the episode "
            f"has {segment.length} rows, and none is filled in"
        )
    for k, time in enumerate(times):
        if abs(time - Fraction(segment.start + k, fps)) > Fraction(1, 100) / fps + Fraction(1, 1000):
            raise InputError(
                f"{where}: picture {k} of {segment.path.name} is at {float(time):.4f} s, where row {k} is at "
                f"{(segment.start + k) / fps:.4f} s: the video's clock is another than the rows' "
                f"({segment.length} rows at {fps} fps); encode it again at {fps} fps"
            )


class StillWatch:
    """Notes pictures that repeat the one before them while joints move."""

    def __init__(self, motion: Float64[np.ndarray, "T D"]) -> None:
        self._moves = np.concatenate([[False], (np.abs(np.diff(motion, axis=0)) > MOVES).any(axis=1)])
        self._previous: dict[str, np.ndarray] = {}
        self._still: dict[str, list[int]] = {}

    def see(self, camera: str, k: int, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Frame `k` of a camera, in order."""
        step = max(1, min(picture.shape[:2]) // 240)
        small = cv2.blur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[::step, ::step], (3, 3)).astype(np.int16)
        before = self._previous.get(camera)
        if before is not None and self._moves[k]:
            changed = int((np.abs(small - before) > CHANGED_LEVELS).sum())
            if changed < max(4, small.size // 5000):
                self._still.setdefault(camera, []).append(k)
        self._previous[camera] = small

    def notes(self) -> Iterator[str]:
        """What a user should know; nothing where every moving frame has a picture of its own."""
        moving = int(self._moves.sum())
        for camera, frames in self._still.items():
            if len(frames) < max(2, moving // 10):
                continue
            shown = _ranges(frames)
            every = _period(frames, np.flatnonzero(self._moves))
            chunk = f"; about {every} rows share a picture: action chunks recorded per picture?" if every > 1 else ""
            yield (
                f"pictures of {camera} stand still while joints move in {len(frames)} of {moving} moving frames "
                f"({shown}){chunk}"
            )


def _ranges(frames: Sequence[int]) -> str:
    out, start = [], 0
    for i in range(1, len(frames) + 1):
        if i == len(frames) or frames[i] != frames[i - 1] + 1:
            out.append(str(frames[start]) if i - start == 1 else f"{frames[start]}-{frames[i - 1]}")
            start = i
    return ", ".join(out[:5]) + (", …" if len(out) > 5 else "")


def _period(still: Sequence[int], moving: Int[np.ndarray, "M"]) -> int:
    """How many rows share a picture, where that is regular; 0 otherwise."""
    fresh = sorted(set(map(int, moving)) - set(still))
    if len(fresh) < 2:
        return 0
    gaps = np.diff(fresh)
    usual = int(np.median(gaps))
    return usual if usual > 1 and (gaps == usual).mean() > 0.8 else 0


def action_notes(
    names: Sequence[str], state: Float64[np.ndarray, "T D"], target: Float64[np.ndarray, "T D"]
) -> list[str]:
    """Joints whose targets stand at a constant distance from the state that follows them (rad or m)."""
    if len(state) < 5:
        return []
    gap = target[:-1] - state[1:]
    middle = np.median(gap, axis=0)
    spread = np.median(np.abs(gap - middle), axis=0)
    out = []
    for name, m, s in zip(names, middle, spread, strict=True):
        if abs(m) > 0.02 and abs(m) > 6 * s:
            out.append(
                f"joint {name}: the action is {m:+.3f} from the state that follows it throughout (spread {s:.3f}): a "
                "calibration offset, or a drive that sags"
            )
    return out


def check_actions(
    names: Sequence[str], state: Float64[np.ndarray, "T D"], target: Float64[np.ndarray, "T D"], where: str
) -> None:
    """Whether the action is the state's kind of number. Raises InputError when it looks like deltas, or like another unit."""
    if len(state) < 5:
        return
    following, step = state[1:], np.diff(state, axis=0)
    for name, a, s, d in zip(names, target[:-1].T, following.T, step.T, strict=True):
        error = float(np.median(np.abs(a - s)))
        if error < 0.05 or np.ptp(s) < 0.02:
            continue
        changes = float(np.median(np.abs(a - d)))
        if changes < 0.2 * error and np.abs(a).max() < 4 * max(np.abs(d).max(), 1e-6):
            raise InputError(
                f"{where}: the action of joint {name} follows the state's changes, not the state (off by {error:.3g} from the "
                f"state, by {changes:.3g} from its change): deltas are no joint targets; --action-key none leaves them out"
            )
        for unit, scale in (("deg", np.pi / 180), ("rad", 180 / np.pi)):
            if float(np.median(np.abs(a * scale - s))) < 0.1 * error:
                raise InputError(
                    f"{where}: the action of joint {name} is off the state by {error:.3g} as read, and fits it as {unit}: "
                    f"state it with --action-unit {name}={unit}"
                )
