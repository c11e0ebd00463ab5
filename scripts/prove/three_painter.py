# SPDX-License-Identifier: Apache-2.0
"""Painter d: three.js (MIT), a rasteriser nobody here wrote, in a headless Chromium with software WebGL
(`python scripts/three_env.py`). Standard physically based materials, one or two lamps with filtered shadow maps (parallel,
spots with soft rims, light through leaves), mirrored light from a drawn panorama, filmic curves, fourfold multisampling.
Ids come from a second pass of the same triangles in flat colours.

Of a fixed camera only the window is drawn in which anything, or its shadow, has moved.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from chromium import PROGRAM, Browser
from film import HIDDEN_M, Film, Item, Lamp, Window, drawn_in_windows, project, redrawn_in_windows
from newton_painter import Shot

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / ".three-env" / "node_modules" / "three" / "build" / "three.module.js"
THERE = LIBRARY.exists() and PROGRAM is not None
"""Whether this painter can paint here."""
SHADOW_PX = 768
NEAR_M, FAR_M = 0.02, 12.0
ERROR_M = 0.0002
"""By how much meshes may be simplified: a tenth of a pixel of a fixed view, half a pixel of a hand's."""
GROUND_M, FLOOR_M = 0.0, -0.75
TABLE_M = ((0.1, 0.9), (-0.6, 0.6))
"""Heights on which shadows fall, and the table's sides."""


def panorama(film: Film) -> np.ndarray:
    """(64, 128, 4) float32 linear, bottom row first: what polished things mirror, with a bright spot where each lamp is."""
    height, width = 64, 128
    up = np.linspace(-1, 1, height)[:, None, None]
    image = np.array(film.sky) * (0.7 + 0.5 * up) * np.ones((1, width, 1))
    # A skyline of dark furniture.
    edge = 26 + 5 * np.sign(np.sin(np.arange(width) / 5.0)) + 3 * np.sin(np.arange(width) / 11.0)
    image[np.arange(height)[:, None] < edge[None]] *= 0.55
    for lamp in film.lamps:
        way = np.array(lamp.at) - np.array(lamp.towards)
        row = (0.5 + np.arcsin(way[2] / np.linalg.norm(way)) / np.pi) * height
        column = (np.arctan2(way[1], way[0]) / (2 * np.pi) + 0.5) * width
        cv2.circle(image, (int(column) % width, int(row)), 3, tuple(6.0 * c for c in lamp.colour), -1)
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    return np.concatenate([soft, np.ones((height, width, 1))], -1).astype(np.float32)


