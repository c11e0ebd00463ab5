# SPDX-License-Identifier: Apache-2.0
"""The self-test and the doctor, on the fakes and on this machine."""

from __future__ import annotations

import asyncio
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit, Nothing
from fakes.stage import planned_motion
from isaac_support import VERSIONS, motion
from pxr import Usd

from retake.core import doctor
from retake.isaac import selftest
from retake.isaac.assumptions import ASSUMPTIONS, MEASUREMENTS
from retake.isaac.checks import is_suspicious, misfit_px

ROOT = Path(__file__).resolve().parents[1]


def items_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {item["key"]: item for item in json.loads((folder / selftest.JSON).read_text())["items"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_self_test_measures_every_item(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "FRAMES", 5)
    with FakeKit(version, motion(), size=(640, 480)) as kit:
        asyncio.run(selftest.whole(None, tmp_path))
        assert kit.writers == kit.products == []
    items = items_of(tmp_path)
    assert list(items) == [m.key for m in MEASUREMENTS] + [a.key for a in ASSUMPTIONS]
    assert sum(line.startswith(("PASS", "FAIL", "----")) for line in capsys.readouterr().out.splitlines()) == len(items)
    live = items["record_live"]
    if version == "5.0":
        assert live["status"] == "unknown", live
    else:
        assert "pairing error 0 steps" in live["detail"]
        assert items["times_agree"]["value"] <= 2.0
        assert items["asynchronous_rendering"]["value"] == 0
        assert items["payload_layout"]["value"]["rgb"].startswith("uint8")
        for key in (
            "record_live",
            "same_camera",
            "times_agree",
            "writes_in_order",
            "payload_layout",
            "capture_on_play",
        ):
            assert items[key]["status"] == "pass", items[key]
    for key in ("record_stepped", "intrinsics", "untouched", "kinematics", "nobody_opens_a_stage", "whole_steps_per_update",
                "every_getter_answers", "stage_reads", "held_state_is_rendered", "detach_in_an_update"):  # fmt: skip
        assert items[key]["status"] == "pass", items[key]
    assert "p99" in items["cost"]["detail"]
    page = (tmp_path / selftest.REPORT).read_text()
    assert all(item["name"] in page for item in items.values())
    assert f"isaac_sim {version}" in page


def test_a_fault_fails_its_item_and_the_others_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "FRAMES", 5)

    def beside(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        numerator, denominator = data["reference_time"]
        return {**data, "reference_time": (numerator + 16_000, denominator)}

    with FakeKit("6.x", motion(), payload_filter=beside):
        assert asyncio.run(selftest.whole(None, tmp_path)) == 1
    items = items_of(tmp_path)
    assert items["record_live"]["status"] == "fail"
    assert "no physics state has the time" in items["record_live"]["detail"]
    assert items["record_stepped"]["status"] == "pass"
    page = (tmp_path / selftest.REPORT).read_text().splitlines()
    first = next(row for row in page if row.startswith("| ") and "item" not in row)
    assert first.startswith("| fail |")


def test_it_starts_where_there_is_neither_usd_nor_kit() -> None:
    """python.sh knows pxr only once a SimulationApp exists, and numpy, cv2 and yaml come with extensions."""
    block = (
        "import sys\n"
        "class NoKit:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pxr', 'omni', 'carb', 'isaacsim', 'numpy', 'cv2', 'yaml'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, NoKit())\n"
        "import retake.isaac, retake.isaac.standalone, retake.isaac.selftest as s\n"
        "try:\n    s.main([])\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "MissingDependencyError SimulationApp cannot be imported here" in done.stdout


def test_it_starts_with_an_application_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `./python.sh -m retake.isaac.selftest` does, demo stage and all."""
    monkeypatch.setattr(selftest, "FRAMES", 4)
    trajectory = ROOT / "data/trajectories/pick_place.npz"
    with FakeKit(
        "6.x", Nothing(), on_open=lambda url: planned_motion(Usd.Stage.Open(url), trajectory, steps=120), starting=True
    ) as kit:
        code = selftest.main(["--out", str(tmp_path / "out")])
        assert kit.exit_code == code
    items = items_of(tmp_path / "out")
    assert items["record_live"]["status"] == items["record_stepped"]["status"] == "pass", items
    assert capsys.readouterr().out.rstrip().endswith(f"retake: exit code {code}")


def test_the_checklist_is_written_from_the_same_list() -> None:
    script = runpy.run_path(str(ROOT / "scripts/kit_checklist.py"))
    page = (ROOT / "docs/isaac_sim_checklist.md").read_text()
    assert script["written"](page) == page, "run scripts/kit_checklist.py"
    for assumption in ASSUMPTIONS:
        assert assumption.if_false in page


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
