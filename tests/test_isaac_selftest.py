# SPDX-License-Identifier: Apache-2.0
"""The self-test and the doctor, on the fakes and on this machine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit
from isaac_support import VERSIONS, motion

from retake.core import doctor
from retake.isaac import selftest
from retake.isaac.checks import is_suspicious, misfit_px


@pytest.mark.parametrize("version", VERSIONS)
def test_the_self_test_measures_every_item(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "FRAMES", 5)
    with FakeKit(version, motion(), size=(640, 480)):
        asyncio.run(selftest.whole(None, tmp_path / "out.json"))
    lines = capsys.readouterr().out.splitlines()
    items = {i["name"]: i for i in json.loads((tmp_path / "out.json").read_text())["items"]}
    assert len(items) == len(lines) - 1 == 13
    live = "live recording pairs exactly"
    if version == "5.0":
        assert items[live]["status"] == "unknown", items[live]
        return
    for name in (
        live, "stepped recording pairs exactly", "live and stepped agree on the camera",
        "K of the frame is K of the stage (square pixels)", "the user's stage is untouched",
        "link poses fit forward kinematics (order, units, quaternions)",
    ):  # fmt: skip
        assert items[name]["status"] == "pass", items[name]
    assert "pairing error 0 steps" in items[live]["detail"]
    assert "p99" in items["cost in the simulation's callbacks"]["detail"]


def test_a_fault_fails_its_item_and_the_others_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "FRAMES", 5)

    def beside(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        numerator, denominator = data["reference_time"]
        return {**data, "reference_time": (numerator + 16_000, denominator)}

    with FakeKit("6.x", motion(), payload_filter=beside):
        asyncio.run(selftest.whole(None, tmp_path / "out.json"))
    items = {i["name"]: i for i in json.loads((tmp_path / "out.json").read_text())["items"]}
    assert items["live recording pairs exactly"]["status"] == "fail"
    assert "no physics state has the time" in items["live recording pairs exactly"]["detail"]
    assert items["stepped recording pairs exactly"]["status"] == "pass"


def test_the_skeleton_check_tells_right_from_wrong(tmp_path: Path) -> None:
    from dataclasses import replace

    from scenes import make_scene_episode

    episode = make_scene_episode(tmp_path / "e", frames=2, size=(160, 120))
    frame, size = episode.frame(1), (160, 120)
    right = misfit_px(frame, episode.header, 0)
    assert not is_suspicious(right, size), right
    view = frame.cameras[0]
    for T in (view.T_camera_world @ view.T_camera_world, view.T_camera_world.copy()):
        if T[0, 3] == view.T_camera_world[0, 3]:
            T[:3, 3] *= 0.3
        wrong = replace(frame, cameras=(replace(view, T_camera_world=T), *frame.cameras[1:]))
        found = misfit_px(wrong, episode.header, 0)
        assert found is None or found > (right or 0.0) + 5


def test_the_doctor_reports_and_names_one_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETAKE_WORKER_STATE", str(tmp_path))
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert out.count("next: ") == 1
    assert doctor.main(["--json"]) == 0
    areas = [f["area"] for f in json.loads(capsys.readouterr().out)["findings"]]
    assert {"Python", "core", "Isaac Sim", "GPU", "worker", "models", "licences", "disk"} <= set(areas)


def test_the_doctor_inside_kit_names_it() -> None:
    with FakeKit("6.x", motion()):
        import omni.kit.app  # type: ignore[import-not-found]

        assert omni.kit.app is not None
        finding = next(f for f in doctor.examine() if f.area == "Isaac Sim")
        assert "running inside isaac-sim.fake 6.x" in finding.text


def test_the_doctor_survives_a_broken_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Finding:
        raise OSError("gone")

    monkeypatch.setattr(doctor, "_gpu", broken)
    findings = doctor.examine()
    assert any(f.status == "bad" and "gone" in f.text for f in findings)
    assert (
        doctor.next_step([doctor.Finding("x", "bad", "t", "do this"), doctor.Finding("y", "missing", "t", "later")])
        == "do this"
    )
