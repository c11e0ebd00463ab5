# SPDX-License-Identifier: Apache-2.0
"""What each item of the self-test answers, from what it finds: right, wrong, and where its recording is missing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.errors import RetakeError
from retake.isaac import kit, preview, selftest_items
from retake.isaac.assumptions import ASSUMPTIONS, MEASUREMENTS, Item
from retake.isaac.async_rendering import PATHS
from retake.isaac.contacts import NO_READBACK, NOT_PROCESSED
from retake.isaac.preview import Preview, draw
from retake.isaac.selftest import report
from retake.isaac.selftest_items import Probe, SelfTest


def recording(**change: Any) -> Any:
    counts = {"lag_steps": 2, "early": 3, "idle": 4, "repeated": 0, "beside_ns": 1500, **change.pop("counts", {})}
    fields = {
        "counts": SimpleNamespace(**counts),
        "episode": [0] * 7,
        "stale": 0,
        "notes": [],
        "steps_per_update": {4: 9},
    }
    return SimpleNamespace(**{**fields, **change})


def ask(key: str, *, missing: bool = False, **has: Any) -> tuple[bool | None, str, Any]:
    test = SelfTest(Path("/nowhere"), None, 5)
    for name, value in has.items():
        setattr(test, name, value)
    return asyncio.run(getattr(test, key)())


MAIN = threading.main_thread().name


def probe(**change: Any) -> Any:
    return SimpleNamespace(**{"asynchronous": 0, "threads": {MAIN}, "keys": {}, "steps_before_first": 4, **change})


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What carb.settings holds."""
    values: dict[str, Any] = {}
    found = SimpleNamespace(get_settings=lambda: values)
    monkeypatch.setattr(kit, "require", lambda name: {"carb.settings": found}[name])
    monkeypatch.setattr(selftest_items, "engine", lambda: "physx")
    return values


STILL, UNEVEN = recording(steps_per_update={}), recording(steps_per_update={5: 1, 4: 2})
AGAIN, LEFT = recording(counts={"repeated": 1}), recording(notes=["x", "y could not be taken back"])
NO_LIVE, BY_HAND = (
    "needs the live recording",
    "by hand: type into a field of the open panel while something is added to the stage",
)


@pytest.mark.parametrize(
    ("key", "has", "good", "text", "value"),
    [
        ("same_camera", {}, None, "needs both recordings", None),
        ("same_camera", {"live": recording()}, None, "needs both recordings", None),
        ("same_camera", {"stepped": recording()}, None, "needs both recordings", None),
        ("cost", {}, None, "needs a recording", None),
        ("times_agree", {}, None, NO_LIVE, None),
        ("times_agree", {"live": recording()}, True, "largest difference 1.500 us", 1.5),
        ("times_agree", {"live": recording(counts={"beside_ns": 2000})}, True, "largest difference 2.000 us", 2.0),
        ("times_agree", {"live": recording(counts={"beside_ns": 2001})}, False, "largest difference 2.001 us", 2.001),
        ("held_state_is_rendered", {}, None, "needs the stepped recording", None),
        ("held_state_is_rendered", {"stepped": recording()}, True, "0 frames of earlier states were delivered", 0),
        ("held_state_is_rendered", {"stepped": recording(stale=1)}, False, "1 frames of earlier states were delivered", 1),
        ("writes_in_order", {"live": recording()}, None, NO_LIVE, None),
        ("writes_in_order", {"probe": probe()}, None, NO_LIVE, None),
        ("writes_in_order", {"live": recording(), "probe": probe()}, True, f"0 repeated; called on {MAIN}", None),
        ("writes_in_order", {"live": AGAIN, "probe": probe()}, False, f"1 repeated; called on {MAIN}", None),
        ("writes_in_order", {"live": recording(), "probe": probe(threads={"b", "a"})}, False, "0 repeated; called on a, b", None),
        ("payload_layout", {}, None, NO_LIVE, None),
        ("payload_layout", {"probe": probe()}, None, NO_LIVE, None),
        ("payload_layout", {"probe": probe(keys={"b": "y", "a": "x"})}, True, "a: x; b: y", {"b": "y", "a": "x"}),
        ("capture_on_play", {}, None, NO_LIVE, None),
        ("capture_on_play", {"probe": probe(steps_before_first=-1)}, None, NO_LIVE, None),
        ("capture_on_play", {"probe": probe(steps_before_first=0)}, True, "first frame after 0 physics steps", 0),
        ("detach_in_an_update", {}, None, "everything was taken back", None),
        ("detach_in_an_update", {"live": recording()}, True, "everything was taken back", None),
        ("detach_in_an_update", {"stepped": LEFT}, False, "y could not be taken back", None),
        ("whole_steps_per_update", {"live": recording()}, True, "physics steps per update: 4", [4]),
        ("whole_steps_per_update", {"stepped": STILL}, False, "physics steps per update: none seen", []),
        ("whole_steps_per_update", {"live": UNEVEN}, False, "physics steps per update: 4, 5", [4, 5]),
        ("stage_reads", {"live": recording(content=None)}, None, "needs a recording", None),
        ("fields_survive_a_rebuild", {}, None, BY_HAND, None),
    ],
)  # fmt: skip
def test_an_item_answers_from_what_it_finds(key, has, good, text, value):
    assert ask(key, **has) == (good, text, value)


