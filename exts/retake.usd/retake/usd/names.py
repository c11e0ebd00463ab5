# SPDX-License-Identifier: Apache-2.0
"""Names for display. What a thing *is* is its prim path; names only have to differ and to be recognised by a person."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from pxr import Usd

GENERIC = re.compile(
    r"(base|root|main)?[_-]?(link|body|base|root|frame|prim|rigid_?body|articulation|xform)|"
    r"(mesh|geom|geometry|shape|collider|visuals?|collisions?)(_?\d+)?|worldbody|world_?link|(root|fix|fixed)_?joint",
    re.IGNORECASE,
)
"""Names that say what kind of prim it is and not whose."""
WORLD = re.compile(r"world|root|scene|stage|environment|envs", re.IGNORECASE)
"""Names of what holds a whole scene."""
CONTAINER = re.compile(r"joints?|links|bodies|physics|geometry|geometries|articulation", re.IGNORECASE)
"""Names of what holds the parts of a model."""


def shown(prim: Usd.Prim) -> str:
    """A prim's name as its author wrote it: the display name where one is authored, else the prim's own."""
    return prim.GetDisplayName() or prim.GetName()


def model_prim(prim: Usd.Prim) -> Usd.Prim:
    """The prim whose name stands for a body: the nearest one above with a name of its own, bodies' containers skipped."""
    stage, start = prim.GetStage(), prim
    default = stage.GetDefaultPrim()
    while GENERIC.fullmatch(shown(prim)) or prim.GetTypeName() == "Scope" or prim.IsA("PhysicsJoint"):
        parent = prim.GetParent()
        if not parent or parent.IsPseudoRoot() or (parent == default and _holds_a_scene(parent, start)):
            return start if prim.GetTypeName() == "Scope" else prim
        prim = parent
    return prim


def distinct(prims: Sequence[Usd.Prim], *, plain: bool = False) -> tuple[str, ...]:
    """One name per prim, all different: its own, with as many names from above as it takes to tell equal ones apart.

    `plain` names hold only letters, digits, '_', '-' and '.', as names of files and fields must.
    """
    chains = [_names_above(prim) for prim in prims]
    depth = [1] * len(chains)
    while True:
        names = ["_".join(reversed(chain[:d])) for chain, d in zip(chains, depth, strict=True)]
        names = [_plain(name) for name in names] if plain else names
        clashing = [i for i, name in enumerate(names) if names.count(name) > 1 and depth[i] < len(chains[i])]
        if not clashing:
            break
        # Of equal names those with most above them grow first, so that one without parents keeps its own.
        for i in clashing:
            depth[i] += 1
    used: set[str] = set()
    out = []
    for name in names:
        candidate, number = name, 2
        while candidate in used:
            candidate, number = f"{name[:60] if plain else name}_{number}", number + 1
        used.add(candidate)
        out.append(candidate)
    return tuple(out)


def _names_above(prim: Usd.Prim) -> list[str]:
    """Names from a prim upwards that tell something: containers between are left out."""
    names = [shown(prim)]
    above = prim.GetParent()
    while above and not above.IsPseudoRoot():
        if above.GetTypeName() != "Scope" and not GENERIC.fullmatch(shown(above)) and not WORLD.fullmatch(shown(above)):
            names.append(shown(above))
        above = above.GetParent()
    return names


def _holds_a_scene(default: Usd.Prim, prim: Usd.Prim) -> bool:
    """Whether a default prim is a world with other things in it than the model that this prim belongs to."""
    if WORLD.fullmatch(default.GetName()):
        return True
    top = prim
    while top.GetParent() != default:
        top = top.GetParent()
    return any(child != top and child.IsA("Xform") for child in default.GetChildren())


def _plain(name: str) -> str:
    """Letters lose their accents; what is in no Latin script becomes '_'."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain).strip("_.-")[:64] or "unnamed"
