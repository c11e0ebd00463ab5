# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Isaac Sim adapters share: stages with motions, and the law that an episode is its source.

The law is stated in the simulator's own terms (row vectors, stage units, xyzw, pxr's matrices) and computed without any
of the conversions under test.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.kit import FakeKit, row_in
from fakes.stage import Motion, camera_params, make_stage, random_motion
from pxr import Gf, Sdf, Usd, UsdGeom

from retake.core.episode import Episode
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import CaptureRequest

VERSIONS = ("4.2", "4.5", "5.0", "5.1", "6.x")
_MOTIONS: dict[Any, Motion] = {}


def motion(**options: Any) -> Motion:
    """A stage with a motion, made once per kind."""
    key = tuple(sorted(options.items()))
    if key not in _MOTIONS:
        _MOTIONS[key] = random_motion(make_stage(**options), 400, seed=len(_MOTIONS))
    _MOTIONS[key].stage.GetSessionLayer().Clear()  # what another test left there
    return _MOTIONS[key]


def request(folder: Path | str, **changes: Any) -> CaptureRequest:
    return CaptureRequest(**{"output": str(folder), "width": 32, "height": 24, "task": "test", **changes})


def has_contacts(kit: FakeKit) -> bool:
    """Whether this application reports contacts at all."""
    return kit.profile.application not in ("newton", "lab")


def finished(capture: LiveCapture, kit: FakeKit) -> Episode:
    """Let an ending recording end."""
    kit.update(12)
    assert capture._finisher is not None, capture.status
    capture._finisher.join(30)
    return capture.episode


def check_exact(episode: Episode, source: Motion, stride: int, *, contacts: bool = False) -> list[int]:
    """Whether an episode is the source: returns the rows, or raises AssertionError saying what differs."""
    cameras = [c.name for c in episode.header.cameras]
    rows = [row_in(episode.image(cameras[0], "rgb", k)) for k in range(len(episode))]
    assert np.all(np.diff(rows) == stride), f"rows {rows} are not {stride} physics steps apart"
    mpu = UsdGeom.GetStageMetersPerUnit(source.stage)
    for index, robot in enumerate(source.robots):
        name = robot.spec.name
        revolute = np.array([j.kind == "revolute" for j in robot.spec.joints if j.kind != "fixed"])
        scale, effort = np.where(revolute, 1.0, mpu), np.where(revolute, mpu * mpu, mpu)
        for channel, table, factor in (
            ("position", source.q, scale), ("velocity", source.dq, scale), ("effort", source.effort, effort),
        ):  # fmt: skip
            if channel == "effort" and channel not in episode.header.joint_channels:
                continue  # an engine that measures none
            expected = table[index][rows].astype(np.float64) * factor
            assert np.array_equal(episode.joint(name, channel), expected), f"{channel} of {name}"
        following = source.target[index][np.array(rows) + 1].astype(np.float64) * scale
        held = episode.joint(name, "target")
        assert np.array_equal(held[:-1], following[:-1]), f"target of {name}"
        truth = robot.spec.forward_kinematics(episode.joint(name, "position"), robot.T_world_link[robot.spec.root])
        assert np.abs(episode.link_poses(name) - truth).max() < 1e-5, f"link poses of {name}"
    check_objects(episode, source, rows)
    for k, row in enumerate(rows):
        samples = episode.physics(k)
        assert samples is not None
        assert len(samples.time_s) == (1 if k == 0 else stride)
        assert samples.time_s[-1] == episode.time_s[k]
        assert np.all(np.diff(samples.time_s) > 0)
        assert np.array_equal(samples.T_world_object[-1], episode.object_poses[k]), f"physics track at frame {k}"
        for camera in cameras[1:]:
            assert row_in(episode.image(camera, "rgb", k)) == row, f"{camera} at frame {k}"
        depth = episode.image(cameras[0], "depth", k)
        assert np.float32(depth[1, 1]) == pytest.approx((1.0 + row / 1000) * mpu, rel=1e-6)
    for k in {0, len(rows) - 1}:
        check_cameras(episode, source, k, rows[k])
        check_pictures(episode, source, k)
        if contacts:
            check_contact(episode, source, k)
    return rows


def world_point(source: Motion, point: np.ndarray) -> np.ndarray:
    """A stage point (…, 3), stage units, in Retake's world: metres, Z up, X kept."""
    metres = np.asarray(point, np.float64) * UsdGeom.GetStageMetersPerUnit(source.stage)
    if UsdGeom.GetStageUpAxis(source.stage) == "Y":
        metres = np.stack([metres[..., 0], -metres[..., 2], metres[..., 1]], -1)
    return metres


