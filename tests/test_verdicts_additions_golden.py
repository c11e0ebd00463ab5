# SPDX-License-Identifier: Apache-2.0
"""What a take adds, step by step: things that appear or go with the camera, and surfaces of links that turn, against what was
told before.

`python tests/test_verdicts_additions_golden.py` writes the numbers anew where a measure was changed on purpose.
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
from test_verdicts_additions import FRAMES, HEIGHT, SETTINGS, WIDTH, footage, near, truth

from retake.core.geometry import axis_angle
from retake.core.verdicts import additions, intruders

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "additions.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
HALF = (WIDTH // 2, HEIGHT // 2)


def noise(seed: int, blur: float = 1.5) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), blur)
    return (field / field.std())[..., None]


def scenery(t: int, hues: float = 4.0) -> np.ndarray:
    """RGB float: hues that differ from place to place, and light from time to time."""
    hue = np.concatenate([noise(k, 5.0) for k in (1, 2, 3)], -1)
    light = 1 + 0.1 * np.sin(t / 5) + 0.1 * noise(40 + t, 20.0)
    return ((110, 116, 104) + hues * hue) * light + np.random.default_rng(t).normal(0, 1, (HEIGHT, WIDTH, 1))


def crossed(labels: np.ndarray) -> np.ndarray:
    """A hand that crosses the picture from left to right."""
    for t in range(FRAMES):
        labels[t, 20 + t // 3 : 60, 3 * t : 3 * t + 14] = 1
    return labels


def heard(names: tuple[str, ...], measure: Any, of: Any = intruders) -> dict[str, Any]:
    """What a measure tells, and what these functions were asked and answered on the way."""
    asked: dict[str, list[Any]] = {name: [] for name in names}

    def noted(name: str) -> Any:
        plain = getattr(of, name)

        def function(*given: Any) -> Any:
            out = plain(*given)
            asked[name].append([given, out])
            return out

        return function

    with pytest.MonkeyPatch.context() as patched:
        for name in names:
            patched.setattr(of, name, noted(name))
        found = measure()
    return summed_up({"found": found, "asked": {name: [len(calls), *calls[:12]] for name, calls in asked.items()}})


def of_intruders(hues: float, begin: int) -> dict[str, Any]:
    one = near(labels=crossed(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)))
    frames = np.stack([scenery(t, hues) for t in range(FRAMES)])
    frames[begin:, 30:43, 60:70] *= (0.6, 1.1, 0.8)
    frames[15:27, 5:25, 80:100] *= (0.8, 1, 1.2)
    frames[one.labels == 1] = 60
    film = footage(np.clip(frames, 0, 255).astype(np.uint8))
    return heard(("_most", "_at", "_largest"), lambda: additions.measure_additions(film, one, SETTINGS))


def of_companions(speed: float) -> dict[str, Any]:
    world = np.clip(np.concatenate([scenery(3), scenery(4), scenery(5)], 1), 0, 255)
    left = np.round(speed * np.arange(FRAMES)).astype(int)
    frames = np.stack([world[:, x : x + WIDTH] * (1 + 0.004 * t) for t, x in enumerate(left)])
    frames[:, 20:33, 70:86] = (60, 150, 90)
    frames[::2, 50:70, 20:31] *= (0.7, 1.2, 1)
    one = near(labels=crossed(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)), static_camera=False)
    frames[one.labels == 1] = 60
    v, u = np.mgrid[0 : HALF[1], 0 : HALF[0]].astype(np.float32)

    def same_place(t: int, r: int) -> Any:
        x = u + np.float32((left[t] - left[r]) / 2)
        return x, v, (x >= 0) & (x <= HALF[0] - 1) & ((u + v + t + r) % 11 > 1)

    film = footage(np.clip(frames, 0, 255).astype(np.uint8))
    scene: Any = SimpleNamespace(same_place=same_place)
    return heard(("_most", "_largest"), lambda: intruders.measure_companions(film, one, SETTINGS, scene))


def turning(turn: float, slides: int) -> tuple[Any, Any, Any]:
    """A link (part 0) that turns to and fro about an upright axis before the camera, and one (part 1) at the picture's corner
    that keeps its place; a surface that slides over the first from frame 17 on. Depth is recorded."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    frames = np.stack([scenery(t) for t in range(FRAMES)])
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    depths = np.full((FRAMES, HEIGHT, WIDTH), 3.0, np.float32)
    for t in range(FRAMES):
        angle = turn * np.sin(t / 6)
        poses[t, 0, :3, :3] = axis_angle(np.array([0, 1.0, 0]), np.float64(angle))
        poses[t, 0, :3, 3] = (0.1 * np.sin(t / 9), 0.05, 0)
        x, width = round(45 + 5 * np.sin(t / 9)), round(34 * np.cos(angle))
        labels[t, 20:60, x : x + width], labels[t, 56:, :24] = 1, 2
        skin = np.roll(120 * (1 + 0.4 * noise(7)[:40, :34]), slides if t >= 17 else 0, axis=1).astype(np.float32)
        frames[t, 20:60, x : x + width] = cv2.resize(skin, (width, 40))[..., None]
        frames[t, 56:, :24] = 110 * (1 + 0.3 * noise(8)[56:, :24])
        depths[t, 20:60, x : x + width] = 2 + (np.arange(width) - width / 2) * np.tan(angle) / 50
        labels[t, 20:26, x : x + 8] = 0  # no rectangle
        depths[t, 56:, :24] = 1.9
        depths[t, 30:33, x : x + 9] = 0.0
    area = np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float)
    one = truth(labels=labels, area=area, T_world_part=poses, robot_parts=[0, 1], object_parts=[])
    camera = SimpleNamespace(channels=("rgb", "depth"))
    episode = SimpleNamespace(
        header=SimpleNamespace(camera=lambda name: camera), image=lambda name, channel, t: depths[t]
    )  # fmt: skip
    return footage(np.clip(frames, 0, 255).astype(np.uint8)), one, episode


