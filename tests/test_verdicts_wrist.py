# SPDX-License-Identifier: Apache-2.0
"""Cameras that move, point trackers that are plugged in, and the skeleton that is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode
from verdict_scenes import paint

from retake.core.episode import Episode
from retake.core.errors import InputError, VerdictError
from retake.core.geometry import axis_angle
from retake.core.verdicts import examine, judge, load_settings, trackers
from retake.core.verdicts.following import measure_following
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.geometry import measure_geometry, partner_of, sampson
from retake.core.verdicts.pictures import skeleton

rematerialise, faults = pytest.importorskip("rematerialise"), pytest.importorskip("faults")
FRAMES, SIZE = 33, (320, 240)


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    path = tmp_path_factory.mktemp("wrist") / "episode"
    return make_scene_episode(path, frames=FRAMES, size=SIZE, wrist=True, shadows=False)


@pytest.fixture(scope="module")
def wrist(episode: Episode) -> Any:
    return rematerialise.load_maps(episode, "wrist", 0, FRAMES)


@given(
    angle=st.floats(0.02, 0.4), x=st.floats(-0.2, 0.2), y=st.floats(-0.2, 0.2), z=st.floats(0.03, 0.2),
    off=st.floats(0, 5), seed=st.integers(0, 999),
)  # fmt: skip
def test_sampson_is_zero_on_the_truth_and_grows_to_the_distance(
    angle: float, x: float, y: float, z: float, off: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    R = axis_angle(rng.normal(size=3), np.array(angle))
    K = np.array([[300, 0, 160], [0, 300, 120], [0, 0, 1.0]])
    p = rng.uniform([-1, -1, 2], [1, 1, 4], (20, 3))
    q = p @ R.T + [x, y, z]
    a, b = ((v @ K.T)[:, :2] / v[:, 2:] for v in (p, q))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    F = np.linalg.inv(K).T @ cross @ R @ np.linalg.inv(K)
    F /= np.linalg.norm(F)
    assert sampson(a, b, F).max() < 1e-6
    line = np.concatenate([a, np.ones((20, 1))], 1) @ F.T
    normal = line[:, :2] / np.linalg.norm(line[:, :2], axis=1, keepdims=True)
    moved = sampson(a, b + off * normal, F)
    # Both points share the blame: never more than the displacement.
    assert (moved <= off + 1e-6).all()
    assert off < 0.1 or moved.mean() > 0.05 * off


def test_a_hand_camera_is_judged_by_what_it_shows(episode: Episode, wrist: Any) -> None:
    judged = examine(paint(wrist, "clutter", 4), episode, "wrist")
    faithful = judged.verdict
    assert faithful.overall == "pass", faithful.reasons
    assert faithful.check("background_drift").status == "skipped"
    geometry = faithful.check("temporal_geometry")
    assert geometry.status == "pass"
    assert (faithful.check("camera_motion").value or 0.0) < 0.25
    # The hand's way played backwards: the scenery moves against the known camera, along the same epipolar lines.
    index = np.arange(FRAMES)[::-1]
    maps = replace(faults.retime(wrist, index), K=wrist.K[index], T_camera_world=wrist.T_camera_world[index])
    wrong = judge(paint(maps, "clutter", 4), episode, "wrist")
    assert wrong.overall == "fail"
    assert wrong.check("camera_motion").status == "fail"
    # Seen by a camera that also sways sideways, the points leave the lines.
    T = judged.truth.T_camera_world.copy()
    T[:, 0, 3] += 0.15 * np.sin(np.arange(FRAMES) / 2)
    swaying = replace(judged.truth, T_camera_world=T)
    sampson_error, _ = measure_geometry(judged.footage, swaying, episode, "wrist", load_settings().stability)
    assert (sampson_error.value or 0.0) > 2 * (geometry.value or 0.0)


def test_points_that_go_another_way_do_not_bend_the_geometry_unless_nearly_all_do(episode: Episode, wrist: Any) -> None:
    """Columns of the picture that slide down (a belt, a texture that swims, places that were mistaken): the points of
    the other columns tell, though they are fewer."""
    video = paint(wrist, "clutter", 4)
    judged = examine(video, episode, "wrist")
    settings = load_settings()

    def error(share: float) -> float:
        frames = judged.footage.frames.copy()
        columns = int(share * frames.shape[2])
        for t in range(len(frames)):
            frames[t, :, :columns] = np.roll(frames[t, :, :columns], 3 * t, axis=0)
        footage = replace(judged.footage, frames=frames)
        found, _ = measure_geometry(footage, judged.truth, episode, "wrist", settings.stability)
        assert found.value is not None
        return found.value

    faithful = error(0.0)
    assert error(0.6) < 2 * faithful
    assert error(1.0) > 5 * faithful


def soft(mask: np.ndarray) -> np.ndarray:
    """Light that a shadow of that shape leaves, (H, W, 1): a third of it, with a penumbra of some 10 px."""
    return 1 - 0.65 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)[..., None]


def of_the_hand(kind: str) -> np.ndarray:
    """A shadow that stays in the picture, as that of a hand over a table does."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    if kind == "fingers":
        return soft(((x % 80) < 26) & (y < 190))
    if kind == "palm":
        return soft(np.hypot(x - 150, y - 90) < 60)
    arm = np.abs(x - 0.4 * y - 90) < 22
    return soft(arm | ((np.abs(y - 120) < 14) & (x > 60) & (x < 240)))


