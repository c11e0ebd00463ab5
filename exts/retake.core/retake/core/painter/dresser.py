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
from retake.core.painter.light import Light, Look, robot_gain_planes
from retake.core.painter.materials import make_material
from retake.core.painter.photos import Panorama
from retake.core.painter.planes import blocks, by_id, dot_of, keep, normalised, planes_of, put, turned, view_rays
from retake.core.painter.restage import bodies_of, looks_of, restaged
from retake.core.painter.sets import SetHit, blocked, build_set, cast_set
from retake.core.painter.shadows import ShadowField
from retake.core.painter.silhouettes import add_movers, posed
from retake.core.painter.subjects import Subject, make_subject
from retake.core.painter.surface import Surface, legs_of, planar
from retake.core.painter.textures import LINEAR_OF_BYTE, Texture
from retake.core.variants.base import LUMA, SourceFrame
from retake.core.variants.edges import instance_border, soften_edges
from retake.core.variants.roles import BACKGROUND, CONTAINER, FIXTURE, ROBOT, SUBJECT, SURFACE, Roles, find_roles
from retake.core.variants.scene import LeadView, robot_clouds

DENSE = 0.6
"""Share of a block that must be fresh for all of it to be shaded."""
EPSILON = 2e-3
"""Shadow below which a pixel counts as untouched, so that the still background stays bit-equal."""


ROBOT_WHITE = 0.75
"""Linear luminance that the brightest twentieth of the robot may reach."""
FIXTURE_MATERIAL = {"kind": "steel", "colours": ["#7d8388", "#5d6368"], "tile_m": 0.8}
"""Pedestals and stands: painted steel goes with every world."""


