# SPDX-License-Identifier: Apache-2.0
"""A second, plain reading of the drawing convention: one frame, one stroke at a time, nothing vectorised.

Serves as the oracle of the parity laws, as the 'drawing alone' side of the benchmark, and, with one rule broken on
purpose, as negative control: each broken rule must be caught by the golden frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np


@dataclass(frozen=True)
class Rules:
    link_rgb: tuple[int, int, int] = (255, 255, 0)
    dot_rgb: tuple[int, int, int] = (0, 0, 255)
    axes_rgb: tuple[tuple[int, int, int], ...] = ((0, 0, 255), (0, 255, 0), (255, 0, 0))
    link_px: int = 3
    arrow_px: int = 5
    arrow_m: float = 0.2
    finger_rad: float = np.pi / 12
    coincident_m: float = 1e-4
    nearest_m: float = 1e-3
    clip_first: bool = True
    dots_over_links: bool = True


RULES = Rules()
BROKEN = {
    "X and Z colours swapped": Rules(axes_rgb=((255, 0, 0), (0, 255, 0), (0, 0, 255))),
    "links 2 px": Rules(link_px=2),
    "arrows 4 px": Rules(arrow_px=4),
    "arrows 0.19 m": Rules(arrow_m=0.19),
    "fingers open to 14 degrees": Rules(finger_rad=np.deg2rad(14)),
    "clip after drawing": Rules(clip_first=False),
    "links within 0.1 m dropped": Rules(coincident_m=0.1),
    "depth floor 1e-1": Rules(nearest_m=1e-1),
    "links over dots": Rules(dots_over_links=False),
}


def project(p: np.ndarray, K: np.ndarray, E: np.ndarray, rules: Rules = RULES) -> tuple[float, float]:
    x, y, z = E[:3, :3] @ p + E[:3, 3]
    z = z if z >= rules.nearest_m else rules.nearest_m
    return K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]


def _pixel(uv: tuple[float, float]) -> tuple[int, int]:
    u, v = (min(max(value, -1e5), 1e5) for value in uv)
    return round(u), round(v)


def _clipped(a, b, width, height, rules):
    a, b = _pixel(a), _pixel(b)
    if not rules.clip_first:
        return a, b
    hit, a, b = cv2.clipLine((0, 0, width, height), a, b)
    return (a, b) if hit and a != b else None


def draw(canvas, points, ee, openness, K, E, rules: Rules = RULES) -> None:
    height, width = canvas.shape[:2]
    kept = [points[0]]
    for p in points[1:]:
        if np.linalg.norm(p - kept[-1]) >= rules.coincident_m:
            kept.append(p)
    uv = [project(p, K, E, rules) for p in kept] if len(kept) >= 2 else []

    def links() -> None:
        for a, b in pairwise(uv):
            segment = _clipped(a, b, width, height, rules)
            if segment:
                cv2.line(canvas, *segment, rules.link_rgb, rules.link_px)

    def dots() -> None:
        for u, v in uv:
            if -1e5 < u < 1e5 and -1e5 < v < 1e5:
                cv2.circle(canvas, (round(u), round(v)), 4, rules.dot_rgb, -1)

    for step in (links, dots) if rules.dots_over_links else (dots, links):
        step()
    R, t, L, theta = ee[:3, :3], ee[:3, 3], rules.arrow_m, rules.finger_rad * openness
    tips = [(R[:, i] * L, rules.axes_rgb[i]) for i in range(3)]
    for side in (1.0, -1.0):
        tips.append((R @ np.array([0.0, side * L * np.sin(theta), L * np.cos(theta)]), (255, 0, 0)))
    origin = project(t, K, E, rules)
    for tip, colour in tips:
        segment = _clipped(origin, project(t + tip, K, E, rules), width, height, rules)
        if segment:
            cv2.arrowedLine(canvas, *segment, colour, rules.arrow_px, tipLength=0.15)


def at(matrix: np.ndarray, t: int) -> np.ndarray:
    return matrix[t] if matrix.ndim == 3 else matrix


def render(points, ee, openness, K, E, size, rules: Rules = RULES) -> np.ndarray:
    frames = np.zeros((len(points), size[1], size[0], 3), np.uint8)
    for t, frame in enumerate(frames):
        draw(frame, points[t], ee[t], openness[t], at(K, t), at(E, t), rules)
    return frames


def random_scene(rng: np.random.Generator, frames: int | None = None) -> tuple:
    """Arguments of render_skeleton: arms near, far, behind and around the camera, sizes from 1 px on."""
    T = int(rng.integers(1, 5)) if frames is None else frames
    L = int(rng.integers(1, 9))
    width, height = (int(v) for v in rng.integers(1, 300, 2))
    points = rng.normal(size=(T, L, 3)) * rng.choice([0.01, 0.5, 3, 400])
    if L > 2:
        points[:, 1] = points[:, 0] + rng.choice([0.0, 4e-5, 3e-4])
    ee, E = (np.tile(np.eye(4), (T, 1, 1)) for _ in range(2))
    ee[:, :3, :3], E[:, :3, :3] = (np.linalg.qr(rng.normal(size=(T, 3, 3)))[0] for _ in range(2))
    ee[:, :3, 3], E[:, :3, 3] = points[:, 0], rng.normal(size=(T, 3)) * rng.choice([0.0, 1, 3])
    K = np.array([[rng.uniform(50, 900), 0, width / 2], [0, rng.uniform(50, 900), height / 2], [0, 0, 1]])
    E = E[0] if rng.random() < 0.5 else E
    K = np.tile(K, (T, 1, 1)) if rng.random() < 0.5 else K
    return points, ee, rng.uniform(-2, 3, T), K, E, (width, height)
