# SPDX-License-Identifier: Apache-2.0
"""What stands in a set is where its entry says, clear of the scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.painter.materials import make_material
from retake.core.painter.panels import PANELS
from retake.core.painter.sets import Box, build_set
from retake.core.variants.roles import Anchor

SPEC = {
    "floor": {"kind": "plain", "colours": ["#808080", "#707070"]},
    "sky": {"top": "#4d8fd6", "horizon": "#d9e9f3", "land": "#5f8058", "clouds": 0.5},
    "reach_m": [3.0, 3.0],
}
POT, LEAVES = {"kind": "plain", "colours": ["#b5653f", "#99512f"]}, {"kind": "fibre", "colours": ["#5f8250", "#3a5a34"]}
ANCHOR = Anchor((0.4, 0.0), -0.7, (1.6, 0.9, 0.8), (1.5, -0.9, 0.3), (1.6, 0.9, 1.2))


def boxes(seed: int, **entry: object) -> tuple[Box, ...]:
    item = {"wall": 0, "along": [0.1, 0.9], "body": POT, "top": LEAVES, "gap_m": 0.5, **entry}
    return build_set({**SPEC, "furniture": [item]}, ANCHOR, seed).boxes


@given(st.integers(0, 2**31 - 1), st.floats(0.25, 1.2), st.floats(0.25, 0.8), st.integers(1, 3))
def test_a_planter_is_a_pot_in_which_something_grows(seed: int, width: float, height: float, count: int) -> None:
    """Whatever its size: a foot on the floor, a rim that overhangs the body, and leaves that begin within the pot, stay over it
    and rise above it; nothing of it stands farther out than its crown."""
    parts = boxes(seed, shape="planter", count=count, width_m=width, depth_m=width, height_m=height)
    pots = [box for box in parts if not box.leafy]
    assert len(pots) == 3 * count
    for foot, body, rim in zip(pots[::3], pots[1::3], pots[2::3], strict=True):
        assert foot.low[2] == np.float32(ANCHOR.floor_z)
        assert np.isclose(rim.high[2] - foot.low[2], 0.62 * height, rtol=1e-3)
        assert (rim.low[:2] < body.low[:2]).all()
        assert (body.low[:2] < foot.low[:2]).all()
        middle, reach = (rim.low + rim.high) / 2, (rim.high - rim.low)[:2] * 0.57
        mine = [b for b in parts if b.leafy and (abs(((b.low + b.high) / 2 - middle)[:2]) <= reach).all()]
        assert mine
        assert min(b.low[2] for b in mine) < rim.high[2] < max(b.high[2] for b in mine)
        assert all((b.low[:2] >= middle[:2] - reach).all() for b in mine)


def test_an_entry_without_a_shape_is_one_box() -> None:
    (box,) = boxes(3, count=1, width_m=0.5, depth_m=0.4, height_m=0.5)
    assert not box.leafy
    assert box.low[2] == np.float32(ANCHOR.floor_z)


OWN = ["#336699", "#99aa44", "#cc4411", "#224466", "#775533"]
UNSAID = {
    "racking": (2, ("#b08a5a", "#c49a69", "#9c7748")),
    "cabinets": (1, ("#8d8f92",)),
    "goods": (2, ("#c8433a", "#e0a63a", "#4a8f5c", "#3e6fb0", "#efe9dc")),
    "books": (1, ("#7d3b32", "#33506b", "#d7c9a7", "#4f6a4e", "#26272b", "#b98b4e")),
    "machine": (1, ("#e0a526",)),
    "windows": (1, ("#fafafa", "#7fb0e0", "#dcebf5", "#6f8f5e")),
    "pictures": (2, ("#c9703f", "#2f5d62", "#e3c58c", "#7a8b99")),
}
"""Panel → how many colours must be said, and what stands for the others."""


@pytest.mark.parametrize("name", sorted(UNSAID))
def test_colours_of_a_panel_that_are_not_said_are_those_of_its_kind(name: str) -> None:
    needed, others = UNSAID[name]

    def painted(*colours: str) -> np.ndarray:
        return PANELS[name](np.random.default_rng(3), 2.0, 1.4, colours).levels[0]

    said = OWN[:needed]
    assert np.array_equal(painted(*said), painted(*said, *others))
    assert not np.array_equal(painted(*said), painted(*said, *OWN[needed:]))


# -- which side is which -----------------------------------------------------------------------------------------------

SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Outward, in the order of a room's walls."""
AZIMUTHS = [10, 35, 55, 80, 100, 125, 145, 170, 190, 215, 235, 260, 280, 305, 325, 350]
"""Degrees; between them is every order that four sides can have."""


MIDDLE = np.array([3.0, -2.0])


def looking(azimuth: float) -> tuple[Anchor, np.ndarray]:
    """A scene that is looked at along an azimuth, and the sides from the most frontal one on."""
    view = np.array([np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))])
    eye = MIDDLE - 1.4 * view
    low, high = np.minimum(eye, MIDDLE), np.maximum(eye, MIDDLE)
    anchor = Anchor((*MIDDLE,), 0.0, (*eye, 0.8), (*low, 0.1), (*high, 1.0))
    return anchor, np.array(sorted(SIDES, key=lambda side: -float(view @ side)))


@pytest.mark.parametrize("azimuth", AZIMUTHS)
def test_the_sea_of_a_scene_lies_towards_the_side_it_is_said_to(azimuth: float) -> None:
    anchor, sides = looking(azimuth)
    for wall in range(4):
        _, outward, away = build_set({**SPEC, "water": {**POT, "wall": wall, "from_m": 2.5}}, anchor, 3).water
        assert outward.tolist() == sides[wall].tolist()
        assert away == 2.5
    _, outward, away = build_set({**SPEC, "water": POT}, anchor, 3).water
    assert (outward.tolist(), away) == (sides[0].tolist(), 3.0)


