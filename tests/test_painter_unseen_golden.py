# SPDX-License-Identifier: Apache-2.0
"""What no first frame shows, drawn on fixed surfaces, against what was drawn before: the laws beside it ask what a person sees.

`python tests/test_painter_unseen_golden.py` writes the numbers anew where a drawing was changed on purpose.
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
from overhead import PACKET, TABLE, overhead, points

from retake.core.painter import unseen
from retake.core.painter.stills import Still

GOLDEN = Path(__file__).parent / "golden" / "painter" / "unseen.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""


def texture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A painted surface, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(0, 90, (height, width, 3)).astype(np.float32), (0, 0), 1.5)
    slope = np.linspace(-40, 40, width, dtype=np.float32)[None, :, None]
    return np.clip(130 + field + slope, 0, 255).astype(np.uint8)


def sides() -> dict[str, Any]:
    """Surfaces of many sizes, seen whole, with a hole, from afar, and next to nothing of one."""
    out: dict[str, Any] = {}
    for k, (name, wide, high, step, hole) in enumerate((
        ("whole", 40, 30, 0.01, 0), ("holed", 50, 50, 0.004, 9), ("narrow", 60, 5, 0.02, 0), ("wide", 330, 40, 0.01, 0),
        ("large", 120, 110, 0.01, 0), ("few", 8, 8, 0.05, 0),
    )):  # fmt: skip
        x, y = np.meshgrid(np.arange(wide) * step, np.arange(high) * step)
        free = np.ones((high, wide), bool)
        free[high // 3 : high // 3 + hole, wide // 4 : wide // 4 + hole] = False
        at = np.stack([x[free] - 0.3, np.full(free.sum(), 0.2 * k), y[free] + 0.1]).astype(np.float32)
        painted = texture(k, high, wide)[free].T.astype(np.float32)
        pixel = np.full(at.shape[1], step, np.float32)
        side = unseen._side((0, 2), at, pixel, painted, painted.mean(0) * np.float32(0.8))
        asked = np.random.default_rng(k).uniform(-1.5, 1.5, (3, 400)).astype(np.float32)
        out[name] = [side, side.at(asked, True), side.at(asked, False), side.at(at, True)]
    return out


def pieces() -> dict[str, Any]:
    rng = np.random.default_rng(9)
    at, painted = rng.uniform(-2, 12, (2, 300)).astype(np.float32), rng.uniform(0, 255, (3, 300)).astype(np.float32)
    total, weight = unseen._laid_out(at, painted, 11, 9)
    mean = np.array([10, 120, 200], np.float32)
    normals = rng.normal(size=(3, 90)).astype(np.float32)
    normals[:, :9] = np.round(normals[:, :9])
    return {
        "laid": [total, weight], "axis": unseen._axis(normals),
        "spread": [unseen._spread(total, weight, mean, sigma) for sigma in (0.7, 3.0)],
        "mirrored": [unseen.mirrored(np.linspace(-30, 30, 200).astype(np.float32), n) for n in (1, 4, 7)],
    }  # fmt: skip


def things() -> dict[str, Any]:
    """Two stills of a table with a packet on it, one of them darker, and one with a side that stands upright."""
    plates = ((PACKET, np.s_[12:32, 20:38], 0.05),)
    one, two = overhead(plates=plates), overhead(plates=plates, static=False, eye=(0.3, 0.1))
    normals = two.normals.copy()
    normals[:, 48:] = (-23200, 0, 23100)
    normals[:12, :30] = (0, 30000, 1000)
    two = replace(two, normals=normals)
    counts = np.ones(65536, bool)
    out: dict[str, Any] = {}
    for name, stills in {
        "one": [Still(one, texture(20))], "both": [Still(one, texture(20)), Still(two, texture(21), 0.7)],
        "whole": [Still(two, texture(22), 1.2, whole=True)],
    }.items():  # fmt: skip
        shown = unseen._shown(stills[-1], counts)
        known = unseen.Unseen(stills, counts)
        at = points(overhead(eye=(0.5, 0.0))).reshape(-1, 3).T.astype(np.float32)
        ids = np.where(np.arange(at.shape[1]) % 3 == 0, PACKET, TABLE).astype(np.uint16)
        facing = np.random.default_rng(3).normal(size=at.shape).astype(np.float32)
        simulated = texture(23).reshape(-1, 3)
        found, told = known.colours(at, facing, ids, simulated)
        axes = {str(i): [s.axes for s in of.values()] for i, of in known.sides.items()}
        out[name] = [list(shown), axes, found, told.astype(int)]
    return out


CASES = {"sides": sides, "pieces": pieces, "things": things}


@pytest.mark.parametrize("case", CASES)
def test_what_is_unseen_is_drawn_as_it_was(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(made()) for case, made in CASES.items()})
    sys.exit(0)
