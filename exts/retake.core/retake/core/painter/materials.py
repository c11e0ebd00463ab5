# SPDX-License-Identifier: Apache-2.0
"""Procedural surface materials by name: wood, steel, concrete, cloth, …, each a tileable Texture from two colours.

`make_material({"kind": "wood", "colours": ["#b98a5a", "#8a5c33"], "tile_m": 1.2}, seed)`; unknown kinds list the valid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from retake.core.errors import VariantError, unknown_name
from retake.core.files import canonical_json
from retake.core.painter.photos import photo_texture
from retake.core.painter.textures import Texture, linear, mix, noise

SIZE = 512
Maker = Callable[[np.random.Generator, np.ndarray, np.ndarray, dict[str, Any]], np.ndarray]


def _grid() -> tuple[np.ndarray, np.ndarray]:
    x = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    return np.meshgrid(x, x)


def _plain(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    return mix(a, b, 0.3 + 0.18 * noise(SIZE, rng, (4, 4), 5) + 0.04 * noise(SIZE, rng, (128, 128), 2))


def _wood(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Planks along u: each with its own tone and grain offset; thin dark joints."""
    planks = int(p.get("planks", 5))
    x, y = _grid()
    row = np.minimum((y * planks).astype(int), planks - 1)
    shift, tone = rng.random(planks, dtype=np.float32), rng.normal(0, 0.13, planks).astype(np.float32)
    grain = noise(SIZE, rng, (3, 40), 4)
    rings = noise(SIZE, rng, (2, 9), 3)
    columns = (np.arange(SIZE)[None] + (shift[row] * SIZE).astype(int)) % SIZE
    grain, rings = np.take_along_axis(grain, columns, 1), np.take_along_axis(rings, columns, 1)
    figure = 0.5 + 0.5 * np.sin(3.0 * rings + 9 * y * planks)
    out = mix(a, b, 0.25 + 0.17 * grain + 0.28 * figure + tone[row])
    joint = np.abs(y * planks - np.round(y * planks)) < 0.012
    ends = np.abs((x + shift[row]) % 1.0 - 0.5) < 0.0022
    if p.get("joints", True):
        out[joint | ends] *= 0.45
    return out


