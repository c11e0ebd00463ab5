# SPDX-License-Identifier: Apache-2.0
"""Sets: what stands behind and below the scene. Boxes and walls in world coordinates, ray-cast per pixel, so that a
moving camera sees true parallax and the floor keeps its simulated height.

An environment (config/worlds/axes.yaml) is data: a room or the open, materials, and furniture along the walls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.array_types import Float32
from retake.core.errors import VariantError, unknown_name
from retake.core.painter.foliage import cluster, enter_ellipsoid, surface_of
from retake.core.painter.materials import make_material
from retake.core.painter.panels import PANELS
from retake.core.painter.photos import Panorama
from retake.core.painter.textures import Texture, linear, lookup, noise
from retake.core.variants.roles import Anchor

FAR_M = 40.0
"""Where the open ground ends in haze."""


@dataclass(frozen=True, eq=False)
class Box:
    """An axis-aligned box; faces in the order -x, +x, -y, +y, -z, +z."""

    low: Float32[np.ndarray, "3"]
    high: Float32[np.ndarray, "3"]
    faces: tuple[Texture, ...]
    leafy: bool = False
    """The ellipsoid that fills the box instead of the box; its texture is the first face."""


@dataclass(frozen=True, eq=False)
class SceneSet:
    """Everything behind and below."""

    boxes: tuple[Box, ...]
    room_low: Float32[np.ndarray, "3"]
    room_high: Float32[np.ndarray, "3"]
    floor: Texture
    walls: tuple[Texture, ...] | None
    """Inner sides -x, +x, -y, +y and ceiling; None in the open."""
    sky: dict[str, Any] | None
    """Colours of the open sky: top, horizon, land ('#rrggbb'), clouds 0..1."""
    clouds: Float32[np.ndarray, "N N"]
    water: tuple[Texture, np.ndarray, float] | None = None
    """(surface, outward direction, m from the middle of the scene) of a sea in the open."""
    center: tuple[float, float] = (0.0, 0.0)
    panorama: Panorama | None = None
    """A photograph instead of the sky, in every direction that nothing stands in."""


LEG = {"kind": "steel", "colours": ["#6d7378", "#555b60"], "tile_m": 0.5}
Corners = tuple[np.ndarray, np.ndarray]


def build_set(spec: dict[str, Any], anchor: Anchor, seed: int, legs: Sequence[Corners] = ()) -> SceneSet:
    """The set of an environment mapping, and `legs`: boxes (low, high) that the work surface stands on. Raises
    VariantError for unknown panels or materials."""
    rng = np.random.default_rng(seed)
    reach = spec.get("reach_m", [2.0, 2.0])
    center, eye = np.array(anchor.center), np.array(anchor.eye)
    half = np.array(reach, np.float64) * rng.uniform(0.92, 1.12)
    # Every camera stands in the room, clear of what stands along its walls.
    deep = max((float(f.get("depth_m", 0.5)) + float(f.get("gap_m", 0)) for f in spec.get("furniture", [])), default=0)
    clear = max(0.5, deep + 0.25)
    low = np.minimum(center - half, np.array(anchor.low[:2]) - clear)
    high = np.maximum(center + half, np.array(anchor.high[:2]) + clear)
    ceiling = max(anchor.floor_z + float(spec.get("height_m", 2.9)), anchor.high[2] + 0.4)
    room_low = np.array([*low, anchor.floor_z], np.float32)
    room_high = np.array([*high, ceiling], np.float32)
    floor = make_material(spec["floor"], int(rng.integers(2**31)))
    # The sides in view, most frontal first: their outward direction agrees with the view over the scene.
    view = center - eye[:2]
    outward = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}
    order = sorted(outward, key=lambda s: -float(np.dot(view, outward[s])))
    walls = None
    if "wall" in spec:
        special = spec.get("walls", {})
        sides = [
            _surface(special.get(str(order.index(s)), spec["wall"]), _span(room_low, room_high, s), rng)
            for s in range(4)
        ]
        walls = (*sides, make_material(spec.get("ceiling", {"kind": "plain", "colours": ["#d8d6d0", "#c9c7c0"]}), 0))
    boxes = [b for item in spec.get("furniture", []) for b in _furnish(item, room_low, room_high, order, rng)]
    boxes += [Box(low_leg, high_leg, (make_material(LEG, seed),) * 6) for low_leg, high_leg in legs]
    clouds, water = noise(256, rng, (4, 4), 6), None
    if "water" in spec:
        told = spec["water"]
        outward_of = np.array(outward[order[int(told.get("wall", 0))]], np.float32)
        water = (make_material(told, seed + 7), outward_of, float(told.get("from_m", 3.0)))
    return SceneSet(
        tuple(boxes),
        room_low,
        room_high,
        floor,
        walls,
        spec.get("sky"),
        clouds,
        water,
        (float(center[0]), float(center[1])),
        Panorama.of(spec["panorama"]) if "panorama" in spec else None,
    )


def _span(low: np.ndarray, high: np.ndarray, side: int) -> tuple[float, float]:
    along = 1 if side < 2 else 0
    return float(high[along] - low[along]), float(high[2] - low[2])


def _surface(
    spec: dict[str, Any], size: tuple[float, float], rng: np.random.Generator, material_seed: int | None = None
) -> Texture:
    """A painted panel of that size, or a repeating material (one for all sides of a furniture entry)."""
    seed = int(rng.integers(2**31))
    if "panel" in spec:
        if spec["panel"] not in PANELS:
            raise VariantError(unknown_name("panel", str(spec["panel"]), PANELS))
        return PANELS[spec["panel"]](np.random.default_rng(seed), *size, spec.get("colours", ()))
    return make_material(spec, seed if material_seed is None else material_seed)


def _furnish(
    item: dict[str, Any], low: np.ndarray, high: np.ndarray, order: list[int], rng: np.random.Generator
) -> list[Box]:
    """Boxes of one furniture entry along a wall: `wall` 0 = most frontal; `along` share of the wall; sizes in metres."""
    side = order[int(item.get("wall", 0))]
    length = _span(low, high, side)[0]
    out, count = [], int(item.get("count", 1))
    own = int(rng.integers(2**31))
    first, last = item.get("along", [0.0, 1.0])
    for i in range(count):
        width = float(item.get("width_m", 0)) or length * (last - first) / count
        width *= 1 + float(item.get("vary", 0)) * rng.uniform(-1, 1)
        slot = length * (last - first) / count
        s0 = length * first + slot * i + max(slot - width, 0) * (rng.random() if item.get("vary") else 0.5)
        depth = float(item.get("depth_m", 0.5))
        z0 = low[2] + float(item.get("z_m", 0))
        z1 = z0 + float(item["height_m"]) * (1 + float(item.get("vary", 0)) * rng.uniform(-0.8, 1))
        gap = float(item.get("gap_m", 0))
        along, across = (1, 0) if side < 2 else (0, 1)
        lo, hi = np.zeros(3, np.float32), np.zeros(3, np.float32)
        lo[along], hi[along] = low[along] + s0, low[along] + s0 + width
        if side % 2 == 0:
            lo[across], hi[across] = low[across] + gap, low[across] + gap + depth
        else:
            lo[across], hi[across] = high[across] - gap - depth, high[across] - gap
        lo[2], hi[2] = z0, min(z1, float(high[2]) - 0.01)
        front = item.get("front", item.get("body", {"kind": "plain"}))
        body = item.get("body", {"kind": "plain", "colours": ["#8a8a8a"]})
        top = body if "panel" in item.get("top", body) else item.get("top", body)
        if item.get("shape", "box") == "plant":
            leaves = _surface(front, (1.0, 1.0), rng, own)
            out += [Box(*span, (leaves,) * 6, leafy=True) for span in cluster(lo, hi, rng)]
            continue
        if item.get("shape") == "planter":
            pot, leaves = _surface(body, (1.0, 1.0), rng, own), _surface(top, (1.0, 1.0), rng, own)
            out += [Box(*span, (pot,) * 6) for span in _pot(lo, hi)]
            out += [Box(*span, (leaves,) * 6, leafy=True) for span in cluster(*_crown(lo, hi), rng)]
            continue
        faces = []
        for face in range(6):
            if face < 4:
                extent = (float(hi[1] - lo[1]) if face < 2 else float(hi[0] - lo[0]), float(hi[2] - lo[2]))
                inward = face == (side ^ 1)
                faces.append(_surface(front if inward else body, extent, rng, own))
            else:
                faces.append(_surface(top, (1.0, 1.0), rng, own))
        out.append(Box(lo, hi, tuple(faces)))
    return out


def _pot(low: np.ndarray, high: np.ndarray) -> list[Corners]:
    """A pot in the lower part of a planter's box: its body stands back behind the rim, and a foot behind the body. m."""
    height, inset = high[2] - low[2], 0.08 * (high[:2] - low[:2])
    levels = ((0.0, 0.05, 2.0), (0.05, 0.5, 1.0), (0.5, 0.62, 0.0))
    return [
        (
            np.array([*(low[:2] + k * inset), low[2] + a * height], np.float32),
            np.array([*(high[:2] - k * inset), low[2] + b * height], np.float32),
        )
        for a, b, k in levels
    ]


