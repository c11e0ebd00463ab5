# SPDX-License-Identifier: Apache-2.0
"""Drawing: one frame, a stream of frames, a whole batch. All three give the same pixels.

Order on the canvas: per arm its segments, its dots, then X, Y, Z, left finger, right finger; arms in the given order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import SkeletonError
from retake.core.lens import Lens
from retake.core.skeleton import convention as c
from retake.core.skeleton.inputs import ArmTrack, CameraTrack, check_size
from retake.core.skeleton.strokes import ArmStrokes, plan

CHUNK = 256
"""Frames planned at once: enough to amortise numpy's call overhead; under 1 MB of coordinates per arm."""


def render_skeleton(
    link_positions: Any,
    ee_pose: Any,
    gripper_openness: Any,
    camera_intrinsic: Any,
    camera_extrinsic: Any,
    size: Any,
    lens: Lens | None = None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw one arm over T frames on black.

    link_positions: (T, L, 3) m, world frame, end effector first, base last. ee_pose: (T, 4, 4) T_world_ee.
    gripper_openness: (T,), 1 = open. camera_intrinsic: (3, 3) or (T, 3, 3) px. camera_extrinsic: (4, 4) or (T, 4, 4)
    T_camera_world, OpenCV axes, m. size: (width, height) px. lens: the picture's distortion. Returns (T, H, W, 3) uint8 RGB.

    Raises SkeletonError on non-finite numbers, wrong shapes, zero frames or a non-positive size. For long episodes
    use `stream_skeleton`, which keeps one frame in memory.
    """
    arm = ArmTrack(link_positions, ee_pose, gripper_openness)
    camera = CameraTrack(camera_intrinsic, camera_extrinsic, size, lens)
    camera.check_length(len(arm))
    width, height = camera.size
    try:
        frames = np.zeros((len(arm), height, width, 3), np.uint8)
    except (MemoryError, ValueError):
        raise SkeletonError(
            f"{len(arm)} frames of {width}x{height} do not fit into memory at once; "
            "stream_skeleton draws them one by one"
        ) from None
    for start in range(0, len(arm), CHUNK):
        stop = min(start + CHUNK, len(arm))
        for frame, strokes in zip(frames[start:stop], plan(arm, camera, start, stop), strict=True):
            _paint(frame, strokes)
    return frames


def stream_skeleton(
    arms: Sequence[ArmTrack], camera: CameraTrack, *, start: int = 0, reuse: bool = False
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames start.. one after the other, all arms on one canvas, each (H, W, 3) uint8 RGB on black.

    With `reuse` every yielded array is the same canvas, valid until the next one is asked for: only the rectangles
    that were drawn on are cleared, and nothing is allocated. Raises SkeletonError at the first frame.
    """
    width, height = camera.size
    canvas = np.zeros((height, width, 3), np.uint8)
    drawn: tuple[ArmStrokes, ...] = ()
    for strokes in _strokes(arms, camera, start):
        if reuse:
            for old in drawn:
                x0, y0, x1, y1 = old.box
                canvas[y0:y1, x0:x1] = 0
            drawn = strokes
        else:
            canvas = np.zeros((height, width, 3), np.uint8)
        for arm_strokes in strokes:
            _paint(canvas, arm_strokes)
        yield canvas


def stream_overlay(
    arms: Sequence[ArmTrack], camera: CameraTrack, backgrounds: Iterable[UInt8[np.ndarray, "H W 3"]]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The same strokes over a copy of each background, e.g. the episode's RGB. Raises SkeletonError on another size."""
    for strokes, background in zip(_strokes(arms, camera, 0), backgrounds, strict=True):
        canvas = np.array(background, order="C")
        check_canvas(canvas)
        if canvas.shape[:2] != camera.size[::-1]:
            raise SkeletonError(
                f"background is {canvas.shape[1]}x{canvas.shape[0]}; the skeleton is drawn at {camera.size}"
            )
        for arm_strokes in strokes:
            _paint(canvas, arm_strokes)
        yield canvas


def render_into(
    canvas: UInt8[np.ndarray, "H W 3"],
    link_positions: Any,
    ee_pose: Any,
    gripper_openness: float,
    camera_intrinsic: Any,
    camera_extrinsic: Any,
    lens: Lens | None = None,
) -> None:
    """Draw one arm at one instant over what `canvas` (H, W, 3) uint8 RGB already shows, in place.

    link_positions (L, 3), ee_pose (4, 4), gripper_openness a number, camera_intrinsic (3, 3), camera_extrinsic (4, 4);
    meanings as in `render_skeleton`. Raises SkeletonError, also for a canvas that cannot be drawn on in place.
    """
    check_canvas(canvas)
    arm = ArmTrack(np.asarray(link_positions)[None], np.asarray(ee_pose)[None], np.asarray(gripper_openness)[None])
    camera = CameraTrack(camera_intrinsic, camera_extrinsic, (canvas.shape[1], canvas.shape[0]), lens)
    camera.check_length(1)
    _paint(canvas, plan(arm, camera, 0, 1)[0])


def _strokes(arms: Sequence[ArmTrack], camera: CameraTrack, start: int) -> Iterator[tuple[ArmStrokes, ...]]:
    """What each arm leaves on each frame from `start` on."""
    if not arms:
        raise SkeletonError("no arm to draw; at least one is needed")
    frames = len(arms[0])
    if any(len(arm) != frames for arm in arms):
        raise SkeletonError(f"all arms must have the same number of frames; found {[len(arm) for arm in arms]}")
    if not 0 <= start <= frames:
        raise SkeletonError(f"cannot start at frame {start}; the motion has {frames} frames")
    camera.check_length(frames)
    for begin in range(start, frames, CHUNK):
        yield from zip(*(plan(arm, camera, begin, min(begin + CHUNK, frames)) for arm in arms), strict=True)


def check_canvas(canvas: Any) -> None:
    """Whether OpenCV can draw on `canvas` in place. Raises SkeletonError."""
    if not isinstance(canvas, np.ndarray) or canvas.dtype != np.uint8 or canvas.ndim != 3 or canvas.shape[2] != 3:
        found = f"{canvas.dtype} {canvas.shape}" if isinstance(canvas, np.ndarray) else type(canvas).__name__
        raise SkeletonError(f"the canvas must be a uint8 array (H, W, 3); found {found}")
    check_size((canvas.shape[1], canvas.shape[0]))
    if not (canvas.flags.c_contiguous and canvas.flags.writeable):
        raise SkeletonError("the canvas must be C-contiguous and writable; copy the view first (np.ascontiguousarray)")


def _paint(canvas: UInt8[np.ndarray, "H W 3"], strokes: ArmStrokes) -> None:
    for start, end in strokes.segments:
        cv2.line(canvas, start, end, c.LINK_RGB, c.LINK_THICKNESS_PX)
    for centre in strokes.dots:
        cv2.circle(canvas, centre, c.JOINT_RADIUS_PX, c.JOINT_RGB, -1)
    shown = None
    for arrow, colour in zip(strokes.arrows, c.ARROW_RGB, strict=True):
        # Fingers of a closed gripper repeat the Z arrow, pixel for pixel and in its colour.
        if arrow is not None and (arrow, colour) != shown:
            shown = (arrow, colour)
            cv2.arrowedLine(canvas, arrow[0], arrow[1], colour, c.ARROW_THICKNESS_PX, tipLength=c.ARROW_HEAD_SHARE)
