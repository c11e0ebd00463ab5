# SPDX-License-Identifier: Apache-2.0
"""When a gripper opens, told by what its fingers cover: drawn hands that open early or late, and what looks as if they did."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.verdicts.finger_moments import early_by, own_place
from retake.core.verdicts.footage import Footage

FRAMES, SIZE, BEGIN, END = 30, (120, 90), 13, 17
"""A gripper opens from frame BEGIN to END."""
WIDE = 12.0
"""Working px that a finger travels from closed to open."""
GROUND, FINGER = (150, 160, 170), (60, 40, 30)


def openness(early: float = 0.0) -> np.ndarray:
    """Half open, then open; `early` frames before that."""
    return np.interp(np.arange(FRAMES) + early, [BEGIN, END], [0.5, 1.0])


def finger(side: int, opening: float, at: tuple[float, float], length: float, wide: float = 5.0) -> np.ndarray:
    """Share 0..1 of every pixel that a finger covers, hanging below a hand at `at`."""
    fine = 8
    mask = np.zeros((SIZE[1] * fine, SIZE[0] * fine), np.uint8)
    x0 = at[0] + (side * (3 + WIDE * opening) - wide / 2)
    corners = (np.array([x0, at[1], x0 + wide, at[1] + length]) * fine).round().astype(int)
    cv2.rectangle(mask, corners[:2].tolist(), (corners[2:] - 1).tolist(), 1, -1)
    return cv2.resize(mask.astype(np.float32), SIZE, interpolation=cv2.INTER_AREA)


def scene(
    early: float = 0.0, *, seed: int = 0, noise: float = 2.0, length: float = 18.0, wider: float = 0.0, moves: float = 0.0,
    colour: tuple[int, int, int] = FINGER, static: bool = True, shadow: float = 0.0,
    plain: bool = False,
) -> tuple[Footage, Any, np.ndarray, np.ndarray]:  # fmt: skip
    """(footage, truth, travel, openness) of two fingers that open `early` frames before the simulation says so. moves: working px
    per frame that the hand moves; wider: px by which a painter draws the fingers wider; shadow: share of light taken below;
    plain: the table has no texture."""
    rng = np.random.default_rng(seed)
    texture = (not plain) * cv2.GaussianBlur(rng.normal(0, 40, (SIZE[1], SIZE[0])).astype(np.float32), (0, 0), 2)
    ground = np.clip(np.array(GROUND, np.float32) + texture[..., None], 0, 255)
    told, shown = openness(), openness(early)
    labels, frames = np.zeros((FRAMES, SIZE[1], SIZE[0]), np.uint8), []
    for t in range(FRAMES):
        picture, at = ground.copy(), (50 + moves * t, 30.0)
        if shadow:
            picture[52:62, 20:100] *= 1 - shadow
        for k, side in enumerate((-1, 1)):
            labels[t][finger(side, told[t], at, length) >= 0.5] = k + 1
            cover = finger(side, shown[t], at, length, 5.0 + wider)[..., None]
            picture = picture * (1 - cover) + np.array(colour, np.float32) * cover
        frames.append(np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8))
    travel = np.tile(np.array([[-WIDE, 0.0], [WIDE, 0.0]]), (FRAMES, 1, 1))
    area = np.stack([(labels == k + 1).sum((1, 2)) for k in range(2)], 1).astype(float)

    class Truth(SimpleNamespace):
        def __len__(self) -> int:
            return FRAMES

    known = np.full((SIZE[1], SIZE[0]), static)
    truth = Truth(labels=labels, area=area, static_camera=static)
    return Footage(np.stack(frames), ground.astype(np.float32), known, 1.0), truth, travel, told


def told(early: float = 0.0, **how: Any) -> float | None:
    footage, truth, travel, opening = scene(early, **how)
    return early_by(footage, truth, (0, 1), travel, opening, BEGIN, END, 7)


@given(
    early=st.sampled_from([-4.0, -3.0, -2.0, 2.0, 3.0, 4.0]), seed=st.integers(0, 99), noise=st.floats(0, 10),
    wider=st.floats(-1, 2), moves=st.floats(-0.5, 0.5),
)  # fmt: skip
@settings(deadline=None)
def test_a_change_at_another_moment_is_told_to_the_frame(
    early: float, seed: int, noise: float, wider: float, moves: float
) -> None:
    assert told(early, seed=seed, noise=noise, wider=wider, moves=moves) == pytest.approx(early, abs=1)


@given(
    seed=st.integers(0, 99), noise=st.floats(0, 15), wider=st.floats(-1.5, 2.5), moves=st.floats(-0.5, 0.5),
    shadow=st.floats(0, 0.5),
)  # fmt: skip
@settings(deadline=None)
def test_a_faithful_change_is_not_accused(seed: int, noise: float, wider: float, moves: float, shadow: float) -> None:
    found = told(seed=seed, noise=noise, wider=wider, moves=moves, shadow=shadow)
    assert found is not None
    assert abs(found) <= 1  # a painter that draws wider fingers covers the scenery a little earlier


def test_a_frame_is_given_or_taken() -> None:
    assert abs(told(1.0) or 0.0) <= 1.5


@pytest.mark.parametrize(
    "how",
    [{"length": 2.0}, {"colour": GROUND, "plain": True}, {"static": False}],
    ids=["tiny", "like the table", "moving"],
)
def test_what_cannot_be_seen_is_not_judged(how: dict[str, Any]) -> None:
    assert told(3.0, **how) is None


def test_another_part_beside_the_fingers_is_not_taken_for_them() -> None:
    """What is held has the fingers' colour and lies at their inner sides."""
    footage, truth, travel, opening = scene()
    for t in range(FRAMES):
        inside = slice(50 - int(WIDE * 0.5), 50 + int(WIDE * 0.5))
        truth.labels[t][34:50, inside] = np.where(
            truth.labels[t][34:50, inside] == 0, 9, truth.labels[t][34:50, inside]
        )
        footage.frames[t][34:50, inside] = FINGER
    assert early_by(footage, truth, (0, 1), travel, opening, BEGIN, END, 7) == 0.0


