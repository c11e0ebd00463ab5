# SPDX-License-Identifier: Apache-2.0
"""A URDF or MJCF robot as a stage to capture: converted once, put on a floor, lit, and seen by a camera that fits it.

Conversions are kept where compiled kernels are, under the content hash of the description and what lies beside it. The
robot's own files are never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdLux, UsdPhysics

from retake.core.array_types import Float64
from retake.core.errors import MissingDependencyError, StageError
from retake.core.files import sha256_file, sha256_json
from retake.newton.converter_host import elsewhere, file_of, packages_of
from retake.newton.engine import cache_dir
from retake.usd.articulation import find_articulations
from retake.usd.shapes import link_box
from retake.usd.stage import open_stage
from retake.usd.units import StageUnits

ROOTS = {"robot": "urdf", "mujoco": "mjcf", "mujocoinclude": "mjcf"}
"""Root element of a description -> what it is; a URDF may be named .xml as well."""
CONVERTERS = ("urdf-usd-converter==0.3.4", "mujoco-usd-converter==0.8.0")
HOST = Path(__file__).with_name("converter_host.py")
GLTF = Path(__file__).with_name("gltf.py")
VIEW = np.array([0.75, -0.55, 0.38])
"""From the robot's middle to the camera."""
FOCAL, APERTURE = 18.0, 20.955
CLEARANCE = 0.08
"""Of the robot's size: how far above the floor it hangs where its base is not its lowest part."""
FLOOR_M = 20.0
MARKER_M = 5.0
"""A link as large as this is a line or a plane that marks something, and not framed."""
SCENERY = ("PhysicsScene", "Camera", "Floor", "Sun")
"""Names of what a robot is put among."""


def kind_of(file: Path) -> str:
    """`urdf` or `mjcf`, by the file's root element. Raises StageError saying what was found."""
    try:
        root = ElementTree.parse(file).getroot().tag
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise StageError(f"{file} is no robot description: {error}; expected XML (URDF or MJCF)") from error
    if root not in ROOTS:
        raise StageError(f"{file} is no robot description: its root is <{root}>; expected <robot> (URDF) or <mujoco>")
    return ROOTS[root]


def converter_python() -> Path:
    """The interpreter that has the converters: RETAKE_CONVERTERS, else the cache's, else this checkout's zoo.

    Raises MissingDependencyError with the two commands that make one.
    """
    own = cache_dir().parent / "converters" / "bin" / "python"
    places = [Path(os.environ["RETAKE_CONVERTERS"])] if os.environ.get("RETAKE_CONVERTERS") else []
    places += [own, Path(__file__).resolve().parents[4] / ".zoo" / "venv" / "bin" / "python"]
    for python in places:
        if python.is_file():
            return python
    raise MissingDependencyError(
        "reading URDF and MJCF needs the converters in an environment of their own (they bring another USD library): "
        f"{Path(sys.executable).name} -m venv {own.parents[1]} && {own} -m pip install {' '.join(CONVERTERS)}; "
        "or name an interpreter that has them: RETAKE_CONVERTERS=/path/to/python"
    )