@pytest.mark.parametrize("kind", ["fingers", "palm", "arm and hand"])
def test_shadows_that_a_hand_takes_along_do_not_stop_the_scenery(episode: Episode, wrist: Any, kind: str) -> None:
    video = paint(wrist, "clutter", 4)
    judged = examine(video, episode, "wrist")
    plain = 0.15 * video + 0.85 * np.median(video.reshape(-1, 3), axis=0)  # a faint print
    stability = load_settings().stability

    def motion(frames: np.ndarray) -> float:
        shown = np.clip(frames * of_the_hand(kind), 0, 255).astype(np.uint8)
        found = measure_geometry(make_footage(shown, judged.truth), judged.truth, episode, "wrist", stability)[1]
        assert found.value is not None, found.note
        return found.value

    # Points that are told by the grey of the picture alone make up to 0.95 of it.
    assert motion(plain) < load_settings().threshold("camera_motion").limit
    # The control: the same shadows over scenery that stands still in the picture, or goes backwards.
    assert motion(np.repeat(plain[FRAMES // 2][None], FRAMES, 0)) > 0.9
    assert motion(plain[::-1]) > 0.7


def test_a_hand_that_stands_still_in_its_own_picture_shows_no_lag() -> None:
    """The scenery moves before a camera on the hand; the outlines of the hand do not, and fit it at any lag."""
    judged = examine(scene.clean_video(), scene.scene_episode(), "front")
    truth, settings = judged.truth, load_settings().following
    carried = np.tile(np.eye(4), (FRAMES, 1, 1))
    carried[:, 0, 3] = np.linspace(0, 0.3, FRAMES)
    moving = replace(truth, static_camera=False, T_camera_world=carried @ truth.T_camera_world)
    still = replace(moving, centroid=np.broadcast_to(truth.centroid[:1], truth.centroid.shape))
    for seen, judged_by_it in ((moving, True), (still, False)):
        found = {m.name: m for m in measure_following(judged.alignment, seen, settings, judged.footage)}
        for name in ("lag", "local_lag"):
            assert (found[name].value is not None) == judged_by_it
            assert found[name].applies == judged_by_it


@pytest.mark.parametrize(("degrees", "frames"), [(0.5, 4), (1.5, 2), (3, 1), (9, None)])
def test_points_are_followed_as_far_as_they_can_be(degrees: float, frames: int | None) -> None:
    """A camera that turns about the vertical: fewer frames the faster it turns, none where it whirls."""
    truth = examine(scene.clean_video(), scene.scene_episode(), "front").truth
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    for t in range(FRAMES):
        poses[t, :3, :3] = axis_angle(np.array([0.0, 1.0, 0.0]), np.float64(np.radians(degrees * t)))
    depth = np.full((SIZE[1], SIZE[0]), 2.0, np.float32)
    turning = replace(truth, static_camera=False, T_camera_world=poses, K=np.tile(truth.K[:1], (FRAMES, 1, 1)))
    partner = partner_of(turning, depth, 3, load_settings().stability)
    assert partner == (None if frames is None else 3 + frames)


def test_geometry_is_not_asked_of_a_camera_that_stands_still() -> None:
    verdict = judge(scene.clean_video(), scene.scene_episode(), "front")
    assert verdict.check("temporal_geometry").status == "skipped"
    assert "background_drift" in verdict.check("temporal_geometry").note


class Oracle:
    """A tracker that knows where every point goes, plus an error."""

    error_px = 0.0
    answers = None

    def track(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if Oracle.answers is not None:
            return Oracle.answers
        expected = Oracle.expected.pop(0)
        return expected + np.array([Oracle.error_px, 0.0]), np.ones(expected.shape[:2], bool)

    expected: ClassVar[list[np.ndarray]] = []


def test_a_point_tracker_can_be_plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    settings = replace(settings, tracker=replace(settings.tracker, name="oracle"))
    monkeypatch.setitem(trackers.TRACKERS, "oracle", f"{__name__}:Oracle")
    original = trackers._expected

    def remember(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        out = original(*arguments)  # type: ignore[arg-type]
        Oracle.expected.append(out[0])
        return out

    monkeypatch.setattr(trackers, "_expected", remember)
    for error in (0.0, 10.0):
        monkeypatch.setattr(Oracle, "error_px", error)
        check = judge(scene.clean_video(), scene.scene_episode(), "front", config=settings).check("tracked_points")
        assert check.value == pytest.approx(error, abs=1e-6)
        assert check.status == ("pass" if error == 0 else "fail")
    monkeypatch.setattr(Oracle, "answers", (np.zeros((2, 1, 2)), np.zeros((2, 1), bool)))
    with pytest.raises(VerdictError, match=r"'oracle' answered \(2, 1, 2\)"):
        judge(scene.clean_video(), scene.scene_episode(), "front", config=settings)


def test_the_built_in_tracker_agrees_with_a_faithful_take_and_not_with_another_motion() -> None:
    settings = load_settings()
    settings = replace(settings, tracker=replace(settings.tracker, name="lucas_kanade"))
    faithful = judge(scene.clean_video(), scene.scene_episode(), "front", config=settings).check("tracked_points")
    assert faithful.status == "pass"
    backwards = paint(faults.retime(scene.scene_maps(), np.arange(scene.FRAMES)[::-1]))
    wrong = judge(backwards, scene.scene_episode(), "front", config=settings).check("tracked_points")
    assert wrong.status == "fail"
    with pytest.raises(InputError, match="lucas_kanade"):
        trackers.point_tracker("lukas_kanade")


def test_the_recovered_skeleton_is_drawn_where_the_arm_is_seen() -> None:
    maps, pixels = scene.scene_maps(), 8
    moved = replace(
        maps, **{name: np.roll(getattr(maps, name), pixels, axis=2) for name in ("ids", "normals", "depth_m")}
    )
    for source, offset in ((maps, 0), (moved, pixels)):
        judged = examine(paint(source), scene.scene_episode(), "front")
        known, recovered = skeleton(judged, scene.scene_episode(), 10)
        assert len(known) == len(recovered) >= 3
        shifts = np.array([np.subtract(b, a) for a, b in zip(known, recovered, strict=True)])
        assert np.abs(np.median(shifts[..., 0]) - offset) < 1.5
        assert np.abs(np.median(shifts[..., 1])) < 1.5
