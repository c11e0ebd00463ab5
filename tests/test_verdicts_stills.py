# SPDX-License-Identifier: Apache-2.0
"""Things that stand still before a camera that does: a drawer that opens towards it, light and shadow that only pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.verdicts.footage import Footage
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.stills import measure_stills

FRAMES, SIZE = 60, (160, 120)
SETTINGS = load_settings().stability
BOX = (60, 45, 100, 75)
"""x0, y0, x1, y1 of a drawer's front, working px."""


def drawn(t: int, grow: float, seed: int = 0, shade: np.ndarray | None = None, noise: float = 1.0) -> np.ndarray:
    """Frame t of a cabinet with a drawer whose front is `grow` px larger on every side, hardly told from it: RGB float."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.normal(0, 30, (SIZE[1], SIZE[0])).astype(np.float32), (0, 0), 1.5)
    picture = np.array((150, 140, 130), np.float32) + texture[..., None]
    cv2.rectangle(picture, (48, 36), (112, 84), (90, 70, 120), -1)
    x0, y0, x1, y1 = np.array(BOX) + np.array([-1, -1, 1, 1]) * grow
    fine = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    corners = (np.array([x0, y0, x1, y1]) * 4).round().astype(int)
    cv2.rectangle(fine, corners[:2].tolist(), corners[2:].tolist(), (105, 85, 135), -1)
    middle, half = (corners[:2] + corners[2:]) // 2, (corners[2:] - corners[:2]) / 2
    for share, colour in (
        (0.75, (80, 60, 110)),
        (0.6, (110, 90, 140)),
        (0.2, (60, 45, 85)),
    ):  # a frame, its board, a knob
        cv2.rectangle(
            fine, (middle - share * half).astype(int).tolist(), (middle + share * half).astype(int).tolist(), colour, -1
        )
    picture = cv2.resize(fine, SIZE, interpolation=cv2.INTER_AREA)
    if shade is not None:
        picture = picture * shade[..., None]
    return picture + np.random.default_rng([seed, t]).normal(0, noise, picture.shape)


def measured(pictures: list[np.ndarray]) -> Any:
    frames = np.stack([np.clip(p, 0, 255).astype(np.uint8) for p in pictures])
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1

    class Truth(SimpleNamespace):
        def __len__(self) -> int:
            return FRAMES

        def is_still(self, _: int) -> bool:
            return True

    labels = np.zeros((FRAMES, SIZE[1], SIZE[0]), np.uint8)
    truth = Truth(
        static_camera=True,
        stills=("drawer",),
        still_labels=mask,
        parts=(),
        labels=labels,
        area=np.zeros((FRAMES, 0)),
        px=2.0,
    )
    footage = Footage(frames, frames[0].astype(np.float32), np.ones(mask.shape, bool), 1.0)
    return measure_stills(footage, truth, SETTINGS)  # type: ignore[arg-type]


def lit(t: int, first: int, last: int, dark: float, slope: float) -> np.ndarray:
    """Light with the edge of a shadow that crosses the picture from frame `first` to `last`."""
    x = np.indices((SIZE[1], SIZE[0]))[1] + slope * np.indices((SIZE[1], SIZE[0]))[0]
    edge = np.interp(t, [first, last], [20, 150])
    return cv2.GaussianBlur(np.where(np.abs(x - edge) < 14, 1 - dark, 1.0).astype(np.float32), (0, 0), 0.8)


@given(opening=st.floats(4, 8), begin=st.integers(8, 30), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_drawer_that_opens_towards_the_camera_is_told(opening: float, begin: int, seed: int) -> None:
    found = measured([drawn(t, opening * float(np.clip((t - begin) / 8, 0, 1)), seed) for t in range(FRAMES)])
    assert (found.value or 0.0) > 4
    assert found.note == "drawer"


@given(
    seed=st.integers(0, 99),
    noise=st.floats(0, 6),
    dark=st.floats(0, 0.6),
    slope=st.floats(-1, 1),
    begin=st.integers(0, 30),
)
@settings(deadline=None)
def test_a_shadow_that_passes_moves_nothing(seed: int, noise: float, dark: float, slope: float, begin: int) -> None:
    found = measured([drawn(t, 0, seed, lit(t, begin, begin + 25, dark, slope), noise) for t in range(FRAMES)])
    assert found.value == 0.0


@pytest.mark.parametrize("comes", [True, False])
def test_a_shadow_that_stays_or_leaves_for_good_moves_nothing(comes: bool) -> None:
    """It lies over half the drawer before, or after, the middle of the take."""
    half = np.where(np.indices((SIZE[1], SIZE[0]))[1] < 80, 0.5, 1.0).astype(np.float32)
    found = measured([drawn(t, 0, 0, half if (t >= FRAMES // 2) == comes else None) for t in range(FRAMES)])
    assert found.value == 0.0
