# SPDX-License-Identifier: Apache-2.0
"""The robot in a painted frame is the simulated one: its pixels times a smooth, bounded light, with a soft rim outside it."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retake.core.errors import VariantError
from retake.core.variants.lock import CAST, GAIN_BOUNDS, light_gain, lock_robot

SIZE = (120, 160)
KEEP = np.zeros(SIZE, bool)
KEEP[30:90, 40:100] = True
RNG = np.random.default_rng(0)
RGB = RNG.integers(60, 160, (*SIZE, 3), dtype=np.uint8)


def lock(painted: np.ndarray, rgb: np.ndarray = RGB, keep: np.ndarray = KEEP, **options):
    return lock_robot(painted, SimpleNamespace(rgb=rgb), SimpleNamespace(keep=keep), **options)


def test_without_relighting_the_robot_is_bit_for_bit_the_simulated_one_and_all_else_the_painted():
    painted = RNG.integers(0, 256, RGB.shape, dtype=np.uint8)
    found = lock(painted, relight=False)
    assert np.array_equal(found.frame[KEEP], RGB[KEEP])
    assert np.array_equal(found.frame[~KEEP], painted[~KEEP])
    assert (found.gain == 1).all()


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_a_painting_that_is_darker_or_brighter_lights_the_robot_so(factor):
    painted = np.clip(RGB * factor, 0, 255).astype(np.uint8)
    found = lock(painted)
    inner = np.zeros(SIZE, bool)
    inner[40:80, 50:90] = True
    assert found.gain[inner].mean() == pytest.approx(factor, abs=0.02)
    assert found.gain[inner].std() < 0.02, "smooth: no edge can move"
    lit = np.clip(RGB * found.gain + 0.5, 0, 255).astype(np.uint8)
    assert np.array_equal(found.frame[KEEP], lit[KEEP])


def test_the_gain_is_bounded():
    for painted, bound in ((np.zeros_like(RGB), GAIN_BOUNDS[0]), (np.full_like(RGB, 255), GAIN_BOUNDS[1])):
        dark = (RGB // 4).astype(np.uint8) if bound > 1 else RGB
        assert light_gain(painted, dark, KEEP)[60, 70] == pytest.approx([bound] * 3, abs=1e-3)


def test_the_robot_takes_on_six_tenths_of_a_cast():
    grey = np.full((*SIZE, 3), 100, np.uint8)
    painted = np.full((*SIZE, 3), (120, 100, 80), np.uint8)
    ratio = np.array([122, 102, 82]) / 102
    level = ratio @ [0.299, 0.587, 0.114]
    assert light_gain(painted, grey, KEEP)[60, 70] == pytest.approx(level * (ratio / level) ** CAST, abs=5e-3)


def test_a_rim_of_one_pixel_outside_is_half_the_robot_and_half_the_painting():
    """In the dark the robot keeps half of its own light, so that its rim lies between the two."""
    found = lock(np.full((*SIZE, 3), 20, np.uint8), np.full((*SIZE, 3), 200, np.uint8))
    rim = (cv2.dilate(KEEP.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~KEEP
    assert (found.frame[KEEP] == 100).all()
    assert (found.frame[rim] == 60).all()
    assert (found.frame[~KEEP & ~rim] == 20).all()


@pytest.mark.parametrize("painted", [np.zeros((120, 161, 3), np.uint8), np.zeros((*SIZE, 3), np.float32)])
def test_a_painting_of_another_kind_is_refused(painted):
    with pytest.raises(VariantError, match=r"the source is \(120, 160, 3\) uint8"):
        lock(painted)


def test_large_pictures_are_lit_as_small_ones():
    """The low pass is a share of the width: worked out on a small picture, it is the same light."""
    large = cv2.resize(RGB, (480, 360), interpolation=cv2.INTER_LINEAR)
    keep = cv2.resize(KEEP.astype(np.uint8), (480, 360), interpolation=cv2.INTER_NEAREST) > 0
    ramp = np.linspace(0.8, 1.2, 480)[None, :, None]
    found = light_gain(np.clip(large * ramp, 0, 255).astype(np.uint8), large, keep)
    assert found.shape == large.shape
    at = found[180, 160:280:40].mean(-1)
    assert at == pytest.approx(ramp[0, 160:280:40, 0], abs=0.04)


def test_black_stays_black_and_white_stays_white_in_any_light():
    rgb = RGB.copy()
    rgb[50:60, 50:60], rgb[70:80, 70:80] = 0, 255
    found = lock(np.clip(rgb * 1.3, 0, 255).astype(np.uint8), rgb)
    assert (found.frame[50:60, 50:60] == 0).all()
    assert (found.frame[70:80, 70:80] == 255).all()
    dark = lock(np.zeros_like(RGB), np.zeros_like(RGB))
    assert (dark.frame == 0).all(), "nothing glows, the rim neither"
    bright = lock(np.full_like(RGB, 255), np.full_like(RGB, 255))
    assert (bright.frame == 255).all()
