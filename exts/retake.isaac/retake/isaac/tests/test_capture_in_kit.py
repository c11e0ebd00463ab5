# SPDX-License-Identifier: Apache-2.0
"""Every adapter in a real Isaac Sim, on the pick-and-place stage. Not run outside Isaac Sim."""

from __future__ import annotations

import tempfile
from pathlib import Path

import carb.settings  # type: ignore[import-not-found]
import numpy as np
import omni.kit.app  # type: ignore[import-not-found]
import omni.kit.test  # type: ignore[import-not-found]
import omni.replicator.core as rep  # type: ignore[import-not-found]
import omni.timeline  # type: ignore[import-not-found]
import omni.usd  # type: ignore[import-not-found]
from pxr import Sdf, Usd

from retake.core.episode import CHANNELS, Episode
from retake.core.errors import InputError
from retake.isaac import (
    autorun,
    clock,
    contacts,
    kit,
    options,
    picture_quality,
    preview,
    products,
    stops,
    ticks,
    writer,
)
from retake.isaac.camera_text import parse_camera
from retake.isaac.checks import is_suspicious, misfit_px
from retake.isaac.extension import RetakeExtension
from retake.isaac.host_settings import CAPTURE_ON_PLAY, HostSettings
from retake.isaac.live_capture import LiveCapture
from retake.isaac.processes import repository
from retake.isaac.request import CaptureRequest, Mode
from retake.isaac.settings_guard import SettingsGuard
from retake.isaac.stage_reader import CameraChoice, read_content
from retake.isaac.stepped import drive_stepped
from retake.isaac.tensors import TensorReader
from retake.isaac.tick_rates import TickRates
from retake.usd.articulation import read_articulations
from retake.usd.camera import read_camera

STAGE = repository() / "data/stages/pick_place/scene.usda"


async def updates(count: int) -> None:
    """Some updates of the application."""
    for _ in range(count):
        await omni.kit.app.get_app().next_update_async()


