# SPDX-License-Identifier: Apache-2.0
"""Lenses as Isaac Sim and Isaac Lab author them on camera prims; recordings and renderings through them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import usd_stages
from fakes.kit import FakeKit
from fakes.stage import make_stage, random_motion
from isaac_support import request
from pxr import Gf, Sdf, Usd, UsdGeom

from retake.core.episode import Episode
from retake.core.errors import StageError
from retake.core.geometry import inverse, transform
from retake.core.lens import COEFFICIENTS, Lens
from retake.isaac.live_capture import LiveCapture
from retake.usd.camera import read_camera
from retake.usd.lens import MODELS

NOMINAL = (1280, 960)
VALUES = {"fx": 900.0, "fy": 910.0, "cx": 630.0, "cy": 485.0}
COEFFICIENT = {"opencvPinhole": {"k1": -0.2, "k2": 0.05, "p1": 0.001}, "opencvFisheye": {"k1": 0.05, "k2": -0.01}}
NAMES = {"opencvPinhole": "OpenCvPinhole", "opencvFisheye": "OpenCvFisheye"}


@pytest.fixture(autouse=True)
def stages_as_on_disk() -> Any:
    """A lens put on a stage in memory must not be there for the next test: layers of files are shared by a process."""
    yield
    for layer in Sdf.Layer.GetLoadedLayers():
        if layer.dirty and layer.realPath:
            layer.Reload(True)


def author(prim: Usd.Prim, model: str, *, schema: bool = True, selector: bool = True, leave_out: str = "") -> None:
    """As isaacsim.sensors.camera's set_opencv_…_properties and Isaac Lab's spawners do."""
    if schema:
        prim.AddAppliedSchema(f"OmniLensDistortion{NAMES[model]}API")
    if selector:
        prim.CreateAttribute("omni:lensdistortion:model", Sdf.ValueTypeNames.Token).Set(model)
    for name, value in {**VALUES, **COEFFICIENT[model]}.items():
        if name != leave_out:
            prim.CreateAttribute(f"omni:lensdistortion:{model}:{name}", Sdf.ValueTypeNames.Float).Set(value)
    if leave_out != "imageSize":
        attribute = prim.CreateAttribute(f"omni:lensdistortion:{model}:imageSize", Sdf.ValueTypeNames.Int2)
        attribute.Set(Gf.Vec2i(*NOMINAL))


def expected(model: str) -> Lens:
    return Lens(MODELS[model], tuple(COEFFICIENT[model].get(n, 0.0) for n in COEFFICIENTS[MODELS[model]]))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("how", [{}, {"selector": False}, {"schema": False}])
def test_a_calibration_is_read_and_scales_with_the_picture(model: str, how: dict[str, bool]) -> None:
    stage = usd_stages.empty()
    prim = usd_stages.add_camera(stage).GetPrim()
    author(prim, model, **how)
    full, half = read_camera(prim, NOMINAL), read_camera(prim, (640, 480))
    assert np.allclose(full.lens.coefficients, expected(model).coefficients, atol=1e-7)
    assert full.lens == half.lens == full.camera().lens
    assert np.allclose(full.K, [[900, 0, 630], [0, 910, 485], [0, 0, 1]])
    assert np.allclose(half.K, np.diag([0.5, 0.5, 1]) @ full.K)


def test_a_pinhole_calibration_without_coefficients_keeps_its_k_and_has_no_lens() -> None:
    stage = usd_stages.empty()
    prim = usd_stages.add_camera(stage).GetPrim()
    author(prim, "opencvPinhole")
    for name in COEFFICIENT["opencvPinhole"]:
        prim.GetAttribute(f"omni:lensdistortion:opencvPinhole:{name}").Set(0.0)
    read = read_camera(prim, NOMINAL)
    assert read.lens is None
    assert np.allclose(read.K[[0, 1], [0, 1]], (900, 910))


def test_a_calibrated_camera_needs_no_focal_length() -> None:
    stage = usd_stages.empty()
    camera = usd_stages.add_camera(stage)
    camera.CreateFocalLengthAttr(0.0)
    author(camera.GetPrim(), "opencvFisheye")
    assert read_camera(camera.GetPrim(), NOMINAL).K[0, 0] == 900


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: author(p, "opencvPinhole", leave_out="imageSize"), "imageSize is None"),
        (lambda p: author(p, "opencvPinhole", leave_out="fx"), "fx is None; expected a number of pixels"),
        (
            lambda p: (author(p, "opencvPinhole", selector=False), author(p, "opencvFisheye", selector=False)),
            "2 lens schemas .* and no omni:lensdistortion:model that chooses one",
        ),
        (
            lambda p: p.AddAppliedSchema("OmniLensDistortionKannalaBrandtK3API"),
            "lens model OmniLensDistortionKannalaBrandtK3API is not supported",
        ),
        (
            lambda p: p.CreateAttribute("omni:lensdistortion:model", Sdf.ValueTypeNames.Token).Set("radTanThinPrism"),
            "model = radTanThinPrism is not supported; expected a pinhole, opencvPinhole or opencvFisheye",
        ),
        (
            lambda p: p.CreateAttribute("cameraProjectionType", Sdf.ValueTypeNames.Token).Set("fisheyeOpenCV"),
            "cameraProjectionType = fisheyeOpenCV is not supported",
        ),
    ],
)
def test_what_cannot_be_known_is_refused_by_name(change: Any, text: str) -> None:
    stage = usd_stages.empty()
    prim = usd_stages.add_camera(stage).GetPrim()
    change(prim)
    with pytest.raises(StageError, match=text):
        read_camera(prim, NOMINAL)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [0, -3])
def test_each_number_of_a_calibration_must_be_positive(side: int, value: int) -> None:
    def refused(name: str, wrong: Any, text: str) -> None:
        stage = usd_stages.empty()  # held: a prim does not keep its stage
        prim = usd_stages.add_camera(stage).GetPrim()
        author(prim, "opencvPinhole")
        prim.GetAttribute(f"omni:lensdistortion:opencvPinhole:{name}").Set(wrong)
        with pytest.raises(StageError, match=text):
            read_camera(prim, NOMINAL)

    size = [*NOMINAL]
    size[side] = value
    refused("imageSize", Gf.Vec2i(*size), "expected the .width, height. that fx, fy, cx and cy are pixels of")
    refused(("fx", "fy")[side], float(value), "expected positive numbers")


def test_the_model_that_is_selected_counts_where_both_are_applied() -> None:
    stage = usd_stages.empty()
    prim = usd_stages.add_camera(stage).GetPrim()
    author(prim, "opencvPinhole", selector=False)
    author(prim, "opencvFisheye")
    lens = read_camera(prim, NOMINAL).lens
    assert lens is not None
    assert lens.model == "opencv-fisheye"
    prim.GetAttribute("omni:lensdistortion:model").Set("pinhole")
    assert read_camera(prim, NOMINAL).lens is None


class TestRecording:
    """In the fakes: what camera_params tells of such a camera is the public writers' reading of it."""

    def record(self, folder: Path, model: str, told: dict[str, Any], **changes: Any) -> LiveCapture:
        stage = make_stage()
        author(stage.GetPrimAtPath("/World/Camera0"), model)
        source = random_motion(stage, 60)

        def calibrated(data: dict[str, Any], frame: Any) -> dict[str, Any]:
            for entries in data["renderProducts"].values():
                entries["camera_params"].update(told)
            return data

        with FakeKit("6.x", source, payload_filter=calibrated) as kit:
            capture = LiveCapture(request(folder, frames=3, **changes))
            capture.start()
            kit.play()
            kit.update(30)
            kit.update(12)
            assert capture._finisher is not None
            capture._finisher.join(30)
            return capture

    def told(self, model: str) -> dict[str, Any]:
        drawn = {"opencvPinhole": "pinholeOpenCV", "opencvFisheye": "fisheyeOpenCV"}[model]
        return {
            "cameraModel": drawn, "cameraOpenCVFx": VALUES["fx"], "cameraOpenCVFy": VALUES["fy"],
            "cameraFisheyeOpticalCentre": np.array([VALUES["cx"], VALUES["cy"]]),
            "cameraFisheyeNominalWidth": NOMINAL[0], "cameraFisheyeNominalHeight": NOMINAL[1],
        }  # fmt: skip

    @pytest.mark.parametrize("model", sorted(MODELS))
    @pytest.mark.parametrize("tells_k", [True, False])
    def test_k_and_lens_reach_the_episode(self, model: str, tells_k: bool, tmp_path: Path) -> None:
        told = self.told(model)
        episode = self.record(tmp_path / "e", model, told if tells_k else {"cameraModel": told["cameraModel"]}).episode
        (spec,) = episode.header.cameras
        assert spec.lens is not None
        assert np.allclose(spec.lens.coefficients, expected(model).coefficients, atol=1e-7)
        width, height = spec.size
        K = np.array([[900, 0, 630], [0, 910, 485], [0, 0, 1.0]])
        assert np.allclose(episode.camera(spec.name, 0).K, np.diag([width / 1280, height / 960, 1]) @ K)
        assert "undistorted" not in episode.header.settings

    def test_undistorted_on_request_with_the_change_recorded(self, tmp_path: Path) -> None:
        kept = self.record(tmp_path / "a", "opencvFisheye", self.told("opencvFisheye")).episode
        flat = self.record(tmp_path / "b", "opencvFisheye", self.told("opencvFisheye"), undistort=True).episode
        lens = kept.header.cameras[0].lens
        assert lens is not None
        assert flat.header.cameras[0].lens is None
        assert flat.header.settings["undistorted"] == {"Camera0": lens.to_json()}
        assert not np.array_equal(flat.image("Camera0", "rgb", 0), kept.image("Camera0", "rgb", 0))
        assert np.array_equal(flat.camera_matrices("Camera0")[0], kept.camera_matrices("Camera0")[0])

    @pytest.mark.parametrize(
        ("told", "text"),
        [
            ({}, "OpenCV pinhole calibration, and the renderer draws it with lens model 'pinhole'"),
            ({"cameraModel": "fisheyeOpenCV"}, "draws it with lens model 'fisheyeOpenCV'"),
            ({"cameraModel": "pinholeOpenCV", "cameraOpenCVFx": 700.0, "cameraOpenCVFy": 700.0,
              "cameraFisheyeOpticalCentre": [640.0, 480.0]}, "they must agree"),
        ],
    )  # fmt: skip
    def test_a_lens_that_the_renderer_does_not_draw_ends_the_recording(
        self, told: dict[str, Any], text: str, tmp_path: Path
    ) -> None:
        capture = self.record(tmp_path / "e", "opencvPinhole", told)
        assert capture.status.phase.value == "failed"
        assert text in capture.status.message


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_embedded_simulator_draws_the_lens(model: str, tmp_path: Path) -> None:
    """The packet's rendered pixels, taken back through the lens by their depth, lie on the packet's box."""
    pytest.importorskip("newton")
    from newton_support import brief

    from retake.newton.run import capture

    stage = Usd.Stage.Open(str(usd_stages.PICK_PLACE))
    stage.SetEditTarget(stage.GetSessionLayer())  # layers are shared by all stages of a process
    prim = stage.GetPrimAtPath("/World/Camera")
    f = 320 * UsdGeom.Camera(prim).GetFocalLengthAttr().Get() / UsdGeom.Camera(prim).GetHorizontalApertureAttr().Get()
    author(prim, model)
    for name, value in {"fx": f, "fy": f, "cx": 160.0, "cy": 120.0}.items():
        prim.GetAttribute(f"omni:lensdistortion:{model}:{name}").Set(value)
    prim.GetAttribute(f"omni:lensdistortion:{model}:imageSize").Set(Gf.Vec2i(320, 240))
    path = tmp_path / "bent.usda"
    stage.Flatten().Export(str(path))
    episode = capture(tmp_path / "e", stage=path, overrides=brief(1, cameras=[{"name": "front", "size": [320, 240]}]))
    (spec,) = episode.header.cameras
    assert spec.lens is not None
    assert spec.lens.model == MODELS[model]
    off = {bent: packet_misfit_m(episode, bent) for bent in (True, False)}
    assert off[True] < 1e-3
    assert off[False] > 5 * off[True]


def packet_misfit_m(episode: Episode, bent: bool) -> float:
    """Largest distance of the packet's pixels, unprojected, from its box's surface, m."""
    index = next(i for i, o in enumerate(episode.header.objects) if o.name == "Packet")
    half, T = np.array(episode.header.objects[index].size_m) / 2, episode.object_poses[0, index]
    ids = {i.owner: i.id for i in episode.header.instances if i.owner.startswith("object:")}
    mask = episode.image("front", "instances", 0) == ids["object:Packet"]
    assert mask.sum() > 50
    view = episode.camera("front", 0)
    view = view if bent else replace(view, lens=None)
    depth = episode.image("front", "depth", 0)[mask].astype(np.float64)
    points = transform(inverse(T), view.unproject(view.pixel_grid()[mask], depth))
    return float(np.abs((np.abs(points) - half).max(-1)).max())
