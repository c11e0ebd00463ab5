# SPDX-License-Identifier: Apache-2.0
"""An object that turns may show another paint; one that is painted anew may not. Outlines of mixed colours are not asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_scenes import FRAMES

from retake.core.geometry import axis_angle
from retake.core.verdicts import examine
from retake.core.verdicts.bodies import bodies
from retake.core.verdicts.colours import measure_colour, revealed, to_nearest
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import load_settings

Paint = Callable[[np.ndarray, int], np.ndarray]
"""RGB of surface points with these normals (object axes) in a frame."""

RED, BLUE, GREEN, YELLOW = (np.array(c, float) for c in ((180, 40, 30), (40, 60, 180), (40, 150, 50), (210, 170, 30)))
MIDWAY = FRAMES // 2


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def plain(colour: np.ndarray) -> Paint:
    return lambda normals, _: np.broadcast_to(colour, normals.shape)


def halves(a: np.ndarray, b: np.ndarray, axis: int = 0) -> Paint:
    return lambda normals, _: np.where(normals[:, axis : axis + 1] > 0, a, b)


def midway(before: Paint, after: Paint) -> Paint:
    return lambda normals, frame: (before if frame < MIDWAY else after)(normals, frame)


def ball(clean: Judged, paint: Paint, degrees: float, radius: int, seed: int = 0) -> Measurement:
    """object_colour of a ball that turns by so much about the vertical during the take, in one place."""
    truth, part = clean.truth, clean.truth.object_parts[0]
    rng = np.random.default_rng(seed)
    poses, labels, area = truth.T_world_part.copy(), np.zeros_like(truth.labels), np.zeros_like(truth.area)
    frames = (np.array([95, 105, 110]) + rng.integers(0, 12, clean.footage.frames.shape)).astype(np.uint8)
    row, column = np.mgrid[0 : labels.shape[1], 0 : labels.shape[2]]
    x, y = (column - 160) / radius, (row - 120) / radius
    inside = x**2 + y**2 < 1
    normals = np.stack([x, y, -np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))], -1)[inside]
    light = 0.6 + 0.4 * np.clip(-normals[:, 2:], 0, 1)
    for t in range(FRAMES):
        turn = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(np.radians(degrees * t / (FRAMES - 1))))
        poses[t, part] = truth.T_world_part[0, part]
        poses[t, part, :3, :3] = turn @ poses[t, part, :3, :3]
        labels[t][inside], area[t, part] = part + 1, inside.sum()
        own = normals @ (truth.T_camera_world[t, :3, :3] @ poses[t, part, :3, :3])
        frames[t][inside] = np.clip(paint(own, t) * light + rng.normal(0, 3, own.shape), 0, 255).astype(np.uint8)
        frames[t] = cv2.GaussianBlur(frames[t], (3, 3), 0)
    seen = replace(truth, T_world_part=poses, labels=labels, area=area)
    body = bodies(replace(clean.footage, frames=frames), seen, part, list(range(0, FRAMES, 2)))
    return measure_colour(body, np.isfinite(body.contrast), seen)


@settings(max_examples=8, deadline=None)
@given(degrees=st.floats(0, 360), axis=st.integers(0, 2), radius=st.integers(6, 14), seed=st.integers(0, 9))
def test_another_side_may_be_painted_otherwise(
    clean: Judged, degrees: float, axis: int, radius: int, seed: int
) -> None:
    found = ball(clean, halves(RED, BLUE, axis), degrees, radius, seed)
    limit = load_settings().threshold("object_colour").limit
    assert found.value is None or found.value < limit, found


@pytest.mark.parametrize("degrees", [0, 30, 90, 360])
def test_one_paint_is_no_news_from_any_side(clean: Judged, degrees: float) -> None:
    found = ball(clean, plain(RED), degrees, 8)
    assert found.value is not None
    assert found.value < 0.05


@pytest.mark.parametrize("degrees", [0, 20, 60, 360])
@pytest.mark.parametrize("paint", [midway(plain(RED), plain(BLUE)), midway(halves(RED, BLUE), halves(GREEN, YELLOW))])
def test_new_paint_midway_fails_though_it_turns(clean: Judged, paint: Paint, degrees: float) -> None:
    found = ball(clean, paint, degrees, 10)
    assert found.value is not None
    assert load_settings().threshold("object_colour").fails(found.value), found


def test_a_new_side_in_new_colours_is_unsure(clean: Judged) -> None:
    """Half a turn in a take: no frame has shown what shows then, and paint cannot be told from a fault."""
    found = ball(clean, midway(plain(RED), plain(BLUE)), 170, 10)
    assert found.value is None
    assert found.applies
    assert "no earlier frame" in found.note


@given(turn=st.floats(0, np.pi), size=st.floats(1, 1e4), before=st.floats(1, 1e4))
def test_what_comes_into_view_is_a_share(turn: float, size: float, before: float) -> None:
    share = revealed(turn, size, before)
    assert 0 <= share <= 1
    assert share >= revealed(0.0, size, before)
    assert revealed(0.0, size, size) == 0


def test_a_highlight_is_no_colour() -> None:
    """Paint and white, brighter than before; the same chroma no brighter than before is another colour."""
    green = np.tile(np.array([[30, 80, 15]], np.uint8), (50, 1))
    lit = np.tile(np.array([[150, 175, 140]], np.uint8), (50, 1))
    assert to_nearest(lit, green).max() < 0.1
    assert to_nearest((lit * 0.25).astype(np.uint8), green).min() > 0.1
    assert to_nearest(green, green).max() == 0


def test_an_outline_of_mixed_colours_is_no_other_posture(clean: Judged) -> None:
    """Video stores colour at half resolution: in a recording as small as the working picture it bleeds over outlines."""
    video = scene.clean_video().copy()
    for t, frame in enumerate(video):
        luma, *chroma = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
        size = (luma.shape[1], luma.shape[0])
        half = [cv2.resize(c, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA) for c in chroma]
        both = [cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in half]
        video[t] = cv2.cvtColor(cv2.merge([luma, *both]), cv2.COLOR_YCrCb2RGB)
    found = examine(video, scene.scene_episode(), "front").verdict.check("object_posture")
    assert clean.truth.px == 1.0
    assert found.value is not None
    assert found.value < 0.2, found
