# SPDX-License-Identifier: Apache-2.0
"""Where a textured object is looked for among scenery of its colours, and what is taken for it, step by step, against what was
before.

`python tests/test_verdicts_tracking_golden.py` writes the numbers anew where a measure was changed on purpose.
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

from retake.core.verdicts import tracking
from retake.core.verdicts.footage import Footage

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "tracking.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
WIDTH, HEIGHT, FRAMES = 96, 72, 22
HALF = (WIDTH // 2, HEIGHT // 2)
TAKES: dict[str, dict[str, Any]] = {
    "plain": {}, "clutter": {"clutter": True}, "apart": {"apart": (7, 5)}, "near": {"apart": (3, 0), "clutter": True},
    "gone": {"gone": True}, "gone among clutter": {"gone": True, "clutter": True}, "border": {"corner": (2, 1)},
    "copy": {"copy": (70, 12)}, "copy beside": {"copy": (44, 40)}, "fades": {"fades": 0.03},
    "a little apart": {"apart": (5, 0)},
    "moving": {"slide": 0.6, "copy": (60, 12)}, "moving among clutter": {"slide": 0.6, "clutter": True},
    "moving, no depth": {"slide": 0.6, "scene": False},
}  # fmt: skip
FUNCTIONS = (
    "_lasting",
    "_clutter",
    "_seen_elsewhere",
    "_swept",
    "_around",
    "_search",
    "_posterior",
    "_copy_on_the_way",
)


def noise(seed: int, height: int = HEIGHT, width: int = WIDTH, blur: float = 1.5) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32), (0, 0), blur)
    return (field / field.std())[..., None]


def take(
    apart: tuple[int, int] = (0, 0), corner: tuple[int, int] = (22, 26), copy: tuple[int, int] | None = None, slide: float = 0.0,
    fades: float = 0.0, *, clutter: bool = False, gone: bool = False, scene: bool = True,
) -> tuple[Footage, Any, Any]:  # fmt: skip
    """An object of 14 x 12 px that goes 1 px to the right per frame, a hand before it, and a camera that may slide."""
    world = (1 + 0.15 * noise(1, HEIGHT, 2 * WIDTH)) * (110, 115, 105)
    mine = np.clip((1 + 0.25 * noise(2, 12, 14)) * (170, 70, 50), 0, 255)
    if clutter:
        world[10:20, 50:60] = (150, 75, 60)
        world[28:34, 46:64] = (165, 72, 50)
    labels, frames = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), []
    centroid = np.zeros((FRAMES, 2, 2))
    for t in range(FRAMES):
        left = round(slide * t)
        image = world[:, left : left + WIDTH].copy() * (1 - 0.005 * t)
        x, y = corner[0] + t - left, corner[1] + t // 4
        dx, dy = apart if t >= 8 else (0, 0)
        labels[t, y : y + 12, max(x, 0) : x + 14] = 2
        if not (gone and t >= 11):
            shown = mine[:, max(-x - dx, 0) :] * (1 - fades * t)
            image[y + dy : y + dy + 12, max(x + dx, 0) : x + dx + 14] = shown
        if copy and t >= 9:
            image[copy[1] : copy[1] + 11, copy[0] - left : copy[0] - left + 13] = mine[:11, :13]
        hand = np.s_[: y + 4, 4 * t : 4 * t + 8]
        labels[t][hand] = 1
        image[hand] = (160, 66, 52) if t % 2 else (60, 60, 66)
        centroid[t, 1] = np.argwhere(labels[t] == 2).mean(0)[::-1]
        frames.append(np.clip(image + np.random.default_rng(t).normal(0, 2, image.shape), 0, 255).astype(np.uint8))
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, :, 2, 3] = 1.0
    namespace = type("Truth", (SimpleNamespace,), {"__len__": lambda self: FRAMES})
    truth = namespace(
        labels=labels, size=(WIDTH, HEIGHT), area=np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float),
        centroid=centroid, static_camera=not slide, object_parts=[], T_camera_world=np.tile(np.eye(4), (FRAMES, 1, 1)),
        T_world_part=poses, px=2.0, others=lambda t, part: (labels[t] > 0) & (labels[t] != part + 1),
    )  # fmt: skip
    known = (noise(3, blur=5.0)[..., 0] > -1) & (not slide)
    footage = Footage(np.stack(frames), (0.95 * world[:, :WIDTH]).astype(np.float32), known, 1.0)
    return footage, truth, a_scene(slide) if slide and scene else None


def a_scene(slide: float) -> Any:
    v, u = np.mgrid[0 : HALF[1], 0 : HALF[0]].astype(np.float32)

    def same_place(t: int, r: int) -> Any:
        x = u + np.float32((round(slide * t) - round(slide * r)) / 2)
        return x, v, (x >= 0) & (x <= HALF[0] - 1) & (v > 1 + (t + r) % 3)

    return SimpleNamespace(same_place=same_place, depth=lambda t: np.ones(HALF[::-1], np.float32))


def of_take(name: str) -> dict[str, Any]:
    footage, truth, scene = take(**TAKES[name])
    asked: dict[str, list[Any]] = {function: [] for function in FUNCTIONS}
    news: list[Any] = []
    among = tracking.Copies.among

    def noted(function: str) -> Any:
        plain = getattr(tracking, function)

        def heard(*given: Any) -> Any:
            out = plain(*given)
            asked[function].append(out)
            return out

        return heard

    def novel(self: Any, t: int, given: np.ndarray, mask: np.ndarray) -> Any:
        news.append([t, given, mask])
        return among(self, t, given, mask)

    with pytest.MonkeyPatch.context() as patched:
        for function in FUNCTIONS:
            patched.setattr(tracking, function, noted(function))
        patched.setattr(tracking.Copies, "among", novel)
        found = tracking.track(footage, truth, 1, scene)
    some = {function: [len(out), *out[:1], *out[2 :: 1 if "_co" in function else 6]] for function, out in asked.items()}
    return summed_up({"found": found, "steps": some, "news": news[::5]})


def of_places() -> dict[str, Any]:
    """Masks at the borders, few and many frames that show a place."""
    out: dict[str, Any] = {}
    rng = np.random.default_rng(5)
    likely = rng.random(HALF[::-1]).astype(np.float32)
    for name, box in {
        "upper left": np.s_[0:5, 0:7], "lower right": np.s_[31:36, 40:48], "middle": np.s_[12:19, 20:28],
        "one": np.s_[9:10, 9:10],
    }.items():  # fmt: skip
        for strength in (1.0, 0.2):
            mask = np.zeros(HALF[::-1], np.float32)
            mask[box] = strength
            score, centre = tracking._search(likely, mask)
            near = tracking._window(centre, 6, mask.shape)
            out[f"{name} {strength}"] = [
                score,
                centre,
                tracking._search(likely, mask, near)[0],
                tracking._around(likely, mask),
            ]
    scene = a_scene(0.6)
    shown = {r: rng.random(HALF[::-1]).astype(np.float32) for r in range(0, 20, 3)}
    for count in range(len(shown) + 1):
        out[f"seen {count}"] = tracking._seen_elsewhere(scene, 6, likely, dict(list(shown.items())[:count]))
    out["nowhere"] = tracking._seen_elsewhere(None, 6, likely, shown)
    _, truth, _ = take()
    table = rng.random(12 * 24 * 24).astype(np.float32)
    for frames in (1, 2, 3, 15, 16, 22):
        codes = [rng.integers(0, len(table), (HEIGHT, WIDTH)) for _ in range(frames)]
        out[f"lasting {frames}"] = tracking._lasting(codes, table, truth, HALF)
    truth.labels = np.concatenate([truth.labels] * 3)
    codes = [rng.integers(0, len(table), (HEIGHT, WIDTH)) for _ in range(64)]
    out["lasting 64"] = tracking._lasting(codes, table, truth, HALF)
    return summed_up(out)


CASES = {**{name: lambda name=name: of_take(name) for name in TAKES}, "places": of_places}


@pytest.mark.parametrize("case", CASES)
def test_an_object_is_tracked_as_it_was(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
