# SPDX-License-Identifier: Apache-2.0
"""Painter c: VTK, a rasteriser nobody here wrote (BSD 3-clause), on the CPU in an environment of its own
(`python scripts/vtk_env.py`). Physically based materials (metals, lacquers), light from a drawn panorama, a spot lamp
with shadow maps that may swing, FXAA. Ids come from a second pass of the same triangles in flat colours.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import cv2
import numpy as np
from film import Film
from newton_painter import Shot
from painter_pipe import Pipe

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("RETAKE_VTK_PYTHON", ROOT / ".vtk-env" / "bin" / "python"))
CENTRE = np.array([0.45, 0.0, 0.0])
"""Where the lamp looks: the middle of the table."""
LAMP_M = 2.1
"""Distance of the lamp."""


def panorama(film: Film) -> np.ndarray:
    """(64, 128, 3) float32 linear: ceiling, horizon and floor in the film's sky colour, and a few bright windows."""
    rng = np.random.default_rng([zlib.crc32(np.array([*film.sun, *film.sky]).tobytes()), 81])
    height, width = 64, 128
    sky = 0.5 * np.array(film.sky)
    up = np.linspace(1, -1, height)[:, None, None]
    picture = sky * np.where(up > 0, 0.55 + 0.35 * up, 0.5 + 0.25 * up) * np.ones((1, width, 1))
    for _ in range(int(rng.integers(2, 6))):
        tall, wide = int(rng.integers(4, 14)), int(rng.integers(6, 26))
        top, left = int(rng.integers(4, 24)), int(rng.integers(0, width))
        columns = np.arange(left, left + wide) % width
        picture[top : top + tall, columns] = rng.uniform(1.0, 3.0) * (0.6 + 0.4 * rng.uniform(0.7, 1.0, 3))
    return cv2.GaussianBlur(picture, (0, 0), 1.2, borderType=cv2.BORDER_REFLECT).astype(np.float32)


def lamp_place(film: Film, t: int) -> np.ndarray:
    """Where the lamp hangs at a frame: it swings about the vertical through the table's middle."""
    share = t / max(len(film) - 1, 1)
    angle = np.radians(film.sway_deg) * np.sin(2 * np.pi * share)
    c, s = np.cos(angle), np.sin(angle)
    x, y, z = -np.array(film.sun) / np.linalg.norm(film.sun)
    return CENTRE + LAMP_M * np.array([c * x - s * y, s * x + c * y, z])


class VtkPainter:
    """Renders frames of a dressed film in a process of the other environment."""

    def __init__(self, film: Film) -> None:
        self.owners = film.owners
        advice = "`python scripts/vtk_env.py` makes the environment of the rasteriser"
        self._pipe = Pipe(PYTHON, "vtk_render.py", advice, LP_NUM_THREADS="1")
        items = [
            {"owner": i.owner, "vertices": i.vertices, "faces": i.faces, "uv": i.uv / i.repeat_m, "colour": i.colour,
             "texture": i.texture, "roughness": 0.9 - 0.75 * i.gloss, "metallic": i.metallic}
            for i in film.items
        ]  # fmt: skip
        lamp = {
            "from": lamp_place(film, 0), "at": CENTRE, "cone": 50.0, "power": 5.0, "colour": film.sun_colour,
        }  # fmt: skip
        self._pipe.ask(
            {"items": items, "owners": self.owners, "size": film.size, "lamps": [lamp], "sky": panorama(film)}
        )

    def close(self) -> None:
        """End the other process."""
        self._pipe.close()

    def render(self, film: Film, t: int) -> tuple[np.ndarray, np.ndarray]:
        """(rgb (h, w, 3) uint8, ids (h, w) uint8) of a frame."""
        got = self._pipe.ask({
            "poses": [film.pose(o, t) for o in self.owners], "K": film.K[t], "T_camera_world": film.T_camera_world[t],
            "lamps": [lamp_place(film, t)],
        })  # fmt: skip
        return got["rgb"], got["ids"]

    def shoot(self, film: Film) -> Shot:
        """All frames, each as a whole: light and reflections change everywhere."""
        frames = [self.render(film, t) for t in range(len(film))]
        return Shot(np.stack([f[0] for f in frames]), np.stack([f[1] for f in frames]), self.owners)

    def reshoot(self, shot: Shot, old: Film, new: Film) -> Shot:
        """A shot with those frames rendered anew in which anything stands elsewhere in `new` than in `old`."""
        rgb, ids = shot.rgb.copy(), shot.ids.copy()
        for t in range(len(new)):
            if any(np.abs(old.pose(o, t) - new.pose(o, t)).max() > 1e-6 for o in self.owners):
                rgb[t], ids[t] = self.render(new, t)
        return Shot(rgb, ids, self.owners)
