# SPDX-License-Identifier: Apache-2.0
"""What the task object is shown as: pictures on the six sides of its box, in the object's own frame, so that they move
with it in every frame and never leave its silhouette.

A subject mapping (config/worlds) has `kind` (bag, bun, produce, carton, tin, plush …), `colours`, and options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Float32
from retake.core.errors import VariantError, unknown_name
from retake.core.painter.planes import dot_of, largest, normalised
from retake.core.painter.shapes import axes_of
from retake.core.painter.textures import Texture, linear, mix, noise

N = 256
Painter = Callable[[np.random.Generator, list[np.ndarray], dict[str, Any], str], np.ndarray]


def _axes() -> tuple[np.ndarray, np.ndarray]:
    x = (np.arange(N, dtype=np.float32) + 0.5) / N
    return np.meshgrid(x, x)


def _blank(colour: np.ndarray) -> np.ndarray:
    return np.broadcast_to(colour, (N, N, 3)).astype(np.float32).copy()


def _spot(image: np.ndarray, x: float, y: float, rx: float, ry: float, colour: np.ndarray, turn: float = 0) -> None:
    """An anti-aliased ellipse; coordinates and radii in shares of the picture."""
    mask = np.zeros((N, N), np.uint8)
    axes = (max(1, round(rx * N * 16)), max(1, round(ry * N * 16)))
    points = np.asarray(cv2.ellipse2Poly((0, 0), (1000, 1000), 0, 0, 360, 8)) / 1000.0 * axes
    c, s = np.cos(turn), np.sin(turn)
    points = points @ np.array([[c, s], [-s, c]]) + [x * N * 16, y * N * 16]
    cv2.fillPoly(mask, [points.astype(np.int32)], 255, cv2.LINE_AA, 4)
    left, top, width, height = cv2.boundingRect(mask)
    part = np.s_[top : top + height, left : left + width]
    m = (mask[part] / np.float32(255))[..., None]
    image[part] = image[part] * (1 - m) + colour * m


def _bag(rng: np.random.Generator, c: list[np.ndarray], p: dict[str, Any], side: str) -> np.ndarray:
    """Foil bag: crimped ends, a swoosh, a badge, and what is inside printed on the front."""
    x, y = _axes()
    out = mix(c[0] * 0.9, c[0] * 1.1, 0.5 + 0.3 * noise(N, rng, (3, 5), 3))
    swoosh = np.clip((y - 0.62 - 0.1 * np.sin(3.2 * x + 0.4)) * 40, 0, 1)
    out = mix(out, c[1], swoosh)
    if side == "front":
        _spot(out, 0.5, 0.36, 0.42, 0.17, c[2], -0.12)
        _spot(out, 0.5, 0.36, 0.39, 0.15, c[0] * 0.55, -0.12)
        for k, w in enumerate((0.09, 0.07, 0.1, 0.06, 0.09)):
            _spot(out, 0.24 + 0.13 * k, 0.36 - 0.016 * k, w * 0.42, 0.07, c[2], -0.1)
        for _ in range(11):
            cx, cy, turn = rng.uniform(0.18, 0.82), rng.uniform(0.68, 0.86), rng.uniform(0, 3)
            _spot(out, cx, cy + 0.012, 0.105, 0.062, c[3] * 0.45, turn)
            _spot(out, cx, cy, 0.1, 0.056, c[3] * rng.uniform(0.85, 1.1), turn)
            _spot(out, cx - 0.02, cy - 0.012, 0.045, 0.02, c[3] * 1.25, turn)
    crimp = ((y < 0.04) | (y > 0.96)).astype(np.float32)
    ribs = 0.75 + 0.35 * np.sin(2 * np.pi * 22 * x)
    out = mix(out, (c[2] * 0.9), crimp * 0.75) * np.where(crimp > 0, ribs, 1)[..., None].astype(np.float32)
    fold = 1 + 0.22 * np.sin(6 * x + 2 * noise(N, rng, (2, 2), 3)) * (np.abs(y - 0.5) > 0.28) * 0.6
    sheen = 0.16 * np.exp(-(((x - 0.24 - 0.05 * np.sin(7 * y)) / 0.07) ** 2))
    return out * fold[..., None].astype(np.float32) + sheen[..., None].astype(np.float32)


def _bun(rng: np.random.Generator, c: list[np.ndarray], p: dict[str, Any], side: str) -> np.ndarray:
    """Baked crust: pale at the edges, brown in the middle of the top, sesame or flour on it."""
    x, y = _axes()
    r = np.sqrt((x - 0.5) ** 2 + (y - 0.45) ** 2) * 2
    brown = np.clip(0.95 - 0.75 * r + 0.16 * noise(N, rng, (4, 4), 5), 0, 1)
    out = mix(c[0], c[1], brown)
    if side != "top":
        pale = np.clip((y - 0.74) * 6 + 0.2 * noise(N, rng, (6, 2), 3), 0, 1)
        out = mix(out, c[2], pale * 0.75)
        if p.get("filling"):
            band = np.clip(1 - np.abs(y - 0.6 - 0.012 * np.sin(20 * x)) / 0.05, 0, 1) ** 0.5
            out = mix(out, linear(p["filling"]) * (1 + 0.25 * noise(N, rng, (20, 3), 2))[..., None], band)
    for _ in range(int(p.get("seeds", 70))):
        sx, sy, turn = rng.uniform(0.08, 0.92), rng.uniform(0.05, 0.6), rng.uniform(0, 3.1)
        _spot(out, sx + 0.003, sy + 0.006, 0.017, 0.01, c[1] * 0.45, turn)
        _spot(out, sx, sy, 0.016, 0.0085, c[3 % len(c)], turn)
    for k in range(int(p.get("slashes", 0))):
        _spot(out, 0.5, 0.2 + 0.2 * k, 0.36, 0.032, c[2], -0.35)
        _spot(out, 0.5, 0.208 + 0.2 * k, 0.33, 0.014, c[0], -0.35)
    return out * (1 + 0.05 * noise(N, rng, (40, 40), 2))[..., None]


def _produce(rng: np.random.Generator, c: list[np.ndarray], p: dict[str, Any], side: str) -> np.ndarray:
    """Fruit and vegetables: skin with lobes or stripes, freckles, a highlight, and a stem on top."""
    x, y = _axes()
    lobes = float(p.get("lobes", 3))
    ridge = 0.5 + 0.5 * np.cos(2 * np.pi * lobes * (x - 0.5) * (1 - 0.15 * np.cos(2 * np.pi * y)))
    out = mix(c[1], c[0], 0.25 + 0.75 * ridge**0.6 + 0.08 * noise(N, rng, (4, 4), 4))
    if p.get("stripes"):
        stripe = np.clip(np.sin(2 * np.pi * float(p["stripes"]) * x + 1.2 * noise(N, rng, (3, 6), 3)) * 3, 0, 1)
        out = mix(out, c[2], stripe * float(p.get("stripe_share", 0.75)))
    out = mix(out, c[1] * 0.8, np.clip(noise(N, rng, (60, 60), 2) - 1.7, 0, 1) * float(p.get("freckles", 0.5)))
    if side == "top":
        _spot(out, 0.5, 0.5, 0.3, 0.3, c[1] * 0.55)
        for k in range(5):
            a = 2 * np.pi * k / 5
            _spot(out, 0.5 + 0.13 * np.cos(a), 0.5 + 0.13 * np.sin(a), 0.17, 0.07, c[3], a)
        _spot(out, 0.5, 0.5, 0.08, 0.08, c[3] * 0.6)
    elif p.get("leafy"):
        leaf = np.clip((0.26 + 0.07 * np.sin(9 * x + 1) + 0.05 * noise(N, rng, (9, 3), 3) - y) * 14, 0, 1)
        out = mix(out, c[3] * (1 + 0.25 * np.sin(50 * x + 4 * noise(N, rng, (3, 3), 2)))[..., None], leaf)
    shine = 0.3 * np.exp(-(((x - 0.3) / 0.06) ** 2) - ((y - 0.35) / 0.2) ** 2) * float(p.get("shine", 1))
    return out + shine[..., None].astype(np.float32)


def _carton(rng: np.random.Generator, c: list[np.ndarray], p: dict[str, Any], side: str) -> np.ndarray:
    """Printed box: panel, badge, lines of text; plain cardboard gets tape and a label."""
    x, y = _axes()
    out = _blank(c[0]) * (1 + 0.035 * noise(N, rng, (6, 30), 3))[..., None]
    if p.get("tape"):
        out = mix(out, c[1], (np.abs(x - 0.5) < 0.09).astype(np.float32) * 0.8)
        if side == "front":
            out = mix(out, c[2], ((x > 0.56) & (x < 0.9) & (y > 0.55) & (y < 0.8)).astype(np.float32))
            out = mix(out, c[0] * 0.15, ((x > 0.6) & (x < 0.86) & (y > 0.6) & (y < 0.74)
                      & ((x * 70 + 0.7 * np.sin(x * 400)) % 2 < 1)).astype(np.float32))  # fmt: skip
        return out
    out = mix(out, c[1], np.clip((y - 0.66 + 0.2 * (x - 0.5)) * 50, 0, 1))
    if side != "top":
        _spot(out, 0.5, 0.34, 0.36, 0.2, c[2])
        _spot(out, 0.5, 0.34, 0.28, 0.15, c[0] * 0.8)
        _spot(out, 0.5, 0.34, 0.13, 0.13, c[2])
        for k in range(4):
            line = (np.abs(y - 0.76 - 0.045 * k) < 0.011) & (np.abs(x - 0.5) < (0.3, 0.22, 0.27, 0.16)[k])
            out = mix(out, c[2], line.astype(np.float32))
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    return out * (1 - 0.3 * np.exp(-edge / 0.012))[..., None].astype(np.float32)


def _tin(rng: np.random.Generator, c: list[np.ndarray], p: dict[str, Any], side: str) -> np.ndarray:
    """Tin or bottle with a label: metal rims, a band with a picture."""
    x, y = _axes()
    round_ = 0.72 + 0.4 * np.sin(np.pi * np.clip(x, 0, 1)) - 0.12 * (x > 0.8)
    metal = _blank(c[0]) * (0.75 + 0.4 * np.abs(np.sin(9 * x)))[..., None].astype(np.float32)
    if side == "top":
        out = metal
        for r, s in ((0.46, 0.8), (0.4, 1.15), (0.36, 0.95)):
            _spot(out, 0.5, 0.5, r, r, c[0] * s)
        return out
    label = ((y > 0.12) & (y < 0.9)).astype(np.float32)
    out = mix(metal, c[1], label)
    out = mix(out, c[2], label * np.clip((np.abs(y - 0.5) < 0.15) * 1.0, 0, 1))
    _spot(out, 0.5, 0.5, 0.2, 0.16, c[3 % len(c)])
    _spot(out, 0.44, 0.45, 0.06, 0.04, c[3 % len(c)] * 1.5)
    return out * round_[..., None].astype(np.float32)


def _plush(rng: np.random.Generator, c: list[np.ndarray], p: dict[str, Any], side: str) -> np.ndarray:
    """Sponge, towel, cheese, soap: soft body with pores or weave in two tones."""
    x, y = _axes()
    grain = int(p.get("grain", 26))
    pores = np.clip((noise(N, rng, (grain, grain), 2) - float(p.get("threshold", 1.0))) * 3, 0, 1)
    out = mix(c[0] * (1 + 0.06 * noise(N, rng, (4, 4), 4))[..., None], c[1], pores)
    out = mix(out, c[2] * (1 + 0.1 * noise(N, rng, (90, 90), 1))[..., None], np.clip((0.24 - y) * 60, 0, 1))
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    return out * (1 - 0.22 * np.exp(-edge / 0.05))[..., None].astype(np.float32)


KINDS: dict[str, tuple[Painter, float]] = {
    "bag": (_bag, 0.55), "bun": (_bun, 0.85), "produce": (_produce, 0.85), "carton": (_carton, 0.0),
    "tin": (_tin, 0.5), "plush": (_plush, 0.35),
}  # fmt: skip
"""Painter, and how round the object is shaded (0 flat sides … 1 an ellipsoid)."""


CONTRAST_LAB = 22.0
"""Least Lab difference between the mean colours of a subject and of the surface under it."""
GAINS = (1.0, 0.8, 1.2, 0.65, 1.4, 0.5, 1.7, 0.4, 2.0)
"""Of a subject's albedo, tried in this order."""


