# SPDX-License-Identifier: Apache-2.0
"""Anchor and carry: one camera's painted frame becomes that of another camera by simulated geometry.

Every pixel of the other camera is a point of the world; where the anchor camera saw that point, its painted colour is
carried over. What it did not see is painted by the same backend, with the same prompt and seed, around what was carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.errors import VariantError
from retake.core.files import sha256_bytes
from retake.core.progress import CheckCancel, never
from retake.core.variants.base import LUMA, ImageBackend, SourceFrame, World
from retake.core.variants.correspond import Correspondence, correspond, view_of
from retake.core.variants.lock import lock_robot
from retake.core.variants.roles import BACKGROUND, ROBOT, find_roles

COARSEST = 4.0
"""An anchor pixel that covers more than this many pixels of the other camera is too coarse to be carried."""
GAIN = (0.4, 2.5)
"""Bounds of the other camera's brightness over the anchor's."""


@runtime_checkable
class CompletingBackend(Protocol):
    """An image backend that can also paint the missing part of a picture."""

    name: str

    def complete(
        self, source: SourceFrame, world: World, seed: int, known: UInt8[np.ndarray, "H W 3"],
        missing: Bool[np.ndarray, "H W"], check_cancel: CheckCancel = never,
    ) -> UInt8[np.ndarray, "H W 3"]:  # fmt: skip
        """The picture with its missing pixels painted. Raises as `ImageBackend.render`."""
        ...


@dataclass(frozen=True, eq=False)
class Carried:
    """What of a camera's picture follows from the anchor's."""

    frame: UInt8[np.ndarray, "H W 3"]
    """Black where nothing was carried."""
    known: Bool[np.ndarray, "H W"]
    gain: float
    """Brightness of this camera over the anchor's, told by the simulated pictures."""

    @property
    def share(self) -> float:
        """Of the picture that was carried."""
        return float(self.known.mean())


def carry(anchor: SourceFrame, painted: UInt8[np.ndarray, "H W 3"], target: SourceFrame) -> Carried:
    """The painted anchor frame as the target camera sees it: exact where both see a point, black elsewhere.

    Raises VariantError when the painted frame is not the anchor's size.
    """
    if painted.shape != anchor.rgb.shape:
        raise VariantError(f"the painted frame is {painted.shape}; camera {anchor.camera_name!r} is {anchor.rgb.shape}")
    found = correspond(view_of(target), view_of(anchor))
    known = found.seen & (found.scale < COARSEST)
    gain = _gain(anchor, target, found, known)
    image = _minified(painted, found)
    seen = cv2.remap(image, found.place[..., 0], found.place[..., 1], cv2.INTER_CUBIC)
    frame = np.where(known[..., None], np.clip(seen.astype(np.float32) * gain + 0.5, 0, 255), 0).astype(np.uint8)
    return Carried(frame, known, gain)


def _minified(painted: UInt8[np.ndarray, "H W 3"], found: Correspondence) -> UInt8[np.ndarray, "H W 3"]:
    """Softened where the other camera's pixels are larger: a lookup alone would alias."""
    scale = float(np.median(found.scale[found.seen])) if found.seen.any() else 1.0
    if scale >= 0.8:
        return painted
    sigma = 0.5 * float(np.sqrt(1 / (scale * scale) - 1))
    return cv2.GaussianBlur(painted, (0, 0), min(sigma, 6.0))


def _gain(anchor: SourceFrame, target: SourceFrame, found: Correspondence, known: Bool[np.ndarray, "H W"]) -> float:
    """The target camera's exposure over the anchor's, from the simulated pictures of co-visible points, in bytes."""
    if known.sum() < 200:
        return 1.0
    there = cv2.remap(anchor.rgb, found.place[..., 0], found.place[..., 1], cv2.INTER_LINEAR)
    a, b = there[known].astype(np.float32) @ LUMA, target.rgb[known].astype(np.float32) @ LUMA
    good = (a > 12) & (a < 244) & (b > 12) & (b < 244)
    return float(np.clip(np.median(b[good] / a[good]), *GAIN)) if good.sum() >= 200 else 1.0


