# SPDX-License-Identifier: Apache-2.0
"""A video against the recording of a real episode: does the same thing move, at the same time, in the same place?

A recorded episode has no instance ids, and its calibration and clocks are a little off; but it has its own pictures. So
what is judged is the *change* against the recording: where in the image something moves, and when. Colours, light and
texture do not enter, only the pattern of motion over place and time, hence another look of the same motion agrees and
the same look of another motion does not. What such patterns cannot tell (small offsets of single links, objects) needs masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt8
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import RecordedSettings

NAMES = ("recording_motion", "recording_lag", "recording_shift", "recording_mirror", "recording_frozen")


@dataclass(frozen=True, eq=False)
class MotionMaps:
    """Where and how much something moves between neighbouring frames."""

    maps: Float32[np.ndarray, "N h w"]
    """N = T − 1 maps of cells; the still scenery's noise is taken off."""
    fine: Float32[np.ndarray, "N H W"]
    """The same at half the working size."""

    @property
    def amount(self) -> Float64[np.ndarray, "N"]:
        """Motion per frame."""
        return self.maps.sum((1, 2), dtype=np.float64)


def motion_maps(frames: UInt8[np.ndarray, "T H W 3"], cell: int) -> MotionMaps:
    """Change of local structure from frame to frame: brightness and contrast are divided out first."""
    height, width = frames.shape[1:3]
    size = (max(width // cell, 4), max(height // cell, 4))
    before, fine, coarse = None, [], []
    for frame in frames:
        grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.2)
        mean = cv2.GaussianBlur(grey, (0, 0), 9)
        spread = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), 9) - mean * mean, 0)) + 6.0
        now = (grey - mean) / spread
        if before is not None:
            change = cv2.resize(np.abs(now - before), (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            # Most of the picture stands still: its typical change is noise, compression and flicker.
            change = np.maximum(change - 2.0 * np.median(change), 0)
            change = np.minimum(change, 0.8)
            fine.append(change)
            coarse.append(cv2.resize(change, size, interpolation=cv2.INTER_AREA))
        before = now
    if not fine:
        return MotionMaps(
            np.zeros((0, size[1], size[0]), np.float32), np.zeros((0, height // 2, width // 2), np.float32)
        )
    return MotionMaps(np.stack(coarse), np.stack(fine))


def agreement(a: Float32[np.ndarray, "N h w"], b: Float32[np.ndarray, "N h w"]) -> float:
    """Correlation of two motion patterns over place and time, −1..1; each cell's own mean is taken off, so that what
    merely moves in the same place all the time does not count. NaN where one of them does not move."""
    x, y = a - a.mean(0), b - b.mean(0)
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale > 1e-9 else float("nan")


def overlap(a: Float32[np.ndarray, "N h w"], b: Float32[np.ndarray, "N h w"]) -> float:
    """The same without taking means off: how far motion is in the same places, 0..1."""
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale > 1e-9 else float("nan")


def measure_recorded(
    take: UInt8[np.ndarray, "T H W 3"], recording: UInt8[np.ndarray, "T H W 3"], settings: RecordedSettings
) -> list[Measurement]:
    """The checks NAMES for a take and the recording's frames of the same times, both at working size.

    Values: `recording_motion` is the worst window's agreement (1 = the same motion), `recording_lag` in frames,
    `recording_shift` in px at 640 wide, `recording_mirror` by how much the mirrored recording fits better (0: not at all),
    `recording_frozen` the longest run of frames that stand still while the recording moves.
    """
    count = min(len(take), len(recording))
    mine, theirs = motion_maps(take[:count], settings.cell), motion_maps(recording[:count], settings.cell)
    amount = theirs.amount
    typical = float(np.quantile(amount, 0.75)) if len(amount) else 0.0
    moving = amount > settings.moving * max(typical, 1e-9)
    if count < 3 or moving.sum() < settings.min_moving or typical < 0.5:
        why = f"the recording moves in {int(moving.sum())} frames; {settings.min_moving} are needed to compare motion"
        return [Measurement(name, None, why) for name in NAMES]
    scale = 640 / take.shape[2]
    # A late video is displaced along its motion, a displaced one seems late: each is measured with the other undone.
    first, _ = _lag(mine.maps, theirs.maps, settings)
    shift = _shift(*_align_by_lag(mine.fine, theirs.fine, round(first)), settings)
    moved = _undo_shift(mine, shift)
    lag, at_lag = _lag(moved, theirs.maps, settings)
    shift = _shift(*_align_by_lag(mine.fine, theirs.fine, round(lag)), settings)
    worst, where = _worst_window(mine.maps, theirs.maps, moving, settings)
    direct, mirrored = (overlap(mine.maps, m) for m in (theirs.maps, theirs.maps[:, :, ::-1]))
    known = not np.isnan([direct, mirrored]).any()
    run, end = _longest_freeze(mine.amount, amount, moving, settings)
    place = f"({shift[0] * scale:+.1f}, {shift[1] * scale:+.1f}) px at 640 wide"
    return [
        Measurement("recording_motion", worst, "agreement of the worst window with the recording", where),
        Measurement("recording_lag", abs(lag), f"{lag:+.2f} frames, agreement {at_lag:.2f} there; positive is late"),
        Measurement("recording_shift", float(np.hypot(*shift)) * scale if known else None, place if known else "nothing moves"),
        Measurement("recording_mirror", max(mirrored - direct, 0.0) if known else None,
                    f"agreement in place {direct:.2f}, mirrored {mirrored:.2f}" if known else "nothing moves"),
        Measurement("recording_frozen", float(run), "frames that stand still while the recording moves", end),
    ]  # fmt: skip


def _align_by_lag(a: np.ndarray, b: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a and the ones of b that they show at a lag."""
    return (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])


def _undo_shift(mine: MotionMaps, shift: Float64[np.ndarray, "2"]) -> Float32[np.ndarray, "N h w"]:
    """The coarse maps with a displacement (working px) undone."""
    M = np.array([[1, 0, -shift[0] / 2], [0, 1, -shift[1] / 2]], np.float32)
    size = (mine.fine.shape[2], mine.fine.shape[1])
    coarse = (mine.maps.shape[2], mine.maps.shape[1])
    return np.stack([cv2.resize(cv2.warpAffine(m, M, size), coarse, interpolation=cv2.INTER_AREA) for m in mine.fine])


def _lag(a: np.ndarray, b: np.ndarray, settings: RecordedSettings) -> tuple[float, float]:
    """Lag of a behind b (frames, to a fraction) and the agreement there."""
    reach = min(settings.max_lag, len(a) // 3)
    scores = []
    for lag in range(-reach, reach + 1):
        value = agreement(*_align_by_lag(a, b, lag))
        scores.append(-1.0 if np.isnan(value) else value)
    best = int(np.argmax(scores))
    fraction = 0.0
    if 0 < best < len(scores) - 1:
        left, middle, right = scores[best - 1 : best + 2]
        bend = left - 2 * middle + right
        fraction = 0.5 * (left - right) / bend if bend < -1e-9 else 0.0
    return best - reach + float(np.clip(fraction, -0.5, 0.5)), scores[best]


def _shift(a: np.ndarray, b: np.ndarray, settings: RecordedSettings) -> Float64[np.ndarray, "2"]:
    """Displacement (dx, dy), working px, of a's motion against b's: the peak of their correlation over all frames."""
    height, width = a.shape[1:]
    pad = (height + int(settings.max_shift * width), width + int(settings.max_shift * width))
    total = np.zeros(pad)
    for x, y in zip(a, b, strict=True):
        fx, fy = np.fft.rfft2(x - x.mean(), pad), np.fft.rfft2(y - y.mean(), pad)
        total += np.fft.irfft2(fx * np.conj(fy), pad)
    reach = int(settings.max_shift * width)
    window = np.roll(total, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = (int(k) for k in np.unravel_index(int(window.argmax()), window.shape))
    out = [_vertex(window[y], x) - reach, _vertex(window[:, x], y) - reach]
    return 2.0 * np.array(out)


def _vertex(values: np.ndarray, k: int) -> float:
    if not 0 < k < len(values) - 1:
        return float(k)
    left, middle, right = values[k - 1 : k + 2]
    bend = left - 2 * middle + right
    return float(k + (np.clip(0.5 * (left - right) / bend, -0.5, 0.5) if bend < -1e-12 else 0.0))


def _worst_window(
    a: np.ndarray, b: np.ndarray, moving: np.ndarray, settings: RecordedSettings
) -> tuple[float, int | None]:
    """Least agreement of a window in which the recording moves enough, and its middle frame."""
    size = min(settings.window, len(a))
    worst, where = np.inf, None
    for begin in range(0, len(a) - size + 1, 5):
        span = slice(begin, begin + size)
        if moving[span].sum() < min(settings.min_moving, size // 2):
            continue
        value = agreement(a[span], b[span])
        value = 0.0 if np.isnan(value) else value
        if value < worst:
            worst, where = value, begin + size // 2
    return (float(worst), where) if where is not None else (agreement(a, b), None)


def _longest_freeze(
    mine: np.ndarray, theirs: np.ndarray, moving: np.ndarray, settings: RecordedSettings
) -> tuple[int, int | None]:
    """Longest run of frames without motion while the recording moves, and the frame in which it ends."""
    ratio = float(np.median(mine[moving] / np.maximum(theirs[moving], 1e-9)))
    still = moving & (mine < settings.still * max(min(ratio, 1.0), 0.3) * theirs)
    best, end, run = 0, None, 0
    for t, value in enumerate(still):
        run = run + 1 if value else 0
        if run > best:
            best, end = run, t + 1
    return best, end
