# SPDX-License-Identifier: Apache-2.0
"""Fingers as large as the take shows them, while they open or close.

Takes are judged at a working size at which a finger of twelve pixels has six, and one that opens some frames early covers a
handful of pixels more. Where the take is larger, the part of the picture that fingers pass through is kept at up to twice the
working size, in the frames that are asked about.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.episode.parts import rigid_parts
from retake.core.verdicts.finger_moments import AROUND
from retake.core.verdicts.footage import Footage, Window, still_scenery
from retake.core.verdicts.gripper_parts import changes, ends, moving_links
from retake.core.verdicts.truth import MOST_PARTS, REFERENCE_WIDTH, Truth, is_static, renumbered

_LARGER, _LEAST = 2, 1.25
"""Working sizes to a close-up's, and from how many on it tells more."""
_MARGIN = 24
"""Pixels around all fingers that are kept."""
_SCENERY, _SCENERY_STEP = 40, 3
"""Frames that show the scenery behind, at most, and frames from one to the next, at least."""


@dataclass(frozen=True, eq=False)
class Watch:
    """What is kept of a take's frames."""

    size: tuple[int, int]
    """(width, height) that a frame is brought to; a smaller one is not watched."""
    window: Window
    """Rows and columns of that size."""
    labels: dict[int, UInt8[np.ndarray, "h w"]]
    """Of every frame that is kept: 0 scenery, 1 + index of the part."""

    def seen(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The window of a frame, RGB."""
        if (frame.shape[1], frame.shape[0]) != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        return frame[self.window].copy()


@dataclass(frozen=True, eq=False)
class CloseUp:
    """Fingers of one take, in a window at `px` pixels per working pixel; places are those of the window."""

    footage: Footage
    """Only the frames that are kept hold anything."""
    truth: Truth
    """`labels` and `area` are the window's; all else is the whole picture's."""
    px: float


def watch_fingers(episode: Episode, camera: str, start: int, working_width: int) -> Watch | None:
    """What to keep of a take that begins at frame `start`; None where a close-up shows no more than the working size, the
    camera moves, or no finger shows. Cached: many takes of one episode share it."""
    key = (episode.content_sha256 + episode.staging, camera, start, working_width)
    with _LOCK:
        if key in _KNOWN:
            _KNOWN.move_to_end(key)
            return _KNOWN[key]
    watch = _planned(episode, camera, start, working_width)
    with _LOCK:
        _KNOWN[key] = watch
        while len(_KNOWN) > 4:
            _KNOWN.popitem(last=False)
    return watch


_KNOWN: OrderedDict[tuple[str, str, int, int], Watch | None] = OrderedDict()
_LOCK = threading.Lock()


def _planned(episode: Episode, camera: str, start: int, working_width: int) -> Watch | None:
    spec, frames = episode.header.camera(camera), len(episode) - start
    width = min(_LARGER * working_width, spec.size[0], REFERENCE_WIDTH)
    if "instances" not in spec.channels or start < 0 or frames < 1 or width < _LEAST * min(working_width, spec.size[0]):
        return None
    if not is_static(episode.camera_matrices(camera)[1][start : start + frames]):
        return None
    size = (width, round(spec.size[1] * width / spec.size[0]))
    parts, table, _ = rigid_parts(episode)
    fingers: set[int] = set()
    asked: set[int] = set()
    for robot in episode.header.robots:
        openness = episode.gripper_openness(robot.name)[start : start + frames]
        q = episode.joint(robot.name, "position")[start : start + 1]
        base = episode.link_poses(robot.name)[start : start + 1, robot.root]
        for k, gripper in enumerate(robot.grippers):
            if not gripper.finger_joints:
                continue
            moved = moving_links(*ends(robot, gripper, q, base))
            fingers |= {i for i, part in enumerate(parts) if part.robot == robot.name and part.link in moved}
            for begin, end in changes(openness[:, k]):
                asked |= set(range(max(begin - AROUND, 0), min(end + AROUND, frames - 1) + 1))
    if not fingers or len(parts) > MOST_PARTS:
        return None
    behind = set(range(0, frames, max(_SCENERY_STEP, frames // _SCENERY)))
    is_finger = np.zeros(256, np.uint8)
    is_finger[[part + 1 for part in fingers]] = 1

    def labels(t: int) -> UInt8[np.ndarray, "h w"]:
        found = renumbered(episode.image(camera, "instances", start + t), table)
        return found if found.shape[::-1] == size else cv2.resize(found, size, interpolation=cv2.INTER_NEAREST_EXACT)

    shown = np.zeros(size[::-1], np.uint8)
    for t in sorted(asked):
        np.maximum(shown, cv2.LUT(labels(t), is_finger), out=shown)
    x, y, across, down = cv2.boundingRect(shown)
    if not across:
        return None
    window = np.s_[max(y - _MARGIN, 0) : y + down + _MARGIN, max(x - _MARGIN, 0) : x + across + _MARGIN]
    # A long episode's pictures are looked at twice, and not all of them kept at once.
    return Watch(size, window, {t: labels(t)[window].copy() for t in sorted(asked | behind)})


def close_up(watch: Watch, kept: dict[int, UInt8[np.ndarray, "h w 3"]], truth: Truth) -> CloseUp | None:
    """The fingers of a take of which these frames were kept; None where none was (the take is smaller than a close-up)."""
    if not kept:
        return None
    px = watch.size[0] / truth.size[0]
    height, width = next(iter(watch.labels.values())).shape
    # What is not kept is never written, and takes no memory.
    frames = np.zeros((len(truth), height, width, 3), np.uint8)
    labels = np.zeros((len(truth), height, width), np.uint8)
    area = np.zeros_like(truth.area)
    for t, picture in kept.items():
        frames[t], labels[t] = picture, watch.labels[t]
        area[t] = np.bincount(labels[t].ravel(), minlength=len(truth.parts) + 1)[1 : len(truth.parts) + 1]
    scenery, known = still_scenery(frames, labels, kept)
    return CloseUp(Footage(frames, scenery, known, 1.0), replace(truth, labels=labels, area=area), px)
