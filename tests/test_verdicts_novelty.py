# SPDX-License-Identifier: Apache-2.0
"""Postures of objects, free falls, flashes, takes that nobody dressed, robots that swell: what is planted is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_motion
from verdict_scenes import FRAMES

from retake.core.geometry import axis_angle
from retake.core.verdicts import examine, judge, load_settings, novelty
from retake.core.verdicts.falls import GRAVITY, measure_fall
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.novelty import measure_novelty
from retake.core.verdicts.posture_shapes import body_hull, shows_body
from retake.core.verdicts.postures import measure_posture
from retake.core.verdicts.tracking import Track
from retake.core.verdicts.truth import Truth


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def standing(change: object) -> np.ndarray:
    """Poses of the packet, each after its release changed by `change(pose)`."""
    motion = make_motion(FRAMES, 15.0, 0)
    poses = motion.T_world_packet.copy()
    for t in range(motion.release_frame, FRAMES):
        poses[t] = change(poses[t])  # type: ignore[operator]
    return poses


def turned(pose: np.ndarray, degrees: float) -> np.ndarray:
    out = pose.copy()
    out[:3, :3] = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(np.radians(degrees))) @ pose[:3, :3]
    return out


def posture_of(maps: object) -> float | None:
    judged = examine(scene.paint(maps), scene.scene_episode(), "front")  # type: ignore[arg-type]
    return judged.verdict.check("object_posture").value


def test_a_faithful_object_fits_no_other_posture(clean: Judged) -> None:
    check = clean.verdict.check("object_posture")
    assert check.status in ("pass", "skipped"), check


def test_a_turned_object_is_told(clean: Judged) -> None:
    """Of one colour all over, against ground of one colour: its outline alone tells."""
    faithful = clean.verdict.check("object_posture").value or 0.0
    assert (posture_of(scene.posed_maps(standing(lambda pose: turned(pose, 45)))) or 0.0) > faithful + 0.25


def test_an_object_that_is_no_larger_than_simulated_is_not_larger(clean: Judged) -> None:
    hull = body_hull(clean.truth, scene.scene_episode(), "front", clean.truth.object_parts[0])
    assert hull is not None
    extent = np.ptp(hull, axis=0)
    assert (extent > 0.01).all()
    assert (extent < 0.3).all()


@given(st.floats(0.3, 3.0), st.floats(0.05, 0.45))
def test_a_body_is_learned_where_it_is_seen_whole(distance: float, share: float) -> None:
    """Near views of which the border leaves a share, and whole ones from afar."""
    near, far = np.full(8, 4000.0 / distance**2), np.full(5, 4000.0 / (4 * distance) ** 2)
    area, away = np.concatenate([share * near, far]), np.repeat([distance, 4 * distance], [8, 5])
    assert shows_body(area, away).tolist() == (
        [] if area.max() < 60 else [8, 9, 10, 11, 12] if far[0] >= 60 else list(range(8))
    )


@pytest.mark.parametrize("degrees", [15, -20])
def test_a_turned_wrist_is_told_by_its_angle(clean: Judged, degrees: float) -> None:
    """The scene's only turning joint is at its base: everything beyond it turns, from a third of the take on."""
    motion = make_motion(FRAMES, 15.0, 0)
    links = motion.T_world_link.copy()
    turn = np.eye(4)
    turn[:3, :3] = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(np.radians(degrees)))
    links[FRAMES // 3 :, 1:] = turn @ links[FRAMES // 3 :, 1:]
    judged = examine(scene.paint(scene.posed_maps(motion.T_world_packet, links)), scene.scene_episode(), "front")
    found = judged.verdict.check("wrist_turn")
    assert clean.verdict.check("wrist_turn").value == 0.0
    assert found.status == "fail"
    assert found.value == pytest.approx(abs(degrees), abs=4)


def test_posture_needs_depth_and_says_so(clean: Judged) -> None:
    episode = scene.scene_episode()

    class Blind:
        header = replace(
            episode.header, cameras=tuple(replace(c, channels=("rgb", "instances")) for c in episode.header.cameras)
        )

    found = measure_posture(
        clean.footage, clean.truth, Blind(), "front", clean.truth.object_parts[0], ["before"] * FRAMES,  # type: ignore[arg-type]
        load_settings().object,
    )  # fmt: skip
    assert found.value is None
    assert not found.applies
    assert "depth" in found.note


@given(st.floats(0.3, 1.7), st.integers(12, 30))
def test_a_fall_is_as_fast_as_its_frames_say(share: float, frames: int) -> None:
    """A level camera two metres away sees the object fall with a share of gravity, whatever the simulation did."""
    truth, track = falling(share, frames)
    found = measure_fall(track, truth, track.part, ["held"] * len(truth.T_world_part))
    assert found.value == pytest.approx(abs(1 - share), abs=0.02)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_short_fall_tells_nothing(frames: int) -> None:
    truth, track = falling(1.0, frames)
    found = measure_fall(track, truth, track.part, ["held"] * len(truth.T_world_part))
    assert found.value is None
    assert not found.applies
    assert "needed" in found.note


def falling(share: float, frames: int) -> tuple[Truth, Track]:
    """A fall of `frames` frames at 30 per second in a take whose object accelerates with a share of gravity."""
    fps, rest = 30.0, 6
    count = 2 * rest + frames
    time = np.clip(np.arange(count) - rest, 0, frames) / fps
    height, shown = (3.0 - 0.5 * g * time**2 for g in (GRAVITY, share * GRAVITY))
    truth = object.__new__(Truth)
    poses = np.broadcast_to(np.eye(4), (count, 1, 4, 4)).copy()
    poses[:, 0, 2, 3] = height
    T = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2.0], [0, 0, 0, 1]])
    K = np.array([[200.0, 0, 160], [0, 200, 120], [0, 0, 1]])
    for name, value in {
        "T_world_part": poses, "fps": fps, "K": np.broadcast_to(K, (count, 3, 3)),
        "T_camera_world": np.broadcast_to(T, (count, 4, 4)),
    }.items():  # fmt: skip
        object.__setattr__(truth, name, value)
    expected = np.stack([np.full(count, 160.0), 120 - 100 * height], 1)
    found = np.stack([np.full(count, 160.0), 120 - 100 * shown], 1)
    nothing = np.zeros(count)
    return truth, Track(
        0, found, expected, nothing, nothing, nothing, expected, 1.0, np.zeros((count, 1, 1), np.float32)
    )


