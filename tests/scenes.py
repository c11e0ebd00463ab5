# SPDX-License-Identifier: Apache-2.0
"""A small analytic world, ray-cast with exact depth, normals and instance ids, written as a real Episode.

A cylindrical robot (yaw, lift, reach, two fingers) picks a box off a table, carries it over a tray and lets it fall.
Everything has a closed form: joint positions give link poses through `RobotSpec.forward_kinematics`, the held object
follows the hand rigidly, the released one follows ½·g·t² and then rests on the tray's base. Cameras: `front` (fixed)
and, if asked, `wrist` (moving). Any other scene can be drawn with `Solid` and `ray_cast`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retake.core.camera import Camera
from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Contact,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    Instance,
    ObjectSpec,
    PhysicsSamples,
    RobotState,
    encode_normals,
)
from retake.core.geometry import axis_angle, inverse, pose_from_wxyz, transform
from retake.core.lens import Lens
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec

GRAVITY = 9.81
PACKET_SIZE = (0.12, 0.05, 0.14)
PACKET_MASS_KG = 0.1
TOOL_M = 0.105  # from the hand's origin to the point between the finger tips
DOWN = np.diag([1.0, -1.0, -1.0, 1.0])  # half a turn about x: the hand's +Z points at the table
SUN = np.array([0.35, -0.45, 0.82]) / np.linalg.norm([0.35, -0.45, 0.82])
# Shares of the episode at which each phase ends.
PHASES = {"approach": 0.12, "descend": 0.24, "grasp": 0.30, "lift": 0.42, "carry": 0.60, "release": 0.64, "rest": 1.0}


@dataclass(frozen=True)
class Solid:
    """A box (full extents `size`) or a capsule (`size` = (radius, half length along z, 0)) in a frame of its own."""

    kind: str
    size: tuple[float, float, float]
    T_world_solid: np.ndarray
    instance: int
    colour: tuple[float, float, float]
    stripes: bool = False
    """Draw a printed label: stripes along the solid's z, so that the surface has edges of its own."""


def translation(x: float, y: float, z: float) -> np.ndarray:
    """A pose without rotation, metres."""
    T = np.eye(4)
    T[:3, 3] = (x, y, z)
    return T


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """T_camera_world of an upright camera at `eye` looking at `target` (OpenCV axes)."""
    z = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = np.stack([x, np.cross(z, x), z], -1)
    T_world_camera[:3, 3] = eye
    return inverse(T_world_camera)


