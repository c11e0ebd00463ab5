# SPDX-License-Identifier: Apache-2.0
"""The world's light on the robot, where a sun may stand, and what the camera makes of light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overhead import overhead

from retake.core.painter import planes
from retake.core.painter.light import ROBOT_GAIN, Light, Look, robot_gain, robot_gain_planes


def lamp(sun: float, sky: float, ground: float) -> Light:
    """Grey light from straight above."""
    grey = [np.full(3, value, np.float32) for value in (sun, sky, ground)]
    return Light(np.array([0, 0, 1], np.float32), *grey, 1.0, 0.3)


def normals_of(z: np.ndarray) -> np.ndarray:
    """Unit normals × 32767 with these z components, leaning along x."""
    return np.round(32767 * np.stack([np.sqrt(1 - z**2), 0 * z, z], -1)).astype(np.int16)


@given(
    st.floats(0.2, 1), st.floats(0.2, 1), st.floats(0.1, 0.3), st.floats(-0.5, 1), st.sampled_from([100, 160, 330, 480])
)
def test_a_robot_of_one_slope_gets_one_gain(sun: float, sky: float, ground: float, z: float, width: int) -> None:
    """Light on its slope over the light half way between up and the sun."""
    mask = np.zeros((36, width), bool)
    mask[6:30, 10:-10] = True
    slopes = np.where(mask, z, -1.0)
    light = sky * (0.5 + 0.5 * z) + ground * (0.5 - 0.5 * z) + 0.8 * sun * max(z, 0)
    mean = 0.5 * (sky + ground) + 0.25 * (sky - ground) + 0.6 * sun
    found = robot_gain_planes(lamp(sun, sky, ground), normals_of(slopes), mask)
    assert found.shape == (3, 36, width)
    assert np.allclose(found[:, mask], np.clip(light / mean, *ROBOT_GAIN), rtol=3e-3)
    twice = robot_gain(lamp(sun, sky, ground), normals_of(slopes), mask, 1.5)
    assert np.allclose(twice[mask], np.clip(1.5 * light / mean, *ROBOT_GAIN), rtol=3e-3)


@pytest.mark.parametrize("width", [160, 320, 640])
def test_the_gain_follows_the_slope_smoothly_over_the_same_share_of_the_picture(width: int) -> None:
    mask = np.ones((64, width), bool)
    z = np.where(np.arange(width) < width // 2, 0.2, 0.9) * np.ones((64, 1))
    row = robot_gain_planes(lamp(0.6, 0.5, 0.3), normals_of(z), mask)[1, 32]
    weight = np.diff(row) / np.diff(row).sum()
    at = np.arange(width - 1) - (width / 2 - 1)
    spread = np.sqrt((weight * (at - (weight * at).sum()) ** 2).sum())
    assert spread == pytest.approx(0.015 * width, rel=0.2)


def test_a_part_of_the_robot_thinner_than_what_is_sampled_is_lit_as_well() -> None:
    """At 480 px every third pixel is looked at; a finger of one column lies between two of them."""
    mask = np.zeros((60, 480), bool)
    mask[:, 31] = mask[:, 400:440] = True
    z = np.full((60, 480), 0.9)
    light = lamp(0.6, 0.5, 0.3)
    found = robot_gain_planes(light, normals_of(z), mask)
    assert np.allclose(found[:, mask], found[0, 30, 420], rtol=1e-3)
    assert found[0, 30, 420] > 1.1
    nobody = robot_gain_planes(light, normals_of(z), np.zeros_like(mask))
    assert (nobody == 1).all(), "where there is no robot nothing is raised or lowered"


@pytest.mark.parametrize(("said", "kept"), [(0, 8), (8, 8), (40, 40), (88, 88), (120, 88), (-5, 8)])
def test_a_sun_stands_between_horizon_and_zenith(said: float, kept: float) -> None:
    light = Light.of({"elevation_deg": said, "azimuth_deg": 30, "jitter_deg": 0}, np.random.default_rng(0))
    assert np.degrees(np.arcsin(light.to_sun[2])) == pytest.approx(kept, abs=1e-3)
    assert np.degrees(np.arctan2(light.to_sun[1], light.to_sun[0])) == pytest.approx(30, abs=1e-3)
    assert np.linalg.norm(light.to_sun) == pytest.approx(1, abs=1e-6)


@given(st.floats(1, 12), st.integers(0, 200))
def test_a_sun_is_moved_by_no_more_than_its_jitter_and_by_two_fifths_of_it_in_height(jitter: float, seed: int) -> None:
    light = Light.of({"elevation_deg": 45, "azimuth_deg": 0, "jitter_deg": jitter}, np.random.default_rng(seed))
    assert abs(np.degrees(np.arcsin(light.to_sun[2])) - 45) <= 0.4 * jitter + 1e-3
    assert abs(np.degrees(np.arctan2(light.to_sun[1], light.to_sun[0]))) <= jitter + 1e-3


def test_what_is_developed_alone_is_what_it_is_in_the_whole_picture() -> None:
    """Bytes never wrap, however bright or dark and whatever the grain."""
    rng = np.random.default_rng(4)
    look = Look({"grain": 9.0, "vignette": 0.4, "saturation": 0.7}, (30, 20), rng)
    light = rng.uniform(0, 1.5, (3, 600)).astype(np.float32)
    light[:, :60], light[:, 60:120] = 0, 9
    whole = look.develop(light)
    some = np.sort(rng.choice(600, 200, replace=False))
    assert np.array_equal(look.develop(light[:, some], some), whole[:, some])
    assert np.array_equal(look.develop(light[:, 50:90], slice(50, 90)), whole[:, 50:90])
    assert (whole[:, :60].min(), whole[:, :60].max() < 40) == (0, True)
    assert (whole[:, 60:120].min() > 180, whole[:, 60:120].max()) == (True, 255)


def test_a_picture_of_the_scene_is_left_alone() -> None:
    source = overhead()
    kept = replace(source, rgb=source.rgb.copy(), normals=source.normals.copy())
    robot_gain(lamp(0.6, 0.5, 0.3), source.normals, np.ones((48, 64), bool))
    planes.planes_of(source.rgb)[:] = 0
    assert np.array_equal(kept.rgb, source.rgb)
    assert np.array_equal(kept.normals, source.normals)
