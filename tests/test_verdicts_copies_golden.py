# SPDX-License-Identifier: Apache-2.0
"""What of an object's colours elsewhere may be a copy of it, pixel by pixel, against what it was before: the laws beside it ask
whether anything is left alone.

`python tests/test_verdicts_copies_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.verdicts import copies
from retake.core.verdicts.footage import Footage

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "copies.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
HEIGHT, WIDTH, FRAMES = 80, 104, 9
HALF = (WIDTH // 2, HEIGHT // 2)
OBJECT = np.s_[30:42, 40:56]


def noise(seed: int, height: int = HEIGHT, width: int = WIDTH, blur: float = 2.0) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32), (0, 0), blur)
    return field / field.std()


def picture(seed: int) -> np.ndarray:
    """RGB float, with a hue that varies."""
    hue = np.array((90, 80, 60)) + 20 * np.stack([noise(seed + k, blur=5.0) for k in (50, 60, 70)], -1)
    return (hue + 16 * noise(seed)[..., None]).astype(np.float32)


def as_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).astype(np.uint8)


def a_truth(still: bool = True) -> Any:
    """A camera 1 m above the ground that looks down upon a hand (part 0) and an object (part 1)."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    labels[:, 10:30, 46:52] = 1
    labels[0][OBJECT], labels[1:, 32:44, 44:60], labels[5:, 34:44, 44:60] = 2, 2, 2
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, 0, :3, 3], poses[:, 1, :3, 3] = (0.05, -0.1, 0.2), (0.1, 0.02, 0.05)
    poses[4:, 1, 0, 3] = 0.13
    world = np.diag([1.0, -1, -1, 1])
    world[2, 3] = 1.0
    return SimpleNamespace(
        labels=labels, area=np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float), size=(WIDTH, HEIGHT),
        static_camera=still, T_world_part=poses, T_camera_world=np.tile(world, (FRAMES, 1, 1)), object_parts=[1],
        robot_parts=[0], K=np.tile(np.array([[90.0, 0, 52], [0, 90.0, 40], [0, 0, 1]]), (FRAMES, 1, 1)),
    )  # fmt: skip


def a_film() -> Footage:
    """What was there, shaded a little more from frame to frame, with another hue, and with something new."""
    before, rng = picture(1), np.random.default_rng(2)
    frames = []
    for t in range(FRAMES):
        light = 1 - 0.09 * t + 0.3 * (t == 8) + 0.25 * noise(30 + t, blur=14.0)[..., None] * (t > 0)
        image = before * light * np.array((1 + 0.02 * t, 1, 1 - 0.015 * t))
        image[52:64, 70:90] = (170, 40, 60)
        frames.append(as_bytes(image + rng.normal(0, 2, image.shape)))
    scenery = (before * 0.9 + 8 * noise(9)[..., None]).astype(np.float32)
    known = noise(10, blur=6.0) > -0.6
    return Footage(np.stack(frames), scenery, known, 1.0)


def news(seed: int) -> np.ndarray:
    """0..1, in pieces of many sizes."""
    field = noise(seed, HALF[1], HALF[0], 1.5 + seed % 3)
    return np.clip(0.45 + 0.4 * field, 0, 1).astype(np.float32)


def half(mask: np.ndarray) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), HALF, interpolation=cv2.INTER_AREA)


