# SPDX-License-Identifier: Apache-2.0
"""What pixels say of a textured object that moves before textured scenery, step by step, against what they said before.

`python tests/test_verdicts_posture_evidence_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from test_verdicts_posture_evidence import FRAMES, HEIGHT, WIDTH, truth

from retake.core.verdicts import posture_evidence
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.posture_evidence import Evidence

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "posture_evidence.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
BODY = np.array([[x, y, z] for x in (-0.12, 0.12) for y in (-0.125, 0.125) for z in (-0.04, 0.04)])
PHASES = ["before"] * 5 + ["held"] * 3 + ["released"] * 3 + ["settled"] * 4
FREE = np.ones((22, 26), bool)
FREE[:, :3] = False


def noise(seed: int, blur: float = 1.5) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), blur)
    return field / field.std()


def as_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).astype(np.uint8)


def surface(seed: int, colour: tuple[int, int, int], spread: float) -> np.ndarray:
    hue = np.stack([noise(seed + k, 4.0) for k in (20, 30, 40)], -1)
    return np.array(colour) * (1 + spread * noise(seed)[..., None] + 0.6 * spread * hue)


def take(name: str) -> tuple[Footage, Any]:
    """An object that moves to the right and towards the camera, from frame 10 on turned by half the right angle; in `border`
    it begins at the corner of the picture."""
    at = np.array([(24 + (t >= 5) * (t - 4) * 0.7, 20 + (t >= 8) * 2) for t in range(FRAMES)]).round().astype(int)
    if name == "border":
        at -= (23, 19)
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    one = truth(static_camera=name != "moving")
    back, front = surface(1, (120, 110, 100), 0.12), surface(2, (150, 90, 70), 0.2)
    if name == "alike":
        front = surface(2, (128, 108, 92), 0.15)
    frames = []
    for t in range(FRAMES):
        x, y = at[t]
        labels[t, y : y + 10, x : x + 12] = 2
        labels[t, y - 8 : y + 3, x + 9 + t // 4 : x + 14 + t // 4] = 1
        image = back * (1 + 0.02 * np.sin(t)) * np.linspace(0.9, 1.05, WIDTH)[None, :, None]
        image[y : y + 10, x : x + 12] = front[20:30, 24:36] * (1 - 0.015 * t)
        if t >= 12:  # its lower half shows what is behind, a shadow lies on the left
            image[y + 6 : y + 10, x : x + 12] = back[y + 6 : y + 10, x : x + 12] * 0.97
            image[:, : x + 3] *= 0.75
        image[labels[t] == 1] = (30, 34, 40)
        frames.append(as_bytes(image + np.random.default_rng(t).normal(0, 2, image.shape)))
        one.T_world_part[t, 1, :2, 3] = (x + 6 - 30) * 0.02, (y + 5 - 24) * 0.025
        if t in (9, 10):
            c, s = np.cos(0.7), np.sin(0.7)
            one.T_world_part[t, 1, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    one.labels, one.area = labels, np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float)
    known = noise(3, 4.0) > (-9 if name == "plain" else -0.8)
    return Footage(np.stack(frames), back.astype(np.float32), known & (name != "unknown"), 1.0), one


def of_take(name: str) -> dict[str, Any]:
    film, one = take(name)
    colours = posture_evidence.colours_of(film, one, 1)
    assert colours is not None
    evidence = Evidence(film, one, 1, colours)
    out: dict[str, Any] = {"colours": [colours.tone, colours.luma], "directions": evidence.directions}
    out["frames"] = [evidence._frame(r) for r in range(0, FRAMES, 2)]
    out["carried"] = [evidence._carried(BODY, t, r) for t, r in ((0, 4), (7, 2), (14, 10), (9, 0))]
    out["earlier"] = [{str(t): sure for t, sure in evidence.earlier(PHASES, p).items()} for p in ("held", "settled")]
    for t, earlier in ((4, {0: True}), (8, {0: True, 2: True, 7: False}), (13, {2: True, 5: True}), (14, {10: False, 8: False}),
                       (10, {0: True, 9: True}), (9, {0: True})):  # fmt: skip
        x0, y0 = (int(np.nonzero((one.labels[t] == 2).any(k))[0][0]) for k in (0, 1))
        box = np.s_[max(y0 - 6, 0) : max(y0 - 6, 0) + 22, max(x0 - 7, 0) : max(x0 - 7, 0) + 26]
        whole = one.labels[t][box] == 2
        near = cv2.dilate((one.labels[t][box] > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        here = posture_evidence.split(film.frames[t][box])
        read = evidence._reader(box, here, ~near)
        out[f"{t}"] = {
            "read": read(*here), "nowhere": evidence._reader(box, here, near & False)(*here),
            "behind": evidence._behind(box, here), "shown": evidence._shown(t, box, BODY, earlier, read, here),
            "field": evidence.field(t, box, whole, ~near, FREE, BODY, earlier),
            "none": evidence.field(t, box, whole, ~near, FREE, BODY, {}),
            "unsure": evidence.field(t, box, whole, near & False, FREE, BODY, dict.fromkeys(earlier, False)),
        }  # fmt: skip
    return summed_up(out)


CASES = {name: lambda name=name: of_take(name) for name in ("plain", "some", "border", "alike", "moving", "unknown")}


@pytest.mark.parametrize("case", CASES)
def test_pixels_say_of_an_object_what_they_said(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