def check_objects(episode: Episode, source: Motion, rows: list[int]) -> None:
    """An object's corners, moved by the raw pose through pxr, are where the episode's pose puts them."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    mpu = UsdGeom.GetStageMetersPerUnit(source.stage)
    for k in {0, len(rows) // 2, len(rows) - 1}:
        for o, (x, y, z, qx, qy, qz, qw) in enumerate(source.objects[rows[k]].astype(float)):
            matrix = Gf.Matrix4d().SetRotate(Gf.Quatd(qw, qx, qy, qz).GetNormalized())
            matrix *= Gf.Matrix4d().SetTranslate(Gf.Vec3d(x, y, z))
            expected = world_point(source, np.array([list(matrix.Transform(Gf.Vec3d(*c))) for c in corners]))
            T = episode.object_poses[k, o]
            # The body's own axes are the stage's, so its corners are scaled only.
            found = corners * mpu @ T[:3, :3].T + T[:3, 3]
            assert np.abs(found - expected).max() < 2e-6 * max(1.0, np.abs(expected).max()), f"object {o} at frame {k}"


def check_cameras(episode: Episode, source: Motion, k: int, row: int) -> None:
    """A point projects to the pixel that the renderer's own matrices give: point @ view @ projection, flipped y."""
    points = np.concatenate([links[row, :, :3] for links in source.links]).astype(np.float64)
    for spec in episode.header.cameras:
        params = camera_params(source, spec.prim_path, row, spec.size)
        view, projection = (params[n].reshape(4, 4) for n in ("cameraViewTransform", "cameraProjection"))
        clip = np.c_[points, np.ones(len(points))] @ view @ projection
        mpu = UsdGeom.GetStageMetersPerUnit(source.stage)
        ahead = clip[:, 3] * mpu > 0.05  # nearer, the rounding of PhysX's float32 quaternions is whole pixels
        assert spec.prim_path.endswith("Wrist") or ahead.any()
        ndc = clip[ahead, :2] / clip[ahead, 3:]
        expected = np.stack([(ndc[:, 0] + 1) / 2 * spec.size[0], (1 - ndc[:, 1]) / 2 * spec.size[1]], -1)
        uv, depth = episode.camera(spec.name, k).project(world_point(source, points[ahead]))
        assert np.abs(uv - expected).max(initial=0.0) < 1e-3 * (1 + np.abs(expected).max(initial=0.0)), spec.name
        assert np.allclose(depth, clip[ahead, 3] * mpu, rtol=1e-5, atol=5e-6), f"depth of {spec.name} at frame {k}"


def check_pictures(episode: Episode, source: Motion, k: int) -> None:
    """Ids follow prim paths, normals turn with the up-axis, what is infinitely far is no depth and has no id."""
    spec = episode.header.cameras[0]
    by_path = {instance.prim_path: instance.id for instance in episode.header.instances}
    ids, depth = (episode.image(spec.name, channel, k) for channel in ("instances", "depth"))
    assert (ids[0] == by_path[source.robots[0].spec.links[-1].prim_path]).all()
    assert (ids[1:-1] == by_path["/World/Table"]).all()
    assert (ids[-1, -1], depth[-1, -1]) == (0, 0.0)
    normal = episode.image(spec.name, "normals", k)[1, 1].astype(float)
    up = world_point(source, np.array([0.0, 0.0, 1.0]))
    assert np.allclose(normal / np.linalg.norm(normal), up / np.linalg.norm(up), atol=1e-4), f"normals of {spec.name}"


def check_contact(episode: Episode, source: Motion, k: int) -> None:
    """The contact the fake reports after every step: at (1, 2, 3), normal +Z, impulse 0.5 Z on the first body."""
    (contact,) = episode.contacts(k)
    mpu = UsdGeom.GetStageMetersPerUnit(source.stage)
    assert (contact.body_a, contact.body_b) == ("/World/Arm0/left", "/World/Packet")
    assert np.allclose(contact.position_m, world_point(source, np.array([1.0, 2, 3])))
    up = world_point(source, np.array([0.0, 0, 1])) / mpu
    assert np.allclose(contact.normal, -up)
    assert np.allclose(contact.force_n, -up * 0.5 * mpu / episode.header.physics_dt_s)
    assert contact.penetration_m == pytest.approx(0.001 * mpu)


def products(kit: FakeKit, count: int, size: tuple[int, int] = (32, 24)) -> list[Any]:
    """Render products of a script, with the prims that Replicator makes for them."""
    rep = sys.modules["omni.replicator.core"]
    out = []
    stage = kit.motion.stage
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        for index in range(count):
            product = rep.create.render_product(f"/World/Camera{index}", size, name=f"rp{index}")
            prim = stage.DefinePrim(product.path, "RenderProduct")
            prim.CreateRelationship("camera").SetTargets([f"/World/Camera{index}"])
            prim.CreateAttribute("resolution", Sdf.ValueTypeNames.Int2).Set(Gf.Vec2i(*size))
            out.append(product)
    return out
