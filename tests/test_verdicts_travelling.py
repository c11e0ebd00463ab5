# SPDX-License-Identifier: Apache-2.0
"""Before a camera that moves: what stands still must stay with the scenery, nothing may go with the camera in its place, and a
second copy of an object is one although every other frame alone is searched.

The scenery is a large picture over which a window slides, so that what a frame shows where is known without any camera.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.verdicts import load_settings
from retake.core.verdicts.copies import LARGEST, Copies
from retake.core.verdicts.intruders import measure_companions
from retake.core.verdicts.objects import _unique
from retake.core.verdicts.stills import measure_stills
from retake.core.verdicts.tracking import SEARCHED

WIDTH, HEIGHT, FRAMES = 128, 96, 61
SETTINGS = load_settings()
PX = 2.0


def noise(seed: int, height: int, width: int, hue: tuple[float, float, float], spread: float = 22) -> np.ndarray:
    """A textured surface of a hue (h, w, 3), float."""
    rng = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 1.5)
    return np.clip(np.array(hue) * (1 + spread / 100 * (grey / grey.std())[..., None]), 1, 250)


class Slide:
    """A window that slides over a picture: its frames, and what `Truth` and `Scene` say of them."""

    def __init__(self, seed: int, speed: tuple[float, float]) -> None:
        self.world = noise(seed, 260, 320, (120, 110, 95))
        self.corner = np.round(np.outer(np.arange(FRAMES), speed) + np.array([90, 80])).astype(int)
        self.frames = np.stack([self.world[y : y + HEIGHT, x : x + WIDTH] for x, y in self.corner]).astype(np.uint8)
        self.still = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
        self.labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)

    def put(self, t: int, patch: np.ndarray, at: np.ndarray) -> None:
        """A patch over frame t, with its corner at a place of the picture (column, row)."""
        x, y = (at - self.corner[t]).astype(int)
        h, w = patch.shape[:2]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, WIDTH), min(y + h, HEIGHT)
        if x1 > x0 and y1 > y0:
            self.frames[t, y0:y1, x0:x1] = patch[y0 - y : y1 - y, x0 - x : x1 - x]

    def mark(self, t: int, size: tuple[int, int], at: np.ndarray) -> None:
        """Where the simulation has the thing that stands still."""
        x, y = (at - self.corner[t]).astype(int)
        self.still[t, max(y, 0) : max(y + size[1], 0), max(x, 0) : max(x + size[0], 0)] = 1

    def parts(self) -> tuple[Any, Any, Any]:
        """Footage, truth and scene."""
        half = (HEIGHT // 2, WIDTH // 2)
        v, u = np.mgrid[0 : half[0], 0 : half[1]].astype(np.float32)

        def same_place(t: int, r: int, standing: frozenset[int] = frozenset()) -> Any:
            dx, dy = (self.corner[t] - self.corner[r]) / 2
            x, y = u + np.float32(dx), v + np.float32(dy)
            return x, y, (x >= 0) & (y >= 0) & (x <= half[1] - 1) & (y <= half[0] - 1)

        truth = SimpleNamespace(
            static_camera=False, size=(WIDTH, HEIGHT), px=PX, scale=0.5, parts=(), stills=("tray",), labels=self.labels,
            stills_of=lambda episode, camera, t: self.still[t],
        )  # fmt: skip
        footage = type("Footage", (), {"frames": self.frames, "__len__": lambda self: FRAMES})()
        return footage, truth, SimpleNamespace(same_place=same_place, episode=None, camera="")


speeds = st.tuples(st.floats(-0.6, 0.6), st.floats(-0.4, 0.4))


@given(
    seed=st.integers(0, 99),
    speed=speeds,
    moved=st.tuples(st.sampled_from((-9, -5, 0, 5, 9)), st.sampled_from((0, 6))),
    gain=st.floats(0.7, 1.2),
)
def test_a_thing_that_leaves_its_place_is_as_far_off_as_it_went(
    seed: int, speed: tuple[float, float], moved: tuple[int, int], gain: float
) -> None:
    slide = Slide(seed, speed)
    patch = noise(seed + 1000, 34, 40, (60, 140, 150), 30)
    home = slide.corner[FRAMES // 2] + [44, 30]
    for t in range(FRAMES):
        away = np.array(moved) if t > FRAMES // 2 else np.zeros(2, int)
        slide.put(t, patch, home + away)
        slide.mark(t, (40, 34), home)
        if t > FRAMES // 2:
            slide.frames[t] = np.clip(slide.frames[t] * gain, 0, 255)
    found = measure_stills(*slide.parts()[:2], SETTINGS.stability, slide.parts()[2])
    assert found.value == pytest.approx(PX * np.hypot(*moved), abs=1.0)


@given(seed=st.integers(0, 99), speed=speeds, slid=st.sampled_from((-9, 7)))
def test_what_slides_over_a_thing_does_not_move_it(seed: int, speed: tuple[float, float], slid: int) -> None:
    """Earlier frames show the inside of a thing alone, and a pattern slides there afterwards (the hand's shadow, say): its
    outline says that it stands where it stood."""
    slide = Slide(seed, speed)
    home = slide.corner[FRAMES // 2] + [44, 30]
    for t in range(FRAMES):
        patch = noise(seed + 1000, 34, 40, (20, 40, 50), 25)
        slide.put(t, np.roll(patch, slid, axis=1) if t > FRAMES // 2 else patch, home)
        slide.mark(t, (40, 34), home)
    footage, truth, scene = slide.parts()
    everywhere = scene.same_place

    def inside(t: int, r: int, standing: frozenset[int] = frozenset()) -> Any:
        x, y, same = everywhere(t, r)
        u, v = ((home - slide.corner[t]) // 2).astype(int)
        within = np.zeros_like(same)
        within[max(v + 3, 0) : max(v + 15, 0), max(u + 3, 0) : max(u + 18, 0)] = True
        return x, y, same & within

    scene.same_place = inside
    assert (measure_stills(footage, truth, SETTINGS.stability, scene).value or 0.0) == 0


def test_what_shows_once_only_or_cut_off_or_without_depth_is_not_judged() -> None:
    slide = Slide(3, (1.4, 0.0))
    footage, truth, scene = slide.parts()
    assert not measure_stills(footage, truth, SETTINGS.stability, None).applies
    assert not measure_stills(footage, truth, SETTINGS.stability, scene).applies, "the thing is nowhere"
    patch = noise(5, 30, 60, (60, 140, 150), 30)
    for t in range(FRAMES):
        at = np.array([slide.corner[t, 0] + WIDTH - 20, slide.corner[t, 1] - 2])  # a corner of it, always
        slide.put(t, patch, at)
        slide.mark(t, (60, 30), at)
    found = measure_stills(footage, truth, SETTINGS.stability, scene)
    assert found.value is None


@given(seed=st.integers(0, 99), speed=speeds.filter(lambda v: abs(v[0]) > 0.35), side=st.integers(12, 30))
def test_what_goes_with_the_camera_is_found_at_its_size_and_what_stays_behind_is_not(
    seed: int, speed: tuple[float, float], side: int
) -> None:
    patch = noise(seed + 7, side, side, (170, 60, 50), 5)
    with_it, behind, shaded = Slide(seed, speed), Slide(seed, speed), Slide(seed, speed)
    for t in range(FRAMES):
        if t > FRAMES // 6:
            with_it.put(t, patch, with_it.corner[t] + [30, 40])
        behind.put(t, patch, behind.corner[0] + [30, 40])
        shade = np.ones((HEIGHT, WIDTH, 1))
        shade[30 : 30 + side, 20 : 20 + side] = 0.45  # a hand's shadow goes with it, too
        shaded.frames[t] = shaded.frames[t] * shade
    found = measure_companions(*with_it.parts()[:2], SETTINGS.stability, with_it.parts()[2])
    assert found.value is not None
    # Looks two apart are compared, and of places that showed the thing itself then nothing is known: a slow camera knows the rim
    # that the thing covered since.
    inner = [max(side - 2 * SETTINGS.stability.still_step * abs(v), 0.0) for v in speed]
    assert 0.8 * PX * np.sqrt(side**2 - inner[0] * inner[1]) <= found.value <= PX * (side + 3)
    for slide in (behind, shaded):
        assert (measure_companions(*slide.parts()[:2], SETTINGS.stability, slide.parts()[2]).value or 0.0) < 6 * PX


def test_a_camera_that_never_looks_back_is_not_asked() -> None:
    slide = Slide(1, (0.0, 0.0))
    slide.corner[:] = np.arange(FRAMES)[:, None] * 400
    assert not measure_companions(*slide.parts()[:2], SETTINGS.stability, slide.parts()[2]).applies


@given(
    share=st.floats(0.05, 4.0),
    likely=st.floats(0.6, 1.0),
    depth=st.floats(0.3, 2.0),
    beside=st.booleans(),
)
def test_a_copy_is_as_strong_as_it_is_like_the_object_and_as_large_as_it_should_be_there(
    share: float, likely: float, depth: float, beside: bool
) -> None:
    size = (160, 120)
    side = 24
    away = side * np.sqrt(1 / share)  # working px² of the object where the copy is
    truth = SimpleNamespace(
        static_camera=False, size=(2 * size[0], 2 * size[1]), area=np.array([[4 * away**2]]), parts=(), object_parts=[],
        T_camera_world=np.eye(4)[None], T_world_part=np.array([[np.eye(4)]]), labels=np.zeros((1, 240, 320), np.uint8),
    )  # fmt: skip
    truth.T_world_part[0, 0, 2, 3] = depth
    copies = Copies(SimpleNamespace(frames=None), truth, 0, size)  # type: ignore[arg-type]
    news, mask, others = (np.zeros(size[::-1], np.float32) for _ in range(3))
    news[40 : 40 + side, 30 : 30 + side] = likely
    mask[30:100, 100:140] = 1
    if beside:
        others[30:80, 20:70] = 1
    scene: Any = SimpleNamespace(depth=lambda t: np.full(size[::-1], depth, np.float32))
    strength, where = copies.on_the_way(0, news, mask, others, scene)
    if beside:
        assert strength == 0
    elif share < 0.99 * LARGEST:
        assert strength == pytest.approx(likely * min(share / 0.5, 1.0), abs=0.02)
        assert np.allclose(where, [30 + side / 2 - 0.5, 40 + side / 2 - 0.5])
    elif share > 1.01 * LARGEST:
        assert strength == 0, "somebody's coat"


@pytest.mark.parametrize(
    ("searched", "lasts", "value"), [(1, 3, 0.9), (1, 2, 0.0), (SEARCHED, 3, 0.9), (SEARCHED, 2, 0.0)]
)
def test_a_copy_lasts_three_of_the_frames_that_were_searched(searched: int, lasts: int, value: float) -> None:
    """A moving camera's every other frame is not searched, and says nothing against those that are."""

    second = np.full(40, np.nan)
    second[::searched] = 0.0
    second[10 : 10 + lasts * searched : searched] = 0.9
    track: Any = SimpleNamespace(second=second, reference=1.0)
    assert _unique(track, SETTINGS.object, searched).value == pytest.approx(value)