def colour_distance(a: Float32[np.ndarray, "3"], b: Float32[np.ndarray, "3"]) -> float:
    """CIE76 difference of two linear RGB colours."""
    pair = np.clip(np.stack([a, b])[None], 0, 1) ** np.float32(1 / 2.4) * np.float32(1.055) - np.float32(0.055)
    lab = cv2.cvtColor(np.clip(pair, 0, 1).astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    return float(np.linalg.norm(lab[0] - lab[1]))


@dataclass(frozen=True, eq=False)
class Subject:
    """Pictures for the sides of one object's box."""

    front: Texture
    side: Texture
    top: Texture
    half_m: Float32[np.ndarray, "3"]
    center_m: Float32[np.ndarray, "3"]
    up: int
    """Object axis drawn upward (the longest), then across and through (the shortest: pictures face along it)."""
    across: int
    through: int
    roundness: float
    gloss: float

    def apart_from(self, surface: Texture) -> Subject:
        """The subject, lighter or darker where its mean colour would vanish into the surface it stands on."""
        ground = surface.levels[-1].mean((0, 1))
        mean = (
            self.front.levels[-1].mean((0, 1)) + self.side.levels[-1].mean((0, 1)) + self.top.levels[-1].mean((0, 1))
        ) / 3
        for gain in GAINS:
            if colour_distance(mean * gain, ground) >= CONTRAST_LAB:
                break
        else:
            gain = max(GAINS, key=lambda g: colour_distance(mean * g, ground))
        if gain == 1:
            return self
        front, side, top = (
            Texture(tuple(np.clip(level * np.float32(gain), 0, 1.2) for level in t.levels), t.size_m, t.repeat)
            for t in (self.front, self.side, self.top)
        )
        return replace(self, front=front, side=side, top=top)

    def shade(
        self, p_object: Float32[np.ndarray, "3 N"], n_object: Float32[np.ndarray, "3 N"], footprint_m: np.ndarray
    ) -> tuple[Float32[np.ndarray, "3 N"], Float32[np.ndarray, "3 N"]]:
        """Albedo and shading normals (object frame) of surface points given in the object frame, m."""
        q = (p_object - self.center_m[:, None]) / self.half_m[:, None]
        order = [self.across, self.through, self.up]
        facing = largest(*np.abs(n_object)[order])
        albedo = np.zeros((3, q.shape[1]), np.float32)
        for face, texture, u_axis, v_axis in (
            (1, self.front, self.across, self.up), (0, self.side, self.through, self.up),
            (2, self.top, self.across, self.through),
        ):  # fmt: skip
            on = np.flatnonzero(facing == face)
            if len(on):
                sign = np.where(n_object[order[face], on] > 0, 1.0, -1.0) * (1 if face == 0 else -1)
                u = (q[u_axis, on] * (sign if face < 2 else 1) + 1) / 2
                v = (1 - q[v_axis, on]) / 2
                found = texture.planes(
                    u.astype(np.float32) * texture.size_m[0], v.astype(np.float32) * texture.size_m[1], footprint_m[on]
                )
                for plane, values in zip(albedo, found, strict=True):
                    plane[on] = values
        if not self.roundness:
            return albedo, normalised(n_object)
        ball = q / self.half_m[:, None]
        ball /= np.maximum(np.sqrt(dot_of(ball, ball)), 1e-6)
        return albedo, normalised(n_object + (ball - n_object) * self.roundness * 0.8)


def make_subject(
    spec: dict[str, Any], size_m: tuple[float, float, float], center_m: tuple[float, float, float], seed: int
) -> Subject:
    """The look of an object with box `size_m` around `center_m` (object frame, m). Raises VariantError on bad kinds."""
    if spec.get("kind") not in KINDS:
        raise VariantError(unknown_name("subject kind", str(spec.get("kind")), KINDS))
    painter, roundness = KINDS[spec["kind"]]
    colours = [linear(c) for c in spec.get("colours", ["#c07030", "#8a4a1c", "#f0e0c0", "#f7ead0"])]
    while len(colours) < 4:
        colours.append(colours[-1] * 0.8)
    size = np.maximum(np.array(size_m, np.float32), 1e-4)
    shape = str(spec.get("shape", ""))
    across, through, up = axes_of(shape, size_m)
    images = {}
    for index, side in enumerate(("front", "side", "top")):
        rng = np.random.default_rng([seed, index])
        images[side] = np.clip(painter(rng, colours, spec, side), 0, 1.2).astype(np.float32)
    w, t, h = float(size[across]), float(size[through]), float(size[up])
    return Subject(
        Texture.of(images["front"], (w, h), False), Texture.of(images["side"], (t, h), False),
        Texture.of(images["top"], (w, t), False), size / 2, np.array(center_m, np.float32), up, across, through,
        0.0 if shape else float(spec.get("roundness", roundness)), float(spec.get("gloss", 0.15)),
    )  # fmt: skip
