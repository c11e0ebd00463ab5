# SPDX-License-Identifier: Apache-2.0
"""Sets: materials, textures, walls, clutter and light for a film, drawn by family and seed.

Families are split whole between limits and figures (`painter_bench.SPLITS`).
"""

from __future__ import annotations

import colorsys
from dataclasses import replace

import cv2
import numpy as np
import trimesh
from film import Film, Item, box, item

FAMILIES = ("studio", "workshop", "kitchen", "hall", "loft", "lab", "gallery", "garage", "clinic", "attic")
_CELL = 256


def _noise(rng: np.random.Generator, octaves: int, first: int = 4) -> np.ndarray:
    """Repeating fractal noise (256, 256), about -1..1."""
    total, weight = np.zeros((_CELL, _CELL), np.float32), 1.0
    for k in range(octaves):
        n = first * 2**k
        grid = np.pad(rng.uniform(-1, 1, (n, n)).astype(np.float32), 2, mode="wrap")
        edge = round(2 * _CELL / n)
        total += (
            weight * cv2.resize(grid, (_CELL + 2 * edge,) * 2, interpolation=cv2.INTER_CUBIC)[edge:-edge, edge:-edge]
        )
        weight *= 0.55
    return total


def texture(kind: str, rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """(256, 256, 3) uint8 sRGB, repeating."""
    y, x = np.mgrid[0:_CELL, 0:_CELL].astype(np.float32) / _CELL
    if kind == "planks":
        plank = np.floor(y * 5)
        tone = rng.uniform(-0.12, 0.12, 5)[plank.astype(int)]
        grain = 0.07 * np.sin(40 * (y + 0.06 * _noise(rng, 3)) * 2 * np.pi)
        value = 1 + tone + grain - 0.35 * ((y * 5) % 1 < 0.03)
    elif kind == "checks":
        value = 1 + 0.16 * np.where((np.floor(x * 4) + np.floor(y * 4)) % 2 > 0, 1, -1) + 0.04 * _noise(rng, 3)
    elif kind == "terrazzo":
        points = rng.uniform(0, 1, (160, 2))
        tiled = np.concatenate([points + np.array([i, j]) for i in (-1, 0, 1) for j in (-1, 0, 1)])
        seed = np.full((_CELL, _CELL), 255, np.uint8)
        inside = ((tiled >= 0) & (tiled < 1)).all(1)
        for px, py in (tiled[inside] * _CELL).astype(int):
            seed[py, px] = 0
        _, labels = cv2.distanceTransformWithLabels(seed, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        tone = rng.uniform(-0.3, 0.3, labels.max() + 1)
        value = 1 + tone[labels] * (_noise(rng, 4, 8) > -0.1)
    elif kind == "plaid":
        value = 1 + 0.12 * np.sign(np.sin(2 * np.pi * 3 * x)) + 0.12 * np.sign(np.sin(2 * np.pi * 4 * y))
    elif kind == "brushed":
        value = (
            1 + 0.12 * cv2.blur(np.pad(rng.normal(size=(_CELL, _CELL)), ((0, 0), (32, 32)), "wrap"), (41, 1))[:, 32:-32]
        )
    elif kind == "carpet":
        value = 1 + 0.14 * cv2.GaussianBlur(rng.normal(size=(_CELL, _CELL)), (0, 0), 1.0) + 0.1 * _noise(rng, 3)
    elif kind == "marble":
        vein = np.abs(np.sin(2 * np.pi * (2 * x + y + 0.5 * _noise(rng, 4))))
        value = 1.05 - 0.45 * np.exp(-vein * 9) + 0.05 * _noise(rng, 3)
    elif kind == "tiles":
        joint = np.minimum((x * 6) % 1, (y * 6) % 1) < 0.05
        tone = rng.uniform(-0.06, 0.06, (6, 6))[(y * 6).astype(int), (x * 6).astype(int)]
        value = 1 + tone - 0.3 * joint + 0.02 * _noise(rng, 3)
    else:  # plaster
        value = 1 + 0.05 * _noise(rng, 5)
    image = base * np.asarray(value, np.float32)[..., None] * (1 + 0.03 * _noise(rng, 2)[..., None])
    return (np.clip(image, 0.02, 1.0) ** (1 / 2.2) * 255).astype(np.uint8)


SURFACES = {
    "studio": (("plaster", "checks"), ("planks", "plaster"), ("plaster",)),
    "workshop": (("planks",), ("carpet", "checks"), ("planks", "plaster")),
    "kitchen": (("terrazzo", "plaid"), ("terrazzo",), ("plaster", "terrazzo")),
    "hall": (("brushed", "plaid"), ("carpet", "brushed"), ("brushed",)),
    "loft": (("planks", "terrazzo"), ("planks",), ("plaid", "plaster")),
    "lab": (("brushed", "terrazzo"), ("checks", "terrazzo"), ("brushed", "carpet")),
    "gallery": (("marble", "plaster"), ("planks", "marble"), ("plaster", "marble")),
    "garage": (("brushed", "planks"), ("marble", "plaster"), ("tiles", "brushed")),
    "clinic": (("plaster", "tiles"), ("tiles",), ("tiles", "plaster")),
    "attic": (("planks", "plaid"), ("planks", "carpet"), ("plaid", "planks", "marble")),
}
"""Family -> textures of (table, floor, walls)."""


def _tone(rng: np.random.Generator, saturation: tuple, value: tuple, hue: float | None = None) -> tuple:
    h = rng.random() if hue is None else hue
    return colorsys.hsv_to_rgb(h % 1.0, rng.uniform(*saturation), rng.uniform(*value))


def dress(film: Film, family: str, seed: int) -> Film:
    """The film in a set: same geometry of robot and objects, other colours, textures, light, walls and clutter."""
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    kinds = [str(rng.choice(k)) for k in SURFACES[family]]
    table_hue = rng.random()
    tones = [np.array(_tone(rng, (0.05, 0.5), (0.3, 0.9), table_hue)), np.array(_tone(rng, (0.0, 0.35), (0.1, 0.6))),
             np.array(_tone(rng, (0.0, 0.3), (0.25, 0.8)))]  # fmt: skip
    surfaces = [texture(kind, rng, tone) for kind, tone in zip(kinds, tones, strict=True)]
    repeat = [float(rng.uniform(0.25, 0.8)) for _ in range(3)]
    scheme = rng.integers(0, 3)
    base = np.array(_tone(rng, (0.0, 0.7 if scheme else 0.08), (0.2, 0.9)))
    # The packet keeps its distance in hue from the table: where it has none, no judge can see it.
    carried = _tone(rng, (0.6, 1.0), (0.35, 0.9), table_hue + rng.uniform(0.25, 0.75))
    label = texture(str(rng.choice(["plaid", "checks", "terrazzo"])), rng, np.array(carried))
    other = _tone(rng, (0.6, 1.0), (0.35, 0.9), colorsys.rgb_to_hsv(*carried)[0] + rng.uniform(0.3, 0.7))
    tray = _tone(rng, (0.1, 0.8), (0.1, 0.8))
    gloss = float(rng.uniform(0, 1))
    colours = {}
    items = []
    links = {owner for owners in film.robots.values() for owner in owners}
    for one in film.items:
        low = one.owner.lower()
        if one.owner in links or one.owner == "prop:finger":
            luma = float(np.mean(one.colour))
            tint = np.clip(base * (0.25 + 0.85 * luma) * (rng.uniform(0.8, 1.2) if scheme == 2 else 1), 0.02, 0.92)
            one = replace(one, colour=tuple(map(float, tint)), gloss=gloss)
        elif one.owner in (film.task_object, "prop:second", "prop:shape"):
            one = replace(one, colour=carried, texture=label, repeat_m=0.12, gloss=0.3)
        elif one.owner == "prop:colour":
            one = replace(one, colour=other, gloss=0.3)
        elif one.owner == film.target:
            one = replace(one, colour=tray, gloss=0.5 * gloss)
        elif "table" in low:
            one = replace(one, texture=surfaces[0], repeat_m=repeat[0], gloss=0.3 * gloss)
        elif "floor" in low:
            one = replace(one, texture=surfaces[1], repeat_m=2 * repeat[1])
        else:
            colour = colours.setdefault(one.owner, _tone(rng, (0.1, 0.8), (0.15, 0.8)))
            one = replace(one, colour=colour)
        items.append(one)
    items += _walls(rng, surfaces[2], 2 * repeat[2])
    items += _clutter(rng, family)
    sun = np.array([*rng.normal(0, 0.35, 2), -1.0])
    power = rng.uniform(0.6, 1.1)
    warmth = rng.uniform(-0.1, 0.1)
    return replace(
        film, items=tuple(items), sun=tuple(map(float, sun / np.linalg.norm(sun))),
        sun_colour=(power * (1 + warmth), power, power * (1 - warmth)),
        sky=tuple(map(float, rng.uniform(0.35, 0.6) * np.array([1 - warmth, 1, 1 + warmth]))),
    )  # fmt: skip


def _walls(rng: np.random.Generator, surface: np.ndarray, repeat: float) -> list[Item]:
    """Two walls behind the table as its cameras see it, and a dado of another colour."""
    out = []
    skirting = _tone(rng, (0, 0.4), (0.1, 0.8))
    for k, (at, size) in enumerate((((-2.2, 0, 0.6), (0.1, 6.0, 2.8)), ((0.4, 2.6, 0.6), (6.0, 0.1, 2.8)),
                                    ((0.4, -2.8, 0.6), (6.0, 0.1, 2.8)))):  # fmt: skip
        vertices, faces = box(size)
        wall = item("set", f"wall{k}", vertices + at, faces, (0.6, 0.6, 0.6))
        out.append(replace(wall, texture=surface, repeat_m=repeat))
        vertices, faces = box((size[0] + 0.04, size[1] + 0.04, 0.35))
        out.append(item("set", f"dado{k}", vertices + np.array([at[0], at[1], -0.58]), faces, skirting))
    return out


def _clutter(rng: np.random.Generator, family: str) -> list[Item]:
    """Things on the floor and at the walls, and small flat ones at the table's edges, none of which hides the task."""
    out = []
    for k in range(int(rng.integers(5, 11))):
        size = rng.uniform(0.15, 0.6, 3)
        angle = rng.uniform(0, 2 * np.pi)
        place = np.array([-1.0 - rng.uniform(0, 1.0), rng.uniform(-2.2, 2.2), -0.75 + size[2] / 2])
        if rng.random() < 0.5:
            place[:2] = rng.uniform(-1.5, 0.8), rng.choice([-1, 1]) * rng.uniform(1.5, 2.3)
        shape = trimesh.creation.cylinder(radius=size[0] / 2, height=size[2]) if rng.random() < 0.4 else None
        vertices, faces = box(tuple(size)) if shape is None else (shape.vertices, shape.faces)
        c, s = np.cos(angle), np.sin(angle)
        turned = np.asarray(vertices) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        one = item("set", f"clutter{k}", turned + place, faces, _tone(rng, (0.1, 0.9), (0.1, 0.9)))
        if rng.random() < 0.4:
            kind = str(rng.choice(SURFACES[family][2]))
            one = replace(one, texture=texture(kind, rng, np.array(one.colour)), repeat_m=0.4)
        out.append(one)
    for k in range(int(rng.integers(0, 5))):
        size = np.array([rng.uniform(0.03, 0.12), rng.uniform(0.02, 0.05), rng.uniform(0.002, 0.01)])
        vertices, faces = box(tuple(size))
        place = [rng.uniform(0.15, 0.85), rng.choice([-1, 1]) * rng.uniform(0.54, 0.57), size[2] / 2]
        out.append(item("set", f"flat{k}", vertices + place, faces, _tone(rng, (0.1, 0.9), (0.1, 0.9))))
    return out
