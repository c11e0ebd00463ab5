# SPDX-License-Identifier: Apache-2.0
"""Looks: what the policy sees differently while the physics stays as it is. Data of config/closed_loop.yaml and of users' files.

A look changes the simulator's own rendering (light, colours, textures, distractors, camera), or is a Retake world drawn by the
painter (`world:<preset>`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.config import config_path, load_yaml
from retake.core.errors import InputError, unknown_name

UNCHANGED = "unchanged"
WORLD = "world:"
PARTS = ("background", "surface", "container", "fixture", "robot", "object")
"""What can be painted: roles of things in the scene, as the variants know them."""
TEXTURES = ("checker", "stripes", "planks", "noise")


@dataclass(frozen=True)
class Pattern:
    """A texture, laid over a thing in metres."""

    kind: str
    colours: tuple[str, ...]
    """Two or more #rrggbb (sRGB)."""
    tile_m: float = 0.1
    """Width of one tile, stripe, plank or blot."""
    seed: int = 0


@dataclass(frozen=True)
class Look:
    """One way to see the scene. The defaults change nothing."""

    name: str
    axis: str = ""
    """What kind of change it is: the report adds up looks of one axis."""
    sun: tuple[float, ...] = ()
    """Linear RGB; empty = the preset's."""
    sky: tuple[float, ...] = ()
    ground: tuple[float, ...] = ()
    sun_direction: tuple[float, ...] = ()
    """Where the sun shines, world; empty = the stage's own."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Part → #rrggbb."""
    textures: Mapping[str, Pattern] = field(default_factory=dict)
    """Part → pattern."""
    backdrop: Pattern | None = None
    """Walls around the scene, where the stage shows nothing."""
    distractors: int = 0
    """Things on the work surface that nobody can touch."""
    camera_offset_m: tuple[float, ...] = ()
    """Fixed cameras, along their own axes (OpenCV: right, down, forward)."""
    camera_turn_deg: tuple[float, ...] = ()
    """Fixed cameras, about their own axes."""
    world: str = ""
    """A Retake world, drawn by the painter."""

    @property
    def drawn_by(self) -> str:
        """`painter`, or `simulator`."""
        return "painter" if self.world else "simulator"


def world_look(name: str) -> Look:
    """A Retake world as a look."""
    return Look(WORLD + name, "world", world=name)


def load_looks(files: Iterable[Path | str] = ()) -> dict[str, Look]:
    """Name → look: those of config/closed_loop.yaml, then the user's files, which may replace them.

    Raises InputError naming the file, the look and what is wrong.
    """
    found: dict[str, Look] = {UNCHANGED: Look(UNCHANGED, UNCHANGED)}
    for file in (config_path("closed_loop.yaml"), *map(Path, files)):
        data = load_yaml(file)
        looks = data.get("looks") if isinstance(data, Mapping) else None
        if not isinstance(looks, Mapping):
            raise InputError(f"{file}: expected a mapping `looks` of name: changes")
        for name, changes in looks.items():
            if str(name) == UNCHANGED or str(name).startswith(WORLD):
                raise InputError(f"{file}: the name {name!r} is taken; choose another")
            # YAML reads an unquoted no, off or yes as a truth value.
            if isinstance(name, bool) or not re.fullmatch(r"\w+", str(name), re.ASCII):
                raise InputError(
                    f"{file}: a look is named with letters, digits and underscores (no, off and yes in quotes); found {name!r}"
                )
            found[str(name)] = _look(str(name), changes, f"{file}: look {name!r}", found)
    return found


def choose_looks(names: Sequence[str], known: Mapping[str, Look], worlds: Sequence[str] = ()) -> tuple[Look, ...]:
    """The named looks in order, the unchanged one first, then the worlds. No names: every look known.

    Raises InputError (unknown look, unknown world) listing the valid names.
    """
    chosen = [known[UNCHANGED]]
    for name in names or tuple(known):
        if name.startswith(WORLD):
            chosen.append(_checked_world(name.removeprefix(WORLD)))
        elif name not in known:
            raise InputError(unknown_name("look", name, known))
        else:
            chosen.append(known[name])
    chosen += [_checked_world(name) for name in worlds]
    return tuple({look.name: look for look in chosen}.values())


def _checked_world(name: str) -> Look:
    from retake.core.variants.worlds import load_catalogue

    load_catalogue().preset(name)
    return world_look(name)


