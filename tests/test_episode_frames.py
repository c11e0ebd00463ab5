# SPDX-License-Identifier: Apache-2.0
"""Every way in which a frame does not fit its header is refused, and named by frame, field, what was found and expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import random_frame, random_header, seeds

from retake.core.episode import CHANNELS, Contact, Frame, Instance
from retake.core.episode.layout import decode_image, encode_image
from retake.core.episode.records import EpisodeHeader, PhysicsSamples, check_frame
from retake.core.errors import EpisodeError
from retake.core.lens import Lens


def valid(seed: int = 0) -> tuple[Frame, EpisodeHeader]:
    rng = np.random.default_rng(seed)
    header = random_header(rng)
    header = replace(
        header,
        joint_channels=("velocity", "target"),
        cameras=(replace(header.cameras[0], channels=CHANNELS, size=(8, 6)),),
    )
    return random_frame(rng, header, 0), header


def put(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    out = array.copy()
    out[index] = value
    return out


def robot(**change: Callable[[Any], Any]) -> Callable[[Frame], Frame]:
    """The robot's fields, changed."""

    def of(frame: Frame) -> Frame:
        (state,) = frame.robots
        return replace(frame, robots=(replace(state, **{k: f(getattr(state, k)) for k, f in change.items()}),))

    return of


def camera(**change: Callable[[Any], Any]) -> Callable[[Frame], Frame]:
    """The camera's fields, changed."""

    def of(frame: Frame) -> Frame:
        (image,) = frame.cameras
        return replace(frame, cameras=(replace(image, **{k: f(getattr(image, k)) for k, f in change.items()}),))

    return of


def contact(**change: Any) -> Callable[[Frame], Frame]:
    whole: dict[str, Any] = {"position_m": (0.0, 0.0, 0.0), "normal": (0.0, 0.0, 1.0), "force_n": (0.0, 0.0, 1.0)}
    return lambda frame: replace(frame, contacts=(Contact("/A", "/B", **{**whole, **change}),))


def physics(time_s: list[float], T: np.ndarray) -> Callable[[Frame], Frame]:
    return lambda frame: replace(frame, physics=PhysicsSamples(np.array(time_s), T))


NAN = float("nan")
LENGTH = 1.01 * np.eye(4)
LENS = Lens("opencv-pinhole", (0.1, 0.0, 0.0, 0.0, 0.0))
EYE = np.eye(4)[None, None]


@given(seeds)
def test_a_frame_that_fits_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    header = random_header(rng, robots=2, cameras=2, objects=2)
    check_frame(random_frame(rng, header, 3), header, 3)
    frame, header = valid(seed)
    for change in (contact(), physics([0.1], EYE), physics([], np.zeros((0, 1, 4, 4)))):
        check_frame(change(frame), header, 0)


