# SPDX-License-Identifier: Apache-2.0
"""Lights of the fourth painter's rooms: lamps, and what leaves, blinds, water and panes leave of them."""

from __future__ import annotations

import cv2
import numpy as np
from film import Lamp

MIDDLE = (0.45, 0.0, 0.0)
"""Middle of the table, where lamps look."""


def dapples(rng: np.random.Generator) -> np.ndarray:
    """What leaves leave of a light (256, 256, 3) uint8."""
    image = np.full((256, 256), 255, np.uint8)
    for _ in range(int(rng.integers(40, 80))):
        at, axes = rng.integers(0, 256, 2).tolist(), rng.integers(4, 22, 2).tolist()
        cv2.ellipse(image, at, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(30, 140)), -1, cv2.LINE_AA)
    return np.repeat(cv2.GaussianBlur(image, (0, 0), 2.0)[..., None], 3, 2)


def blinds(rng: np.random.Generator) -> np.ndarray:
    """What the slats of a blind leave of a light (256, 256, 3) uint8."""
    angle, period, share = rng.uniform(0, np.pi), rng.uniform(18, 44), rng.uniform(0.35, 0.65)
    v, u = np.mgrid[0:256, 0:256]
    along = (np.cos(angle) * u + np.sin(angle) * v) / period % 1.0
    image = np.where(along < share, 255, int(rng.integers(40, 120))).astype(np.uint8)
    return np.repeat(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(1.0, 3.0)))[..., None], 3, 2)


def ripples(rng: np.random.Generator) -> np.ndarray:
    """Light that water throws (256, 256, 3) uint8: bright lines where waves of several directions agree."""
    v, u = np.mgrid[0:256, 0:256]
    waves = sum(
        np.sin((np.cos(a) * u + np.sin(a) * v) * 2 * np.pi / rng.uniform(28, 70) + rng.uniform(0, 6))
        for a in rng.uniform(0, 2 * np.pi, 5)
    )
    return np.repeat((120 + 135 * np.exp(-((waves / 0.8) ** 2))).astype(np.uint8)[..., None], 3, 2)


def panes(rng: np.random.Generator) -> np.ndarray:
    """What the bars between panes leave of a light (256, 256, 3) uint8."""
    image = np.full((256, 256), 255, np.uint8)
    across, along = rng.integers(36, 64, 2)
    image[:, :: int(across)], image[:: int(along)] = 60, 60
    turn = cv2.getRotationMatrix2D((128, 128), float(rng.uniform(0, 90)), 1.3)
    image = cv2.erode(cv2.warpAffine(image, turn, (256, 256), borderValue=255), np.ones((4, 4)))
    return np.repeat(cv2.GaussianBlur(image, (0, 0), 1.5)[..., None], 3, 2)