def _hit_box(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        near = (-np.sign(d) * half - o) / d
        far = (np.sign(d) * half - o) / d
    near, far = np.where(d == 0, -np.inf, near), np.where(d == 0, np.inf, far)
    axis = near.argmax(-1)
    t = np.take_along_axis(near, axis[..., None], -1)[..., 0]
    hit = (t < far.min(-1)) & (t > 1e-6) & ~((d == 0) & (np.abs(o) > half)).any(-1)
    normal = np.zeros_like(d)
    np.put_along_axis(normal, axis[..., None], -np.sign(np.take_along_axis(d, axis[..., None], -1)), -1)
    return np.where(hit, t, np.inf), normal


def _hit_capsule(o: np.ndarray, d: np.ndarray, radius: float, half: float) -> tuple[np.ndarray, np.ndarray]:
    best, normal = np.full(d.shape[:-1], np.inf), np.zeros_like(d)
    for end in (None, -half, half):
        if end is None:
            oo, dd = o[..., :2], d[..., :2]
        else:
            oo, dd = o - [0, 0, end], d
        a, b, c = (dd * dd).sum(-1), (oo * dd).sum(-1), (oo * oo).sum(-1) - radius**2
        root = b * b - a * c
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (-b - np.sqrt(np.maximum(root, 0))) / a
        p = o + d * np.where(np.isfinite(t), t, 0)[..., None]
        good = (root > 0) & (t > 1e-6) & (t < best)
        good &= np.abs(p[..., 2]) <= half if end is None else (p[..., 2] - end) * np.sign(end) >= 0
        n = p * [1, 1, 0] if end is None else p - [0, 0, end]
        best = np.where(good, t, best)
        normal = np.where(good[..., None], n / radius, normal)
    return best, normal


def _hit(solid: Solid, o_world: np.ndarray, d_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ray parameter (inf = miss) and world normal, for rays o + t·d."""
    R, p = solid.T_world_solid[:3, :3], solid.T_world_solid[:3, 3]
    o, d = (o_world - p) @ R, d_world @ R
    if solid.kind == "box":
        t, n = _hit_box(o, d, np.array(solid.size) / 2)
    else:
        t, n = _hit_capsule(o, d, solid.size[0], solid.size[1])
    return t, n @ R.T


def _bounding_radius(solid: Solid) -> float:
    return float(np.linalg.norm(solid.size)) / 2 if solid.kind == "box" else solid.size[0] + solid.size[1]


def _window(solid: Solid, camera: Camera) -> tuple[slice, slice]:
    """Image rows and columns that can show the solid (its bounding sphere's square); everything when close."""
    width, height = camera.size
    radius = _bounding_radius(solid)
    x, y, z = transform(camera.T_camera_world, solid.T_world_solid[:3, 3])
    if z < 1.5 * radius + 1e-3 or camera.lens is not None:
        return slice(0, height), slice(0, width)
    near = z - radius
    u, v = camera.K[0, 0] * x / z + camera.K[0, 2], camera.K[1, 1] * y / z + camera.K[1, 2]
    ru, rv = camera.K[0, 0] * radius / near * (1 + abs(x) / z), camera.K[1, 1] * radius / near * (1 + abs(y) / z)
    rows = slice(max(0, int(v - rv) - 1), max(0, min(height, int(v + rv) + 2)))
    return rows, slice(max(0, int(u - ru) - 1), max(0, min(width, int(u + ru) + 2)))


def ray_cast(camera: Camera, solids: tuple[Solid, ...], *, shadows: bool = True) -> CameraFrame:
    """Everything a camera sees of the solids: RGB with a sun and its shadows, forward depth, normals, instance ids."""
    width, height = camera.size
    grid = (camera.pixel_grid() - camera.K[:2, 2]) / [camera.K[0, 0], camera.K[1, 1]]
    if camera.lens is not None:
        grid = camera.rays()
    # A camera-frame direction with z = 1, so the ray parameter is the forward depth.
    d = np.concatenate([grid, np.ones((height, width, 1))], -1) @ camera.T_camera_world[:3, :3]
    eye = inverse(camera.T_camera_world)[:3, 3]
    depth, normal = np.full((height, width), np.inf), np.zeros((height, width, 3))
    which = np.full((height, width), -1)
    for index, solid in enumerate(solids):
        window = _window(solid, camera)
        t, n = _hit(solid, eye, d[window])
        nearer = t < depth[window]
        depth[window][nearer], normal[window][nearer], which[window][nearer] = t[nearer], n[nearer], index
    hit = which >= 0
    depth = np.where(hit, depth, 0.0)
    points = eye + d * depth[..., None]
    colours = np.array([s.colour for s in solids] + [(0.55, 0.60, 0.68)])[which]
    for index, solid in enumerate(solids):
        if solid.stripes and (on := which == index).any():
            local = transform(inverse(solid.T_world_solid), points[on]) / (np.array(solid.size) / 2)
            # The faces at the ends lie on an edge of the stripes: which side that is must not be a matter of rounding.
            colours[on] = np.where(((local[:, 2] * 3 + 1e-6) % 2 < 1)[:, None], colours[on], [0.93, 0.9, 0.82])
    lit = np.clip(normal @ SUN, 0, None)
    if shadows:
        for solid in solids:
            if solid.size[0] < 2:  # the floor shadows nothing
                ask = hit & (lit > 0)
                # Only rays that pass the solid's bounding sphere can be blocked by it.
                to_solid = points[ask] - solid.T_world_solid[:3, 3]
                ask[ask] = ((to_solid - (to_solid @ SUN)[:, None] * SUN) ** 2).sum(-1) < _bounding_radius(solid) ** 2
                t, _ = _hit(solid, points[ask] + normal[ask] * 1e-4, np.broadcast_to(SUN, points[ask].shape))
                lit[ask] *= ~np.isfinite(t)
    shade = np.where(hit, 0.45 + 0.15 * normal[..., 2] + 0.5 * lit, 1.0)
    rgb = np.round(np.clip(colours * shade[..., None], 0, 1) * 255).astype(np.uint8)
    ids = np.array([s.instance for s in solids] + [0], np.uint16)[which]
    return CameraFrame(
        camera.K.copy(), camera.T_camera_world.copy(), rgb, depth.astype(np.float32), encode_normals(normal), ids,
        camera.lens,
    )  # fmt: skip


def make_robot() -> RobotSpec:
    """The cylindrical robot: base → turret (yaw) → carriage (lift) → hand (reach) → two fingers."""
    names = ("base", "turret", "carriage", "hand", "left", "right")
    joints = (
        JointSpec("yaw", "revolute", 0, 1, (0, 0, 1), translation(0, 0, 0.1), np.eye(4), -2.8, 2.8, 3.0, 80.0),
        JointSpec("lift", "prismatic", 1, 2, (0, 0, 1), np.eye(4), np.eye(4), 0.0, 0.7, 2.0, 200.0),
        JointSpec("reach", "prismatic", 2, 3, (1, 0, 0), np.eye(4), DOWN, 0.1, 0.8, 2.0, 200.0),
        JointSpec("finger_left", "prismatic", 3, 4, (0, 1, 0), translation(0, 0, 0.05), np.eye(4), 0, 0.04, 0.3, 30.0),
        JointSpec("finger_right", "prismatic", 3, 5, (0, -1, 0), translation(0, 0, 0.05), np.eye(4), 0, 0.04, 0.3, 30.0),
    )  # fmt: skip
    gripper = GripperSpec("hand", "hand", np.eye(4), ("finger_left", "finger_right"), (0.04, 0.04), (0.0, 0.0))
    return RobotSpec("arm", "/World/Arm", tuple(LinkSpec(n, f"/World/Arm/{n}") for n in names), joints, (gripper,))


LINK_IDS = {"base": 10, "turret": 11, "carriage": 12, "hand": 13, "left": 14, "right": 15}
INSTANCES = (
    Instance(1, "/World/Floor", "floor"),
    Instance(2, "/World/Table", "table"),
    Instance(3, "/World/Tray", "tray", "object:tray"),
    Instance(4, "/World/Packet", "packet", "object:packet"),
    *(Instance(i, f"/World/Arm/{n}", n, "robot:arm") for n, i in LINK_IDS.items()),
)


@dataclass(frozen=True)
class SceneMotion:
    """The closed form of one run. All arrays are per frame."""

    robot: RobotSpec
    q: np.ndarray
    T_world_link: np.ndarray
    T_world_packet: np.ndarray
    held: np.ndarray
    """The fingers hold the packet."""
    resting: np.ndarray
    """The packet lies on the table or the tray."""
    grasp_frame: int
    release_frame: int


def make_motion(frames: int, fps: float, seed: int = 0) -> SceneMotion:
    """The pick, carry and drop over `frames` frames; packet and tray places vary with the seed by ± 3 cm."""
    rng, robot = np.random.default_rng(seed), make_robot()
    jitter = rng.uniform(-0.03, 0.03, (2, 2)) if seed else np.zeros((2, 2))
    pick, place = np.array([0.50, -0.20]) + jitter[0], np.array([0.45, 0.35]) + jitter[1]
    half = PACKET_SIZE[2] / 2
    share = np.arange(frames) / max(frames - 1, 1)
    # Way points (share, x-y, height of the tool point, finger opening).
    ends, table, high, drop = PHASES, half, 0.30, half + 0.09
    keys = [(0.0, pick, high, 0.04), (ends["approach"], pick, high, 0.04), (ends["descend"], pick, table, 0.04),
            (ends["grasp"], pick, table, 0.025), (ends["lift"], pick, high, 0.025), (ends["carry"], place, drop, 0.025),
            (ends["release"], place, drop, 0.04), (1.0, place, high, 0.04)]  # fmt: skip
    times = [k[0] for k in keys]
    r = np.interp(share, times, [np.hypot(*k[1]) for k in keys])
    yaw = np.interp(share, times, [np.arctan2(k[1][1], k[1][0]) for k in keys])
    height, finger = np.interp(share, times, [k[2] for k in keys]), np.interp(share, times, [k[3] for k in keys])
    q = np.stack([yaw, height + TOOL_M - 0.1, r, finger, finger], -1)
    links = robot.forward_kinematics(q, np.broadcast_to(np.eye(4), (frames, 4, 4)))
    tool = links[:, 3] @ translation(0, 0, TOOL_M) @ DOWN
    held = (share >= ends["grasp"]) & (share < ends["carry"] + 1e-9)
    grasp, release = int(np.argmax(held)), int(np.flatnonzero(held)[-1]) if held.any() else 0
    packet = np.repeat(np.eye(4)[None], frames, 0)
    packet[:, :3, :3] = axis_angle(np.array([0, 0, 1.0]), np.full(frames, np.arctan2(pick[1], pick[0])))
    packet[:, :3, 3] = [*pick, half]
    packet[held] = tool[held]
    after = np.arange(frames) > release
    t = (np.arange(frames) - release) / fps
    packet[after] = packet[release]
    floor = 0.01 + half
    packet[after, 2, 3] = np.maximum(packet[release, 2, 3] - 0.5 * GRAVITY * t[after] ** 2, floor)
    resting = ~held & ((np.arange(frames) <= grasp) | (packet[:, 2, 3] <= floor + 1e-9))
    return SceneMotion(robot, q, links, packet, held, resting, grasp, release)


def solids_at(motion: SceneMotion, index: int, T_world_tray: np.ndarray) -> tuple[Solid, ...]:
    """Every solid of the scene at one frame."""
    links, steel = motion.T_world_link[index], (0.82, 0.83, 0.85)

    def part(link: int, kind: str, size: tuple[float, float, float], T: np.ndarray, colour: tuple[float, ...]) -> Solid:
        return Solid(kind, size, links[link] @ T, list(LINK_IDS.values())[link], tuple(colour))

    along_x = pose_from_wxyz(np.zeros(3), np.array([0.5**0.5, 0, 0.5**0.5, 0]))
    reach = motion.q[index, 2]
    tray = [(0.24, 0.24, 0.01, 0, 0, 0.005), (0.01, 0.25, 0.05, 0.12, 0, 0.025), (0.01, 0.25, 0.05, -0.12, 0, 0.025),
            (0.25, 0.01, 0.05, 0, 0.12, 0.025), (0.25, 0.01, 0.05, 0, -0.12, 0.025)]  # fmt: skip
    return (
        Solid("box", (8, 8, 0.02), translation(0, 0, -0.76), 1, (0.45, 0.45, 0.47)),
        Solid("box", (0.8, 1.2, 0.04), translation(0.5, 0, -0.02), 2, (0.42, 0.30, 0.20)),
        *(Solid("box", b[:3], T_world_tray @ translation(*b[3:]), 3, (0.12, 0.25, 0.55)) for b in tray),
        Solid("box", PACKET_SIZE, motion.T_world_packet[index], 4, (0.85, 0.35, 0.15), stripes=True),
        part(0, "box", (0.2, 0.2, 0.12), translation(0, 0, 0.06), (0.3, 0.3, 0.32)),
        part(1, "capsule", (0.06, 0.36, 0), translation(0, 0, 0.36), steel),
        part(2, "capsule", (0.045, reach / 2, 0), translation(reach / 2, 0, 0) @ along_x, (0.9, 0.55, 0.15)),
        part(3, "capsule", (0.04, 0.02, 0), np.eye(4), steel),
        part(3, "box", (0.05, 0.16, 0.04), translation(0, 0, 0.035), (0.2, 0.2, 0.22)),
        part(4, "box", (0.02, 0.012, 0.06), translation(0, 0.006, 0.035), (0.15, 0.15, 0.16)),
        part(5, "box", (0.02, 0.012, 0.06), translation(0, -0.006, 0.035), (0.15, 0.15, 0.16)),
    )


def scene_camera(name: str, size: tuple[int, int], motion: SceneMotion, index: int) -> Camera:
    """`front` stands still beside the table; `wrist` looks along the hand's approach."""
    f = 0.9 * size[0] if name == "front" else 0.6 * size[0]
    K = np.array([[f, 0, size[0] / 2], [0, f, size[1] / 2], [0, 0, 1.0]])
    if name == "front":
        return Camera(K, look_at((1.5, -0.9, 0.95), (0.42, 0.04, 0.1)), size)
    tilt = np.eye(4)
    tilt[:3, :3] = axis_angle(np.array([0, 1.0, 0]), np.array(-0.45))
    T_world_camera = motion.T_world_link[index, 3] @ translation(0.13, 0, -0.05) @ tilt
    return Camera(K, inverse(T_world_camera), size)


def make_scene_episode(
    path: Path,
    *,
    frames: int = 24,
    size: tuple[int, int] = (160, 120),
    wrist: bool = False,
    seed: int = 0,
    fps: float = 15,
    channels: tuple[str, ...] = ("rgb", "depth", "normals", "instances"),
    shadows: bool = True,
    only: range | None = None,
    lens: Lens | None = None,
) -> Episode:
    """Write the scene as a complete episode. `only` restricts which of the `frames` are captured (a still: range(1));
    `lens` bends the pictures of every camera."""
    motion = make_motion(frames, fps, seed)
    place = motion.T_world_packet[-1, :3, 3]
    T_tray = translation(float(place[0]), float(place[1]), 0.0)
    names, physics = ("front", "wrist") if wrist else ("front",), 4
    header = EpisodeHeader(
        task="pick up the packet and drop it into the tray", fps=fps, physics_dt_s=1 / fps / physics,
        robots=(motion.robot,),
        cameras=tuple(CameraSpec(n, f"/World/{n}", size, n == "front", channels, lens=lens) for n in names),  # type: ignore[arg-type]
        objects=(ObjectSpec("packet", "/World/Packet", "packet", PACKET_SIZE, mass_kg=PACKET_MASS_KG),
                 ObjectSpec("tray", "/World/Tray", "tray", (0.25, 0.25, 0.05), (0, 0, 0.025), movable=False)),
        instances=INSTANCES, simulator="analytic", simulator_version="1", stage_sha256="0" * 64, seed=seed,
        settings={"grasp_frame": motion.grasp_frame, "release_frame": motion.release_frame},
    )  # fmt: skip
    velocity = np.gradient(motion.q, 1 / fps, axis=0) if frames > 1 else np.zeros_like(motion.q)
    target = np.concatenate([motion.q[1:], motion.q[-1:]])
    openness = motion.robot.gripper_openness(motion.q)
    with EpisodeWriter(path, header) as writer:
        for i in only or range(frames):
            solids = solids_at(motion, i, T_tray)
            poses = np.stack([motion.T_world_packet[i], T_tray])
            views = []
            for name in names:
                view = ray_cast(replace(scene_camera(name, size, motion, i), lens=lens), solids, shadows=shadows)
                keep = {"depth": view.depth_m, "normals": view.normals, "instances": view.instance_ids}
                kept = [keep[c] if c in channels else None for c in keep]
                views.append(CameraFrame(view.K, view.T_camera_world, view.rgb, *kept, view.lens))
            steps = (i - 1 + np.arange(1, physics + 1) / physics) / fps
            before = motion.T_world_packet[max(i - 1, 0)]
            track = np.repeat(poses[None], physics, 0)
            track[:, 0, :3, 3] = (
                before[:3, 3] + (poses[0, :3, 3] - before[:3, 3]) * (np.arange(1, physics + 1) / physics)[:, None]
            )
            state = RobotState(motion.q[i], motion.T_world_link[i], openness[i], velocity[i], np.zeros(5), target[i])
            writer.append(
                Frame(i / fps, (state,), poses, tuple(views), _contacts(motion, i), PhysicsSamples(steps, track))
            )
        return writer.finish()


def _contacts(motion: SceneMotion, index: int) -> tuple[Contact, ...]:
    """Fingers squeeze with 10 N and carry half the weight each; a resting packet pushes down with its weight."""
    T, weight = motion.T_world_packet[index], PACKET_MASS_KG * GRAVITY
    if motion.held[index]:
        out = []
        for name, side in (("left", -1.0), ("right", 1.0)):
            n = T[:3, 1] * side
            force = -n * 10 + [0, 0, weight / 2]
            p = T[:3, 3] + n * PACKET_SIZE[1] / 2
            out.append(
                Contact(f"/World/Arm/{name}", "/World/Packet", *(tuple(map(float, v)) for v in (p, -n, force)), 0.0)
            )
        return tuple(out)
    if motion.resting[index]:
        under = "/World/Table" if index <= motion.grasp_frame else "/World/Tray"
        p = T[:3, 3] - [0, 0, PACKET_SIZE[2] / 2]
        return (Contact(under, "/World/Packet", tuple(map(float, p)), (0.0, 0.0, 1.0), (0.0, 0.0, weight), 0.0),)
    return ()
