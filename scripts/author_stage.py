# SPDX-License-Identifier: Apache-2.0
"""Author the demo stages: the pick-and-place scene around a robot, and a six-axis robot made of primitives.

    python scripts/author_stage.py                       # rewrites data/stages/{pick_place,sixaxis}
    python scripts/author_stage.py --out DIR --object-size 0.1 0.06 0.12 --object-mass 0.2 --tray 0.5 0.3

Metres, Z up, kilograms. Everything a task can vary is a parameter of `Scene`; `retake capture` varies the same things in
memory (config/capture), so files need rewriting only for a scene of one's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from pxr import Gf, Sdf, Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade, Vt

ROOT = Path(__file__).resolve().parent.parent
STAGES = ROOT / "data" / "stages"

FLOOR_Z = -0.75
VELOCITY_LIMITS_PANDA = {**dict.fromkeys(range(1, 5), 2.175), **dict.fromkeys(range(5, 8), 2.61)}
"""rad/s, from the manufacturer's data sheet; the robot's own file states none."""


@dataclass(frozen=True)
class Mount:
    """The wrist camera on the link that carries the fingers."""

    link: str
    """Prim path below /World."""
    position_m: tuple[float, float, float]
    look: tuple[float, float, float]
    """Viewing direction in the link's frame."""
    up: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """One pick-and-place scene."""

    robot_name: str
    robot_asset: str
    wrist: Mount
    object_size_m: tuple[float, float, float] = (0.12, 0.05, 0.14)
    object_mass_kg: float = 0.1
    object_place_m: tuple[float, float] = (0.5, -0.2)
    object_yaw_deg: float = 0.0
    tray_place_m: tuple[float, float] = (0.45, 0.35)
    tray_size_m: tuple[float, float, float] = (0.25, 0.25, 0.05)
    friction: float = 1.0
    velocity_limits: tuple[tuple[str, float], ...] = ()
    """Joint name and rad/s (m/s for a slide), for robots whose own file states none."""


PANDA = Scene(
    "Panda",
    "./panda.usdc",
    Mount("Panda/panda_hand", (0.075, 0.0, 0.0), (-0.30, 0.0, 1.0), (1.0, 0.0, 0.0)),
    velocity_limits=(
        *((f"panda_joint{i}", v) for i, v in VELOCITY_LIMITS_PANDA.items()),
        ("panda_finger_joint1", 0.2),
        ("panda_finger_joint2", 0.2),
    ),
)
SIXAXIS = Scene(
    "SixAxis", "./sixaxis.usda", Mount("SixAxis/palm", (0.01, 0.085, 0.0), (1.0, -0.32, 0.0), (0.0, 1.0, 0.0))
)


def new_stage(path: Path, root: str) -> Usd.Stage:
    path.parent.mkdir(parents=True, exist_ok=True)
    # On its own path from the start, so that references beside it resolve while it is authored.
    path.unlink(missing_ok=True)
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(60.0)  # isaac-sim.sh steps its timeline by them; 24 where none are authored
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, root).GetPrim())
    stage.GetRootLayer().customLayerData = {"licence": "Apache-2.0"}
    return stage


def save(stage: Usd.Stage, path: Path) -> None:
    stage.GetRootLayer().Save()
    print(path)