def described(file: Path) -> Path:
    """The stage of a robot description, converted if that is not done yet.

    Raises StageError with the converter's last sentence when it refuses, MissingDependencyError when it is not there.
    """
    file = Path(file).resolve()
    if not file.is_file():
        raise StageError(f"robot description {file} does not exist; expected a .urdf, .xml or .mjcf file")
    kind = kind_of(file)
    kept = cache_dir().parent / "robots" / _fingerprint(file)
    scene = kept / "scene.usda"
    if scene.is_file():
        return scene
    python = converter_python()
    partial = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        done = subprocess.run(
            [str(python), str(HOST), kind, str(file), str(partial)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no reason given"]
            raise StageError(f"{file} cannot be converted: {lines[-1].strip()}")
        name = json.loads((partial / "converted.json").read_text("utf-8"))["stage"]
        scene_around(partial / "stage" / name, partial / "scene.usda", model=file.stem)
        shutil.rmtree(kept, ignore_errors=True)
        partial.rename(kept)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return scene


def _fingerprint(file: Path) -> str:
    """Content of the description, and names, sizes and times of its meshes: the files beside and below it, and those beside
    each file that it names elsewhere (a package's `meshes` beside its `urdf`)."""
    around = sorted(p for p in file.parent.rglob("*") if p.is_file())[:5000]
    for folder in sorted({place.parent for place in _named(file)}):
        if not folder.is_relative_to(file.parent):
            around += sorted(p for p in folder.iterdir() if p.is_file())
    beside = [
        [
            str(p.relative_to(file.parent) if p.is_relative_to(file.parent) else p),
            p.stat().st_size,
            p.stat().st_mtime_ns,
        ]
        for p in around
    ]
    return sha256_json(
        [file.name, sha256_file(file), beside, sha256_file(HOST), sha256_file(GLTF), sha256_file(Path(__file__))]
    )[:24]


def _named(file: Path) -> set[Path]:
    """Meshes, textures and further descriptions that a description names and that are there."""
    packages, found, waiting, folders = packages_of(file), set[Path](), [file], [file.parent]
    while waiting:
        one = waiting.pop()
        try:
            root = ElementTree.parse(one).getroot()
        except ElementTree.ParseError:  # the converter says what is wrong with it
            continue
        for compiler in root.iter("compiler"):
            folders += [file.parent / d for d in map(compiler.get, ("meshdir", "texturedir", "assetdir")) if d]
        for name in filter(None, (e.get("filename") or e.get("file") for e in root.iter())):
            if "://" in name:
                named = file_of(name, file, packages)
                places = [named if named.is_file() else elsewhere(name, named, file)]
            else:
                places = [one.parent / name, *(folder / name for folder in folders)]
            new = {place.resolve() for place in places if place is not None and place.is_file()} - found
            found |= new
            waiting += [place for place in new if place.suffix.lower() in (".xml", ".mjcf")]
    return found


def scene_around(robot: Path, out: Path, *, model: str, pinned: bool = True) -> Path:
    """Write a stage that references a robot's: on a floor, lit, with a camera on it, its base held unless `pinned` is off.

    A robot that nothing balances would only fall; who simulates a controller puts the robot on a stage of one's own.
    """
    source = open_stage(robot)
    stage = Usd.Stage.CreateNew(str(out))
    UsdGeom.SetStageMetersPerUnit(stage, UsdGeom.GetStageMetersPerUnit(source))
    UsdPhysics.SetStageKilogramsPerUnit(stage, UsdPhysics.GetStageKilogramsPerUnit(source))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.GetStageUpAxis(source))
    world = UsdGeom.Xform.Define(stage, "/World")
    stage.SetDefaultPrim(world.GetPrim())
    UsdPhysics.Scene.Define(stage, "/World/PhysicsScene")
    # Before the robot, whose own stage may hold cameras: the first camera is the one that is recorded.
    camera = UsdGeom.Camera.Define(stage, "/World/Camera")
    name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in model)
    own = name[:1].isalpha() and name not in SCENERY
    holder = UsdGeom.Xform.Define(stage, f"/World/{name if own else f'robot_{name}'}")
    holder.GetPrim().GetReferences().AddReference(os.path.relpath(robot, out.parent))
    units = StageUnits.of(stage)
    unit = 1.0 / units.metres_per_unit
    low, high, base = _extent(stage, units)
    up = units.R_world_stage.T @ np.array([0.0, 0.0, 1.0])
    if np.isfinite(low).all():
        if low[2] < base - 1e-3:
            # What hangs lower than the base shall not begin in the floor.
            low = low - [0, 0, CLEARANCE * float(np.linalg.norm(high - low))]
        lift = holder.AddTranslateOp(opSuffix="onFloor")
        lift.Set(Gf.Vec3d(*(up * (-low[2]) * unit)))
        holder.SetXformOpOrder(
            [lift, *[op for op in holder.GetOrderedXformOps() if op.GetOpName() != lift.GetOpName()]]
        )
        low, high = low - [0, 0, low[2]], high - [0, 0, low[2]]
    else:
        low, high = np.array([-0.5, -0.5, 0.0]), np.array([0.5, 0.5, 1.0])
    if pinned:
        _pin(stage)
    floor = UsdGeom.Cube.Define(stage, "/World/Floor")
    floor.CreateSizeAttr(1.0)
    size = units.R_world_stage.T @ np.array([FLOOR_M, FLOOR_M, 1.0])
    floor.AddTranslateOp().Set(Gf.Vec3d(*(-0.505 * up * unit)))
    floor.AddScaleOp().Set(Gf.Vec3f(*(np.abs(size) * unit)))
    floor.CreateDisplayColorAttr([(0.45, 0.44, 0.42)])
    UsdPhysics.CollisionAPI.Apply(floor.GetPrim())
    sun = UsdLux.DistantLight.Define(stage, "/World/Sun")
    turn = units.R_world_stage.T @ _looking(np.array([-0.5, 0.4, -0.77]))
    sun.AddTransformOp().Set(_matrix(turn, np.zeros(3)))
    camera.CreateFocalLengthAttr(FOCAL)
    camera.CreateHorizontalApertureAttr(APERTURE)
    camera.CreateClippingRangeAttr(Gf.Vec2f(0.01 * unit, 100 * unit))
    view, middle = VIEW / np.linalg.norm(VIEW), (low + high) / 2
    # A 4:3 picture is the tighter one upwards.
    half = np.arctan(APERTURE * 0.75 / 2 / FOCAL)
    distance = max(float(np.linalg.norm(high - low)) / 2 * 1.15 / np.sin(half), 0.3)
    place = units.R_world_stage.T @ (middle + view * distance)
    camera.AddTransformOp().Set(_matrix(units.R_world_stage.T @ _looking(-view), place * unit))
    # Of `stage` alone: what somebody has changed in the robot's own layers and not saved stays theirs.
    stage.GetRootLayer().Save()
    return out


