# SPDX-License-Identifier: Apache-2.0
"""Painted fronts: shelves, cabinets, windows, machines. Flat pictures in metres that the sets hang on walls and boxes.

Each painter is `(rng, width_m, height_m, colours) -> Texture` (not repeating); the origin is the upper left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from retake.core.painter.textures import Texture, linear, noise

PX_PER_M = 160


class Canvas:
    """An sRGB picture addressed in metres."""

    def __init__(self, width_m: float, height_m: float, colour: str) -> None:
        self.size_m = (width_m, height_m)
        self.scale = min(PX_PER_M, 1400 / max(width_m, height_m))
        shape = (max(8, round(height_m * self.scale)), max(8, round(width_m * self.scale)), 3)
        self.image = np.empty(shape, np.uint8)
        self.image[:] = _rgb(colour)

    def rect(self, x: float, y: float, w: float, h: float, colour: str, shade: float = 1.0) -> None:
        """A filled rectangle, anti-aliased by sub-pixel corners."""
        a, b = self._fixed(x, y), self._fixed(x + w, y + h)
        points = np.array([[a[0], a[1]], [b[0], a[1]], [b[0], b[1]], [a[0], b[1]]], np.int32)
        cv2.fillConvexPoly(self.image, points, _rgb(colour, shade), cv2.LINE_AA, 4)

    def disc(self, x: float, y: float, r: float, colour: str, shade: float = 1.0) -> None:
        """A filled circle."""
        cv2.circle(self.image, self._fixed(x, y), round(r * self.scale * 16), _rgb(colour, shade), -1, cv2.LINE_AA, 4)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: str, shade: float = 1.0) -> None:
        """A filled ellipse."""
        axes = (round(rx * self.scale * 16), round(ry * self.scale * 16))
        points = np.asarray(cv2.ellipse2Poly((0, 0), (1000, 1000), 0, 0, 360, 6)) / 1000 * axes + self._fixed(x, y)
        cv2.fillPoly(self.image, [points.astype(np.int32)], _rgb(colour, shade), cv2.LINE_AA, 4)

    def texture(self, rng: np.random.Generator, grime: float = 0.04) -> Texture:
        """As a Texture, with a little unevenness so that large areas do not look like plastic."""
        lin = linear(self.image / 255.0)
        dirt = cv2.resize(noise(256, rng, (5, 5), 5), (lin.shape[1], lin.shape[0]), interpolation=cv2.INTER_LINEAR)
        return Texture.of(np.clip(lin * (1 + grime * dirt[..., None]), 0, 4).astype(np.float32), self.size_m, False)

    def _fixed(self, x: float, y: float) -> tuple[int, int]:
        return round(x * self.scale * 16), round(y * self.scale * 16)


def _rgb(colour: str, shade: float = 1.0) -> tuple[int, int, int]:
    text = colour.lstrip("#")
    r, g, b = (min(255, round(int(text[i : i + 2], 16) * shade)) for i in (0, 2, 4))
    return r, g, b


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(v):02x}" for v in colour)


def _pick(rng: np.random.Generator, colours: Sequence[str]) -> str:
    return colours[int(rng.integers(len(colours)))]


def racking(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """Pallet racking: uprights and beams with cardboard boxes on every level. colours: upright, beam, boxes…"""
    c = Canvas(w, h, "#2b2c2e")
    upright, beam, boxes = colours[0], colours[1], colours[2:] or ("#b08a5a", "#c49a69", "#9c7748")
    levels = max(2, round(h / 0.75))
    step = h / levels
    for level in range(levels):
        floor = (level + 1) * step - 0.09
        x = 0.06
        while x < w - 0.1:
            bw, bh = rng.uniform(0.2, 0.55), rng.uniform(0.45, 0.9) * (step - 0.12)
            if rng.random() < 0.85:
                colour, shade = _pick(rng, boxes), rng.uniform(0.8, 1.1)
                bw = min(bw, w - 0.06 - x)
                c.rect(x, floor - bh, bw, bh, colour, shade)
                c.rect(x + bw * 0.44, floor - bh, bw * 0.12, bh * 0.96, "#d9c7a3", shade * 0.9)
                if rng.random() < 0.6:
                    c.rect(x + bw * 0.62, floor - bh * 0.45, bw * 0.28, bh * 0.25, "#efece4", shade)
                c.rect(x, floor - 0.012, bw, 0.012, "#1b1a18")
            x += bw + rng.uniform(0.01, 0.09)
        c.rect(0, floor, w, 0.09, beam)
        c.rect(0, floor + 0.07, w, 0.02, beam, 0.6)
    for x in np.arange(0, w + 0.01, max(w / max(1, round(w / 1.3)), 0.3)):
        c.rect(x - 0.045, 0, 0.09, h, upright)
        for y in np.arange(0.05, h, 0.1):
            c.rect(x - 0.012, y, 0.024, 0.035, upright, 0.55)
    return c.texture(rng)


def cabinets(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """Kitchen fronts: doors and drawers with handles over a dark plinth. colours: door, handle."""
    door, handle = colours[0], colours[1] if len(colours) > 1 else "#8d8f92"
    c = Canvas(w, h, door)
    count = max(1, round(w / 0.55))
    step, foot = w / count, (0.1 if h > 0.75 else 0.0)
    for i in range(count):
        x, drawers = i * step, foot > 0 and rng.random() < 0.4
        rows = 3 if drawers else 1
        for r in range(rows):
            y, rh = r * (h - foot) / rows, (h - foot) / rows
            c.rect(x + 0.004, y + 0.004, step - 0.008, rh - 0.008, door, 0.62)
            c.rect(x + 0.008, y + 0.008, step - 0.016, rh - 0.016, door, 1.0)
            c.rect(x + 0.06, y + 0.06, step - 0.12, max(rh - 0.12, 0.02), door, 0.93)
            if drawers:
                c.rect(x + step / 2 - 0.09, y + 0.035, 0.18, 0.016, handle)
            else:
                side = x + (0.05 if i % 2 else step - 0.065)
                c.rect(side, y + (0.08 if foot else rh - 0.24), 0.016, 0.16, handle)
    if foot:
        c.rect(0, h - foot, w, foot, "#26221f")
    return c.texture(rng, 0.02)


def goods(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """Shop or pantry shelf: rows of packets, tins and bottles. colours: shelf, back, goods…"""
    shelf, back, things = colours[0], colours[1], colours[2:] or ("#c8433a", "#e0a63a", "#4a8f5c", "#3e6fb0", "#efe9dc")
    c = Canvas(w, h, back)
    levels = max(2, round(h / 0.42))
    step = h / levels
    for level in range(levels):
        y = (level + 1) * step - 0.045
        c.rect(0, level * step, w, 0.07, "#000000", 1.0) if back == "#000000" else c.rect(
            0, level * step, w, 0.06, back, 0.7
        )
        x = 0.04
        while x < w - 0.12:
            kind, colour, shade = rng.random(), _pick(rng, things), rng.uniform(0.8, 1.1)
            tw, th = rng.uniform(0.07, 0.16), rng.uniform(0.5, 0.88) * (step - 0.07)
            for _ in range(int(rng.integers(1, 5))):
                if x + tw > w - 0.03:
                    break
                if kind < 0.35:
                    c.rect(x + tw * 0.36, y - th, tw * 0.28, th * 0.4, colour, shade * 0.85)
                    c.ellipse(x + tw / 2, y - th * 0.6, tw * 0.46, th * 0.12, colour, shade)
                    c.rect(x + tw * 0.04, y - th * 0.6, tw * 0.92, th * 0.6, colour, shade)
                    c.rect(x + tw * 0.04, y - th * 0.42, tw * 0.92, th * 0.24, "#f3eee2", shade)
                else:
                    c.rect(x, y - th, tw * 0.95, th, colour, shade)
                    c.rect(x + tw * 0.12, y - th * 0.78, tw * 0.7, th * 0.3, "#f3eee2", shade)
                    c.disc(x + tw * 0.47, y - th * 0.25, tw * 0.2, _pick(rng, things), shade)
                x += tw + 0.008
            x += rng.uniform(0.0, 0.05)
        c.rect(0, y, w, 0.045, shelf)
        c.rect(0, y + 0.012, w, 0.024, "#f5f2ea", 0.97)
    return c.texture(rng, 0.02)


def books(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """A bookcase with books, a few vases and gaps. colours: wood, spines…"""
    wood, spines = colours[0], colours[1:] or ("#7d3b32", "#33506b", "#d7c9a7", "#4f6a4e", "#26272b", "#b98b4e")
    c = Canvas(w, h, wood)
    columns, levels = max(1, round(w / 0.8)), max(2, round(h / 0.36))
    for column in range(columns):
        for level in range(levels):
            x0, y0 = column * w / columns + 0.025, level * h / levels + 0.025
            bw, bh = w / columns - 0.05, h / levels - 0.05
            c.rect(x0, y0, bw, bh, wood, 0.42)
            x = x0 + 0.01
            while x < x0 + bw - 0.05:
                if rng.random() < 0.1:
                    if rng.random() < 0.6:
                        c.ellipse(x + 0.07, y0 + bh - 0.08, 0.05, 0.08, _pick(rng, spines), 1.15)
                    x += 0.15
                    continue
                tw, th = rng.uniform(0.018, 0.045), rng.uniform(0.6, 0.92) * bh
                colour, shade = _pick(rng, spines), rng.uniform(0.8, 1.15)
                c.rect(x, y0 + bh - th, tw, th, colour, shade)
                c.rect(x, y0 + bh - th * 0.8, tw, 0.012, "#e8dcbc", 0.9)
                x += tw + 0.003
    return c.texture(rng, 0.03)


def machine(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """Machine or rack cabinet: panels, vents, a screen, lamps, a hazard stripe. colours: body, accent."""
    body, accent = colours[0], colours[1] if len(colours) > 1 else "#e0a526"
    c = Canvas(w, h, body)
    count = max(1, round(w / 0.7))
    for i in range(count):
        x, s = i * w / count, w / count
        c.rect(x + 0.01, 0.01, s - 0.02, h - 0.02, body, 0.7)
        c.rect(x + 0.02, 0.02, s - 0.04, h - 0.04, body, rng.uniform(0.92, 1.08))
        if rng.random() < 0.7:
            c.rect(x + s * 0.18, h * 0.13, s * 0.64, min(0.3, h * 0.22), "#12181e")
            c.rect(x + s * 0.21, h * 0.15, s * 0.58, min(0.3, h * 0.22) * 0.85, "#2c7fa8", rng.uniform(0.7, 1.2))
            for k in range(3):
                c.rect(x + s * 0.25, h * (0.17 + 0.05 * k), s * rng.uniform(0.15, 0.45), 0.02, "#bfe3f2")
        for k in range(3):
            c.disc(x + s * (0.3 + 0.2 * k), h * 0.47, 0.022, ("#d0463c", "#55b26a", "#e9c64a")[k])
        for y in np.arange(h * 0.58, h * 0.82, 0.045):
            c.rect(x + s * 0.15, y, s * 0.7, 0.018, "#1d2023")
    c.rect(0, h - 0.09, w, 0.09, accent)
    for x in np.arange(-0.1, w, 0.2):
        points = np.array([[x, h], [x + 0.1, h], [x + 0.19, h - 0.09], [x + 0.09, h - 0.09]]) * c.scale * 16
        cv2.fillConvexPoly(c.image, points.astype(np.int32), (24, 24, 26), cv2.LINE_AA, 4)
    return c.texture(rng)


def windows(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """A wall with windows over a horizon. colours: wall, frame, sky top, sky bottom, land; sky stays brighter than wall."""
    wall, frame, top, bottom, land = (
        *colours,
        *("#e9e4da", "#fafafa", "#7fb0e0", "#dcebf5", "#6f8f5e")[len(colours) :],
    )
    c = Canvas(w, h, wall)
    count = max(1, round(w / 2.2))
    glow = np.zeros(c.image.shape[:2], np.float32)
    for i in range(count):
        ww, wh = min(1.3, w / count * 0.62), min(1.25, h * 0.5)
        x, y = (i + 0.5) * w / count - ww / 2, h * 0.16
        c.rect(x - 0.09, y - 0.09, ww + 0.18, wh + 0.18, frame, 0.9)
        rows = 24
        for r in range(rows):
            t = r / (rows - 1)
            mixed = np.array(_rgb(top)) * (1 - t) + np.array(_rgb(bottom)) * t
            c.rect(x, y + wh * r / rows, ww, wh / rows + 0.01, _hex(mixed))
        for _ in range(14):
            c.ellipse(
                x + rng.uniform(0.1, ww - 0.1),
                y + wh * 0.93,
                rng.uniform(0.08, 0.25),
                rng.uniform(0.05, 0.2),
                land,
                rng.uniform(0.75, 1.1),
            )
        a, b = (round(v * c.scale) for v in (x, y))
        glow[b : round((y + wh) * c.scale), a : round((x + ww) * c.scale)] = 1
        c.rect(x, y + wh, ww, 0.09, frame, 0.9)
        c.rect(x + ww / 2 - 0.025, y, 0.05, wh, frame)
        c.rect(x, y + wh * 0.45, ww, 0.04, frame)
        c.rect(x - 0.13, y + wh + 0.06, ww + 0.26, 0.06, frame, 0.97)
    c.rect(0, h - 0.1, w, 0.1, frame, 0.92)
    lin = linear(c.image / 255.0) * (1 + 1.3 * glow[..., None])
    dirt = cv2.resize(noise(256, rng, (4, 4), 5), (lin.shape[1], lin.shape[0]), interpolation=cv2.INTER_LINEAR)
    return Texture.of((lin * (1 + 0.025 * dirt[..., None])).astype(np.float32), (w, h), False)


def pictures(rng: np.random.Generator, w: float, h: float, colours: Sequence[str]) -> Texture:
    """A painted wall with framed abstract pictures. colours: wall, frame, paint…"""
    wall, frame, paint = colours[0], colours[1], colours[2:] or ("#c9703f", "#2f5d62", "#e3c58c", "#7a8b99")
    c = Canvas(w, h, wall)
    for i in range(max(1, round(w / 1.3))):
        pw, ph = rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.75)
        x, y = (i + 0.5) * 1.3 - pw / 2 + rng.uniform(-0.1, 0.1), h * 0.28 + rng.uniform(-0.12, 0.12)
        c.rect(x - 0.015, y - 0.01, pw + 0.04, ph + 0.045, wall, 0.78)
        c.rect(x, y, pw, ph, frame)
        c.rect(x + 0.03, y + 0.03, pw - 0.06, ph - 0.06, "#f4f0e6")
        for _ in range(5):
            bx, by = rng.uniform(0.06, pw * 0.6), rng.uniform(0.06, ph * 0.6)
            size = (rng.uniform(0.05, pw - bx - 0.04), rng.uniform(0.05, ph - by - 0.04))
            c.rect(x + bx, y + by, *size, _pick(rng, paint), rng.uniform(0.85, 1.15))
    c.rect(0, h - 0.11, w, 0.11, "#f1ede4")
    return c.texture(rng, 0.025)


PANELS: dict[str, Callable[[np.random.Generator, float, float, Sequence[str]], Texture]] = {
    "racking": racking,
    "cabinets": cabinets,
    "goods": goods,
    "books": books,
    "machine": machine,
    "windows": windows,
    "pictures": pictures,
}
