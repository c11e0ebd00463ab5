# SPDX-License-Identifier: Apache-2.0
"""USD camera -> K and pose: laws against USD's own frustum, units and up-axis, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import usd_stages
from hypothesis import given
from hypothesis import strategies as st
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics
from strategies import random_poses, seeds

from retake.core.errors import StageError
from retake.core.geometry import CV_FROM_USD, is_rigid
from retake.usd.camera import camera_prim, camera_prims, is_animated, read_animated_camera, read_camera
from retake.usd.units import Z_FROM_Y_UP, world_pose

sizes = st.tuples(st.integers(16, 1920), st.integers(16, 1080))


@given(seeds, sizes)
def test_projection_agrees_with_usds_own_frustum(seed, size):
    """K and pose put world points where USD's row-vector view and projection matrices put them."""
    rng = np.random.default_rng(seed)
    stage = usd_stages.empty()
    T = random_poses(rng, 1)[0]
    camera = usd_stages.add_camera(stage, T_stage=T)
    camera.CreateFocalLengthAttr(float(rng.uniform(8, 60)))
    camera.CreateHorizontalApertureAttr(float(rng.uniform(10, 40)))
    camera.CreateHorizontalApertureOffsetAttr(float(rng.uniform(-3, 3)))
    camera.CreateVerticalApertureOffsetAttr(float(rng.uniform(-3, 3)))
    read = read_camera(camera.GetPrim(), size)
    lens = camera.GetCamera(Usd.TimeCode.Default())
    # Square pixels: the renderer's vertical aperture follows from the image's shape.
    lens.verticalAperture = lens.horizontalAperture * size[1] / size[0]
    frustum = lens.frustum
    view, projection = np.array(frustum.ComputeViewMatrix()), np.array(frustum.ComputeProjectionMatrix())
    points_cv = rng.uniform([-1, -1, 0.5], [1, 1, 4], (20, 3))
    points = points_cv @ np.diag([1.0, -1.0, -1.0]) @ T[:3, :3].T + T[:3, 3]
    clip = np.c_[points, np.ones(20)] @ view @ projection
    ndc = clip[:, :2] / clip[:, 3:]
    expected = (ndc * [1, -1] + 1) / 2 * size
    uv, depth = read.camera().project(points)
    assert np.abs(uv - expected).max() < 1e-6 * max(size)
    np.testing.assert_allclose(depth, points_cv[:, 2], atol=1e-9)
    assert read.K[0, 0] == read.K[1, 1]


@given(seeds, st.sampled_from([1.0, 0.01, 0.001]), st.sampled_from(["Y", "Z"]))
def test_pose_is_the_same_scene_in_any_units(seed, metres, up):
    rng = np.random.default_rng(seed)
    T_world = random_poses(rng, 1)[0]
    R = Z_FROM_Y_UP if up == "Y" else np.eye(3)
    T_stage = np.eye(4)
    T_stage[:3, :3], T_stage[:3, 3] = R.T @ T_world[:3, :3], R.T @ T_world[:3, 3] / metres
    stage = usd_stages.empty(metres, up=up)
    camera = usd_stages.add_camera(stage, T_stage=T_stage)
    camera.CreateClippingRangeAttr(Gf.Vec2f(0.05 / metres, 10 / metres))
    read = read_camera(camera.GetPrim(), (640, 480))
    np.testing.assert_allclose(read.T_world_camera, T_world @ CV_FROM_USD, atol=1e-9)
    np.testing.assert_allclose(read.near_far_m, (0.05, 10), rtol=1e-6)
    assert is_rigid(read.T_world_camera, 1e-12)


@given(seeds, st.lists(st.floats(0.1, 5), min_size=3, max_size=3))
def test_scale_above_a_camera_does_not_enter_its_rotation(seed, scale):
    rng = np.random.default_rng(seed)
    stage = usd_stages.empty()
    UsdGeom.Xform.Get(stage, "/World").AddScaleOp().Set(Gf.Vec3f(scale[0]))
    T = random_poses(rng, 1)[0]
    camera = usd_stages.add_camera(stage, T_stage=T)
    pose = world_pose(camera.GetPrim())
    np.testing.assert_allclose(pose[:3, :3], T[:3, :3], atol=1e-6)
    np.testing.assert_allclose(pose[:3, 3], T[:3, 3] * np.float32(scale[0]), atol=1e-6)


