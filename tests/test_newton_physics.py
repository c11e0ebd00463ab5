# SPDX-License-Identifier: Apache-2.0
"""Physics and geometry controls of the embedded simulator at reduced counts; `make prove` runs the full ones."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from newton_support import SMALL, physics

from retake.newton.preset import load_preset
from retake.newton.run import capture
from retake.newton.scenario import build


@functools.cache
def trial(robot, seed, **more):
    """Trials are shared by the tests below."""
    return physics().trial(robot, seed, **more)


FULL = os.environ.get("RETAKE_FULL") == "1"
ROBOTS = ("panda", "sixaxis")


@pytest.mark.parametrize("robot", ROBOTS)
def test_packet_ends_in_the_tray(robot):
    """By friction alone, over drawn places, sizes, masses and drop heights."""
    trials = [trial(robot, seed) for seed in range(100, 140 if FULL else 103)]
    assert np.mean([t.in_target for t in trials]) >= 0.95
    for t in trials:
        assert t.rise_m > 0.05, t
        assert t.slip_m < 0.015, t
        assert t.penetration_m < 0.005, t


@pytest.mark.parametrize("robot", ROBOTS)
def test_without_friction_nothing_is_lifted(robot):
    """The control that tells a grasp from an attachment or a tilted contact."""
    for seed in range(100, 110 if FULL else 101):
        t = trial(robot, seed, friction=0.0)
        assert t.rise_m < physics().LIFTED_M, t
        assert not t.in_target


@pytest.mark.parametrize("robot", ROBOTS)
def test_fingers_carry_the_weight(robot):
    """Mean contact force on the packet while it travels at constant velocity."""
    for seed in range(100, 105 if FULL else 103):
        # The short preset's stretch is 0.8 s, the long one's 1.2 s.
        t = trial(robot, seed, preset="long") if FULL else trial(robot, seed)
        assert t.force_over_weight == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("robot", ROBOTS)
def test_masks_agree_with_our_projection(robot, tmp_path):
    """Every pixel of the robot's and the packet's mask lies within 1 px of the geometry's own projection."""
    proof = physics()
    phases = dict.fromkeys(load_preset("short", {}).phases, 0.16)
    overrides = {
        "stage": proof.STAGES[robot],
        "frames": 21,
        "phases": phases,
        "cameras": [{**SMALL[0], "size": [640, 480]}] if FULL else SMALL[:1],
        # A short episode moves fast; limits are not what is tested here.
        "randomise": {"object_offset_m": [0.0, 0.0], "object_yaw_deg": 0.0},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retake.newton.pick_place._check_speed", lambda spec, path: None)
        episode = capture(tmp_path / "e", seed=2, overrides=overrides)
        stage = build(load_preset("short", overrides), 2).stage
    errors = proof.mask_errors(episode, stage, range(0, 21, 1 if FULL else 7))
    assert min(e.pixels for e in errors) > 100
    assert [e for e in errors if e.beyond_1px] == []


def test_a_shifted_camera_is_noticed(tmp_path):
    """The mask comparison can fail: two pixels off is seen."""
    proof = physics()
    overrides = {"frames": 1, "scenario": "hold", "cameras": SMALL[:1]}
    episode = capture(tmp_path / "e", overrides=overrides)
    stage = build(load_preset("short", overrides), 0).stage
    assert sum(e.beyond_1px for e in proof.mask_errors(episode, stage, range(1))) == 0

    class Shifted:
        header, link_poses, object_poses, image = (
            episode.header,
            episode.link_poses,
            episode.object_poses,
            episode.image,
        )

        @staticmethod
        def camera(name: str, frame: int):
            return episode.camera(name, frame).cropped(2, 0, (318, 240))

    assert sum(e.beyond_1px for e in proof.mask_errors(Shifted(), stage, range(1))) > 100


def test_usd_frustum_is_our_projection():
    assert physics().frustum_error_px(10_000 if FULL else 50) < 1e-6
