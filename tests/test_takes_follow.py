# SPDX-License-Identifier: Apache-2.0
"""A camera is filmed by the model where its control video shows enough of the robot, else it follows its anchor's take."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retake.core.files import write_json
from retake.core.takes.base import TakeRequest
from retake.core.takes.follow import LIT_SHARE, SAMPLES, shows_skeleton, split_views


def control(folder: Path, lit: dict[int, int], frames: int = 30, level: int = 255) -> Path:
    """A control video of 40x50 px; frame → how many of its 2000 pixels are drawn."""
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    for k in range(frames):
        image = np.zeros((40, 50, 3), np.uint8)
        image.reshape(-1, 3)[: lit.get(k, 0), k % 3] = level
        cv2.imwrite(str(folder / "frames" / f"{k:06d}.png"), image)
    return folder


@pytest.mark.parametrize(("pixels", "shows"), [(int(2000 * LIT_SHARE), False), (int(2000 * LIT_SHARE) + 1, True)])
def test_a_frame_counts_from_a_five_hundredth_of_its_pixels_on(tmp_path, pixels, shows):
    assert shows_skeleton(control(tmp_path, dict.fromkeys(range(30), pixels)), 0, 30) == shows


@pytest.mark.parametrize(("level", "shows"), [(16, False), (17, True)])
def test_what_is_nearly_black_is_not_drawn(tmp_path, level, shows):
    assert shows_skeleton(control(tmp_path, dict.fromkeys(range(30), 100), level=level), 0, 30) == shows


def looked_at(start: int, frames: int) -> list[int]:
    return [int(k) for k in np.unique(np.linspace(start, start + frames - 1, SAMPLES).astype(int))]


@pytest.mark.parametrize(("start", "frames"), [(0, 30), (4, 20), (10, 3), (7, 1)])
def test_half_of_the_frames_of_the_window_decide(tmp_path, start, frames):
    seen = looked_at(start, frames)
    assert seen[0] == start
    assert seen[-1] == start + frames - 1
    half = -(-len(seen) // 2)
    assert shows_skeleton(control(tmp_path / "a", dict.fromkeys(seen[:half], 100)), start, frames)
    assert not shows_skeleton(control(tmp_path / "b", dict.fromkeys(seen[: half - 1], 100)), start, frames)
    outside = dict.fromkeys((k for k in range(30) if not start <= k < start + frames), 100)
    assert not shows_skeleton(control(tmp_path / "c", outside), start, frames)


def test_frames_that_are_missing_say_nothing(tmp_path):
    folder = control(tmp_path / "a", {0: 100}, frames=1)
    assert shows_skeleton(folder, 0, 30)
    assert shows_skeleton(folder, 0, 0)
    assert not shows_skeleton(tmp_path / "none", 0, 30)


def request(folder: Path, origin: object, lit: int) -> TakeRequest:
    write_json(folder / "variant.json", {} if origin is None else {"origin": origin})
    skeleton = control(folder / "skeleton", dict.fromkeys(range(5), lit), frames=5)
    return TakeRequest(folder, "wrist", skeleton, folder, "p", frames=5, settings={"steps": 4})


@pytest.mark.parametrize(
    ("origin", "lit", "follows"),
    [(None, 0, False), ({"kind": "painted"}, 0, False), ("text", 0, False), ({"kind": "carried", "anchor": "front"}, 100, False),
     ({"kind": "carried", "anchor": "front"}, 0, True), ({"kind": "carried"}, 0, False),
     ({"kind": "painted", "anchor": "front"}, 0, False)],
)  # fmt: skip
def test_only_what_was_carried_and_shows_no_robot_follows_its_anchor(tmp_path, origin, lit, follows):
    job = (tmp_path / "w-s1" / "wrist", request(tmp_path / "v", origin, lit))
    own, following = split_views([job])
    if not follows:
        assert (own, following) == ([job], [])
    else:
        assert own == []
        ((folder, asked),) = following
        assert folder == job[0]
        assert asked.settings == {"take": str(tmp_path / "w-s1" / "front")}