def exposure_over(anchor: SourceFrame, target: SourceFrame) -> float:
    """The target camera's exposure over the anchor's, told by the simulated pictures of what both see."""
    found = correspond(view_of(target), view_of(anchor))
    return _gain(anchor, target, found, found.seen & (found.scale < COARSEST))


def anchor_of(sources: Sequence[SourceFrame]) -> int:
    """Index of the camera that sees most of the scene: the area of work surface, containers and objects that its pixels
    cover (a camera close to the table has many pixels of little)."""

    def shown(source: SourceFrame) -> float:
        role = find_roles(source).role[source.instance_ids]
        near = (role > BACKGROUND) & (role != ROBOT)
        return float(np.square(source.depth_m[near] / source.camera.K[0, 0]).sum())

    shares = [shown(source) for source in sources]
    return int(np.argmax(shares))


class CarryingBackend:
    """An image backend whose frames of further cameras follow from an anchor camera's painted frame."""

    reads_prompts = True
    parallel = False

    def __init__(self, backend: Any, anchor: SourceFrame, painted: UInt8[np.ndarray, "H W 3"]) -> None:
        if not isinstance(backend, CompletingBackend):
            raise VariantError(
                f"backend {backend.name!r} cannot paint the missing part of a picture; it has no `complete`"
            )
        self.backend, self.anchor, self.painted = backend, anchor, painted
        self.name, self.version, self.licence = backend.name, f"{backend.version}+carry1", backend.licence
        self.model, self.revision = getattr(backend, "model", ""), getattr(backend, "revision", "")
        self.origin: dict[str, Any] = {}
        """Of the last frame: how it came to be."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels: the backend's own settings and the anchor's frame."""
        painted = sha256_bytes(np.ascontiguousarray(self.painted).tobytes())
        return {**getattr(self.backend, "settings", {}), "anchor": [self.anchor.camera_name, painted]}

    def render(
        self, source: SourceFrame, world: World, seed: int, check_cancel: CheckCancel = never
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The carried frame, completed, the simulated robot locked."""
        carried = carry(self.anchor, self.painted, source)
        missing = ~carried.known & (find_roles(source).role[source.instance_ids] != ROBOT)
        frame = self.backend.complete(source, world, seed, carried.frame, missing, check_cancel)
        if frame.shape != source.rgb.shape:
            raise VariantError(f"backend {self.name!r} completed a picture of {source.rgb.shape} to {frame.shape}")
        out = np.where(carried.known[..., None], carried.frame, frame)
        self.origin = {
            "kind": "carried", "anchor": self.anchor.camera_name, "carried": round(carried.share, 4),
            "inpainted": round(float(missing.mean()), 4), "gain": round(carried.gain, 4),
        }  # fmt: skip
        return lock_robot(_joined(out, carried.known), source).frame


def _joined(frame: UInt8[np.ndarray, "H W 3"], known: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Seams between carried and painted pixels, softened by a pixel on the painted side."""
    rim = (cv2.dilate(known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~known
    soft: Float32[np.ndarray, "H W 3"] = cv2.GaussianBlur(frame, (3, 3), 0.75)
    return np.where(rim[..., None], soft, frame).astype(np.uint8)


def complete_by_rendering(
    backend: ImageBackend, source: SourceFrame, world: World, seed: int, known: UInt8[np.ndarray, "H W 3"],
    missing: Bool[np.ndarray, "H W"], check_cancel: CheckCancel = never,
) -> UInt8[np.ndarray, "H W 3"]:  # fmt: skip
    """`complete` for a backend that only renders whole frames: its own view where pixels are missing."""
    whole = backend.render(source, world, seed, check_cancel)
    return np.where(missing[..., None], whole, known)
