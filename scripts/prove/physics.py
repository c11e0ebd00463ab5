# SPDX-License-Identifier: Apache-2.0
"""Proof of the embedded simulator: real grasps, right forces, right geometry, on two robots.

| what                                                              | bound                    |
|-------------------------------------------------------------------|--------------------------|
| the packet ends in the tray                                       | >= 95 % of 40 seeds      |
| with friction 0 everywhere it is never lifted                     | 0 of 10 seeds            |
| mean contact force while carried at constant velocity = weight    | 2 %                      |
| same seed, another process: same content hash                     | equal                    |
| robot and object masks against our own projection of the geometry | 1 px                     |
| link poses against our own forward kinematics                     | 1e-6 m                   |
| USD camera against OpenCV projection (USD's frustum as oracle)    | 1e-6 of the image's size |

The functions here are also what tests/test_newton_physics.py runs at reduced counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pxr import Gf, Usd, UsdGeom

from retake.core.camera import Camera
from retake.core.episode import Episode
from retake.core.files import sha256_json, write_bytes, write_json
from retake.core.geometry import inverse, transform
from retake.newton import engine
from retake.newton.preset import load_preset
from retake.newton.run import capture, command
from retake.newton.scenario import build
from retake.newton.simulator import Simulator
from retake.usd.camera import read_camera
from retake.usd.stage import body_of, stage_sha256
from retake.usd.units import StageUnits, world_pose

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES = {"panda": "pick_place/scene.usda", "sixaxis": "sixaxis/scene.usda"}
LIFTED_M = 0.01
"""A packet whose centre rises more than this was lifted (a successful lift raises it by more than 80 mm)."""


@dataclass(frozen=True)
class Trial:
    """One episode without images."""

    robot: str
    seed: int
    in_target: bool
    rise_m: float
    """Highest rise of the object's centre."""
    force_over_weight: float
    """Mean upward contact force on the object in the constant-velocity stretch, over its weight."""
    slip_m: float
    """Farthest that the object moved in the hand between grasp and release."""
    penetration_m: float


def trial(robot: str, seed: int, *, preset: str = "short", friction: float | None = None) -> Trial:
    """Simulate one scripted pick and drop at physics rate."""
    overrides: dict[str, Any] = {"stage": STAGES[robot]}
    if friction is not None:
        overrides["randomise"] = {"friction": friction}
    settings = load_preset(preset, overrides).without_cameras()
    scenario = build(settings, seed)
    sim = Simulator(scenario.stage, scenario.robots, settings.dt_s, friction=scenario.variation.friction)
    obj, spec = scenario.objects[0].spec, scenario.robots[0].spec
    body = sim.body_index(obj.prim_path)
    hand = sim.body_index(spec.links[spec.link_index(spec.grippers[0].ee_link)].prim_path)
    task = scenario.motion.settings["task"]
    (begin, end), grasp, release = task["constant_velocity_s"], task["grasp_s"], task["release_s"]
    start, forces, heights, held, deepest = sim.pose(body)[2, 3], [], [], [], 0.0
    for step in range((settings.frames - 1) * settings.steps_per_frame):
        command(sim, scenario.motion, sim.time_s + settings.dt_s)
        sim.step()
        heights.append(sim.pose(body)[2, 3])
        if begin <= sim.time_s <= end:
            forces.append(sim.contact_force(body))
        if step % settings.steps_per_frame == 0:
            m = sim.measure()
            deepest = max([deepest, *(c.penetration_m for c in m.contacts)])
            if grasp <= m.time_s < release:
                held.append((inverse(m.T_world_body[hand]) @ m.T_world_body[body])[:3, 3])
    goal = scenario.goal
    assert goal is not None
    assert obj.mass_kg is not None
    centre = transform(sim.pose(body), np.array(obj.center_m))
    inside = (np.abs(centre - goal["center_m"]) <= np.array(goal["size_m"]) / 2).all()
    return Trial(
        robot, seed, bool(inside), float(max(heights) - start),
        float(np.mean(forces, 0)[2] / (obj.mass_kg * 9.81)),
        float(np.linalg.norm(np.array(held) - held[0], axis=1).max()), deepest,
    )  # fmt: skip


@dataclass(frozen=True)
class Solid:
    """Geometry of one body in its own frame, m: a triangle soup and convex point sets."""

    triangles: np.ndarray[Any, Any]
    convex: tuple[np.ndarray[Any, Any], ...]


