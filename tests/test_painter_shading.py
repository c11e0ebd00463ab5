# SPDX-License-Identifier: Apache-2.0
"""How the dresser lights what it sees, number by number: background, work surface, robot and objects under a light whose shares
are round numbers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from overhead import PACKET, ROBOT, TABLE, overhead, points

from retake.core.episode import Instance
from retake.core.geometry import pose_from_wxyz
from retake.core.painter import dresser as module
from retake.core.painter.dresser import Dresser
from retake.core.painter.sets import SetHit
from retake.core.painter.textures import LINEAR_OF_BYTE
from retake.core.variants.base import SourceFrame
from retake.core.variants.roles import CONTAINER, FIXTURE, find_roles

PLATE = np.s_[10:20, 12:24]


class Lamp:
    """A sun straight above of 0.6, a sky of 0.4 whatever the slope, in three colours of 1, 1/2 and 1/4."""

    to_sun, softness, mean, exposure = np.array([0, 0, 1], np.float32), 0.5, 0.8, 1.0
    tint = np.array([1, 0.5, 0.25], np.float32)
    sun = 0.6 * tint

    def facing_on(self, normal: np.ndarray) -> np.ndarray:
        return np.maximum(normal[2], 0)

    def ambient_on(self, z: np.ndarray) -> np.ndarray:
        return 0.4 * self.tint[:, None] * np.ones_like(z)


class Field:
    """Shadows that were told beforehand, and how they were asked for. `at` are numbers of receivers."""

    def __init__(self, hidden: float | np.ndarray, worth: Any = None) -> None:
        self.hidden, self.near, self.asked = hidden, worth, list[float]()

    def planes(self, at: np.ndarray) -> np.ndarray:
        return at

    def worth(self, at: np.ndarray) -> Any:
        return self.near

    def cast_on(self, at: np.ndarray, amount: float) -> np.ndarray:
        assert at.shape[:2] == (3, 1)
        self.asked.append(amount)
        return np.broadcast_to(np.asarray(self.hidden, np.float32), at.shape[1:]).copy()

    contact_on = cast_on


class Look:
    gain = np.ones(3, np.float32)

    def develop(self, lit: np.ndarray, at: Any) -> np.ndarray:
        return np.round(100 * lit).astype(np.uint8)


def bare(source: SourceFrame, **own: Any) -> Dresser:
    made = Dresser.__new__(Dresser)
    made.size, made.static, made._rays, made.roles = source.camera.size, True, None, find_roles(source)
    made.ambient = np.empty((3, 0), np.float32)
    made._reset()
    vars(made).update({"light": Lamp(), "look": Look(), **own})
    return made


# Per ray: facing, hidden from the sun, sky near by hidden, behind furniture, shining by itself, corner → sky, sun left.
RAYS = {
    "open ground": (1, 0, 0, 0, 0, 0, 1, 1),
    "half in a shadow": (1, 0.5, 0, 0, 0, 0, 1, 0.5),
    "behind furniture": (1, 0, 0, 1, 0, 0, 1, 0),
    "turned away": (0, 0, 0, 1, 0, 0, 1, 0),
    "a corner": (1, 0, 0, 0, 0, 0.5, 0.5, 0.75),
    "under the table": (1, 0, 1, 0, 0, 0, 0.45, 1),
    "the sky": (1, 0, 0, 1, 1, 0, 0, 0),
}


def test_the_set_is_lit_by_what_reaches_it_and_the_sky_shines_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What shines is a twentieth brighter than a lit surface."""
    facing, shade, contact, behind, glow, corner, sky, sun = np.array(list(RAYS.values()), np.float32).T
    count = len(facing)
    asked: list[int] = []

    def blocked(scene: Any, at: np.ndarray, to_light: np.ndarray) -> np.ndarray:
        asked.extend(at[:, 0].astype(int))
        return behind[at[:, 0].astype(int)]

    monkeypatch.setattr(module, "blocked", blocked)
    number = np.arange(count, dtype=np.float32)
    hit = SetHit(
        np.full((count, 3), 0.5, np.float32), np.stack([0 * facing, 1 - facing, facing], -1),
        np.stack([number, 0 * number, 0 * number], -1), number, number, glow, corner, np.zeros(count, int),
    )  # fmt: skip
    made = bare(overhead(), sun_still=Field(shade), sky_still=Field(contact), set=None)
    made._light_background(hit, slice(0, count), np.arange(count) + 30)
    own = np.where(glow > 0, 0.8 * 1.05, 0)
    for k, tint in enumerate(Lamp.tint):
        assert np.allclose(made.ambient[k, 30 : 30 + count], 0.5 * (0.4 * tint * sky + own), atol=1e-6)
        assert np.allclose(made.sunlit[k, 30 : 30 + count], 0.5 * 0.6 * tint * sun, atol=1e-6)
    assert not made.ambient[:, :30].any()
    assert asked == [0, 1, 2, 4, 5], "only what is turned to the sun and needs light"
    assert made.sun_still.asked == [0.5]  # type: ignore[attr-defined]
    assert made.sky_still.asked == [0.45]  # type: ignore[attr-defined]