def look(stage: Usd.Stage, path: str, colour: tuple[float, float, float], roughness: float = 0.5) -> UsdShade.Material:
    material = UsdShade.Material.Define(stage, path)
    shader = UsdShade.Shader.Define(stage, f"{path}/Surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set(Gf.Vec3f(*colour))
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(roughness)
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    return material


def textured_look(stage: Usd.Stage, path: str, image: str) -> UsdShade.Material:
    material = look(stage, path, (1, 1, 1))
    reader = UsdShade.Shader.Define(stage, f"{path}/St")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = UsdShade.Shader.Define(stage, f"{path}/Tex")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(image)
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    surface = UsdShade.Shader(stage.GetPrimAtPath(f"{path}/Surface"))
    surface.GetInput("diffuseColor").ConnectToSource(texture.ConnectableAPI(), "rgb")
    return material


def friction_material(stage: Usd.Stage, path: str, friction: float) -> UsdShade.Material:
    material = UsdShade.Material.Define(stage, path)
    physics = UsdPhysics.MaterialAPI.Apply(material.GetPrim())
    physics.CreateStaticFrictionAttr(1.2 * friction)
    physics.CreateDynamicFrictionAttr(friction)
    physics.CreateRestitutionAttr(0.0)
    return material


def bind(prim: Usd.Prim, visual: UsdShade.Material | None, physics: UsdShade.Material | None) -> None:
    api = UsdShade.MaterialBindingAPI.Apply(prim)
    if visual:
        api.Bind(visual)
    if physics:
        api.Bind(physics, UsdShade.Tokens.weakerThanDescendants, "physics")


def label(prim: Usd.Prim, text: str) -> None:
    """Semantic label, as UsdSemantics writes it (the schema needs no plugin to be read)."""
    prim.AddAppliedSchema("SemanticsLabelsAPI:class")
    prim.CreateAttribute("semantics:labels:class", Sdf.ValueTypeNames.TokenArray).Set(Vt.TokenArray([text]))


def box(
    stage: Usd.Stage,
    path: str,
    size: tuple[float, float, float],
    at: tuple[float, float, float],
    visual: UsdShade.Material | None = None,
    physics: UsdShade.Material | None = None,
) -> Usd.Prim:
    cube = UsdGeom.Cube.Define(stage, path)
    cube.CreateSizeAttr(1.0)
    cube.CreateExtentAttr([Gf.Vec3f(-0.5), Gf.Vec3f(0.5)])
    cube.AddTranslateOp().Set(Gf.Vec3d(*at))
    cube.AddScaleOp().Set(Gf.Vec3f(*size))
    if physics:
        UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    bind(cube.GetPrim(), visual, physics)
    return cube.GetPrim()


def box_mesh(stage: Usd.Stage, path: str, size: tuple[float, float, float], visual: UsdShade.Material) -> None:
    """A box as a mesh with texture coordinates on each side: the whole picture on every face."""
    half = [s / 2 for s in size]
    points, uvs, indices = [], [], []
    for axis in (0, 1, 2):
        u, v = ((1, 2), (0, 2), (0, 1))[axis]
        for sign in (1, -1):
            corners = []
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                p = [0.0, 0.0, 0.0]
                p[axis], p[u], p[v] = sign * half[axis], a * half[u], b * half[v]
                corners.append((p, ((a + 1) / 2, (b + 1) / 2)))
            # Outward winding and texture that reads the right way round from outside.
            mirrored = (sign > 0) == (axis == 1)
            if mirrored:
                corners = [(p, (1 - st[0], st[1])) for p, st in reversed(corners)]
            start = len(points)
            points += [Gf.Vec3f(*p) for p, _ in corners]
            uvs += [Gf.Vec2f(*st) for _, st in corners]
            indices += [start, start + 1, start + 2, start, start + 2, start + 3]
    mesh = UsdGeom.Mesh.Define(stage, path)
    mesh.CreatePointsAttr(points)
    mesh.CreateFaceVertexCountsAttr([3] * (len(indices) // 3))
    mesh.CreateFaceVertexIndicesAttr(indices)
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateExtentAttr([Gf.Vec3f(*[-h for h in half]), Gf.Vec3f(*half)])
    primvar = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    primvar.Set(uvs)
    bind(mesh.GetPrim(), visual, None)


def orientation(direction: tuple[float, float, float], up: tuple[float, float, float]) -> Gf.Quatf:
    """Orientation of a USD camera or light (looks along -Z, +Y up) that looks along a direction."""
    z = -Gf.Vec3d(*direction).GetNormalized()
    x = (Gf.Vec3d(*up) ^ z).GetNormalized()
    y = z ^ x
    return Gf.Quatf(Gf.Matrix3d(*x, *y, *z).ExtractRotation().GetQuat())


def camera(
    stage: Usd.Stage, path: str, at: tuple[float, float, float], q: Gf.Quatf, focal: float, near: float
) -> UsdGeom.Camera:
    """A 4:3 pinhole camera, lens in millimetres (tenths of a stage unit by USD's definition; only ratios count)."""
    cam = UsdGeom.Camera.Define(stage, path)
    cam.CreateFocalLengthAttr(focal)
    cam.CreateHorizontalApertureAttr(26.5)
    cam.CreateVerticalApertureAttr(19.875)
    cam.CreateClippingRangeAttr(Gf.Vec2f(near, 100.0))
    cam.AddTranslateOp().Set(Gf.Vec3d(*at))
    cam.AddOrientOp().Set(q)
    return cam


def author_scene(path: Path, scene: Scene) -> None:
    """Table, tray, packet, pedestal, floor, cameras and lights around a referenced robot."""
    stage = new_stage(path, "/World")
    physics = UsdPhysics.Scene.Define(stage, "/World/PhysicsScene")
    physics.CreateGravityDirectionAttr(Gf.Vec3f(0, 0, -1))
    physics.CreateGravityMagnitudeAttr(9.81)
    robot = UsdGeom.Xform.Define(stage, f"/World/{scene.robot_name}").GetPrim()
    robot.GetReferences().AddReference(scene.robot_asset)

    grip = friction_material(stage, "/World/Looks/phys", scene.friction)
    table = look(stage, "/World/Looks/table", (0.33, 0.22, 0.12))
    tray = look(stage, "/World/Looks/tray", (0.03, 0.12, 0.4))
    floor = look(stage, "/World/Looks/floor", (0.30, 0.31, 0.33))
    stand = look(stage, "/World/Looks/pedestal", (0.12, 0.13, 0.15))
    packet = textured_look(stage, "/World/Looks/packet", "./packet.png")

    label(box(stage, "/World/Table", (0.8, 1.2, 0.04), (0.5, 0, -0.02), table, grip), "table")
    label(box(stage, "/World/Floor", (8, 8, 0.02), (0, 0, FLOOR_Z - 0.01), floor), "floor")
    # Beside the table, never through it: the base stands at x = 0, the table begins at x = 0.1.
    height = -FLOOR_Z - 0.001
    label(box(stage, "/World/Pedestal", (0.18, 0.22, height), (-0.01, 0, -0.001 - height / 2), stand), "pedestal")

    root = UsdGeom.Xform.Define(stage, "/World/Tray").GetPrim()
    label(root, "tray")
    (x, y), (w, d, h), wall = scene.tray_place_m, scene.tray_size_m, 0.01
    box(stage, "/World/Tray/base", (w - wall, d - wall, 0.01), (x, y, 0.005), tray, grip)
    for i, (sx, sy) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        size = (wall, d, h) if sx else (w, wall, h)
        at = (x + sx * (w - wall) / 2, y + sy * (d - wall) / 2, h / 2)
        box(stage, f"/World/Tray/wall{i}", size, at, tray, grip)

    body = UsdGeom.Xform.Define(stage, "/World/Packet")
    # A tenth of a millimetre above the table, so that the first step starts without overlap.
    body.AddTranslateOp().Set(Gf.Vec3d(*scene.object_place_m, scene.object_size_m[2] / 2 + 1e-4))
    half = math.radians(scene.object_yaw_deg) / 2
    body.AddOrientOp().Set(Gf.Quatf(math.cos(half), 0, 0, math.sin(half)))
    UsdPhysics.RigidBodyAPI.Apply(body.GetPrim())
    UsdPhysics.MassAPI.Apply(body.GetPrim()).CreateMassAttr(scene.object_mass_kg)
    label(body.GetPrim(), "packet")
    collision = box(stage, "/World/Packet/collision", scene.object_size_m, (0, 0, 0), None, grip)
    UsdGeom.Imageable(collision).CreatePurposeAttr(UsdGeom.Tokens.guide)
    box_mesh(stage, "/World/Packet/visual", scene.object_size_m, packet)

    cam = camera(
        stage, "/World/Camera", (1.5, -0.9, 0.95), Gf.Quatf(0.76727784, 0.4773925, 0.22622634, 0.36359695), 24.0, 0.05
    )
    label(cam.GetPrim(), "camera")
    mount = scene.wrist
    camera(stage, f"/World/{mount.link}/wrist_camera", mount.position_m, orientation(mount.look, mount.up), 16.0, 0.01)
    # References compose the link; only the camera below it is authored here.
    stage.GetRootLayer().GetPrimAtPath(f"/World/{mount.link}").specifier = Sdf.SpecifierOver

    sun = UsdLux.DistantLight.Define(stage, "/World/Sun")
    sun.CreateAngleAttr(1.0)
    sun.CreateIntensityAttr(1500)
    sun.AddOrientOp().Set(Gf.Quatf(0.9143088, 0.242313, 0.083139464, 0.31370643))
    UsdLux.DomeLight.Define(stage, "/World/Dome").CreateIntensityAttr(300)

    for name, limit in scene.velocity_limits:
        joint = stage.OverridePrim(f"/World/{scene.robot_name}/joints/{name}")
        value = limit if "finger" in name else math.degrees(limit)
        joint.CreateAttribute("physxJoint:maxJointVelocity", Sdf.ValueTypeNames.Float).Set(value)
    save(stage, path)


# The six-axis robot. Its convention is deliberately another than the Panda's: every link's bone runs along its own +X,
# the palm reaches along +X and opens along Z, and a finger joint is 0 when open and grows towards closed.
BONES_M = {"base": 0.20, "turret": 0.12, "upper": 0.42, "elbow": 0.20, "forearm": 0.18, "wrist": 0.08, "palm": 0.06}
MASSES_KG = {"base": 6.0, "turret": 3.0, "upper": 3.0, "elbow": 1.5, "forearm": 1.0, "wrist": 0.6, "palm": 0.5}
RADII_M = {"base": 0.075, "turret": 0.065, "upper": 0.050, "elbow": 0.045, "forearm": 0.040, "wrist": 0.036}
JOINTS = (  # name, axis, home rad, limit rad, stiffness N·m/rad, effort N·m
    ("yaw", "X", 0.0, 2.9, 4000, 120),
    ("shoulder", "Y", 0.15, 2.2, 4000, 120),
    ("bend", "Y", 1.55, 2.6, 3000, 90),
    ("roll", "X", 0.0, 2.9, 2000, 40),
    ("pitch", "Y", math.pi - 1.70, 2.3, 2000, 40),
    ("turn", "X", math.pi / 2, 3.0, 1500, 25),
)
FINGER_TRAVEL_M, FINGER_LENGTH_M = 0.045, 0.075


def author_sixaxis(path: Path) -> None:
    """Six revolute joints, two sliding fingers, primitives only."""
    stage = new_stage(path, "/SixAxis")
    root = stage.GetDefaultPrim()
    UsdPhysics.ArticulationRootAPI.Apply(root)
    grip = friction_material(stage, "/SixAxis/Looks/grip", 1.0)
    body = look(stage, "/SixAxis/Looks/body", (0.55, 0.20, 0.03))
    trim = look(stage, "/SixAxis/Looks/trim", (0.05, 0.06, 0.08))
    names = list(BONES_M)
    # Home pose, so that the stage shows the robot as it starts; at zero every link points straight up.
    pose = Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(0, 1, 0), -90))
    poses = {"base": pose}
    for (_, axis, home, *_), parent, child in zip(JOINTS, names[:-1], names[1:], strict=True):
        turn = Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(*(float(axis == a) for a in "XYZ")), math.degrees(home)))
        pose = turn * Gf.Matrix4d().SetTranslate(Gf.Vec3d(BONES_M[parent], 0, 0)) * pose
        poses[child] = pose
    for side, sign in (("left", 1.0), ("right", -1.0)):
        at = Gf.Vec3d(BONES_M["palm"], 0, sign * FINGER_TRAVEL_M)
        poses[f"{side}_finger"] = Gf.Matrix4d().SetTranslate(at) * poses["palm"]
    for name, matrix in poses.items():
        link = UsdGeom.Xform.Define(stage, f"/SixAxis/{name}")
        link.AddTranslateOp().Set(matrix.ExtractTranslation())
        link.AddOrientOp().Set(Gf.Quatf(matrix.ExtractRotationQuat()))
        prim = link.GetPrim()
        UsdPhysics.RigidBodyAPI.Apply(prim)
        UsdPhysics.MassAPI.Apply(prim).CreateMassAttr(MASSES_KG.get(name, 0.1))
        prim.CreateAttribute("mjc:gravcomp", Sdf.ValueTypeNames.Float).Set(1.0)
        prim.CreateAttribute("physxRigidBody:disableGravity", Sdf.ValueTypeNames.Bool).Set(True)
        if name in RADII_M:
            bone(stage, f"{prim.GetPath()}", BONES_M[name], RADII_M[name], body, trim)
    box(stage, "/SixAxis/palm/housing", (0.05, 0.06, 0.13), (0.035, 0, 0), trim, grip)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        size, at = (FINGER_LENGTH_M, 0.022, 0.012), (FINGER_LENGTH_M / 2, 0, sign * 0.006)
        box(stage, f"/SixAxis/{side}_finger/pad", size, at, body, grip)

    UsdGeom.Scope.Define(stage, "/SixAxis/joints")
    anchor = UsdPhysics.FixedJoint.Define(stage, "/SixAxis/joints/anchor")
    anchor.CreateBody1Rel().SetTargets([Sdf.Path("/SixAxis/base")])
    anchor.CreateLocalRot0Attr(Gf.Quatf(poses["base"].ExtractRotationQuat()))
    for (name, axis, home, limit, stiffness, effort), parent, child in zip(JOINTS, names[:-1], names[1:], strict=True):
        joint = UsdPhysics.RevoluteJoint.Define(stage, f"/SixAxis/joints/{name}")
        connect(joint, parent, child, axis, (BONES_M[parent], 0, 0))
        joint.CreateLowerLimitAttr(-math.degrees(limit))
        joint.CreateUpperLimitAttr(math.degrees(limit))
        # UsdPhysics angular drives are per degree.
        drive(
            joint.GetPrim(),
            "angular",
            math.radians(stiffness),
            math.radians(stiffness / 25),
            effort,
            math.degrees(home),
        )
        velocity_limit(joint.GetPrim(), math.degrees(3.0))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        joint = UsdPhysics.PrismaticJoint.Define(stage, f"/SixAxis/joints/{side}_slide")
        connect(joint, "palm", f"{side}_finger", "Z", (BONES_M["palm"], 0, sign * FINGER_TRAVEL_M))
        if sign > 0:
            # Half a turn about X on both sides: positive travel goes inwards, the finger's own frame stays put.
            for attribute in (joint.CreateLocalRot0Attr, joint.CreateLocalRot1Attr):
                attribute(Gf.Quatf(0, 1, 0, 0))
        joint.CreateLowerLimitAttr(0.0)
        joint.CreateUpperLimitAttr(FINGER_TRAVEL_M)
        drive(joint.GetPrim(), "linear", 2000, 50, 40, 0.0)
        velocity_limit(joint.GetPrim(), 0.25)
    save(stage, path)