def solids(stage: Usd.Stage) -> dict[str, Solid]:
    """Visible geometry per rigid body (and per static prim), read with pxr alone."""
    units = StageUnits.of(stage)
    collected: dict[str, tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]] = {}
    cache = UsdGeom.XformCache(Usd.TimeCode.Default())
    for prim in stage.Traverse():
        if not prim.IsA(UsdGeom.Gprim) or UsdGeom.Imageable(prim).ComputePurpose() == UsdGeom.Tokens.guide:
            continue
        body = body_of(prim)
        if body is None:
            continue
        # Collision hulls hide behind visual meshes where a body has both.
        if prim.GetName() == "collision":
            continue
        matrix = cache.GetLocalToWorldTransform(prim)
        to_body = inverse(world_pose(body, units))

        def place(points: Any, matrix: Gf.Matrix4d = matrix, to_body: np.ndarray[Any, Any] = to_body) -> np.ndarray:
            world = np.array([matrix.Transform(Gf.Vec3d(*map(float, p))) for p in points]) * units.metres_per_unit
            return transform(to_body, world @ units.R_world_stage.T)

        triangles, convex = collected.setdefault(str(body.GetPath()), ([], []))
        if prim.IsA(UsdGeom.Mesh):
            mesh = UsdGeom.Mesh(prim)
            points, indices = place(mesh.GetPointsAttr().Get()), np.array(mesh.GetFaceVertexIndicesAttr().Get())
            at = 0
            faces = []
            for count in mesh.GetFaceVertexCountsAttr().Get():
                faces += [(indices[at], indices[at + k], indices[at + k + 1]) for k in range(1, count - 1)]
                at += count
            triangles.append(points[np.array(faces)])
        else:
            convex.append(place(_surface_points(prim)))
    return {
        path: Solid(np.concatenate(triangles) if triangles else np.zeros((0, 3, 3)), tuple(convex))
        for path, (triangles, convex) in collected.items()
    }


def _surface_points(prim: Usd.Prim) -> np.ndarray[Any, Any]:
    """Points whose convex hull is the primitive (cube, or a capsule or cylinder sampled finely)."""
    if prim.IsA(UsdGeom.Cube):
        half = UsdGeom.Cube(prim).GetSizeAttr().Get() / 2
        return np.stack(np.meshgrid(*[[-half, half]] * 3, indexing="ij"), -1).reshape(-1, 3)
    capsule = prim.IsA(UsdGeom.Capsule)
    shape = UsdGeom.Capsule(prim) if capsule else UsdGeom.Cylinder(prim)
    radius, height, axis = (
        shape.GetRadiusAttr().Get(),
        shape.GetHeightAttr().Get(),
        "XYZ".index(shape.GetAxisAttr().Get()),
    )
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    tilts = np.linspace(0, np.pi / 2, 30) if capsule else np.array([0.0])
    rows = []
    for end in (-1, 1):
        for tilt in tilts:
            r, z = radius * np.cos(tilt), end * (height / 2 + radius * np.sin(tilt))
            rows.append(np.stack([r * np.cos(turn), r * np.sin(turn), np.full_like(turn, z)], -1))
    points = np.concatenate(rows)
    # The axis column moves into place; a cyclic shift keeps the frame right-handed.
    return np.roll(points, axis - 2, axis=1)


