# SPDX-License-Identifier: Apache-2.0
"""Matting: where the pixels of a take over a painted first frame come from, and how their colours are carried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overhead import PACKET, ROBOT, overhead, points

from retake.core.errors import TakeError
from retake.core.painter import matting
from retake.core.painter.matting import Matte, Tone
from retake.core.painter.shadows import ShadowField
from retake.core.painter.stills import Still
from retake.core.variants.base import SourceFrame


@pytest.fixture
def without_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting, "add_movers", lambda *given: None)


def painted(source: SourceFrame, seed: int = 0) -> np.ndarray:
    """A first frame that looks like nothing of the simulation."""
    return np.random.default_rng(seed).integers(60, 190, source.rgb.shape).astype(np.uint8)


# -- tones --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1), st.floats(0.5, 2.4))
def test_a_tone_carries_colours_that_were_stretched_and_shifted(seed: int, gain: float) -> None:
    rng = np.random.default_rng(seed)
    source, offset = rng.uniform(60, 90, (40, 3)).astype(np.float32), rng.uniform(-20, 20, 3)
    target = source * gain + offset
    tone = Tone.between(source, target)
    assert np.allclose(tone.gain, gain, rtol=1e-3)
    assert np.allclose(tone.offset, offset, atol=0.1)
    assert np.abs(tone.apply(source).astype(int) - target).max() <= 0.6


def test_a_tone_stays_within_bounds_and_of_few_pixels_nothing_is_concluded() -> None:
    source = np.linspace(50, 60, 15)[:, None] * np.ones(3)
    few = Tone.between(source, 3 * source)
    assert (few.gain.tolist(), few.offset.tolist()) == ([1, 1, 1], [0, 0, 0])
    source = np.linspace(50, 60, 16)[:, None] * np.ones(3)
    for factor, gain in ((9.0, 2.5), (2.0, 2.0), (0.1, 0.4)):
        tone = Tone.between(source, factor * source)
        assert np.allclose(tone.gain, gain, rtol=1e-3)
        assert np.allclose(tone.gain * source.mean(0) + tone.offset, factor * source.mean(0), rtol=1e-3)
    # One colour alone has no spread to compare with: one level of 255 counts as its least.
    flat, grey = np.full((16, 3), 80.0), 100 + 1.5 * np.tile([-1.0, 1.0], 8)[:, None] * np.ones(3)
    assert np.allclose(Tone.between(flat, grey).gain, 1.5, rtol=1e-3)


def test_toned_bytes_are_rounded_and_never_wrap() -> None:
    tone = Tone(np.array([2.0, 1.0, 0.5], np.float32), np.array([0, -30, 0.2], np.float32))
    found = tone.apply(np.array([[100, 100, 100], [200, 20, 1], [127.75, 30, 0]], np.float32))
    assert found.tolist() == [[200, 70, 50], [255, 0, 1], [255, 0, 0]]


# -- a camera that stands still -----------------------------------------------------------------------------------------

HAND = np.s_[10:20, 12:24]
LATER = np.s_[28:38, 40:52]


def test_a_first_frame_of_another_size_is_refused() -> None:
    with pytest.raises(TakeError, match="the first frame is"):
        Matte(overhead(), np.zeros((48, 63, 3), np.uint8))


def test_what_the_robot_leaves_is_filled_from_around_and_the_rest_stays(without_shadows: None) -> None:
    first = overhead(plates=((ROBOT, HAND, 0.3),))
    frame = np.full_like(first.rgb, 140)
    frame[:, 32:] = 60
    frame[HAND] = (250, 20, 20)
    matte = Matte(first, frame.copy())
    # Of the robot two pixels around it are unknown as well: edges are blends.
    assert np.array_equal(np.argwhere(matte.hidden), np.argwhere(np.pad(np.ones((14, 16), bool), ((8, 26), (10, 38)))))
    now = overhead(plates=((ROBOT, LATER, 0.3),), rgb=np.full_like(first.rgb, 77))
    out = matte.render(now)
    away = np.ones(out.shape[:2], bool)
    away[27:39, 39:53] = False
    frame[HAND] = 140
    assert np.array_equal(out[away & ~matte.hidden], frame[away & ~matte.hidden])
    assert np.abs(out[matte.hidden].astype(int) - 140).max() <= 4
    # The robot's simulated colour, carried as its own pixels were at first.
    own = Tone.between(first.rgb[HAND].reshape(-1, 3), np.full((120, 3), (250, 20, 20)))
    assert (out[29:37, 41:51] == own.apply(np.full((1, 3), 77.0))).all()
    nothing = Matte(overhead(), frame)
    assert nothing.plate is nothing.first
    assert not nothing.hidden.any()


def test_what_is_toned_alike_are_robot_things_and_scenery_each_by_its_own_pixels(without_shadows: None) -> None:
    top = np.s_[30:40, 40:56]
    first = overhead(plates=((ROBOT, HAND, 0.3), (PACKET, top, 0.1)))
    frame = painted(first)
    frame[HAND], frame[top] = (250, 20, 20), (10, 240, 90)
    matte = Matte(first, frame)
    hand, packet = first.instance_ids == ROBOT, first.instance_ids == PACKET
    for tone, mask in (
        (matte.robot_tone, hand), (matte.tones[0], packet), (matte.scenery_tone, ~(hand | packet)),
    ):  # fmt: skip
        own = Tone.between(first.rgb[mask], frame[mask])
        assert np.array_equal(tone.gain, own.gain)
        assert np.array_equal(tone.offset, own.offset)


@pytest.mark.parametrize(("size", "wanted"), [((64, 48), (64, 48)), ((640, 480), (320, 240)), ((636, 48), (636, 48))])
def test_holes_of_large_pictures_are_filled_at_half_their_size(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    asked: list[Any] = []

    def inpaint(image: np.ndarray, hole: np.ndarray, radius: float, how: int) -> np.ndarray:
        asked.append((image.shape[1::-1], hole.shape[::-1], radius, int(hole.sum() * (size[0] / image.shape[1]) ** 2)))
        return np.full_like(image, 9)

    monkeypatch.setattr(cv2, "inpaint", inpaint)
    source = overhead(size, plates=((ROBOT, HAND, 0.3),))
    matte = Matte(source, painted(source))
    assert asked == [(wanted, wanted, 4, 14 * 16)]
    assert (matte.plate[matte.hidden] == 9).all()
    assert np.array_equal(matte.plate[~matte.hidden], matte.first[~matte.hidden])


def test_an_object_takes_its_painted_pixels_along_and_shows_the_simulation_toned_where_it_was_hidden(
    without_shadows: None,
) -> None:
    """The packet's top is 1.9 m below the camera: moved by 10 times 1.9 cm it stands ten columns on."""
    top, hand = np.s_[10:30, 10:30], np.s_[15:25, 10:20]
    first = overhead(plates=((PACKET, top, 0.1), (ROBOT, hand, 0.3)))
    frame = painted(first)
    matte = Matte(first, frame)
    now = overhead(plates=((PACKET, np.s_[10:30, 20:40], 0.1),), packet=(0.19, 0.0, 0.1), rgb=painted(first, 3))
    out = matte.render(now)
    seen = first.instance_ids[top] == PACKET
    inner = np.zeros((20, 20), bool)
    inner[1:-1, 1:-1] = True  # its border is blended with the table
    moved, then = out[10:30, 20:40], frame[top]
    assert np.abs(moved[seen & inner].astype(int) - then[seen & inner]).max() <= 1
    tone = Tone.between(first.rgb[top][seen], then[seen])
    covered = ~seen & inner
    assert np.array_equal(moved[covered], tone.apply(now.rgb[10:30, 20:40][covered]))
    assert matte.tones.keys() == {0}