def packed(array: np.ndarray) -> str:
    """Bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def told_image(image: np.ndarray) -> dict[str, Any]:
    """A texture (h, w, 3) uint8, first row at the top, as the page takes it."""
    rgba = np.concatenate([image[::-1], np.full((*image.shape[:2], 1), 255, np.uint8)], -1)
    return {"kind": "bytes", "width": image.shape[1], "height": image.shape[0], "data": packed(rgba)}


def told_lamp(lamp: Lamp) -> dict[str, Any]:
    """A lamp as the page takes it."""
    return {
        "at": lamp.at, "towards": lamp.towards, "colour": lamp.colour, "cone_deg": lamp.cone_deg, "soft": lamp.soft,
        "gobo": None if lamp.gobo is None else told_image(lamp.gobo),
    }  # fmt: skip


def told_item(one: Item, owners: tuple[str, ...], texture: int | None) -> dict[str, Any]:
    """A mesh as the page takes it. Only what bears no texture is simplified."""
    vertices, faces, uv = one.vertices, one.faces, one.uv / one.repeat_m
    return {
        "owner": owners.index(one.owner), "casts": not one.name.startswith(("wall", "frame")),
        "closed": one.owner == "set" or any(word in one.owner.lower() for word in ("table", "floor")),
        "vertices": packed(vertices.astype(np.float32)),
        "faces": packed(faces.astype(np.uint32)), "uv": packed(uv.astype(np.float32)), "texture": texture,
        "error_m": ERROR_M if texture is None and len(faces) > 200 else 0.0,
        "colour": [1.0, 1.0, 1.0] if texture is not None else [float(c) for c in one.colour],
        "roughness": 0.95 - 0.75 * one.gloss, "metallic": one.metallic,
        "matt": one.gloss < 0.25, "mirrors": one.gloss > 0.25 and one.owner != "set",
    }  # fmt: skip


class ThreePainter:
    """Renders frames of a dressed film in a page."""

    def __init__(self, film: Film) -> None:
        if not THERE:
            raise RuntimeError(
                "three.js or Chromium is missing; `python scripts/three_env.py` makes the environment of the page"
            )
        self.owners, self.size = film.owners, film.size
        self._browser = Browser(Path(__file__).with_name("three_stage.html").as_uri())
        self._browser.wait_for("window.ready === true")
        textures: dict[int, np.ndarray] = {id(i.texture): i.texture for i in film.items if i.texture is not None}
        place = {key: k for k, key in enumerate(textures)}
        sky = panorama(film)
        self.triangles = self._ask("build", {
            "size": film.size, "owners": self.owners, "textures": [told_image(image) for image in textures.values()],
            "items": [told_item(i, self.owners, place.get(id(i.texture))) for i in film.items],
            "lamps": [told_lamp(lamp) for lamp in film.lamps], "shadow_px": SHADOW_PX, "tone": film.tone, "exposure": 1.0,
            "sky": film.sky, "ground": [0.6 * c for c in film.sky], "mirrored": 0.9,
            "panorama": {"kind": "floats", "width": sky.shape[1], "height": sky.shape[0], "data": packed(sky)},
        })  # fmt: skip

    def _ask(self, what: str, request: dict[str, Any]) -> Any:
        return self._browser.call(f"window.{what}({json.dumps(request)})")

    def close(self) -> None:
        """End the browser."""
        self._browser.close()

    def render(self, film: Film, t: int, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(rgb (h, w, 3) uint8, ids (h, w) uint8) of a frame, or of its window (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = window or (0, 0, *film.size)
        T_world_camera = np.linalg.inv(film.T_camera_world[t]) @ np.diag([1.0, -1.0, -1.0, 1.0])
        text = self._ask("picture", {
            "poses": [film.pose(o, t).T.ravel().tolist() for o in self.owners], "camera": T_world_camera.T.ravel().tolist(),
            "projection": projection(film.K[t], film.size).T.ravel().tolist(), "window": [x0, y0, x1 - x0, y1 - y0],
        })  # fmt: skip
        got = np.frombuffer(base64.b64decode(text), np.uint8).reshape(y1 - y0, x1 - x0, 4)[::-1]
        return got[..., :3].copy(), got[..., 3].copy()

    def shoot(self, film: Film) -> Shot:
        """All frames; of a fixed camera only what differs from the first."""
        return Shot(*drawn_in_windows(film, self.render, moved_window), self.owners)

    def reshoot(self, shot: Shot, old: Film, new: Film) -> Shot:
        """A shot with the windows rendered anew in which `new` looks other than `old`."""
        return Shot(*redrawn_in_windows((shot.rgb, shot.ids), old, new, self.render, moved_window), self.owners)


def projection(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(4, 4) to clip space, with any principal point."""
    (width, height), n, f = size, NEAR_M, FAR_M
    return np.array([
        [2 * K[0, 0] / width, 0, 1 - 2 * K[0, 2] / width, 0], [0, 2 * K[1, 1] / height, 2 * K[1, 2] / height - 1, 0],
        [0, 0, -(f + n) / (f - n), -2 * f * n / (f - n)], [0, 0, -1, 0],
    ])  # fmt: skip


def moved_window(old: Film, new: Film, t: int, since: int | None = None) -> Window | None:
    """(x0, y0, x1, y1) around all owners that stand elsewhere at frame t of `new` than at frame `since` (default t) of `old`,
    and around their shadows by every lamp: on the table, and on the floor where they miss it."""
    before, found = t if since is None else since, []
    for owner in new.owners:
        if np.abs(old.pose(owner, before) - new.pose(owner, t)).max() < 1e-6:
            continue
        for film, when in ((old, before), (new, t)):
            T = film.pose(owner, when)
            if T[2, 3] < HIDDEN_M / 2:
                continue
            corners = film.points(owner) @ T[:3, :3].T + T[:3, 3]
            every = [corners, *(shadows(corners, lamp) for lamp in film.lamps)]
            found.append(project(film, np.concatenate(every), t))
    found = [f for f in found if len(f)]
    if not found:
        return None
    every = np.concatenate(found)
    x0, y0 = np.maximum(np.floor(every.min(0)).astype(int) - 12, 0)
    x1, y1 = np.minimum(np.ceil(every.max(0)).astype(int) + 13, new.size)
    return (int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else None


def shadows(corners: np.ndarray, lamp: Lamp) -> np.ndarray:
    """Where points (N, 3) cast their shadows: (N, 3) on the table, or on the floor beside it."""
    at, towards = np.array(lamp.at), np.array(lamp.towards)
    way = (towards - at)[None] + 0 * corners if lamp.cone_deg == 0 else corners - at
    way = way / np.maximum(-way[:, 2:], 0.05)
    out = corners + way * np.maximum(corners[:, 2:] - GROUND_M, 0)
    missed = np.any([(out[:, k] < low) | (out[:, k] > high) for k, (low, high) in enumerate(TABLE_M)], axis=0)
    out[missed] = (corners + way * (corners[:, 2:] - FLOOR_M))[missed]
    return out
