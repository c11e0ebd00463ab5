# SPDX-License-Identifier: Apache-2.0
"""The files behind a stage: which of the missing ones refuse it and which are only told, and what its hash depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import usd_stages
from pxr import Sdf, Usd, UsdGeom, UsdPhysics

from retake.core.errors import StageError
from retake.usd.stage import (
    body_of,
    ensure_physics_scene,
    has_label,
    label_of,
    missing_assets,
    notable_prims,
    open_stage,
    stage_sha256,
)

LAYERS = ("gone.usda", "gone.usd", "gone.usdc")
OTHERS = ("gone.png", "Gone.mdl", "gone.exr", "gone", "usda.jpg")


def naming(folder: Path, *files: str, layers: tuple[str, ...] = ()) -> Path:
    """A stage that names assets and references layers."""
    stage = usd_stages.empty()
    shader = stage.DefinePrim("/World/Looks/Shader", "Shader")
    for number, file in enumerate(files):
        shader.CreateAttribute(f"inputs:t{number}", Sdf.ValueTypeNames.Asset).Set(f"./{file}")
    for number, file in enumerate(layers):
        stage.DefinePrim(f"/World/R{number}").GetReferences().AddReference(f"./{file}")
    folder.mkdir(exist_ok=True)
    stage.GetRootLayer().Export(str(folder / "scene.usda"))
    return folder / "scene.usda"


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_is_not_there_refuses_and_is_no_texture(layer: str, tmp_path: Path) -> None:
    file = naming(tmp_path / "a", "gone.png", layers=(layer,))
    with pytest.raises(StageError, match=rf"needs files that are not there: [^,]*{layer}$"):
        open_stage(file)
    (note,) = missing_assets(file)
    assert note.endswith("gone.png")
    assert layer not in note


@pytest.mark.parametrize("asset", OTHERS)
def test_what_is_no_layer_refuses_nothing_and_is_told(asset: str, tmp_path: Path) -> None:
    file = naming(tmp_path / "a", asset)
    open_stage(file)
    (note,) = missing_assets(file)
    assert note.startswith("textures or shaders that are not there are not seen: ")
    assert note.endswith(f"/{asset}")


def test_what_is_there_is_not_told(tmp_path: Path) -> None:
    file = naming(tmp_path / "a", "here.png", layers=("here.usda",))
    usd_stages.empty().Export(str(tmp_path / "a" / "here.usda"))
    (tmp_path / "a" / "here.png").write_bytes(b"png")
    assert missing_assets(file) == ()
    open_stage(file)
    (tmp_path / "a" / "here.png").unlink()
    assert len(missing_assets(file)) == 1


def test_missing_files_are_told_in_one_order_whatever_the_stage_s(tmp_path: Path) -> None:
    names = ("b.png", "d.png", "a.png", "c.png")
    for number, order in enumerate((names, names[::-1], sorted(names))):
        (note,) = missing_assets(naming(tmp_path / str(number), *order))
        told = [Path(part).name for part in note.rpartition(": ")[2].removesuffix(" and 1 more").split(", ")]
        assert told == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(("name", "text"), [("none.usda", None), ("none.usda", "no usd"), ("folder", "")])
def test_what_is_no_stage_is_refused_by_its_name(name: str, text: str | None, tmp_path: Path) -> None:
    if text:
        (tmp_path / name).write_text(text)
    elif text == "":
        (tmp_path / name).mkdir()
    words = "cannot be opened as USD: " if text else "does not exist; expected a .usd"
    with pytest.raises(StageError, match=rf"^stage .*{name} {words}"):
        open_stage(tmp_path / name)


def whole(folder: Path) -> Path:
    """A stage with a layer, a texture and something that is not there."""
    file = naming(folder, "look.png", "gone.png", layers=("part.usda",))
    usd_stages.empty().Export(str(folder / "part.usda"))
    (folder / "look.png").write_bytes(b"look")
    return file


def test_the_hash_of_a_stage_is_that_of_its_files_wherever_they_lie(tmp_path: Path) -> None:
    first = stage_sha256(whole(tmp_path / "one"))
    assert stage_sha256(whole(tmp_path / "two")) == first
    (tmp_path / "two" / "beside.png").write_bytes(b"nobody names it")
    assert stage_sha256(tmp_path / "two" / "scene.usda") == first


@pytest.mark.parametrize("changed", ["scene.usda", "part.usda", "look.png"])
def test_the_hash_of_a_stage_changes_with_each_of_its_files(changed: str, tmp_path: Path) -> None:
    file = whole(tmp_path / "one")
    before = stage_sha256(file)
    path = file.parent / changed
    path.write_bytes(path.read_bytes() + b"\n# another\n")
    assert stage_sha256(file) != before


def test_files_outside_the_stage_s_folder_are_known_by_their_names(tmp_path: Path) -> None:
    """Each of them, also where two have one name: which is looked at first is chance."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "look.png").write_bytes(folder.encode())
    one, both = naming(tmp_path / "one", "../x/look.png"), naming(tmp_path / "both", "../x/look.png", "../y/look.png")
    before = [stage_sha256(file) for file in (one, both)]
    for changed, folder in ((both, "y"), (both, "x"), (one, "x")):
        path = tmp_path / folder / "look.png"
        kept, known = path.read_bytes(), stage_sha256(changed)
        path.write_bytes(b"another")
        assert stage_sha256(changed) != known, folder
        path.write_bytes(kept)
    assert [stage_sha256(file) for file in (one, both)] == before


