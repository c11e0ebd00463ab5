# SPDX-License-Identifier: Apache-2.0
"""What painted worlds are made of, one by one: materials, faces of subjects, shapes, lights, cameras' curves, against what they
were. In a whole picture a wrinkle on a bag is a fraction of a pixel; here it is not.

`python tests/test_painter_parts_golden.py` writes the numbers anew where a look was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from scenes import make_scene_episode

from retake.core.painter import foliage, light, restage, shadows, textures
from retake.core.painter.light import Light, Look
from retake.core.painter.materials import KINDS, make_material
from retake.core.painter.panels import PANELS
from retake.core.painter.photos import Panorama, photo_texture
from retake.core.painter.shapes import SHAPES, axes_of, mesh_of
from retake.core.painter.subjects import KINDS as SUBJECT_KINDS
from retake.core.painter.subjects import colour_distance, make_subject
from retake.core.painter.surface import Surface, legs_of
from retake.core.variants import load_catalogue, source_frame
from retake.core.variants.roles import find_roles

GOLDEN = Path(__file__).parent / "golden" / "painter" / "parts.json"
SHARE = 4e-3
"""Of a number: another processor rounds differently, nothing more."""
SIZES = ((0.12, 0.05, 0.14), (0.2, 0.18, 0.03))
CATALOGUE = load_catalogue().sections


def cells(texture: textures.Texture) -> list[Any]:
    """A texture as its pyramid's size, two of its levels, and samples near and far."""
    rng = np.random.default_rng(4)
    u, v, wide = rng.uniform(-1, 1, 90), rng.uniform(-1, 1, 90), np.geomspace(1e-4, 0.3, 90)
    sampled = texture.sample(*(x.astype(np.float32) for x in (u, v, wide)))
    return [
        len(texture.levels),
        texture.levels[0][::3, ::3],
        texture.levels[2],
        sampled,
        list(texture.size_m),
        texture.repeat,
    ]


def materials() -> dict[str, Any]:
    specs = {f"{section}/{name}": spec for section in ("surfaces",) for name, spec in CATALOGUE[section].items()}
    specs |= {kind: {"kind": kind, "colours": ["#a06030", "#405060"], "tile_m": 0.7} for kind in KINDS}
    return {name: cells(make_material(spec, k)) for k, (name, spec) in enumerate(specs.items()) if "photo" not in spec}


