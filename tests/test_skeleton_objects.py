# SPDX-License-Identifier: Apache-2.0
"""Objects in a control video, and control videos that draw enough to be followed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from retake.core.skeleton.objects import (
    OBJECT_RGB,
    ObjectTrack,
    control_record,
    draw_control,
    draw_objects,
    glyph_points,
    object_tracks,
)
from retake.core.takes.follow import FOLLOWER, shows_skeleton, split_views

K = np.array([[[100.0, 0, 50], [0, 100.0, 40], [0, 0, 1]]])
EYE = np.eye(4)[None]
SIDEWAYS = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
"""The object's z lies along the picture's x, its x towards the camera."""


def track(z: float = 2.0, R: np.ndarray = SIDEWAYS) -> ObjectTrack:
    T = np.eye(4)[None].copy()
    T[0, :3, :3], T[0, 2, 3] = R, z
    return ObjectTrack(T, np.array([0.2, 0.4, 0.6]), np.array([0, 0, 0.1]))


def test_points_of_a_glyph_are_the_box_s_corners_its_centre_and_the_middle_of_its_upper_face():
    points = glyph_points(track(), K, EYE)[0]
    # The box's middle is 0.1 m along x, its upper face 0.4 m; both 2 m away.
    assert points[8] == pytest.approx([50 + 100 * 0.1 / 2, 40])
    assert points[9] == pytest.approx([50 + 100 * 0.4 / 2, 40])
    assert points[0] == pytest.approx([50 - 20 / 2.1, 40 - 20 / 2.1])
    assert points[7] == pytest.approx([50 + 40 / 1.9, 40 + 20 / 1.9])
    moved = np.eye(4)[None].copy()
    moved[0, 0, 3] = 0.5
    assert glyph_points(track(), K, moved)[0, 8] == pytest.approx([50 + 100 * 0.6 / 2, 40])
    behind = glyph_points(track(-1.0), K, EYE)[0]
    assert np.isnan(behind).all()
    half = glyph_points(track(0.05), K, EYE)[0]
    assert np.isnan(half).any()
    assert not np.isnan(half[8:]).any()


def arrays(count: int) -> dict:
    poses = np.tile(np.eye(4), (1, count, 1, 1))
    for k in range(count):
        poses[0, k, :3, 3] = (0.5 * (k - 2), 0, 5)
    return {
        "T_world_object": poses, "object_sizes_m": np.full((count, 3), 0.1), "object_centers_m": np.zeros((count, 3)),
        "object_movable": np.array([k != 1 for k in range(count)]), "object_names": np.array([f"o{k}" for k in range(count)]),
        "camera_intrinsic": K, "T_camera_world": EYE,
    }  # fmt: skip


def test_movable_objects_are_drawn_in_colours_that_come_round_again():
    data = arrays(6)
    assert len(object_tracks(data)) == 5
    record = control_record(data)["objects"]
    assert [o["name"] for o in record] == ["o0", "o2", "o3", "o4", "o5"]
    assert [tuple(o["rgb"]) for o in record] == [*OBJECT_RGB, OBJECT_RGB[0]]
    frame = np.zeros((80, 100, 3), np.uint8)
    (drawn,) = draw_control([frame], data)
    assert not frame.any(), "frames are copied"
    columns = [50 + round(100 * 0.5 * (k - 2) / 5) for k in (0, 2, 3, 4, 5)]
    assert [tuple(drawn[40, c]) for c in columns] == [*OBJECT_RGB, OBJECT_RGB[0]]
    assert not drawn[:, 38:42].any(), "the second stands fast"
    (none,) = draw_objects([frame], [track(0.05), track(-1)], K, EYE)
    assert not none.any(), "partly behind the camera"


def test_a_glyph_is_an_outline_with_a_dot_and_a_line_to_its_upper_face():
    (drawn,) = draw_objects([np.zeros((80, 100, 3), np.uint8)], [track()], K, EYE)
    lit = (drawn == OBJECT_RGB[0]).all(-1)
    assert lit[40, 55:71].all(), "from the middle to the upper face"
    assert lit[36:45, 55].all(), "the dot's radius is four"
    assert not lit[35, 55]
    assert not lit[46, 55]
    # The nearer corners are 0.2 m left of the axis and 0.4 m right of it, 0.2 m above and below, 1.9 m away.
    rows, columns = np.nonzero(lit)
    ends = (columns.min(), columns.max(), rows.min(), rows.max())
    assert ends == pytest.approx((50 - 20 / 1.9, 50 + 40 / 1.9, 40 - 20 / 1.9, 40 + 20 / 1.9), abs=3)
    assert not lit[33:35, 45:54].any(), "an outline, not a face"


def control(folder: Path, lit: list[bool], value: int = 17, pixels: int = 3) -> Path:
    """Frames of a thousand pixels, of which lit ones have so many of that brightness."""
    (folder / "frames").mkdir(parents=True)
    for k, on in enumerate(lit):
        image = np.zeros((20, 50, 3), np.uint8)
        image[0, : pixels if on else 0, 1] = value
        cv2.imwrite(str(folder / "frames" / f"{k:06d}.png"), image)
    return folder


def test_a_control_video_is_followed_where_half_of_its_frames_draw_something(tmp_path):
    half = control(tmp_path / "a", [k % 2 == 0 for k in range(12)])
    assert shows_skeleton(half, 0, 12)
    assert not shows_skeleton(half, 1, 1)
    assert shows_skeleton(half, 2, 0)
    assert not shows_skeleton(control(tmp_path / "b", [k < 5 for k in range(12)]), 0, 12)
    assert not shows_skeleton(control(tmp_path / "c", [True] * 12, value=16), 0, 12)
    assert not shows_skeleton(control(tmp_path / "d", [True] * 12, pixels=2), 0, 12), "two pixels of a thousand"
    assert not shows_skeleton(tmp_path / "none", 0, 12)
    late = control(tmp_path / "e", [k >= 12 for k in range(24)])
    assert shows_skeleton(late, 12, 12)
    assert not shows_skeleton(late, 0, 12)


def test_a_carried_view_without_a_skeleton_follows_the_anchor_s_take(tmp_path):
    from retake.core.takes import TakeRequest

    dark, bright = control(tmp_path / "dark", [False] * 3), control(tmp_path / "bright", [True] * 3)

    def job(name: str, skeleton: Path, origin) -> tuple[Path, TakeRequest]:
        folder = tmp_path / "variants" / name
        folder.mkdir(parents=True)
        (folder / "variant.json").write_text(json.dumps({"origin": origin}))
        return tmp_path / "takes" / name, TakeRequest(tmp_path, "c", skeleton, folder, "p", frames=3)

    carried = {"kind": "carried", "anchor": "front"}
    jobs = [
        job("a", dark, carried),
        job("b", bright, carried),
        job("c", dark, {"kind": "painted", "anchor": "front"}),
        job("d", dark, None),
    ]
    own, following = split_views(jobs)
    assert own == [jobs[1], jobs[2], jobs[3]]
    ((folder, request),) = following
    assert (folder, request.settings) == (jobs[0][0], {"take": str(tmp_path / "takes" / "front")})
    assert FOLLOWER == "reproject"