def test_items_that_need_any_recording_take_either_and_refuse_none():
    content = SimpleNamespace(robots=[1], cameras=[1, 2], objects=[1, 2, 3], notes=["a", "b"])
    for name in ("live", "stepped"):
        found = ask("stage_reads", **{name: recording(content=content)})
        assert found == (True, "1 robots, 2 cameras, 3 bodies; notes: a; b", [1, 2, 3])
    with pytest.raises(RetakeError, match="needs a recording, and none succeeded"):
        ask("stage_reads")
    content.notes = []
    assert ask("stage_reads", live=recording(content=content))[1].endswith("notes: none")


@pytest.mark.parametrize(
    ("p50", "p99", "good"), [(0.3, 2.0, True), (0.31, 2.0, False), (0.3, 2.01, False), (0.01, 0.02, True)]
)
def test_costs_have_two_limits(p50, p99, good):
    for name in ("live", "stepped"):
        found = ask("cost", **{name: recording(costs=SimpleNamespace(now=lambda: (p50, p99)))})
        assert found == (good, f"p50 {p50:.3f} ms, p99 {p99:.3f} ms (limits 0.3, 2)", [p50, p99])


def test_cameras_of_both_recordings_are_the_same_to_a_hundredth_of_a_pixel():
    def one(K: float, t: float) -> Any:
        matrices = (np.full((2, 3, 3), K), np.full((2, 4, 4), t))
        header = SimpleNamespace(cameras=[SimpleNamespace(name="front")])
        return recording(episode=SimpleNamespace(header=header, camera_matrices=lambda name: matrices))

    base = one(1.0, 1.0)
    for K, t, good in ((0.009, 9e-5, True), (0.011, 0.0, False), (0.0, 1.1e-4, False), (-0.011, 0.0, False)):
        found, text, value = ask("same_camera", live=base, stepped=one(1 + K, 1 + t))
        assert found is good
        assert text == f"K differs by {abs(K):.4f} px, pose by {t:.2e}"
        assert value == pytest.approx([abs(K), t])


@pytest.mark.parametrize(("K", "t"), [(0.01, 0.0), (-0.01, 0.0), (0.0, 1e-4), (0.0, -1e-4)])
def test_cameras_that_are_apart_by_a_whole_limit_are_not_the_same(K, t):
    def one(K: float, t: float) -> Any:
        matrices = (np.full((1, 3, 3), K), np.full((1, 4, 4), t))
        header = SimpleNamespace(cameras=[SimpleNamespace(name="front")])
        return recording(episode=SimpleNamespace(header=header, camera_matrices=lambda name: matrices))

    found, _, value = ask("same_camera", live=one(0.0, 0.0), stepped=one(K, t))
    assert found is False
    assert value == [abs(K), abs(t)]