def silhouette(solid: Solid, T_world_body: np.ndarray[Any, Any], camera: Camera, out: np.ndarray[Any, Any]) -> None:
    """Fill a body's projection into a mask (H, W) uint8. Every point must be in front of the camera."""
    scale = 16

    def pixels(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        uv, depth = camera.project(transform(T_world_body, points))
        assert (depth > 0).all(), "silhouette needs points in front of the camera"
        # cv2 counts pixel centres as whole numbers.
        return np.round((uv - 0.5) * scale).astype(np.int32)

    for triangle in pixels(solid.triangles.reshape(-1, 3)).reshape(-1, 3, 2):
        cv2.fillConvexPoly(out, triangle, 1, shift=4)
    for points in solid.convex:
        cv2.fillConvexPoly(out, cv2.convexHull(pixels(points)), 1, shift=4)


@dataclass(frozen=True)
class MaskError:
    """Disagreement of a rendered mask and a projected one."""

    what: str
    frame: int
    pixels: int
    """Size of the rendered mask."""
    beyond_1px: int
    """Pixels of either mask farther than 1 px from the other (occluded pixels do not count)."""


def mask_errors(episode: Episode, stage: Usd.Stage, frames: range, camera: str = "front") -> list[MaskError]:
    """Compare instance images with our own projection: the robot as a whole, and each movable object."""
    header, shapes = episode.header, solids(stage)
    by_owner: dict[str, list[int]] = {}
    for instance in header.instances:
        by_owner.setdefault(instance.owner, []).append(instance.id)
    every = [i for owner, ids in by_owner.items() if owner for i in ids]
    out = []
    for frame in frames:
        view, ids = episode.camera(camera, frame), episode.image(camera, "instances", frame)
        for robot in header.robots:
            projected = np.zeros(ids.shape, np.uint8)
            for link, T in zip(robot.links, episode.link_poses(robot.name)[frame], strict=True):
                if link.prim_path in shapes:
                    silhouette(shapes[link.prim_path], T, view, projected)
            out.append(_compare(f"robot:{robot.name}", frame, ids, by_owner[f"robot:{robot.name}"], projected, every))
        for index, spec in enumerate(header.objects):
            if spec.movable:
                projected = np.zeros(ids.shape, np.uint8)
                silhouette(shapes[spec.prim_path], episode.object_poses[frame, index], view, projected)
                name = f"object:{spec.name}"
                out.append(_compare(name, frame, ids, by_owner[name], projected, every))
    return out


def _compare(
    what: str, frame: int, ids: np.ndarray[Any, Any], own: list[int], projected: np.ndarray[Any, Any], every: list[int]
) -> MaskError:
    rendered = np.isin(ids, own)
    occluded = np.isin(ids, [i for i in every if i not in own])
    near = np.ones((3, 3), np.uint8)
    outside = rendered & (cv2.dilate(projected, near) == 0)
    # A pixel next to an occluder may be hidden by less than a pixel of it.
    hidden = cv2.dilate(occluded.astype(np.uint8), near) > 0
    missing = (projected > 0) & (cv2.dilate(rendered.astype(np.uint8), near) == 0) & ~hidden
    return MaskError(what, frame, int(rendered.sum()), int(outside.sum() + missing.sum()))


def frustum_error_px(count: int, seed: int = 0) -> float:
    """Largest relative disagreement (px over image size) of our projection and USD's frustum, over random cameras."""
    rng, worst = np.random.default_rng(seed), 0.0
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    camera = UsdGeom.Camera.Define(stage, "/Camera")
    op = camera.AddTransformOp()
    for _ in range(count):
        size = (int(rng.integers(16, 1920)), int(rng.integers(16, 1080)))
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        R = q * np.sign(np.linalg.det(q))
        M = np.eye(4)
        M[:3, :3], M[3, :3] = R.T, rng.normal(size=3)
        op.Set(Gf.Matrix4d(M.tolist()))
        camera.GetFocalLengthAttr().Set(float(rng.uniform(8, 60)))
        camera.GetHorizontalApertureAttr().Set(float(rng.uniform(10, 40)))
        camera.GetHorizontalApertureOffsetAttr().Set(float(rng.uniform(-3, 3)))
        camera.GetVerticalApertureOffsetAttr().Set(float(rng.uniform(-3, 3)))
        lens = camera.GetCamera(Usd.TimeCode.Default())
        lens.verticalAperture = lens.horizontalAperture * size[1] / size[0]
        frustum = lens.frustum
        local = rng.uniform([-1, -1, -4], [1, 1, -0.5], (16, 3))
        points = local @ R.T + M[3, :3]
        clip = (
            np.c_[points, np.ones(16)]
            @ np.array(frustum.ComputeViewMatrix())
            @ np.array(frustum.ComputeProjectionMatrix())
        )
        expected = (clip[:, :2] / clip[:, 3:] * [1, -1] + 1) / 2 * size
        uv, _ = read_camera(camera.GetPrim(), size).camera().project(points)
        worst = max(worst, float(np.abs(uv - expected).max()) / max(size))
    return worst


def overrides_for(robot: str, small: bool) -> dict[str, Any]:
    """The robot's stage, and small images where the proof is a quick one."""
    small_camera = {"cameras": [{"name": "front", "size": [320, 240]}]}
    return {"stage": STAGES[robot], **(small_camera if small else {})}


def hash_in_another_process(robot: str, seed: int, small: bool) -> str:
    """Content hash of a rendered episode captured by a fresh interpreter."""
    code = (
        "import sys; from pathlib import Path; from retake.newton.run import capture\n"
        f"e = capture(Path(sys.argv[1]) / 'e', seed={seed}, overrides={overrides_for(robot, small)!r})\n"
        "print(e.content_sha256)"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class _Results:
    """Finished parts, kept as one JSON line each so that an interrupted proof goes on where it stopped."""

    def __init__(self, path: Path, inputs: str) -> None:
        self.path, self.inputs = path, inputs
        self.done: dict[str, Any] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry["inputs"] == inputs:
                    self.done[entry["key"]] = entry["value"]

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The remembered value, or a new one."""
        if key not in self.done:
            self.done[key] = make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"inputs": self.inputs, "key": key, "value": self.done[key]}) + "\n")
            print(f"  {key}: {self.done[key]}", flush=True)
        return self.done[key]


def _inputs() -> str:
    """What the results depend on: stages, presets, versions, and the code of simulator and readers."""
    stages = ROOT / "data" / "stages"
    code = [*(ROOT / "exts/retake.newton").rglob("*.py"), *(ROOT / "exts/retake.usd").rglob("*.py"), Path(__file__)]
    return sha256_json(
        {
            "stages": [stage_sha256(stages / s) for s in STAGES.values()],
            "presets": [p.read_text("utf-8") for p in sorted((ROOT / "config/capture").glob("*.yaml"))],
            "code": [p.read_text("utf-8") for p in sorted(code)],
            "versions": engine.versions(),
        }
    )


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run every proof, write physics.json and physics.md into `out_dir`. Raises AssertionError when a bound is missed."""
    seeds, controls, weights, cameras = (4, 2, 1, 200) if quick else (40, 10, 5, 10_000)
    results = _Results(ROOT / ".cache" / "prove" / "physics.jsonl", _inputs())
    rows: list[dict[str, Any]] = []

    def row(what: str, count: int, value: Any, bound: str, good: bool) -> None:
        rows.append({"what": what, "count": count, "value": value, "bound": bound, "holds": bool(good)})

    for robot in STAGES:
        trials = [results.get(f"{robot} seed {s}", lambda s=s, r=robot: trial(r, s).__dict__) for s in range(seeds)]
        share = float(np.mean([t["in_target"] for t in trials]))
        row(f"{robot}: packet ends in the tray", seeds, f"{share:.1%}", ">= 95 %", share >= 0.95)
        slip = max(t["slip_m"] for t in trials)
        row(f"{robot}: largest slip in the hand", seeds, f"{slip * 1e3:.1f} mm", "reported", True)
        deepest = max(t["penetration_m"] for t in trials)
        row(f"{robot}: deepest penetration", seeds, f"{deepest * 1e3:.2f} mm", "< 5 mm", deepest < 0.005)
        zero = [
            results.get(f"{robot} friction 0 seed {s}", lambda s=s, r=robot: trial(r, s, friction=0.0).__dict__)
            for s in range(controls)
        ]
        rise = max(t["rise_m"] for t in zero)
        row(f"{robot}: friction 0, highest rise", controls, f"{rise * 1e3:.1f} mm", "< 10 mm", rise < LIFTED_M)
        carried = [
            results.get(f"{robot} weight seed {s}", lambda s=s, r=robot: trial(r, s, preset="long").__dict__)
            for s in range(weights)
        ]
        off = max(abs(t["force_over_weight"] - 1) for t in carried)
        row(f"{robot}: contact force against weight", weights, f"{off:.3%}", "<= 2 %", off <= 0.02)
        hashes = [
            results.get(f"{robot} hash {n} quick={quick}", lambda r=robot: hash_in_another_process(r, 3, quick))
            for n in range(2)
        ]
        row(f"{robot}: same seed, same hash", 2, hashes[0][:16], "equal", hashes[0] == hashes[1])
        masks = results.get(f"{robot} masks quick={quick}", lambda r=robot: _masks(r, quick))
        row(f"{robot}: mask pixels beyond 1 px", masks["masks"], masks["beyond"], "0", masks["beyond"] == 0)
        error = masks["kinematics_m"]
        row(f"{robot}: link poses against kinematics", masks["frames"], f"{error:.1e} m", "<= 1e-6 m", error <= 1e-6)
    error = results.get(f"frustum {cameras}", lambda: frustum_error_px(cameras))
    row("USD camera against OpenCV projection", cameras, f"{error:.1e} of the size", "<= 1e-6", error <= 1e-6)

    report = {"simulator": engine.versions(), "quick": quick, "rows": rows, "holds": all(r["holds"] for r in rows)}
    write_json(out_dir / "physics.json", report)
    lines = ["# Embedded simulator: measured", "", f"{engine.versions()}; CPU.", ""]
    lines += ["| what | count | value | bound | holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['what']} | {r['count']} | {r['value']} | {r['bound']} | {'yes' if r['holds'] else 'NO'} |" for r in rows
    ]
    write_bytes(out_dir / "physics.md", ("\n".join(lines) + "\n").encode())
    assert report["holds"], [r for r in rows if not r["holds"]]
    return report


def _masks(robot: str, small: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        overrides = overrides_for(robot, small)
        episode = capture(Path(folder) / "e", seed=5, overrides=overrides)
        stage = build(load_preset("short", overrides), 5).stage
        errors = mask_errors(episode, stage, range(0, len(episode), 4))
        spec, poses = episode.header.robots[0], episode.link_poses(episode.header.robots[0].name)
        expected = spec.forward_kinematics(episode.joint(spec.name, "position"), poses[:, spec.root])
        return {
            "masks": len(errors),
            "beyond": sum(e.beyond_1px for e in errors),
            "smallest_mask": min(e.pixels for e in errors),
            "frames": len(episode),
            "kinematics_m": float(np.abs(expected - poses)[..., :3, 3].max()),
        }


if __name__ == "__main__":
    prove(ROOT / "docs" / "proof", "--quick" in sys.argv)