class TestAdapters(omni.kit.test.AsyncTestCase):
    """One adapter at a time."""

    async def setUp(self) -> None:
        """The stage."""
        await autorun.open_stage(STAGE)

    async def tearDown(self) -> None:
        """A stopped timeline."""
        omni.timeline.get_timeline_interface().stop()
        await updates(10)

    async def test_post_step_and_updates_arrive(self) -> None:
        """ticks.py."""
        steps, frames = [], []
        held = [ticks.on_post_step(steps.append), ticks.on_update(lambda: frames.append(1))]
        omni.timeline.get_timeline_interface().play()
        await updates(30)
        assert len(steps) > 10
        assert len(frames) >= 29
        for subscription in held:
            subscription.release()

    async def test_a_clock_is_found(self) -> None:
        """clock.py: every version but 5.0 has one."""
        assert clock.find_clock() is not None

    async def test_tensors_agree_with_forward_kinematics(self) -> None:
        """tensors.py: order, units and quaternion order of PhysX."""
        robots = read_articulations(omni.usd.get_context().get_stage())
        reader = TensorReader([r.spec for r in robots], ["/World/Packet"])
        omni.timeline.get_timeline_interface().play()
        await updates(20)
        reader.open()
        raw = reader.read().robots[0]
        truth = robots[0].spec.forward_kinematics(
            np.asarray(raw.position, float), robots[0].T_world_link[robots[0].spec.root]
        )
        assert np.abs(truth[:, :3, 3] - raw.links[:, :3]).max() < 1e-3

    async def test_contacts_leave_the_stage_as_it_was(self) -> None:
        """contacts.py, overlay.py, sharing.py: also the threshold of a body that reports for somebody else."""
        stage = omni.usd.get_context().get_stage()
        packet = stage.GetPrimAtPath("/World/Packet")
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            packet.AddAppliedSchema(contacts.API)
            packet.CreateAttribute(contacts.THRESHOLD, Sdf.ValueTypeNames.Float).Set(1e6)
        before = stage.GetSessionLayer().ExportToString()
        reports = contacts.ContactReports(stage, ["/World/Packet"])
        reports.open()
        omni.timeline.get_timeline_interface().play()
        await updates(60)
        assert reports.available
        assert len(reports.read()) > 0
        reports.close()
        assert before == stage.GetSessionLayer().ExportToString()

    async def test_settings_are_put_back(self) -> None:
        """settings_guard.py, host_settings.py."""
        settings = carb.settings.get_settings()
        guard = SettingsGuard()
        before = settings.get("/app/asyncRendering")
        guard.set("/app/asyncRendering", not before)
        guard.set("/retake/test", 3)
        guard.restore()
        assert settings.get("/app/asyncRendering") == before
        assert settings.get("/retake/test") is None
        on_play = settings.get(CAPTURE_ON_PLAY)
        held, other = HostSettings(), HostSettings()
        held.hold(live=False, antialiasing="as-is")
        assert settings.get(CAPTURE_ON_PLAY) is False
        refused = False
        try:
            other.hold(live=True, antialiasing="as-is")
        except InputError:
            refused = True
        assert refused
        held.close()
        assert settings.get(CAPTURE_ON_PLAY) == on_play

    async def test_the_writer_is_registered(self) -> None:
        """writer.py, delivery.py, by name, as scripts and the Synthetic Data Recorder ask for it."""
        assert rep.WriterRegistry.get(writer.NAME) is not None

    async def test_render_products_are_made_and_destroyed(self) -> None:
        """products.py: a forgotten product keeps rendering and keeps its VRAM."""
        stage = omni.usd.get_context().get_stage()
        content = read_content(stage, cameras=[CameraChoice("/World/Camera", (320, 240))])
        made = products.Products()
        made.create(content.cameras)
        path = made.paths[0]
        await updates(3)
        assert products.camera_choices(stage, [path])[0].prim_path == "/World/Camera"
        made.close()
        await updates(3)
        assert not stage.GetPrimAtPath(path)

    async def test_stops_are_counted(self) -> None:
        """stops.py: a new recording waits until the frames of an earlier run have left the renderer."""
        watch = stops.StopWatch()
        watch.install()
        timeline = omni.timeline.get_timeline_interface()
        timeline.play()
        await updates(3)
        timeline.stop()
        await updates(2)
        assert not watch.quiet
        await updates(stops.SETTLE_UPDATES)
        assert watch.quiet
        watch.uninstall()

    async def test_the_application_tells_its_versions(self) -> None:
        """kit.py."""
        found = kit.versions()
        assert found["kit"]
        assert found["isaac_sim"] or found["app"]

    async def test_options_are_settings(self) -> None:
        """options.py: extension.toml's defaults arrive, and become a request."""
        assert options.request_from_settings(output="x") == CaptureRequest(output="x")

    async def test_a_camera_of_its_own_size_renders_in_full_and_at_every_frame(self) -> None:
        """camera_text.py, picture_quality.py, tick_rates.py: asked for, in force while held, and put back."""
        stage = omni.usd.get_context().get_stage()
        choice = parse_camera("/World/Camera@320x240:rgb+depth", (640, 480), CHANNELS)
        assert read_content(stage, cameras=[choice]).cameras[0].size == (320, 240)
        settings, rates = HostSettings(), TickRates(stage, ["/World/Camera"])
        before = settings.get(picture_quality.ANTIALIASING)
        settings.hold(live=True, antialiasing="dlaa")
        rates.open()
        await updates(3)
        assert settings.get(picture_quality.ANTIALIASING) == picture_quality.DLAA
        assert stage.GetPrimAtPath("/World/Camera").GetAttribute("omni:sensor:tickRate").Get() in (None, 0.0)
        rates.close()
        settings.close()
        assert settings.get(picture_quality.ANTIALIASING) == before


