# SPDX-License-Identifier: Apache-2.0
"""Dresser: simulated frames in, the same frames in another world out.

One Dresser holds one world as seen from one camera. Every texture is anchored to the world or to an object's own
frame, so `render` is a function of the frame alone and a take made of it is consistent by construction. For a static
camera the scenery is shaded once; a frame then costs only its robot, objects and shadows.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.geometry import inverse
from retake.core.painter.light import Light, Look, robot_gain, source_linear
from retake.core.painter.materials import make_material
from retake.core.painter.photos import Panorama
from retake.core.painter.restage import bodies_of, looks_of, restaged
from retake.core.painter.sets import blocked, build_set, cast_set
from retake.core.painter.shadows import ShadowField
from retake.core.painter.silhouettes import add_movers, posed
from retake.core.painter.subjects import Subject, make_subject
from retake.core.painter.surface import Surface
from retake.core.painter.textures import Texture
from retake.core.variants.base import LUMA, SourceFrame
from retake.core.variants.edges import instance_border, soften_edges
from retake.core.variants.roles import BACKGROUND, CONTAINER, FIXTURE, ROBOT, SUBJECT, SURFACE, Roles, find_roles
from retake.core.variants.scene import LeadView, robot_clouds

EPSILON = 2e-3
"""Shadow below which a pixel counts as untouched, so that the still background stays bit-equal."""


ROBOT_WHITE = 0.75
"""Linear luminance that the brightest twentieth of the robot may reach."""
LEG_M, MIN_LEG_M, MAX_TABLE_M = 0.06, 0.3, 4.0
"""Width of a table's leg; least height of a surface that has legs; largest side of one."""
FIXTURE_MATERIAL = {"kind": "steel", "colours": ["#7d8388", "#5d6368"], "tile_m": 0.8}
"""Pedestals and stands: painted steel goes with every world."""