def subjects(first: int) -> dict[str, Any]:
    specs = dict(CATALOGUE["subjects"])
    specs |= {f"plain {kind}": {"kind": kind} for kind in SUBJECT_KINDS}
    rng, out = np.random.default_rng(8), {}
    ground = make_material({"kind": "wood", "colours": ["#8a5a30", "#6a4420"]}, 2)
    for k, (name, spec) in enumerate(specs.items()):
        if k % 2 != first:
            continue
        subject = make_subject(spec, SIZES[k % 4 // 2], (0.01, 0.0, -0.02), k)
        p = (rng.uniform(-1, 1, (3, 60)) * subject.half_m[:, None] + subject.center_m[:, None]).astype(np.float32)
        n = rng.normal(size=(3, 60)).astype(np.float32)
        faces = {side: getattr(subject, side) for side in ("front", "side", "top")}
        out[name] = {
            "faces": {side: [t.levels[0][::4, ::4], t.levels[3], list(t.size_m)] for side, t in faces.items()},
            "shade": subject.shade(p, n / np.linalg.norm(n, axis=0), np.geomspace(1e-4, 0.05, 60).astype(np.float32)),
            "box": [subject.half_m, subject.center_m, subject.up, subject.across, subject.through],
            "finish": [subject.roundness, subject.gloss],
            "apart": subject.apart_from(ground).front.levels[-1],
        }  # fmt: skip
    return out


def shapes() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in SHAPES:
        mesh = mesh_of(name)
        out[name] = [
            mesh.vertices,
            mesh.normals,
            mesh.faces,
            *(list(axes_of(name, s)) for s in (*SIZES, (0.05, 0.2, 0.06))),
        ]
    low, high = np.array([-0.4, 0.1], np.float32), np.array([0.6, 0.9], np.float32)
    out["legs"] = [legs_of(low, high + k, 0.75 + k, 0.0) for k in (0, 0.5)]
    return out


def lights() -> dict[str, Any]:
    out: dict[str, Any] = {}
    up, normals = (
        np.linspace(-1, 1, 9).astype(np.float32),
        np.random.default_rng(5).normal(size=(9, 3)).astype(np.float32),
    )
    for k, (name, spec) in enumerate({**CATALOGUE["lightings"], "bare": {}}.items()):
        one = Light.of(spec, np.random.default_rng(k))
        own = [one.to_sun, one.sun, one.sky, one.ground, one.exposure, one.softness, one.mean]
        out[name] = [*own, one.ambient(up), one.facing(normals), one.ambient_on(up), one.facing_on(normals.T.copy())]
    values = np.random.default_rng(6).uniform(0, 3, (3, 40 * 30)).astype(np.float32)
    for k, (name, spec) in enumerate({**CATALOGUE["looks"], "plain look": {}}.items()):
        look = Look(spec, (40, 30), np.random.default_rng(k))
        plain = look.develop(values)
        look.expose(values, 0.7)
        small = look.resized((20, 15))
        out[name] = [
            plain,
            look.develop(values),
            look.gain,
            small.vignette,
            small.grain,
            look.background_blur,
            look.table[::37],
        ]
    out["curves"] = [light._curve(c, lift)[::41] for c, lift in ((1.0, 0.0), (1.3, 0.1), (0.7, 0.02))]
    return out


def colours() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    some = rng.random((20, 3)).astype(np.float32)
    image = rng.random((24, 36, 3)).astype(np.float32)
    u, v, wide = (rng.uniform(a, b, 50).astype(np.float32) for a, b in ((-2, 2), (-2, 2), (1e-3, 0.4)))
    out: dict[str, Any] = {
        "gamma": textures.gamma(some), "noise": [textures.noise(32, np.random.default_rng(k), c, o) for k, (c, o) in enumerate(
            (((4, 4), 4), ((2, 8), 1), ((1, 3), 3)))],
        "mix": textures.mix(some[0], some[1], np.linspace(-0.5, 1.5, 16).reshape(4, 4).astype(np.float32)),
        "linear": [textures.linear(c) for c in ("#336699", "#ffffff", "#010203")],
        "distance": [colour_distance(a, b) for a, b in zip(some[:9], some[9:], strict=False)],
        "wrapped": [textures.wrapped(u * 50, p) for p in (8, 100)],
    }  # fmt: skip
    for repeat in (True, False):
        for picture in (image, (image * 255).astype(np.uint8)):
            texture = textures.Texture.of(picture, (0.5, 0.3), repeat)
            found = [texture.sample(u, v, w) for w in (wide, 0 * wide + 0.02, 0 * wide + 9)]
            out[f"texture {repeat} {picture.dtype}"] = [found, len(texture.levels)]
    points = rng.normal(size=(80, 3)).astype(np.float32)
    surface = Surface({"kind": "wood", "colours": ["#8a5a30", "#6a4420"], "tile_m": 0.5}, 3, points, np.arange(80) > 20)
    out["surface"] = [surface.low, surface.high]
    return out


WOOD = ["#8a5a30", "#c8b090", "#34506a", "#a04030", "#d0d0c8"]


def strips(image: np.ndarray) -> dict[str, np.ndarray]:
    """Of a picture that holds thin lines: sums of narrow strips know each of them."""
    return {str(y): image[y : y + 24] for y in range(0, len(image), 24)}


def panels() -> dict[str, Any]:
    out: dict[str, Any] = {}
    sizes = ((1.7, 1.1, WOOD), (0.9, 0.62, WOOD[:2]), (3.1, 2.3, WOOD[:1]), (9.5, 0.4, WOOD[:3]))
    for number, (name, paint) in enumerate(PANELS.items()):
        for width, height, colours in sizes:
            if len(colours) < 2 and name in ("racking", "goods", "pictures"):
                colours = ["#000000", "#000000"]
            texture = paint(np.random.default_rng(number), width, height, colours)
            out[f"{name} {width}"] = [strips(texture.levels[0]), list(texture.size_m), texture.repeat]
    return out


def leaves() -> dict[str, Any]:
    rng = np.random.default_rng(12)
    low, high = np.array([0.2, -0.5, 0.1], np.float32), np.array([0.9, 0.3, 1.4], np.float32)
    spans = foliage.cluster(low, high, rng)
    rays = rng.normal(size=(3, 200)).astype(np.float32)
    eyes = [np.array([-1.0, 0.2, 0.4]), rng.normal(0, 0.3, (3, 200)).astype(np.float32)]
    hits = [foliage.enter_ellipsoid(*span, eye, rays) for eye in eyes for span in spans[:3]]
    points = (rng.normal(size=(60, 3)) * (high - low) + low).astype(np.float32)
    return {"cluster": spans, "fewer": foliage.cluster(low, high, rng, 3), "hits": hits,
            "surface": foliage.surface_of(low, high, points)}  # fmt: skip


def photographs() -> dict[str, Any]:
    """A place that was photographed, as a material and as what stands around and lights the scene."""
    out: dict[str, Any] = {}
    v, u = np.mgrid[0:64, 0:128]
    image = (
        np.stack([90 + 60 * np.sin(u / 9), 120 + 50 * np.cos(v / 7), 60 + u], -1)
        * np.where(v < 32, 1.0, 0.5)[..., None]
    )
    image[8:12, 80:86] = 255
    rng = np.random.default_rng(14)
    rays = rng.normal(size=(80, 3)).astype(np.float32)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, shown in (("plain", image), ("large", np.repeat(np.repeat(image, 17, 0), 17, 1))):
            path = Path(folder) / f"{name}.png"
            cv2.imwrite(str(path), np.clip(shown, 0, 255).astype(np.uint8))
            spec = {"photo": str(path), "sha256": name}
            for heading in (0.0, 77.0) if name == "plain" else (0.0,):
                seen = Panorama.of({**spec, "heading_deg": heading})
                out[f"{name} {heading}"] = [
                    seen.lighting(),
                    seen.colours(rays, np.full(80, 0.02, np.float32)),
                    list(seen.texture.levels[0].shape),
                ]
            for more in ({}, {"tileable": True, "tile_m": 0.6}) if name == "plain" else ():
                out[f"{name} {more}"] = cells(photo_texture({**spec, **more}))
    return out


def restaged() -> dict[str, Any]:
    """The packet of the analytic scene as bodies of every shape."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        episode = make_scene_episode(Path(folder) / "e", frames=8, size=(160, 120), wrist=True, only=range(5, 6))
        for camera in ("front", "wrist"):
            source = source_frame(episode, camera, 0)
            roles = find_roles(source)
            for shape in SHAPES:
                recipe = {"subject": {"shape": shape}, "others": [{"kind": "box"}, {"shape": "box"}]}
                bodies = restage.bodies_of(source.header, roles.task_object, recipe)
                found = restage.restaged(source, roles, bodies)
                at = restage.placed(
                    source.header, roles, bodies, source.instance_ids, source.camera, source.T_world_object
                )
                ids = source.instance_ids if at is None else at.carried(source.instance_ids)
                body = bodies[roles.task_object]
                out[f"{camera} {shape}"] = [
                    found.instance_ids, found.depth_m, found.normals, found.rgb, ids, body.vertices, body.normals, sorted(bodies),
                    restage.looks_of(source.header, roles.task_object, recipe),
                ]  # fmt: skip
    return out


def cast_shadows() -> dict[str, Any]:
    rng, out = np.random.default_rng(16), {}
    cloud = (rng.normal(size=(400, 3)) * (0.1, 0.15, 0.2) + (0.2, 0.0, 0.3)).astype(np.float32)
    grid = np.stack(np.meshgrid(np.linspace(-0.6, 0.8, 15), np.linspace(-0.6, 0.6, 13), indexing="ij"), -1)
    places = np.concatenate([grid, np.full((*grid.shape[:2], 1), 0.02)], -1).astype(np.float32)
    for lean in ((0.0, 0.0, 1.0), (0.5, -0.3, 0.8)):
        field = shadows.ShadowField(np.array(lean, np.float32), np.array([0.1, 0.0, 0.0]))
        for grow in (0, 3):
            field.add_points(cloud[grow * 60 :], **({"grow": grow} if grow else {}))
            at = field.coordinates(places)
            out[f"{lean} {grow}"] = [at, field.cast(at, 0.3), field.cast(at, 0.9), field.contact(at)]
    return out


CASES = {
    "materials": materials, "subjects": lambda: subjects(0), "further subjects": lambda: subjects(1), "shapes": shapes,
    "lights": lights, "colours": colours, "panels": panels, "leaves": leaves, "photographs": photographs,
    "restaged": restaged, "shadows": cast_shadows,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_part_is_what_it_was(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(make()) for case, make in CASES.items()})
    sys.exit(0)