# -- prims -------------------------------------------------------------------------------------------------------------


def test_bodies_roots_joints_scenes_actuators_and_cameras_are_notable_and_nothing_else_is() -> None:
    stage = Usd.Stage.CreateInMemory()
    UsdPhysics.RigidBodyAPI.Apply(UsdGeom.Cube.Define(stage, "/body").GetPrim())
    UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, "/root").GetPrim())
    UsdPhysics.FixedJoint.Define(stage, "/joint")
    UsdPhysics.Scene.Define(stage, "/scene")
    UsdGeom.Camera.Define(stage, "/camera")
    for kind in ("MjcActuator", "NewtonActuator"):
        stage.DefinePrim(f"/{kind}", kind)
    wanted = [str(prim.GetPath()) for prim in stage.Traverse()]
    UsdPhysics.CollisionAPI.Apply(UsdGeom.Cube.Define(stage, "/wall").GetPrim())
    UsdGeom.Xform.Define(stage, "/group")
    UsdGeom.Cube.Define(stage, "/root/body")
    assert [str(prim.GetPath()) for prim in notable_prims(stage)] == wanted


def test_a_prim_moves_with_the_nearest_body_above_it() -> None:
    stage = Usd.Stage.CreateInMemory()
    for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/d", "/e"):
        UsdGeom.Xform.Define(stage, path)
    for path in ("/a", "/a/b/c"):
        UsdPhysics.RigidBodyAPI.Apply(stage.GetPrimAtPath(path))
    found = {path: body_of(stage.GetPrimAtPath(path)) for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/d", "/e")}
    told = {path: None if body is None else str(body.GetPath()) for path, body in found.items()}
    assert told == {"/a": "/a", "/a/b": "/a", "/a/b/c": "/a/b/c", "/a/b/c/d": "/a/b/c", "/e": None}
    assert body_of(stage.GetPseudoRoot()) is None


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ({}, None),
        ({"semantics:labels:class": ["Mug", "cup"]}, "Mug"),
        ({"semantics:labels:class": []}, None),
        ({"semantic:Semantics:params:semanticData": "Bowl"}, "Bowl"),
        ({"semantic:Semantics:params:semanticData": ""}, None),
        ({"semantic:Semantics:params:semanticType": "class"}, None),
        ({"semanticsOf:labels:class": ["Mug"], "other:params:semanticData": "Bowl"}, None),
    ],
)
def test_a_label_that_is_authored_is_as_it_stands_else_the_name_in_small_letters(
    attributes: dict[str, Any], label: str | None
) -> None:
    stage = Usd.Stage.CreateInMemory()
    prim = stage.DefinePrim("/World/Thing_01", "Xform")
    for name, value in attributes.items():
        kind = Sdf.ValueTypeNames.StringArray if isinstance(value, list) else Sdf.ValueTypeNames.String
        prim.CreateAttribute(name, kind).Set(value)
    assert has_label(prim) == (label is not None)
    assert label_of(prim) == (label or "thing_01")


def test_a_stage_with_a_physics_scene_keeps_its_own() -> None:
    stage = usd_stages.empty()
    UsdPhysics.Scene.Define(stage, "/Mine").CreateGravityMagnitudeAttr(1.62)
    before = stage.GetSessionLayer().ExportToString()
    assert ensure_physics_scene(stage) == ()
    assert stage.GetSessionLayer().ExportToString() == before