class TestCapture(omni.kit.test.AsyncTestCase):
    """Whole recordings."""

    async def record(self, mode: Mode, frames: int = 12) -> Episode:
        """A recording of the demo stage."""
        await autorun.open_stage(STAGE)
        folder = tempfile.mkdtemp()
        capture = LiveCapture(
            CaptureRequest(output=str(Path(folder, "e")), frames=frames, mode=mode, cameras=("/World/Camera",))
        )
        capture.start()
        if capture.stepped:
            await drive_stepped(capture)
        else:
            omni.timeline.get_timeline_interface().play()
        for _ in range(2000):
            await updates(1)
            if not capture.status.active:
                break
        omni.timeline.get_timeline_interface().stop()
        assert capture.status.dropped == 0, capture.status
        return capture.episode

    async def test_live_capture_fits_the_pixels(self) -> None:
        """Skeleton against segmentation, in the real renderer."""
        episode = await self.record("live")
        misfit = misfit_px(episode.frame(len(episode) - 1), episode.header, 0)
        assert misfit is not None
        assert misfit < 16

    async def test_stepped_capture_fits_the_pixels(self) -> None:
        """The same, stepped."""
        episode = await self.record("stepped")
        misfit = misfit_px(episode.frame(len(episode) - 1), episode.header, 0)
        assert misfit is not None
        assert misfit < 16

    async def test_a_frame_knows_its_camera_and_its_robot(self) -> None:
        """rendered_camera.py, payload.py, instances.py, async_rendering.py, timeline.py, watch.py, conditions.py,
        stage_reader.py, costs.py, hooks.py, live_capture.py."""
        episode = await self.record("auto")
        stage = omni.usd.get_context().get_stage()
        header = episode.header
        camera = header.cameras[0]
        truth = read_camera(stage.GetPrimAtPath(camera.prim_path), camera.size)
        assert np.abs(episode.camera(camera.name, 0).K - truth.K).max() < 0.5
        robot = [i.id for i in header.instances if i.owner.startswith("robot:")]
        assert np.isin(episode.image(camera.name, "instances", 0), robot).sum() > 500
        depth = episode.image(camera.name, "depth", 0)
        assert 0.2 < np.median(depth[depth > 0]) < 5.0

    async def test_the_live_picture_shows_the_skeleton(self) -> None:
        """preview.py, checks.py."""
        episode = await self.record("auto", 3)
        picture = preview.draw(0, episode.frame(0), episode.header, 0, 480)
        assert picture.rgba.shape == (360, 480, 4)
        assert not is_suspicious(picture.misfit_px, episode.header.cameras[0].size)

    async def test_an_autorun_records_and_tells_its_exit_code(self) -> None:
        """autorun.py, stage_open.py, stepped.py; by hand: standalone.py, selftest.py,
        selftest_items.py, leaving.py, stepping.py."""
        request = CaptureRequest(
            output=str(Path(tempfile.mkdtemp(), "run")), frames=5, mode="stepped", cameras=("/World/Camera",)
        )
        trajectory = repository() / "data/trajectories/pick_place.npz"
        extra = {"stage": str(STAGE), "trajectory": str(trajectory), "generate": False}
        assert await autorun.exit_code_of(autorun.run(request, extra)) == 0

    async def test_disabling_the_extension_completes_a_recording(self) -> None:
        """extension.py, processes.py is plain Python and tested outside Kit."""
        await autorun.open_stage(STAGE)
        extension = RetakeExtension()
        extension.on_startup("retake.isaac-test")
        capture = LiveCapture(CaptureRequest(output=str(Path(tempfile.mkdtemp(), "e")), cameras=("/World/Camera",)))
        capture.start()
        omni.timeline.get_timeline_interface().play()
        await updates(60)
        extension.on_shutdown()
        omni.timeline.get_timeline_interface().stop()
        assert len(capture.episode) > 0
