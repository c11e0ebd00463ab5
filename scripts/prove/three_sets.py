# SPDX-License-Identifier: Apache-2.0
"""Sets of the fourth painter: rooms, things and lamps of its own, and textures drawn as vector patterns (parquet, chips,
gingham, bricks …) by none of the means of `film_sets` and `vtk_sets`, so that nothing limits came from shows again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import trimesh
from film import Film, Item, box, item
from three_lights import lamps
from three_surfaces import KINDS, stuff, texture, tone

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
NEXT = ("museum", "laundry", "brewery", "theatre", "skylight")
"""Families of `blind_three_next`: three narrow whites, one cold even light, a dim room under a warm lamp, an amber and a blue
lamp, panes under a bright sky."""
SINCE = ("gymnasium", "pantry", "hangar", "cafe", "cinema")
"""Families of `blind_three_since`: a row of whites high above, one narrow warm lamp, a low cold light, two warm lamps through
leaves, a dim red lamp beside a bluish one."""
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
    "museum": ("slate", "parquet", "speckle"), "laundry": ("tiles", "dots", "chips"), "brewery": ("boards", "bricks"),
    "gymnasium": ("boards", "parquet"), "pantry": ("gingham", "tiles", "cork"), "hangar": ("speckle", "slate", "chips"),
    "cafe": ("boards", "dots", "tiles"), "cinema": ("waves", "cork", "parquet"),
    "theatre": ("boards", "waves", "cork"), "skylight": ("gingham", "chips", "parquet"),
}  # fmt: skip
"""Family -> textures of tables; floors and walls take any."""
TONES = {"harbour": "aces", "chapel": "neutral", "bazaar": "agx", "lighthouse": "reinhard", "orchard": "plain",
         "cloister": "agx", "tannery": "aces", "pavilion": "plain", "observatory": "neutral", "depot": "reinhard",
         "granary": "plain", "arcade": "aces", "refectory": "agx",
         "boathouse": "neutral", "bakery": "aces", "greenhouse": "plain", "foyer": "agx",
         "aviary": "reinhard", "station": "neutral",
         "kiosk": "plain", "vault": "agx", "terrace": "neutral", "smithy": "aces",
         "conservatory": "reinhard", "subway": "plain",
         "museum": "neutral", "laundry": "plain", "brewery": "agx", "theatre": "aces", "skylight": "reinhard",
         "gymnasium": "plain", "pantry": "neutral", "hangar": "aces", "cafe": "agx", "cinema": "reinhard"}  # fmt: skip


def dress(film: Film, family: str, seed: int) -> Film:
    """The film in a room: the same geometry of robot and objects in other materials, light, walls and things."""
    rng = np.random.default_rng(
        [seed, 5000 + (*FAMILIES, *LATER, *FURTHER, *LATEST, *LAST, *CLOSING, *FINAL, *NEXT, *SINCE).index(family)]
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
    bright = {
        "foyer": 1.3,
        "terrace": 1.4,
        "vault": 0.6,
        "brewery": 0.5,
        "skylight": 1.4,
        "hangar": 1.2,
        "cinema": 0.6,
    }.get(family, 1)
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