def bone(
    stage: Usd.Stage, link: str, length: float, radius: float, visual: UsdShade.Material, trim: UsdShade.Material
) -> None:
    """A capsule along +X as collider and look, and a ring at the joint it turns about."""
    # The base stands on the pedestal: a capsule's round end would reach into it.
    standing = link.endswith("/base")
    capsule = (UsdGeom.Cylinder if standing else UsdGeom.Capsule).Define(stage, f"{link}/bone")
    capsule.CreateAxisAttr("X")
    capsule.CreateRadiusAttr(radius)
    capsule.CreateHeightAttr(length)
    reach = length / 2 + (0.0 if standing else radius)
    capsule.CreateExtentAttr([Gf.Vec3f(-reach, -radius, -radius), Gf.Vec3f(reach, radius, radius)])
    capsule.AddTranslateOp().Set(Gf.Vec3d(length / 2, 0, 0))
    UsdPhysics.CollisionAPI.Apply(capsule.GetPrim())
    bind(capsule.GetPrim(), visual, None)
    ring = UsdGeom.Cylinder.Define(stage, f"{link}/ring")
    ring.CreateAxisAttr("Y")
    ring.CreateRadiusAttr(radius * 0.8)
    ring.CreateHeightAttr(radius * 2.3)
    ring.CreateExtentAttr(
        [Gf.Vec3f(-radius * 0.8, -radius * 1.15, -radius * 0.8), Gf.Vec3f(radius * 0.8, radius * 1.15, radius * 0.8)]
    )
    ring.AddTranslateOp().Set(Gf.Vec3d(length, 0, 0))
    bind(ring.GetPrim(), trim, None)