class Dresser:
    """One world over one camera. `recipe` maps the axes to their mappings (see `worlds.recipe_of`).

    What is known of the pixels is kept as planes (3, H·W), indexed by flat pixel numbers (see `planes`).
    """

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
        self.ambient = np.empty((3, 0), np.float32)
        self._pose: np.ndarray | None = None
        self._exposed = False
        self._robot_level = np.float32(1)
        if scene is None or not len(scene.ids):
            hit = reference.depth_m > 0
            points, kind = self._points(reference, hit), self.roles.role[reference.instance_ids[hit]]
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
        self._metered = None if scene is None or scene.lead is None else self._meter(reference, scene.lead)

    def render(self, source: SourceFrame) -> UInt8[np.ndarray, "H W 3"]:
        """The frame in this world."""
        source = restaged(source, self.roles, self.bodies)
        role = by_id(self.roles.role, source.instance_ids)
        pose = np.concatenate([source.camera.K.ravel(), source.camera.T_camera_world.ravel()])
        if self._pose is None or not np.array_equal(pose, self._pose):
            self._reset()
            self._pose, self._rays = pose, None
            self._shade_background(source)
        self._shade_scenery(source, role)
        if not self._exposed:
            self._expose(source, role)
            if self.static:
                self._develop(slice(None))
        self._shade_moving_shadows(source, role)
        out = self.still8.copy() if self.static else np.empty_like(self.still8)
        self._apply_shadows(out, source, role)
        self._draw_robot(out, source, role)
        self._draw_subjects(out, source, role)
        frame = cv2.merge([plane.reshape(role.shape) for plane in out])
        return soften_edges(np.asarray(frame, np.uint8), source.instance_ids)

    def _expose(self, source: SourceFrame, role: np.ndarray) -> None:
        """The lead camera meters the scene, and how bright the robot is against it; the others are exposed as it is, so that
        one point of the world has one colour. A frame by itself meters what it sees."""
        seen = np.flatnonzero(self.known_depth >= 0)[::16]
        base = self.look.gain
        self.look.expose(self.ambient[:, seen] + self.sunlit[:, seen], self.light.exposure)
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
        count = self.size[0] * self.size[1]
        if self.ambient.shape[1] != count:
            self.ambient, self.sunlit = (np.empty((3, count), np.float32) for _ in range(2))
            self.still8 = np.empty((3, count), np.uint8)
            self.known_depth, self.known_id = np.empty(count, np.float32), np.empty(count, np.uint16)
            self.receiver_m = np.empty(count, np.float32)
        for known in (self.ambient, self.sunlit, self.still8, self.known_id):
            known.fill(0)
        self.known_depth.fill(-1)
        self.receiver_m.fill(-1)

    def _shade_background(self, source: SourceFrame) -> None:
        """The set behind everything. For a static camera at every pixel, so what the robot uncovers is there already."""
        d, eye = self._view(source)
        self._eye = eye
        ids = source.instance_ids
        at = np.arange(ids.size) if self.static else np.flatnonzero(by_id(self.roles.role, ids) == BACKGROUND)
        if not len(at):
            return
        rays = np.ascontiguousarray(d.reshape(3, -1)[:, at].T)
        hit = cast_set(self.set, eye, rays, 1 / source.camera.K[0, 0])
        self.receiver_m[at] = hit.forward_m
        for part in blocks(len(at)):
            self._light_background(hit, part, at[part])
        labels = np.full(ids.shape, -2, np.int32)
        labels.reshape(-1)[at] = hit.label
        edge = np.flatnonzero(instance_border(labels) & (labels > -2))
        if len(edge):
            for plane in (*self.ambient, *self.sunlit):
                plane[edge] = cv2.GaussianBlur(plane.reshape(ids.shape), (3, 3), 0.8).reshape(-1)[edge]
        if self.static:
            distance = np.zeros(ids.shape, np.float32)
            distance.reshape(-1)[at] = hit.distance_m
            self._defocus(self.ambient, distance)
            self._defocus(self.sunlit, distance)
        self.known_depth[at], self.known_id[at] = 0, ids.reshape(-1)[at]
        if self.static:
            self._develop(at)

    def _light_background(self, hit: SetHit, part: slice, at: np.ndarray) -> None:
        """Light and shadow on what a block of rays hit."""
        light, points = self.light, np.ascontiguousarray(hit.points[part].T)
        normal, albedo, glow = np.ascontiguousarray(hit.normal[part].T), hit.albedo[part].T, hit.glow[part]
        at_sun, at_sky = self.sun_still.planes(points), self.sky_still.planes(points)
        facing = light.facing_on(normal)
        shade = self.sun_still.cast_on(at_sun[:, None], light.softness)[0]
        lit = np.flatnonzero((facing > 0) & (glow < 1))
        shade[lit] = np.maximum(shade[lit], blocked(self.set, hit.points[part][lit], light.to_sun))
        contact = self.sky_still.contact_on(at_sky[:, None], 0.45)[0]
        dull, open_ = 1 - glow, 1 - hit.occlusion[part]
        sky = open_ * (1 - 0.55 * contact)
        sun = facing * (1 - shade) * (1 - 0.5 * hit.occlusion[part])
        own = (1 - dull) * (max(light.mean, 0.05) * 1.05)
        for k, ambient in enumerate(light.ambient_on(normal[2])):
            self.ambient[k][at] = albedo[k] * ambient * sky * dull + albedo[k] * own
            self.sunlit[k][at] = albedo[k] * light.sun[k] * sun * dull

    def _defocus(self, planes: Float32[np.ndarray, "3 N"], distance: Float32[np.ndarray, "H W"]) -> None:
        """Depth of field: what lies well behind the work surface goes soft. In place."""
        sigma = self.look.background_blur * self.size[0] / 320
        if sigma <= 0.05:
            return
        near = np.linalg.norm(self._eye - [*self.roles.anchor.center, self.roles.support_z])
        share = np.clip((distance - 1.15 * near) / (0.9 * near), 0, 1).astype(np.float32)
        first, second = np.clip(share * 2, 0, 1), np.clip(share * 2 - 1, 0, 1)
        for plane in planes:
            image = plane.reshape(distance.shape)
            mild, strong = cv2.GaussianBlur(image, (0, 0), 0.5 * sigma), cv2.GaussianBlur(image, (0, 0), sigma)
            image += (mild - image) * first
            image += (strong - image) * second

    def _shade_scenery(self, source: SourceFrame, role: np.ndarray) -> None:
        """Work surface and containers, at pixels not shaded before (or whose geometry changed)."""
        role, ids, depth = role.reshape(-1), source.instance_ids.reshape(-1), source.depth_m.reshape(-1)
        near = (role > BACKGROUND) & (role < ROBOT)
        fresh = near & ((self.known_id != ids) | (np.abs(self.known_depth - depth) > 1e-4))
        if not fresh.any():
            return
        normals = planes_of(source.normals)
        for part in blocks(len(fresh)):
            on = fresh[part]
            share = np.count_nonzero(on)
            if not share:
                continue
            # Of a block that is mostly fresh everything is shaded: runs are faster than single pixels.
            dense = share > DENSE * len(on)
            at = part if dense else part.start + np.flatnonzero(on)
            self._light_scenery(source, at, role[at], depth[at], normals[:, at], on if dense else None)
            for known, found in ((self.known_depth, depth), (self.known_id, ids), (self.receiver_m, depth)):
                keep(known, at, found[at], on if dense else None)
            if self.static:
                self._develop(at)

    def _light_scenery(
        self, source: SourceFrame, at: np.ndarray | slice, kind: np.ndarray, depth: np.ndarray, normals: np.ndarray,
        on: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Light and shadow on a block of scenery; where `on` is given, on those of its pixels alone."""
        light, points = self.light, self._points_at(source, at, depth)
        normal = normals.astype(np.float32)
        normal /= 32767
        footprint = depth / np.float32(source.camera.K[0, 0])
        albedo = self.surface.albedo(points, normal, footprint, kind == SURFACE)
        for what, texture in ((CONTAINER, self.container), (FIXTURE, self.fixture)):
            other = np.flatnonzero(kind == what)
            if len(other):
                found = planar(texture, points.take(other, 1), normal.take(other, 1), footprint[other])
                put(albedo, other, found)
        at_sun, at_sky = self.sun_still.planes(points), self.sky_still.planes(points)
        sun, sky = light.facing_on(normal), np.ones(albedo.shape[1], np.float32)
        if (near := self.sun_near.worth(at_sun)) is not None:
            sun[near] *= 1 - self.sun_near.cast_on(at_sun[:, near][:, None], light.softness * 0.6)[0]
        if (near := self.sky_near.worth(at_sky)) is not None:
            sky[near] = 1 - 0.6 * self.sky_near.contact_on(at_sky[:, near][:, None], 0.05)[0]
        for k, ambient in enumerate(light.ambient_on(normal[2])):
            keep(self.ambient[k], at, albedo[k] * ambient * sky, on)
            keep(self.sunlit[k], at, albedo[k] * light.sun[k] * sun, on)

    def _develop(self, at: np.ndarray | slice) -> None:
        shown = self.look.develop(self.ambient[:, at] + self.sunlit[:, at], at)
        put(self.still8, at, shown)

    # Robot, objects and their shadows -----------------------------------------------------------------------------

    def _shade_moving_shadows(self, source: SourceFrame, role: np.ndarray) -> None:
        points = posed(self.clouds, source)
        if not len(points):  # ids that name no links: what this camera sees of the robot is all there is
            step = max(1, self.size[0] // 320)
            rows, columns = np.nonzero(role[::step, ::step] == ROBOT)
            at = rows * step * self.size[0] + columns * step
            points = self._points_at(source, at, source.depth_m.reshape(-1)[at]).T
        for field in (self.sun_moving, self.sky_moving):
            field.clear()
            add_movers(field, source, points, self.subjects, self.bodies)

    def _apply_shadows(self, out: UInt8[np.ndarray, "3 N"], source: SourceFrame, role: np.ndarray) -> None:
        # Shadow maps are coarser than pixels: every second pixel is looked up, the rest lies between.
        step = 2 if self.size[0] >= 320 else 1
        width, height = self.size
        shade, contact = self.moving_shadows(source, step)
        any_shadow = bool(((shade > EPSILON) | (contact > EPSILON)).any())
        if self.static and not any_shadow:
            return
        shade, contact = (
            cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR).reshape(-1) for m in (shade, contact)
        )
        touched = (shade > EPSILON) | (contact > EPSILON)
        if self.static:
            touched = np.flatnonzero(touched & (role.reshape(-1) < ROBOT))
            places: list[np.ndarray | slice] = [touched[part] for part in blocks(len(touched))]
        else:
            # Nothing stands still in this picture: all of it is developed, once.
            shade *= touched
            contact *= touched
            places = list(blocks(len(touched)))
        for at in places:
            dark, open_ = contact[at], 1 - shade[at]
            sky, sun = 1 - 0.75 * dark, open_ * (1 - 0.35 * dark)
            lit = np.empty((3, len(dark)), np.float32)
            for plane, ambient, sunlit in zip(lit, self.ambient, self.sunlit, strict=True):
                np.multiply(ambient[at], sky, out=plane)
                plane += sunlit[at] * sun
            put(out, at, self.look.develop(lit, at))

    def moving_shadows(
        self, source: SourceFrame, step: int
    ) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Shares of the sun and of the sky that movers hide, at every `step`-th pixel of every `step`-th row."""
        d, eye = self._view(source)
        depth = np.ascontiguousarray(self.receiver_m.reshape(d.shape[1:])[::step, ::step])
        shape = depth.shape
        depth = depth.reshape(-1)
        rays = np.ascontiguousarray(d[:, ::step, ::step]).reshape(3, -1)
        shade, contact = np.zeros((2, len(depth)), np.float32)
        for part in blocks(len(depth)):
            points = rays[:, part] * depth[part]
            points += eye[:, None]
            for out, field, hidden in (
                (shade, self.sun_moving, lambda at: self.sun_moving.cast_on(at, self.light.softness)),
                (contact, self.sky_moving, self.sky_moving.contact_on),
            ):
                at = field.planes(points)
                if field.reaches(at):
                    out[part] = hidden(at[:, None])[0]
        # Nothing is known of the scenery behind robots and objects.
        unknown = depth < 0
        shade[unknown], contact[unknown] = 0, 0
        return shade.reshape(shape), contact.reshape(shape)

    def _draw_robot(self, out: UInt8[np.ndarray, "3 N"], source: SourceFrame, role: np.ndarray) -> None:
        mask = role == ROBOT
        where = np.flatnonzero(mask)
        if not len(where):
            return
        gain, rgb = robot_gain_planes(self.light, source.normals, mask).reshape(3, -1), planes_of(source.rgb)
        for part in blocks(len(where)):
            at = where[part]
            lit = LINEAR_OF_BYTE[rgb.take(at, 1)] * gain.take(at, 1) * self._robot_level
            put(out, at, self.look.develop(lit, at))

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
        lit = (
            LINEAR_OF_BYTE[source.rgb[mask]]
            * robot_gain_planes(self.light, source.normals, mask)[:, mask].T
            * self.look.gain
        )
        bright = float(np.percentile(lit @ LUMA, 95)) * float(self._robot_level)
        return ROBOT_WHITE / max(bright, 1e-3)

    def _draw_subjects(self, out: UInt8[np.ndarray, "3 N"], source: SourceFrame, role: np.ndarray) -> None:
        which = by_id(self.roles.object_index, source.instance_ids)
        eye = inverse(source.camera.T_camera_world)[:3, 3].astype(np.float32)[:, None]
        mine = role == SUBJECT
        normals = planes_of(source.normals) if mine.any() else np.zeros((3, 0), np.int16)
        for index, subject in self.subjects.items():
            where = np.flatnonzero(mine & (which == index))
            T = source.T_world_object[index].astype(np.float32)
            for part in blocks(len(where)):
                at = where[part]
                depth = source.depth_m.reshape(-1)[at]
                points = self._points_at(source, at, depth)
                normal = normals[:, at].astype(np.float32)
                normal /= 32767
                footprint = depth / np.float32(source.camera.K[0, 0])
                own = turned(T[:3, :3].T, points - T[:3, 3, None])
                albedo, bent = subject.shade(own, turned(T[:3, :3].T, normal), footprint)
                bent = turned(T[:3, :3], bent)
                half = normalised(normalised(eye - points) + self.light.to_sun[:, None])
                shine = subject.gloss * np.maximum(dot_of(bent, half), 0) ** 24
                low = np.clip((points[2] - self.roles.support_z) / 0.035, 0, 1) * 0.35 + 0.65
                facing = self.light.facing_on(bent)
                lit = np.stack([
                    colour * ambient * low + (colour * facing + shine) * sun
                    for colour, ambient, sun in zip(albedo, self.light.ambient_on(bent[2]), self.light.sun, strict=True)
                ])  # fmt: skip
                put(out, at, self.look.develop(lit.astype(np.float32), at))

    # Geometry -----------------------------------------------------------------------------------------------------

    def _make_subjects(self, source: SourceFrame, recipe: dict[str, Any], seed: int) -> dict[int, Subject]:
        objects = source.header.objects
        return {
            index: make_subject(look, objects[index].size_m, objects[index].center_m, seed + index)
            for index, look in looks_of(source.header, self.roles.task_object, recipe).items()
        }

    def _points(self, source: SourceFrame, mask: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "N 3"]:
        """World points of the masked pixels."""
        at = np.flatnonzero(mask)
        return np.ascontiguousarray(self._points_at(source, at, source.depth_m.reshape(-1)[at]).T)

    def _points_at(
        self, source: SourceFrame, at: np.ndarray | slice, depth: Float32[np.ndarray, "N"]
    ) -> Float32[np.ndarray, "3 N"]:
        """World points of flat pixel indices."""
        d, eye = self._view(source)
        out = np.empty((3, len(depth)), np.float32)
        for axis, plane, own in zip(out, d.reshape(3, -1), eye, strict=True):
            np.multiply(plane[at], depth, out=axis)
            axis += own
        return out

    def _view(self, source: SourceFrame) -> tuple[Float32[np.ndarray, "3 H W"], Float32[np.ndarray, " 3"]]:
        """World directions of every pixel and the eye; kept while the camera stands still."""
        if self._rays is None:
            self._rays = view_rays(source.camera)
        return self._rays
