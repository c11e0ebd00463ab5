# SPDX-License-Identifier: Apache-2.0
"""Steps of the dresser by themselves, on a scene seen from above whose every point is known: shadows of what moves, focus,
exposure, and which pixels are shaded again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overhead import PACKET, ROBOT, TABLE, overhead, points

from retake.core.episode import ObjectSpec
from retake.core.painter import dresser as module
from retake.core.painter.dresser import EPSILON, Dresser
from retake.core.painter.light import Light
from retake.core.painter.planes import view_rays
from retake.core.painter.shadows import ShadowField
from retake.core.variants import load_catalogue
from retake.core.variants.base import SourceFrame
from retake.core.variants.roles import find_roles
from retake.core.variants.worlds import recipe_of

HAND = np.s_[10:20, 12:24]


def bare(source: SourceFrame, **own: Any) -> Dresser:
    """A dresser that was told nothing but the scene."""
    made = Dresser.__new__(Dresser)
    made.size, made.static, made._rays, made.roles = source.camera.size, True, None, find_roles(source)
    made.ambient = np.empty((3, 0), np.float32)
    made._reset()
    vars(made).update(own)
    return made


def role_of(made: Dresser, source: SourceFrame) -> np.ndarray:
    return made.roles.role[source.instance_ids]


# -- shadows of what moves ----------------------------------------------------------------------------------------------


def shading(source: SourceFrame) -> Dresser:
    """A plate half a metre over the table, sun and sky above; nothing is known behind the robot."""
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, 41), np.linspace(-0.1, 0.1, 41))
    plate = np.stack([x, y, np.full_like(x, 0.05)], -1).reshape(-1, 3).astype(np.float32)
    fields = [ShadowField(np.array(way, np.float32), np.zeros(3)) for way in ((0.3, 0.2, 1.0), (0, 0, 1.0))]
    for field in fields:
        field.add_points(plate)
    receiver = np.where(source.instance_ids == ROBOT, -1, source.depth_m).astype(np.float32).reshape(-1)
    light = SimpleNamespace(softness=0.5)
    return bare(source, sun_moving=fields[0], sky_moving=fields[1], receiver_m=receiver, light=light)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_movers_hide_sun_and_sky_from_the_scenery_that_was_found_there(step: int) -> None:
    source = overhead(plates=((ROBOT, HAND, 0.3),))
    made = shading(source)
    shade, contact = made.moving_shadows(source, step)
    at = points(source)[::step, ::step].astype(np.float32)
    known = source.instance_ids[::step, ::step] != ROBOT
    sun, sky = made.sun_moving, made.sky_moving
    assert shade.max() > 0.5
    assert contact.max() > 0.3
    assert np.allclose(shade, np.where(known, sun.cast(sun.coordinates(at), 0.5), 0), atol=2e-3)
    assert np.allclose(contact, np.where(known, sky.contact(sky.coordinates(at)), 0), atol=2e-3)


class Look:
    """Develops light at a hundred levels for 1."""

    def develop(self, lit: np.ndarray, at: Any) -> np.ndarray:
        return np.round(100 * lit).astype(np.uint8)


def shadowed(
    size: tuple[int, int], static: bool, shade: float, contact: float
) -> tuple[np.ndarray, list[int], Dresser]:
    """A picture of 7s on which a shadow falls in the lower half, and the steps that were asked for."""
    source = overhead(size, plates=((ROBOT, np.s_[30:40, 5:15], 0.3),))
    steps: list[int] = []

    def found(own: SourceFrame, step: int) -> tuple[np.ndarray, np.ndarray]:
        steps.append(step)
        half = (np.arange(0, size[1], step) >= size[1] / 2)[:, None] * np.ones((1, -(-size[0] // step)), np.float32)
        return (shade * half).astype(np.float32), (contact * half).astype(np.float32)

    made = bare(source, static=static, look=Look(), moving_shadows=found)
    made.ambient[:], made.sunlit[:] = 0.4, 0.6
    out = np.full((3, size[0] * size[1]), 7, np.uint8)
    made._apply_shadows(out, source, role_of(made, source))
    return out.reshape(3, size[1], size[0]), steps, made


@pytest.mark.parametrize(("shade", "contact"), [(0.8, 0.0), (0.0, 0.6), (0.5, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("static", [True, False])
def test_a_shadow_takes_sun_and_sky_away_where_it_falls(static: bool, shade: float, contact: float) -> None:
    """On the scenery of a camera that stands still, and anywhere in a picture that is made anew; the rest is as it was."""
    out, steps, _ = shadowed((64, 48), static, shade, contact)
    assert steps == [1]
    light = 0.4 * (1 - 0.75 * contact) + 0.6 * (1 - shade) * (1 - 0.35 * contact)
    dark = out[:, 24:].copy()
    if static:
        assert (dark[:, 6:16, 5:15] == 7).all(), "the robot is drawn later"
        dark[:, 6:16, 5:15] = round(100 * light)
    assert (np.abs(dark.astype(int) - 100 * light) <= 0.51).all()
    assert (out[:, :24] == (7 if static else 100)).all()


def test_what_is_hardly_a_shadow_is_none() -> None:
    """So that the still background stays as it is, to the bit."""
    for shade, contact in ((EPSILON, EPSILON), (0.0, 0.0)):
        assert (shadowed((64, 48), True, shade, contact)[0] == 7).all()
        assert (shadowed((64, 48), False, shade, contact)[0] == 100).all()
    for shade, contact in ((2 * EPSILON, 0.0), (0.0, 2 * EPSILON)):
        assert (shadowed((64, 48), True, shade, contact)[0][:, 24] == 100).all()


@pytest.mark.parametrize(("width", "step"), [(319, 1), (320, 2)])
def test_shadows_of_a_large_picture_are_looked_up_at_every_second_pixel(width: int, step: int) -> None:
    out, steps, _ = shadowed((width, 48), True, 1.0, 0.0)
    assert steps == [step]
    assert (out[:, :23] == 7).all()
    assert (out[:, 41:] == 40).all()


@pytest.mark.parametrize(("size", "step"), [((64, 48), 1), ((320, 48), 1), ((640, 48), 2), ((960, 48), 3)])
def test_a_robot_of_unknown_links_shades_by_what_is_seen_of_it(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], step: int
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(module, "add_movers", lambda *given: told.append(given))
    source = overhead(size, plates=((ROBOT, HAND, 0.3),))
    fields = [ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3)) for _ in range(2)]
    for field in fields:
        field.add_points(np.zeros((1, 3), np.float32))
    made = bare(source, clouds=(), sun_moving=fields[0], sky_moving=fields[1], subjects={0: None}, bodies={})
    made._shade_moving_shadows(source, role_of(made, source))
    assert [given[0] for given in told] == fields
    assert all((field.height < 0).all() for field in fields), "what moved on shades no more"
    seen = points(source)[::step, ::step][source.instance_ids[::step, ::step] == ROBOT]
    for _, own, cloud, objects, bodies in told:
        assert np.allclose(cloud, seen, atol=1e-4)
        assert (own, objects, bodies) == (source, {0: None}, {})


# -- focus and exposure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blur", "width"), [(1.0, 64), (3.0, 64), (1.0, 320)])
def test_what_lies_behind_the_work_surface_goes_soft_step_by_step(blur: float, width: int) -> None:
    """In focus up to 1.15 times as far as the surface, softest from 2.05 times on, half as soft half way."""
    source = overhead((width, 48))
    made = bare(source, _eye=np.array([0, 0, 2.0], np.float32), look=SimpleNamespace(background_blur=blur))
    near = float(np.linalg.norm([0 - made.roles.anchor.center[0], -made.roles.anchor.center[1], 2.0]))
    noise = np.random.default_rng(2).random((3, 48, width), dtype=np.float32)
    distance = np.repeat(np.array([1.14, 1.6, 2.06], np.float32) * np.float32(near), 16)[:, None] * np.ones((1, width))
    planes = noise.reshape(3, -1).copy()
    made._defocus(planes, distance.astype(np.float32))
    sigma = blur * width / 320
    for found, plane in zip(planes.reshape(noise.shape), noise, strict=True):
        assert np.array_equal(found[:16], plane[:16])
        assert np.allclose(found[16:32], cv2.GaussianBlur(plane, (0, 0), sigma / 2)[16:32], atol=1e-4)
        assert np.allclose(found[32:], cv2.GaussianBlur(plane, (0, 0), sigma)[32:], atol=1e-4)
    planes = noise.reshape(3, -1).copy()
    made.look.background_blur = 0.05 * 320 / width
    made._defocus(planes, distance.astype(np.float32))
    assert np.array_equal(planes, noise.reshape(3, -1)), "a blur of a twentieth of a pixel is none"


@pytest.mark.parametrize(("mean", "level"), [(0.05, 0.12), (0.5, 0.5), (2.0, 0.75)])
def test_a_white_robot_is_as_bright_as_the_world_below_the_shoulder_of_the_curve(
    monkeypatch: pytest.MonkeyPatch, mean: float, level: float
) -> None:
    monkeypatch.setattr(module, "robot_gain_planes", lambda light, normals, mask: np.ones((3, *mask.shape), np.float32))
    source = overhead(plates=((ROBOT, HAND, 0.3),), rgb=np.full((48, 64, 3), 255, np.uint8))
    made = bare(source, light=SimpleNamespace(mean=mean), look=SimpleNamespace(gain=np.ones(3, np.float32)))
    made._robot_level = np.float32(1)
    assert made._level_of(source, role_of(made, source)) == pytest.approx(level, rel=1e-5)
    nobody = overhead(rgb=source.rgb)
    assert made._robot_ceiling(nobody, role_of(made, nobody)) == 1
    assert made._level_of(nobody, role_of(made, nobody)) == pytest.approx(max(mean, 0.12))


@pytest.mark.parametrize("ceiling", [0.25, 4.0])
@pytest.mark.parametrize("lead", [True, False])
def test_a_scene_is_metered_by_its_lead_camera_or_by_what_is_seen(
    monkeypatch: pytest.MonkeyPatch, lead: bool, ceiling: float
) -> None:
    """On every sixteenth pixel of which something is known; what is too bright for the robot comes down, never up."""
    source = overhead(plates=((ROBOT, HAND, 0.3),))
    told: list[Any] = []
    look = SimpleNamespace(gain=np.full(3, 2.0, np.float32))

    def expose(light: np.ndarray, brightness: float) -> None:
        told.append((light, brightness))
        look.gain = look.gain * np.float32(10)

    look.expose = expose
    made = bare(source, look=look, light=SimpleNamespace(mean=0.5, exposure=0.7), _metered=(np.float32(0.3), 1.5))
    made._metered = made._metered if lead else None
    made._robot_ceiling = lambda source, role: ceiling  # type: ignore[method-assign]
    made.known_depth[:] = np.where(np.arange(64 * 48) % 3 > 0, 0, -1)
    made.ambient[:] = np.arange(64 * 48)
    made.sunlit[:] = 0.25
    made._expose(source, role_of(made, source))
    [(light, brightness)] = told
    assert brightness == 0.7
    assert np.array_equal(light, np.tile(np.flatnonzero(np.arange(64 * 48) % 3)[::16] + 0.25, (3, 1)))
    assert made._exposed
    down = min(1, ceiling)
    assert np.allclose(look.gain, 2 * 1.5 * down if lead else 20)
    assert made._robot_level == pytest.approx(0.3 if lead else 0.5 * down)


# -- what is shaded again -----------------------------------------------------------------------------------------------


def test_a_dresser_begins_with_nothing_known() -> None:
    made = bare(overhead((64, 48)))
    before = made.ambient
    for plane, value in ((made.ambient, 0), (made.sunlit, 0), (made.still8, 0), (made.known_id, 0), (made.known_depth, -1),
                         (made.receiver_m, -1)):  # fmt: skip
        assert plane.shape[-1] == 64 * 48
        assert (plane == value).all()
        plane[...] = 5
    made._reset()
    assert made.ambient is before
    assert [float(p.max()) for p in (before, made.sunlit, made.still8, made.known_id)] == [0, 0, 0, 0]
    assert [float(p.max()) for p in (made.known_depth, made.receiver_m)] == [-1, -1]
    made.size = (10, 4)
    made._reset()
    assert (made.ambient.shape, made.still8.shape, made.receiver_m.shape) == ((3, 40), (3, 40), (40,))


@given(st.integers(1, 60), st.booleans(), st.booleans())
def test_only_scenery_whose_depth_or_thing_changed_is_shaded_again(rows: int, static: bool, other: bool) -> None:
    """Block by block; where that is most of a block, in one run with what of it is fresh."""
    first = overhead((40, 60), plates=((ROBOT, np.s_[:, :8], 0.3),), static=static)
    place = np.s_[:rows, 8:40]
    now = overhead(
        (40, 60), plates=((ROBOT, np.s_[:, :8], 0.3), (5 if other else TABLE, place, 0.0 if other else 0.01))
    )
    lit: list[Any] = []
    developed: list[Any] = []

    def light(source: Any, at: Any, kind: Any, depth: Any, normals: Any, on: Any) -> None:
        pixels = np.arange(2400)[at] if on is None else np.arange(2400)[at][on]
        assert np.array_equal(kind, role_of(made, source).reshape(-1)[at])
        assert np.array_equal(depth, source.depth_m.reshape(-1)[at])
        assert normals.shape == (3, len(depth))
        assert (on is not None) == isinstance(at, slice)
        lit.append(pixels)

    made = bare(first, static=static, _light_scenery=light, _develop=developed.append)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "blocks", lambda count: (slice(k, k + 400) for k in range(0, count, 400)))
        for source, wanted in ((first, first.instance_ids == TABLE), (first, None), (now, "place"), (now, None)):
            lit.clear()
            developed.clear()
            made._shade_scenery(source, role_of(made, source))
            mask = np.zeros((60, 40), bool)
            mask[place] = True
            expected = mask if isinstance(wanted, str) else np.zeros((60, 40), bool) if wanted is None else wanted
            assert np.array_equal(np.concatenate([np.zeros(0, int), *lit]), np.flatnonzero(expected))
            assert len(developed) == (len(lit) if static else 0)
            seen = (source.instance_ids != ROBOT).reshape(-1)
            assert np.array_equal(made.known_depth[seen], source.depth_m.reshape(-1)[seen])
            assert np.array_equal(made.receiver_m[seen], source.depth_m.reshape(-1)[seen])
            assert np.array_equal(made.known_id[seen], source.instance_ids.reshape(-1)[seen])
            assert (made.known_depth[~seen] == -1).all()


def test_every_object_that_moves_is_painted_with_a_grain_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make_subject", lambda *given: given)
    source = overhead()
    objects = tuple(
        ObjectSpec(f"o{k}", f"/World/o{k}", "x", (0.1, 0.1, 0.1 + k), (0.0, 0.0, k / 2), movable=k != 1)
        for k in range(3)
    )
    made = bare(source)
    made.roles = replace(made.roles, task_object=2)
    source = replace(source, header=replace(source.header, objects=objects))
    recipe = {"subject": {"kind": "bun"}, "others": [{"kind": "tin"}]}
    assert made._make_subjects(source, recipe, 40) == {
        0: ({"kind": "tin"}, (0.1, 0.1, 0.1), (0.0, 0.0, 0.0), 40), 2: ({"kind": "bun"}, (0.1, 0.1, 2.1), (0.0, 0.0, 1.0), 42),
    }  # fmt: skip


@pytest.mark.parametrize("high", [0.0, 0.01, 0.035, 0.3])
@pytest.mark.parametrize("gloss", [0.0, 0.6])
def test_an_object_is_lit_by_sky_and_sun_shines_and_is_darker_near_what_it_stands_on(high: float, gloss: float) -> None:
    """It is shaded in its own frame: turned a quarter about the vertical, and moved."""
    source = overhead(plates=((PACKET, HAND, high),), packet=(0.1, -0.2, 0.05))
    T = source.T_world_object.copy()
    T[0, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    source = replace(source, T_world_object=T)
    told: list[Any] = []
    lit: list[np.ndarray] = []
    albedo = np.array([0.2, 0.5, 0.8], np.float32)[:, None]
    own_normal = np.array([0.0, 0.6, 0.8], np.float32)[:, None]

    def shade(points: np.ndarray, normal: np.ndarray, footprint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        told.append((points, normal, footprint))
        return albedo + 0 * points, own_normal + 0 * points

    class Look:
        def develop(self, light: np.ndarray, at: Any) -> np.ndarray:
            lit.append(light)
            return np.full(light.shape, 99, np.uint8)

    to_sun, sun, sky, ground = (
        np.array(v, np.float32) for v in ((0.48, 0.0, 0.88), (1.5, 1.2, 0.9), (0.5, 0.6, 0.7), (0.2, 0.2, 0.1))
    )
    light = Light(to_sun / np.linalg.norm(to_sun), sun, sky, ground, 1.0, 0.3)
    made = bare(source, subjects={0: SimpleNamespace(gloss=gloss, shade=shade)}, light=light, look=Look())
    made.roles = replace(made.roles, support_z=0.005)
    out = np.zeros((3, 48 * 64), np.uint8)
    nobody = overhead()
    made._draw_subjects(out, nobody, role_of(made, nobody))
    assert not out.any()
    assert not told
    made._draw_subjects(out, source, role_of(made, source))
    mask = source.instance_ids == PACKET
    assert np.array_equal(out.reshape(3, 48, 64).max(0) == 99, mask)
    [(points_own, normal, footprint)], [found] = told, lit
    world = points(source)[mask]
    assert np.allclose(points_own.T, (world - [0.1, -0.2, 0.05]) @ T[0, :3, :3], atol=1e-5)
    assert np.allclose(normal.T, [0, 0, 1])
    assert np.allclose(footprint, (2 - high) / 100)
    bent = T[0, :3, :3] @ own_normal[:, 0]
    view = [0, 0, 2] - world
    half = view / np.linalg.norm(view, axis=1, keepdims=True) + light.to_sun
    shine = gloss * np.maximum(half @ bent / np.linalg.norm(half, axis=1), 0) ** 24
    low = 0.65 + 0.35 * float(np.clip((high - 0.005) / 0.035, 0, 1))
    ambient = (ground + (sky - ground) * 0.9) * low
    wanted = albedo[:, 0] * ambient + (albedo[:, 0] * max(bent @ light.to_sun, 0) + shine[:, None]) * sun
    assert np.allclose(found.T, wanted, atol=2e-3)


def test_rays_of_a_picture_are_those_of_its_camera_and_are_kept() -> None:
    source = overhead(plates=((PACKET, HAND, 0.1),))
    made = bare(source)
    d, eye = made._view(source)
    assert np.allclose(np.moveaxis(d, 0, -1) * source.depth_m[..., None] + eye, points(source), atol=1e-5)
    assert made._view(source)[0] is d
    mask = source.instance_ids == PACKET
    assert np.allclose(made._points(source, mask), points(source)[mask], atol=1e-5)
    assert np.array_equal(view_rays(source.camera)[0], d)


def test_a_table_near_the_camera_is_as_large_as_it_shows() -> None:
    source = overhead()
    source = replace(source, depth_m=np.full_like(source.depth_m, 0.8))
    made = Dresser(source, recipe_of(load_catalogue().preset("kitchen")), 0)
    shown = points(source)[..., :2].reshape(-1, 2)
    assert np.allclose(made.surface.low, shown.min(0), atol=0.03)
    assert np.allclose(made.surface.high, shown.max(0), atol=0.03)


def test_a_frame_by_itself_is_all_that_is_known_of_its_scene() -> None:
    """Its own pixels tell where the surface ends; those that hit nothing tell nothing."""
    source = overhead(plates=((PACKET, HAND, 0.1),))
    depth = source.depth_m.copy()
    depth[:8] = 0
    source = replace(source, depth_m=depth)
    made = Dresser(source, recipe_of(load_catalogue().preset("kitchen")), 0)
    on = (source.instance_ids == TABLE) & (depth > 0)
    assert np.allclose(made.surface.low, points(source)[on][:, :2].min(0), atol=0.03)
    assert np.allclose(made.surface.high, points(source)[on][:, :2].max(0), atol=0.03)
    assert made.clouds == ()
    assert made._metered is None
    assert made.subjects.keys() == {0}
    fields = (made.sun_still, made.sky_still, made.sun_moving, made.sky_moving, made.sun_near, made.sky_near)
    for number, field in enumerate(fields):
        assert np.allclose(field.axes[2], [0, 0, 1] if number % 2 else made.light.to_sun, atol=1e-6)
        assert np.allclose(field.center, [*made.roles.anchor.center, 0], atol=1e-6)
    assert [bool((field.height > -100).any()) for field in fields] == [True, True, False, False, False, False]
    frame = made.render(source)
    assert frame.shape == (48, 64, 3)
    assert np.array_equal(made.render(source), frame)
