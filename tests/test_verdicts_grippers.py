# SPDX-License-Identifier: Apache-2.0
"""Openness of fingers: what one gripper shows says nothing about another's."""

from __future__ import annotations

import numpy as np

import retake.core.verdicts.gripper as module
from retake.core.verdicts.gripper import measure_gripper
from retake.core.verdicts.gripper_parts import Fingers
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import load_settings


def test_few_frames_of_each_of_two_grippers_do_not_add_up(monkeypatch):
    """Three frames of a left and three of a right gripper, on a robot far away, are not six frames of either."""
    settings = load_settings().following
    T, steps = 31, len(module._STEPS)
    scores = np.tile(np.linspace(0.0, 1.0, steps), (T, 1))  # the pixels prefer the far end of what is tried
    shown = {}
    monkeypatch.setattr(module, "_scores", lambda _a, _t, gripper, _s: (scores, shown[gripper.parts]))
    monkeypatch.setattr(module, "own_place", lambda *_: np.array([False]))
    sides = [Fingers((number,), np.zeros((T, 1, 2)), np.ones(T)) for number in (0, 1)]

    def judged(frames: int) -> Measurement:
        for number, side in enumerate(sides):
            shown[side.parts] = np.isin(np.arange(T), np.arange(frames) + 10 + number).astype(float)
        return measure_gripper(None, None, range(T), sides, settings)

    few, many = judged(settings.gripper_min_frames // 2), judged(settings.gripper_min_frames)
    assert (few.value, few.applies) == (None, False)
    assert f"in {settings.gripper_min_frames // 2} frames" in few.note
    assert many.value is not None
    assert many.value > 0.3
