# SPDX-License-Identifier: Apache-2.0
"""Which points of a part a tracker is given, where their body takes them, and how far off a part is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import trackers
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.settings import TrackerSettings

HEIGHT, WIDTH = 40, 60


def film(frames: np.ndarray) -> Footage:
    return Footage(frames, frames[0].astype(np.float32), np.ones(frames.shape[1:3], bool), 1.0)


def labels_of(*boxes: tuple[slice, slice]) -> np.ndarray:
    out = np.zeros((4, HEIGHT, WIDTH), np.uint8)
    for k, box in enumerate(boxes):
        out[:, box[0], box[1]] = k + 1
    return out


def truth(**given: Any) -> Any:
    K = np.array([[100.0, 0, 30], [0, 100, 20], [0, 0, 1]])
    labels = labels_of((slice(5, 20), slice(5, 25)), (slice(10, 30), slice(35, 50)))
    known = {
        "labels": labels, "parts": [SimpleNamespace(name="hand"), SimpleNamespace(name="box")], "scale": 1.0, "px": 2.0,
        "K": np.tile(K, (4, 1, 1)), "T_camera_world": np.tile(np.eye(4), (4, 1, 1)), "start": 0,
        "T_world_part": np.tile(np.eye(4), (4, 2, 1, 1)), "ideal": lambda t, p: p, "seen": lambda t, p: p,
    }  # fmt: skip
    return type("Truth", (SimpleNamespace,), {"__len__": lambda self: len(labels)})(**{**known, **given})


def test_points_are_picked_well_inside_of_every_part_from_its_first_pixel_to_its_last() -> None:
    points, part = trackers._pick(truth(), 1, 5)
    assert part.tolist() == [0] * 5 + [1] * 5
    assert points[0].tolist() == [7, 7]
    assert points[4].tolist() == [22, 17]
    assert points[5].tolist() == [37, 12]
    assert points[9].tolist() == [47, 27]
    thin = truth(labels=labels_of((slice(5, 9), slice(5, 25)), (slice(10, 15), slice(35, 40))))
    points, part = trackers._pick(thin, 0, 5)
    assert (points.tolist(), part.tolist()) == ([[37.0, 12.0]], [1])


def test_points_go_with_their_bodies_and_show_where_their_part_does() -> None:
    """At 2 m a tenth of a metre is 5 px; the hand goes right and leaves its own pixels after some of them."""
    poses = truth().T_world_part
    poses[2:, 0, 0, 3], poses[3, 0, 2, 3], poses[3, 1, 1, 3] = 0.1, -2.0, 0.2
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[10, 12] = 0.0
    points = np.array([[10.0, 10], [22, 10], [12, 10], [40, 15]])
    part = np.array([0, 0, 0, 1])
    expected, shown = trackers._expected(truth(T_world_part=poses), depth, points, part, 1, 4)
    assert expected[0][[0, 1, 3]] == pytest.approx(points[[0, 1, 3]])
    assert expected[1][[0, 1, 3]] == pytest.approx(points[[0, 1, 3]] + [[5, 0], [5, 0], [0, 0]])
    assert shown.tolist() == [[True, True, False, True], [True, False, False, True], [False, False, False, True]]
    assert expected[2][3] == pytest.approx([40, 25])
    wide = trackers._expected(
        truth(T_world_part=poses, scale=0.5), np.repeat(np.repeat(depth, 2, 0), 2, 1), points, part, 1, 4
    )
    assert wide[1].tolist() == shown.tolist()


def test_a_tracker_s_points_are_off_by_the_worst_part_s_median(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {0: 1.0, 1: 3.0}

    class Answer:
        def track(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            out = np.repeat(points[None], len(frames), 0)
            out[1:, :, 0] += np.where(points[:, 0] < 30, off[0], off[1])
            return out, np.ones(out.shape[:2], bool)

    monkeypatch.setattr(trackers, "point_tracker", lambda name: Answer())
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    camera = SimpleNamespace(channels=("depth",))
    episode: Any = SimpleNamespace(header=SimpleNamespace(camera=lambda _: camera), image=lambda *_: depth)
    frames = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)

    def told(**given: Any) -> Any:
        settings = TrackerSettings(**{"name": "answer", "points": 5, "horizon": 2, "min_samples": 10, **given})
        return trackers.measure_tracked(film(frames), truth(), episode, "front", settings)

    found = told()
    assert (found.value, found.worst_frame, found.note) == (6.0, 1, "box, by answer")
    assert found.series == pytest.approx([np.nan, 4, 4, np.nan], nan_ok=True)
    assert told(min_samples=11).value is None  # two frames of five points
    assert told(horizon=1, min_samples=5).series == pytest.approx([np.nan, 4, 4, np.nan], nan_ok=True)
    off[0] = 9.0
    assert told().note.startswith("hand")
    off[0] = off[1] = 0.0
    assert told().value == 0
    assert not told(name="").applies
