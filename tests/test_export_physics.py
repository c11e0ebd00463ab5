# SPDX-License-Identifier: Apache-2.0
"""What an export says of the simulation, of episodes in which every position, contact and pixel was put by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hand_episode import BOX, FINGERS, HIGH, MOVES, POST, WIDE, picture, rolling, write

from retake.core.episode import EpisodeHeader
from retake.core.episode.events import ObjectEvents
from retake.core.export.physics import NEVER, physics_arrays, unpack_masks
from retake.core.export.sight import sight_of
from retake.core.export.truth import task_object, truth_columns


def test_the_task_is_about_the_goal_s_object_or_the_first_that_was_grasped(tmp_path):
    cup, jar = replace(BOX, name="cup", prim_path="/Cup"), replace(BOX, name="jar", prim_path="/Jar")
    events = {n: ObjectEvents(n, g, None, None) for n, g in (("box", None), ("cup", 3), ("jar", 1))}

    def asked(**settings) -> int:
        return task_object(EpisodeHeader("t", 10, 0.1, (), (), (POST, BOX, cup, jar), settings=settings), events)

    assert asked(goal={"object": "jar"}) == 3
    assert asked(goal={"object": "post"}) == asked(goal="jar") == asked() == 2
    events["cup"] = events["jar"] = events["box"]
    assert asked() == 1


def test_what_a_camera_shows_of_a_thing_is_counted_in_pixels(tmp_path):
    episode = write(tmp_path / "a", [0.0] * 5, ids=picture, touching={1: FINGERS, 2: ("/Floor",)})
    sight = sight_of(episode, "front")
    assert sight.of((5, 6)).tolist() == [7, 7, 7, 0, 7]
    assert sight.of((6, 60_000)).tolist() == [4, 4, 4, 0, 4]
    assert sight.of((3,)).tolist() == [2] * 5
    assert sight.boxes[2, 0].tolist() == [3, 1, 7, 3]
    assert sight.boxes[3, 0].tolist() == [-1] * 4
    # The middle of (1, 2, 3) of row 1 and (1, 2, 3, 4) of row 2 is (16/7, 11/7): nearest is (2, 2).
    assert sight.points[0, 0].tolist() == [2.5, 2.5]
    assert sight.points[0, 1].tolist() == [4.5, 5.5]
    found = truth_columns(episode, {"observation.images.front": (22, 3)}, 1, 3)
    assert found["truth.phase"].tolist() == [1, 4, 4], "let go of at rest"
    assert found["truth.contact"].tolist() == [1, 0, 0]
    assert found["truth.box.front"].tolist() == [[4, 0.5, 12, 1.5], [6, 0.5, 14, 1.5], [-1] * 4]
    assert found["truth.visible_px.front"].tolist() == [7, 7, 0], "twice as wide, half as high"
    unknown = write(tmp_path / "b", [0.0] * 3, ids=picture)
    assert truth_columns(unknown, {}, 0, 3)["truth.contact"].tolist() == [-1] * 3


def test_the_gripper_is_as_far_as_its_nearest_link_is_from_the_box(tmp_path):
    """The box is 0.2 x 0.4 x 0.6 m about a point 0.1 m above its origin; the hand slides along x on its middle line."""
    episode = write(tmp_path / "a", [1, 1, 1, 0.5], rail=[0, 0.7, 0.95, 1.2])
    found = truth_columns(episode, {}, 0, 4)["truth.gripper_object_m"]
    assert found == pytest.approx([0.9, 0.2, 0, 0.6], abs=1e-6)
    high = write(tmp_path / "b", [1.0], rail=[0.5], objects=(replace(BOX, center_m=(0, 0, 0.6)), POST))
    assert truth_columns(high, {}, 0, 1)["truth.gripper_object_m"] == pytest.approx([np.hypot(0.4, 0.3)], abs=1e-6)


def test_physics_stands_in_frames_of_the_window(tmp_path):
    touching = {1: FINGERS[:1], **dict.fromkeys(range(2, 6), FINGERS), 6: FINGERS[1:]}
    episode = write(tmp_path / "a", MOVES, touching=touching, ids=rolling, samples=True, penetration=0.001)
    found = physics_arrays(episode, "front", 3, 5)
    assert (found["grasp_frame"].tolist(), found["release_frame"].tolist()) == ([-1, NEVER], [3, NEVER])
    assert found["settled_frame"].tolist() == [4, NEVER]
    assert found["contact_frame"].tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert found["contact_bodies"][:2].tolist() == [["/Box/lid", FINGERS[0]], ["/Box/lid", FINGERS[1]]]
    assert found["contact_position_m"][-1].tolist() == [6, 0, 0]
    assert found["contact_force_n"][0].tolist() == [0, 0, 2]
    assert found["time_s"] == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    assert found["track_time_s"] == pytest.approx([0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7])
    assert found["release_sample"].tolist() == [8, -1], "the first after the release at 0.6 s"
    assert physics_arrays(episode, "front", 1, 2)["camera_intrinsic"].shape == (2, 3, 3)
    assert physics_arrays(episode, "front", 1, 2)["T_camera_world"].shape == (2, 4, 4)
    assert physics_arrays(episode, None, 0, 3)["release_sample"].tolist() == [-1, -1], "beyond the window"
    assert physics_arrays(episode, None, 6, 1)["release_sample"].tolist() == [-1, -1], "no sample after it"
    assert found["object_masks"].shape == (5, 2, HIGH, 2)
    masks = unpack_masks(found)
    assert masks.shape == (5, 2, HIGH, WIDE)
    for k in range(5):
        ids = rolling(3 + k)
        assert np.array_equal(masks[k], np.stack([np.isin(ids, (5, 6)), ids == 7]))