def test_links_a_whole_millimetre_off_are_not_where_the_joints_say():
    def one(far: float) -> Any:
        """A robot of one link that is computed to stand in the origin, and was recorded that far away."""
        robot = SimpleNamespace(name="r", root=0, forward_kinematics=lambda q, root: np.tile(np.eye(4), (3, 1, 1, 1)))
        poses = np.tile(np.eye(4), (3, 1, 1, 1))
        poses[2, 0, 1, 3] = -far
        header = SimpleNamespace(robots=[robot])
        return SimpleNamespace(header=header, joint=lambda name, channel: None, link_poses=lambda name: poses)

    for far in (0.0, 0.000999, 1e-3, 0.5):
        assert ask("kinematics", stepped=recording(episode=one(far)))[::2] == (far < 1e-3, far)


def test_a_focal_length_half_a_pixel_off_is_not_the_stage_s(settings, monkeypatch):
    """The first frame of the first camera counts, its prim's path is what is looked for, and at its own size."""
    from retake.usd import camera as usd_camera

    stage, prim = object(), object()
    context = SimpleNamespace(get_context=lambda: SimpleNamespace(get_stage=lambda: stage))
    monkeypatch.setattr(kit, "require", lambda name: {"omni.usd": context}[name])
    monkeypatch.setattr(usd_camera, "camera_prim", lambda on, path: {(stage, "/Front"): prim}[on, path])
    truth = SimpleNamespace(K=np.eye(3))
    monkeypatch.setattr(usd_camera, "read_camera", lambda of, size: {(prim, (64, 48)): truth}[of, size])
    cameras = [SimpleNamespace(name=name, prim_path=f"/{name.title()}", size=(64, 48)) for name in ("front", "side")]
    for off in (0.0, 0.499, 0.5, -0.5, 3.0):
        K = np.tile(np.eye(3), (2, 1, 1))
        K[0, 0, 2], K[1, 0, 2] = off, 99  # of a later frame nothing is asked
        matrices = {"front": (K, None), "side": (K + 7, None)}
        episode = SimpleNamespace(header=SimpleNamespace(cameras=cameras), camera_matrices=matrices.__getitem__)
        found = ask("intrinsics", live=recording(episode=episode))
        assert found == (abs(off) < 0.5, f"largest difference {abs(off):.3f} px", abs(off))


def test_a_misfit_of_the_whole_limit_is_too_much(monkeypatch):
    header = SimpleNamespace(cameras=[SimpleNamespace(size=(300, 400))])
    limit = selftest_items.SUSPICIOUS_SHARE * 500.0

    class Whole(list):
        frame = list.__getitem__

    episode = Whole(range(3))
    episode.header = header  # type: ignore[attr-defined]
    for far in (np.nextafter(limit, 0), limit):
        monkeypatch.setattr(selftest_items, "misfit_px", lambda f, h, c, far=far: far)
        assert ask("projection", stepped=recording(episode=episode))[::2] == (far < limit, far)


def test_live_recording_says_its_counts(monkeypatch):
    monkeypatch.setattr(selftest_items, "find_clock", lambda: None)
    assert ask("record_live") == (None, "this version has no clock for live recording", None)
    monkeypatch.setattr(selftest_items, "find_clock", lambda: SimpleNamespace(name="replicator"))

    async def record(self: SelfTest, mode: str) -> Any:
        return recording(mode=mode)

    monkeypatch.setattr(SelfTest, "_record", record)
    test = SelfTest(Path("/nowhere"), None, 5)
    words = "7 frames, pairing error 0 steps, largest lag 2 steps, 3 early, 4 idle, 0 repeated"
    assert asyncio.run(test.record_live()) == (True, words, 2)
    assert asyncio.run(test.record_stepped()) == (True, "7 frames", 7)
    assert (test.live.mode, test.stepped.mode) == ("live", "stepped")
    monkeypatch.setattr(selftest_items, "engine", lambda: "physx")
    monkeypatch.setattr(kit, "versions", lambda: {"kit": "1"})
    assert ask("adapters") == (True, "{'kit': '1'}, clock: replicator, physics engine: physx", {"kit": "1"})
    monkeypatch.setattr(selftest_items, "find_clock", lambda: None)
    assert "clock: none (stepped mode only)" in ask("adapters")[1]