@pytest.mark.parametrize("near", [False, True])
def test_scenery_has_its_own_materials_and_the_shadows_of_containers_near_by(
    monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    """Surface 1, container 1/2, fixture 1/4; a container next to it takes half of the sun and three tenths of the sky."""
    source = overhead(plates=((5, np.s_[:, 10:20], 0.0), (6, np.s_[:, 20:30], 0.0)))
    monkeypatch.setattr(module, "planar", lambda texture, at, normal, wide: texture * np.ones_like(at))
    widths: list[np.ndarray] = []

    def albedo(at: np.ndarray, normal: np.ndarray, wide: np.ndarray, on: np.ndarray) -> np.ndarray:
        widths.append(wide)
        assert np.allclose(normal, [[0], [0], [1]])
        assert np.allclose(at.T, points(source).reshape(-1, 3), atol=1e-4)
        return np.where(on, 1, 0) * np.ones((3, 1), np.float32)

    worth = np.flatnonzero(np.arange(64 * 48) % 2) if near else None
    fields = {
        "sun_still": Field(0),
        "sky_still": Field(0),
        "sun_near": Field(0.5, worth),
        "sky_near": Field(0.5, worth),
    }
    made = bare(source, surface=SimpleNamespace(albedo=albedo), container=0.5, fixture=0.25, **fields)
    made.roles.role[5], made.roles.role[6] = CONTAINER, FIXTURE
    kind = made.roles.role[source.instance_ids].reshape(-1)
    normals = source.normals.reshape(-1, 3).T.astype(np.float32)
    made._light_scenery(source, slice(0, kind.size), kind, source.depth_m.reshape(-1), normals, None)
    own = np.select([source.instance_ids == 5, source.instance_ids == 6], [0.5, 0.25], 1).reshape(-1)
    beside = np.arange(kind.size) % 2 == 1 if near else np.zeros(kind.size, bool)
    for k, tint in enumerate(Lamp.tint):
        assert np.allclose(made.ambient[k], own * 0.4 * tint * np.where(beside, 0.7, 1), atol=1e-6)
        assert np.allclose(made.sunlit[k], own * 0.6 * tint * np.where(beside, 0.5, 1), atol=1e-6)
    assert np.allclose(widths[0], 0.02), "a pixel of the table"
    assert made.sun_near.asked == ([0.3] if near else [])  # type: ignore[attr-defined]
    assert made.sky_near.asked == ([0.05] if near else [])  # type: ignore[attr-defined]


def test_the_robot_is_its_own_picture_under_the_world_s_light(monkeypatch: pytest.MonkeyPatch) -> None:
    source = overhead(plates=((ROBOT, PLATE, 0.3),))
    gain = np.arange(1, 4, dtype=np.float32)[:, None, None] * np.ones((1, 48, 64), np.float32)
    monkeypatch.setattr(module, "robot_gain_planes", lambda light, normals, mask: gain)
    made = bare(source)
    made._robot_level = np.float32(0.5)
    out = np.full((3, 48 * 64), 7, np.uint8)
    made._draw_robot(out, source, made.roles.role[source.instance_ids])
    out = out.reshape(3, 48, 64)
    wanted = 100 * LINEAR_OF_BYTE[source.rgb[PLATE]] * [0.5, 1.0, 1.5]
    assert np.abs(np.moveaxis(out[(slice(None), *PLATE)], 0, -1) - wanted).max() <= 0.51
    assert (out[:, source.instance_ids != ROBOT] == 7).all()
    untouched = np.full((3, 48 * 64), 7, np.uint8)
    nobody = overhead()
    made._draw_robot(untouched, nobody, made.roles.role[nobody.instance_ids])
    assert (untouched == 7).all()


@pytest.mark.parametrize(("height", "low"), [(0.0, 0.65), (0.0175, 0.825), (0.035, 1.0), (0.3, 1.0)])
def test_objects_are_lit_in_their_own_frame_darker_at_their_foot_and_shine_towards_the_light(
    height: float, low: float
) -> None:
    """Of two objects each by its own pixels. The first is turned by a quarter about the vertical: its x is the world's y."""
    other = Instance(8, "/World/Obj1", "packet", "object:obj1")
    source = overhead(plates=((PACKET, PLATE, height), (8, np.s_[30:36, 40:44], height)))
    first = source.header.objects[0]
    header = replace(
        source.header, objects=(first, replace(first, name="obj1", prim_path="/World/Obj1")),
        instances=(*source.header.instances, other),
    )  # fmt: skip
    quarter = np.array([0.5**0.5, 0, 0, 0.5**0.5])
    poses = pose_from_wxyz(np.array([[0.1, 0.2, 0.0], [0.0, 0.0, 0.0]]), np.stack([quarter, [1.0, 0, 0, 0]]))
    source = replace(source, header=header, T_world_object=poses)

    class Subject:
        def __init__(self, colour: float, gloss: float) -> None:
            self.colour, self.gloss = colour, gloss
            self.seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

        def shade(self, own: np.ndarray, normal: np.ndarray, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.seen.append((own, normal, wide))
            return np.full_like(own, self.colour), normal

    one, two = Subject(0.5, 0.0), Subject(0.25, 0.4)
    made = bare(source, subjects={0: one, 1: two})
    out = np.full((3, 48 * 64), 7, np.uint8)
    made._draw_subjects(out, source, made.roles.role[source.instance_ids])
    [(own, normal, wide)] = one.seen
    x, y, z = points(source)[source.instance_ids == PACKET].T
    assert np.allclose(own, [y - 0.2, 0.1 - x, z], atol=1e-4)
    assert np.allclose(normal, [[0], [0], [1]], atol=1e-3)
    assert np.allclose(wide, (2 - height) / 100)
    flat = out.reshape(3, 48, 64)
    for k, tint in enumerate(Lamp.tint):
        assert np.abs(flat[k][PLATE] - 100 * 0.5 * tint * (0.4 * low + 0.6)).max() <= 0.51
    # The half vector between straight up and the eye: half the angle to the eye.
    to_eye = np.array([0, 0, 2.0]) - points(source)[30:36, 40:44]
    angle = np.arccos(to_eye[..., 2] / np.linalg.norm(to_eye, axis=-1)) / 2
    for k, tint in enumerate(Lamp.tint):
        wanted = 100 * tint * (0.25 * (0.4 * low + 0.6) + 0.4 * np.cos(angle) ** 24 * 0.6)
        assert np.abs(flat[k][30:36, 40:44] - wanted).max() <= 0.52
    assert (flat[:, source.instance_ids == TABLE] == 7).all()