def _look(name: str, changes: Any, where: str, known: Mapping[str, Look]) -> Look:
    if not isinstance(changes, Mapping):
        raise InputError(f"{where}: expected a mapping of changes; found {changes!r}")
    fields = set(Look.__dataclass_fields__) - {"name"} | {"combine"}
    if unknown := sorted(set(map(str, changes)) - fields):
        raise InputError(f"{where}: {unknown_name('change', unknown[0], fields)}")
    look = Look(name, str(changes.get("axis") or name))
    for other in _names(changes.get("combine", []), where):
        if other not in known:
            raise InputError(f"{where}: {unknown_name('look to combine', other, known)}")
        look = combined(look, known[other])
    own: dict[str, Any] = {}
    for key in ("sun", "sky", "ground", "sun_direction", "camera_offset_m", "camera_turn_deg"):
        if key in changes:
            own[key] = _triple(changes[key], f"{where}: {key}")
    for key in ("sun", "sky", "ground"):
        if key in own and min(own[key]) < 0:
            raise InputError(f"{where}: {key} is {list(own[key])}; light is not negative")
    if "sun_direction" in own and np.linalg.norm(own["sun_direction"]) < 1e-6:
        raise InputError(f"{where}: sun_direction is zero; expected a direction in the world, e.g. [-0.4, 0.5, -0.8]")
    for key, read in (("colours", _colour), ("textures", _pattern)):
        if key in changes:
            value = changes[key]
            if not isinstance(value, Mapping):
                raise InputError(f"{where}: {key} must map parts ({', '.join(PARTS)}) to values; found {value!r}")
            for part in value:
                if part not in PARTS:
                    raise InputError(f"{where}: {unknown_name('part', str(part), PARTS)}")
            if twice := sorted(set(value) & set(own.get("colours", ()))):
                raise InputError(f"{where}: {twice[0]} has a colour and a texture; choose one")
            own[key] = {str(part): read(item, f"{where}: {key}.{part}") for part, item in value.items()}
    if "backdrop" in changes:
        own["backdrop"] = _pattern(changes["backdrop"], f"{where}: backdrop")
    if "distractors" in changes:
        count = changes["distractors"]
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= 50:
            raise InputError(f"{where}: distractors is {count!r}; expected a whole number from 0 to 50")
        own["distractors"] = count
    if "world" in changes:
        own["world"] = _checked_world(str(changes["world"])).world
    look = combined(look, replace(Look(name), **own))
    # A stated 0 takes away what a combined look brings; to `combined` it is nothing said.
    return replace(look, distractors=own["distractors"]) if "distractors" in own else look


def combined(first: Look, second: Look) -> Look:
    """Both changes at once; where both change the same thing, the second's. The name and axis are the first's."""
    values: dict[str, Any] = {}
    for key in Look.__dataclass_fields__:
        if key in ("name", "axis"):
            continue
        a, b = getattr(first, key), getattr(second, key)
        values[key] = {**a, **b} if isinstance(a, Mapping) else b or a
    for part in second.colours:
        values["textures"].pop(part, None)
    for part in second.textures:
        values["colours"].pop(part, None)
    return replace(first, **values)


def _names(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: combine must be a list of names of looks; found {value!r}")
    return value


def _triple(value: Any, where: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list | tuple) else []
    good = len(numbers) == 3 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
    if not good or not np.isfinite(numbers).all():
        raise InputError(f"{where} is {value!r}; expected three numbers")
    return tuple(float(x) for x in numbers)


def _colour(value: Any, where: str) -> str:
    text = str(value)
    if len(text) != 7 or text[0] != "#" or any(c not in "0123456789abcdefABCDEF" for c in text[1:]):
        raise InputError(f"{where} is {value!r}; expected a colour '#rrggbb'")
    return text.lower()


def _pattern(value: Any, where: str) -> Pattern:
    if not isinstance(value, Mapping) or not {"kind", "colours"} <= set(value):
        raise InputError(f"{where} needs kind ({', '.join(TEXTURES)}) and colours; found {value!r}")
    if unknown := sorted(set(map(str, value)) - set(Pattern.__dataclass_fields__)):
        raise InputError(f"{where}: {unknown_name('setting', unknown[0], Pattern.__dataclass_fields__)}")
    if value["kind"] not in TEXTURES:
        raise InputError(f"{where}: {unknown_name('pattern', str(value['kind']), TEXTURES)}")
    colours = value["colours"]
    if not isinstance(colours, list) or len(colours) < 2:
        raise InputError(f"{where}: colours is {colours!r}; expected a list of two or more '#rrggbb'")
    tile, seed = value.get("tile_m", 0.1), value.get("seed", 0)
    if not isinstance(tile, int | float) or isinstance(tile, bool) or not 0.005 <= tile <= 1.0:
        raise InputError(f"{where}: tile_m is {tile!r}; expected 0.005 to 1 (m)")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"{where}: seed is {seed!r}; expected a whole number")
    return Pattern(str(value["kind"]), tuple(_colour(c, f"{where}: colours") for c in colours), float(tile), seed)