@pytest.mark.parametrize("azimuth", AZIMUTHS)
def test_furniture_stands_along_the_side_it_is_said_to_as_far_in_as_it_is_said(azimuth: float) -> None:
    anchor, sides = looking(azimuth)
    for wall, side in enumerate(sides):
        entry = {"wall": wall, "along": [0.2, 0.6], "depth_m": 0.4, "gap_m": 0.1, "height_m": 0.7, "z_m": 0.2}
        scene = build_set({**SPEC, "furniture": [entry]}, anchor, 3)
        (box,) = scene.boxes
        axis, far = int(np.flatnonzero(side)[0]), side.sum() > 0
        low, high = scene.room_low, scene.room_high
        wanted = (high[axis] - 0.5, high[axis] - 0.1) if far else (low[axis] + 0.1, low[axis] + 0.5)
        assert np.allclose((box.low[axis], box.high[axis]), wanted, atol=1e-5)
        length = high[1 - axis] - low[1 - axis]
        spread = (box.low[1 - axis] - low[1 - axis], box.high[1 - axis] - low[1 - axis])
        assert np.allclose(spread, (0.2 * length, 0.6 * length), atol=1e-5)
        assert np.allclose((box.low[2], box.high[2]), (low[2] + 0.2, low[2] + 0.9), atol=1e-5)


@pytest.mark.parametrize("azimuth", AZIMUTHS[::2])
def test_a_wall_said_by_its_number_is_the_one_seen_there(azimuth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Painted as wide as that side is: a panel's size is (its length, the room's height)."""
    anchor, sides = looking(azimuth)
    own, painted = make_material(POT, 0), list[tuple[float, float]]()
    monkeypatch.setitem(PANELS, "windows", lambda rng, width, height, colours: painted.append((width, height)) or own)
    for wall, side in enumerate(sides):
        painted.clear()
        spec = {**SPEC, "reach_m": [4.0, 2.5], "wall": POT, "walls": {str(wall): {"panel": "windows"}}}
        scene = build_set(spec, anchor, 3)
        extent = scene.room_high - scene.room_low
        assert np.allclose(painted, [(extent[int(side[0] != 0)], extent[2])])
        assert [texture is own for texture in scene.walls] == [way == tuple(side) for way in (*SIDES, None)]


@pytest.mark.parametrize(
    ("azimuth", "depth", "gap"), [(0, 0.0, 0.0), (100, 0.2, 0.0), (215, 0.25, 0.1), (300, 1.5, 0.0), (45, 0.6, 0.6)]
)
def test_every_camera_stands_in_the_room_clear_of_what_stands_along_its_walls(
    azimuth: float, depth: float, gap: float
) -> None:
    anchor, _ = looking(azimuth)
    entry = {"depth_m": depth, "gap_m": gap, "height_m": 0.5, "width_m": 0.5}
    low = {"depth_m": 0.0, "height_m": 0.5, "width_m": 0.5}
    scene = build_set({**SPEC, "furniture": [low, entry, low], "reach_m": [0.1, 0.1]}, anchor, 3)
    assert scene.center == tuple(MIDDLE)
    clear = max(0.5, depth + gap + 0.25)
    reach = 0.1 * 1.12
    assert np.allclose(scene.room_low[:2], np.minimum(MIDDLE - reach, np.array(anchor.low[:2]) - clear), atol=0.02)
    assert np.allclose(scene.room_high[:2], np.maximum(MIDDLE + reach, np.array(anchor.high[:2]) + clear), atol=0.02)
    assert scene.room_low[2] == np.float32(anchor.floor_z)
    assert scene.room_high[2] == np.float32(2.9), "as high as rooms are, above this camera"
    tall = replace(anchor, high=(*anchor.high[:2], 3.0))
    assert build_set({**SPEC, "furniture": [entry]}, tall, 3).room_high[2] == np.float32(3.4)


def test_a_room_reaches_as_far_as_it_is_said_on_both_sides_of_the_scene() -> None:
    anchor, _ = looking(35)
    for seed in range(3):
        for furniture in ([], [{"height_m": 0.5, "width_m": 0.5}]):
            scene = build_set({**SPEC, "reach_m": [5.0, 4.0], "furniture": furniture}, anchor, seed)
            below, above = MIDDLE - scene.room_low[:2], scene.room_high[:2] - MIDDLE
            assert np.allclose(below, above, atol=1e-5)
            assert (below / [5.0, 4.0] + 1e-6 >= 0.92).all()
            assert (below / [5.0, 4.0] <= 1.12 + 1e-6).all()


def test_what_the_work_surface_stands_on_is_boxes_of_one_steel() -> None:
    anchor, _ = looking(35)
    legs = [(np.array([0, 0, 0], np.float32), np.array([k, 1, 2], np.float32)) for k in (1, 2)]
    item = {"depth_m": 0.4, "height_m": 0.7}
    first, *stands = build_set({**SPEC, "furniture": [item]}, anchor, 3, legs).boxes
    assert first.low[2] == np.float32(anchor.floor_z)
    for box, (low, high) in zip(stands, legs, strict=True):
        assert (box.low is low, box.high is high, box.leafy) == (True, True, False)
        assert len(box.faces) == 6
        assert len(set(map(id, box.faces))) == 1
