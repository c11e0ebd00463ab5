# SPDX-License-Identifier: Apache-2.0
"""Sets of the fourth painter: rooms, things and lamps of its own, and textures drawn as vector patterns (parquet, chips,
gingham, bricks …) by none of the means of `film_sets` and `vtk_sets`, so that nothing limits came from shows again.
"""

from __future__ import annotations

import colorsys
from dataclasses import replace

import cv2
import numpy as np
import trimesh
from film import Film, Item, Lamp, box, item

FAMILIES = ("harbour", "chapel", "bazaar", "lighthouse", "orchard")
LATER = ("cloister", "tannery", "pavilion", "observatory", "depot")
"""Families of the split `blind_three`: other lights (blinds, a low lamp, a cold and a warm one), other pairs of surfaces."""
FURTHER = ("granary", "arcade", "refectory")
"""Families of `blind_three_more`, `_travelling` and `_large`: leaves before a low lamp, two coloured cones, a cold light."""
LATEST = ("boathouse", "bakery", "greenhouse", "foyer")
"""Families of `blind_three_fixed`: light off water, two warm lamps side by side, panes' bars, a flat bright sky."""
LAST = ("aviary", "station")
"""Families of `blind_three_after`: a grid of wires before a warm lamp, a row of cold ones."""
CLOSING = ("kiosk", "vault", "terrace", "smithy")
"""Families of `blind_three_closing` and `blind_three_hands`: a striped awning, one narrow lamp in a dim room, leaves under a
bright sky, a low orange light beside a faint blue one."""
FINAL = ("conservatory", "subway")
"""Families of `blind_three_final`: leaves before a warm lamp beside a cold one, a row of greenish lamps."""
TABLES = {
    "harbour": ("boards", "speckle"), "chapel": ("chips", "parquet"), "bazaar": ("gingham", "dots", "boards"),
    "lighthouse": ("speckle", "slate"), "orchard": ("parquet", "slate", "cork"),
    "cloister": ("slate", "chips"), "tannery": ("cork", "boards"), "pavilion": ("dots", "gingham", "parquet"),
    "observatory": ("speckle", "cork"), "depot": ("chips", "boards", "parquet"),
    "granary": ("gingham", "cork"), "arcade": ("chips", "slate", "dots"), "refectory": ("speckle", "parquet"),
    "boathouse": ("boards", "slate"), "bakery": ("speckle", "gingham"), "greenhouse": ("parquet", "cork", "chips"),
    "foyer": ("dots", "slate", "parquet"), "aviary": ("cork", "speckle", "gingham"), "station": ("slate", "boards", "chips"),
    "kiosk": ("waves", "cork"), "vault": ("tiles", "chips"), "terrace": ("tiles", "boards", "speckle"),
    "smithy": ("waves", "slate", "parquet"),
    "conservatory": ("tiles", "parquet", "cork"), "subway": ("waves", "speckle", "slate"),
}  # fmt: skip
"""Family -> textures of tables; floors and walls take any."""
TONES = {"harbour": "aces", "chapel": "neutral", "bazaar": "agx", "lighthouse": "reinhard", "orchard": "plain",
         "cloister": "agx", "tannery": "aces", "pavilion": "plain", "observatory": "neutral", "depot": "reinhard",
         "granary": "plain", "arcade": "aces", "refectory": "agx",
         "boathouse": "neutral", "bakery": "aces", "greenhouse": "plain", "foyer": "agx",
         "aviary": "reinhard", "station": "neutral",
         "kiosk": "plain", "vault": "agx", "terrace": "neutral", "smithy": "aces",
         "conservatory": "reinhard", "subway": "plain"}  # fmt: skip
KINDS = ("boards", "speckle", "chips", "parquet", "gingham", "dots", "slate", "cork", "bricks")
MIDDLE = (0.45, 0.0, 0.0)
"""Middle of the table, where lamps look."""
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
    if family == "depot":
        return (Lamp(hung((0.0, 0.3), 2.0), MIDDLE, shade(rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)), 52, 0.15),)
    return (Lamp(hung((0.1, 0.5), 2.2), MIDDLE, shade(rng.uniform(0.8, 1.1), 0.08), 50, 0.3, dapples(rng)),)