@pytest.mark.parametrize("frames", [(0, 1), (0, 2), (12, 13), (20, 22)])
@pytest.mark.parametrize("gain", [0.75, 1.35])
def test_a_flash_fails_wherever_it_is(clean: Judged, frames: tuple[int, int], gain: float) -> None:
    video = scene.clean_video().astype(np.float32)
    video[slice(*frames)] *= gain
    flashed = Footage(
        np.clip(video, 0, 255).astype(np.uint8), clean.footage.scenery, clean.footage.known, clean.footage.contrast
    )
    found = {m.name: m for m in measure_novelty(flashed, clean.truth, scene.scene_episode(), "front")}["flash"]
    assert load_settings().threshold("flash").fails(found.value or 0.0)
    assert frames[0] <= (found.worst_frame or 0) < frames[1]


def test_a_slow_change_of_light_and_rolling_bands_are_no_flash(clean: Judged) -> None:
    video = scene.clean_video().astype(np.float32)
    slow = video * np.linspace(1, 1.25, len(video))[:, None, None, None]
    rows = np.arange(video.shape[1])
    band = 1 + 0.02 * np.sin(2 * np.pi * (1.7 * rows[None] / len(rows) + 0.37 * np.arange(len(video))[:, None]))
    for changed in (slow, video * band[:, :, None, None]):
        frames = np.clip(changed, 0, 255).astype(np.uint8)
        footage = Footage(frames, clean.footage.scenery, clean.footage.known, clean.footage.contrast)
        found = {m.name: m for m in measure_novelty(footage, clean.truth, scene.scene_episode(), "front")}["flash"]
        assert not load_settings().threshold("flash").fails(found.value or 0.0)


def test_a_chained_window_that_begins_late_and_in_another_hue_is_told_by_both() -> None:
    from appearance import turn_hue

    video = scene.clean_video()
    joint = FRAMES // 2
    later = np.concatenate([video[:joint], video[joint - 2 : -2]])
    turned_hue = np.clip(turn_hue(later[joint:].astype(np.float32), 14), 0, 255).astype(np.uint8)
    verdict = judge(np.concatenate([later[:joint], turned_hue]), scene.scene_episode(), "front")
    failed = {c.name for c in verdict.checks if c.status == "fail"}
    assert "seams" in failed
    assert "local_lag" in failed


def test_a_take_that_nobody_dressed_fails_however_bright_it_is() -> None:
    episode = scene.scene_episode()
    own = np.stack([episode.image("front", "rgb", t) for t in range(FRAMES)])
    for video in (own, (0.6 * own + 20).astype(np.uint8)):
        check = judge(video, episode, "front").check("redressed")
        assert check.status == "fail", check
    assert judge(scene.clean_video(), episode, "front").check("redressed").status == "pass"


