# SPDX-License-Identifier: Apache-2.0
"""The self-test's items, one method each: imported once an application exists, because USD and Kit do not exist before."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import retake
from retake.core.episode import Episode
from retake.core.errors import RetakeError
from retake.isaac import kit, processes, timeline
from retake.isaac.assumptions import ASSUMPTIONS, MEASUREMENTS, Item
from retake.isaac.async_rendering import PATHS
from retake.isaac.checks import SUSPICIOUS_SHARE, misfit_px
from retake.isaac.clock import find_clock
from retake.isaac.contacts import NO_READBACK, NOT_PROCESSED
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import CaptureRequest
from retake.isaac.stage_open import open_stage
from retake.isaac.stepped import drive_stepped
from retake.isaac.tensors import engine

COST_LIMIT_MS = (0.3, 2.0)
Answer = tuple[bool | None, str, Any]
"""(good, unknown or bad; what was measured in words; the value for the JSON)."""


class Probe:
    """Looks at what Replicator hands to a recording, on its way."""

    def __init__(self, capture: LiveCapture) -> None:
        self._capture, self._deliver = capture, capture.deliver
        self.threads: set[str] = set()
        self.keys: dict[str, str] = {}
        self.steps_before_first = -1
        self.asynchronous = 0
        """Updates of the recording with asynchronous rendering on."""
        capture.deliver = self.deliver  # type: ignore[method-assign]

    def deliver(self, data: Mapping[str, Any]) -> None:
        """One payload."""
        self.threads.add(threading.current_thread().name)
        if self.steps_before_first < 0:
            self.steps_before_first = self._capture.steps
        if not self.keys:
            for entries in data.get("renderProducts", {}).values():
                for name, entry in entries.items():
                    array = entry.get("data") if isinstance(entry, Mapping) else entry
                    self.keys[str(name)] = (
                        f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}".strip()
                    )
        self._deliver(data)

    def look(self) -> None:
        """One update has passed."""
        settings = kit.require("carb.settings").get_settings()
        self.asynchronous += (
            any(settings.get(path) for path in PATHS) and self._capture.status.phase.value == "recording"
        )


class SelfTest:
    """The items, in order; later ones use the episodes of earlier ones."""

    def __init__(self, folder: Path, stage_file: Path | None, frames: int) -> None:
        self.folder, self.stage_file, self.frames = folder, stage_file, frames
        self.live: LiveCapture | None = None
        self.stepped: LiveCapture | None = None
        self.probe: Probe | None = None
        self._before = ""

    async def run(self, say: Callable[[Item], None]) -> list[Item]:
        """Every measurement, then every assumption; one that raises is a fail and the others still run."""
        items: list[Item] = []
        listed = [(m.key, m.name) for m in MEASUREMENTS] + [(a.key, a.assumed) for a in ASSUMPTIONS]
        for key, name in listed:
            value: Any = None
            try:
                good, detail, value = await getattr(self, key)()
                status = "unknown" if good is None else "pass" if good else "fail"
            except Exception as error:
                status = "fail"
                detail = str(error) if isinstance(error, RetakeError) else f"{type(error).__name__}: {error}"
            items.append(Item(key, name, status, detail, value))
            say(items[-1])
        return items

    async def adapters(self) -> Answer:
        """What was chosen on this version."""
        clock = find_clock()
        chosen = clock.name if clock else "none (stepped mode only)"
        return True, f"{kit.versions()}, clock: {chosen}, physics engine: {engine()}", kit.versions()

    async def stage(self) -> Answer:
        """The demo stage, or the one that is open."""
        if self.stage_file is not None:
            await open_stage(self.stage_file)
        stage = kit.require("omni.usd").get_context().get_stage()
        self._before = stage.GetRootLayer().ExportToString()
        return True, stage.GetRootLayer().identifier, None

    async def record_live(self) -> Answer:
        """Join by reference time."""
        if find_clock() is None:
            return None, "this version has no clock for live recording", None
        self.live = await self._record("live")
        counts = self.live.counts
        return (
            True,
            f"{len(self.live.episode)} frames, pairing error 0 steps, largest lag {counts.lag_steps} steps, "
            f"{counts.early} early, {counts.idle} idle, {counts.repeated} repeated",
            counts.lag_steps,
        )

    async def record_stepped(self) -> Answer:
        """The held state."""
        self.stepped = await self._record("stepped")
        return True, f"{len(self.stepped.episode)} frames", len(self.stepped.episode)

    async def same_camera(self) -> Answer:
        """Two ways to one camera."""
        if self.live is None or self.stepped is None:
            return None, "needs both recordings", None
        name = self.live.episode.header.cameras[0].name
        K, T = (np.abs(a[0] - b[0]).max() for a, b in zip(
            self.live.episode.camera_matrices(name), self.stepped.episode.camera_matrices(name), strict=True))  # fmt: skip
        return bool(K < 0.01 and T < 1e-4), f"K differs by {K:.4f} px, pose by {T:.2e}", [float(K), float(T)]

    async def intrinsics(self) -> Answer:
        """Against UsdGeom.Camera."""
        from retake.usd.camera import camera_prim, read_camera

        episode = self._episode()
        camera = episode.header.cameras[0]
        stage = kit.require("omni.usd").get_context().get_stage()
        truth = read_camera(camera_prim(stage, camera.prim_path), camera.size).K
        error = float(np.abs(episode.camera_matrices(camera.name)[0][0] - truth).max())
        return error < 0.5, f"largest difference {error:.3f} px", error

    async def kinematics(self) -> Answer:
        """Links against joints."""
        episode, worst = self._episode(), 0.0
        for robot in episode.header.robots:
            poses = episode.link_poses(robot.name)
            truth = robot.forward_kinematics(episode.joint(robot.name, "position"), poses[:, robot.root])
            worst = max(worst, float(np.abs(truth[..., :3, 3] - poses[..., :3, 3]).max()))
        return worst < 1e-3, f"largest error {worst:.2e} m", worst

    async def projection(self) -> Answer:
        """Links against segmentation."""
        episode = self._episode()
        found = [misfit_px(episode.frame(i), episode.header, 0) for i in (0, len(episode) // 2, len(episode) - 1)]
        known = [value for value in found if value is not None]
        if not known:
            return None, "the camera sees no robot", None
        limit = SUSPICIOUS_SHARE * float(np.hypot(*episode.header.cameras[0].size))
        return (
            max(known) < limit,
            f"median distance to the robot's pixels {max(known):.1f} px (limit {limit:.0f} px)",
            max(known),
        )

    async def cost(self) -> Answer:
        """Median and 99th percentile."""
        capture = self.live or self.stepped
        if capture is None:
            return None, "needs a recording", None
        p50, p99 = capture.costs.now()
        good = p50 <= COST_LIMIT_MS[0] and p99 <= COST_LIMIT_MS[1]
        return good, f"p50 {p50:.3f} ms, p99 {p99:.3f} ms (limits 0.3, 2)", [p50, p99]

    async def untouched(self) -> Answer:
        """Root layer before and after."""
        stage = kit.require("omni.usd").get_context().get_stage()
        same = stage.GetRootLayer().ExportToString() == self._before
        return same, "root layer unchanged" if same else "the root layer changed", None

    async def outside(self) -> Answer:
        """For Generate and the worker."""
        return True, str(processes.find_python()), None

    async def opencv(self) -> Answer:
        """Whether videos could be written in Kit (they need not be)."""
        import cv2

        ffmpeg = "FFMPEG: " in cv2.getBuildInformation().replace(" ", "").replace("FFMPEG:", "FFMPEG: ")
        return True, f"OpenCV {cv2.__version__}, video I/O through ffmpeg listed: {ffmpeg}", cv2.__version__

    # -- the assumptions, by their keys ------------------------------------------------------------------------------

    async def asynchronous_rendering(self) -> Answer:
        """On in how many updates of the live recording, and put back."""
        if self.probe is None:
            return None, "needs the live recording", None
        on = [path for path in PATHS if kit.require("carb.settings").get_settings().get(path)]
        return (
            self.probe.asynchronous == 0,
            f"on in {self.probe.asynchronous} updates of the recording; on afterwards: {', '.join(on) or 'none'}",
            self.probe.asynchronous,
        )

    async def nobody_opens_a_stage(self) -> Answer:
        """Thirty updates later it is the same."""
        context, app = kit.require("omni.usd").get_context(), kit.require("omni.kit.app").get_app()
        stage = context.get_stage()
        for _ in range(30):
            await app.next_update_async()
        same = context.get_stage() == stage
        return same, "the same stage after 30 updates" if same else "another stage was opened", None

    async def whole_steps_per_update(self) -> Answer:
        """Of the recordings."""
        capture = self._capture()
        found = sorted(capture.steps_per_update)
        return len(found) == 1, f"physics steps per update: {', '.join(map(str, found)) or 'none seen'}", found

    async def every_getter_answers(self) -> Answer:
        """Those that a recording needs answered; efforts may be missing."""
        channels = self._episode().header.joint_channels
        return True, f"position, {', '.join(channels)} ({engine()})", list(channels)

    async def stage_reads(self) -> Answer:
        """What was found."""
        content = self._capture().content
        if content is None:
            return None, "needs a recording", None
        return (
            True,
            f"{len(content.robots)} robots, {len(content.cameras)} cameras, {len(content.objects)} bodies; "
            f"notes: {'; '.join(content.notes) or 'none'}",
            [len(content.robots), len(content.cameras), len(content.objects)],
        )

    async def times_agree(self) -> Answer:
        """Largest difference of the two clocks."""
        if self.live is None:
            return None, "needs the live recording", None
        us = self.live.counts.beside_ns / 1000
        return us <= 2.0, f"largest difference {us:.3f} us", us

    async def held_state_is_rendered(self) -> Answer:
        """Frames of earlier states; the pictures themselves are compared by other items."""
        if self.stepped is None:
            return None, "needs the stepped recording", None
        return (
            self.stepped.stale == 0,
            f"{self.stepped.stale} frames of earlier states were delivered",
            self.stepped.stale,
        )

    async def writes_in_order(self) -> Answer:
        """Once, in order, on the main thread."""
        if self.live is None or self.probe is None:
            return None, "needs the live recording", None
        main = threading.main_thread().name
        good = self.live.counts.repeated == 0 and self.probe.threads == {main}
        return good, f"{self.live.counts.repeated} repeated; called on {', '.join(sorted(self.probe.threads))}", None

    async def payload_layout(self) -> Answer:
        """Keys, types and shapes."""
        if self.probe is None or not self.probe.keys:
            return None, "needs the live recording", None
        return True, "; ".join(f"{name}: {kind}" for name, kind in sorted(self.probe.keys.items())), self.probe.keys

    async def capture_on_play(self) -> Answer:
        """How soon frames come."""
        if self.probe is None or self.probe.steps_before_first < 0:
            return None, "needs the live recording", None
        return True, f"first frame after {self.probe.steps_before_first} physics steps", self.probe.steps_before_first

    async def detach_in_an_update(self) -> Answer:
        """What could not be taken back."""
        captures = [c for c in (self.live, self.stepped) if c is not None]
        notes = [note for c in captures for note in c.notes if "could not be taken back" in note]
        return (not notes) if captures else None, "; ".join(notes) or "everything was taken back", None

    async def fields_survive_a_rebuild(self) -> Answer:
        """Needs a person."""
        return None, "by hand: type into a field of the open panel while something is added to the stage", None

    async def contacts_are_readable(self) -> Answer:
        """Contacts in the recording."""
        episode, settings = self._episode(), kit.require("carb.settings").get_settings()
        count = sum(len(episode.contacts(i)) for i in range(len(episode)))
        against = [path for path in (NOT_PROCESSED, NO_READBACK) if settings.get(path)]
        against_text = f"; against it: {', '.join(against)}" if against else ""
        return (True if count else None), f"{count} contacts in {len(episode)} frames ({engine()}){against_text}", count

    async def exit_code_arrives(self) -> Answer:
        """Seen from outside only."""
        return (
            None,
            "look at the exit code of this very run: the last line says which it should be (python.sh: 0 or 1)",
            None,
        )

    async def packages_merge(self) -> Answer:
        """Where the parts come from."""
        folders = [str(path) for path in retake.__path__]
        found = [name for name in ("retake.core", "retake.usd", "retake.isaac") if name in sys.modules]
        return len(found) == 3, f"{', '.join(found)} from {', '.join(folders)}", folders

    # -- inside -----------------------------------------------------------------------------------------------------

    def _capture(self) -> LiveCapture:
        capture = self.live or self.stepped
        if capture is None:
            raise RetakeError("needs a recording, and none succeeded")
        return capture

    def _episode(self) -> Episode:
        return self._capture().episode

    async def _record(self, mode: str) -> LiveCapture:
        app = kit.require("omni.kit.app").get_app()
        request = CaptureRequest(output=str(self.folder / mode), frames=self.frames, mode=mode, task="self-test")  # type: ignore[arg-type]
        capture = LiveCapture(request)
        probe = Probe(capture)
        if mode == "live":
            self.probe = probe
        capture.start()
        if capture.stepped:
            await drive_stepped(capture)
        else:
            timeline.play()
        for _ in range(3000):
            if not capture.status.active:
                break
            probe.look()
            await app.next_update_async()
        timeline.stop()
        for _ in range(10):
            await app.next_update_async()
        if capture.status.active:
            capture.close("the recording did not end")
        _ = capture.episode  # raises what went wrong
        return capture
