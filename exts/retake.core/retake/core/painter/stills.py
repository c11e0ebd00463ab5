# SPDX-License-Identifier: Apache-2.0
"""Painted stills of one world: what every camera's first frame shows of it, looked up by points of the simulated world.

Where a model paints, a world is known only by its first frames. A camera that moves, or from which something goes away,
comes to see what its own first frame does not show; another camera's may show it, and two cameras then agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8, UInt16
from retake.core.episode import Episode
from retake.core.errors import VariantError
from retake.core.files import read_json
from retake.core.painter.planes import blocks, turned
from retake.core.painter.textures import lookup
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD
from retake.core.variants.base import MAPS, SourceFrame, Variant, source_frame
from retake.core.variants.carry import exposure_over
from retake.core.variants.correspond import GRAZING, View, view_of
from retake.core.variants.make import open_variant, read_frame

FAR_PX = 1e5
STREAKS = (2.5, 5.0)
"""How often wider than a still shows it a surface may be drawn: from the first on it fades, at the second it is gone."""
DEPTH_TOLERANCE = 0.01
"""Relative depth error within which two pixels show the same point."""


@dataclass(frozen=True, eq=False)
class Still:
    """A painted frame and the simulated one that it was made from."""

    source: SourceFrame
    painted: UInt8[np.ndarray, "H W 3"]
    gain: float = 1.0
    """Brightness of the camera that looks it up over this one's."""
    whole: bool = False
    """Whether pixels at borders and on slanted surfaces count as well: in the camera's own frame they do."""
    blends: Bool[np.ndarray, "H W"] | None = None
    """Pixels that show something else as well, and do not count."""

    @cached_property
    def view(self) -> View:
        """How its camera sees the scene."""
        return view_of(self.source)

    @cached_property
    def solid(self) -> Bool[np.ndarray, "H W"]:
        """Pixels that show one surface, not too slanted."""
        return self.view.inner & (self.view.facing > GRAZING)

    def look(
        self,
        world: Float32[np.ndarray, "3 N"],
        ids: UInt16[np.ndarray, "N"],
        facing: Float32[np.ndarray, "N"] | None = None,
    ) -> tuple[UInt8[np.ndarray, "N 3"], Float32[np.ndarray, "N"]]:
        """Colours of world points (m) of instances, and how far the still shows each, 0..1. facing: cosine between each
        surface and the view that asks; what the still shows much more slanted would be drawn as streaks."""
        x, y, z = self._seen_at(world)
        width, height = self.source.camera.size
        column, row = np.rint(x).astype(np.int32), np.rint(y).astype(np.int32)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        at = np.where(inside, row * width + column, 0)
        seen = inside & (self.source.instance_ids.reshape(-1).take(at) == ids)
        apart = np.abs(self.source.depth_m.reshape(-1).take(at) - z)
        # On a slanted surface the depth between pixels' centres is what tells.
        np.minimum(apart, np.abs(lookup(self.source.depth_m, x, y, cv2.BORDER_REPLICATE) - z), out=apart)
        seen &= apart < DEPTH_TOLERANCE * np.maximum(z, 0.05)
        if not self.whole:
            seen &= self.solid.reshape(-1).take(at)
        if self.blends is not None:
            seen &= ~self.blends.reshape(-1).take(at)
        share = seen.astype(np.float32)
        if facing is not None:
            streak = facing / np.maximum(self.view.facing.reshape(-1).take(at), np.float32(1e-3))
            share *= np.clip((STREAKS[1] - streak) / (STREAKS[1] - STREAKS[0]), 0, 1)
        colours = lookup(self.painted, x, y, cv2.BORDER_REPLICATE)
        if self.gain != 1.0:
            colours = np.clip(colours * np.float32(self.gain) + 0.5, 0, 255).astype(np.uint8)
        return colours, share

    def _seen_at(self, world: Float32[np.ndarray, "3 N"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image-index coordinates and forward depth (m) of world points; far outside where they cannot be seen."""
        camera = self.source.camera
        with np.errstate(divide="ignore", invalid="ignore"):
            if camera.lens is not None:
                uv, depth = camera.project(world.T.astype(np.float64))
                x, y, z = uv[:, 0] - 0.5, uv[:, 1] - 0.5, depth.astype(np.float32)
            else:
                T, K = camera.T_camera_world.astype(np.float32), camera.K.astype(np.float32)
                own = turned(T[:3, :3], world)
                own += T[:3, 3, None]
                z = own[2]
                x = own[0] / z * K[0, 0] + (K[0, 1] * own[1] / z + K[0, 2] - np.float32(0.5))
                y = own[1] / z * K[1, 1] + (K[1, 2] - np.float32(0.5))
        gone = ~((z > 0) & (np.abs(x) < FAR_PX) & (np.abs(y) < FAR_PX))
        for place in (x, y):
            place[gone] = -9
        return x.astype(np.float32, copy=False), y.astype(np.float32, copy=False), z


def look_up(
    stills: Sequence[Still], world: Float32[np.ndarray, "3 N"], ids: UInt16[np.ndarray, "N"],
    facing: Float32[np.ndarray, "N"] | None = None,
) -> tuple[UInt8[np.ndarray, "N 3"], Float32[np.ndarray, "N"]]:  # fmt: skip
    """Colours of world points (m) of instances as the first still has them that shows them, and how far it does, 0..1."""
    colours, share = np.zeros((len(ids), 3), np.uint8), np.zeros(len(ids), np.float32)
    for part in blocks(len(ids)):
        left = np.arange(part.start, part.stop)
        for still in stills:
            if not len(left):
                break
            found, shown = still.look(world.take(left, 1), ids[left], None if facing is None else facing[left])
            on = shown > 0
            colours[left[on]], share[left[on]] = found[on], shown[on]
            left = left[~on]
    return colours, share


def stills_beside(variant: Path, episode: Episode, own: SourceFrame) -> list[Still]:
    """First frames of the same world in other cameras, the painted one first; those that were painted apart are no evidence
    of one world and stay out."""
    out = []
    for other, folder in beside(variant):
        camera = str(other.source["camera"])
        if set(episode.header.camera(camera).channels) >= MAPS:
            source, frame = source_frame(episode, camera, own.index), read_frame(folder / VARIANT_FRAME)
            if frame.shape == source.rgb.shape:
                out.append(Still(source, frame, exposure_over(source, own)))
    return out


def beside(variant: Path) -> Iterator[tuple[Variant, Path]]:
    """Variants that were painted together with this one: it was carried from one of them, or one of them from it."""
    own = open_variant(variant)
    anchor = _anchor(variant, own)
    found = []
    for folder in sorted(Path(variant).resolve().parent.iterdir()):
        if not (folder / VARIANT_RECORD).is_file() or folder == Path(variant).resolve():
            continue
        try:
            other = open_variant(folder)
            together = _anchor(folder, other) == anchor
        except VariantError:
            continue
        alike = all(other.source.get(name) == own.source.get(name) for name in ("episode_sha256", "frame"))
        if together and alike and (other.world, other.seed, other.backend) == (own.world, own.seed, own.backend):
            found.append((other, folder))
    yield from sorted(found, key=lambda each: each[0].source["camera"] != anchor)


def _anchor(folder: Path, variant: Variant) -> str:
    """The camera that was painted, and this one carried from; its own where it was painted itself."""
    origin = read_json(Path(folder) / VARIANT_RECORD).get("origin")
    carried = isinstance(origin, dict) and origin.get("kind") == "carried"
    return str(origin["anchor"] if carried else variant.source.get("camera"))
