# SPDX-License-Identifier: Apache-2.0
"""The CPU backend: the simulated frame re-dressed by the Dresser. Needs no model, no network, no GPU."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.painter.dresser import Dresser
from retake.core.painter.restage import bodies_of, restaged
from retake.core.progress import CheckCancel, never
from retake.core.variants.base import PAINTER, SourceFrame, World
from retake.core.variants.roles import find_roles
from retake.core.variants.worlds import Catalogue, recipe_of


class ProceduralBackend:
    """Procedural surfaces, sets, light and object looks (docs/variants.md). Deterministic by seed."""

    name = PAINTER
    version = "4"
    licence = "Apache-2.0"
    model = ""
    revision = ""
    reads_prompts = False
    """It paints from recipes: a world in words means nothing to it."""
    parallel = True
    """One core per frame: worlds may share a machine's cores."""

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self.catalogue = catalogue

    def dresser(self, reference: SourceFrame, world: World, seed: int, recipe: dict[str, Any] | None = None) -> Dresser:
        """The renderer of one world, for further frames of the same camera (the composite take uses it).

        `recipe` is the one stored in variant.json; None looks it up by the world's names.
        """
        # Two worlds that share a material should not share its grain, so the name is part of the seed.
        own_seed = zlib.crc32(world.name.encode()) + (seed << 32)
        return Dresser(reference, recipe or recipe_of(world, self.catalogue), own_seed)

    def shown(self, source: SourceFrame, world: World) -> SourceFrame:
        """The frame with the shapes that the world gives its objects: what a frame of it is measured against."""
        roles, recipe = find_roles(source), recipe_of(world, self.catalogue)
        return restaged(source, roles, bodies_of(source.header, roles.task_object, recipe))

    def render(
        self, source: SourceFrame, world: World, seed: int, check_cancel: CheckCancel = never
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The re-dressed frame. Raises VariantError for unknown axis values; Cancelled when asked to stop."""
        check_cancel()
        return self.dresser(source, world, seed).render(source)
