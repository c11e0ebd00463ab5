# SPDX-License-Identifier: Apache-2.0
"""Shadow maps, and takes over painted first frames, by what they are made of: heights, softness, bounds, what was traced and
filled, against what that was.

`python tests/test_painter_shadows_golden.py` writes the numbers anew where it was changed on purpose.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from overhead import PACKET, ROBOT, overhead
from strategies import random_poses

from retake.core.painter.matting import Matte
from retake.core.painter.shadows import ShadowField
from retake.core.painter.silhouettes import add_movers, bones, box_corners
from retake.core.painter.stills import Still, look_up
from retake.core.variants.base import SourceFrame

GOLDEN = Path(__file__).parent / "golden" / "painter" / "shadows.json"
SHARE = 4e-3
"""Of a number: another processor rounds differently, nothing more."""


def tiles(plane: np.ndarray) -> list[np.ndarray]:
    """Of pictures, (…, H, W): sums of their parts know more than one of the whole."""
    h, w = plane.shape[-2] // 2, plane.shape[-1] // 2
    return [plane[..., y * h : y * h + h, x * w : x * w + w] for y in range(2) for x in range(2)]


def texture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    field = np.random.default_rng(seed).normal(0, 90, (height, width, 3)).astype(np.float32)
    return np.clip(130 + cv2.GaussianBlur(field, (0, 0), 1.5), 0, 255).astype(np.uint8)


def fields() -> dict[str, Any]:
    """Points and boxes under lights from three sides; the receivers lie below them, on a wall, and beyond the map."""
    rng, out = np.random.default_rng(2), {}
    cloud = (rng.uniform(-1, 1, (900, 3)) * (0.05, 0.2, 0.1) + (0.2, 0.1, 0.35)).astype(np.float32)
    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 90), np.linspace(-1.6, 1.6, 80))
    floor = np.stack([x, y, 0 * x]).astype(np.float32)
    wall = np.stack([x * 0.3, 0 * x + 0.05, y * 0.4]).astype(np.float32)
    for name, way in {"zenith": (0, 0, 1.0), "lean": (0.4, -0.3, 0.9), "flat": (-1.0, 0.1, 0.35)}.items():
        field = ShadowField(np.array(way, np.float32), np.array([0.1, -0.05, 0.02]))
        field.add_points(cloud[:0])
        for step in ("cloud", "box", "all"):
            if step == "cloud":
                field.add_points(cloud)
            elif step == "box":
                field.clear()
                field.add_box(box_corners((0.2, 0.1, 0.3), (-0.3, 0.2, 0.2)).astype(np.float32))
            else:
                field.add_points(cloud[::7] + np.float32(0.2), 2)
            own: dict[str, Any] = {
                "height": tiles(np.where(field.height > -100, field.height, -1)),
                "bounds": field._bounds(),
            }
            own["levels"] = [tiles(np.maximum(level, -2)) for level in cv2.split(field._levels())]
            for kind, place in (("floor", floor), ("wall", wall)):
                at = field.planes(place)
                flat = at.reshape(3, -1)
                own[kind] = {
                    "cast": [tiles(field.cast_on(at, *how)) for how in ((0.15,), (0.6,), (1.0, 0.05))],
                    "contact": [tiles(field.contact_on(at, *reach)) for reach in ((), (0.3,))],
                    "reach": [field.reach(flat), field.reaches(flat), field.reaches(flat[:, :90])],
                }  # fmt: skip
            out[f"{name} {step}"] = own
    return out


def movers() -> dict[str, Any]:
    source = overhead()
    robot = source.header.robots[0]
    poses = random_poses(np.random.default_rng(3), len(robot.links), spread_m=0.4)
    source = replace(source, T_world_link=(poses,))
    field = ShadowField(np.array([0.2, 0.1, 1.0], np.float32), np.zeros(3))
    add_movers(field, source, np.random.default_rng(4).uniform(-1, 1, (50, 3)).astype(np.float32), [0])
    return {"bones": bones(source), "height": tiles(np.where(field.height > -100, field.height, -1))}


HAND, LATER = np.s_[10:20, 12:24], np.s_[24:38, 36:50]


def tilted(source: SourceFrame) -> SourceFrame:
    normals = source.normals.copy()
    normals[:, 40:] = (-23200, 0, 23100)
    normals[:14, :30] = (2000, 32000, 3000)
    return replace(source, normals=normals)


def takes() -> dict[str, Any]:
    """A hand and a packet, both of which move; of a camera that stands, one that moves, and a large picture."""
    out: dict[str, Any] = {}
    packet = np.s_[14:30, 26:38]
    for name, size, static, beside in (
        ("standing", (64, 48), True, False), ("known", (64, 48), True, True), ("moving", (64, 48), False, False),
        ("helped", (64, 48), False, True), ("large", (640, 96), True, False),
    ):  # fmt: skip
        first = overhead(size, plates=((PACKET, packet, 0.1), (ROBOT, HAND, 0.3)), static=static)
        first = tilted(first)
        eye = (0.0, 0.0) if static else (0.12, -0.06)
        then = overhead(
            size, plates=((PACKET, np.s_[18:34, 32:44], 0.16), (ROBOT, LATER, 0.25)), static=static, eye=eye,
            packet=(0.11, -0.08, 0.16), rgb=texture(6, *size),
        )  # fmt: skip
        other = tilted(overhead(size, plates=((PACKET, np.s_[10:26, 20:32], 0.1),), eye=(0.1, 0.05)))
        others = [Still(other, texture(7, *size), 1.15)] if beside else []
        matte = Matte(first, texture(8, *size), others)
        shown = matte.render(tilted(then))
        at = np.arange(0, then.depth_m.size, 3)
        role = matte.roles.role[then.instance_ids]
        out[name] = {
            "shown": tiles(np.moveaxis(shown, -1, 0)), "plate": tiles(np.moveaxis(matte.plate, -1, 0)),
            "tones": [matte.robot_tone, matte.scenery_tone, *matte.tones.values()],
            "light": [tiles(matte._light(f, *matte._grid(then))) for f in (matte.then, matte.now)],
            "shadow": tiles(matte._shadow(then)), "traced": matte._trace(matte.stills, then, at, np.eye(4)),
            "uncovered": matte._uncovered(then, role), "scenery": matte._trace_scenery(then, role),
        }  # fmt: skip
    return out


def looks() -> dict[str, Any]:
    """Stills looked up at points around what they show, within and beyond every bound."""
    rng, out = np.random.default_rng(9), {}
    source = tilted(overhead(plates=((PACKET, np.s_[12:32, 20:38], 0.1),)))
    world = rng.uniform(-1, 1, (3, 900)).astype(np.float32) * np.array([[0.8], [0.6], [0.03]], np.float32)
    ids = source.instance_ids.reshape(-1)[rng.integers(0, 64 * 48, 900)]
    facing = rng.uniform(0, 1, 900).astype(np.float32)
    hit = {
        "whole": {"whole": True},
        "beside": {"gain": 0.8},
        "blends": {"blends": source.depth_m < 1.95, "whole": True},
    }
    for name, more in hit.items():
        still = Still(source, texture(10), **more)
        out[name] = [
            still.look(world, ids),
            still.look(world, ids, facing),
            still.solid,
            look_up([still], world, ids, facing),
        ]
    return out


CASES = {"fields": fields, "movers": movers, "takes": takes, "looks": looks}


@pytest.mark.parametrize("case", CASES)
def test_shadows_and_what_they_fall_on_are_what_they_were(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(made()) for case, made in CASES.items()})
    sys.exit(0)