def lamps(rng: np.random.Generator, family: str) -> tuple[Lamp, ...]:
    """The family's lights."""

    def hung(tilt: tuple, far: float) -> tuple[float, float, float]:
        angle, way = rng.uniform(*tilt), rng.uniform(0, 2 * np.pi)
        way_out = np.array([np.sin(angle) * np.cos(way), np.sin(angle) * np.sin(way), np.cos(angle)])
        x, y, z = (float(c) for c in np.array(MIDDLE) + far * way_out)
        return x, y, z

    def shade(power: float, warm: float) -> tuple[float, float, float]:
        return power * (1 + warm), power, power * (1 - warm)

    if family == "harbour":
        return (Lamp(hung((0.4, 0.75), 2.6), MIDDLE, shade(rng.uniform(0.8, 1.2), 0.12)),)
    if family == "chapel":
        warm = rng.uniform(0.1, 0.35)
        return (Lamp(hung((0.2, 0.6), 2.0), MIDDLE, shade(rng.uniform(0.5, 0.8), warm), 48, 0.5),
                Lamp(hung((0.3, 0.7), 2.2), MIDDLE, shade(rng.uniform(0.3, 0.5), -warm), 45, 0.4))  # fmt: skip
    if family == "bazaar":
        return tuple(
            Lamp(hung((0.1, 0.6), 1.8), MIDDLE, shade(rng.uniform(0.35, 0.6), rng.uniform(-0.1, 0.25)), 55, 0.2)
            for _ in range(2)
        )
    if family == "lighthouse":
        return (Lamp(hung((0.1, 0.5), 2.3), MIDDLE, shade(rng.uniform(0.9, 1.3), rng.uniform(-0.1, 0.1)), 30, 0.9),)
    if family == "cloister":
        return (Lamp(hung((0.3, 0.6), 2.4), MIDDLE, shade(rng.uniform(0.8, 1.1), 0.05), 50, 0.3, blinds(rng)),)
    if family == "tannery":
        # A low one, whose shadows are long.
        return (Lamp(hung((0.75, 0.95), 2.4), MIDDLE, shade(rng.uniform(0.9, 1.3), rng.uniform(0.1, 0.3)), 50, 0.6),)
    if family == "pavilion":
        return (Lamp(hung((0.2, 0.7), 2.6), MIDDLE, shade(rng.uniform(1.0, 1.4), 0.0)),)
    if family == "observatory":
        cold = rng.uniform(0.1, 0.25)
        return (Lamp(hung((0.1, 0.4), 1.7), MIDDLE, shade(rng.uniform(0.5, 0.8), -cold), 58, 0.8),
                Lamp(hung((0.5, 0.8), 2.3), MIDDLE, shade(rng.uniform(0.25, 0.4), cold), 50, 0.5))  # fmt: skip
    if family == "granary":
        warm = rng.uniform(0.1, 0.2)
        return (Lamp(hung((0.5, 0.8), 2.5), MIDDLE, shade(rng.uniform(0.9, 1.2), warm), 50, 0.4, dapples(rng)),)
    if family == "arcade":
        hue = rng.uniform(0.2, 0.35)
        return (Lamp(hung((0.2, 0.6), 2.0), MIDDLE, shade(rng.uniform(0.5, 0.8), hue), 50, 0.3),
                Lamp(hung((0.3, 0.7), 2.1), MIDDLE, shade(rng.uniform(0.4, 0.6), -hue), 50, 0.6))  # fmt: skip
    if family == "refectory":
        return (Lamp(hung((0.1, 0.35), 2.5), MIDDLE, shade(rng.uniform(0.9, 1.3), -rng.uniform(0.1, 0.2))),)
    if family == "boathouse":
        cold = -rng.uniform(0.05, 0.15)
        return (Lamp(hung((0.3, 0.7), 2.3), MIDDLE, shade(rng.uniform(0.9, 1.2), cold), 52, 0.3, ripples(rng)),)
    if family == "bakery":
        warm, first = rng.uniform(0.15, 0.35), hung((0.2, 0.5), 1.9)
        beside = (first[0] + rng.uniform(-0.3, 0.3), first[1] + rng.choice([-0.35, 0.35]), first[2])
        return (Lamp(first, MIDDLE, shade(rng.uniform(0.5, 0.7), warm), 52, 0.5),
                Lamp(beside, MIDDLE, shade(rng.uniform(0.4, 0.6), warm), 52, 0.5))  # fmt: skip
    if family == "greenhouse":
        return (Lamp(hung((0.2, 0.6), 2.5), MIDDLE, shade(rng.uniform(0.9, 1.3), 0.04), 50, 0.2, panes(rng)),)
    if family == "foyer":
        return (Lamp(hung((0.6, 0.9), 2.6), MIDDLE, shade(rng.uniform(0.6, 0.9), rng.uniform(-0.05, 0.15))),)
    if family == "aviary":
        warm = rng.uniform(0.1, 0.3)
        return (Lamp(hung((0.4, 0.8), 2.1), MIDDLE, shade(rng.uniform(0.8, 1.1), warm), 54, 0.4, panes(rng)),
                Lamp(hung((0.1, 0.5), 2.4), MIDDLE, shade(rng.uniform(0.2, 0.35), -warm), 50, 0.6))  # fmt: skip
    if family == "station":
        x, y, z = hung((0.1, 0.4), 2.2)
        cold = -rng.uniform(0.1, 0.2)
        power = rng.uniform(0.3, 0.45)
        return tuple(Lamp((x, y + 0.6 * k, z), MIDDLE, shade(power, cold), 50, 0.4) for k in (-1, 0, 1))
    if family == "kiosk":
        return (Lamp(hung((0.2, 0.6), 2.2), MIDDLE, shade(rng.uniform(0.8, 1.2), rng.uniform(0.0, 0.2)), 52, 0.5, blinds(rng)),
                Lamp(hung((0.3, 0.8), 2.5), MIDDLE, shade(rng.uniform(0.25, 0.45), 0.0), 50, 0.4))  # fmt: skip
    if family == "vault":
        return (Lamp(hung((0.0, 0.35), 1.8), MIDDLE, shade(rng.uniform(1.1, 1.5), rng.uniform(-0.1, 0.2)), 34, 0.7),)
    if family == "terrace":
        return (Lamp(hung((0.4, 0.8), 2.6), MIDDLE, shade(rng.uniform(0.7, 1.0), 0.06), 52, 0.3, dapples(rng)),)
    if family == "smithy":
        hue = rng.uniform(0.3, 0.5)
        return (Lamp(hung((0.6, 0.9), 2.0), MIDDLE, shade(rng.uniform(0.8, 1.1), hue), 54, 0.5),
                Lamp(hung((0.1, 0.5), 2.4), MIDDLE, shade(rng.uniform(0.2, 0.35), -hue / 2), 50, 0.6))  # fmt: skip
    if family == "conservatory":
        warm = rng.uniform(0.1, 0.25)
        return (Lamp(hung((0.3, 0.7), 2.4), MIDDLE, shade(rng.uniform(0.7, 1.0), warm), 52, 0.4, dapples(rng)),
                Lamp(hung((0.2, 0.6), 2.2), MIDDLE, shade(rng.uniform(0.3, 0.5), -warm), 50, 0.5))  # fmt: skip
    if family == "subway":
        x, y, z = hung((0.1, 0.4), 2.1)
        power, green = rng.uniform(0.35, 0.5), rng.uniform(1.02, 1.12)
        colour = (power, power * green, power * 0.97)
        return tuple(Lamp((x + 0.5 * k, y, z), MIDDLE, colour, 52, 0.4) for k in (-1, 1))
    if family == "museum":
        whites = rng.uniform(-0.15, 0.2, 3)
        return tuple(Lamp(hung((0.2, 0.7), 2.2), MIDDLE, shade(rng.uniform(0.3, 0.5), w), 36, 0.4) for w in whites)
    if family == "laundry":
        return (Lamp(hung((0.1, 0.5), 2.5), MIDDLE, shade(rng.uniform(0.7, 1.0), -rng.uniform(0.1, 0.2))),)
    if family == "brewery":
        return (Lamp(hung((0.2, 0.6), 1.9), MIDDLE, shade(rng.uniform(0.6, 0.9), rng.uniform(0.15, 0.35)), 42, 0.6),)
    if family == "theatre":
        hue = rng.uniform(0.25, 0.45)
        return (Lamp(hung((0.3, 0.7), 2.1), MIDDLE, shade(rng.uniform(0.6, 0.9), hue), 46, 0.4),
                Lamp(hung((0.3, 0.7), 2.2), MIDDLE, shade(rng.uniform(0.4, 0.6), -hue), 48, 0.5))  # fmt: skip
    if family == "skylight":
        return (Lamp(hung((0.1, 0.6), 2.5), MIDDLE, shade(rng.uniform(0.8, 1.1), 0.02), 52, 0.3, panes(rng)),)
    if family == "gymnasium":
        x, y, z = hung((0.0, 0.3), 2.4)
        power = rng.uniform(0.3, 0.42)
        return tuple(
            Lamp((x, y + 0.7 * k, z), MIDDLE, shade(power, rng.uniform(-0.05, 0.05)), 54, 0.5) for k in (-1, 0, 1)
        )
    if family == "pantry":
        warm = rng.uniform(0.1, 0.3)
        return (Lamp(hung((0.1, 0.5), 1.9), MIDDLE, shade(rng.uniform(1.0, 1.3), warm), 38, 0.5),)
    if family == "hangar":
        return (Lamp(hung((0.7, 0.95), 2.5), MIDDLE, shade(rng.uniform(0.9, 1.2), -rng.uniform(0.1, 0.25)), 52, 0.5),)
    if family == "cafe":
        warm = rng.uniform(0.15, 0.3)
        return (Lamp(hung((0.2, 0.6), 2.2), MIDDLE, shade(rng.uniform(0.6, 0.9), warm), 52, 0.4, dapples(rng)),
                Lamp(hung((0.2, 0.7), 2.0), MIDDLE, shade(rng.uniform(0.4, 0.6), warm), 48, 0.5))  # fmt: skip
    if family == "cinema":
        hue = rng.uniform(0.25, 0.4)
        return (Lamp(hung((0.2, 0.7), 2.0), MIDDLE, shade(rng.uniform(0.6, 0.8), hue), 44, 0.5),
                Lamp(hung((0.3, 0.7), 2.2), MIDDLE, shade(rng.uniform(0.3, 0.5), -hue / 2), 50, 0.5))  # fmt: skip
    if family == "depot":
        return (Lamp(hung((0.0, 0.3), 2.0), MIDDLE, shade(rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)), 52, 0.15),)
    return (Lamp(hung((0.1, 0.5), 2.2), MIDDLE, shade(rng.uniform(0.8, 1.1), 0.08), 50, 0.3, dapples(rng)),)
