# SPDX-License-Identifier: Apache-2.0
"""A finger more than simulated is found beside its neighbour whatever the light; shadows, light and warps are none."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_scenes import FRAMES

from retake.core.verdicts import examine, load_settings
from retake.core.verdicts.fingers import NAME, measure_fingers
from retake.core.verdicts.gripper_parts import Fingers, find_fingers
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.records import Measurement

HUES = ((200, 90, 30), (40, 60, 200), (30, 170, 60))
"""Of painted fingers, each far from the scene's ground and object."""


@lru_cache(maxsize=1)
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def grippers() -> list[Fingers]:
    return find_fingers(scene.scene_episode(), clean().truth)


def finger() -> int:
    """The finger that shows most."""
    area = clean().truth.area
    return max((part for gripper in grippers() for part in gripper.parts), key=lambda part: float(area[:, part].mean()))


def painted(hue: tuple[int, int, int], aside: int = 0, begin: int = FRAMES) -> np.ndarray:
    """The clean take with fingers of one hue; from frame `begin` on a thicker one again, `aside` px lower."""
    truth, frames = clean().truth, clean().footage.frames.copy()
    robot = [part + 1 for part in truth.robot_parts]
    own = [part + 1 for gripper in grippers() for part in gripper.parts]
    for t in range(FRAMES):
        frames[t][np.isin(truth.labels[t], own)] = hue
        if t >= begin:
            thick = cv2.dilate((truth.labels[t] == finger() + 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            more = np.roll(thick, aside, axis=0) & ~np.isin(truth.labels[t], robot)
            frames[t][more] = hue
    return frames


def measured(frames: np.ndarray) -> Measurement:
    return measure_fingers(replace(clean().footage, frames=frames), clean().truth, grippers())


def threshold() -> float:
    limit = load_settings().threshold(NAME)
    return limit.unsure or limit.limit


@pytest.mark.parametrize("hue", HUES)
def test_a_finger_more_is_found_and_named_once_it_is_there(hue: tuple[int, int, int]) -> None:
    none, found = measured(painted(hue)), measured(painted(hue, 8, FRAMES // 5))
    assert none.value == 0.0
    assert found.value is not None
    assert found.value > load_settings().threshold(NAME).limit
    assert clean().truth.parts[finger()].name in found.note


@pytest.mark.parametrize(("light", "told"), [(1.0, True), (0.75, True), (1.3, True), (0.45, False)])
def test_a_finger_more_is_as_bright_as_its_neighbour(light: float, told: bool) -> None:
    """What a shadow leaves of a table may have a finger's hue, and is darker."""
    frames, own = painted(HUES[0], 8, FRAMES // 5), painted(HUES[0])
    more = (frames != own).any(-1)
    frames[more] = np.clip((frames[more] + 12.0) * light - 12.0, 0, 255).astype(np.uint8)
    assert ((measured(frames).value or 0.0) > load_settings().threshold(NAME).limit) == told


@pytest.mark.parametrize("hue", HUES)
def test_an_object_of_a_fingers_hue_that_is_drawn_wider_is_no_finger(hue: tuple[int, int, int]) -> None:
    """What is held has the fingers' hue, and is 2 working px wider on every side."""
    truth, frames = clean().truth, painted(hue)
    for t in range(FRAMES):
        held = (truth.labels[t] == truth.object_parts[0] + 1).astype(np.uint8)
        wider = cv2.dilate(held, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))) > 0
        frames[t][wider & ((truth.labels[t] == 0) | (held > 0))] = hue
    assert measured(frames).value == 0.0


def test_one_that_shows_for_a_moment_is_none() -> None:
    frames = painted(HUES[0])
    frames[8:16] = painted(HUES[0], 8, 0)[8:16]
    assert (measured(frames).value or 0.0) < threshold()


@settings(deadline=None, max_examples=10)
@given(which=st.integers(0, 2), gain=st.floats(0.3, 0.9), warp=st.floats(-1.5, 1.5), reach=st.integers(2, 12))
def test_shadows_of_the_hand_and_a_picture_that_sways_are_no_finger(
    which: int, gain: float, warp: float, reach: int
) -> None:
    """A shadow that goes along just below the fingers, and a shift of up to 3 px of 640."""
    truth, frames = clean().truth, painted(HUES[which])
    for t in range(FRAMES):
        hand = np.isin(truth.labels[t], [part + 1 for gripper in grippers() for part in gripper.parts])
        cast = np.roll(hand, reach, axis=0) & (truth.labels[t] == 0)
        frames[t][cast] = (frames[t][cast] * gain).astype(np.uint8)
        M = np.array([[1, 0, warp * np.sin(t / 4)], [0, 1, warp * np.cos(t / 5)]], np.float32)
        frames[t] = cv2.warpAffine(frames[t], M, scene.SIZE, borderMode=cv2.BORDER_REPLICATE)
    assert (measured(frames).value or 0.0) < threshold()


def test_a_finger_of_the_hue_of_its_ground_says_nothing_and_a_moving_camera_is_not_asked() -> None:
    truth, frames = clean().truth, clean().footage.frames.copy()
    grey = np.full_like(frames, 128)
    footage = replace(clean().footage, frames=grey, scenery=np.full_like(clean().footage.scenery, 128.0))
    assert (measure_fingers(footage, truth, grippers()).value or 0.0) == 0.0
    moving = measure_fingers(replace(clean().footage, frames=frames), replace(truth, static_camera=False), grippers())
    assert moving.value is None
    assert not moving.applies
    assert not measure_fingers(clean().footage, truth, []).applies


def test_a_faithful_take_has_no_finger_more() -> None:
    assert clean().verdict.check(NAME).status in ("pass", "skipped")
