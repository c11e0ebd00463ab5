# SPDX-License-Identifier: Apache-2.0
"""What a picture cannot show counts against nobody: how far a straight edge moved along itself, where a point went that does
not come back, which colour a small dark link has under a blurred outline."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import assume, given
from hypothesis import strategies as st
from verdict_scenes import FRAMES

from retake.core.verdicts import examine
from retake.core.verdicts.geometry import nearer, shown_of
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.stability import measure_stability, part_colours
from retake.core.verdicts.trackers import LucasKanade

SIZE = (240, 180)


def edge(angle: float, offset: float) -> np.ndarray:
    """A picture (180, 240, 3) of one straight edge, dark on bright, without smoothing: slanted edges have steps."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]].astype(float)
    across = np.cos(angle) * (u - SIZE[0] / 2) + np.sin(angle) * (v - SIZE[1] / 2)
    return np.repeat(np.where(across < offset, 60, 180).astype(np.uint8)[..., None], 3, 2)


def texture(seed: int) -> np.ndarray:
    """A picture (180, 240, 3) of blotches."""
    noise = np.random.default_rng(seed).uniform(0, 255, (SIZE[1], SIZE[0])).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0)
    soft = (soft - soft.mean()) * 40 / soft.std() + 128
    return np.repeat(np.clip(soft, 0, 255).astype(np.uint8)[..., None], 3, 2)