def test_asynchronous_rendering_is_counted_and_named(settings):
    assert ask("asynchronous_rendering")[0] is None
    assert ask("asynchronous_rendering", probe=probe()) == (
        True, "on in 0 updates of the recording; on afterwards: none", 0,
    )  # fmt: skip
    settings[PATHS[0]] = True
    assert ask("asynchronous_rendering", probe=probe(asynchronous=2)) == (
        False, f"on in 2 updates of the recording; on afterwards: {PATHS[0]}", 2,
    )  # fmt: skip


class Contacts(list):
    def contacts(self, index: int) -> list[int]:
        return self[index]


def test_contacts_are_counted_over_all_frames(settings):
    found = ask("contacts_are_readable", live=recording(episode=Contacts([[1], [], [1, 2]])))
    assert found == (True, "3 contacts in 3 frames (physx)", 3)
    settings[NOT_PROCESSED] = settings[NO_READBACK] = True
    found = ask("contacts_are_readable", live=recording(episode=Contacts([[], []])))
    assert found == (None, f"0 contacts in 2 frames (physx); against it: {NOT_PROCESSED}, {NO_READBACK}", 0)


def test_channels_are_those_of_the_recording(settings):
    episode = SimpleNamespace(header=SimpleNamespace(joint_channels=("velocity", "target")))
    found = ask("every_getter_answers", stepped=recording(episode=episode))
    assert found == (True, "position, velocity, target (physx)", ["velocity", "target"])


def test_the_packages_are_all_there():
    good, text, folders = ask("packages_merge")
    assert good
    assert text.startswith("retake.core, retake.usd, retake.isaac from ")
    assert folders


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_links_are_where_the_joints_say(tmp_path, shift):
    episode = make_scene_episode(tmp_path / "e", frames=2, size=(32, 24))
    robot = episode.header.robots[0]
    poses = episode.link_poses(robot.name).copy()
    poses[:, -1, 1, 3] += shift  # of its last link
    moved = SimpleNamespace(header=episode.header, joint=episode.joint, link_poses=lambda name: poses)
    good, text, worst = ask("kinematics", live=recording(episode=moved))
    assert good == (shift == 0)
    assert text == f"largest error {worst:.2e} m"
    assert worst == pytest.approx(shift, abs=1e-6)


def test_the_worst_of_three_frames_counts(monkeypatch):
    asked: list[int] = []
    header = SimpleNamespace(cameras=[SimpleNamespace(size=(300, 400))])

    class Whole(list):
        def frame(self, index: int) -> int:
            asked.append(index)
            return index

    episode = Whole(range(9))
    episode.header = header  # type: ignore[attr-defined]
    limit = selftest_items.SUSPICIOUS_SHARE * 500
    for far, good in ((limit * 0.99, True), (limit * 1.01, False)):
        monkeypatch.setattr(selftest_items, "misfit_px", lambda f, h, c, far=far: {0: 1.0, 4: None, 8: far}[f])
        found, text, value = ask("projection", live=recording(episode=episode))
        assert (found, value) == (good, far)
        assert text == f"median distance to the robot's pixels {far:.1f} px (limit {limit:.0f} px)"
    assert asked == [0, 4, 8] * 2
    monkeypatch.setattr(selftest_items, "misfit_px", lambda f, h, c: None)
    assert ask("projection", live=recording(episode=episode)) == (None, "the camera sees no robot", None)


def test_the_probe_notes_the_first_payload_and_hands_on_every_one(settings):
    got: list[Any] = []
    status = SimpleNamespace(phase=SimpleNamespace(value="recording"))
    capture = SimpleNamespace(deliver=got.append, steps=0, status=status)
    look = Probe(capture)  # type: ignore[arg-type]
    assert look.steps_before_first == -1
    payload = {"renderProducts": {"p": {"rgb": {"data": np.zeros((2, 3), np.uint8)}, "word": "text"}}}
    for steps in (0, 5):
        capture.steps = steps
        capture.deliver(payload)
    assert look.steps_before_first == 0
    assert look.keys == {"rgb": "uint8 (2, 3)", "word": "str"}
    assert got == [payload, payload]
    assert look.threads == {MAIN}
    for on, phase, wanted in (
        (False, "recording", 0),
        (True, "starting", 0),
        (True, "recording", 1),
        (True, "recording", 2),
    ):
        settings[PATHS[-1]] = on
        status.phase.value = phase
        look.look()
        assert look.asynchronous == wanted