def of_still() -> dict[str, Any]:
    truth, out = a_truth(), {}
    one = copies.Copies(a_film(), truth, 1, HALF)
    out["begin"] = [one._reach, one._largest, one._area_at_1m, one._before]
    for t in range(FRAMES):
        mask = half(truth.labels[t] == 2)
        given = news(t)
        out[f"{t}"] = [one.among(t, given, mask), one.among(t, np.ones_like(mask), mask)]
        out[f"{t} sizes"] = [one._of_its_size(given, mask), one._of_its_size(given, 0 * mask)]
        out[f"{t} hues"] = one._hues(t)
    dark = copies.Copies(Footage(a_film().frames // 9, a_film().scenery / 9, a_film().known, 1.0), truth, 1, HALF)
    out["dark"] = [dark.among(t, news(t), half(truth.labels[t] == 2)) for t in (2, 5)]
    return summed_up(out)


def of_travelling() -> dict[str, Any]:
    truth, out, film = a_truth(still=False), {}, a_film()
    one = copies.Copies(film, truth, 1, HALF)
    out["begin"] = [one._reach, one._largest, one._area_at_1m, len(one._before)]
    v, u = np.mgrid[0 : HALF[1], 0 : HALF[0]].astype(np.float32)

    def same_place(t: int, r: int) -> Any:
        x, y = u + np.float32(0.3 * (t - r)), v - np.float32(0.4 * (t - r))
        return x, y, (x >= 2) & (x <= HALF[0] - 3) & (y >= 2) & (y <= HALF[1] - 3)

    for far in (0.5, 0.9, 1.6):
        depth = (far + 0.2 * noise(20, HALF[1], HALF[0], 6.0)).astype(np.float32)
        depth[:, :4] = 0
        scene: Any = SimpleNamespace(depth=lambda t, depth=depth: depth, same_place=same_place)
        for t in range(FRAMES):
            mask, others = half(truth.labels[t] == 2), half(truth.labels[t] == 1)
            out[f"{far} {t}"] = one.on_the_way(t, news(t), mask, others, scene)
            alone = np.where(np.hypot(u - 5 - 4 * t, v - 30) < 2.2 + 0.3 * t, 0.9, 0.1).astype(np.float32)
            out[f"{far} {t} alone"] = one.on_the_way(t, alone, mask, others, scene)
    for t, earlier in ((3, [0]), (6, [0, 3]), (8, [2, 4, 6]), (8, [])):
        out[f"{t} {earlier}"] = one.as_before(t, earlier, scene)
    return summed_up(out)


CASES = {"still": of_still, "travelling": of_travelling}


@pytest.mark.parametrize("case", CASES)
def test_copies_are_looked_for_as_they_were(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


@pytest.mark.parametrize(("larger", "left"), [(0, True), (1, False)])
def test_a_piece_is_at_most_three_times_as_large_as_the_object(larger: int, left: bool) -> None:
    """Of 192 px² at most, 48 px of half size: 144 of these may be a copy."""
    truth = a_truth()
    one = copies.Copies(a_film(), truth, 1, HALF)
    given = np.zeros(HALF[::-1], np.float32)
    given[2:14, 2:14] = 1
    given[14, 2 : 2 + larger] = 1
    assert bool(one._of_its_size(given, 0 * given).any()) == left


def test_a_copy_stands_within_twelve_px_of_the_object_s_places_beside_the_ground() -> None:
    """Ground that a camera at 40 m shows in a pixel or two."""
    truth = a_truth()
    truth.T_camera_world[:, 2, 3] = 40.0
    truth.labels[:] = 0
    truth.labels[3, 40:44, 10:14] = 2
    rows, columns = np.nonzero(copies.scene_of_work(truth, 1, truth.size)[:, :40])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 55, 0, 25)


def test_news_of_a_twentieth_is_not_asked_whether_it_was_there_before() -> None:
    one = copies.Copies(a_film(), a_truth(), 1, HALF)
    none = np.zeros(HALF[::-1], np.float32)
    little, more = (one.among(0, none + np.float32(share), none) for share in (0.05, 0.051))
    assert (little[one._reach] > 0).all()
    assert (more[one._reach] == 0).mean() > 0.5


@pytest.mark.parametrize("hidden", ["mask", "others"])
def test_a_copy_is_beside_the_object_and_the_robot(hidden: str) -> None:
    """By four px of half size and by two."""
    reach = 4 if hidden == "mask" else 2
    one = copies.Copies(a_film(), a_truth(still=False), 1, HALF)
    masks = {name: np.zeros(HALF[::-1], np.float32) for name in ("mask", "others")}
    masks[hidden][20, 20] = 0.1
    scene: Any = SimpleNamespace(depth=lambda t: np.ones(HALF[::-1], np.float32))
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        for away in (reach, reach + 1):
            given = np.zeros(HALF[::-1], np.float32)
            x, y = 20 + (away + 1) * dx, 20 + (away + 1) * dy
            given[y - 1 : y + 2, x - 1 : x + 2] = 0.8
            strength, where = one.on_the_way(3, given, masks["mask"], masks["others"], scene)
            assert (strength > 0) == (away > reach)
            assert where.tolist() == ([x, y] if away > reach else [0, 0])


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
