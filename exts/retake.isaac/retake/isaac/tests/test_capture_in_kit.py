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

from retake.core.episode import Episode
from retake.isaac import autorun, clock, contacts, ticks, writer
from retake.isaac.checks import misfit_px
from retake.isaac.live_capture import LiveCapture
from retake.isaac.processes import repository
from retake.isaac.request import CaptureRequest, Mode
from retake.isaac.settings_guard import SettingsGuard
from retake.isaac.stepped import drive_stepped
from retake.isaac.tensors import TensorReader
from retake.usd.articulation import read_articulations

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
        """contacts.py."""
        stage = omni.usd.get_context().get_stage()
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
        """settings_guard.py."""
        settings = carb.settings.get_settings()
        guard = SettingsGuard()
        before = settings.get("/app/asyncRendering")
        guard.set("/app/asyncRendering", not before)
        guard.set("/retake/test", 3)
        guard.restore()
        assert settings.get("/app/asyncRendering") == before
        assert settings.get("/retake/test") is None

    async def test_the_writer_is_registered(self) -> None:
        """writer.py, by name, as scripts and the Synthetic Data Recorder ask for it."""
        assert rep.WriterRegistry.get(writer.NAME) is not None


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
