# SPDX-License-Identifier: Apache-2.0
"""Planted faults: first frames that are wrong in one known way (used by tests and by scripts/prove/variants.py)."""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.variants import SourceFrame


def plant(kind: str, frame: np.ndarray, source: SourceFrame) -> np.ndarray:
    """A copy of a good frame with one fault of that kind. Sizes scale with the picture's width."""
    height, width = frame.shape[:2]
    robot, unit = source.robot_mask, width / 640
    out = frame.copy()
    if kind == "robot shifted 3 px":
        moved, where = np.roll(frame, round(3 * unit) or 1, 1), np.roll(robot, round(3 * unit) or 1, 1)
        if unit < 1:
            moved, where = np.roll(frame, 3, 1), np.roll(robot, 3, 1)
        out[robot] = frame[~robot].mean(0).astype(np.uint8)
        out[where] = moved[where]
    elif kind == "mirrored":
        out = frame[:, ::-1].copy()
    elif kind == "robot recoloured":
        out[robot] = np.clip(frame[robot] * [1.25, 0.35, 0.3], 0, 255).astype(np.uint8)
    elif kind == "robot missing":
        out = cv2.inpaint(frame, cv2.dilate(robot.astype(np.uint8), np.ones((5, 5))), 5, cv2.INPAINT_TELEA)
    elif kind == "gripper bent 5 px":
        hand = _hand(source)
        y, x = np.indices((height, width), np.float32)
        pull = 5 * max(unit, 0.75) * np.exp(-((x - hand[0]) ** 2 + (y - hand[1]) ** 2) / (2 * (28 * unit) ** 2))
        out = cv2.remap(frame, (x + pull).astype(np.float32), y, cv2.INTER_LINEAR)
    elif kind == "second robot":
        shift = -round(0.28 * width) if np.nonzero(robot)[1].mean() > width / 2 else round(0.32 * width)
        moved, where = np.roll(frame, shift, 1), np.roll(robot, shift, 1)
        where[:, :shift] = False if shift > 0 else where[:, :shift]
        out[where] = moved[where]
    elif kind == "moved table edge":
        step = round(7 * unit) + 1
        moved = np.roll(np.roll(frame, step, 0), step // 2, 1)
        hold = (
            cv2.dilate(
                source.mask("robot:").astype(np.uint8) | source.mask("object:").astype(np.uint8), np.ones((5, 5))
            )
            > 0
        )
        out = np.where(hold[..., None], frame, moved)
    elif kind == "black":
        out = (frame * 0.03).astype(np.uint8)
    elif kind == "burnt out":
        out = np.clip(frame.astype(int) + 190, 0, 255).astype(np.uint8)
    elif kind == "blurred":
        out = cv2.GaussianBlur(frame, (0, 0), 4 * unit)
    elif kind == "object enlarged 15 %":
        task = source.mask("object:" + next(o.name for o in source.header.objects if o.movable))
        rows, columns = np.nonzero(task)
        center = (float(columns.mean()), float(rows.mean()))
        M = cv2.getRotationMatrix2D(center, 0, 1.15)
        grown = cv2.warpAffine(task.astype(np.uint8), M, (width, height)) > 0
        out[grown] = cv2.warpAffine(frame, M, (width, height), flags=cv2.INTER_CUBIC)[grown]
    elif kind == "wrong aspect":
        out = cv2.resize(frame, (width, round(height * 0.75)))
    elif kind == "robot repainted":
        noise = cv2.GaussianBlur(
            np.random.default_rng(0).normal(0, 1, (height, width)).astype(np.float32), (0, 0), 5 * unit
        )
        out[robot] = np.clip(128 + 900 * noise[robot][:, None] * [1, 0.9, 0.8], 0, 255).astype(np.uint8)
    else:
        raise ValueError(kind)
    return out


def _hand(source: SourceFrame) -> np.ndarray:
    """Pixel of the end effector."""
    robot = source.header.robots[0]
    T = source.T_world_link[0][robot.link_index(robot.grippers[0].ee_link)]
    return source.camera.project(T[:3, 3][None])[0][0]


def visible(kind: str, source: SourceFrame) -> bool:
    """Whether a fault of that kind can be seen in this view at all: a wrist camera that a symmetric gripper fills shows
    neither table edge nor whole arm, and an object in the gripper has no outline of its own."""
    robot = source.robot_mask
    if kind in ("gripper bent 5 px", "mirrored", "second robot", "moved table edge"):
        return bool(0 < robot.mean() < 0.2)
    if kind == "object enlarged 15 %":
        task = source.mask("object:" + next(o.name for o in source.header.objects if o.movable))
        rows, columns = np.nonzero(task)
        if len(rows) < 60 or min(rows.min(), columns.min()) < 2:
            return False
        # What is enlarged must show on all sides.
        near = cv2.dilate(task.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        whole = rows.max() < robot.shape[0] - 2 and columns.max() < robot.shape[1] - 2
        return bool(whole and not (near & robot).any())
    return True


KINDS = (
    "robot shifted 3 px", "gripper bent 5 px", "mirrored", "robot recoloured", "robot missing", "second robot",
    "moved table edge", "black", "burnt out", "blurred", "object enlarged 15 %", "wrong aspect", "robot repainted",
)  # fmt: skip