def of_links(turn: float, slides: int, deep: bool) -> dict[str, Any]:
    film, one, recorded = turning(turn, slides)
    episode = recorded if deep else None
    out = heard(("_angle",), lambda: additions._texture(film, one, SETTINGS, episode, "front"), additions)
    seen = additions._Surfaces(film, one, SETTINGS, episode, "front")
    steps: dict[str, Any] = {"turn": seen.turn, "logs": list(seen.logs.values())[::3], "times": list(seen.logs)}
    times = list(seen.logs)
    for part in (0, 1):
        surfaces = {t: seen._surface(part, t) for t in times}
        then, pattern = surfaces[0], seen._pattern(part, 0, surfaces[0])
        steps[f"{part}"] = [then, pattern, seen.differences(part)]
        steps[f"{part} later"] = [[surfaces[t], seen._difference(pattern, t, surfaces[t])] for t in times[1::3]]
    steps["depths"] = len(seen.depths)
    return out | summed_up({"steps": steps})


CASES: dict[str, Any] = {
    "a thing appears": lambda: of_intruders(4.0, 16), "a thing was there": lambda: of_intruders(4.0, 0),
    "busy scenery": lambda: of_intruders(9.0, 22), "a slow camera": lambda: of_companions(0.4),
    "a camera": lambda: of_companions(2.5), "links": lambda: of_links(0.3, 0, True),
    "a link's skin": lambda: of_links(0.2, 9, True),
    "links of unknown depth": lambda: of_links(0.1, 9, False), "links that turn far": lambda: of_links(0.9, 0, True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_added_is_told_as_it_was(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


def test_why_nothing_is_added_is_said_under_the_measure_s_name() -> None:
    film = footage(np.full((FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8))
    moving, without = near(static_camera=False), near(object_parts=[])
    nowhere: Any = SimpleNamespace(
        same_place=lambda t, r: (*np.zeros((2, *HALF[::-1]), np.float32), np.zeros(HALF[::-1], bool))
    )
    told = [
        intruders.measure_intruders(film, moving, SETTINGS), intruders.measure_intruders(film, without, SETTINGS),
        intruders.measure_intruders(footage(film.frames[:7]), near(), SETTINGS),
        intruders.measure_companions(film, moving, SETTINGS, nowhere), additions._texture(film, moving, SETTINGS, None, ""),
    ]  # fmt: skip
    assert [(m.name, m.value, m.note, m.applies) for m in told] == [
        ("intruders", None, "the camera moves", False),
        ("intruders", None, "this camera hardly sees where robot and objects work", False),
        ("intruders", None, "robot or objects cover where they work", False),
        ("intruders", None, "this camera sees too few places twice", False),
        ("link_texture", None, "no link shows enough of its surface", False),
    ]


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
