# SPDX-License-Identifier: Apache-2.0
"""What users do wrong and what breaks under way: a clear message each time, and the episode so far opens."""

from __future__ import annotations

import asyncio
import errno
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.kit import FakeKit
from fakes.stage import make_stage, random_motion, session_is_clean
from isaac_support import check_exact, finished, motion, request
from pxr import Usd, UsdGeom, UsdPhysics

from retake.core.episode import EpisodeWriter, open_episode
from retake.core.errors import InputError, RetakeError, StageError
from retake.isaac.contacts import ContactReports
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import Phase, convert, request_from
from retake.isaac.stage_reader import read_content
from retake.isaac.stepped import drive_stepped


def end(capture: LiveCapture, kit: FakeKit) -> LiveCapture:
    kit.update(14)
    for _ in range(2000):  # a fault in the pictures is found by the recorder's thread, which a busy machine may hold up
        if capture._finisher is not None:
            break
        kit.update()
        time.sleep(0.001)
    assert capture._finisher is not None, capture.status
    capture._finisher.join(30)
    return capture


def is_untouched(kit: FakeKit) -> bool:
    return (
        kit.products == [] and kit.writers == [] and kit.post_step == {} and session_is_clean(kit.motion.stage)
        and kit.settings["/omni/replicator/captureOnPlay"] is True
        and kit.changed_settings() == {}
    )  # fmt: skip


def broken(stage: Usd.Stage, change: Any) -> Usd.Stage:
    change(stage)
    return stage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.GetPrimAtPath("/World/Arm0").RemoveAPI(UsdPhysics.ArticulationRootAPI), "has no articulation"),
        (lambda s: UsdGeom.Camera(s.GetPrimAtPath("/World/Camera0")).GetFocalLengthAttr().Set(0.0), "focalLength is 0"),
        (lambda s: s.RemovePrim("/World/Camera0"), "has no camera"),
        (
            lambda s: s.GetPrimAtPath("/World/Camera0").AddAppliedSchema("OmniLensDistortionFthetaAPI"),
            "lens model OmniLensDistortionFthetaAPI is not supported",
        ),
        (
            lambda s: UsdGeom.Camera(s.GetPrimAtPath("/World/Camera0")).GetProjectionAttr().Set("orthographic"),
            "projection 'orthographic'",
        ),
    ],
)
def test_a_stage_that_cannot_be_recorded_says_why(change: Any, message: str, tmp_path: Path) -> None:
    stage = make_stage()
    source = random_motion(stage, 10)
    change(stage)
    with FakeKit("6.x", source) as kit:
        with pytest.raises(StageError, match=message):
            LiveCapture(request(tmp_path / "e")).start()
        assert is_untouched(kit)


def test_two_robots_of_one_name_are_told_apart() -> None:
    from fakes.stage import _robot

    stage = make_stage()
    _robot(stage, "/World/Group/Arm0", 1.0, (3.0, 0.0, 0.0))
    names = [(r.spec.name, r.spec.prim_path) for r in read_content(stage).robots]
    assert names == [("Arm0", "/World/Arm0"), ("Group_Arm0", "/World/Group/Arm0")]


def test_no_stage_and_unknown_prims_are_named(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        for changes, text in (
            ({"robots": ("/World/Nobody",)}, "/World/Arm0"),
            ({"cameras": ("/World/Nobody",)}, "/World/Camera0"),
            ({"objects": ("/World/Nobody",)}, "/World/Packet"),
        ):
            with pytest.raises(StageError, match=text):
                LiveCapture(request(tmp_path / "e", **changes)).start()
        kit.motion = None  # type: ignore[assignment]
        with pytest.raises(StageError, match="no stage is open"):
            LiveCapture(request(tmp_path / "e")).start()


def test_an_output_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with FakeKit("6.x", motion()) as kit:
        for folder, text in (
            ("file", "not an empty folder"),
            ("full", "not an empty folder"),
            ("file/below", "cannot be written"),
        ):
            with pytest.raises(InputError, match=text):
                LiveCapture(request(tmp_path / folder)).start()
        assert is_untouched(kit)
    with pytest.raises(InputError, match="output is empty"):
        LiveCapture(request(""))


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match="unknown capture setting 'framerate'"):
        request_from({"framerate": 3})
    with pytest.raises(InputError, match="fps needs a value like"):
        request_from({"fps": "many"})
    with pytest.raises(InputError, match="must be positive"):
        request_from({"output": "x", "fps": -1}).checked()
    with pytest.raises(InputError, match="valid: auto, live, stepped"):
        request_from({"output": "x", "mode": "fast"}).checked()
    assert request_from({"robots": "/A, /B", "contacts": "off", "width": "320"}).robots == ("/A", "/B")