def connect(
    joint: UsdPhysics.RevoluteJoint | UsdPhysics.PrismaticJoint,
    parent: str,
    child: str,
    axis: str,
    at: tuple[float, float, float],
) -> None:
    joint.CreateAxisAttr(axis)
    joint.CreateBody0Rel().SetTargets([Sdf.Path(f"/SixAxis/{parent}")])
    joint.CreateBody1Rel().SetTargets([Sdf.Path(f"/SixAxis/{child}")])
    joint.CreateLocalPos0Attr(Gf.Vec3f(*at))
    joint.CreateLocalPos1Attr(Gf.Vec3f(0))
    joint.CreateLocalRot0Attr(Gf.Quatf(1))
    joint.CreateLocalRot1Attr(Gf.Quatf(1))


def drive(prim: Usd.Prim, kind: str, stiffness: float, damping: float, force: float, target: float) -> None:
    api = UsdPhysics.DriveAPI.Apply(prim, kind)
    api.CreateTypeAttr("force")
    api.CreateStiffnessAttr(stiffness)
    api.CreateDampingAttr(damping)
    api.CreateMaxForceAttr(force)
    api.CreateTargetPositionAttr(target)
    prim.CreateAttribute(f"state:{kind}:physics:position", Sdf.ValueTypeNames.Float).Set(target)


