# SPDX-License-Identifier: Apache-2.0
"""Matte: simulated robot and objects over a first frame that somebody else made.

What frame 0 shows is carried through exact geometry: every scenery and object pixel of frame k is traced to the pixel
of frame 0 that shows the same point of the same body, in the camera's own first frame or else in those of the world's other
cameras. What none of them shows is filled in, thing by thing alike for all cameras. Robot pixels are the simulator's, toned
to the robot of the first frame; shadows come from the moving geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.camera import Camera
from retake.core.errors import TakeError
from retake.core.geometry import inverse
from retake.core.painter.planes import blocks, dot_of, turned, view_rays
from retake.core.painter.restage import pixels
from retake.core.painter.shadows import ShadowField
from retake.core.painter.silhouettes import add_movers, posed
from retake.core.painter.stills import Still, look_up
from retake.core.painter.unseen import Unseen
from retake.core.variants.base import LUMA, SourceFrame
from retake.core.variants.edges import soften_edges
from retake.core.variants.roles import ROBOT, SUBJECT, find_roles
from retake.core.variants.scene import robot_clouds

SHADE, CONTACT = 0.3, 0.5
"""How dark the assumed overhead light's shadow and the contact shadow are: the first frame's own light is unknown."""
VERSION = "4"
"""Of how frames are made of first frames: takes made by another are made again."""


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
    """One first frame and the simulated frame it was made from; `render` gives further frames. `others` are first frames of
    the same world in other cameras, the most trusted first."""

    def __init__(self, reference: SourceFrame, first: UInt8[np.ndarray, "H W 3"], others: Sequence[Still] = ()) -> None:
        if first.shape != reference.rgb.shape:
            raise TakeError(f"the first frame is {first.shape}; the simulated one is {reference.rgb.shape}")
        self.reference, self.first = reference, first
        self._kept: tuple[Camera, tuple[np.ndarray, np.ndarray]] | None = None
        self.roles = find_roles(reference)
        self.static = reference.header.camera(reference.camera_name).static
        role = self.roles.role[reference.instance_ids]
        self.hidden = cv2.dilate((role >= ROBOT).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        own = Still(reference, first, whole=True, blends=self.hidden & (role < ROBOT))
        self.others, self.stills = tuple(others), (own, *others)
        self.robot_tone = self._tone(role == ROBOT)
        which = self.roles.object_index[reference.instance_ids]
        self.tones = {
            k: self._tone((role == SUBJECT) & (which == k)) for k, o in enumerate(reference.header.objects) if o.movable
        }
        self.scenery_tone = self._tone(role < ROBOT)
        self.plate = self._plate()
        center = np.array([*self.roles.anchor.center, self.roles.support_z], np.float32)
        to_sun, up = np.array([0.2, -0.2, 1.0], np.float32), np.array([0, 0, 1.0], np.float32)
        self.then, self.now = ((ShadowField(to_sun, center), ShadowField(up, center)) for _ in range(2))
        self.clouds = () if reference.episode is None else robot_clouds(*reference.episode)
        self._cast(self.then, reference)

    def render(self, source: SourceFrame) -> UInt8[np.ndarray, "H W 3"]:
        """A further frame of the take."""
        role = self.roles.role[source.instance_ids]
        out, painted = self._uncovered(source, role) if self.static else self._trace_scenery(source, role)
        self._cast(self.now, source)
        grid = self._grid(source)
        light = self._light(self.now, *grid)
        # A first frame brings its own shadows: only what changes against it is drawn. What was filled in from around has
        # none, the simulator's own picture those of now.
        then = np.where(painted, self._light(self.then, *grid), np.float32(1) if self.static else light)
        ratio = light / np.maximum(then, 0.2)
        where = np.nonzero((role < ROBOT) & (np.abs(ratio - 1) > 4e-3))
        shaded = out[where] * np.clip(ratio[where], 0.3, 1.6)[:, None]
        out[where] = np.clip(shaded + 0.5, 0, 255).astype(np.uint8)
        robot = np.nonzero(role == ROBOT)
        out[robot] = self.robot_tone.apply(source.rgb[robot])
        which = self.roles.object_index[source.instance_ids]
        for index, tone in self.tones.items():
            at = np.flatnonzero((role == SUBJECT) & (which == index))
            if len(at):
                T_first_now = self.reference.T_world_object[index] @ inverse(source.T_world_object[index])
                colours, share = self._trace(self.stills, source, at, T_first_now)
                fill = tone.apply(pixels(source.rgb).take(at).view(np.uint8).reshape(-1, 3))
                out.reshape(-1, 3)[at] = np.where(share[:, None] > 0, colours, fill)
        return soften_edges(out, np.where(role >= ROBOT, source.instance_ids, 0))

    @cached_property
    def unseen(self) -> Unseen:
        """What no first frame shows of the scenery."""
        return Unseen(self.stills, self.roles.role < ROBOT)

    def _tone(self, mask: Bool[np.ndarray, "H W"]) -> Tone:
        return Tone.between(self.reference.rgb[mask], self.first[mask])

    def _plate(self) -> UInt8[np.ndarray, "H W 3"]:
        """The first frame without robot and objects: what they hide is filled from around."""
        if not self.hidden.any():
            return self.first
        wide = self.hidden.astype(np.uint8)
        scale = max(1, self.first.shape[1] // 320)
        # Filling at half size is smoother and far faster; only hidden pixels are taken from it.
        small = cv2.resize(self.first, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        hole = cv2.resize(wide, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_NEAREST)
        filled = cv2.inpaint(small, hole, 4, cv2.INPAINT_TELEA)
        filled = cv2.resize(filled, (self.first.shape[1], self.first.shape[0]), interpolation=cv2.INTER_CUBIC)
        out = self.first.copy()
        out[wide > 0] = filled[wide > 0]
        return out

    def _cast(self, fields: tuple[ShadowField, ShadowField], source: SourceFrame) -> None:
        """What moves, as this frame has it, into the fields of sun and sky."""
        robot = posed(self.clouds, source)
        if not len(robot):  # ids that name no links: what this camera sees of the robot is all there is
            at = np.flatnonzero(self.roles.role[source.instance_ids] == ROBOT)[::4]
            robot = self._points_at(source, at).T
        for field in fields:
            field.clear()
            add_movers(field, source, robot, set(self.tones))

    def _shadow(self, source: SourceFrame) -> Float32[np.ndarray, "H W"]:
        """Light that reaches what a frame shows, 0..1, as that frame's moving geometry leaves it."""
        self._cast(self.now, source)
        return self._light(self.now, *self._grid(source))

    def _grid(self, source: SourceFrame) -> tuple[Float32[np.ndarray, "3 h w"], tuple[int, int]]:
        """World points of every second pixel (shadow maps are coarser than pixels), and the picture's size."""
        d, eye = self._rays(source)
        step = 2 if d.shape[2] >= 320 else 1
        points = d[:, ::step, ::step] * source.depth_m[::step, ::step]  # the rays are kept: not in place
        points += eye[:, None, None]
        return points, source.camera.size

    @staticmethod
    def _light(
        fields: tuple[ShadowField, ShadowField], points: Float32[np.ndarray, "3 h w"], size: tuple[int, int]
    ) -> Float32[np.ndarray, "H W"]:
        """Light at points, as a picture of a size."""
        sun, sky = fields
        flat = points.reshape(3, -1)
        shade, contact = np.zeros((2, flat.shape[1]), np.float32)
        for part in blocks(flat.shape[1]):
            if sun.reaches(at := sun.planes(flat[:, part])):
                shade[part] = sun.cast_on(at[:, None], 0.6)[0]
            if sky.reaches(at := sky.planes(flat[:, part])):
                contact[part] = sky.contact_on(at[:, None])[0]
        light = (1 - SHADE * shade) * (1 - CONTACT * contact)
        return np.asarray(cv2.resize(light.reshape(points.shape[1:]), size, interpolation=cv2.INTER_LINEAR))

    def _uncovered(
        self, source: SourceFrame, role: np.ndarray
    ) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
        """Scenery of a standing camera: the plate, and what another camera's first frame shows of what was hidden. And what
        of it is of a first frame."""
        out, painted = self.plate.copy(), ~self.hidden
        at = np.flatnonzero(self.hidden & (role < ROBOT)) if self.others else np.zeros(0, int)
        if len(at):
            colours, share = self._trace(self.others, source, at, np.eye(4))
            seen = share > 0
            out.reshape(-1, 3)[at[seen]] = colours[seen]
            painted.reshape(-1)[at] = seen
        return out, painted

    def _trace_scenery(
        self, source: SourceFrame, role: np.ndarray
    ) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
        """Scenery of a moving camera: looked up in the first frames where they showed it, else the simulator's, toned. And
        what of it is of a first frame."""
        out, painted = np.zeros_like(source.rgb), np.zeros(role.shape, bool)
        at = np.flatnonzero(role < ROBOT)
        normals = pixels(source.normals).take(at).view(np.int16).reshape(-1, 3).T.astype(np.float32)
        colours, share = self._trace(self.stills, source, at, np.eye(4), self._facing(source, at, normals))
        if len(left := np.flatnonzero(share < 1)):
            fill = self._filled(source, at[left], normals.take(left, 1))
            both = np.flatnonzero(share.take(left))
            shown = colours[left[both]]
            fill[both] = np.rint(fill[both] + share[left[both], None] * (shown - fill[both].astype(np.float32)))
            pixels(colours[None])[left] = pixels(fill[None])
        pixels(out)[at], painted.reshape(-1)[at] = pixels(colours[None]), share > 0.5
        return out, painted

    def _filled(
        self, source: SourceFrame, at: np.ndarray, normals: Float32[np.ndarray, "3 N"]
    ) -> UInt8[np.ndarray, "N 3"]:
        """Scenery at flat pixel indices (world normals × 32767), drawn after what first frames show of the same thing; of things
        that they do not show at all there is the simulator's picture, toned."""
        ids = source.instance_ids.reshape(-1).take(at)
        rgb = pixels(source.rgb).take(at).view(np.uint8).reshape(-1, 3)
        fill, known = self.unseen.colours(self._points_at(source, at), normals, ids, rgb)
        known &= source.depth_m.reshape(-1).take(at) > 0
        if not known.all():
            fill[~known] = self.scenery_tone.apply(rgb[~known])
        return fill

    def _facing(
        self, source: SourceFrame, at: np.ndarray, normals: Float32[np.ndarray, "3 N"]
    ) -> Float32[np.ndarray, "N"]:
        """Cosine between the surfaces at flat pixel indices, of world normals × 32767, and the view on them."""
        rays = self._rays(source)[0].reshape(3, -1).take(at, 1)
        return np.abs(dot_of(normals, rays)) / (np.float32(32767) * np.sqrt(dot_of(rays, rays)))

    def _trace(
        self, stills: Sequence[Still], source: SourceFrame, at: np.ndarray, T_first_now: np.ndarray,
        facing: Float32[np.ndarray, "N"] | None = None,
    ) -> tuple[UInt8[np.ndarray, "N 3"], Float32[np.ndarray, "N"]]:  # fmt: skip
        """First-frame colours of pixels (flat indices) whose body moved by T_first_now (world), and how far a first frame
        showed them, 0..1."""
        world = turned(T_first_now[:3, :3].astype(np.float32), self._points_at(source, at))
        world += T_first_now[:3, 3, None].astype(np.float32)
        colours, share = look_up(stills, world, source.instance_ids.reshape(-1).take(at), facing)
        return colours, share * (source.depth_m.reshape(-1).take(at) > 0)

    def _points_at(self, source: SourceFrame, at: np.ndarray) -> Float32[np.ndarray, "3 N"]:
        """World points of flat pixel indices, m."""
        d, eye = self._rays(source)
        out = d.reshape(3, -1).take(at, 1)
        out *= source.depth_m.reshape(-1).take(at)
        out += eye[:, None]
        return out

    def _rays(self, source: SourceFrame) -> tuple[Float32[np.ndarray, "3 H W"], Float32[np.ndarray, "3"]]:
        """World directions of every pixel at unit forward depth, and the eye; kept while the camera stands still."""
        if self._kept is None or self._kept[0] is not source.camera:
            self._kept = (source.camera, view_rays(source.camera))
        return self._kept[1]