@given(seeds)
def test_row_vectors_become_column_vectors(seed):
    """USD transforms row vectors (p M); Retake's T acts on columns (T p): same point."""
    rng = np.random.default_rng(seed)
    stage = usd_stages.empty()
    T = random_poses(rng, 1)[0]
    prim = usd_stages.add_camera(stage, T_stage=T).GetPrim()
    point = rng.normal(size=3)
    by_usd = np.array(UsdGeom.XformCache().GetLocalToWorldTransform(prim).Transform(Gf.Vec3d(*point)))
    pose = world_pose(prim)
    np.testing.assert_allclose(pose[:3, :3] @ point + pose[:3, 3], by_usd, atol=1e-9)


@given(seeds)
def test_mounted_camera_moves_with_its_body(seed):
    rng = np.random.default_rng(seed)
    stage = usd_stages.pendulum()
    T_link_camera = random_poses(rng, 1)[0]
    read = read_camera(usd_stages.add_camera(stage, "/World/Arm/tip/eye", T_link_camera).GetPrim(), (320, 240))
    assert read.body_path == "/World/Arm/tip"
    np.testing.assert_allclose(read.T_body_camera, T_link_camera @ CV_FROM_USD, atol=1e-9)
    moved = random_poses(rng, 1)[0]
    np.testing.assert_allclose(
        np.linalg.inv(read.camera(moved).T_camera_world), moved @ T_link_camera @ CV_FROM_USD, atol=1e-9
    )


def test_demo_camera():
    """24 mm on 26.5 mm at 640x480: fx = fy = 579.62 px, centred."""
    stage = Usd.Stage.Open(str(usd_stages.PICK_PLACE))
    read = read_camera(camera_prim(stage, "/World/Camera"), (640, 480))
    np.testing.assert_allclose(read.K, [[640 * 24 / 26.5, 0, 320], [0, 640 * 24 / 26.5, 240], [0, 0, 1]])
    assert read.body_path is None
    assert {str(p.GetPath()) for p in camera_prims(stage)} == {"/World/Camera", "/World/Panda/panda_hand/wrist_camera"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.CreateFocalLengthAttr(0.0), "focalLength is 0.0; expected a positive number"),
        (lambda c: c.CreateHorizontalApertureAttr(0.0), "horizontalAperture is 0.0"),
        (lambda c: c.CreateFocalLengthAttr(math.nan), "focalLength is nan"),
        (lambda c: c.CreateProjectionAttr("orthographic"), "projection 'orthographic' is not supported"),
        (
            lambda c: c.GetPrim().AddAppliedSchema("OmniLensDistortionFthetaAPI"),
            "lens model OmniLensDistortionFthetaAPI is not supported; expected a pinhole, opencvPinhole or opencvFisheye",
        ),
        (
            lambda c: c.GetPrim().AddAppliedSchema("OmniLensDistortionOpenCvFisheyeAPI"),
            "opencvFisheye:imageSize is None; expected the .width, height. that fx, fy, cx and cy are pixels of",
        ),
        (
            lambda c: c.GetPrim().CreateAttribute("omni:lensdistortion:model", Sdf.ValueTypeNames.Token).Set("ftheta"),
            "omni:lensdistortion:model = ftheta",
        ),
        (
            lambda c: (
                c.GetPrim().CreateAttribute("cameraProjectionType", Sdf.ValueTypeNames.Token).Set("fisheyeSpherical")
            ),
            "cameraProjectionType = fisheyeSpherical",
        ),
        (lambda c: UsdGeom.Xformable(c).AddScaleOp().Set(Gf.Vec3f(-1, 1, 1)), "mirrors or shears"),
        (lambda c: UsdGeom.Xformable(c).AddScaleOp().Set(Gf.Vec3f(0, 1, 1)), "zero scale"),
    ],
)
def test_refusals_name_the_prim(change, expected):
    stage = usd_stages.empty()
    camera = usd_stages.add_camera(stage)
    change(camera)
    with pytest.raises(StageError, match=expected) as caught:
        read_camera(camera.GetPrim(), (640, 480))
    assert "/World/Camera" in str(caught.value)