def _crown(low: np.ndarray, high: np.ndarray) -> Corners:
    """Where what grows in a planter is: from within the pot to a third above the box, as wide as the rim and a little more."""
    height, over = high[2] - low[2], 0.06 * (high[:2] - low[:2])
    return (
        np.array([*(low[:2] - over), low[2] + 0.52 * height], np.float32),
        np.array([*(high[:2] + over), high[2] + 0.35 * height], np.float32),
    )


@dataclass(frozen=True, eq=False)
class SetHit:
    """What rays see of a set. All arrays are per ray."""

    albedo: Float32[np.ndarray, "N 3"]
    normal: Float32[np.ndarray, "N 3"]
    points: Float32[np.ndarray, "N 3"]
    forward_m: Float32[np.ndarray, "N"]
    """Forward depth; 0 in the sky."""
    distance_m: Float32[np.ndarray, "N"]
    glow: Float32[np.ndarray, "N"]
    """1 where the surface shines by itself (sky), 0 where it needs light."""
    occlusion: Float32[np.ndarray, "N"]
    """0 open … 1 buried: darkening in corners and beside furniture."""
    label: np.ndarray[Any, Any]
    """Which face was hit; -1 for the sky."""


def cast_set(scene: SceneSet, eye: np.ndarray, d: Float32[np.ndarray, "N 3"], pixel_rad: float) -> SetHit:
    """Colours of rays eye + t·d (d with unit forward component: t is forward depth; world frame, m)."""
    n = len(d)
    length = np.sqrt(d[:, 0] ** 2 + d[:, 1] ** 2 + d[:, 2] ** 2).astype(np.float32)
    eye = eye.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inv = [np.ascontiguousarray(1.0 / d[:, axis], np.float32) for axis in range(3)]
        columns = [np.ascontiguousarray(d[:, axis], np.float32) for axis in range(3)]
    best = np.full(n, np.inf, np.float32)
    code = np.full(n, -1, np.int32)  # 6·box + face; room walls and floor follow
    base = 6 * len(scene.boxes)
    # Floor, then walls and ceiling from the inside: the nearest exit.
    planes = [(2, scene.room_low[2], base)]
    if scene.walls is not None:
        limits = [(0, scene.room_low[0]), (0, scene.room_high[0]), (1, scene.room_low[1]), (1, scene.room_high[1])]
        planes += [(axis, value, base + 1 + k) for k, (axis, value) in enumerate([*limits, (2, scene.room_high[2])])]
    for axis, value, label in planes:
        t = (value - eye[axis]) * inv[axis]
        better = (t > 1e-4) & (t < best)
        if label == base and scene.walls is None:
            better &= t * length < FAR_M
        best[better], code[better] = t[better], label
    for index, box in enumerate(scene.boxes):
        if box.leafy:
            t = enter_ellipsoid(box.low, box.high, eye, columns)
            hit = np.flatnonzero((t > 1e-4) & (t < best))
            best[hit], code[hit] = t[hit], 6 * index
            continue
        hit, t, face = _slab(box, eye, inv, best)
        best[hit], code[hit] = t, 6 * index + face
    forward = np.where(np.isfinite(best), best, 0)
    points = eye + d * forward[:, None]
    albedo, normal, glow = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32), np.zeros(n, np.float32)
    distance = np.where(np.isfinite(best), best * length, FAR_M).astype(np.float32)
    for label in np.unique(code):
        on = np.flatnonzero(code == label)
        if label < 0:
            seen = d[on] / length[on, None]
            wide = np.full(len(on), pixel_rad, np.float32)
            albedo[on] = _sky(scene, seen) if scene.panorama is None else scene.panorama.colours(seen, wide)
            glow[on] = 1.0
            continue
        if label < base and (box := scene.boxes[label // 6]).leafy:
            normal[on], u, v = surface_of(box.low, box.high, points[on])
            albedo[on] = box.faces[0].sample(u, v, distance[on] * pixel_rad)
            continue
        texture, axis, sign, low, high = _face(scene, int(label), base)
        normal[on, axis] = sign
        p = points[on]
        u, v = _uv(p, axis, sign, low, high)
        cos = np.maximum(np.abs(d[on, axis]) / length[on], 0.12)
        wide = distance[on] * pixel_rad / np.sqrt(cos)
        albedo[on] = texture.sample(u, v, wide)
        if label == base and scene.water is not None:
            sea, outward, shore = scene.water
            off = (p[:, :2] - np.array(scene.center, np.float32)) @ outward
            # The water's edge winds a little, with a line of foam.
            edge = off - shore - 0.25 * np.sin(1.3 * (p[:, 0] + p[:, 1])) - 0.1 * np.sin(4.1 * (p[:, 0] - p[:, 1]))
            share = np.clip(edge / 0.25, 0, 1)[:, None]
            foam = np.exp(-((edge / 0.14) ** 2))[:, None]
            albedo[on] = albedo[on] * (1 - share) + sea.sample(u, v, wide) * share
            albedo[on] = albedo[on] * (1 - foam) + 0.85 * foam
    if scene.walls is None and scene.sky is not None and scene.panorama is None:
        haze = np.clip((distance - 9) / (FAR_M - 9), 0, 1)[:, None] ** 0.8 * (1 - glow[:, None])
        albedo = albedo * (1 - haze) + linear(scene.sky["horizon"]) * haze * 0.9
        glow = np.maximum(glow, haze[:, 0])
    return SetHit(albedo, normal, points, forward, distance, glow, _occlusion(scene, points, normal, glow), code)


def _span_of(box: Box, eye: Any, inv: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave a box. Axis by axis: reductions over a last axis of three are 20 times slower."""
    enter = leave = np.zeros(0, np.float32)
    for axis in range(3):
        a, b = (box.low[axis] - eye[axis]) * inv[axis], (box.high[axis] - eye[axis]) * inv[axis]
        near, far = np.minimum(a, b), np.maximum(a, b)
        enter = near if axis == 0 else np.maximum(enter, near)
        leave = far if axis == 0 else np.minimum(leave, far)
    return enter, leave


def _slab(
    box: Box, eye: np.ndarray, inv: Sequence[np.ndarray], limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of rays that enter the box before `limit`, entry parameter and face."""
    enter, leave = _span_of(box, eye, inv)
    hit = np.flatnonzero((enter < leave) & (enter > 1e-4) & (enter < limit))
    best, face = enter[hit], np.zeros(len(hit), np.int32)
    for axis in range(3):
        slope = inv[axis][hit]
        side = np.where(slope < 0, box.high[axis], box.low[axis])
        face = np.where((side - eye[axis]) * slope == best, 2 * axis + (slope < 0), face)
    return hit, best, face


def blocked(scene: SceneSet, points: np.ndarray, to_light: np.ndarray) -> Float32[np.ndarray, "N"]:
    """1 where furniture hides the light direction from a point, else 0."""
    out = np.zeros(len(points), np.float32)
    with np.errstate(divide="ignore"):
        inv = [np.float32(1.0 / c) for c in to_light]
    columns = [np.ascontiguousarray(points[:, axis]) for axis in range(3)]
    for box in scene.boxes:
        if box.leafy:
            enter = enter_ellipsoid(box.low, box.high, columns, [np.float32(c) for c in to_light])
            out[np.isfinite(enter) & (enter > 5e-3)] = 1
            continue
        enter, leave = _span_of(box, columns, inv)
        out[(enter < leave) & (enter > 5e-3)] = 1
    return out


def _face(scene: SceneSet, label: int, base: int) -> tuple[Texture, int, float, np.ndarray, np.ndarray]:
    if label < base:
        box, face = scene.boxes[label // 6], label % 6
        return box.faces[face], face // 2, (1.0 if face % 2 else -1.0), box.low, box.high
    if label == base:
        return scene.floor, 2, 1.0, scene.room_low, scene.room_high
    assert scene.walls is not None
    k = label - base - 1
    axis = (0, 0, 1, 1, 2)[k]
    return scene.walls[k], axis, (1.0, -1.0, 1.0, -1.0, -1.0)[k], scene.room_low, scene.room_high


def _uv(p: np.ndarray, axis: int, sign: float, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surface coordinates in metres from the upper left corner as seen from the side the normal points to."""
    if axis == 2:
        return p[:, 0] - low[0], p[:, 1] - low[1]
    along = 1 if axis == 0 else 0
    # Looking against +x, y grows to the right; looking against +y, x grows to the left.
    rightward = sign > 0 if axis == 0 else sign < 0
    u = p[:, along] - low[along] if rightward else high[along] - p[:, along]
    return u, high[2] - p[:, 2]


def _sky(scene: SceneSet, d: np.ndarray) -> np.ndarray:
    """Gradient, clouds, and a line of hills at the horizon."""
    sky = scene.sky or {"top": "#8fb4dc", "horizon": "#dfe9f0", "land": "#7b8f78"}
    up = np.clip(d[:, 2], 0, 1)
    colour = linear(sky["horizon"]) + (linear(sky["top"]) - linear(sky["horizon"])) * (up[:, None] ** 0.55)
    clouds = float(sky.get("clouds", 0.4))
    scale = 90 / np.maximum(d[:, 2], 0.06)
    lump = lookup(
        scene.clouds, np.mod(d[:, 0] * scale + 128, 256).astype(np.float32),
        np.mod(d[:, 1] * scale + 128, 256).astype(np.float32), 3,
    )  # fmt: skip
    cover = np.clip((lump - 1.2 + 1.4 * clouds) * 0.6, 0, 1) * np.clip(up * 7, 0, 1) * clouds
    colour = colour + (linear(sky.get("cloud", "#ffffff")) * 1.05 - colour) * cover[:, None]
    azimuth = np.arctan2(d[:, 1], d[:, 0])
    ridge = 0.045 + 0.025 * np.sin(3 * azimuth + 1) + 0.014 * np.sin(11 * azimuth) + 0.006 * np.sin(29 * azimuth + 2)
    ridge = ridge * float(sky.get("hills", 1.0))
    hill = np.clip((ridge - d[:, 2]) / 0.004, 0, 1)[:, None]
    land = linear(sky["land"]) * 0.55 + linear(sky["horizon"]) * 0.3
    return (colour + (land - colour) * hill).astype(np.float32)


REACH_M = 1.6
"""How far furniture darkens the floor at all: below half a ten-thousandth beyond."""


def _occlusion(scene: SceneSet, p: np.ndarray, normal: np.ndarray, glow: np.ndarray) -> np.ndarray:
    """Cheap corner darkening: distance to the nearest wall edge, and to furniture standing on the floor."""
    out = np.zeros(len(p), np.float32)
    if scene.walls is not None:
        lo, hi = scene.room_low, scene.room_high
        for axis in range(3):
            away = np.abs(normal[:, axis]) < 0.5
            gap = np.minimum(p[:, axis] - lo[axis], hi[axis] - p[:, axis])
            out += np.where(away, 0.33 * np.exp(-np.maximum(gap, 0) / 0.35), 0)
    floor = np.flatnonzero((normal[:, 2] > 0.5) & (p[:, 2] < scene.room_low[2] + 1e-3))
    x, y, dark = p[floor, 0], p[floor, 1], out[floor]
    for box in scene.boxes:
        if box.low[2] > scene.room_low[2] + 0.5:
            continue
        across, along = (
            np.maximum(np.maximum(box.low[axis] - own, own - box.high[axis]), 0) for axis, own in ((0, x), (1, y))
        )
        near = np.flatnonzero((across < REACH_M) & (along < REACH_M))
        dark[near] += 0.5 * np.exp(-np.hypot(across[near], along[near]) / 0.16)
    out[floor] = dark
    return np.clip(out, 0, 0.75) * (1 - np.clip(glow, 0, 1))