def test_an_item_that_raises_fails_and_the_others_go_on(monkeypatch):
    async def answer(self: SelfTest) -> Any:
        return True, "fine", 1

    async def unknown(self: SelfTest) -> Any:
        return None, "who knows", None

    async def bad(self: SelfTest) -> Any:
        raise ValueError("odd")

    async def told(self: SelfTest) -> Any:
        raise RetakeError("in words")

    keys = [m.key for m in MEASUREMENTS] + [a.key for a in ASSUMPTIONS]
    for number, key in enumerate(keys):
        monkeypatch.setattr(SelfTest, key, (answer, unknown, bad, told)[number % 4])
    said: list[Any] = []
    items = asyncio.run(SelfTest(Path("/nowhere"), None, 5).run(said.append))
    assert said == items
    assert [item.key for item in items] == keys
    assert [(i.status, i.detail, i.value) for i in items[:4]] == [
        ("pass", "fine", 1), ("unknown", "who knows", None), ("fail", "ValueError: odd", None), ("fail", "in words", None),
    ]  # fmt: skip


def test_the_preview_shows_the_newest_frame_of_the_wanted_camera(tmp_path, monkeypatch):
    episode = make_scene_episode(tmp_path / "e", frames=2, size=(160, 120), wrist=True)
    frame, header = episode.frame(1), episode.header
    names = [camera.name for camera in header.cameras]
    monkeypatch.setattr(preview, "misfit_px", lambda f, h, camera: float(camera))
    for wanted, position in ((names[1], 1), (names[0], 0), ("", 0), ("nobody", 0)):
        shown = Preview(wanted, 80)
        shown.show(0, frame)
        assert shown.newest is None  # no header yet
        shown.header = header
        shown.show(7, frame)
        picture = shown.newest
        assert picture is not None
        assert (picture.index, picture.camera, picture.misfit_px) == (7, names[position], float(position))
        assert picture.rgba.shape == (60, 80, 4)
        assert (picture.rgba[..., 3] == 255).all()


def test_the_picture_is_the_camera_s_with_every_arm_over_it(tmp_path):
    episode = make_scene_episode(tmp_path / "e", frames=2, size=(160, 120))
    frame, header = episode.frame(0), episode.header
    before = frame.cameras[0].rgb.copy()
    rgba = draw(0, frame, header, 0, 160).rgba
    assert np.array_equal(frame.cameras[0].rgb, before)
    changed = (rgba[..., :3] != before).any(-1)
    assert 20 < changed.sum() < 0.4 * changed.size
    robot = header.robots[0]
    chain = list(robot.chain(robot.grippers[0]))
    uv, _ = episode.camera_frame("front", 0).camera.project(frame.robots[0].T_world_link[chain, :3, 3])
    for x, y in uv:
        if 3 < x < 157 and 3 < y < 117:
            assert changed[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].any()


def test_the_page_shows_failures_first_then_what_cannot_be_told_each_in_its_order():
    states = ["pass", "unknown", "fail", "pass", "fail", "unknown"]
    items = [Item(f"k{n}", f"name {n}", status, f"detail\n{n}", None) for n, status in enumerate(states)]
    page = report({"kit": "1.2", "isaac": ""}, items).splitlines()
    rows = [row for row in page if row.startswith("| ") and "name " in row]
    assert [row.split(" | ")[1] for row in rows] == ["name 2", "name 4", "name 1", "name 5", "name 0", "name 3"]
    assert rows[0].startswith("| fail | name 2 | detail 2 | ")
    assert "2 pass, 2 fail, 2 cannot be told here." in page
    assert any(row.startswith("kit 1.2; ") for row in page)
    assert "unknown application; " in report({}, items)