def _extent(stage: Usd.Stage, units: StageUnits) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"], float]:
    """Corners of the box around all links, and the lowest point of a base, m, Z up; infinite where nothing has geometry."""
    low, high, base = np.full(3, np.inf), np.full(3, -np.inf), np.inf
    for robot in find_articulations(stage).robots:
        for link, T in zip(robot.spec.links, robot.T_world_link, strict=True):
            box = link_box(stage, link.prim_path, units)
            if np.isfinite(box).all() and np.ptp(box, axis=0).max() < MARKER_M:
                corners = np.array([[x, y, z] for x in box[:, 0] for y in box[:, 1] for z in box[:, 2]])
                points = corners @ T[:3, :3].T + T[:3, 3]
                low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
                if link.prim_path == robot.spec.links[robot.spec.root].prim_path:
                    base = min(base, float(points[:, 2].min()))
    return low, high, base


def _pin(stage: Usd.Stage) -> None:
    """Fix the base of every robot that nothing holds where it is."""
    for number, robot in enumerate(find_articulations(stage).robots):
        if robot.fixed_base:
            continue
        base = stage.GetPrimAtPath(robot.spec.links[robot.spec.root].prim_path)
        place = UsdGeom.XformCache().GetLocalToWorldTransform(base).RemoveScaleShear()
        joint = UsdPhysics.FixedJoint.Define(stage, f"/World/hold_base_{number}")
        joint.CreateBody1Rel().SetTargets([base.GetPath()])
        joint.CreateLocalPos0Attr(Gf.Vec3f(place.ExtractTranslation()))
        joint.CreateLocalRot0Attr(Gf.Quatf(place.ExtractRotationQuat()))
        joint.CreateLocalPos1Attr(Gf.Vec3f(0))
        joint.CreateLocalRot1Attr(Gf.Quatf(1))


def _looking(direction: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation of a USD camera or light (looks along −Z, +Y up) that looks along a direction of a Z-up world."""
    back = -direction / np.linalg.norm(direction)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back], axis=1)


def _matrix(R: Float64[np.ndarray, "3 3"], t: Float64[np.ndarray, "3"]) -> Gf.Matrix4d:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    return Gf.Matrix4d(T.T.tolist())