def _steel(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    brushed = noise(SIZE, rng, (2, 256), 2)
    return mix(a, b, 0.45 + 0.13 * brushed + 0.12 * noise(SIZE, rng, (3, 3), 3))


def _concrete(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    out = mix(a, b, 0.4 + 0.17 * noise(SIZE, rng, (3, 3), 6) + 0.05 * noise(SIZE, rng, (200, 200), 1))
    pits = noise(SIZE, rng, (90, 90), 2) > 2.7
    out[pits] *= 0.7
    if p.get("slabs"):
        x, y = _grid()
        out[(np.minimum(x, 1 - x) < 0.004) | (np.minimum(y, 1 - y) < 0.004)] *= 0.55
    return out


def _cloth(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Woven threads; `pattern`: plain, checks or stripes in the second colour."""
    x, y = _grid()
    weave = 0.5 + 0.25 * (np.sin(2 * np.pi * 128 * x) + np.sin(2 * np.pi * 128 * y))
    count = int(p.get("count", 6))
    band_x, band_y = ((x * count) % 1 < 0.5).astype(np.float32), ((y * count) % 1 < 0.5).astype(np.float32)
    share = {"checks": 0.5 * (band_x + band_y), "stripes": band_x}.get(str(p.get("pattern")), 0.12 + 0 * x)
    share = cv2.GaussianBlur(share, (3, 3), 0)
    wrinkle = 1 + 0.06 * noise(SIZE, rng, (3, 3), 3)
    return mix(a, b, share) * (0.86 + 0.2 * weave * wrinkle)[..., None].astype(np.float32)


def _belt(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Conveyor rubber: cross ribs along v and scuffs."""
    _, y = _grid()
    ribs = np.clip(1.6 * np.sin(2 * np.pi * int(p.get("ribs", 22)) * y), -1, 1)
    scuff = np.clip(noise(SIZE, rng, (60, 4), 4) - 1.1, 0, 1)
    return mix(a, b, 0.32 + 0.2 * ribs + 0.08 * noise(SIZE, rng, (6, 6), 4) + 0.22 * scuff)


def _tiles(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Glazed tiles (colour a, slight tone differences) with grout of colour b; `checker` alternates with `colour2`."""
    nx, ny = int(p.get("across", 6)), int(p.get("down", 6))
    x, y = _grid()
    row = (y * ny).astype(int)
    shifted = x * nx + (0.5 * (row % 2) if p.get("brickwork") else 0)
    column = shifted.astype(int) % nx
    tone = rng.normal(0, 0.05, (ny, nx)).astype(np.float32)[row, column]
    base = np.broadcast_to(a, (SIZE, SIZE, 3)).copy()
    if "colour2" in p:
        base[(row + column) % 2 == 1] = linear(p["colour2"])
    out = base * (1 + tone + 0.03 * noise(SIZE, rng, (8, 8), 4))[..., None]
    edge_x, edge_y = np.abs(shifted - np.round(shifted)) / nx, np.abs(y * ny - np.round(y * ny)) / ny
    grout = float(p.get("grout", 0.006))
    edge = np.minimum(edge_x, edge_y)
    line = np.clip((grout - edge) / 0.002, 0, 1)
    bevel = 1 + 0.16 * np.clip(1 - (edge - grout) / 0.01, 0, 1) * np.where(edge_y < edge_x, 1, -0.6)
    return mix(out * bevel[..., None].astype(np.float32), b, line)


def _marble(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    x, y = _grid()
    warp = noise(SIZE, rng, (2, 2), 6)
    vein = np.abs(np.sin(2 * np.pi * (x + y) + 1.9 * warp)) ** 0.35
    fine = np.abs(noise(SIZE, rng, (4, 4), 5)) ** 0.5
    return mix(b, a, 0.15 + 0.75 * vein * (0.6 + 0.4 * np.clip(fine, 0, 1)) + 0.03 * noise(SIZE, rng, (3, 3), 4))


def _speckle(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Terrazzo, granite, cork, asphalt: chips of colour b (and `colour2`) in a."""
    grain = int(p.get("grain", 60))
    first, second = noise(SIZE, rng, (grain, grain), 2), noise(SIZE, rng, (grain, grain), 2)
    out = mix(a, b, (first - float(p.get("threshold", 0.9))) * 6)
    out = mix(out, linear(p["colour2"]) if "colour2" in p else a * 0.6, (second - 1.4) * 6)
    return out * (1 + 0.05 * noise(SIZE, rng, (4, 4), 4))[..., None]


def _fibre(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Grass, carpet, hedge, straw: fine blades in two tones with broad patches."""
    blades = noise(SIZE, rng, (160, 90), 2)
    return mix(a, b, 0.45 + 0.22 * blades + 0.2 * noise(SIZE, rng, (5, 5), 4))


def _corrugated(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    x, _ = _grid()
    wave = np.sin(2 * np.pi * int(p.get("ribs", 16)) * x)
    return mix(a, b, 0.45 + 0.38 * wave + 0.06 * noise(SIZE, rng, (4, 3), 4))


KINDS: dict[str, Maker] = {
    "plain": _plain,
    "wood": _wood,
    "steel": _steel,
    "concrete": _concrete,
    "cloth": _cloth,
    "belt": _belt,
    "tiles": _tiles,
    "marble": _marble,
    "speckle": _speckle,
    "fibre": _fibre,
    "corrugated": _corrugated,
}


def make_material(spec: dict[str, Any], seed: int) -> Texture:
    """The Texture of a material mapping: `kind`, `colours` (one or two '#rrggbb'), `tile_m`, and the kind's options; or of
    a photograph: `photo`, `tile_m`, `tileable`.

    Raises VariantError for an unknown kind (listing the valid ones) or unreadable colours.
    """
    if "photo" in spec:
        return photo_texture(spec)
    if spec.get("kind") not in KINDS:
        raise VariantError(unknown_name("material kind", str(spec.get("kind")), KINDS))
    return _cached(canonical_json(spec), seed)


@lru_cache(maxsize=48)
def _cached(spec_json: bytes, seed: int) -> Texture:
    import json

    spec = json.loads(spec_json)
    try:
        colours = [linear(c) for c in spec.get("colours", ["#999999"])]
    except (ValueError, TypeError, IndexError) as error:
        raise VariantError(f"material colours must be '#rrggbb'; found {spec.get('colours')}") from error
    a, b = colours[0], colours[-1] if len(colours) > 1 else colours[0] * 0.6
    image = KINDS[spec["kind"]](np.random.default_rng(seed), a, b, spec)
    tile = float(spec.get("tile_m", 1.0))
    return Texture.of(np.clip(image, 0, 1).astype(np.float32), (tile, tile))
