# SPDX-License-Identifier: Apache-2.0
"""Where another frame of a camera that moves shows the same place, by hand: a wall, a step in depth, things before it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts.scene import Scene, at_working_size, open_scene

WIDTH, HEIGHT = 80, 60
K = np.array([[100.0, 0, 40], [0, 100, 30], [0, 0, 1]])


def scene(
    *places: tuple[float, float, float], depth: Any = None, labels: np.ndarray | None = None, lens: Any = None
) -> tuple[Scene, list[int]]:
    """Of cameras at these places (m, looking along z) that all have the same depth of 2 m; and the frames that were read."""
    T = np.tile(np.eye(4), (len(places), 1, 1))
    T[:, :3, 3] = -np.array(places)
    known = np.full((len(places), HEIGHT, WIDTH), 2.0, np.float32) if depth is None else depth
    read: list[int] = []

    def image(camera: str, channel: str, index: int) -> np.ndarray:
        assert (camera, channel) == ("hand", "depth")
        read.append(index)
        return known[index - 3]

    truth: Any = SimpleNamespace(
        size=(WIDTH, HEIGHT), start=3, K=np.tile(K, (len(places), 1, 1)), T_camera_world=T, lens=lens, static_camera=False,
        labels=np.zeros((len(places), HEIGHT, WIDTH), np.uint8) if labels is None else labels,
        ideal=lambda t, points: points, seen=lambda t, points: points + 2.0,
    )  # fmt: skip
    return Scene(SimpleNamespace(image=image), "hand", truth, {}, {}), read  # type: ignore[arg-type]


def test_a_place_is_found_in_another_frame_by_its_depth() -> None:
    """0.2 m to the right are 10 px at 2 m, 5 of the half-size picture."""
    one, read = scene((0, 0, 0), (0.2, 0, 0), (0, -0.08, 0), (0, 0, 1.0))
    x, y, same = one.same_place(0, 1)
    v, u = np.mgrid[0:30, 0:40]
    assert x == pytest.approx(u - 5, abs=1e-4)
    assert y == pytest.approx(v, abs=1e-4)
    assert same.tolist() == (u >= 5).tolist()
    x, y, same = one.same_place(0, 2)
    assert y == pytest.approx(v + 2, abs=1e-4)
    assert same.tolist() == (v < 28).tolist()
    # Half as far away all is twice as large about the middle, and a wall that stays 2 m away is another one.
    x, _, same = one.same_place(0, 3)
    assert x[0] == pytest.approx(2 * (np.arange(40) + 0.5 - 20) + 20 - 0.5, abs=1e-4)
    assert not same.any()
    assert sorted(read) == [3, 4, 5, 6]
    one.same_place(1, 0)
    assert sorted(read) == [3, 4, 5, 6]  # each is read once


@pytest.mark.parametrize(("off", "same"), [(0.07, True), (0.09, False), (-0.07, True), (-0.09, False)])
def test_a_surface_is_the_same_within_two_centimetres_and_three_hundredths(off: float, same: bool) -> None:
    depth = np.full((2, HEIGHT, WIDTH), 2.0, np.float32)
    depth[1] += off
    one, _ = scene((0, 0, 0), (0, 0, 0), depth=depth)
    assert one.same_place(0, 1)[2].all() == one.same_place(0, 1)[2].any() == same


def test_what_has_no_depth_or_moves_is_no_scenery() -> None:
    depth = np.full((2, HEIGHT, WIDTH), 2.0, np.float32)
    depth[0, :10], depth[1, 50:] = 0, 0
    labels = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    labels[1, 20:24, 20:24], labels[1, 20:24, 60:64], labels[0, 40:48] = 1, 3, 2
    one, _ = scene((0, 0, 0), (0, 0, 0), depth=depth, labels=labels)
    v, u = np.mgrid[0:30, 0:40]
    free = (v >= 5) & (v < 25)
    near = [(v >= 8) & (v < 14) & (u >= left - 2) & (u < left + 4) for left in (10, 30)]
    assert one.same_place(0, 1)[2].tolist() == (free & ~near[0] & ~near[1]).tolist()  # two small px around it
    assert one.same_place(0, 1, frozenset({2}))[2].tolist() == (free & ~near[0]).tolist()
    assert one.same_place(0, 1, frozenset({0, 2}))[2].tolist() == free.tolist()


def test_a_lens_shows_places_where_it_bends_them() -> None:
    one, _ = scene((0, 0, 0), (0.2, 0, 0), lens=object())
    x, y, _ = one.same_place(0, 1)
    v, u = np.mgrid[0:30, 0:40]
    assert x == pytest.approx(u - 5 + 1, abs=1e-4)
    assert y == pytest.approx(v + 1, abs=1e-4)


def test_points_lie_along_their_pixels_as_far_as_their_depth() -> None:
    depth = np.full((1, HEIGHT, WIDTH), 2.0, np.float32)
    depth[0, 20:22, 60:62] = 3.0
    one, _ = scene((0, 0, 0), depth=depth)
    points = one.points(0)
    assert points.shape == (3, 30, 40)
    assert points[:, 0, 0] == pytest.approx([2 * (1 - 40) / 100, 2 * (1 - 30) / 100, 2])
    assert points[:, 10, 30] == pytest.approx([3 * (61 - 40) / 100, 3 * (21 - 30) / 100, 3])


def test_an_answer_is_spread_over_the_working_picture() -> None:
    one, _ = scene((0, 0, 0), (0.2, 0, 0))
    X, Y, same = at_working_size(one.same_place(0, 1), (WIDTH, HEIGHT))
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    inner = np.s_[2:-2, 2:-2]
    assert np.allclose(X[inner], (u - 10)[inner], atol=1e-3)
    assert np.allclose(Y[inner], v[inner], atol=1e-3)
    assert same.tolist() == (u >= 10).tolist()


@pytest.mark.parametrize(
    ("static", "channels", "opened"), [(True, ("depth",), False), (False, ("rgb",), False), (False, ("depth",), True)]
)
def test_only_a_moving_camera_with_depth_has_a_scene(static: bool, channels: tuple[str, ...], opened: bool) -> None:
    episode: Any = SimpleNamespace(header=SimpleNamespace(camera=lambda _: SimpleNamespace(channels=channels)))
    truth: Any = SimpleNamespace(static_camera=static)
    assert (open_scene(episode, "hand", truth) is not None) == opened


def test_what_is_kept_is_of_the_frame_that_was_asked_about_last() -> None:
    """A take of many frames at a large size would not fit in memory otherwise; depths are kept, each is asked often."""
    one, _ = scene((0, 0, 0), (0.2, 0, 0), (0, -0.08, 0))
    for t in range(3):
        for r in range(3):
            one.same_place(t, r)
        assert list(one.seen) == [t]
        assert {asked[:2] for asked in one.places} == {(t, r) for r in range(3)}
    assert len(one.rays) == 1
    one.truth.K[1, 0, 0] = 120.0
    one.seen.clear()
    one.points(1)
    assert list(one.rays) == [one.truth.K[1].tobytes()]
