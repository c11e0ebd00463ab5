# SPDX-License-Identifier: Apache-2.0
"""Matte: simulated robot and objects over a first frame that somebody else made.

What frame 0 shows is carried through exact geometry: every scenery and object pixel of frame k is traced to the pixel
of frame 0 that shows the same point of the same body. What frame 0 did not show is filled in. Robot pixels are the
simulator's, toned to the robot of the first frame; shadows come from the moving geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.errors import TakeError
from retake.core.geometry import inverse
from retake.core.painter.shadows import ShadowField
from retake.core.painter.silhouettes import add_movers
from retake.core.painter.textures import lookup
from retake.core.variants.base import LUMA, SourceFrame
from retake.core.variants.edges import soften_edges
from retake.core.variants.roles import ROBOT, SUBJECT, find_roles

SHADE, CONTACT = 0.3, 0.5
"""How dark the assumed overhead light's shadow and the contact shadow are: the first frame's own light is unknown."""
DEPTH_TOLERANCE = 0.01
"""Relative depth error within which two pixels show the same point."""


@dataclass(frozen=True)
class Tone:
    """Per-channel gain and offset that carry simulated colours to those of the first frame."""

    gain: Float32[np.ndarray, "3"]
    offset: Float32[np.ndarray, "3"]

    @staticmethod
    def between(source: np.ndarray, target: np.ndarray) -> Tone:
        """Matches mean and spread over the same pixels (N, 3); the gain stays within 0.4 … 2.5."""
        if len(source) < 16:
            return Tone(np.ones(3, np.float32), np.zeros(3, np.float32))
        a, b = source.astype(np.float32), target.astype(np.float32)
        # One spread for all channels: three would turn a coloured robot grey where the first frame is grey.
        spread = float(np.clip((b @ LUMA).std() / max(float((a @ LUMA).std()), 1.0), 0.4, 2.5))
        gain = np.full(3, spread, np.float32)
        return Tone(gain, b.mean(0) - gain * a.mean(0))

    def apply(self, pixels: np.ndarray) -> UInt8[np.ndarray, "N 3"]:
        """Toned bytes."""
        return np.clip(pixels * self.gain + self.offset + 0.5, 0, 255).astype(np.uint8)


class Matte:
    """One first frame and the simulated frame it was made from; `render` gives further frames."""

    def __init__(self, reference: SourceFrame, first: UInt8[np.ndarray, "H W 3"]) -> None:
        if first.shape != reference.rgb.shape:
            raise TakeError(f"the first frame is {first.shape}; the simulated one is {reference.rgb.shape}")
        self.reference, self.first = reference, first
        self.roles = find_roles(reference)
        self.static = reference.header.camera(reference.camera_name).static
        role = self.roles.role[reference.instance_ids]
        self.robot_tone = self._tone(role == ROBOT)
        which = self.roles.object_index[reference.instance_ids]
        self.tones = {
            k: self._tone((role == SUBJECT) & (which == k)) for k, o in enumerate(reference.header.objects) if o.movable
        }
        self.scenery_tone = self._tone(role < ROBOT)
        self.plate = self._plate(role >= ROBOT)
        center = np.array([*self.roles.anchor.center, self.roles.support_z], np.float32)
        self.sun = ShadowField(np.array([0.2, -0.2, 1.0], np.float32), center)
        self.sky = ShadowField(np.array([0, 0, 1.0], np.float32), center)
        # The first frame brings its own shadows: only what changes against frame 0 is drawn.
        self.shadow_now = self._shadow(reference)

    def render(self, source: SourceFrame) -> UInt8[np.ndarray, "H W 3"]:
        """A further frame of the take."""
        role = self.roles.role[source.instance_ids]
        out = self.plate.copy() if self.static else self._trace_scenery(source, role)
        ratio = self._shadow(source) / np.maximum(self.shadow_now, 0.2) if self.static else None
        if ratio is not None:
            where = np.nonzero((role < ROBOT) & (np.abs(ratio - 1) > 4e-3))
            shaded = out[where] * np.clip(ratio[where], 0.3, 1.6)[:, None]
            out[where] = np.clip(shaded + 0.5, 0, 255).astype(np.uint8)
        robot = np.nonzero(role == ROBOT)
        out[robot] = self.robot_tone.apply(source.rgb[robot])
        which = self.roles.object_index[source.instance_ids]
        for index, tone in self.tones.items():
            where = np.nonzero((role == SUBJECT) & (which == index))
            if len(where[0]):
                T_first_now = self.reference.T_world_object[index] @ inverse(source.T_world_object[index])
                colours, seen = self._trace(source, where, T_first_now)
                fill = tone.apply(source.rgb[where])
                out[where] = np.where(seen[:, None], colours, fill)
        return soften_edges(out, np.where(role >= ROBOT, source.instance_ids, 0))

    def _tone(self, mask: Bool[np.ndarray, "H W"]) -> Tone:
        return Tone.between(self.reference.rgb[mask], self.first[mask])

    def _plate(self, mask: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
        """The first frame without robot and objects: what they hide is filled from around."""
        if not mask.any():
            return self.first
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
        scale = max(1, self.first.shape[1] // 320)
        # Filling at half size is smoother and far faster; only hidden pixels are taken from it.
        small = cv2.resize(self.first, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        hole = cv2.resize(wide, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_NEAREST)
        filled = cv2.inpaint(small, hole, 4, cv2.INPAINT_TELEA)
        filled = cv2.resize(filled, (self.first.shape[1], self.first.shape[0]), interpolation=cv2.INTER_CUBIC)
        out = self.first.copy()
        out[wide > 0] = filled[wide > 0]
        return out

    def _shadow(self, source: SourceFrame) -> Float32[np.ndarray, "H W"]:
        """Light that reaches the scenery, 0..1, as the moving geometry leaves it."""
        grid = source.camera.pixel_grid()
        points = source.camera.unproject(grid, source.depth_m.astype(np.float64)).astype(np.float32)
        role = self.roles.role[source.instance_ids]
        for field in (self.sun, self.sky):
            field.clear()
            add_movers(field, source, points[(role == ROBOT)][::4], set(self.tones))
        shade = self.sun.cast(self.sun.coordinates(points), 0.6)
        contact = self.sky.contact(self.sky.coordinates(points))
        return ((1 - SHADE * shade) * (1 - CONTACT * contact)).astype(np.float32)

    def _trace_scenery(self, source: SourceFrame, role: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
        """Scenery of a moving camera: looked up in frame 0 where that showed it, else the simulator's, toned."""
        out = self.scenery_tone.apply(source.rgb.reshape(-1, 3)).reshape(source.rgb.shape)
        where = np.nonzero(role < ROBOT)
        colours, seen = self._trace(source, where, np.eye(4))
        out[where] = np.where(seen[:, None], colours, out[where])
        return out

    def _trace(
        self, source: SourceFrame, where: tuple[Any, ...], T_first_now: np.ndarray
    ) -> tuple[UInt8[np.ndarray, "N 3"], Bool[np.ndarray, "N"]]:
        """First-frame colours of pixels whose body moved by T_first_now (world), and whether frame 0 showed them."""
        uv = np.stack([where[1] + 0.5, where[0] + 0.5], -1)
        world = source.camera.unproject(uv, source.depth_m[where].astype(np.float64))
        world = world @ T_first_now[:3, :3].T + T_first_now[:3, 3]
        first, z = self.reference.camera.project(world)
        x, y = np.nan_to_num(first[:, 0], nan=-9) - 0.5, np.nan_to_num(first[:, 1], nan=-9) - 0.5
        width, height = self.reference.camera.size
        column, row = np.round(x).astype(int), np.round(y).astype(int)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height) & (source.depth_m[where] > 0)
        column, row = np.where(inside, column, 0), np.where(inside, row, 0)
        same = self.reference.instance_ids[row, column] == source.instance_ids[where]
        near = np.abs(self.reference.depth_m[row, column] - z) < DEPTH_TOLERANCE * np.maximum(z, 0.05)
        picked = lookup_bytes(self.first, x, y)
        return picked, inside & same & near


def lookup_bytes(image: UInt8[np.ndarray, "H W 3"], x: np.ndarray, y: np.ndarray) -> UInt8[np.ndarray, "N 3"]:
    """Bilinear bytes of an image at index coordinates."""
    return lookup(image, x.astype(np.float32), y.astype(np.float32), cv2.BORDER_REPLICATE)