class Dresser:
    """One world over one camera. `recipe` maps the axes to their mappings (see `worlds.recipe_of`)."""

    def __init__(self, reference: SourceFrame, recipe: dict[str, Any], seed: int) -> None:
        scene = reference.scene
        self.roles: Roles = find_roles(reference)
        self.static = reference.header.camera(reference.camera_name).static
        self.size = reference.camera.size
        rng = np.random.default_rng(seed)
        seeds = [int(s) for s in rng.integers(2**31, size=8)]
        if "panorama" in recipe["environment"]:  # the place brings its own light
            recipe = {**recipe, "lighting": Panorama.of(recipe["environment"]["panorama"]).lighting()}
        self.light = Light.of(recipe["lighting"], np.random.default_rng(seeds[0]))
        self.look = Look(recipe["look"], self.size, np.random.default_rng(seeds[1]))
        self.container: Texture = make_material(recipe["container"], seeds[3])
        self.fixture: Texture = make_material(recipe.get("fixture", FIXTURE_MATERIAL), seeds[6])
        self.subjects: dict[int, Subject] = self._make_subjects(reference, recipe, seeds[4])
        self.bodies = bodies_of(reference.header, self.roles.task_object, recipe)
        self._rays: tuple[np.ndarray, np.ndarray] | None = None
        self._pose: np.ndarray | None = None
        self._exposed = False
        self._robot_level = np.float32(1)
        if scene is None or not len(scene.ids):
            hit = reference.depth_m > 0
            points, kind = self._points(reference, hit)[0], self.roles.role[reference.instance_ids[hit]]
        else:
            points, kind = scene.points, self.roles.role[scene.ids]
        self.surface = Surface(recipe["surface"], seeds[5], points, kind == SURFACE)
        legs = legs_of(self.surface.low, self.surface.high, self.roles.support_z, self.roles.anchor.floor_z)
        self.set = build_set(recipe["environment"], self.roles.anchor, seeds[2], legs)
        for index, subject in self.subjects.items():
            self.subjects[index] = subject.apart_from(self.surface.texture)
        center = np.array([*self.roles.anchor.center, self.roles.support_z], np.float32)
        up = np.array([0, 0, 1.0], np.float32)
        self.sun_still, self.sky_still = ShadowField(self.light.to_sun, center), ShadowField(up, center)
        self.sun_moving, self.sky_moving = ShadowField(self.light.to_sun, center), ShadowField(up, center)
        # The work surface shadows the floor, containers shadow the work surface as well; nothing shadows itself.
        self.sun_near, self.sky_near = ShadowField(self.light.to_sun, center), ShadowField(up, center)
        for field in (self.sun_still, self.sky_still):
            field.add_points(points[(kind == SURFACE) | (kind == CONTAINER) | (kind == FIXTURE)])
        for field in (self.sun_near, self.sky_near):
            field.add_points(points[kind == CONTAINER])
        self.clouds = () if reference.episode is None else robot_clouds(*reference.episode)
        self._reset()
        self._metered = None if scene is None or scene.lead is None else self._meter(reference, scene.lead)

    def render(self, source: SourceFrame) -> UInt8[np.ndarray, "H W 3"]:
        """The frame in this world."""
        source = restaged(source, self.roles, self.bodies)
        role = self.roles.role[source.instance_ids]
        pose = np.concatenate([source.camera.K.ravel(), source.camera.T_camera_world.ravel()])
        if self._pose is None or not np.array_equal(pose, self._pose):
            self._reset()
            self._pose, self._rays = pose, None
            self._shade_background(source)
        self._shade_scenery(source, role)
        if not self._exposed:
            self._expose(source, role)
            self._develop(*(m.ravel() for m in np.indices(role.shape)))
        self._shade_moving_shadows(source, role)
        out = self.still8.copy()
        self._apply_shadows(out, role)
        self._draw_robot(out, source, role)
        self._draw_subjects(out, source, role)
        return soften_edges(out, source.instance_ids)

    def _expose(self, source: SourceFrame, role: np.ndarray) -> None:
        """The lead camera meters the scene, and how bright the robot is against it; the others are exposed as it is, so that
        one point of the world has one colour. A frame by itself meters what it sees."""
        seen = self.known_depth >= 0
        base = self.look.gain
        self.look.expose(self.ambient[seen] + self.sunlit[seen], self.light.exposure)
        if self._metered is None:
            self._robot_level = self._level_of(source, role)
        else:
            self._robot_level, leading = self._metered
            self.look.gain = base * np.float32(leading)
            self.look.gain = self.look.gain * np.float32(min(1.0, self._robot_ceiling(source, role)))
        self._exposed = True

    def _meter(self, reference: SourceFrame, lead: LeadView) -> tuple[np.float32, float]:
        """The robot's level and the exposure's gain as the lead camera meters them, on a small picture."""
        meter = copy.copy(self)
        meter.size, meter._rays, meter._pose, meter._metered = lead.camera.size, None, None, None
        meter.static = True
        meter.look = self.look.resized(meter.size)
        meter._reset()
        small = replace(
            reference, camera_name=lead.camera_name, camera=lead.camera, rgb=lead.rgb, depth_m=lead.depth_m,
            normals=lead.normals, instance_ids=lead.instance_ids,
        )  # fmt: skip
        role = self.roles.role[lead.instance_ids]
        meter._shade_background(small)
        meter._shade_scenery(small, role)
        meter._expose(small, role)
        return meter._robot_level, float((meter.look.gain / self.look.gain).mean())

    # Scenery ------------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        width, height = self.size
        self.ambient = np.zeros((height, width, 3), np.float32)
        self.sunlit = np.zeros((height, width, 3), np.float32)
        self.still8 = np.zeros((height, width, 3), np.uint8)
        self.known_depth = np.full((height, width), -1, np.float32)
        self.known_id = np.zeros((height, width), np.uint16)
        self.at_sun = np.zeros((height, width, 3), np.float32)
        self.at_sky = np.zeros((height, width, 3), np.float32)

    def _shade_background(self, source: SourceFrame) -> None:
        """The set behind everything. For a static camera at every pixel, so what the robot uncovers is there already."""
        d, eye = self._view(source)
        self._eye = eye
        if self.static:
            rows, columns = (m.ravel() for m in np.indices(source.instance_ids.shape))
        else:
            rows, columns = np.nonzero(self.roles.role[source.instance_ids] == BACKGROUND)
        if not len(rows):
            return
        where, light = (rows, columns), self.light
        hit = cast_set(self.set, eye, np.ascontiguousarray(d[where]), 1 / source.camera.K[0, 0])
        at_sun, at_sky = self.sun_still.coordinates(hit.points), self.sky_still.coordinates(hit.points)
        facing = light.facing(hit.normal)
        shade = _rows(self.sun_still.cast, at_sun, light.softness)
        lit = np.flatnonzero((facing > 0) & (hit.glow < 1))
        shade[lit] = np.maximum(shade[lit], blocked(self.set, hit.points[lit], light.to_sun))
        contact = _rows(self.sky_still.contact, at_sky, 0.45)
        dull = (1 - hit.glow)[:, None]
        ambient = hit.albedo * light.ambient(hit.normal[:, 2]) * ((1 - hit.occlusion) * (1 - 0.55 * contact))[:, None]
        ambient = ambient * dull + hit.albedo * ((1 - dull) * max(light.mean, 0.05) * 1.05)
        sun = hit.albedo * light.sun * (facing * (1 - shade) * (1 - 0.5 * hit.occlusion))[:, None] * dull
        labels = np.full(self.ambient.shape[:2], -2, np.int32)
        distance = np.zeros(labels.shape, np.float32)
        labels[where], distance[where] = hit.label, hit.distance_m
        self.ambient[where], self.sunlit[where] = ambient, sun
        self.at_sun[where], self.at_sky[where] = at_sun, at_sky
        edge = np.nonzero(instance_border(labels) & (labels > -2))
        for image in (self.ambient, self.sunlit):
            image[edge] = cv2.GaussianBlur(image, (3, 3), 0.8)[edge]
        if self.static:
            self.ambient = self._defocus(self.ambient, distance)
            self.sunlit = self._defocus(self.sunlit, distance)
        self.known_depth[where], self.known_id[where] = 0, source.instance_ids[where]
        self._develop(rows, columns)

    def _defocus(self, image: np.ndarray, distance: np.ndarray) -> Float32[np.ndarray, "H W 3"]:
        """Depth of field: what lies well behind the work surface goes soft."""
        sigma = self.look.background_blur * self.size[0] / 320
        if sigma <= 0.05:
            return image
        near = np.linalg.norm(self._eye - [*self.roles.anchor.center, self.roles.support_z])
        share = np.clip((distance - 1.15 * near) / (0.9 * near), 0, 1)[..., None].astype(np.float32)
        mild, strong = cv2.GaussianBlur(image, (0, 0), 0.5 * sigma), cv2.GaussianBlur(image, (0, 0), sigma)
        first, second = np.clip(share * 2, 0, 1), np.clip(share * 2 - 1, 0, 1)
        out = image + (mild - image) * first
        return out + (strong - out) * second

    def _shade_scenery(self, source: SourceFrame, role: np.ndarray) -> None:
        """Work surface and containers, at pixels not shaded before (or whose geometry changed)."""
        near = (role > BACKGROUND) & (role < ROBOT)
        fresh = near & ((self.known_id != source.instance_ids) | (np.abs(self.known_depth - source.depth_m) > 1e-4))
        rows, columns = np.nonzero(fresh)
        if not len(rows):
            return
        points, _ = self._points(source, fresh)
        normal = source.normals[rows, columns].astype(np.float32) / 32767
        depth = source.depth_m[rows, columns]
        footprint = depth / np.float32(source.camera.K[0, 0])
        albedo = np.empty((len(rows), 3), np.float32)
        kind = role[rows, columns]
        on = kind == SURFACE
        albedo[on] = self.surface.albedo(points[on], normal[on], footprint[on])
        for what, texture in ((CONTAINER, self.container), (FIXTURE, self.fixture)):
            on = kind == what
            albedo[on] = planar(texture, points[on], normal[on], footprint[on])
        at_sun, at_sky = self.sun_still.coordinates(points), self.sky_still.coordinates(points)
        shade = _rows(self.sun_near.cast, at_sun, self.light.softness * 0.6)
        contact = _rows(self.sky_near.contact, at_sky, 0.05)
        ambient = albedo * self.light.ambient(normal[:, 2]) * (1 - 0.6 * contact)[:, None]
        sun = albedo * self.light.sun * (self.light.facing(normal) * (1 - shade))[:, None]
        self.ambient[rows, columns], self.sunlit[rows, columns] = ambient, sun
        self.at_sun[rows, columns], self.at_sky[rows, columns] = at_sun, at_sky
        self.known_depth[rows, columns], self.known_id[rows, columns] = depth, source.instance_ids[rows, columns]
        self._develop(rows, columns)

    def _develop(self, rows: np.ndarray, columns: np.ndarray) -> None:
        where = (rows, columns)
        self.still8[where] = self.look.develop(self.ambient[where] + self.sunlit[where], where)

    # Robot, objects and their shadows -----------------------------------------------------------------------------

    def _shade_moving_shadows(self, source: SourceFrame, role: np.ndarray) -> None:
        points = posed(self.clouds, source)
        if not len(points):  # ids that name no links: what this camera sees of the robot is all there is
            step = max(1, self.size[0] // 320)
            d, eye = self._view(source)
            rows, columns = np.nonzero(role[::step, ::step] == ROBOT)
            depth = source.depth_m[::step, ::step][rows, columns]
            points = d[::step, ::step][rows, columns] * depth[:, None] + eye
        for field in (self.sun_moving, self.sky_moving):
            field.clear()
            add_movers(field, source, points, self.subjects, self.bodies)

    def _apply_shadows(self, out: UInt8[np.ndarray, "H W 3"], role: np.ndarray) -> None:
        # Shadow maps are coarser than pixels: every second pixel is looked up, the rest lies between.
        step = 2 if self.size[0] >= 320 else 1
        at_sun, at_sky = (np.ascontiguousarray(a[::step, ::step]) for a in (self.at_sun, self.at_sky))
        shade = self.sun_moving.cast(at_sun, self.light.softness)
        contact = self.sky_moving.contact(at_sky)
        touched = (shade > EPSILON) | (contact > EPSILON)
        if not touched.any():
            return
        x, y, w, h = (v * step for v in cv2.boundingRect(touched.astype(np.uint8)))
        width, height = self.size
        shade, contact = (cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in (shade, contact))
        box = np.s_[max(0, y - step) : y + h + step, max(0, x - step) : x + w + step]
        rows, columns = np.nonzero((role[box] < ROBOT) & ((shade[box] > EPSILON) | (contact[box] > EPSILON)))
        where = (rows + box[0].start, columns + box[1].start)
        dark = contact[where][:, None]
        lit = self.ambient[where] * (1 - 0.75 * dark)
        lit += self.sunlit[where] * ((1 - shade[where])[:, None] * (1 - 0.35 * dark))
        out[where] = self.look.develop(lit, where)

    def _draw_robot(self, out: UInt8[np.ndarray, "H W 3"], source: SourceFrame, role: np.ndarray) -> None:
        mask = role == ROBOT
        where = np.nonzero(mask)
        if len(where[0]):
            gain = robot_gain(self.light, source.normals, mask)[where]
            out[where] = self.look.develop(source_linear(source.rgb[where]) * gain * self._robot_level, where)

    def _level_of(self, source: SourceFrame, role: np.ndarray) -> np.float32:
        """The robot's own brightness: the world's light, but a white arm stays below the shoulder of the curve, where
        its edges would drown."""
        self._robot_level = np.float32(max(self.light.mean, 0.12))
        return self._robot_level * np.float32(min(1.0, self._robot_ceiling(source, role)))

    def _robot_ceiling(self, source: SourceFrame, role: np.ndarray) -> float:
        """By how much the brightest of the robot may be raised before it reaches the shoulder; below 1 it must come down."""
        mask = role == ROBOT
        if not mask.any():
            return 1.0
        lit = source_linear(source.rgb[mask]) * robot_gain(self.light, source.normals, mask)[mask] * self.look.gain
        bright = float(np.percentile(lit @ LUMA, 95)) * float(self._robot_level)
        return ROBOT_WHITE / max(bright, 1e-3)

    def _draw_subjects(self, out: UInt8[np.ndarray, "H W 3"], source: SourceFrame, role: np.ndarray) -> None:
        which = self.roles.object_index[source.instance_ids]
        eye = inverse(source.camera.T_camera_world)[:3, 3].astype(np.float32)
        for index, subject in self.subjects.items():
            mask = (role == SUBJECT) & (which == index)
            where = np.nonzero(mask)
            if not len(where[0]):
                continue
            points, _ = self._points(source, mask)
            T = source.T_world_object[index].astype(np.float32)
            normal = source.normals[where].astype(np.float32) / 32767
            footprint = source.depth_m[where] / np.float32(source.camera.K[0, 0])
            albedo, bent = subject.shade((points - T[:3, 3]) @ T[:3, :3], normal @ T[:3, :3], footprint)
            bent = bent @ T[:3, :3].T
            view = eye - points
            view /= np.linalg.norm(view, axis=1, keepdims=True)
            half = view + self.light.to_sun
            half /= np.linalg.norm(half, axis=1, keepdims=True)
            shine = subject.gloss * np.maximum((bent * half).sum(1), 0) ** 24
            low = np.clip((points[:, 2] - self.roles.support_z) / 0.035, 0, 1) * 0.35 + 0.65
            lit = albedo * self.light.ambient(bent[:, 2]) * low[:, None]
            lit += (albedo * self.light.facing(bent)[:, None] + shine[:, None]) * self.light.sun
            out[where] = self.look.develop(lit.astype(np.float32), where)

    # Geometry -----------------------------------------------------------------------------------------------------

    def _make_subjects(self, source: SourceFrame, recipe: dict[str, Any], seed: int) -> dict[int, Subject]:
        objects = source.header.objects
        return {
            index: make_subject(look, objects[index].size_m, objects[index].center_m, seed + index)
            for index, look in looks_of(source.header, self.roles.task_object, recipe).items()
        }

    def _points(self, source: SourceFrame, mask: Bool[np.ndarray, "H W"]) -> tuple[np.ndarray, np.ndarray]:
        """World points (N, 3) of the masked pixels, and the eye."""
        d, eye = self._view(source)
        where = np.nonzero(mask)
        return d[where] * source.depth_m[where][:, None] + eye, eye

    def _view(self, source: SourceFrame) -> tuple[Float32[np.ndarray, "H W 3"], Float32[np.ndarray, " 3"]]:
        """World directions of every pixel and the eye; kept while the camera stands still."""
        if self._rays is None:
            K, T = source.camera.K.astype(np.float32), source.camera.T_camera_world
            R = T[:3, :3].astype(np.float32)
            x = (np.arange(self.size[0], dtype=np.float32) + 0.5 - K[0, 2]) / K[0, 0]
            y = (np.arange(self.size[1], dtype=np.float32) + 0.5 - K[1, 2]) / K[1, 1]
            d = x[None, :, None] * R[0] + y[:, None, None] * R[1] + R[2]
            if source.camera.lens is not None:
                rays = source.camera.rays().astype(np.float32)
                d = rays[..., :1] * R[0] + rays[..., 1:] * R[1] + R[2]
            self._rays = d, inverse(T)[:3, 3].astype(np.float32)
        return self._rays


def legs_of(
    low: Float32[np.ndarray, "2"], high: Float32[np.ndarray, "2"], top_m: float, floor_m: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (low, high) of the four legs of a work surface with those corners; none for one near the floor, or so large
    that it is one."""
    if top_m - floor_m < MIN_LEG_M or max(high - low) > MAX_TABLE_M or min(high - low) < 4 * LEG_M:
        return []
    out = []
    for x in (low[0] + LEG_M, high[0] - 2 * LEG_M):
        for y in (low[1] + LEG_M, high[1] - 2 * LEG_M):
            first = np.array([x, y, floor_m], np.float32)
            out.append((first, np.array([x + LEG_M, y + LEG_M, top_m - 0.02], np.float32)))
    return out


def planar(
    texture: Texture, points: Float32[np.ndarray, "N 3"], normal: Float32[np.ndarray, "N 3"], footprint: np.ndarray
) -> Float32[np.ndarray, "N 3"]:
    """Texture laid over world-aligned planes: each point takes the plane its normal is closest to."""
    axis = np.abs(normal).argmax(1)
    u = np.where(axis == 0, points[:, 1], points[:, 0])
    v = np.where(axis == 2, points[:, 1], -points[:, 2])
    return texture.sample(u, v, footprint)


def _rows(function: Any, at: np.ndarray, value: float) -> Float32[np.ndarray, "N"]:
    """Call an image-shaped lookup on a flat list of points (cv2.remap wants sides below 32767)."""
    count, width = len(at), 1024
    rows = max(1, -(-count // width))
    padded = np.full((rows * width, 3), -1e6, np.float32)
    padded[:count] = at
    return function(padded.reshape(rows, width, 3), value).reshape(-1)[:count]
