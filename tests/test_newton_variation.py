# SPDX-License-Identifier: Apache-2.0
"""A variation means the same however a stage is built: shapes that are bodies, origins anywhere, scaled and turned parents."""

from __future__ import annotations

import numpy as np
import pytest
import usd_stages
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.geometry import transform
from retake.newton.preset import load_preset
from retake.newton.preset_values import PHASES
from retake.newton.scenario import build
from retake.newton.variation import Variation, apply
from retake.usd.bodies import StageObject, find_objects, read_object
from retake.usd.units import StageUnits

GROWN = Variation((0.1, -0.2), 30.0, (1.5, 0.8, 2.0), None, (0.05, 0.3))
SHRUNK = Variation((-0.3, 0.1), -75.0, (0.5, 1.0, 0.7), None, (-0.2, 0.1))


def stage_with(build, parent: tuple[float, float, float], turn_deg: float) -> tuple[Usd.Stage, Usd.Prim]:
    """A stage with one object and a target, both below a scaled and turned prim."""
    stage = usd_stages.empty()
    above = UsdGeom.Xform.Define(stage, "/World/Above")
    above.AddTranslateOp().Set(Gf.Vec3d(0.3, -0.1, 0.2))
    above.AddRotateZOp().Set(turn_deg)
    above.AddScaleOp().Set(Gf.Vec3f(*parent))
    UsdPhysics.RigidBodyAPI.Apply(build(stage, "/World/Above/Thing").GetPrim())
    target = UsdGeom.Cube.Define(stage, "/World/Above/Target")
    target.AddTranslateOp().Set(Gf.Vec3d(0.5, 0.5, 0))
    return stage, target.GetPrim()


def scaled_shape(stage: Usd.Stage, path: str) -> UsdGeom.Xformable:
    cube = UsdGeom.Cube.Define(stage, path)
    cube.CreateSizeAttr(1.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(0.4, 0, 0.02))
    cube.AddScaleOp().Set(Gf.Vec3f(0.04, 0.06, 0.05))
    return cube


def scaled_body(stage: Usd.Stage, path: str) -> UsdGeom.Xformable:
    body = UsdGeom.Xform.Define(stage, path)
    body.AddTranslateOp().Set(Gf.Vec3d(0.4, 0, 0.02))
    body.AddScaleOp().Set(Gf.Vec3f(0.5, 2.0, 1.0))
    UsdGeom.Cube.Define(stage, f"{path}/shape").CreateSizeAttr(0.1)
    return body


def standing(stage: Usd.Stage, path: str, up: float = 1.0) -> UsdGeom.Xformable:
    """An object whose origin is where it stands; with `up` -1 on its head."""
    body = UsdGeom.Xform.Define(stage, path)
    body.AddTranslateOp().Set(Gf.Vec3d(0.4, 0, 0.02))
    body.AddRotateXOp().Set(0.0 if up > 0 else 180.0)
    shape = UsdGeom.Cube.Define(stage, f"{path}/shape")
    shape.CreateSizeAttr(0.1)
    shape.AddTranslateOp().Set(Gf.Vec3d(0, 0, 0.05))
    return body


def on_its_head(stage: Usd.Stage, path: str) -> UsdGeom.Xformable:
    return standing(stage, path, -1.0)


def lowest(thing: StageObject) -> float:
    half = np.array(thing.spec.size_m) / 2
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
    return float(transform(thing.T_world_object, np.array(thing.spec.center_m) + signs * half)[:, 2].min())


@pytest.mark.parametrize(
    ("parent", "turn_deg", "variation"),
    [((1, 1, 1), 0.0, Variation()), ((0.01, 0.01, 0.01), 40.0, GROWN), ((2, 2, 0.5), 90.0, SHRUNK)],
)
@pytest.mark.parametrize("build", [scaled_shape, scaled_body, standing, on_its_head])
def test_a_variation_is_what_it_says_however_the_object_is_built(build, parent, turn_deg, variation):
    stage, target = stage_with(build, parent, turn_deg)
    units = StageUnits.of(stage)
    (before,), bin_before = find_objects(stage).objects, read_object(target, units, movable=False)
    apply(stage, variation, before, target)
    (after,), bin_after = find_objects(stage).objects, read_object(target, units, movable=False)
    size = np.array(before.spec.size_m)
    np.testing.assert_allclose(after.spec.size_m, size * variation.object_scale, rtol=1e-5)
    moved = after.T_world_object[:2, 3] - before.T_world_object[:2, 3]
    np.testing.assert_allclose(moved, variation.object_offset_m, atol=1e-6)
    assert lowest(after) == pytest.approx(lowest(before), abs=1e-5 * max(size))
    R = after.T_world_object[:3, :3] @ before.T_world_object[:3, :3].T
    assert np.degrees(np.arctan2(R[1, 0], R[0, 0])) == pytest.approx(variation.object_yaw_deg, abs=1e-4)
    shift = bin_after.T_world_object[:3, 3] - bin_before.T_world_object[:3, 3]
    np.testing.assert_allclose(shift, [*variation.target_offset_m, 0], atol=1e-6)


def test_a_target_that_stands_by_itself_keeps_doing_so():
    """`!resetXformStack!`: nothing above it moves it, before and after."""
    stage, target = stage_with(standing, (0.5, 0.5, 0.5), 90.0)
    UsdGeom.Xformable(target).SetResetXformStack(True)
    units = StageUnits.of(stage)
    (thing,), before = find_objects(stage).objects, read_object(target, units, movable=False)
    apply(stage, Variation(target_offset_m=(0.1, 0.0)), thing, target)
    after = read_object(target, units, movable=False)
    np.testing.assert_allclose(after.T_world_object[:3, 3] - before.T_world_object[:3, 3], [0.1, 0, 0], atol=1e-6)


def test_phases_may_fill_an_episode_to_its_end():
    """Eight times 0.7 s is a little more than 5.6 s, as numbers of a computer go."""
    overrides = {"phases": dict.fromkeys(PHASES, 0.7), "frames": 85, "randomise": {}, "cameras": []}
    motion = build(load_preset("short", overrides), 0).motion
    assert all(phase.start_s <= phase.end_s for phase in motion.phases)
    assert motion.phases[-1].end_s == pytest.approx(5.6)