def test_a_robot_that_swells_is_told(clean: Judged) -> None:
    """Grown outlines of the robot towards the end; a robot drawn wider throughout is none."""
    import cv2

    maps, video = scene.scene_maps(), scene.clean_video()
    links = [i.id for i in scene.scene_episode().header.instances if i.owner.startswith("robot:")]
    assert (clean.verdict.check("robot_shape").value or 0.0) < 1.5

    def grown(pixels: np.ndarray) -> np.ndarray:
        out = video.copy()
        for t, width in enumerate(pixels):
            robot = np.isin(maps.ids[t], links).astype(np.uint8)
            wide = cv2.dilate(robot, np.ones((2 * int(width) + 1,) * 2, np.uint8)) > robot
            out[t][wide] = np.median(video[t][robot > 0], axis=0).astype(np.uint8)
        return out

    swelling = judge(grown(np.linspace(0, 3.4, FRAMES)), scene.scene_episode(), "front").check("robot_shape")
    steady = judge(grown(np.full(FRAMES, 2)), scene.scene_episode(), "front").check("robot_shape")
    assert (swelling.value or 0.0) > (steady.value or 0.0) + 0.8


def test_families_have_their_own_limits_at_every_operating_point() -> None:
    from retake.core.errors import InputError
    from retake.core.verdicts.settings import Family

    known = replace(
        load_settings(), families={"generated": Family("films"), "composite": Family("own takes", {"arm_offset": 1.0})}
    )
    composite = known.of("composite")
    assert composite.threshold("arm_offset").limit == 1.0
    assert composite.threshold("lag") == known.threshold("lag")
    assert "own takes" in composite.calibrated_on
    assert "films" in known.calibrated_on
    for name, point in known.operating_points.items():
        limit = known.at(name).of("composite").threshold("arm_offset").limit
        assert limit == pytest.approx(point.scale) == known.of("composite").at(name).threshold("arm_offset").limit
    with pytest.raises(InputError, match="composite"):
        known.of("painted")


def flashing(*levels: float) -> Footage:
    frames = (np.array(levels)[:, None, None, None].astype(np.uint8) + np.zeros((1, 30, 40, 3), np.uint8)).astype(
        np.uint8
    )
    return Footage(frames, frames[0].astype(np.float32), np.ones((30, 40), bool), 1.0)


@pytest.mark.parametrize(
    ("levels", "value", "frame"),
    [
        ((100,) * 12, 0.0, 0),
        ((100,) * 5 + (150,) + (100,) * 6, 0.5, 5),
        ((100,) * 5 + (60, 60) + (100,) * 6, 0.4, 5),
        ((100,) * 6 + (150,) * 6, 0.0, 0),
        ((150,) + (100,) * 11, 0.5, 0),
        ((150, 150) + (100,) * 10, 0.5, 0),
        ((100,) * 11 + (200,), 0.0, 0),
        ((100,) * 5 + (120,) + (100,) * 2 + (160,) + (100,) * 5, 0.6, 8),
        ((8,) * 5 + (16,) + (8,) * 6, 0.5, 5),
    ],
)
def test_a_flash_is_over_within_a_few_frames_on_both_sides_or_begins_the_take(
    levels: Any, value: float, frame: int
) -> None:
    """A share of the light around it, of a dark picture of sixteen levels."""
    found = novelty._flash(flashing(*levels))
    assert (found.value, found.worst_frame) == (pytest.approx(value, abs=0.01), frame)


def test_a_take_that_goes_on_fading_does_not_flash_and_a_short_one_is_not_asked() -> None:
    fading = novelty._flash(flashing(*(200 - 8 * t for t in range(14))))
    assert (fading.value or 0) < 0.08
    assert not novelty._flash(flashing(*[100] * 10)).applies
    assert novelty._flash(flashing(*[100] * 11)).applies


def test_light_is_shared_by_four_cells_in_five() -> None:
    then = np.full((2, 5), 100, np.float32)
    now = then.copy()
    now.ravel()[2:] = np.linspace(110, 145, 8)
    assert novelty._shared(now, then) == pytest.approx(0.1 * 0.8, abs=0.02)  # the fifth is between nothing and a tenth
    now.ravel()[2] = 100
    assert novelty._shared(now, then) == 0
    now.ravel()[:] = 80
    assert novelty._shared(now, then) == pytest.approx(-0.2)
    assert novelty._shared(np.full((2, 5), 12, np.float32), np.full((2, 5), 8, np.float32)) == pytest.approx(0.25)
