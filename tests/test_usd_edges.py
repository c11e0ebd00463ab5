# SPDX-License-Identifier: Apache-2.0
"""What the readers of a stage do just at a limit, with an odd item among plain ones, and where nothing is stated."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import usd_stages
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.core.episode import Instance
from retake.core.errors import StageError
from retake.core.geometry import is_rigid
from retake.usd import lens
from retake.usd import stage as stages
from retake.usd.bodies import find_objects, read_object
from retake.usd.camera import is_animated, read_animated_camera, read_camera
from retake.usd.instances import InstanceLookup
from retake.usd.shapes import link_box, link_outline, link_points
from retake.usd.stage import (
    ensure_physics_scene,
    label_of,
    missing_assets,
    notable_prims,
    one_pass,
    open_stage,
    time_at,
)
from retake.usd.units import StageUnits, rigid_and_scale, world_pose

FLOAT = Sdf.ValueTypeNames.Float


def body(stage: Usd.Stage, path: str = "/World/body") -> Usd.Prim:
    prim = UsdGeom.Xform.Define(stage, path).GetPrim()
    UsdPhysics.RigidBodyAPI.Apply(prim)
    return prim


def mesh(stage: Usd.Stage, path: str, points: Any, counts: Any = (), indices: Any = ()) -> UsdGeom.Mesh:
    made = UsdGeom.Mesh.Define(stage, path)
    made.CreatePointsAttr([tuple(map(float, p)) for p in points])
    made.CreateFaceVertexCountsAttr(list(counts))
    made.CreateFaceVertexIndicesAttr(list(indices))
    return made


# -- shapes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "looked_at"), [(1, 1), (1500, 1500), (1501, 751), (3000, 1500), (3001, 1001)])
def test_of_large_meshes_every_nth_vertex_is_looked_at(count: int, looked_at: int) -> None:
    stage = usd_stages.empty()
    body(stage)
    mesh(stage, "/World/body/mesh", np.linspace((0, 0, 0), (1, 2, 3), count))
    points = link_points(stage, "/World/body", StageUnits.of(stage))
    assert len(points) == looked_at
    assert np.array_equal(points[0], (0, 0, 0))


@pytest.mark.parametrize(("count", "edges"), [(200, 3), (201, 0)])
def test_edges_are_drawn_of_meshes_with_few_vertices(count: int, edges: int) -> None:
    stage = usd_stages.empty()
    body(stage)
    corners = np.linspace((0, 0, 0), (1, 2, 3), count)
    corners[1] = (5, 0, 0)
    mesh(stage, "/World/body/mesh", corners, [3], [0, 1, 2])
    units = StageUnits.of(stage)
    assert len(link_points(stage, "/World/body", units)) == count
    drawn = link_outline(stage, "/World/body", units)
    assert len(drawn) == count + 48 * edges
    if edges:
        along = drawn[count:].reshape(48, edges, 3)[:, 0]
        assert np.allclose(along[[0, -1]], corners[:2], atol=1e-6)
        assert np.allclose(np.diff(along, axis=0), (corners[1] - corners[0]) / 47, atol=1e-6)


@pytest.mark.parametrize(
    ("counts", "indices"), [([3], [0, 1]), ([], []), ([3], [-1, 0, 1]), ([3], [0, 1, 4]), ([3, 3], [0, 1, 2])]
)
def test_faces_that_do_not_fit_a_mesh_are_not_drawn(counts: list[int], indices: list[int]) -> None:
    stage = usd_stages.empty()
    body(stage)
    mesh(stage, "/World/body/mesh", np.eye(4)[:, :3], counts, indices)
    assert len(link_outline(stage, "/World/body", StageUnits.of(stage))) == 4


def test_shapes_that_are_nothing_or_no_collider_hide_none_after_them() -> None:
    stage = usd_stages.empty()
    body(stage)
    for name, size, at in (("a", 0.2, 0.0), ("b", 0.4, 1.0), ("c", 0.1, 3.0)):
        cube = UsdGeom.Cube.Define(stage, f"/World/body/{name}")
        cube.CreateSizeAttr(size)
        cube.AddTranslateOp().Set(Gf.Vec3d(at, 0, 0))
        if name != "a":
            UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    units = StageUnits.of(stage)
    assert np.allclose(link_box(stage, "/World/body", units)[:, 0], (-0.1, 3.05))
    assert np.allclose(link_box(stage, "/World/body", units, colliders_only=True)[:, 0], (0.8, 3.05))
    other = usd_stages.empty()
    body(other)
    mesh(other, "/World/body/a", ())
    UsdGeom.Cube.Define(other, "/World/body/b").CreateSizeAttr(0.2)
    assert len(link_points(other, "/World/body", StageUnits.of(other))) == 8
    assert np.allclose(link_box(other, "/World/body", StageUnits.of(other)), [[-0.1] * 3, [0.1] * 3])


def test_the_box_of_a_turned_mesh_is_around_its_own_box() -> None:
    """Quick to find, and never too small: its corners, not its vertices, are turned."""
    stage = usd_stages.empty()
    body(stage)
    made = mesh(stage, "/World/body/mesh", [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
    UsdGeom.Xformable(made).AddRotateZOp().Set(45.0)
    low, high = link_box(stage, "/World/body", StageUnits.of(stage))
    assert high == pytest.approx((2**0.5, 2**0.5, 1))
    assert low == pytest.approx(-high)


# -- cameras and lenses ------------------------------------------------------------------------------------------------


def test_a_camera_s_last_frame_counts_after_the_end() -> None:
    stage = usd_stages.empty()
    camera = read_camera(usd_stages.add_camera(stage).GetPrim(), (64, 48))
    assert camera.at(5) is camera
    frames = tuple(replace(camera, prim_path=str(k)) for k in range(3))
    moving = replace(camera, frames=frames)
    assert [moving.at(k).prim_path for k in (0, 1, 2, 3, 9)] == ["0", "1", "2", "2", "2"]


def test_small_lenses_and_pictures_of_one_pixel_are_read() -> None:
    stage = usd_stages.empty()
    camera = usd_stages.add_camera(stage)
    camera.CreateFocalLengthAttr(0.5)
    camera.CreateHorizontalApertureAttr(0.25)
    assert read_camera(camera.GetPrim(), (1, 1)).K[0, 0] == 2
    for size in ((0, 1), (1, 0)):
        with pytest.raises(StageError, match="must be positive"):
            read_camera(camera.GetPrim(), size)


def test_a_calibration_may_be_of_one_pixel_and_names_what_is_no_number() -> None:
    stage = usd_stages.empty()
    prim = usd_stages.add_camera(stage).GetPrim()
    prim.CreateAttribute("omni:lensdistortion:model", Sdf.ValueTypeNames.Token).Set("opencvPinhole")
    for name, value in {"fx": 0.5, "fy": 0.25, "cx": 0.75, "cy": 0.125}.items():
        prim.CreateAttribute(f"omni:lensdistortion:opencvPinhole:{name}", FLOAT).Set(value)
    size = prim.CreateAttribute("omni:lensdistortion:opencvPinhole:imageSize", Sdf.ValueTypeNames.Int2)
    size.Set(Gf.Vec2i(1, 1))
    assert read_camera(prim, (4, 8)).K.tolist() == [[2, 0, 3], [0, 2, 1], [0, 0, 1]]
    prim.GetAttribute("omni:lensdistortion:opencvPinhole:cy").Set(np.inf)
    with pytest.raises(StageError, match="opencvPinhole:cy is inf; expected a number of pixels"):
        read_camera(prim, (4, 8))


def test_the_schema_s_own_model_is_nobody_s_choice() -> None:
    """In Kit an unauthored attribute has the fallback of its schema: of a model that says nothing, of numbers it counts."""
    fallback = SimpleNamespace(HasValue=lambda: True, HasAuthoredValue=lambda: False, Get=lambda time: "told")
    prim: Any = SimpleNamespace(GetAttribute=lambda name: fallback)
    told = {name: lens._value(prim, name, Usd.TimeCode(0)) for name in ("model", "cameraProjectionType", "k1")}
    assert told == {"model": None, "cameraProjectionType": None, "k1": "told"}


def test_a_camera_that_turns_between_two_matrices_stays_rigid() -> None:
    stage = usd_stages.empty()
    stage.SetStartTimeCode(10)
    stage.SetTimeCodesPerSecond(20)
    camera = UsdGeom.Camera.Define(stage, "/World/Camera")
    op = UsdGeom.Xformable(camera).AddTransformOp()
    for time, angle in ((10, 0.0), (30, 90.0)):
        op.Set(Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(0, 0, 1), angle)), time)
    prim = camera.GetPrim()
    assert is_animated(prim)
    read = read_animated_camera(prim, (64, 48), 4.0, 5)
    assert len(read.frames) == 5
    turned = [np.degrees(np.arctan2(f.T_world_camera[1, 0], f.T_world_camera[0, 0])) for f in read.frames]
    assert all(is_rigid(frame.T_world_camera) for frame in read.frames)
    assert turned[0] == pytest.approx(0, abs=1e-6)
    assert turned[2] == pytest.approx(45)
    assert turned[4] == pytest.approx(90)
    assert time_at(stage, 2.0).GetValue() == 50
    assert time_at(stage, 0.5).GetValue() == 20


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metersPerUnit", "kilogramsPerUnit"])
@pytest.mark.parametrize(
    ("value", "fits"), [(0.5, True), (0.0, False), (-1.0, False), (np.inf, False), (np.nan, False)]
)
def test_units_are_positive_numbers(name: str, value: float, fits: bool) -> None:
    stage = usd_stages.empty()
    stage.SetMetadata(name, value)
    if fits:
        units = StageUnits.of(stage)
        assert value in (units.metres_per_unit, units.kilograms_per_unit)
        return
    with pytest.raises(StageError, match=f"{name} is .*; expected a positive number"):
        StageUnits.of(stage)


def test_a_transform_that_shears_or_is_not_finite_is_refused_and_a_thin_one_is_not() -> None:
    sheared = Gf.Matrix4d(1, 0.1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
    far = Gf.Matrix4d().SetTranslate(Gf.Vec3d(np.inf, 0, 0))
    for matrix, said in ((sheared, "mirrors or shears"), (far, "is not finite")):
        with pytest.raises(StageError, match=said):
            rigid_and_scale(matrix)
    for turn in (10, 130, 250):
        thin = Gf.Matrix4d().SetScale(Gf.Vec3d(1, 1e-6, 2)) * Gf.Matrix4d().SetRotate(
            Gf.Rotation(Gf.Vec3d(1, 2, 3), turn)
        )
        T, scale = rigid_and_scale(thin)
        assert is_rigid(T)
        assert np.allclose(scale, (1, 1e-6, 2), rtol=1e-6)
    stage = usd_stages.empty()
    prim = UsdGeom.Xform.Define(stage, "/World/sheared")
    prim.AddTransformOp().Set(sheared)
    with pytest.raises(StageError, match="/World/sheared"):
        world_pose(prim.GetPrim())
    assert is_rigid(world_pose(prim.GetPrim(), between=True))


# -- stages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "told"), [(1, ""), (3, ""), (4, " and 1 more"), (6, " and 3 more")])
def test_of_many_missing_files_three_are_named(tmp_path: Any, capfd: Any, count: int, told: str) -> None:
    stage = usd_stages.pendulum()
    shader = stage.DefinePrim("/World/Looks/Shader", "Shader")
    for number in range(count):
        shader.CreateAttribute(f"inputs:t{number}", Sdf.ValueTypeNames.Asset).Set(f"gone{number}.png")
    file = tmp_path / "scene.usda"
    stage.Export(str(file))
    (note,) = missing_assets(file)
    assert note.count("gone") == min(count, 3)
    assert note.endswith(f"gone{min(count, 3) - 1}.png{told}")
    assert capfd.readouterr().err == ""


def test_a_missing_layer_is_told_in_our_words_alone(tmp_path: Any, capfd: Any) -> None:
    file = tmp_path / "scene.usda"
    file.write_text('#usda 1.0\ndef Xform "A" (references = @./gone.usda@)\n{\n}\n')
    assert missing_assets(file) == ()
    assert capfd.readouterr().err == ""


def test_schemas_are_known_before_a_stage_is_opened(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = []
    monkeypatch.setattr(stages, "register_schemas", lambda: known.append(True))
    file = tmp_path / "scene.usda"
    usd_stages.empty().Export(str(file))
    open_stage(file)
    assert known == [True]


@pytest.mark.parametrize(("up", "metres", "direction"), [("Z", 1.0, (0, 0, -1)), ("Y", 0.01, (0, -1, 0))])
def test_gravity_of_a_stage_without_a_scene_points_down(up: str, metres: float, direction: tuple[int, ...]) -> None:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, up)
    UsdGeom.SetStageMetersPerUnit(stage, metres)
    before = stage.GetRootLayer().ExportToString()
    assert len(ensure_physics_scene(stage)) == 1
    scene = UsdPhysics.Scene.Get(stage, "/RetakePhysicsScene")
    assert tuple(scene.GetGravityDirectionAttr().Get()) == direction
    assert scene.GetGravityMagnitudeAttr().Get() == pytest.approx(9.81 / metres)
    assert stage.GetRootLayer().ExportToString() == before


def test_a_pass_within_another_stage_s_pass_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = usd_stages.pendulum(), usd_stages.empty()
    walked = []
    plain = stages.prims
    monkeypatch.setattr(stages, "prims", lambda stage: walked.append(stage) or plain(stage))
    with one_pass(one):
        first = notable_prims(one)
        with one_pass(one):
            assert notable_prims(one) is first
        with one_pass(other):
            assert len(notable_prims(other)) == len(notable_prims(other)) == 1
        assert notable_prims(one) is first
    assert walked == [one, other]


def test_a_label_is_what_is_authored_and_not_beside_it() -> None:
    stage = usd_stages.empty()
    prim = body(stage, "/World/Mug")
    assert label_of(prim) == "mug"
    prim.CreateAttribute("semantic:Semantics_1:params:semanticType", Sdf.ValueTypeNames.String).Set("class")
    prim.CreateAttribute("other:params:semanticData", Sdf.ValueTypeNames.String).Set("nothing")
    assert label_of(prim) == "mug"
    old = prim.CreateAttribute("semantic:Semantics_1:params:semanticData", Sdf.ValueTypeNames.String)
    assert label_of(prim) == "mug"
    old.Set("cup")
    assert label_of(prim) == "cup"
    new = prim.CreateAttribute("semantics:labels:class", Sdf.ValueTypeNames.TokenArray)
    new.Set([])
    assert label_of(prim) == "cup"
    new.Set(["bowl", "dish"])
    prim.RemoveProperty("semantic:Semantics_1:params:semanticData")
    assert label_of(prim) == "bowl"


# -- bodies and instances ----------------------------------------------------------------------------------------------


def test_an_object_is_described_by_its_own_box_in_si_units() -> None:
    stage = usd_stages.empty(0.1, 0.001)
    prim = body(stage, "/World/tasse")
    prim.SetDisplayName("Täßchen")
    UsdPhysics.MassAPI.Apply(prim).CreateMassAttr(250.0)
    cube = UsdGeom.Cube.Define(stage, "/World/tasse/shape")
    cube.CreateSizeAttr(1.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(1, 2, 3))
    cube.AddScaleOp().Set(Gf.Vec3f(2, 4, 6))
    units = StageUnits.of(stage)
    for movable in (True, False):
        spec = read_object(prim, units, movable=movable).spec
        assert spec.size_m == pytest.approx((0.2, 0.4, 0.6))
        assert spec.center_m == pytest.approx((0.1, 0.2, 0.3))
        assert spec.mass_kg == pytest.approx(0.25)
        assert spec.name == "Ta_chen"
    assert [o.spec.name for o in find_objects(stage).objects] == ["Ta_chen"]


def test_a_static_group_that_is_scaled_is_as_large_as_it_stands_there() -> None:
    stage = usd_stages.empty(0.1, 1.0)
    shelf = UsdGeom.Xform.Define(stage, "/World/shelf")
    shelf.AddTranslateOp().Set(Gf.Vec3d(7, 8, 9))
    shelf.AddScaleOp().Set(Gf.Vec3f(2, 3, 4))
    cube = UsdGeom.Cube.Define(stage, "/World/shelf/board")
    cube.CreateSizeAttr(1.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(1, 0, 0.5))
    spec = read_object(shelf.GetPrim(), StageUnits.of(stage), movable=False).spec
    assert spec.size_m == pytest.approx((0.2, 0.3, 0.4))
    assert spec.center_m == pytest.approx((0.2, 0.0, 0.2))


def test_ids_that_no_entry_stands_for_are_background() -> None:
    table = (Instance(3, "/World/Box", "box"),)
    lookup = InstanceLookup(table)
    assert [lookup.id_of(path) for path in ("/World/Box/a", "/World/Boxes", "/")] == [3, 0, 0]
    ids = np.array([[7, 8], [9, 2**32 - 1]], np.uint32)
    for base in (0, 2**31):  # a table by id, and one by search
        shifted = ids + np.uint32(base) if base else ids
        found = lookup.remap(shifted, {7 + base: "/World/Box", 9 + base: "/World/Box/lid"})
        assert found.tolist() == [[3, 0], [3, 0]]
        assert found.dtype == np.uint16
    assert lookup.remap(ids, {}).tolist() == [[0, 0], [0, 0]]
