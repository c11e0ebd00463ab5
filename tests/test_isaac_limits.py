# SPDX-License-Identifier: Apache-2.0
"""Recordings in Isaac Sim at their limits, part by part: the smallest cameras, the last frame, the first error, what an update
or a callback costs, and arrays of every kind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.episode import CameraSpec, Instance
from retake.core.errors import StageError
from retake.isaac import stage_reader, tensors
from retake.isaac.rendered_camera import calibrated_intrinsics, intrinsics
from retake.isaac.selftest_items import SelfTest
from retake.isaac.stage_reader import CameraChoice, IsaacStageReader
from retake.usd.instances import InstanceLookup
from retake.usd.lens import Calibration
from retake.usd.units import StageUnits

# -- cameras -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("focal", "aperture"), [(0.5, 0.75), (12.0, 20.0), (0.3, 2.0)])
def test_lengths_below_one_are_lengths(focal: float, aperture: float) -> None:
    """A picture of one pixel: its focal length is less than a pixel, and may be less than a tenth of a stage unit."""
    P = np.zeros((4, 4))
    P[0, 0] = P[1, 1] = 2 * focal / aperture
    params = {"cameraProjection": P.ravel(), "cameraFocalLength": focal, "cameraAperture": (aperture, aperture)}
    K = intrinsics(params, (1, 1), "/C")
    assert np.allclose(K, [[focal / aperture, 0, 0.5], [0, focal / aperture, 0.5], [0, 0, 1]])
    told = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    said = {
        "cameraOpenCVFx": focal, "cameraOpenCVFy": focal, "cameraFisheyeOpticalCentre": (0.5, 0.5),
        "cameraFisheyeNominalWidth": 1, "cameraFisheyeNominalHeight": 1,
    }  # fmt: skip
    prim = Calibration(np.diag([2, 4, 1]) @ told, None)
    found = calibrated_intrinsics(said, (2, 4), "/C", prim)
    assert found is not prim.K
    assert np.allclose(found, prim.K)


@pytest.mark.parametrize(("metres", "up"), [(1.0, "Z"), (0.01, "Y")])
def test_near_things_keep_their_ids_and_the_sky_has_none(
    monkeypatch: pytest.MonkeyPatch, metres: float, up: str
) -> None:
    camera = SimpleNamespace(K=np.eye(3), T_camera_world=np.eye(4), lens=None)
    monkeypatch.setattr(stage_reader, "rendered_camera", lambda *told: camera)
    monkeypatch.setattr(stage_reader, "straighten", lambda frame: frame)
    monkeypatch.setattr(stage_reader, "encode_normals", lambda normals: normals)
    reader = object.__new__(IsaacStageReader)
    reader._units, reader._calibrations = StageUnits(metres, 1.0, up), {}
    reader._lookup = InstanceLookup((Instance(5, "/Box", "box"),))
    spec = CameraSpec("c", "/C", (3, 2), True, ("rgb", "depth", "normals", "instances"))
    depth = np.array([[0.25, np.inf, 0.0], [np.nan, 0.001, 9.0]], np.float32) / metres
    images = {
        "rgb": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "depth": depth,
        "normals": np.broadcast_to(np.float32([0, 0.6, 0.8, 7]), (2, 3, 4)), "instances": np.full((2, 3), 1, np.uint32),
    }  # fmt: skip
    view: Any = SimpleNamespace(images=images, camera={}, id_to_path={1: "/Box/lid"})
    frame = reader._camera(spec, view)
    assert np.allclose(frame.depth_m, [[0.25, 0, 0], [0, 0.001, 9]])
    assert frame.instance_ids.tolist() == [[5, 0, 0], [0, 5, 5]]
    assert np.array_equal(frame.rgb, images["rgb"][..., :3])
    assert np.allclose(frame.normals[0, 0], (0, 0.6, 0.8) if up == "Z" else (0, -0.8, 0.6))
    for wrong in (np.zeros((3, 2)), np.zeros((2, 4)), np.zeros((1, 3))):
        with pytest.raises(StageError, match=f"depth is {wrong.shape[1]}x{wrong.shape[0]}; expected 3x2"):
            reader._camera(spec, SimpleNamespace(images={**images, "depth": wrong}, camera={}, id_to_path={}))
    assert CameraChoice("/C").size == (640, 480)


@pytest.mark.parametrize(
    ("text", "listed"), [("  Video I/O:\n    FFMPEG:      YES\n", True), ("  Video I/O:\n    GStreamer: YES\n", False)]
)
def test_what_opencv_was_built_with_is_told(monkeypatch: pytest.MonkeyPatch, text: str, listed: bool) -> None:
    import cv2

    monkeypatch.setattr(cv2, "getBuildInformation", lambda: text)
    good, said, value = asyncio.run(SelfTest(Path("/nowhere"), None, 5).opencv())
    assert (good, value) == (True, cv2.__version__)
    assert said == f"OpenCV {cv2.__version__}, video I/O through ffmpeg listed: {listed}"


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_a_view_of_the_simulation_is_the_manager_s_or_one_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    own = SimpleNamespace(set_subspace_roots=lambda root: asked.append(root))

    def create(frontend: str) -> Any:
        asked.append(frontend)
        if frontend in refused:
            raise RuntimeError("GPU pipeline")
        return found

    refused: set[str] = set()
    found: Any = own
    manager = SimpleNamespace(SimulationManager=SimpleNamespace(get_physics_sim_view=lambda: held))
    held: Any = "held"
    monkeypatch.setattr(tensors, "require", lambda name: SimpleNamespace(create_simulation_view=create))
    monkeypatch.setattr(tensors, "optional", lambda name: manager)
    assert (tensors.simulation_view(), asked) == ("held", [])
    manager.SimulationManager.get_physics_simulation_view = lambda: "newer"
    assert tensors.simulation_view() == "newer"
    del manager.SimulationManager.get_physics_simulation_view
    held = None
    assert (tensors.simulation_view(), asked) == (own, ["numpy", "/"])
    refused.add("numpy")
    asked.clear()
    assert (tensors.simulation_view(), asked) == (own, ["numpy", "warp", "/"])
    monkeypatch.setattr(tensors, "optional", lambda name: None)
    found = None
    with pytest.raises(StageError, match="press Play first"):
        tensors.simulation_view()
    assert tensors.engine() == "physx"
    monkeypatch.setattr(tensors, "optional", lambda name: manager)
    assert tensors.engine() == "physx"
    manager.SimulationManager.get_active_physics_engine = lambda: "newton"
    assert tensors.engine() == "newton"


def test_why_an_engine_does_not_answer() -> None:
    def refuses(error: Exception) -> Any:
        raise error

    assert tensors._refusal(lambda: 3) == ""
    assert tensors._refusal(lambda: None) == "the engine answers with nothing"
    assert tensors._refusal(lambda: refuses(RuntimeError("not measured"))) == "not measured"
    assert tensors._refusal(lambda: refuses(NotImplementedError())) == "NotImplementedError"


def test_targets_are_sent_in_the_arrays_that_a_view_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    rows = np.arange(2, dtype=np.int32)
    made = SimpleNamespace(int=lambda: "torch rows")
    torch = SimpleNamespace(detach=None, new_tensor=lambda values: made if values.dtype == np.int32 else "torch data")
    warp = SimpleNamespace(int32="int", array=lambda values, dtype, device: ("warp", values.tolist(), dtype, device))
    strange = SimpleNamespace(dtype="float", device="cuda:1")
    monkeypatch.setattr(tensors, "optional", lambda name: warp)
    for sample, wanted in (
        (data, (data, rows)), (torch, ("torch data", "torch rows")),
        (strange, (("warp", data.tolist(), "float", "cuda:1"), ("warp", [0, 1], "int", "cuda:1"))),
    ):  # fmt: skip
        view = SimpleNamespace(get_dof_position_targets=lambda sample=sample: sample)
        for found, expected in zip((tensors._like(sample, data), tensors._rows_like(view, data)), wanted, strict=True):
            assert np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected
    monkeypatch.setattr(tensors, "optional", lambda name: None)
    assert tensors._like(strange, data) is data
    view = SimpleNamespace(get_dof_position_targets=lambda: strange)
    assert tensors._rows_like(view, data).tolist() == [0, 1]


def test_paths_of_a_row_that_a_view_does_not_have_are_none() -> None:
    table = [["/a", "/b"], ["/c"]]
    assert [tensors._paths(table, row) for row in (0, 1, 2)] == [["/a", "/b"], ["/c"], []]
    assert tensors._paths(None, 0) == tensors._paths([], 0) == []
    for view in (None, SimpleNamespace(check=lambda: False)):
        assert tensors._articulations(SimpleNamespace(create_articulation_view=lambda p, v=view: v), "/R") is None
    good = SimpleNamespace(check=lambda: True)
    assert tensors._articulations(SimpleNamespace(create_articulation_view=lambda p: good), "/R") is good
    assert tensors._articulations(SimpleNamespace(), "/R") is None