@pytest.mark.parametrize(("change", "words"), [
    (lambda f: replace(f, time_s=NAN), "time_s is nan; expected a finite time"),
    (lambda f: replace(f, robots=()), "number of robots is 0; expected 1"),
    (lambda f: replace(f, robots=f.robots * 2), "number of robots is 2; expected 1"),
    (robot(joint_position=lambda q: q[:-1]), r"joint_position is \[.*\]; expected \d finite numbers"),
    (robot(joint_position=lambda q: put(q, 0, NAN)), "joint_position is .*nan"),
    (robot(joint_velocity=lambda q: None), "joint_velocity is missing; expected present"),
    (robot(joint_effort=lambda q: np.zeros(3)), "joint_effort is given; expected absent"),
    (robot(joint_target=lambda q: put(q, -1, np.inf)), "joint_target is .*inf"),
    (robot(T_world_link=lambda T: T[1:]), "T_world_link shape is .*; expected"),
    (robot(T_world_link=lambda T: put(T, (1, 0, 0), 9.0)), "pose of link 'link1' is .*; expected a finite rigid transform"),
    (robot(gripper_openness=lambda g: put(g, 0, NAN)), "gripper_openness is .*nan.*; expected 1 finite numbers"),
    (robot(gripper_openness=lambda g: np.zeros(2)), "gripper_openness is"),
    (lambda f: replace(f, T_world_object=np.zeros((0, 4, 4))), r"T_world_object shape is \(0, 4, 4\); expected \(1, 4, 4\)"),
    (lambda f: replace(f, T_world_object=LENGTH[None]), "pose of object 'obj0' is .*; expected a finite rigid transform"),
    (contact(position_m=(0.0, NAN, 0.0)), "contact of /A and /B is"), (contact(normal=(0.0, 1.0)), "contact of /A and /B is"),
    (contact(force_n=(np.inf, 0.0, 0.0)), "contact of /A and /B is"), (contact(penetration_m=NAN), "contact of /A and /B is"),
    (lambda f: replace(f, cameras=()), "number of cameras is 0; expected 1"),
    (camera(rgb=lambda v: None), "rgb is missing; expected channels"),
    (camera(rgb=lambda v: v[1:]), r"rgb is \(5, 8, 3\) uint8; expected \(6, 8, 3\) uint8"),
    (camera(rgb=lambda v: v.astype(np.float32)), "rgb is .* float32; expected .* uint8"),
    (camera(depth_m=lambda v: v.astype(np.float64)), "depth is .* float64; expected .* float32"),
    (camera(depth_m=lambda v: put(v, (0, 0), np.inf)), "depth is non-finite somewhere; expected metres, 0 where nothing"),
    (camera(normals=lambda v: v[..., :2]), r"normals is \(6, 8, 2\) int16; expected \(6, 8, 3\) int16"),
    (camera(instance_ids=lambda v: v.T), r"instances is \(8, 6\) uint16; expected \(6, 8\) uint16"),
    (camera(instance_ids=lambda v: v.astype(np.int32) + 70_000),
     r"instances is \(6, 8\) int32; expected \(6, 8\) uint16; number what is seen as the header's instances do"),
    (camera(K=lambda K: put(K, (0, 0), 0.0)), "K is .*; expected finite, fx > 0, fy > 0"),
    (camera(K=lambda K: put(K, (1, 1), -50.0)), "K is"), (camera(K=lambda K: put(K, (0, 2), NAN)), "K is"),
    (camera(K=lambda K: K[:2]), "K is"), (camera(lens=lambda lens: LENS), "lens is .*; expected None"),
    (camera(T_camera_world=lambda T: LENGTH), "T_camera_world is .*; expected a finite rigid transform"),
    (camera(T_camera_world=lambda T: put(T, (0, 3), NAN)), "T_camera_world is"),
    (camera(T_camera_world=lambda T: T @ np.diag([-1.0, 1, 1, 1])), "T_camera_world is"),
    (physics([0.1, 0.2], EYE), "physics track is"), (physics([NAN], EYE), "physics track is"),
    (physics([0.1], NAN * EYE), r"physics track is \(1, 1, 4, 4\); expected finite \(S, 1, 4, 4\)"),
])  # fmt: skip
def test_what_does_not_fit_is_named(change: Callable[[Frame], Frame], words: str) -> None:
    frame, header = valid()
    with pytest.raises(EpisodeError, match=f"(?s)^frame 7: .*{words}"):
        check_frame(change(frame), header, 7)


@pytest.mark.parametrize("number", [0, -1, 65536, 70_000])
def test_an_id_that_an_instance_image_cannot_hold_is_refused(number: int) -> None:
    """Before a picture is made: a cast to 16 bits would show it as another thing."""
    with pytest.raises(
        EpisodeError, match=rf"instance id {number} of '/A' .* hold 1\.\.65535 .*: number the instances 1, 2, 3"
    ):
        Instance(number, "/A", "a")
    largest = np.full((2, 3), Instance(65535, "/A", "a").id, np.uint16)
    assert np.array_equal(decode_image("instances", encode_image("instances", largest), Path("a.png")), largest)


def test_an_id_given_twice_is_named() -> None:
    with pytest.raises(EpisodeError, match="two instances have the id 7; ids must differ"):
        replace(valid()[1], instances=(Instance(7, "/A", "a"), Instance(8, "/B", "b"), Instance(7, "/C", "c")))
