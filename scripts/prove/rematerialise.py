# SPDX-License-Identifier: Apache-2.0
"""Other worlds for the fault bench: an episode's exact maps (ids, normals, depth), never its colours, become a video
with random materials, lighting, scenery, blur, noise and local warps of up to 2 px. Deterministic for a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from retake.core.episode import Episode

WORLDS = (
    "plain",
    "wood",
    "tiles",
    "clutter",
    "noise",
    "stripes",
    "bricks",
    "marble",
    "leaves",
    "weave",
    "panels",
    "gravel",
)
"""Families of scenery; a split by world takes whole families."""


@dataclass(frozen=True)
class Maps:
    """The exact maps of T frames of one camera, plus what is needed to attach a texture to a moving body."""

    ids: np.ndarray
    """(T, H, W) uint16 instance ids."""
    normals: np.ndarray
    """(T, H, W, 3) int16, world, unit × 32767."""
    depth_m: np.ndarray
    """(T, H, W) float32 forward depth."""
    K: np.ndarray
    """(T, 3, 3)."""
    T_camera_world: np.ndarray
    """(T, 4, 4)."""
    bodies: dict[int, np.ndarray]
    """Instance id of a robot link or object -> (T, 4, 4) world pose of its body."""
    robot_ids: tuple[int, ...]
    object_ids: tuple[int, ...]

    @cached_property
    def behind(self) -> tuple[np.ndarray, np.ndarray]:
        """(ids, normals) of the first frame with robot and objects replaced by what later frames show there."""
        ids, normals = self.ids[0].copy(), self.normals[0].copy()
        moving = np.zeros(65536, bool)
        moving[list(self.bodies)] = True
        hidden = moving[ids]
        for later, normal in zip(self.ids[1:], self.normals[1:], strict=True):
            if not hidden.any():
                break
            seen = hidden & ~moving[later]
            ids[seen], normals[seen] = later[seen], normal[seen]
            hidden &= ~seen
        return ids, normals


def load_maps(episode: Episode, camera: str, start: int, frames: int) -> Maps:
    """The recorded maps of `frames` frames from `start`."""
    header, span = episode.header, range(start, start + frames)
    K, T = episode.camera_matrices(camera)
    bodies: dict[int, np.ndarray] = {}
    robot_ids, object_ids = [], []
    for instance in header.instances:
        kind, _, name = instance.owner.partition(":")
        if kind == "robot":
            robot = next(r for r in header.robots if r.name == name)
            links = [i for i, link in enumerate(robot.links) if inside(instance.prim_path, link.prim_path)]
            if links:
                bodies[instance.id] = episode.link_poses(name)[start : start + frames, links[-1]]
                robot_ids.append(instance.id)
        elif kind == "object":
            index = [o.name for o in header.objects].index(name)
            if header.objects[index].movable:
                bodies[instance.id] = episode.object_poses[start : start + frames, index]
                object_ids.append(instance.id)

    def images(channel: str) -> np.ndarray:
        return np.stack([episode.image(camera, channel, t) for t in span])

    return Maps(
        images("instances"), images("normals"), images("depth"), K[span.start : span.stop], T[span.start : span.stop],
        bodies, tuple(robot_ids), tuple(object_ids),
    )  # fmt: skip


def inside(path: str, root: str) -> bool:
    """Whether a prim path is `root` or below it."""
    return path == root or path.startswith(root + "/")


@dataclass(frozen=True)
class Look:
    """Every drawn property of a clean video."""

    world: str
    seed: int
    warp_px: float
    """Largest local displacement; 0 = none."""
    warp_moves: bool
    warp_scenery: bool
    blur_px: float
    noise: float
    crf: int


def draw_look(world: str, seed: int) -> Look:
    """A look of a world family: six in ten are warped, by 0.8 to 2 px, half of those by a field that moves."""
    rng = np.random.default_rng([seed, 17])
    warp = float(rng.uniform(0.8, 2.0)) if rng.random() < 0.6 else 0.0
    return Look(
        world, seed, warp, bool(rng.random() < 0.5), bool(rng.random() < 0.5),
        float(rng.uniform(0.4, 1.1)), float(rng.uniform(0.5, 5.0)), int(rng.integers(18, 29)),
    )  # fmt: skip


class Painter:
    """Paints frames of one look. The scenery of a static camera is painted once."""

    def __init__(self, look: Look, maps: Maps) -> None:
        rng = np.random.default_rng([look.seed, 5])
        self.look, self.maps, self.rng = look, maps, rng
        _, self.height, self.width = maps.ids.shape
        direction = np.array([rng.normal(), rng.normal(), rng.uniform(0.6, 2.0)])
        self.light = (direction / np.linalg.norm(direction)).astype(np.float32)
        self.ambient = float(rng.uniform(0.35, 0.6))
        self.tint = rng.uniform(0.88, 1.08, 3).astype(np.float32)
        self.shine = float(rng.uniform(0, 0.35))
        self.albedo = self._albedo()
        self.waves = {i: rng.normal(size=(3, 3)) * rng.uniform(30, 90) for i in (*maps.robot_ids, *maps.object_ids)}
        self.robot_texture = float(rng.choice([0.0, 0.08]))
        self.shadow = float(rng.uniform(0.0, 0.4)) if rng.random() < 0.6 else 0.0
        self.foreground = np.zeros(65536, bool)
        self.foreground[list(maps.bodies)] = True
        self.fields = [self._field(), self._field()]
        self.phase = rng.uniform(0, 6.28, 2)
        self.grain = [rng.normal(0, look.noise, (self.height, self.width, 3)).astype(np.float32) for _ in range(5)]
        self.static = bool(np.abs(maps.T_camera_world - maps.T_camera_world[:1]).max() < 1e-4)
        self.surfaces: dict[int, np.ndarray] = {}
        self.scenery = self._scenery()

    def _albedo(self) -> np.ndarray:
        rng, table = self.rng, np.zeros((65536, 3), np.float32)
        scheme = rng.integers(0, 4)
        base = rng.uniform(0.15, 0.95) * np.ones(3) if scheme < 2 else rng.uniform(0.1, 0.95, 3)
        for i in self.maps.robot_ids:
            table[i] = np.clip(base * rng.uniform(0.8, 1.2), 0.05, 1) if scheme != 3 else rng.uniform(0.1, 0.95, 3)
        for i in self.maps.object_ids:
            hue = np.array([[[rng.integers(0, 180), rng.integers(120, 256), rng.integers(120, 256)]]], np.uint8)
            table[i] = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0] / 255.0
        return table

    def _smooth(self, scale: int) -> np.ndarray:
        shape = (max(2, self.height // scale), max(2, self.width // scale))
        noise = self.rng.normal(size=shape).astype(np.float32)
        return cv2.resize(noise, (self.width, self.height), interpolation=cv2.INTER_CUBIC)

    def _field(self) -> np.ndarray:
        """A smooth displacement field (H, W, 2), px, of unit largest length."""
        field = np.stack([self._smooth(64), self._smooth(64)], -1)
        return field / max(float(np.linalg.norm(field, axis=-1).max()), 1e-6)

    def _texture(self) -> np.ndarray:
        """(H, W, 3) in 0..1: one surface of the family."""
        rng, h, w = self.rng, self.height, self.width
        colour = rng.uniform(0.2, 0.85, 3).astype(np.float32)
        v, u = np.mgrid[0:h, 0:w].astype(np.float32)
        angle = rng.uniform(0, np.pi)
        x, y = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        world = self.look.world
        if world == "plain":
            value = 1 + 0.05 * self._smooth(80)
        elif world == "wood":
            value = 1 + 0.15 * np.sin(y / rng.uniform(3, 8) + 2 * self._smooth(60)) + 0.05 * self._smooth(6)
        elif world == "tiles":
            pitch = rng.uniform(25, 70)
            value = np.where(((x % pitch) < 2) | ((y % pitch) < 2), 0.6, 1.0) + 0.04 * self._smooth(16)
        elif world == "stripes":
            value = 1 + 0.25 * np.sign(np.sin(x / rng.uniform(6, 18)))
        elif world == "bricks":
            long, tall = rng.uniform(30, 80), rng.uniform(12, 30)
            row = np.floor(y / tall)
            joint = ((y % tall) < 2) | (((x + 0.5 * long * (row % 2)) % long) < 2)
            tone = np.sin(12.9898 * row + 78.233 * np.floor((x + 0.5 * long * (row % 2)) / long)) * 43758.5453
            value = np.where(joint, 0.75, 0.9 + 0.25 * (tone - np.floor(tone))) + 0.04 * self._smooth(8)
        elif world == "weave":
            pitch = rng.uniform(6, 16)
            value = 1 + 0.16 * np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / pitch) + 0.05 * self._smooth(30)
        elif world == "panels":
            long, tall = rng.uniform(60, 140), rng.uniform(40, 90)
            tone = np.sin(12.9898 * np.floor(y / tall) + 78.233 * np.floor(x / long)) * 43758.5453
            edge = ((x % long) < 3) | ((y % tall) < 3)
            value = np.where(edge, 0.5, 0.75 + 0.5 * (tone - np.floor(tone))) + 0.03 * self._smooth(12)
        elif world == "gravel":
            value = 1 + 0.28 * np.sign(self._smooth(5)) * np.abs(self._smooth(9)).clip(0, 1) + 0.06 * self._smooth(2)
        elif world == "marble":
            vein = np.abs(np.sin(x / rng.uniform(20, 60) + 2.5 * self._smooth(50) + 0.8 * self._smooth(14)))
            value = 1 - 0.45 * np.exp(-vein / 0.06) + 0.05 * self._smooth(24)
        elif world == "noise":
            value = 1 + 0.18 * self._smooth(4) + 0.12 * self._smooth(12)
        else:
            value = 1 + 0.08 * self._smooth(20)
        image = colour * np.asarray(value, np.float32)[..., None]
        if world == "leaves":
            image = np.ascontiguousarray(image)
            for _ in range(220):
                centre = (int(rng.integers(0, w)), int(rng.integers(0, h)))
                axes = (int(rng.integers(5, 18)), int(rng.integers(2, 7)))
                shade = tuple(map(float, np.clip(colour * rng.uniform(0.45, 1.5), 0.03, 0.97)))
                cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, shade, -1, cv2.LINE_AA)
        if world == "clutter":
            image = np.ascontiguousarray(image)
            for _ in range(25):
                centre = (int(rng.integers(0, w)), int(rng.integers(0, h)))
                axes = (int(rng.integers(4, 50)), int(rng.integers(4, 50)))
                shade = tuple(map(float, rng.uniform(0.05, 0.95, 3)))
                if rng.random() < 0.5:
                    cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, shade, -1)
                else:
                    cv2.rectangle(image, centre, (centre[0] + axes[0], centre[1] + axes[1]), shade, -1)
        return np.clip(image, 0.02, 1)

    def _scenery(self) -> np.ndarray:
        """The scene behind robot and objects (H, W, 3) in 0..255: one texture per scenery instance, shaded."""
        ids, normals = self.maps.behind
        shade = self.ambient + (1 - self.ambient) * np.clip(normals.astype(np.float32) / 32767 @ self.light, 0, 1)
        if not self.static:
            return self._scenery_seen(0)
        image = np.zeros((self.height, self.width, 3), np.float32)
        for i in np.unique(ids):
            where = ids == i
            lit = shade[where] if i else np.ones(int(where.sum()), np.float32)
            image[where] = self._texture()[where] * lit[:, None]
        return image * self.tint * 235

    def _scenery_seen(self, t: int) -> np.ndarray:
        """The scene of a moving camera: textures fixed to the world, 400 px per metre."""
        maps = self.maps
        ids, normals = maps.ids[t], maps.normals[t].astype(np.float32) / 32767
        v, u = np.mgrid[0 : self.height, 0 : self.width]
        K, z = maps.K[t], maps.depth_m[t].astype(np.float64)
        p = np.stack([(u + 0.5 - K[0, 2]) / K[0, 0] * z, (v + 0.5 - K[1, 2]) / K[1, 1] * z, z], -1)
        T = maps.T_camera_world[t]
        world = (p - T[:3, 3]) @ T[:3, :3]
        column = ((world[..., 0] + 0.6 * world[..., 2]) * 400).astype(int) % self.width
        row = ((world[..., 1] + 0.3 * world[..., 2]) * 400).astype(int) % self.height
        shade = self.ambient + (1 - self.ambient) * np.clip(normals @ self.light, 0, 1)
        image = np.zeros((self.height, self.width, 3), np.float32)
        for i in np.unique(ids):
            if not self.foreground[i]:
                if int(i) not in self.surfaces:
                    self.surfaces[int(i)] = cv2.GaussianBlur(self._texture(), (0, 0), 1.0)
                where = ids == i
                lit = shade[where] if i else np.ones(int(where.sum()), np.float32)
                image[where] = self.surfaces[int(i)][row[where], column[where]] * lit[:, None]
        return image * self.tint * 235

    def frame(self, t: int) -> np.ndarray:
        """Frame t as uint8 RGB (H, W, 3), before compression."""
        maps, look = self.maps, self.look
        ids = maps.ids[t]
        mask = self.foreground[ids]
        image = self.scenery.copy() if self.static else self._scenery_seen(t)
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            pad = 8
            y0, y1 = max(rows[0] - pad, 0), min(rows[-1] + pad, self.height)
            x0, x1 = max(columns[0] - pad, 0), min(columns[-1] + pad, self.width)
            box = np.s_[y0:y1, x0:x1]
            layer, alpha = self._layer(t, box), mask[box].astype(np.float32)
            if look.warp_px and not look.warp_scenery:
                grid = self._grid(t, y0, y1, x0, x1)
                layer = cv2.remap(layer, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                alpha = cv2.remap(alpha, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
            if self.shadow:
                cast = cv2.GaussianBlur(alpha, (0, 0), 6)
                moved = cv2.warpAffine(cast, np.array([[1, 0, 10], [0, 1, 14]], np.float32), (x1 - x0, y1 - y0))
                image[box] *= 1 - self.shadow * moved[..., None]
            image[box] += (layer - image[box]) * alpha[..., None]
        if look.warp_px and look.warp_scenery:
            grid = self._grid(t, 0, self.height, 0, self.width)
            image = cv2.remap(image, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image = cv2.GaussianBlur(image, (0, 0), look.blur_px) + np.roll(self.grain[t % 5], 37 * t, axis=1)
        return np.clip(image, 0, 255).astype(np.uint8)

    def _grid(self, t: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        a, b = self.fields
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * t / 60 + self.phase[0]) if self.look.warp_moves else 1.0
        field = (a[y0:y1, x0:x1] * mix + b[y0:y1, x0:x1] * (1 - mix)) * self.look.warp_px
        v, u = np.mgrid[0 : y1 - y0, 0 : x1 - x0].astype(np.float32)
        return (np.stack([u, v], -1) + field).astype(np.float32)

    def _layer(self, t: int, box: tuple[slice, slice]) -> np.ndarray:
        """Shaded robot and objects inside a box, 0..255; near black elsewhere."""
        maps = self.maps
        ids = maps.ids[t][box]
        layer = np.full((*ids.shape, 3), 0.01, np.float32)
        rows, columns = np.nonzero(self.foreground[ids])
        shown = ids[rows, columns]
        lambert = np.clip(maps.normals[t][box][rows, columns].astype(np.float32) / 32767 @ self.light, 0, 1)
        shade = self.ambient + (1 - self.ambient) * lambert + self.shine * lambert**24
        colours = self.albedo[shown] * shade[:, None]
        textured = (*maps.object_ids, *(maps.robot_ids if self.robot_texture else ()))
        K, depth = maps.K[t], maps.depth_m[t][box]
        for i in textured:
            where = np.flatnonzero(shown == i)
            if not len(where):
                continue
            z = depth[rows[where], columns[where]].astype(np.float64)
            x = (columns[where] + box[1].start + 0.5 - K[0, 2]) / K[0, 0] * z
            y = (rows[where] + box[0].start + 0.5 - K[1, 2]) / K[1, 1] * z
            T_camera_body = maps.T_camera_world[t] @ maps.bodies[i][t]
            body = (np.stack([x, y, z], -1) - T_camera_body[:3, 3]) @ T_camera_body[:3, :3]
            wave = np.sin(body @ self.waves[i]).sum(-1)
            strength = 0.22 if i in maps.object_ids else self.robot_texture
            colours[where] *= (1 + strength * np.clip(wave, -1, 1))[:, None].astype(np.float32)
        layer[rows, columns] = np.clip(colours, 0.01, 1.1)
        return layer * self.tint * 235
