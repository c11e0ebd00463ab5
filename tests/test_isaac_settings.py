# SPDX-License-Identifier: Apache-2.0
"""Every declared setting is real: a test changes each one and sees its effect in headless runs, writer and panel."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.kit import FakeKit
from fakes.stage import session_is_clean
from isaac_support import finished, motion, products, request
from pxr import Gf, Sdf, Tf, Usd, UsdPhysics

from retake.core.episode import open_episode
from retake.core.errors import InputError, StageError
from retake.isaac import autorun, options, record, writer
from retake.isaac.camera_text import camera_text, parse_camera
from retake.isaac.contacts import API, THRESHOLD, ContactReports, reported_bodies
from retake.isaac.live_capture import LiveCapture
from retake.isaac.products import Products, camera_choices
from retake.isaac.request import SETTINGS, CaptureRequest, request_from

ROOT = Path(__file__).resolve().parents[1]
CHANGED: dict[str, tuple[Any, Any]] = {
    "robots": ("/World/Arm0", ("/World/Arm0",)),
    "robot_file": ("arm.yaml", "arm.yaml"),
    "cameras": ("/World/Camera0@64x48:rgb+depth", ("/World/Camera0@64x48:rgb+depth",)),
    "objects": ("/World/Packet", ("/World/Packet",)),
    "task": ("fold the towel", "fold the towel"),
    "fps": (30, 30.0),
    "width": (320, 320),
    "height": ("240", 240),
    "channels": ("rgb,depth", ("rgb", "depth")),
    "frames": (7, 7),
    "mode": ("stepped", "stepped"),
    "rt_subframes": (4, 4),
    "contacts": ("off", "off"),
    "antialiasing": ("dlaa", "dlaa"),
    "undistort": (True, True),
    "queue_frames": (3, 3),
    "when_full": ("refuse", "refuse"),
    "seed": (9, 9),
}
"""Setting -> what a user gives on the command line, and what the recording is asked for."""
WRITER_HAS_ITS_OWN = {"mode", "cameras"}
"""The writer records live, from the render products of its script."""


def declared() -> set[str]:
    manifest = (ROOT / "exts/retake.isaac/config/extension.toml").read_text()
    return set(re.findall(r'exts\."retake\.isaac"\.(\w+)', manifest))


def set_all(kit: FakeKit, values: dict[str, Any]) -> None:
    for name, value in values.items():
        kit.settings[f"{SETTINGS}/{name}"] = value


def test_every_declared_setting_is_known_and_every_known_one_declared() -> None:
    fields = {item.name for item in dataclasses.fields(CaptureRequest)}
    assert fields | set(options.EXTRA) == declared()
    assert fields - {"output"} == set(CHANGED)


def declared_defaults() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib needs Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "exts/retake.isaac/config/extension.toml").read_text())["settings"]["exts"][
        "retake.isaac"
    ]


def test_the_manifest_s_defaults_are_the_request_s() -> None:
    with FakeKit("6.x", motion()) as kit:
        set_all(kit, declared_defaults())
        assert options.changed_settings() == {}
        assert options.request_from_settings() == CaptureRequest()


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_setting_reaches_headless_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, expected = CHANGED[name]
    asked: list[CaptureRequest] = []

    def spy(wanted: CaptureRequest, **unused: Any) -> Any:
        asked.append(wanted)
        raise InputError("seen")

    monkeypatch.setattr(autorun, "LiveCapture", spy)
    with FakeKit("6.x", motion()) as kit:
        set_all(kit, {name: given})
        file = tmp_path / "a.yaml"
        file.write_text(f"output: {tmp_path / 'run'}\n")
        assert asyncio.run(autorun.run_file(file)) == 2
    assert getattr(asked[0], name) == expected
    default = CaptureRequest()
    others = {f.name for f in dataclasses.fields(default)} - {name, "output"}
    assert {n: getattr(asked[0], n) for n in others} == {n: getattr(default, n) for n in others}


@pytest.mark.parametrize("name", sorted(set(CHANGED) - WRITER_HAS_ITS_OWN))
def test_a_setting_reaches_the_writer_unless_the_script_says_otherwise(name: str, tmp_path: Path) -> None:
    given, expected = CHANGED[name]
    with FakeKit("6.x", motion()) as kit:
        set_all(kit, {name: given})
        script = writer.writer_class()(output_dir=str(tmp_path / "e"))
        assert getattr(script._request, name) == expected
        told = {"robots": "robot"}.get(name, name)
        default = getattr(CaptureRequest(), name)
        if name in ("robots", "objects", "width", "height"):  # empty is "found on the stage"; sizes are the products'
            return
        again = writer.writer_class()(output_dir=str(tmp_path / "f"), **{told: default})
        assert getattr(again._request, name) == default


def test_a_setting_given_for_this_run_wins_over_the_file_and_a_default_does_not(tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        set_all(kit, {"fps": 30.0, "width": 640, "stage": "", "generate": True, "timeout_s": 3600.0, "task": ""})
        file = tmp_path / "a.yaml"
        file.write_text("output: x\nfps: 10\nwidth: 320\ngenerate: false\ntask: from the file\n")
        asked, extra = options.load_autorun(file)
    assert (asked.fps, asked.width, asked.task) == (30.0, 320, "from the file")
    assert extra["generate"] is False


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [("stage", "x.usda", "x.usda"), ("trajectory", "t.npz", "t.npz"), ("config", "c.yaml", "c.yaml"),
     ("generate", "false", False), ("quit", False, False), ("timeout_s", "12", 12.0), ("python", "/p", "/p"),
     ("autorun", "other.yaml", "other.yaml")],
)  # fmt: skip
def test_the_other_settings_reach_an_autorun(name: str, given: Any, expected: Any, tmp_path: Path) -> None:
    with FakeKit("6.x", motion()) as kit:
        set_all(kit, {name: given})
        file = tmp_path / "a.yaml"
        file.write_text("output: x\n")
        found = options.load_autorun(file)[1][name]
    assert (Path(found).name if name in ("stage", "trajectory", "config") else found) == expected


@pytest.mark.parametrize("where", ["settings", "file"])
def test_quit_false_leaves_the_application_running(where: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("output: ''\n" + ("quit: false\n" if where == "file" else ""))
    codes: list[int] = []
    with FakeKit("6.x", motion()) as kit:
        if where == "settings":
            set_all(kit, {"quit": False})

        async def whole() -> None:
            await autorun.start(file, post_quit=codes.append)

        asyncio.run(whole())
    assert codes == []


def test_files_are_found_from_where_the_user_stands_beside_the_file_and_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, beside = tmp_path / "stand", tmp_path / "beside"
    for folder in (stand, beside):
        folder.mkdir()
        (folder / "a.usda").write_text("")
    (beside / "b.usda").write_text("")
    monkeypatch.chdir(stand)
    file = beside / "run.yaml"
    assert options.locate("a.usda", file) == stand / "a.usda"
    assert options.locate("b.usda", file) == beside / "b.usda"
    assert options.locate("config/autorun.yaml", file) == ROOT / "config/autorun.yaml"
    assert options.locate("nowhere.usda", file) == stand / "nowhere.usda"


@pytest.mark.parametrize("name", ["mode", "when_full", "contacts", "antialiasing"])
def test_a_wrong_word_is_refused_with_the_valid_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{SETTINGS}/{name} 'sometimes'"):
        request_from({"output": str(tmp_path / "e"), name: "sometimes"}).checked()


@pytest.mark.parametrize(("given", "expected"), [(True, "on"), ("false", "off"), ("1", "on"), ("auto", "auto")])
def test_contacts_as_a_switch_are_understood(given: Any, expected: str) -> None:
    assert request_from({"contacts": given}).contacts == expected


class TestCameras:
    """Size and channels per camera."""

    def test_text_and_mapping_say_the_same(self) -> None:
        asked = request_from(
            yaml.safe_load("{cameras: [{path: /A, size: [64, 48], channels: [depth]}, /B, {path: /C, size: [8, 9]}]}")
        )
        assert asked.cameras == ("/A@64x48:rgb+depth", "/B", "/C@8x9")
        first, second, third = asked.camera_choices()
        assert (first.prim_path, first.size, first.channels) == ("/A", (64, 48), ("rgb", "depth"))
        assert (second.size, len(second.channels)) == ((640, 480), 4)
        assert third.size == (8, 9)
        assert request_from({"cameras": {"path": "/A", "channels": ["depth"]}}).cameras == ("/A:rgb+depth",)
        assert request_from({"cameras": "/A@4x5, /B:depth"}).cameras == ("/A@4x5", "/B:depth")

    @pytest.mark.parametrize("text", ["/A@640", "/A@0x480", "/A:rgb+radar", "/A@1x2x3", "/A@-1x2"])
    def test_what_is_not_understood_is_refused(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"camera|channel"):
            request_from({"output": str(tmp_path / "e"), "cameras": [text]}).checked()

    @pytest.mark.parametrize("path", ["/World/Camera", "", "/A/B_2/Cam"])
    @pytest.mark.parametrize("size", [(64, 48), (1920, 1080)])
    @pytest.mark.parametrize("channels", [("rgb",), ("rgb", "depth", "instances")])
    def test_a_camera_s_text_is_read_back(self, path: str, size: Any, channels: Any) -> None:
        found = parse_camera(camera_text(path, size, channels), (1, 1), ())
        assert (found.prim_path, found.size, found.channels) == (path, size, channels)

    def test_each_camera_records_what_it_was_asked_for_and_what_is_lost_is_said(self, tmp_path: Path) -> None:
        source = motion(cameras=2)
        cameras = ("/World/Camera0", "/World/Camera1@16x12:rgb+depth")
        with FakeKit("6.x", source) as kit:
            capture = LiveCapture(request(tmp_path / "e", cameras=cameras, frames=3))
            capture.start()
            kit.play()
            kit.update(30)
            episode = finished(capture, kit)
            first, second = episode.header.cameras
            assert (first.size, second.size) == ((32, 24), (16, 12))
            assert second.channels == ("rgb", "depth")
            assert episode.image("Camera1", "depth", 0).shape == (12, 16)
            assert not (tmp_path / "e/cameras/Camera1/instances").exists()
            (note,) = [n for n in capture.notes if "Camera1" in n]
            assert "records no normals, instances" in note
            assert "verdicts" in note

    def test_a_channel_that_nobody_asked_for_is_not_rendered(self, tmp_path: Path) -> None:
        with FakeKit("6.x", motion()) as kit:
            capture = LiveCapture(request(tmp_path / "e", channels=("rgb", "depth")))
            capture.start()
            ((attached, _),) = kit.writers
            assert [str(a) for a in attached.annotators] == ["rgb", "distance_to_image_plane", "camera_params"]
            capture.close()
            script = writer.writer_class()(output_dir=str(tmp_path / "f"), channels="depth")
            assert [str(a) for a in script.annotators] == ["rgb", "distance_to_image_plane", "camera_params"]

    @pytest.mark.any_application
    @pytest.mark.parametrize(("version", "name"), [("6.x", "_fast"), ("5.1", "_fast"), ("4.5", ""), ("4.2", "")])
    def test_instance_ids_come_from_the_annotator_that_this_replicator_supports(
        self, version: str, name: str, tmp_path: Path
    ) -> None:
        source = motion()
        with FakeKit(version, source) as kit:
            capture = LiveCapture(request(tmp_path / "e", frames=3))
            capture.start()
            ((attached, _),) = kit.writers
            assert f"instance_id_segmentation{name}" in attached.annotators
            kit.play()
            kit.update(40)
            assert finished(capture, kit).image("Camera0", "instances", 0).any()

    def test_a_script_s_channels_reach_the_episode(self, tmp_path: Path) -> None:
        source = motion(cameras=2)
        with FakeKit("6.x", source) as kit:
            script = writer.writer_class()(output_dir=str(tmp_path / "e"), channels="depth")
            script.attach(products(kit, 1))
            kit.play()
            kit.update(30)
            script.detach()
            source.stage.GetSessionLayer().Clear()
        assert open_episode(tmp_path / "e").header.cameras[0].channels == ("rgb", "depth")


class TestContacts:
    """auto, on, off."""

    def test_auto_is_objects_and_gripper_links_and_on_adds_the_arm(self) -> None:
        source = motion()
        spec = source.robots[0].spec
        hand = {link.prim_path for link in spec.links if link.name in ("hand", "left", "right")}
        auto = reported_bodies([spec], ["/World/Packet"], "auto")
        on = reported_bodies([spec], ["/World/Packet"], "on")
        assert set(auto) == hand | {"/World/Packet"}
        assert set(on) == {link.prim_path for link in spec.links} | {"/World/Packet"}
        assert reported_bodies([spec], ["/World/Packet"], "off") == ()

    def test_off_leaves_the_stage_alone_and_records_none(self, tmp_path: Path) -> None:
        with FakeKit("6.x", motion()) as kit:
            capture = LiveCapture(request(tmp_path / "e", contacts="off", frames=3))
            capture.start()
            assert session_is_clean(kit.motion.stage)
            kit.play()
            kit.update(30)
            episode = finished(capture, kit)
            assert episode.contacts(0) == ()
            assert not any("contact" in note for note in capture.notes)

    def test_what_it_costs_a_rendering_stage_is_said_and_bodies_that_report_cost_nothing(self) -> None:
        source = motion()
        stage = Usd.Stage.CreateInMemory()
        stage.GetRootLayer().TransferContent(source.stage.GetRootLayer())
        with FakeKit("6.x", source) as kit:
            packet, hand = "/World/Packet", "/World/Arm0/hand"
            reports = ContactReports(stage, [packet, hand])
            reports.open()
            if kit.profile.application == "newton":  # reports none: nothing is switched on, and nothing costs
                assert (reports.cost, reports.available) == ("", False)
                return
            assert "2 bodies" in reports.cost
            for path in (packet, hand):
                assert API in stage.GetPrimAtPath(path).GetMetadata("apiSchemas").GetAppliedItems()
            assert UsdPhysics.RigidBodyAPI(stage.GetPrimAtPath(packet)), "what was applied before is still there"
            reports.close()
            assert not stage.GetSessionLayer().subLayerPaths
            for path in (packet, hand):
                stage.GetPrimAtPath(path).AddAppliedSchema(API)
                stage.GetPrimAtPath(path).CreateAttribute(THRESHOLD, Sdf.ValueTypeNames.Float).Set(0.0)
            reports = ContactReports(stage, [packet, hand])
            reports.open()
            assert reports.cost == ""
            assert reports.available
            assert not stage.GetSessionLayer().subLayerPaths, "all that a recording needs is there"

    @pytest.mark.any_application
    @pytest.mark.parametrize("where", ["file", "session", "session's layer", "at times", "blocked", "nowhere"])
    def test_a_body_that_reports_for_somebody_else_reports_every_contact_meanwhile(self, where: str) -> None:
        """Its threshold is 0 while a recording runs, and afterwards every layer is what it was."""
        source = motion()
        stage, packet, under = Usd.Stage.CreateInMemory(), "/World/Packet", Sdf.Layer.CreateAnonymous()
        stage.GetRootLayer().TransferContent(source.stage.GetRootLayer())
        root, session = stage.GetRootLayer(), stage.GetSessionLayer()
        session.subLayerPaths.append(under.identifier)
        stage.GetPrimAtPath(packet).AddAppliedSchema(API)
        layers = {"file": [root], "session": [root, session], "session's layer": [root, under], "nowhere": []}
        for layer in layers.get(where, [session]):
            with Usd.EditContext(stage, layer):
                stage.GetPrimAtPath(packet).CreateAttribute(THRESHOLD, Sdf.ValueTypeNames.Float).Set(0.1)
        threshold = stage.GetPrimAtPath(packet).GetAttribute(THRESHOLD)
        with Usd.EditContext(stage, session):
            if where == "at times":
                threshold.Set(5.0, 1.0)
                threshold.Set(6.0, 2.0)
            if where == "blocked":
                threshold.Block()
        before = [layer.ExportToString() for layer in (root, session, under)]
        values: list[float] = []
        resynced: list[str] = []
        with FakeKit("6.x", source, "base"):
            reports = ContactReports(stage, [packet])

            def heard(notice: Usd.Notice.ObjectsChanged, sender: Usd.Stage) -> None:
                resynced.extend(str(path) for path in notice.GetResyncedPaths() if path.IsPrimPath())
                if any(path.name == THRESHOLD for path in notice.GetChangedInfoOnlyPaths()):
                    values.append(sender.GetPrimAtPath(packet).GetAttribute(THRESHOLD).Get())

            listener = Tf.Notice.Register(Usd.Notice.ObjectsChanged, heard, stage)
            reports.open()
            assert stage.GetPrimAtPath(packet).GetAttribute(THRESHOLD).Get(1.5) == 0.0
            assert values[-1] == 0.0, "an engine that listens for new values has heard of this one"
            assert reports.cost == ""
            reports.close()
            listener.Revoke()
        assert [layer.ExportToString() for layer in (root, session, under)] == before
        assert not resynced, "nobody reads the body again"
        if where not in ("blocked", "nowhere"):
            assert values[-1] == stage.GetPrimAtPath(packet).GetAttribute(THRESHOLD).Get() != 0


class TestPictures:
    """Renderer settings, antialiasing, tick rates."""

    def record(self, kit: FakeKit, folder: Path, **changes: Any) -> LiveCapture:
        capture = LiveCapture(request(folder, frames=3, **changes))
        capture.start()
        kit.play()
        kit.update(30)
        finished(capture, kit)
        kit.stop()
        return capture

    @pytest.mark.parametrize(("wanted", "operation", "mode"), [("as-is", 3, 0), ("dlss-quality", 3, 2), ("dlaa", 4, 0)])
    def test_the_switch_holds_while_recording_and_is_in_the_episode(
        self, wanted: str, operation: int, mode: int, tmp_path: Path
    ) -> None:
        with FakeKit("6.x", motion()) as kit:
            kit.settings.update({"/rtx/post/aa/op": 3, "/rtx/post/dlss/execMode": 0, "/rtx/rendermode": "RealTime"})
            capture = self.record(kit, tmp_path / "e", antialiasing=wanted)
            renderer = capture.episode.header.settings["renderer"]
            assert (renderer["/rtx/post/aa/op"], renderer["/rtx/post/dlss/execMode"]) == (operation, mode)
            assert renderer["/rtx/rendermode"] == "RealTime"
            assert (kit.settings["/rtx/post/aa/op"], kit.settings["/rtx/post/dlss/execMode"]) == (3, 0)
            advised = [note for note in capture.notes if "antialiasing" in note]
            assert bool(advised) == (wanted == "as-is")

    def test_camera_tick_rates_are_0_while_recording_and_the_stage_s_again_afterwards(self, tmp_path: Path) -> None:
        source = motion()
        camera = source.stage.GetPrimAtPath("/World/Camera0")
        rate = camera.CreateAttribute("omni:sensor:tickRate", Sdf.ValueTypeNames.Float)
        rate.Set(30.0)
        try:
            before = source.stage.GetRootLayer().ExportToString()
            with FakeKit("6.x", source) as kit:
                capture = LiveCapture(request(tmp_path / "e"))
                capture.start()
                assert rate.Get() == 0.0
                assert any("/World/Camera0 (30 Hz)" in note for note in capture.notes)
                capture.close()
                assert rate.Get() == 30.0
                assert session_is_clean(kit.motion.stage)
                assert source.stage.GetRootLayer().ExportToString() == before
        finally:
            camera.RemoveProperty("omni:sensor:tickRate")

    def test_a_size_of_int_or_a_script_s_own_header_settings_stay(self, tmp_path: Path) -> None:
        with FakeKit("6.x", motion()) as kit:
            kit.settings["/rtx/rendermode"] = Gf.Vec2i(1, 2)  # no plain value: left out
            capture = LiveCapture(request(tmp_path / "e", frames=3), settings={"preset": "a"})
            capture.start()
            kit.play()
            kit.update(30)
            settings = finished(capture, kit).header.settings
            assert settings["preset"] == "a"
            assert "/rtx/rendermode" not in settings["renderer"]


def test_render_products_name_their_cameras_each_once() -> None:
    """Cameras of clones share their names: the second is called NAME_2, and so on."""
    stage = Usd.Stage.CreateInMemory()
    cameras = [f"/World/{parent}/{name}" for parent in ("a", "b", "c") for name in ("front", "front_2")]
    for index, path in enumerate(cameras):
        prim = stage.DefinePrim(f"/Render/p{index}", "RenderProduct")
        prim.CreateRelationship("camera").SetTargets([path])
        prim.CreateAttribute("resolution", Sdf.ValueTypeNames.Int2).Set(Gf.Vec2i(64 + index, 48))
    paths = [f"/Render/p{index}" for index in range(len(cameras))]
    found = camera_choices(stage, paths, ("rgb",))
    assert [c.name for c in found] == ["front", "front_2", "front_3", "front_2_2", "front_4", "front_2_3"]
    assert [(c.prim_path, c.size, c.channels) for c in found] == [
        (path, (64 + index, 48), ("rgb",)) for index, path in enumerate(cameras)
    ]
    for broken in ("/Render/none", "/World/a"):
        with pytest.raises(StageError, match="is no render product with a camera and a resolution"):
            camera_choices(stage, [*paths, broken])
    adopted = Products()
    adopted.adopt(paths, found)  # type: ignore[arg-type]
    assert adopted.camera_of == {f"p{index}": camera.name for index, camera in enumerate(found)}
    assert adopted.paths == paths
    with pytest.raises(ValueError, match="shorter"):
        Products().adopt(paths, found[:-1])  # type: ignore[arg-type]
    with pytest.raises(StageError, match="two render products are called 'p0'"):
        adopted.adopt(["/Render/other/p0"], found[:1])  # type: ignore[arg-type]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib needs Python 3.11")
def test_manifest_code_and_docs_name_the_same_settings_with_the_same_defaults() -> None:
    import tomllib

    declared = tomllib.loads((ROOT / "exts/retake.isaac/config/extension.toml").read_text())["settings"]["exts"][
        "retake.isaac"
    ]
    fields = {field.name for field in dataclasses.fields(CaptureRequest)}
    assert set(declared) == fields | set(options.EXTRA)
    assert request_from({name: value for name, value in declared.items() if name in fields}) == CaptureRequest()
    assert {name: value for name, value in declared.items() if name in options.EXTRA} == options.EXTRA
    table = (ROOT / "docs/isaac_sim.md").read_text().partition("| setting | default")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))) == set(declared)


@pytest.mark.parametrize("page", ["isaac_sim.md", "isaac_sim_install.md", "isaac_sim_checklist.md"])
def test_commands_of_the_docs_start_the_application_where_it_lies(page: str) -> None:
    """One stands in the checkout: a launcher has its folder, and what is named beside it is there."""
    text = (ROOT / "docs" / page).read_text()
    for block in re.findall(r"```(?:sh|text)\n(.*?)```", text, re.S):
        assert not re.search(r"(?<![\w/\\])(\./)?(isaac-sim|python)\.(sh|bat)", block), block
        for name in re.findall(r"(?<![\w/])((?:exts|config|scripts)[/\\][\w./\\]+)", block):
            assert (ROOT / name.replace("\\", "/")).exists(), name


@pytest.mark.parametrize("way", ["autorun", "a script's loop", "writer"])
def test_a_tilde_is_the_home_folder(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands what stands in a YAML, a script, or behind the = of a setting."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with FakeKit("6.x", motion()) as kit:
        if way == "autorun":
            path = tmp_path / "a.yaml"
            path.write_text("output: ~/mine\nwidth: 32\nheight: 24\nframes: 2\ngenerate: false\n")
            assert asyncio.run(autorun.run_file(path)) == 0
            assert json.loads((tmp_path / "mine/run.json").read_text())["exit"]["code"] == 0
        elif way == "writer":
            made = writer.writer_class()(output_dir="~/mine")
            assert made._request.output == str(tmp_path / "mine")
        else:
            kit.play()
            with record(output="~/mine", width=32, height=24):
                kit.update(20)
            assert open_episode(tmp_path / "mine/000/episode").complete
    assert not Path("~").exists()
