# SPDX-License-Identifier: Apache-2.0
"""Surfaces of the fourth painter: textures drawn as vector patterns that repeat."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

KINDS = ("boards", "speckle", "chips", "parquet", "gingham", "dots", "slate", "cork", "bricks")
"""Those of floors, walls and things."""
_CELL = 512


def tone(rng: np.random.Generator, hue: float, saturation: tuple, value: tuple) -> np.ndarray:
    """Linear RGB."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*saturation), rng.uniform(*value)))


def repeated() -> np.ndarray:
    """(9, 2) offsets of a shape and its repetitions, px: what is drawn at all of them repeats."""
    return np.stack(np.meshgrid(*[(-_CELL, 0, _CELL)] * 2), -1).reshape(9, 2)


def disc(image: np.ndarray, at: np.ndarray, radius: int, shade: tuple[float, ...]) -> None:
    """A filled circle that repeats."""
    for place in at + repeated():
        cv2.circle(image, place.astype(int).tolist(), radius, shade, -1, cv2.LINE_AA)


def polygon(image: np.ndarray, corners: np.ndarray, shade: tuple[float, ...]) -> None:
    """A filled polygon that repeats."""
    for off in repeated():
        cv2.fillPoly(image, [(corners + off).astype(np.int32)], shade, cv2.LINE_AA)


def stroke(image: np.ndarray, start: np.ndarray, end: np.ndarray, shade: tuple[float, ...]) -> None:
    """A line that repeats."""
    for off in repeated():
        cv2.line(image, (start + off).astype(int).tolist(), (end + off).astype(int).tolist(), shade, 1, cv2.LINE_AA)


def texture(kind: str, rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(512, 512, 3) uint8 sRGB, repeating."""
    image = np.ones((_CELL, _CELL, 3), np.float32) * first.astype(np.float32)

    def mix(share: float) -> tuple[float, ...]:
        return tuple(float(c) for c in first + (second - first) * share)

    if kind == "boards":
        edges = np.linspace(0, _CELL, 7).astype(int)
        for k in range(6):
            image[edges[k] : edges[k + 1]] = mix(rng.uniform(0, 1))
            for _ in range(14):
                row, thick = int(rng.integers(edges[k], edges[k + 1])), int(rng.integers(1, 3))
                bow = rng.uniform(-6, 6)
                x = np.arange(0, _CELL + 1, 16)
                way = np.stack([x, row + bow * np.sin(2 * np.pi * x / _CELL)], -1).astype(np.int32)
                cv2.polylines(image, [way], False, mix(rng.uniform(0, 1)), thick, cv2.LINE_AA)
            image[edges[k] : edges[k] + 3] *= 0.5
    elif kind == "parquet":
        step = _CELL // 8
        for i in range(8):
            for j in range(8):
                block = image[i * step : (i + 1) * step, j * step : (j + 1) * step]
                for n, strip in enumerate(np.array_split(np.arange(step), 4)):
                    shade = np.array(mix(rng.uniform(0, 1)), np.float32) * (0.97 if n % 2 else 1.0)
                    if (i + j) % 2:
                        block[strip] = shade
                        block[strip[0]] *= 0.7
                    else:
                        block[:, strip] = shade
                        block[:, strip[0]] *= 0.7
    elif kind == "chips":
        for _ in range(420):
            centre, size = rng.uniform(0, _CELL, 2), rng.uniform(4, 17)
            turn = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 7))))
            corners = centre + size * rng.uniform(0.5, 1, (len(turn), 1)) * np.stack([np.cos(turn), np.sin(turn)], -1)
            shade = tuple(float(c) for c in np.clip(np.array(mix(rng.uniform(0, 1))) * rng.uniform(0.5, 1.4), 0, 1))
            polygon(image, corners, shade)
    elif kind == "gingham":
        band = (np.arange(_CELL) // (_CELL // 16)) % 2
        image += (second - first).astype(np.float32) * (0.5 * (band[:, None] + band[None]))[..., None]
        image *= 1 - 0.06 * ((np.arange(_CELL) // 2) % 2)[None, :, None]
    elif kind == "dots":
        step = _CELL // 8
        for i in range(8):
            for j in range(8):
                disc(image, np.array([(j + 0.5 * (i % 2)) * step, i * step]), step // 4, mix(1.0))
    elif kind == "bricks":
        image[:] = np.array(mix(1.0), np.float32)
        tall, wide = _CELL // 16, _CELL // 4
        for i in range(16):
            for j in range(-1, 5):
                x = j * wide + (wide // 2) * (i % 2)
                shade = tuple(float(c) for c in first * rng.uniform(0.75, 1.15)) if 0 <= j < 4 else mix(0)
                cv2.rectangle(image, (x + 3, i * tall + 3), (x + wide - 3, (i + 1) * tall - 3), shade, -1)
    elif kind == "waves":
        rows = np.arange(_CELL)[:, None] + 9 * np.sin(2 * np.pi * np.arange(_CELL) / (_CELL / rng.integers(2, 5)))[None]
        share = 0.5 + 0.5 * np.sin(2 * np.pi * rows / (_CELL / rng.integers(9, 18)))
        image += (second - first).astype(np.float32) * share[..., None].astype(np.float32) ** 2
    elif kind == "tiles":
        # Hexagons in rows, each of a tone of its own, with dark joints.
        step = _CELL // 8
        image *= 0.45
        corners = 0.54 * step * np.stack([f(np.arange(6) * np.pi / 3 + np.pi / 6) for f in (np.cos, np.sin)], -1)
        for i in range(8):
            for j in range(8):
                at = np.array([(j + 0.5 * (i % 2)) * step, i * step])
                polygon(image, at + corners * (1.0, 1.1), mix(rng.uniform(0, 1)))
    elif kind == "slate":
        cuts = np.linspace(0, _CELL, 5).astype(int)
        for i in range(4):
            for j in range(4):
                image[cuts[i] : cuts[i + 1], cuts[j] : cuts[j + 1]] = mix(rng.uniform(0, 0.7))
        for _ in range(90):
            start, angle = rng.uniform(0, _CELL, 2), rng.normal(0.5, 0.2)
            end = start + rng.uniform(20, 90) * np.array([np.cos(angle), np.sin(angle)])
            stroke(image, start, end, mix(rng.uniform(0, 1)))
        image[cuts[:4], :] *= 0.6
        image[:, cuts[:4]] *= 0.6
    else:  # speckle, cork: many small round grains
        count, large = (2600, 3) if kind == "speckle" else (1500, 7)
        for _ in range(count):
            at, radius = rng.integers(0, _CELL, 2), int(rng.integers(1, large + 1))
            disc(image, at, radius, mix(rng.uniform(0, 1)))
    image *= (1 + rng.normal(0, 0.02, (_CELL, _CELL, 1))).astype(np.float32)
    return (np.clip(image, 0.012, 0.93) ** (1 / 2.2) * 255).astype(np.uint8)


def stuff(rng: np.random.Generator, kind: str, hue: float, value: tuple = (0.15, 0.7)) -> np.ndarray:
    """A texture of a kind around a hue."""
    first = tone(rng, hue, (0, 0.55), value)
    return texture(kind, rng, first, tone(rng, hue + rng.normal(0, 0.1), (0, 0.6), value))
