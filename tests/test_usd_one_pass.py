# SPDX-License-Identifier: Apache-2.0
"""A large stage is traversed once however many readers look at it, and never remembered longer than that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pxr import Usd, UsdGeom, UsdPhysics

from retake.core.episode import Instance
from retake.ui.kit_scene import scene_content
from retake.usd import stage as stages
from retake.usd.articulation import find_articulations
from retake.usd.bodies import find_objects, scenery_group
from retake.usd.instances import OTHER, instance_table
from retake.usd.stage import body_of, label_of, notable_prims, one_pass, prims

STAGE = Path(__file__).parents[1] / "data/stages/pick_place/scene.usda"


@pytest.fixture
def crowded() -> Usd.Stage:
    """The demo's stage seen from a stage of its own, among shelves, loose boxes and shapes with parts."""
    stage = Usd.Stage.CreateInMemory()
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    stage.DefinePrim("/World/Cell", "Xform").GetReferences().AddReference(str(STAGE))
    for shelf in range(3):
        for part in range(3):
            UsdGeom.Cube.Define(stage, f"/World/Shelf_{shelf}/board_{part}")
        box = UsdGeom.Cube.Define(stage, f"/World/Shelf_{shelf}/box")
        UsdPhysics.RigidBodyAPI.Apply(box.GetPrim())
        UsdGeom.Sphere.Define(stage, f"/World/Shelf_{shelf}/box/knob")
    UsdGeom.Cube.Define(stage, "/World/block")
    UsdGeom.Cube.Define(stage, "/World/block/cap")
    return stage


def test_panel_traverses_a_stage_once(crowded: Usd.Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []

    def counted(stage: Usd.Stage) -> Iterator[Usd.Prim]:
        walks.append(stage)
        return prims(stage)

    monkeypatch.setattr(stages, "prims", counted)
    found = scene_content(crowded)
    assert (len(found.robots), len(found.cameras), len(found.objects)) == (1, 2, 4)
    assert len(walks) == 1
    find_articulations(crowded)
    find_objects(crowded)
    assert len(walks) == 3


def test_one_pass_finds_what_single_passes_find(crowded: Usd.Stage) -> None:
    apart = find_articulations(crowded), find_objects(crowded)
    with one_pass(crowded):
        together = find_articulations(crowded), find_objects(crowded)
    for a, b in zip(apart[0].robots, together[0].robots, strict=True):
        assert repr(a) == repr(b)
    assert [o.spec for o in apart[1].objects] == [o.spec for o in together[1].objects]
    assert [str(p.GetPath()) for p in notable_prims(crowded)] == [
        str(p.GetPath())
        for p in prims(crowded)
        if p.HasAPI(UsdPhysics.RigidBodyAPI)
        or p.HasAPI(UsdPhysics.ArticulationRootAPI)
        or p.IsA(UsdPhysics.Joint)
        or p.IsA(UsdPhysics.Scene)
        or p.IsA(UsdGeom.Camera)
    ]


def test_nothing_is_remembered_after_a_pass(crowded: Usd.Stage) -> None:
    other = Usd.Stage.CreateInMemory()
    with one_pass(crowded):
        before = len(notable_prims(crowded))
        assert notable_prims(other) == ()
    UsdPhysics.RigidBodyAPI.Apply(crowded.GetPrimAtPath("/World/block"))
    assert len(notable_prims(crowded)) == before + 1
    with one_pass(crowded):
        assert len(notable_prims(crowded)) == before + 1


def test_every_shape_belongs_where_it_stands(crowded: Usd.Stage) -> None:
    """The table of instances against its definition, shape by shape."""
    owners: dict[str, str] = {}
    for prim in prims(crowded):
        if UsdGeom.Gprim(prim):
            group = body_of(prim) or scenery_group(prim)
            owners.setdefault(str(group.GetPath()), label_of(group))
    expected = [Instance(i, path, label) for i, (path, label) in enumerate({**owners, OTHER: "other"}.items(), start=1)]
    assert list(instance_table(crowded, (), ())) == expected