def test_plain_pinhole_marks_are_accepted():
    stage = usd_stages.empty()
    camera = usd_stages.add_camera(stage)
    camera.GetPrim().CreateAttribute("cameraProjectionType", Sdf.ValueTypeNames.Token).Set("pinhole")
    assert read_camera(camera.GetPrim(), (64, 48)).size == (64, 48)


def test_missing_cameras():
    stage = usd_stages.empty()
    with pytest.raises(StageError, match="has no camera"):
        camera_prims(stage)
    usd_stages.add_camera(stage)
    with pytest.raises(StageError, match="unknown camera prim '/World/Other'; valid: /World/Camera"):
        camera_prim(stage, "/World/Other")
    with pytest.raises(StageError, match="expected a Camera"):
        read_camera(stage.GetDefaultPrim(), (64, 48))
    with pytest.raises(StageError, match="must be positive"):
        read_camera(camera_prim(stage, "/World/Camera"), (0, 48))


def test_a_camera_is_animated_by_its_own_lens_or_by_what_it_hangs_on():
    def stage(change) -> bool:
        made = usd_stages.empty()
        carrier = UsdGeom.Xform.Define(made, "/World/carrier")
        move = carrier.AddTranslateOp()
        camera = usd_stages.add_camera(made, "/World/carrier/arm/camera")
        UsdGeom.Xform.Define(made, "/World/carrier/arm")
        change(camera, move, carrier.GetPrim())
        return is_animated(camera.GetPrim())

    def sampled(attribute, *values):
        for time, value in enumerate(values):
            attribute.Set(value, float(time))

    assert not stage(lambda camera, move, carrier: None)
    assert stage(lambda camera, move, carrier: sampled(camera.GetFocalLengthAttr(), 20.0, 30.0))
    assert stage(lambda camera, move, carrier: sampled(move, Gf.Vec3d(0, 0, 0), Gf.Vec3d(0, 0, 1)))
    assert not stage(lambda camera, move, carrier: sampled(move, Gf.Vec3d(0, 0, 0)))
    other = Sdf.ValueTypeNames.Float
    assert not stage(lambda camera, move, carrier: sampled(carrier.CreateAttribute("user:load", other), 1.0, 2.0))


@pytest.mark.parametrize("body", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.001])
@pytest.mark.parametrize("first", [0.0, -12.0])
def test_between_the_samples_of_a_turning_matrix_the_camera_is_rigid(body, scale, first):
    """Also in a model in millimetres, on a body that is moved by hand, and where the stage starts between two samples."""
    stage = usd_stages.empty()
    stage.SetStartTimeCode(0)
    arm = UsdGeom.Xform.Define(stage, "/World/Arm")
    UsdGeom.Xformable(stage.GetPrimAtPath("/World")).AddScaleOp().Set(Gf.Vec3f(scale))
    turn = arm.AddTransformOp()
    for time, degrees in ((first, 0), (first + 24.0, 100)):
        turn.Set(Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(1, 2, 3), degrees)), time)
    if body:
        UsdPhysics.RigidBodyAPI.Apply(arm.GetPrim()).CreateKinematicEnabledAttr(True)
    camera = UsdGeom.Camera.Define(stage, "/World/Arm/Camera").GetPrim()
    read = read_animated_camera(camera, (64, 48), 12.0, 5)
    assert all(is_rigid(one.T_world_camera) and is_rigid(one.T_body_camera) for one in (read, *read.frames))
    if body:
        np.testing.assert_allclose([one.T_body_camera for one in read.frames], [CV_FROM_USD] * 5, atol=1e-6)