def followed(first: np.ndarray, second: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, ...]:
    """Start, place, prediction and visible shift of the corners of `first` away from the border, by `motion` (px)."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    inner = np.zeros_like(greys[0])
    inner[25:-25, 25:-25] = 1
    corners = cv2.goodFeaturesToTrack(greys[0], 150, 0.03, 5, mask=inner)
    assume(corners is not None)
    start = np.asarray(corners).reshape(-1, 2).astype(np.float64)
    tracks, seen = LucasKanade().track(np.stack([first, second]), start)
    expected = start + motion
    place, _ = nearer(greys[0], greys[1], start, tracks[-1], seen[-1], expected)
    place, shift = shown_of(greys[0], start, place, expected)
    return start, place, expected, shift


@given(
    angle=st.floats(0.2, 1.35), across=st.floats(3.5, 8), along=st.floats(-12, 12), wrong=st.sampled_from([0.0, 5.0]),
)  # fmt: skip
def test_a_straight_edge_shows_what_moves_across_it_alone(
    angle: float, across: float, along: float, wrong: float
) -> None:
    n, tangent = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    motion = (across + wrong) * n + along * tangent
    _, place, expected, shift = followed(edge(angle, -4), edge(angle, across - 4), motion)
    assert np.allclose(shift, across + wrong, atol=0.8), "the predicted motion along the edge cannot be seen"
    found = np.isfinite(place).all(1)
    off = (place - expected)[found]
    assert np.abs(off @ tangent).max(initial=0) < 1.0, "nothing is claimed along the edge"
    if found.sum() >= 5:
        assert np.median(off @ n) == pytest.approx(-wrong, abs=0.8)


@given(seed=st.integers(0, 99), x=st.integers(-9, 9), y=st.integers(-9, 9), wrong=st.sampled_from([0.0, 7.0]))
def test_texture_shows_all_of_a_motion(seed: int, x: int, y: int, wrong: float) -> None:
    first = texture(seed)
    second = np.roll(first, (y, x), axis=(0, 1))
    _, place, expected, shift = followed(first, second, np.array([x + wrong, y]))
    found = np.isfinite(place).all(1)
    assert found.mean() > 0.8
    # Blotches that lie in a row look like an edge here and there; the others say all.
    assert np.median(np.linalg.norm(place - expected, axis=1)[found]) == pytest.approx(wrong, abs=0.3)
    assert np.median(shift) == pytest.approx(np.hypot(x + wrong, y), abs=0.3)


@given(seed=st.integers(0, 99))
def test_a_point_that_does_not_come_back_is_nowhere(seed: int) -> None:
    _, place, _, _ = followed(texture(seed), texture(seed + 1000), np.array([4.0, 0.0]))
    assert np.isfinite(place).all(1).mean() < 0.35


colour = st.tuples(*[st.floats(20, 235)] * 3).map(np.array)


@given(inside=colour, outside=colour, width=st.integers(6, 40), height=st.integers(6, 40))
def test_half_of_an_outline_is_taken_off(inside: np.ndarray, outside: np.ndarray, width: int, height: int) -> None:
    """Pixels of the outline show both sides alike: one of the colours is that inside."""
    mask = np.zeros((60, 80), bool)
    mask[10 : 10 + height, 12 : 12 + width] = True
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    frame = np.where(mask[..., None], (inside + outside) / 2, outside)
    frame[core] = inside
    found = part_colours(np.round(frame).astype(np.uint8), mask)
    assert found is not None
    assert np.abs(found[-1] - inside).max() < 2.0
    assert part_colours(frame.astype(np.uint8), np.zeros_like(mask)) is None


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def identity(clean: Judged, robot: tuple, surroundings: tuple, tint: tuple = (1, 1, 1)) -> float:
    """robot_identity of a robot of one colour whose surroundings turn from grey to a colour midway, and its own colour to
    another by `tint`; encoded with half the chroma, as videos are."""
    truth, frames = clean.truth, []
    links = np.isin(truth.labels, np.array(truth.robot_parts) + 1)
    for t in range(FRAMES):
        later = t >= FRAMES // 2
        own = np.array(robot, float) * (np.array(tint) if later else 1.0)
        picture = np.where(links[t][..., None], own, np.array(surroundings if later else (90, 90, 90), float))
        soft = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.7)
        luma, *chroma = cv2.split(cv2.cvtColor(np.round(soft).astype(np.uint8), cv2.COLOR_RGB2YCrCb))
        size = (luma.shape[1], luma.shape[0])
        chroma = [
            cv2.resize(cv2.resize(c, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA), size) for c in chroma
        ]
        frames.append(cv2.cvtColor(cv2.merge([luma, *chroma]), cv2.COLOR_YCrCb2RGB))
    footage = replace(clean.footage, frames=np.stack(frames))
    found = measure_stability(footage, truth, np.zeros(FRAMES), load_settings().stability)
    return next(float(m.value or 0.0) for m in found if m.name == "robot_identity")


@pytest.mark.parametrize("surroundings", [(190, 130, 60), (60, 110, 190), (230, 230, 230)])
@pytest.mark.parametrize("robot", [(30, 28, 24), (45, 45, 48), (120, 120, 125)])
def test_other_surroundings_are_no_other_robot(clean: Judged, robot: tuple, surroundings: tuple) -> None:
    limit = load_settings().thresholds["robot_identity"].limit
    assert identity(clean, robot, surroundings) < 0.2 * limit


@pytest.mark.parametrize("surroundings", [(90, 90, 90), (190, 130, 60)])
@pytest.mark.parametrize("robot", [(45, 45, 48), (60, 50, 40), (120, 120, 125)])
@pytest.mark.parametrize("tint", [(1.4, 1, 0.7), (0.7, 1, 1.4), (1.8, 0.6, 0.6)])
def test_another_colour_is_another_robot(clean: Judged, robot: tuple, surroundings: tuple, tint: tuple) -> None:
    limit = load_settings().thresholds["robot_identity"].limit
    assert identity(clean, robot, surroundings, tint) > limit


def encoded(picture: np.ndarray) -> np.ndarray:
    """RGB as a video keeps it: light at the whole resolution, hue at half of it."""
    luma, *chroma = cv2.split(cv2.cvtColor(np.round(picture).astype(np.uint8), cv2.COLOR_RGB2YCrCb))
    size = (luma.shape[1], luma.shape[0])
    half = [cv2.resize(c, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA) for c in chroma]
    return cv2.cvtColor(cv2.merge([luma, *(cv2.resize(c, size) for c in half)]), cv2.COLOR_YCrCb2RGB)


def small_part(clean: Judged, own: tuple, later: tuple) -> float:
    """robot_identity of a part of 11 x 19 px, before sand in the first half of the take and before a blue sky later."""
    truth, part = clean.truth, clean.truth.robot_parts[0]
    labels, area, frames = np.zeros_like(truth.labels), np.zeros_like(truth.area), []
    labels[:, 103:122, 0:11], area[:, part] = part + 1, 11 * 19
    for t in range(FRAMES):
        early = t < FRAMES // 2
        picture = np.full((*labels.shape[1:], 3), (205, 182, 138) if early else (95, 125, 180), np.uint8)
        picture[labels[t] > 0] = own if early else later
        frames.append(encoded(picture))
    footage = replace(clean.footage, frames=np.stack(frames))
    shown = replace(truth, labels=labels, area=area)
    found = measure_stability(footage, shown, np.zeros(FRAMES), load_settings().stability)
    return next(float(m.value or 0.0) for m in found if m.name == "robot_identity")


def test_the_hue_that_spills_over_a_small_dark_part_is_not_its_own(clean: Judged) -> None:
    """Hue is encoded at half the resolution: it reaches a px further than light does."""
    limit = load_settings().thresholds["robot_identity"].limit
    assert small_part(clean, (20, 20, 20), (20, 20, 20)) < 0.3 * limit
    assert small_part(clean, (60, 60, 60), (90, 55, 35)) > limit
