# SPDX-License-Identifier: Apache-2.0
"""What goes on behind an object that is shown with another shape: which things may, and where their surfaces are. And looks of
objects that a catalogue of many colours never asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overhead import PACKET, ROBOT, TABLE, overhead, points
from strategies import random_robot

from retake.core.episode import Instance, ObjectSpec
from retake.core.painter.materials import make_material
from retake.core.painter.restage import Body, _planes, _scenery, bodies_of, looks_of, owners, pixels
from retake.core.painter.subjects import GAINS, colour_distance, make_subject
from retake.core.painter.textures import Texture, linear
from retake.core.variants.roles import find_roles


def test_scenery_and_cabinets_go_on_behind_an_object_and_a_gripper_never_does() -> None:
    rng = np.random.default_rng(1)
    source = overhead()
    made = {name: random_robot(rng, name) for name in ("arm0", "cabinet", "tool", "sucker")}
    (gripper,) = made["tool"].grippers
    cup = replace(gripper, name="cup", finger_joints=(), open_position=(), closed_position=())
    ends = {"cabinet": (), "tool": (cup, gripper), "sucker": (cup,)}
    robots = {name: replace(robot, grippers=ends.get(name, robot.grippers)) for name, robot in made.items()}
    more = [Instance(20 + k, f"/World/{name}", "link", f"robot:{name}") for k, name in enumerate(robots)]
    header = replace(source.header, robots=tuple(robots.values()), instances=(*source.header.instances, *more))
    table = _scenery(header, find_roles(replace(source, header=header)))
    assert table[[TABLE, 21, 23, 0, 99]].all()
    assert not table[[PACKET, ROBOT, 20, 22]].any()


def test_an_object_with_a_shape_owns_its_ids_and_nobody_else_owns_any() -> None:
    source = overhead()
    body = Body.of("bottle", (0.1, 0.1, 0.2), (0, 0, 0))
    table = owners(source.header, {0: body})
    assert table[PACKET] == 0
    assert (np.delete(table, PACKET) == -1).all()
    assert (owners(source.header, {}) == -1).all()


def test_further_objects_are_shown_in_turn_as_the_other_subjects() -> None:
    """The task's object as its own; what cannot move as it is; without others all alike; without a shape as simulated."""
    objects = tuple(ObjectSpec(f"o{k}", f"/World/o{k}", "x", (0.1, 0.1, 0.1), movable=k != 3) for k in range(5))
    header = replace(overhead().header, objects=objects)
    own, first, second = {"kind": "bun", "shape": "bun"}, {"kind": "tin"}, {"kind": "carton", "shape": "box"}
    recipe = {"subject": own, "others": [first, second]}
    assert looks_of(header, 1, recipe) == {0: first, 1: own, 2: first, 4: first}
    assert looks_of(header, 2, recipe) == {0: first, 1: second, 2: own, 4: first}
    assert looks_of(header, 2, {"subject": own}) == {0: own, 1: own, 2: own, 4: own}
    assert bodies_of(header, 2, recipe).keys() == {1, 2}
    assert looks_of(header, 0, recipe)[0] is own


@given(st.floats(-4, 4), st.floats(-4, 4), st.integers(0, 2**31 - 1))
def test_what_goes_on_lies_in_the_plane_of_the_pixel_beside(across: float, along: float, seed: int) -> None:
    """A plane through the point that is seen there, square to its normal: every ray meets it where geometry says. Where that
    is nonsense, it is as far as there; and nothing goes on behind nothing."""
    rng = np.random.default_rng(seed)
    source = overhead()
    normal = np.array([across, along, 1.0]) / np.linalg.norm([across, along, 1.0])
    normals = np.broadcast_to(np.round(normal * 32767), source.normals.shape).astype(np.int16)
    depth = source.depth_m.copy()
    depth[0] = 0
    origin, where = rng.integers(0, depth.size, (2, 40))
    eye, at = np.array([0, 0, 2.0]), points(replace(source, depth_m=np.full_like(depth, 2))).reshape(-1, 3)
    rays = (at - eye) / 2
    gap = (at[origin] - eye) @ normal
    with np.errstate(divide="ignore"):
        met = gap / (rays[where] @ normal)
    wanted = np.where((met > 0.6) & (met < 6), met, 2.0) * (depth.reshape(-1)[origin] > 0)
    sure = (np.abs(met - 0.6) > 0.02) & (np.abs(met - 6) > 0.1) & (np.abs(gap) > 0.1)
    assert np.allclose(_planes(source.camera, depth, normals, where, origin)[sure], wanted[sure], rtol=5e-3)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_pixels_are_taken_in_one_piece(shape: tuple[int, ...], dtype: type) -> None:
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    out = image.copy()
    flat = pixels(out)
    assert flat.shape == (20,)
    flat[[3, 7]] = pixels(image).take([7, 3])
    wanted = image.reshape(20, -1).copy()
    wanted[[3, 7]] = wanted[[7, 3]]
    assert np.array_equal(out.reshape(20, -1), wanted)


# -- looks --------------------------------------------------------------------------------------------------------------


def ground(colour: str) -> Texture:
    return Texture.of(np.broadcast_to(linear(colour), (16, 16, 3)).astype(np.float32), (1.0, 1.0))


def test_a_subject_that_no_brightness_sets_apart_gets_the_one_that_does_most() -> None:
    dark = make_subject({"kind": "plush", "colours": ["#0a0a0a"] * 4}, (0.1, 0.1, 0.1), (0, 0, 0), 0)
    shown = dark.apart_from(ground("#000000"))
    assert np.allclose(shown.front.levels[0], max(GAINS) * dark.front.levels[0], rtol=1e-4)
    assert dark.apart_from(ground("#ffffff")) is dark, "far from its ground it stays as it is"
    assert colour_distance(linear("#000000"), linear("#ffffff")) == pytest.approx(100, abs=0.1)


def test_a_material_of_one_colour_has_a_darker_one_of_its_own() -> None:
    one = make_material({"kind": "steel", "colours": ["#c08040"]}, 0)
    colour = linear("#c08040")
    assert one.size_m == (1.0, 1.0)
    assert (one.levels[0] <= colour * 1.0001).all()
    assert (one.levels[0] >= 0.599 * colour).all()
    assert one.levels[0][..., 0].std() > 0.02 * colour[0]
    plain = make_material({"kind": "steel"}, 0).levels[0]
    assert plain.max() <= linear("#999999")[0] * 1.0001
    assert plain.min() >= 0.599 * linear("#999999")[0]
