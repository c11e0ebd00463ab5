# SPDX-License-Identifier: Apache-2.0
"""What carries a camera: told from recorded poses alone, up to the limits of what rounding does to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.episode.mounts import FIXED, RIGID_M, RIGID_RAD, Mount, _rigid, mount_of
from retake.core.geometry import inverse

AXES = st.sampled_from([(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0.6, 0.0, -0.8), (1 / 3, 2 / 3, 2 / 3)])


def turn(axis: Any, angle: float) -> np.ndarray:
    """The rotation about a unit axis by an angle, rad."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def pose(R: np.ndarray | None = None, t: Any = (0.0, 0, 0)) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.eye(3) if R is None else R, t
    return T


def still(seed: int) -> np.ndarray:
    """Any rigid pose."""
    R, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return pose(R * np.sign(np.linalg.det(R)), np.random.default_rng(seed).uniform(-1, 1, 3))


@given(st.integers(0, 99), AXES, st.sampled_from([0.5, 0.99, 1.01, 2.0, 50.0, np.pi / RIGID_RAD]), st.booleans())
def test_what_turns_by_less_than_the_limit_is_rigid(seed: int, axis: Any, share: float, back: bool) -> None:
    """In any frame, wherever the first pose is, whichever way it turns."""
    first, angle = still(seed), share * RIGID_RAD * (-1 if back else 1)
    there, opposite = (first @ pose(turn(axis, sign * angle)) for sign in (1, -1))
    assert _rigid(np.stack([first, there, opposite, first])) == (share < 1)


@given(st.integers(0, 99), AXES, st.sampled_from([0.5, 0.99, 1.01, 2.0, 500.0]))
def test_what_is_moved_by_less_than_the_limit_is_rigid(seed: int, axis: Any, share: float) -> None:
    first = still(seed)
    there, back = (first @ pose(t=sign * share * RIGID_M * np.array(axis)) for sign in (1, -1))
    assert _rigid(np.stack([first, there, back])) == (share < 1)


def test_what_is_moved_by_the_whole_limit_is_not_rigid() -> None:
    assert not _rigid(np.stack([pose(), pose(t=(RIGID_M, 0, 0))]))


@given(st.integers(0, 99), st.sampled_from([1e-7, 1e-6, -1e-7, -1e-6]))
def test_rounding_beyond_a_whole_turn_and_below_half_of_one_is_neither(seed: int, off: float) -> None:
    """A recorded rotation is a little longer or shorter than one: its angle to itself is none, to the opposite half a turn."""
    first = still(seed)
    rounded, opposite = first.copy(), first @ pose(turn((0, 0, 1.0), np.pi))
    rounded[:3, :3] *= 1 + off
    opposite[:3, :3] *= 1 + off
    assert _rigid(np.stack([first, rounded]))
    assert not _rigid(np.stack([first, opposite]))


class Recorded:
    """An episode of which only poses are asked: a camera, and robots whose links are (frames, links, 4, 4)."""

    def __init__(
        self, T_world_camera: np.ndarray, links: dict[str, dict[str, np.ndarray]], hands: tuple[str, ...] = ("hand",)
    ):
        self.T, self.links = T_world_camera, links
        robots = tuple(
            SimpleNamespace(
                name=name,
                links=tuple(SimpleNamespace(name=link) for link in own),
                grippers=tuple(SimpleNamespace(ee_link=hand) for hand in hands if hand in own),
            )
            for name, own in links.items()
        )
        self.header = SimpleNamespace(robots=robots, camera=lambda name: SimpleNamespace(static=name == "fixed"))

    def __len__(self) -> int:
        return len(self.T)

    def camera_matrices(self, name: str) -> tuple[None, np.ndarray]:
        return None, inverse(self.T)

    def link_poses(self, robot: str) -> np.ndarray:
        return np.stack(list(self.links[robot].values()), axis=1)


def moving(way: int, frames: int = 40) -> np.ndarray:
    """A way through the world, against which every other one turns."""
    return np.stack([pose(turn((0, 0, 1.0), 0.02 * way * k), (0.01 * k, 0, way)) @ still(way) for k in range(frames)])


BASE = np.tile(np.eye(4), (40, 1, 1))


@pytest.mark.parametrize(
    ("carrier", "expected"),
    [("hand", Mount("hand", "b", "hand")), ("elbow", Mount("robot", "b", "elbow")), (None, Mount("free"))],
)
def test_a_camera_is_carried_by_the_link_it_moves_with(carrier: str | None, expected: Mount) -> None:
    own = {"base": BASE, "elbow": moving(1), "hand": moving(2)}
    carried = moving(3) if carrier is None else own[carrier] @ still(7)
    others = {"base": BASE, "hand": moving(4)}
    found = mount_of(Recorded(carried, {"a": others, "b": own}), "wrist")  # type: ignore[arg-type]
    assert found == expected
    assert found.moves


def test_of_links_that_are_fixed_to_each_other_the_hand_is_told_else_the_last() -> None:
    way = moving(2)
    own = {"base": BASE, "arm": way, "hand": way @ still(3), "tip": way @ still(4)}
    for hands, expected in ((("hand",), Mount("hand", "r", "hand")), ((), Mount("robot", "r", "tip"))):
        assert mount_of(Recorded(way @ still(5), {"r": own}, hands), "wrist") == expected  # type: ignore[arg-type]


def test_a_camera_that_the_header_calls_static_is_fixed_whatever_its_poses() -> None:
    way = moving(2)
    assert mount_of(Recorded(way, {"r": {"hand": way}}), "fixed") is FIXED  # type: ignore[arg-type]
    assert not FIXED.moves


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 200])
def test_the_first_and_the_last_frame_are_looked_at_however_long_the_episode(frames: int) -> None:
    for odd in {0, frames - 1}:
        way = moving(2, frames)
        carried = way @ still(5)
        carried[odd] = carried[odd] @ pose(t=(0, 0.1, 0))
        found = mount_of(Recorded(carried, {"r": {"hand": way}}), "wrist")  # type: ignore[arg-type]
        assert found.kind == ("hand" if frames == 1 else "free")
