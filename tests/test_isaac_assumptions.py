# SPDX-License-Identifier: Apache-2.0
"""Every assumption about Isaac Sim turned over: the recording ends with the right message and the frames so far, and no frame is
ever paired with another state. (The twelfth is the panel's: test_ui_panel.py. The fifteenth: test_isaac_headless.py.)"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit, Nothing
from isaac_support import check_exact, motion, request

from retake.core.capture import PairingError
from retake.core.episode import open_episode
from retake.core.errors import EpisodeError, RetakeError
from retake.isaac.assumptions import ASSUMPTIONS
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import Phase
from retake.isaac.stepped import drive_stepped

FLIPPED = {
    "fields_survive_a_rebuild": "test_ui_panel.py",
    "packages_merge": "test_isaac_headless.py",
    "exit_code_arrives": "test_isaac_headless.py",
}
"""Assumptions that another file turns over."""


def ended(capture: LiveCapture, kit: FakeKit, updates: int = 14) -> LiveCapture:
    kit.update(updates)
    assert capture._finisher is not None, capture.status
    capture._finisher.join(30)
    return capture


def kept(capture: LiveCapture, stride: int = 4) -> int:
    """Frames on disk, each of them right; 0 where nothing was recorded."""
    try:
        episode = open_episode(Path(capture.request.output), allow_incomplete=True)
    except EpisodeError:
        return 0
    if len(episode):
        check_exact(episode, MOTION, stride)
    return len(episode)


MOTION = motion()


def test_each_assumption_is_turned_over_somewhere() -> None:
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for assumption in ASSUMPTIONS:
        where = FLIPPED.get(assumption.key)
        if where is None:
            assert assumption.key in here, assumption.key
        else:
            text = (Path(__file__).parent / where).read_text()
            assert {"fields_survive_a_rebuild": "half_edited_field_survives_a_rebuild", "packages_merge": "not on the path",
                    "exit_code_arrives": "exit code"}[assumption.key] in text  # fmt: skip


@pytest.mark.parametrize("after", [0, 25])
def test_asynchronous_rendering(after: int, tmp_path: Path) -> None:
    """Something switches it on again at every update, before or while recording."""
    with FakeKit("6.x", MOTION) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(after)
        kit.update_callbacks.insert(0, lambda event: kit.settings.__setitem__("/app/asyncRendering", True))
        kit.update(90)
        kit.update_callbacks.pop(0)
        ended(capture, kit)
    assert capture.status.phase is Phase.FAILED
    assert "asynchronous rendering" in capture.status.message
    assert kept(capture) == (0 if after == 0 else pytest.approx(6, abs=2))


def test_nobody_opens_a_stage(tmp_path: Path) -> None:
    with FakeKit("6.x", MOTION) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        kit.update(30)
        kit.show(Nothing(), "")
        ended(capture, kit)
    assert "simulation was stopped" in capture.status.message or "closed or replaced" in capture.status.message
    assert kept(capture) >= 5


@pytest.mark.parametrize("mode", ["live", "stepped"])
def test_whole_steps_per_update(mode: str, tmp_path: Path) -> None:
    """An application that says nothing about its steps and makes 2 or 3 of them."""
    with FakeKit("6.x", MOTION, application="base", time_codes_per_second=24) as kit:
        kit.settings["/app/player/useFixedTimeStepping"] = 1.0  # truthy for the timeline, told to nobody
        capture = LiveCapture(request(tmp_path / "e", mode=mode))
        kit.settings["/app/player/useFixedTimeStepping"] = False
        capture.start()
        kit.settings["/app/player/useFixedTimeStepping"] = True
        if mode == "stepped":
            with pytest.raises(
                PairingError, match=r"makes 2 or 3 physics steps here: set the stage's Time Codes Per Second to 60"
            ):
                asyncio.run(drive_stepped(capture))
        else:
            kit.play()
        ended(capture, kit, 40)
    if mode == "live":
        assert "Time Codes Per Second to 60" in capture.status.message
    assert kept(capture) <= 3


@pytest.mark.parametrize(
    ("getter", "message"),
    [
        ("get_dof_projected_joint_forces", ""),
        ("get_link_transforms", "no longer gives the state"),
        ("get_dof_position_targets", "no longer gives the state"),
    ],
)
def test_every_getter_answers(getter: str, message: str, tmp_path: Path) -> None:
    with FakeKit("6.x", MOTION) as kit:
        kit.missing_getters.add(getter)
        capture = LiveCapture(request(tmp_path / "e", frames=5))
        capture.start()
        kit.play()
        ended(capture, kit, 50)
    if message:
        assert message in capture.status.message
        assert kept(capture) == 0
    else:
        assert capture.status.phase is Phase.DONE
        assert "effort" not in capture.episode.header.joint_channels
        assert any("no joint efforts" in note for note in capture.notes)
        assert kept(capture) == 5


def test_stage_reads(tmp_path: Path) -> None:
    """A chosen camera that nobody can record, and one that was not chosen."""
    from fakes.stage import make_stage, random_motion
    from pxr import UsdGeom

    source = random_motion(make_stage(cameras=2), 100)
    UsdGeom.Camera(source.stage.GetPrimAtPath("/World/Camera1")).GetProjectionAttr().Set("orthographic")
    with FakeKit("6.x", source) as kit:
        with pytest.raises(RetakeError, match="Camera1"):
            LiveCapture(request(tmp_path / "a", cameras=("/World/Camera1",))).start()
        assert kit.writers == kit.products == []
        capture = LiveCapture(request(tmp_path / "b", cameras=("/World/Camera0",), frames=3))
        capture.start()
        kit.play()
        ended(capture, kit, 30)
    assert len(check_exact(capture.episode, source, 4)) == 3


@pytest.mark.parametrize("beside_us", [3, 4000])
def test_times_agree(beside_us: int, tmp_path: Path) -> None:
    def shift(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        numerator, denominator = data["reference_time"]
        return {**data, "reference_time": (numerator * 10 + beside_us * denominator // 100_000, denominator * 10)}

    with FakeKit("6.x", MOTION, payload_filter=shift) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        ended(capture, kit, 60)
    assert capture.status.phase is Phase.FAILED
    assert "no physics state has the time" in capture.status.message
    assert kept(capture) == 0


@pytest.mark.parametrize("version", ["4.5", "5.1", "6.x"])
def test_held_state_is_rendered(version: str, tmp_path: Path) -> None:
    """The render of an earlier state is handed over instead, from the fourth frame on."""
    old: list[dict[str, Any]] = []

    def stale(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        old.append(data)
        return old[2] if len(old) > 3 else data

    with FakeKit(version, MOTION, payload_filter=stale) as kit:
        capture = LiveCapture(request(tmp_path / "e", mode="stepped"))
        capture.start()
        with pytest.raises(PairingError, match=r"no frame of the held state .* frames of earlier states"):
            asyncio.run(drive_stepped(capture))
        ended(capture, kit)
    assert kept(capture) == 3


@pytest.mark.parametrize("how", ["twice", "out of order", "another thread"])
def test_writes_in_order(how: str, tmp_path: Path) -> None:
    kit: FakeKit
    threads: set[str] = set()
    held: list[Any] = []

    def fault(data: dict[str, Any], frame: Any) -> dict[str, Any] | None:
        if how == "twice":
            for writer, _ in kit.writers:
                writer.write(data)
        if how == "out of order" and frame.update == 40:  # it comes after the frames of two more steps that are due
            held.append(data)
            return None
        if held and frame.update == 44:
            for writer, _ in kit.writers:
                writer.write(data)
            return held.pop()
        return data

    with FakeKit("6.x", MOTION, payload_filter=fault, thread_per_frame=how == "another thread") as kit:
        capture = LiveCapture(request(tmp_path / "e", fps=60))  # every frame is due
        plain = capture.deliver

        def deliver(data: Mapping[str, Any]) -> None:
            threads.add(threading.current_thread().name)
            plain(data)

        capture.deliver = deliver  # type: ignore[method-assign]
        capture.start()
        kit.play()
        kit.update(60)
        capture.stop("done")
        ended(capture, kit)
    assert (threads == {threading.main_thread().name}) is (how != "another thread")
    assert (capture.counts.repeated > 0) is (how == "twice")
    assert (capture.status.phase is Phase.DONE) is (how != "out of order"), capture.status
    if how == "out of order":
        assert re.search("after a later frame|the renderer skipped it", capture.status.message)
    assert kept(capture, 1) >= 5


@pytest.mark.parametrize("lacking", ["renderProducts", "reference_time", "camera_params", "distance_to_image_plane"])
def test_payload_layout(lacking: str, tmp_path: Path) -> None:
    def without(data: dict[str, Any], frame: Any) -> dict[str, Any]:
        if lacking in data:
            return {key: value for key, value in data.items() if key != lacking}
        for entries in data["renderProducts"].values():
            entries.pop(lacking)
        return data

    with FakeKit("6.x", MOTION, payload_filter=without) as kit:
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        kit.play()
        ended(capture, kit, 40)
    assert capture.status.phase is Phase.FAILED
    assert lacking in capture.status.message
    assert kept(capture) == 0


def test_capture_on_play(tmp_path: Path) -> None:
    """Record in a running simulation, where Replicator only captures from the next Play on."""
    with FakeKit("6.x", MOTION, capture_needs_play=True) as kit:
        kit.settings["/omni/replicator/captureOnPlay"] = False
        kit.play()
        kit.update(5)
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        ended(capture, kit, 330)
    assert capture.status.phase is Phase.FAILED
    assert "press Stop, Record, then Play" in capture.status.message
    assert kept(capture) == 0


def test_detach_in_an_update(tmp_path: Path) -> None:
    with FakeKit("6.x", MOTION, refuses_detach_in_update=True) as kit:
        capture = LiveCapture(request(tmp_path / "e", frames=4))
        capture.start()
        kit.play()
        ended(capture, kit, 50)
        assert kit.products == []
        assert kit.post_step == {}
        assert any("the writer could not be taken back" in note for note in capture.notes)
    assert capture.status.phase is Phase.DONE
    assert kept(capture) == 4


@pytest.mark.parametrize("setting", ["/physics/disableContactProcessing", "/physics/suppressReadback"])
def test_contacts_are_readable(setting: str, tmp_path: Path) -> None:
    with FakeKit("6.x", MOTION, application="base", contacts=True) as kit:
        kit.settings[setting] = True
        capture = LiveCapture(request(tmp_path / "e", frames=4))
        capture.start()
        kit.play()
        ended(capture, kit, 50)
    assert capture.status.phase is Phase.DONE
    assert any("contacts" in note and ("no further" in note or setting in note) for note in capture.notes)
    assert kept(capture) == 4
    assert sum(len(capture.episode.contacts(k)) for k in range(4)) == 0


@pytest.mark.parametrize("silent", [("manager",), ("manager", "core"), ("manager", "core", "physx")])
def test_a_hook_that_takes_a_callback_and_never_calls_it(silent: tuple[str, ...], tmp_path: Path) -> None:
    with FakeKit("6.x", MOTION, silent_steps=silent) as kit:
        capture = LiveCapture(request(tmp_path / "e", frames=4))
        capture.start()
        kit.play()
        kit.update(400)
        ended(capture, kit)
        other_engine = "omni.physx" in kit.profile.behaviour("missing_modules", ())
    if len(silent) == 3 or (other_engine and len(silent) == 2):
        assert capture.status.phase is Phase.FAILED
        assert "no physics step was announced" in capture.status.message
        assert kept(capture) == 0
    else:
        assert capture.status.phase is Phase.DONE
        assert any("listening to omni.phys" in note for note in capture.notes)
        assert kept(capture) == 4


@pytest.mark.parametrize("looping", [True, False])
def test_the_timeline_ends_in_mid_recording(looping: bool, tmp_path: Path) -> None:
    with FakeKit("6.x", MOTION, end_time_s=1.0) as kit:
        kit.looping = looping
        capture = LiveCapture(request(tmp_path / "e", frames=60))
        capture.start()
        assert any("the timeline ends 1.00 s from here" in note for note in capture.notes)
        kit.play()
        kit.update(80)
        ended(capture, kit)
        assert kit.looping is looping
    assert capture.status.phase is Phase.DONE
    assert "reached its end" in capture.status.message
    assert kept(capture) >= 10