def light_of(matte: Matte, now: float, then: float, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {id(matte.now): now, id(matte.then): then}
    monkeypatch.setattr(
        Matte, "_light", staticmethod(lambda fields, at, size: np.full(size[::-1], values[id(fields)], np.float32))
    )


@pytest.mark.parametrize(
    ("now", "then", "shown", "uncovered"),
    [
        (0.5, 1.0, 0.5, 0.5), (1.0, 0.5, 1.6, 1.0), (0.3, 0.1, 1.5, 0.3), (0.1, 1.0, 0.3, 0.3), (0.9, 0.9, 1.0, 0.9),
        (0.5, 0.25, 1.6, 0.5),
    ],
)  # fmt: skip
def test_scenery_is_shaded_by_what_changed_since_the_first_frame(
    without_shadows: None, monkeypatch: pytest.MonkeyPatch, now: float, then: float, shown: float, uncovered: float
) -> None:
    """Within bounds; what the robot uncovers was filled in without a shadow, so it gets the whole one of now."""
    first = overhead(plates=((ROBOT, HAND, 0.3),))
    frame = painted(first)
    frame[HAND] = 120
    frame[0, :4], frame[1, :4] = 0, 250
    matte = Matte(first, frame)
    plate, hidden = matte.plate.astype(float), matte.hidden
    light_of(matte, now, then, monkeypatch)
    out = matte.render(overhead(plates=((ROBOT, LATER, 0.3),)))
    scenery = np.ones(hidden.shape, bool)
    scenery[27:39, 39:53] = False
    for where, share in ((scenery & ~hidden, shown), (scenery & hidden, uncovered)):
        assert np.abs(out[where] - np.clip(plate[where] * share, 0, 255)).max() <= 0.51
    assert np.array_equal(out[30:36, 42:50], matte.robot_tone.apply(overhead().rgb[30:36, 42:50]))


# -- a camera that moves, and other cameras of the same world -----------------------------------------------------------


def drawn_after(matte: Matte, now: SourceFrame) -> np.ndarray:
    """The last ten columns of a frame, drawn after what was seen of the table."""
    at = np.arange(now.instance_ids.size).reshape(now.instance_ids.shape)[:, -10:].reshape(-1)
    normals = now.normals.reshape(-1, 3)[at].T.astype(np.float32)
    ids, rgb = now.instance_ids.reshape(-1)[at], now.rgb.reshape(-1, 3)[at]
    colours, known = matte.unseen.colours(points(now).reshape(-1, 3)[at].T.astype(np.float32), normals, ids, rgb)
    assert known.all()
    return colours.reshape(-1, 10, 3).astype(int)


def test_a_moving_camera_shows_what_the_first_frame_showed_and_else_what_is_drawn_after_it(
    without_shadows: None,
) -> None:
    """It moves by ten pixels of the table to the right."""
    first = overhead(static=False)
    frame = painted(first)
    matte = Matte(first, frame)
    now = overhead(static=False, eye=(0.2, 0.0), rgb=painted(first, 4))
    out = matte.render(now)
    assert np.array_equal(out[:, :-10], frame[:, 10:])
    assert np.abs(out[:, -10:] - drawn_after(matte, now)).max() <= 1


def test_of_a_thing_that_no_first_frame_shows_there_is_the_simulation_toned(without_shadows: None) -> None:
    """And of what has no depth: the sky is no surface."""
    first = overhead(static=False)
    matte = Matte(first, painted(first))
    now = overhead(static=False, plates=((99, np.s_[5:9, 5:9], 0.1),), rgb=painted(first, 4))
    depth = now.depth_m.copy()
    depth[20:30, 20:30] = 0
    out = matte.render(replace(now, depth_m=depth))
    for where in (np.s_[5:9, 5:9], np.s_[20:30, 20:30]):
        assert np.array_equal(out[where], matte.scenery_tone.apply(now.rgb[where]))


def test_what_was_seen_far_more_slanted_fades_into_what_is_drawn_after_it(
    without_shadows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = overhead(static=False)
    frame = painted(first)
    matte = Matte(first, frame)
    fill = drawn_after(matte, first)
    for streak, share in ((2.5, 1.0), (3.75, 0.5), (5.0, 0.0)):
        view = replace(matte.stills[0].view, facing=np.full(first.depth_m.shape, 1 / streak, np.float32))
        monkeypatch.setitem(vars(matte.stills[0]), "view", view)
        monkeypatch.setattr(Matte, "_facing", lambda self, source, at, normals: np.ones(len(at), np.float32))
        out = matte.render(first)[:, -10:]
        assert np.abs(out - (share * frame[:, -10:] + (1 - share) * fill)).max() <= 1.01


def test_how_slanted_a_surface_is_seen_is_told_by_its_normal(without_shadows: None) -> None:
    source = overhead(static=False)
    matte = Matte(source, painted(source))
    at = np.arange(source.depth_m.size)
    for normal in ((0, 0, 32767), (32767, 0, 0), (0, -19660, 26214)):
        n = np.repeat(np.array([normal], np.float32).T, len(at), 1)
        ray = points(source).reshape(-1, 3) - [0, 0, 2]
        wanted = np.abs(ray @ np.array(normal)) / np.linalg.norm(ray, axis=1) / 32767
        assert np.allclose(matte._facing(source, at, n), wanted, atol=1e-4)


def test_a_moving_camera_s_own_picture_has_the_shadows_of_now(
    without_shadows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = overhead(static=False)
    frame = painted(first)
    matte = Matte(first, frame)
    light_of(matte, 0.5, 1.0, monkeypatch)
    now = overhead(static=False, eye=(0.2, 0.0))
    out = matte.render(now)
    assert np.abs(out[:, :-10] - 0.5 * frame[:, 10:]).max() <= 0.51
    assert np.abs(out[:, -10:] - drawn_after(matte, now)).max() <= 1


def test_nothing_is_known_of_pixels_that_hit_nothing(without_shadows: None) -> None:
    first = overhead(static=False)
    depth = first.depth_m.copy()
    depth[:8] = 0
    matte = Matte(replace(first, depth_m=depth), painted(first))
    below, at = np.eye(4), np.arange(depth.size)
    below[2, 3] = -2.0  # brings what has no depth, and lies in the camera, onto the table
    _, seen = matte._trace(matte.stills, matte.reference, at, np.eye(4))
    assert np.array_equal(seen.reshape(depth.shape), depth > 0)
    assert not matte._trace(matte.stills, matte.reference, at, below)[1].any()


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_what_another_camera_shows_of_what_was_hidden_is_taken_from_it(without_shadows: None, gain: float) -> None:
    hand = np.s_[12:30, 12:30]
    first, other = overhead(plates=((ROBOT, hand, 0.3),)), overhead()
    frame, beside = painted(first), painted(other, 8)
    matte = Matte(first, frame, [Still(other, beside, gain)])
    out, known = matte._uncovered(other, matte.roles.role[other.instance_ids])
    shown = matte.hidden & matte.others[0].solid
    assert shown.sum() == 22 * 22
    assert np.abs(out[shown] - gain * beside[shown]).max() <= 0.51
    assert np.array_equal(out[~matte.hidden], frame[~matte.hidden])
    assert known.all()
    out, known = matte._uncovered(first, matte.roles.role[first.instance_ids])
    assert not known[first.instance_ids == ROBOT].any(), "nothing is looked up behind the robot"
    assert np.array_equal(out[first.instance_ids == ROBOT], matte.plate[first.instance_ids == ROBOT])
    alone = Matte(first, frame)
    out, known = alone._uncovered(other, alone.roles.role[other.instance_ids])
    assert np.array_equal(out, alone.plate)
    assert np.array_equal(known, ~alone.hidden)


# -- shadows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "step"), [(320, 2), (318, 1)])
def test_light_is_looked_up_at_every_second_pixel_of_a_large_picture(
    without_shadows: None, width: int, step: int
) -> None:
    source = overhead((width, 24), plates=((ROBOT, np.s_[4:9, 4:40], 0.3),))
    matte = Matte(source, source.rgb)
    grid, size = matte._grid(source)
    assert size == (width, 24)
    assert np.allclose(np.moveaxis(grid, 0, -1), points(source)[::step, ::step], atol=1e-4)
    every = matte._points_at(source, np.arange(24 * width))
    assert np.allclose(every.T, points(source).reshape(-1, 3), atol=1e-4), "the rays are what they were"


def test_sun_and_sky_each_take_their_share_of_the_light_where_they_are_blocked() -> None:
    class Field(ShadowField):
        def __init__(self, blocked: float, *expected: float) -> None:
            self.blocked, self.expected = blocked, expected

        def planes(self, flat: np.ndarray) -> np.ndarray:
            return flat

        def reaches(self, at: np.ndarray) -> bool:
            return self.blocked > 0

        def hidden(self, at: np.ndarray, *given: float) -> np.ndarray:
            assert at.shape[:2] == (3, 1)
            assert given == self.expected
            return np.full(at.shape[1:], self.blocked, np.float32)

        cast_on = contact_on = hidden

    at = np.zeros((3, 5, 4), np.float32)
    for sun, sky, light in ((0.0, 0.0, 1.0), (1.0, 0.0, 0.7), (0.0, 1.0, 0.5), (0.5, 0.5, 0.85 * 0.75)):
        found = Matte._light((Field(sun, 0.6), Field(sky)), at, (8, 10))
        assert found.shape == (10, 8)
        assert np.allclose(found, light)


def test_what_casts_shadows_are_the_robot_as_it_is_seen_and_the_movable_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every fourth of the robot's pixels is enough; what moved on shades no more."""
    told: list[Any] = []
    monkeypatch.setattr(
        matting, "add_movers", lambda field, source, robot, objects: told.append((field, robot, objects))
    )
    cleared: list[ShadowField] = []
    monkeypatch.setattr(ShadowField, "clear", lambda self: cleared.append(self))
    source = overhead(plates=((ROBOT, HAND, 0.3),))
    matte = Matte(source, source.rgb)
    assert [field for field, *_ in told] == cleared == [*matte.then]
    for _, robot, objects in told:
        assert objects == {0}
        assert np.allclose(robot, points(source)[source.instance_ids == ROBOT][::4], atol=1e-5)
    towards = [field.axes[2] for field in matte.then]
    assert np.allclose(towards[0], np.array([0.2, -0.2, 1.0]) / np.linalg.norm([0.2, -0.2, 1.0]))
    assert towards[1].tolist() == [0, 0, 1]
    assert np.allclose(matte.now[0].center[2], 0, atol=1e-5), "around the work surface"
