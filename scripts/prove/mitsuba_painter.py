# SPDX-License-Identifier: Apache-2.0
"""Painter a: Mitsuba 3, a path tracer nobody here wrote (BSD 3-clause), on the CPU in an environment of its own
(`python scripts/mitsuba_env.py`). Soft lights, interreflections, glossy plastics, soft moving shadows.

Pictures are traced at half the camera's size and enlarged (the judge looks at 320 px); ids are exact at full size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from film import Film, changed_window
from newton_painter import Shot
from painter_pipe import Pipe

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("RETAKE_MITSUBA_PYTHON", ROOT / ".mitsuba-env" / "bin" / "python"))
SCALE = 2
"""Camera pixels per traced pixel."""


class MitsubaPainter:
    """Renders frames of a dressed film in a process of the other environment."""

    def __init__(self, film: Film, samples: int = 10) -> None:
        self.owners, self.samples = film.owners, samples
        advice = "`python scripts/mitsuba_env.py` makes the environment of the path tracer"
        self._pipe = Pipe(PYTHON, "mitsuba_render.py", advice)
        items = [
            {"owner": i.owner, "vertices": i.vertices, "faces": i.faces, "uv": i.uv / i.repeat_m, "colour": i.colour,
             "texture": i.texture, "gloss": i.gloss}
            for i in film.items
        ]  # fmt: skip
        self._pipe.ask(
            {"items": items, "owners": self.owners, "sun": film.sun, "sun_colour": film.sun_colour, "sky": film.sky}
        )

    def close(self) -> None:
        """End the other process."""
        self._pipe.close()

    def render(
        self, film: Film, t: int, window: tuple[int, int, int, int] | None = None, samples: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(rgb (h, w, 3) uint8, ids (h, w) uint8) of a frame, or of its window (x0, y0, x1, y1; even numbers)."""
        x0, y0, x1, y1 = window or (0, 0, *film.size)
        pad = 4 if window else 0
        a0, b0 = max(x0 // SCALE - pad, 0), max(y0 // SCALE - pad, 0)
        a1, b1 = min(-(-x1 // SCALE) + pad, film.size[0] // SCALE), min(-(-y1 // SCALE) + pad, film.size[1] // SCALE)
        got = self._pipe.ask({
            "poses": [film.pose(o, t) for o in self.owners], "K": film.K[t], "T_camera_world": film.T_camera_world[t],
            "size": film.size, "scale": SCALE, "crop": (a0, b0, a1, b1), "ids": (x0, y0, x1, y1),
            "samples": samples or self.samples, "seed": t,
        })  # fmt: skip
        linear = np.clip(got["rgb"], 0, 4)
        small = np.clip(
            np.where(linear < 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-6) ** (1 / 2.4) - 0.055), 0, 1
        )
        # A few paths per pixel are noisy; like patches are averaged.
        small = cv2.fastNlMeansDenoisingColored((small * 255).astype(np.uint8), None, 9, 9, 5, 13).astype(np.float32)
        large = cv2.resize(small, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
        rgb = np.clip(large[y0 - b0 * SCALE : y1 - b0 * SCALE, x0 - a0 * SCALE : x1 - a0 * SCALE], 0, 255)
        return rgb.astype(np.uint8), got["ids"]

    def shoot(self, film: Film) -> Shot:
        """All frames; of a fixed camera only what ever differs from the first (traced with four times the samples)."""
        still = np.abs(film.T_camera_world - film.T_camera_world[:1]).max() < 1e-6
        rgb, ids = (
            np.stack([part] * len(film)) for part in self.render(film, 0, samples=4 * self.samples if still else None)
        )
        windows = [changed_window(film, film, t, 0) if still else (0, 0, *film.size) for t in range(len(film))]
        window = around(windows[1:])
        for t in range(1, len(film)):
            if windows[t] and window:
                self._put(film, t, window, rgb[t], ids[t])
        return quiet(Shot(rgb, ids, self.owners), film)

    def reshoot(self, shot: Shot, old: Film, new: Film) -> Shot:
        """A shot with the window rendered anew, in every frame in which `new` looks other than `old`."""
        rgb, ids = shot.rgb.copy(), shot.ids.copy()
        windows = [changed_window(old, new, t) for t in range(len(new))]
        window = around(windows)
        for t in range(len(new)):
            if windows[t] and window:
                self._put(new, t, window, rgb[t], ids[t])
        made = quiet(Shot(rgb, ids, self.owners), new)
        for t in range(len(new)):
            if not windows[t]:
                made.rgb[t] = shot.rgb[t]
        return made

    def _put(self, film: Film, t: int, window: tuple[int, int, int, int], rgb: np.ndarray, ids: np.ndarray) -> None:
        """Render a window, grown for soft shadows, into a frame with a soft rim."""
        grow = 14
        x0, y0 = max(window[0] - grow, 0) // 2 * 2, max(window[1] - grow, 0) // 2 * 2
        x1, y1 = min(window[2] + grow, film.size[0]), min(window[3] + grow, film.size[1])
        new, seen = self.render(film, t, (x0, y0, x1, y1))
        rim = np.ones(new.shape[:2], np.float32)
        for k in range(grow):
            level = (k + 1) / (grow + 1)
            inner = rim[k : new.shape[0] - k, k : new.shape[1] - k]
            if y0 > 0:
                inner[0] = np.minimum(inner[0], level)
            if y1 < film.size[1]:
                inner[-1] = np.minimum(inner[-1], level)
            if x0 > 0:
                inner[:, 0] = np.minimum(inner[:, 0], level)
            if x1 < film.size[0]:
                inner[:, -1] = np.minimum(inner[:, -1], level)
        place = rgb[y0:y1, x0:x1].astype(np.float32)
        rgb[y0:y1, x0:x1] = (place + (new - place) * rim[..., None]).astype(np.uint8)
        ids[y0:y1, x0:x1] = seen


def around(windows: Sequence[tuple[int, int, int, int] | None]) -> tuple[int, int, int, int] | None:
    """One window around all: the path tracer compiles its kernel anew for every other crop."""
    found = np.array([w for w in windows if w])
    if not len(found):
        return None
    x0, y0, x1, y1 = *found[:, :2].min(0), *found[:, 2:].max(0)
    return int(x0), int(y0), int(x1), int(y1)


def quiet(shot: Shot, film: Film, reach: int = 2) -> Shot:
    """A shot with its sampling noise averaged: a small median everywhere, and where nothing that moves passes within
    `reach` frames the mean over those frames (soft shadows blur a little; contours of what moves do not)."""
    moves = [
        o
        for o in film.owners
        if np.abs(film.pose(o, 0) - np.stack([film.pose(o, t) for t in range(len(film))])).max() > 1e-7
    ]
    table = shot.mask(tuple(moves))
    still = np.abs(film.T_camera_world - film.T_camera_world[:1]).max() < 1e-6
    soft = np.stack([cv2.medianBlur(frame, 5) for frame in shot.rgb])
    out = soft.copy()
    for t in range(len(film) if still else 0):
        span = range(max(t - reach, 0), min(t + reach + 1, len(film)))
        steady = ~np.any([table[shot.ids[s]] for s in span], axis=0)
        mean = np.mean([soft[s].astype(np.float32) for s in span], axis=0)
        out[t][steady] = np.rint(mean[steady]).astype(np.uint8)
    return Shot(out, shot.ids, shot.owners)