def test_a_frame_rate_that_does_not_divide_ends_with_the_valid_ones(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e", fps=25))
        capture.start()
        kit.play()
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        assert "valid: 60, 30, 20, 15" in capture.status.message
        assert is_untouched(kit)


@pytest.mark.parametrize("mode", ["live", "stepped"])
@pytest.mark.parametrize(
    "path", ["/app/asyncRendering", "/app/asyncRenderingLowLatency", "/omni/replicator/asyncRendering"]
)
def test_asynchronous_rendering_is_off_while_recording_and_put_back(path: str, mode: str, tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        kit.settings[path] = kit._settings_at_start[path] = True
        capture = LiveCapture(request(tmp_path / "e", mode=mode, frames=5))
        capture.start()
        assert kit.settings[path] is False
        if mode == "stepped":
            asyncio.run(drive_stepped(capture))
        else:
            kit.play()
            kit.update(50)
        check_exact(finished(capture, kit), kit.motion, 4)
        kit.stop()
        kit.update(20)
        assert is_untouched(kit)


@pytest.mark.parametrize("recording", [True, False])
def test_an_extension_that_switches_asynchronous_rendering_on_ends_the_recording(
    recording: bool, tmp_path: Path
) -> None:
    with FakeKit("6.x", motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        if recording:
            kit.update(40)
        stubborn = lambda event: kit.settings.__setitem__("/app/asyncRendering", True)  # noqa: E731
        kit.update_callbacks.insert(0, stubborn)
        kit.update(90)
        kit.update_callbacks.remove(stubborn)
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        assert "switched asynchronous rendering on" in capture.status.message
        if recording:
            check_exact(open_episode(tmp_path / "e"), kit.motion, 4)


@pytest.mark.parametrize("version", ["4.5", "5.1", "6.x"])
def test_a_prim_deleted_in_mid_capture_keeps_the_frames_before_it(version: str, tmp_path: Path) -> None:
    with FakeKit(version, motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(30)
        kit.deleted.add("/World/Packet")
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        assert "was a prim deleted" in capture.status.message
        assert "complete frames are kept" in capture.status.message
        assert len(open_episode(tmp_path / "e")) >= 5
        assert is_untouched(kit)


@pytest.mark.parametrize("gone", ["deleted", "deactivated"])
@pytest.mark.parametrize(
    ("path", "what"),
    [("/World/Arm0", r"robot 'Arm0' \(/World/Arm0\)"), ("/World/Camera0", r"camera 'Camera0' \(/World/Camera0\)")],
)
def test_a_robot_or_camera_that_goes_from_the_stage_ends_the_recording_at_once(
    path: str, what: str, gone: str, tmp_path: Path
) -> None:
    """A renderer may go on with a stale picture, and views with a stale state: the prim itself is what counts."""
    source = random_motion(make_stage(), 200)
    with FakeKit("6.x", source) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(30)
        if gone == "deleted":
            source.stage.RemovePrim(path)
        else:
            source.stage.GetPrimAtPath(path).SetActive(False)
        kit.update(1)
        assert capture.status.phase is not Phase.RECORDING
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        # What is inactive is not defined for every version of USD.
        assert re.search(f"{what} was (deleted|{gone}) while recording", capture.status.message)
        assert "complete frames are kept" in capture.status.message
        assert len(open_episode(tmp_path / "e")) >= 5
        assert is_untouched(kit)


def test_a_recording_is_started_once(tmp_path: Path) -> None:
    with FakeKit("6.x", random_motion(make_stage(), 200)) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        with pytest.raises(StageError, match="started before"):
            capture.start()
        kit.play()
        kit.update(30)
        capture.stop("done")
        end(capture, kit)
        assert capture.status.phase is Phase.DONE
        assert is_untouched(kit)


@pytest.mark.parametrize("updates", [0, 1, 2, 3, 4])
def test_a_recording_without_a_frame_leaves_a_folder_that_can_be_recorded_into(updates: int, tmp_path: Path) -> None:
    for count in (updates, 40):
        with FakeKit("6.x", random_motion(make_stage(), 200), lag=3) as kit:
            capture = LiveCapture(request(tmp_path / "e"))
            capture.start()
            kit.play()
            kit.update(count)
            capture.stop("done")
            end(capture, kit)
            assert is_untouched(kit)
        if capture.status.phase is Phase.DONE:
            break
        assert not (tmp_path / "e").exists() or not any((tmp_path / "e").iterdir())
    assert len(open_episode(tmp_path / "e")) >= 1


@pytest.mark.parametrize(("name", "value"), [("undistort", "ture"), ("stepped", "maybe"), ("overwrite", "2")])
def test_a_switch_that_is_neither_on_nor_off_is_told(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{name} needs true or false; found '{value}'"):
        convert(name, value, False)


def test_a_folder_that_no_file_system_takes_is_told(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()), pytest.raises(InputError, match=r"cannot be used .*choose another output folder"):
        request(tmp_path / ("e" * 300)).checked()


@pytest.mark.parametrize("playing", [True, False])
def test_another_stage_opened_while_recording_ends_it(playing: bool, tmp_path: Path) -> None:
    with FakeKit("5.1", random_motion(make_stage(), 200)) as kit:
        first = kit.motion.stage
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        if playing:
            kit.play()
            kit.update(30)
        kit.motion = random_motion(make_stage(), 200)
        end(capture, kit)
        assert "the stage was closed or replaced while recording" in capture.status.message
        assert capture.status.phase is Phase.FAILED
        assert is_untouched(kit)
        assert session_is_clean(first)
    if playing:
        assert len(open_episode(tmp_path / "e")) >= 5


def test_one_thing_that_cannot_be_taken_back_leaves_nothing_else_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An expired stage, a view Kit closed by itself: the settings are put back and the episode is completed all the same."""

    def expired(self: Any) -> None:
        raise RuntimeError("Accessed invalid expired stage")

    monkeypatch.setattr(ContactReports, "close", expired)
    with FakeKit("6.x", random_motion(make_stage(), 200)) as kit:
        throttling = "/exts/isaacsim.core.throttling/enable_async"
        before = kit.settings.get(throttling)
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(30)
        capture.stop("done")
        end(capture, kit)
        assert capture.status.phase is Phase.DONE
        assert [n for n in capture.status.notes if "expired stage" in n and "contact reports" in n]
        assert (kit.products, kit.writers, kit.post_step) == ([], [], {})
        assert kit.settings["/omni/replicator/captureOnPlay"] is True
        assert kit.settings.get(throttling) is before
    assert len(open_episode(tmp_path / "e")) >= 5


def test_a_setting_that_was_not_there_is_not_there_afterwards(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        del kit.settings["/omni/replicator/captureOnPlay"]
        before = dict(kit.settings)
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        capture.close("never played")
        assert kit.settings == before


def test_a_camera_in_mid_capture_with_a_zero_focal_length_keeps_the_frames_before_it(tmp_path: Path) -> None:
    def later(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        for entries in data["renderProducts"].values():
            if frame.row > 20:
                entries["camera_params"]["cameraFocalLength"] = 0.0
                entries["camera_params"]["cameraProjection"] = np.zeros(16)
        return data

    with FakeKit("6.x", motion(), payload_filter=later) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(60)
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        assert "focal length of zero or less" in capture.status.message
    assert len(open_episode(tmp_path / "e", allow_incomplete=True)) >= 3


def test_asynchronous_rendering_is_no_obstacle_in_stepped_mode(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        kit.settings["/app/asyncRendering"] = True
        capture = LiveCapture(request(tmp_path / "e", mode="stepped", frames=3))
        capture.start()
        asyncio.run(drive_stepped(capture))
        end(capture, kit)
        assert len(capture.episode) == 3


def test_stop_ends_the_episode_with_its_frames(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(30)
        kit.stop()
        end(capture, kit)
        assert capture.status.phase is Phase.DONE
        assert "the simulation was stopped" in capture.status.message
        assert len(capture.episode) >= 5


def test_a_stage_replaced_in_mid_capture_ends_it(tmp_path: Path) -> None:
    """Reloading the stage stops the simulation and invalidates every view."""
    with FakeKit("6.x", motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(30)
        kit.generation += 1
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        assert len(open_episode(tmp_path / "e")) >= 5
        assert is_untouched(kit)


def test_disk_full_in_mid_capture_keeps_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = EpisodeWriter._write_image

    def full(self: Any, path: str, channel: str, image: Any) -> str:
        if int(Path(path).stem) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, path, channel, image)

    monkeypatch.setattr(EpisodeWriter, "_write_image", full)
    with FakeKit("6.x", motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(120)
        end(capture, kit)
        assert capture.status.phase is Phase.FAILED
        assert "No space left" in capture.status.message
        assert is_untouched(kit)
    assert 1 <= len(open_episode(tmp_path / "e", allow_incomplete=True)) <= 4


def test_never_playing_leaves_no_episode_and_says_so(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.update(20)
        capture.stop("given up")
        end(capture, kit)
        assert "nothing was recorded (given up)" in capture.status.message
        with pytest.raises(StageError):
            _ = capture.episode
        assert is_untouched(kit)


def test_a_camera_that_sees_another_size_or_lens_is_refused(tmp_path: Path) -> None:
    for name, value, text in (
        ("cameraModel", "ftheta", "lens model 'ftheta'"),
        ("renderProductResolution", [64, 48], "sizes must agree"),
        ("cameraApertureOffset", [3.0, 0.0], "cannot be trusted"),
    ):

        def wrong(data: dict[str, Any], frame: Any, name: str = name, value: Any = value) -> dict[str, Any]:
            for entries in data["renderProducts"].values():
                entries["camera_params"][name] = value
            return data

        with FakeKit("6.x", motion(), payload_filter=wrong) as kit:
            capture = LiveCapture(request(tmp_path / name))
            capture.start()
            kit.play()
            kit.update(20)
            end(capture, kit)
            assert capture.status.phase is Phase.FAILED
            assert text in capture.status.message


def test_an_annotator_without_data_names_it(tmp_path: Path) -> None:
    def without(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        for entries in data["renderProducts"].values():
            del entries["normals"]
        return data

    with FakeKit("6.x", motion(), payload_filter=without) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(20)
        end(capture, kit)
        assert "delivered no normals" in capture.status.message


OUTSIDE = """
import sys
import retake.core, retake.core.episode, retake.core.capture, retake.core.camera
assert not [m for m in sys.modules if m.split('.')[0] in ('omni', 'carb', 'torch', 'pxr', 'isaacsim')]
from retake.core.errors import RetakeError
import retake.isaac.live_capture as live, retake.isaac.writer as writer, retake.isaac.standalone as standalone
from retake.isaac.request import CaptureRequest
for call in (
    lambda: live.LiveCapture(CaptureRequest(output=sys.argv[1])).start(), writer.register,
    lambda: standalone.main(['x.yaml']), lambda: __import__('retake.isaac.selftest', fromlist=['main']).main([]),
):
    try:
        call()
    except RetakeError as error:
        print(str(error))
    else:
        raise SystemExit('nothing was raised')
"""


def test_outside_kit_core_is_clean_and_starting_fails_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OUTSIDE, str(tmp_path / "e")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert "cannot be imported here; retake.isaac runs inside Isaac Sim" in line
        assert "Traceback" not in line
    assert not (tmp_path / "e").exists()


def test_the_kit_extensions_themselves_fail_outside_with_an_import_error_only() -> None:
    """Kit imports them; anyone else gets Python's own ModuleNotFoundError for omni.ext, at once."""
    done = subprocess.run([sys.executable, "-c", "import retake.isaac.extension"], capture_output=True, text=True)
    assert "No module named 'omni'" in done.stderr


def test_a_worker_that_is_not_running_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETAKE_WORKER_STATE", str(tmp_path))
    from retake.core.worker_client import WorkerClient

    with pytest.raises(RetakeError, match="start one with"):
        WorkerClient.discover()