def dress(film: Film, family: str, seed: int) -> Film:
    """The film in a room: the same geometry of robot and objects in other materials, light, walls and things."""
    rng = np.random.default_rng(
        [seed, 5000 + (*FAMILIES, *LATER, *FURTHER, *LATEST, *LAST, *CLOSING, *FINAL).index(family)]
    )
    hue = rng.random()
    top = stuff(rng, str(rng.choice(TABLES[family])), hue)
    floor, wall = (stuff(rng, str(rng.choice(KINDS)), rng.random()) for _ in range(2))
    # The packet keeps its distance in hue from the table: where it has none, no judge can see it.
    main = hue + rng.uniform(0.25, 0.75)
    packet = tone(rng, main, (0.6, 1.0), (0.4, 0.9))
    label = texture(str(rng.choice(["dots", "gingham", "bricks", "chips"])), rng, packet,
                    tone(rng, main + rng.uniform(-0.1, 0.1), (0.2, 0.9), (0.1, 0.95)))  # fmt: skip
    other = tone(rng, main + rng.uniform(0.3, 0.7), (0.6, 1.0), (0.4, 0.9))
    tray = {"colour": tuple(tone(rng, rng.random(), (0, 0.9), (0.1, 0.85))), "gloss": float(rng.uniform(0.1, 0.8))}
    plan, first, second = rng.integers(0, 4), *(tone(rng, rng.random(), (0.1, 0.9), (0.25, 0.9)) for _ in range(2))
    shine = {"gloss": float(rng.uniform(0.3, 0.85)), "metallic": 0.85 if plan == 3 else 0.0}
    links = {owner for owners in film.robots.values() for owner in owners}
    table_m = float(rng.uniform(0.45, 1.1))
    items, bystanders = [], {}
    for one in film.items:
        low = one.owner.lower()
        if one.owner in links or one.owner == "prop:finger":
            colour = np.array(one.colour)
            if plan == 1:
                # Dark parts in one colour, bright ones in another.
                colour = 0.9 * (first if colour.mean() > 0.4 else second)
            elif plan == 2:
                colour = first * (0.35 + 0.75 * colour.mean())
            one = replace(one, colour=tuple(np.clip(colour, 0.03, 0.88)), **shine)
        elif one.owner in (film.task_object, "prop:second", "prop:shape"):
            one = replace(one, texture=label, repeat_m=0.2, gloss=0.35)
        elif one.owner == "prop:colour":
            one = replace(one, colour=tuple(other), gloss=0.35)
        elif one.owner == film.target:
            one = replace(one, **tray)
        elif "table" in low:
            one = replace(one, texture=top, repeat_m=table_m)
        elif "floor" in low:
            one = replace(one, texture=floor, repeat_m=1.3)
        else:
            made = bystanders.setdefault(one.owner, tone(rng, rng.random(), (0.1, 0.9), (0.15, 0.85)))
            one = replace(one, colour=tuple(made), gloss=float(rng.uniform(0.0, 0.5)))
        items.append(one)
    items += room(rng, wall) + things(rng)
    bright = {"foyer": 1.3, "terrace": 1.4, "vault": 0.6}.get(family, 1)
    light, cool = rng.uniform(0.22, 0.4) * bright, rng.uniform(-0.12, 0.12)
    return replace(
        film, items=tuple(items), lamps=lamps(rng, family), tone=TONES[family],
        sky=tuple(map(float, light * np.array([1 - cool, 1, 1 + cool]))),
    )  # fmt: skip


def room(rng: np.random.Generator, surface: np.ndarray) -> list[Item]:
    """Three walls with pictures and columns."""
    out = []
    for k, (at, size) in enumerate((((-2.1, 0, 0.65), (0.1, 6.2, 2.9)), ((0.4, 2.45, 0.65), (6.2, 0.1, 2.9)),
                                    ((0.4, -2.7, 0.65), (6.2, 0.1, 2.9)))):  # fmt: skip
        vertices, faces = box(size)
        out.append(replace(item("set", f"wall{k}", vertices + at, faces, (0.6,) * 3), texture=surface, repeat_m=1.6))
        for n in range(int(rng.integers(1, 4))):
            wide, tall = rng.uniform(0.25, 0.7, 2)
            frame = (0.14, wide, tall) if size[0] < size[1] else (wide, 0.14, tall)
            along = rng.uniform(-1.5, 1.5)
            place = np.array(at) + ([0, along, 0.1] if size[0] < size[1] else [along, 0, 0.1])
            vertices, faces = box(frame)
            one = item("set", f"frame{k}{n}", vertices + place, faces, (0.5,) * 3)
            print_ = stuff(rng, str(rng.choice(KINDS)), rng.random(), (0.1, 0.9))
            out.append(replace(one, texture=print_, repeat_m=float(rng.uniform(0.3, 0.8))))
    for k in range(int(rng.integers(0, 4))):
        pillar = trimesh.creation.cylinder(radius=float(rng.uniform(0.05, 0.13)), height=2.8, sections=18)
        place = [-1.8, rng.uniform(-2.0, 2.0), 0.65]
        colour = tuple(tone(rng, rng.random(), (0, 0.5), (0.2, 0.8)))
        out.append(item("set", f"pillar{k}", np.asarray(pillar.vertices) + place, pillar.faces, colour))
    return out


def things(rng: np.random.Generator) -> list[Item]:
    """Shelves of crates and jars along the walls and coins at the table's edges; none hides the task."""
    out = []
    for k in range(int(rng.integers(3, 6))):
        place = np.array([rng.uniform(-1.7, -1.1), rng.uniform(-2.1, 2.1), -0.75])
        if rng.random() < 0.5:
            place[:2] = rng.uniform(-1.2, 0.8), rng.choice([-2.2, 2.0])
        for n in range(int(rng.integers(1, 4))):
            size = rng.uniform(0.18, 0.42, 3)
            jar = rng.random() < 0.4
            shape = (
                trimesh.creation.cylinder(radius=size[0] / 2, height=size[2], sections=28) if jar
                else trimesh.creation.box(extents=size)
            )  # fmt: skip
            vertices = np.asarray(shape.vertices)
            if not jar:
                vertices, faces = box(tuple(size))
            else:
                faces = shape.faces
            place[2] += size[2] / 2
            one = item(
                "set", f"crate{k}{n}", vertices + place, faces, tuple(tone(rng, rng.random(), (0.1, 0.9), (0.1, 0.85)))
            )
            place[2] += size[2] / 2
            if rng.random() < 0.5:
                one = replace(one, texture=stuff(rng, str(rng.choice(KINDS)), rng.random()), repeat_m=0.6)
            out.append(replace(one, gloss=float(rng.uniform(0, 0.9))))
    for k in range(int(rng.integers(0, 5))):
        coin = trimesh.creation.cylinder(radius=float(rng.uniform(0.012, 0.03)), height=0.004, sections=6)
        place = [rng.uniform(0.15, 0.85), rng.choice([-1, 1]) * rng.uniform(0.54, 0.57), 0.003]
        colour = tuple(tone(rng, rng.random(), (0.1, 0.9), (0.1, 0.9)))
        out.append(item("set", f"coin{k}", np.asarray(coin.vertices) + place, coin.faces, colour))
    return out