def velocity_limit(prim: Usd.Prim, value: float) -> None:
    prim.CreateAttribute("physxJoint:maxJointVelocity", Sdf.ValueTypeNames.Float).Set(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=STAGES, help="folder that receives pick_place/ and sixaxis/")
    parser.add_argument("--object-size", type=float, nargs=3, metavar="M", help="packet extents x y z, m")
    parser.add_argument("--object-mass", type=float, metavar="KG")
    parser.add_argument("--object-place", type=float, nargs=2, metavar="M", help="packet x y on the table, m")
    parser.add_argument("--object-yaw", type=float, metavar="DEG")
    parser.add_argument("--tray", type=float, nargs=2, metavar="M", help="tray x y on the table, m")
    parser.add_argument("--friction", type=float, help="dynamic friction of table, tray and packet")
    options = parser.parse_args()
    given = {
        "object_size_m": options.object_size and tuple(options.object_size),
        "object_mass_kg": options.object_mass,
        "object_place_m": options.object_place and tuple(options.object_place),
        "object_yaw_deg": options.object_yaw,
        "tray_place_m": options.tray and tuple(options.tray),
        "friction": options.friction,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    for name, scene in (("pick_place", PANDA), ("sixaxis", SIXAXIS)):
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for asset in ("packet.png", "panda.usdc", "LICENSE-panda.txt"):
            source = STAGES / name / asset
            if source.exists() and source.parent != folder:
                shutil.copyfile(source, folder / asset)
        if name == "sixaxis":
            author_sixaxis(folder / "sixaxis.usda")
        author_scene(folder / "scene.usda", dataclasses.replace(scene, **changes))


if __name__ == "__main__":
    main()