@pytest.mark.parametrize("early", [-3.0, 0.0, 3.0])
def test_what_is_shown_twice_as_large_says_the_same_or_more(early: float) -> None:
    footage, truth, travel, opening = scene(early)
    large = footage.frames.repeat(2, 1).repeat(2, 2), footage.scenery.repeat(2, 0).repeat(2, 1)
    truth.labels, truth.area = truth.labels.repeat(2, 1).repeat(2, 2), 4 * truth.area
    close = Footage(*large, footage.known.repeat(2, 0).repeat(2, 1), 1.0)
    found = early_by(close, truth, (0, 1), 2 * travel, opening, BEGIN, END, 7, 2.0)
    assert found == pytest.approx(early, abs=1)
    # In pixels of its own it would look too near for such fingers.
    truth.area = truth.area / 64
    assert early_by(close, truth, (0, 1), 2 * travel, opening, BEGIN, END, 7, 2.0) is None


def test_a_gripper_that_had_opened_before_it_shows_is_told_between_all_such_moments() -> None:
    """Hidden by what it holds from two frames before it opens: it may have opened at any time in between."""
    footage, truth, travel, opening = scene(6.0)
    for t in range(FRAMES):
        if t < BEGIN - 2:
            truth.labels[t][:] = 9
            truth.area[t] = 0
    found = early_by(footage, truth, (0, 1), travel, opening, BEGIN, END, 7)
    assert found is not None
    assert found > 1.5


def refuted(errors: list[float], frames: range, early: float = 0.0, **how: Any) -> list[bool]:
    footage, truth, travel, _ = scene(early, **how)
    return own_place(footage, truth, (0, 1), travel, np.array(errors), frames).tolist()


OPEN, HALF = range(18, 28, 2), range(2, 11, 2)
"""Frames in which the gripper is open, and half open."""


@given(
    seed=st.integers(0, 99), noise=st.floats(0, 10), wider=st.floats(-1, 1.5), moves=st.floats(-0.5, 0.5),
    error=st.sampled_from([-0.5, -0.4, -0.3, 0.3, 0.4, 0.5]),
)  # fmt: skip
@settings(deadline=None)
def test_known_scenery_where_fingers_would_be_speaks_against_another_opening(
    seed: int, noise: float, wider: float, moves: float, error: float
) -> None:
    how: dict[str, Any] = {"seed": seed, "noise": noise, "wider": wider, "moves": moves}
    assert refuted([error], OPEN, **how) == refuted([error], HALF, **how) == [True]


@given(seed=st.integers(0, 99), noise=st.floats(0, 10), wider=st.floats(-1, 1.5), moves=st.floats(-0.5, 0.5))
@settings(deadline=None)
def test_fingers_that_are_elsewhere_are_never_said_to_be_in_their_place(
    seed: int, noise: float, wider: float, moves: float
) -> None:
    """Open by ten frames too early: 6 px further out than simulated."""
    assert refuted([0.5, 0.4, 0.3], HALF, 10.0, seed=seed, noise=noise, wider=wider, moves=moves) == [False] * 3


@pytest.mark.parametrize(
    "how",
    [{"length": 2.0}, {"colour": GROUND, "plain": True}, {"static": False}],
    ids=["tiny", "like the table", "moving"],
)
def test_what_cannot_be_seen_speaks_against_nothing(how: dict[str, Any]) -> None:
    assert refuted([-0.5, 0.5], OPEN, **how) == [False, False]


def test_beyond_what_is_looked_at_nothing_is_said() -> None:
    assert refuted([-0.5, -0.51, -1.0], OPEN) == [True, False, False]
