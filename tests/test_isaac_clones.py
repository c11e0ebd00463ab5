# SPDX-License-Identifier: Apache-2.0
"""A cloned stage (/World/envs/env_0, env_1, …): one environment, any subset or all of them can be recorded, though the clones
carry the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.kit import FakeKit, row_in
from fakes.stage import Motion, make_stage, random_motion
from isaac_support import finished, request
from pxr import Gf, Sdf, Usd, UsdGeom

from retake.core.errors import StageError
from retake.isaac.live_capture import LiveCapture

ENVS = 3


def cloned() -> Motion:
    """The small stage's robot, packet and camera once per environment, 3 m apart."""
    single = make_stage()
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, "Z")
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    layer = single.GetRootLayer()
    Sdf.CopySpec(layer, "/World/PhysicsScene", stage.GetRootLayer(), "/World/PhysicsScene")
    UsdGeom.Scope.Define(stage, "/World/envs")
    for index in range(ENVS):
        env = UsdGeom.Xform.Define(stage, f"/World/envs/env_{index}")
        UsdGeom.XformCommonAPI(env).SetTranslate(Gf.Vec3d(0, 3.0 * index, 0))
        for name, source in (("Robot", "Arm0"), ("Packet", "Packet"), ("Camera", "Camera0")):
            target = env.GetPath().AppendChild(name)
            Sdf.CopySpec(layer, f"/World/{source}", stage.GetRootLayer(), target)
            retarget(stage, f"/World/{source}", str(target))
    motion = random_motion(stage, 200)
    motion.object_paths = tuple(f"/World/envs/env_{index}/Packet" for index in range(ENVS))
    motion.objects = np.repeat(motion.objects, ENVS, axis=1)
    return motion


def retarget(stage: Usd.Stage, old: str, new: str) -> None:
    """Relationships of a copy point into the copy."""
    for prim in Usd.PrimRange(stage.GetPrimAtPath(new)):
        for relationship in prim.GetRelationships():
            targets = [Sdf.Path(str(t).replace(old, new, 1)) for t in relationship.GetTargets()]
            relationship.SetTargets(targets)


@pytest.fixture(scope="module")
def source() -> Motion:
    return cloned()


def recorded(folder: Path, source: Motion, **changes: Any) -> Any:
    with FakeKit("6.x", source) as kit:
        capture = LiveCapture(request(folder, frames=5, **changes))
        capture.start()
        kit.play()
        kit.update(40)
        return finished(capture, kit)


@pytest.mark.parametrize("chosen", [(0,), (2,), (2, 0), (0, 1, 2)])
def test_any_subset_of_the_environments(chosen: tuple[int, ...], source: Motion, tmp_path: Path) -> None:
    envs = [f"/World/envs/env_{index}" for index in chosen]
    episode = recorded(
        tmp_path / "e", source, robots=tuple(f"{env}/Robot" for env in envs), cameras=tuple(f"{env}/Camera" for env in envs),
        objects=tuple(f"{env}/Packet" for env in envs),
    )  # fmt: skip
    header = episode.header
    assert {robot.prim_path for robot in header.robots} == {f"{env}/Robot" for env in envs}
    assert {item.prim_path for item in header.objects} == {f"{env}/Packet" for env in envs}
    assert (
        len({robot.name for robot in header.robots}) == len({camera.name for camera in header.cameras}) == len(chosen)
    )
    rows = [row_in(episode.image(header.cameras[0].name, "rgb", k)) for k in range(len(episode))]
    index_of = {robot.spec.prim_path: i for i, robot in enumerate(source.robots)}
    for robot in header.robots:
        i = index_of[robot.prim_path]
        assert np.array_equal(episode.joint(robot.name, "position"), source.q[i][rows].astype(np.float64)), (
            robot.prim_path
        )
        found = episode.link_poses(robot.name)[:, :, :3, 3]
        assert np.allclose(found, source.links[i][rows][:, :, :3], atol=1e-6), robot.prim_path


def test_everything_is_recorded_where_nothing_is_chosen(source: Motion, tmp_path: Path) -> None:
    episode = recorded(tmp_path / "e", source)
    assert len(episode.header.robots) == len({robot.name for robot in episode.header.robots}) == ENVS
    assert len(episode.header.objects) == len({item.name for item in episode.header.objects}) == ENVS


def test_an_environment_that_is_not_there_is_named(source: Motion, tmp_path: Path) -> None:
    with FakeKit("6.x", source) as kit:
        with pytest.raises(StageError, match="env_7"):
            LiveCapture(request(tmp_path / "e", robots=("/World/envs/env_7/Robot",))).start()
        assert kit.writers == kit.products == []
