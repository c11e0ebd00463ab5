# SPDX-License-Identifier: Apache-2.0
"""Render products: made for a recording, or given by a Replicator script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retake.core.episode import CHANNELS, CameraSpec
from retake.core.episode.records import Channel
from retake.core.errors import StageError
from retake.isaac.kit import require
from retake.isaac.stage_reader import CameraChoice


class Products:
    """The render products of a recording, and which camera each one is. `close()` destroys what `create` made."""

    def __init__(self) -> None:
        self._made: list[Any] = []
        self.paths: list[str] = []
        self.camera_of: dict[str, str] = {}
        """Last element of a product's path (its key in the payload) -> camera name in the episode."""

    def create(self, cameras: Sequence[CameraSpec]) -> None:
        """One product per camera, with a name of its own."""
        replicator = require("omni.replicator.core")
        for camera in cameras:
            product = replicator.create.render_product(
                str(camera.prim_path), camera.size, force_new=True, name=f"Retake_{camera.name}"
            )
            self._made.append(product)
            self._add(str(product.path), camera.name)

    def adopt(self, products: Sequence[Any], cameras: Sequence[CameraSpec]) -> None:
        """Products that somebody else made, in the order of their cameras."""
        for product, camera in zip(products, cameras, strict=True):
            self._add(product_path(product), camera.name)

    def close(self) -> None:
        """Destroy the products made here: a forgotten product keeps rendering and keeps its VRAM."""
        made, self._made, self.paths, self.camera_of = self._made, [], [], {}
        failed: Exception | None = None
        for product in made:
            try:
                product.destroy()
            except Exception as error:  # the others are destroyed all the same
                failed = failed or error
        if failed is not None:
            raise failed

    def _add(self, path: str, camera: str) -> None:
        key = path.rsplit("/", 1)[-1]
        if key in self.camera_of:
            raise StageError(f"two render products are called {key!r}; Replicator cannot tell them apart: rename one")
        self.paths.append(path)
        self.camera_of[key] = camera


def product_path(product: Any) -> str:
    """Prim path of a render product given as a path or as Replicator's object."""
    return str(product.path if hasattr(product, "path") else product)


def camera_choices(
    stage: Any, products: Sequence[Any], channels: Sequence[Channel] = CHANNELS
) -> tuple[CameraChoice, ...]:
    """Camera and resolution behind each render product. Raises StageError naming a product that has none."""
    out: list[CameraChoice] = []
    for product in products:
        path = product_path(product)
        prim = stage.GetPrimAtPath(path)
        targets = prim.GetRelationship("camera").GetTargets() if prim else []
        resolution = prim.GetAttribute("resolution").Get() if prim else None
        if not targets or resolution is None:
            raise StageError(f"{path} is no render product with a camera and a resolution")
        names = {choice.name for choice in out}
        name = str(targets[0].name)
        if name in names:
            name = next(f"{name}_{n}" for n in range(2, 1000) if f"{name}_{n}" not in names)
        size = (int(resolution[0]), int(resolution[1]))
        out.append(CameraChoice(str(targets[0]), size, name, tuple(channels)))
    return tuple(out)
