# SPDX-License-Identifier: Apache-2.0
"""`retake kit-selftest`: what only a real Isaac Sim can confirm, measured once on the user's machine.

    ./python.sh -m retake.isaac.selftest              (headless; PYTHONPATH as in docs/isaac_sim.md)
    Script Editor: from retake.isaac import selftest; selftest.start()

Prints one line per item of docs/isaac_sim_checklist.md: pass, fail or unknown, with what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode
from retake.core.errors import RetakeError
from retake.isaac import kit, processes
from retake.isaac.checks import SUSPICIOUS_SHARE, misfit_px
from retake.isaac.clock import find_clock
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import CaptureRequest
from retake.isaac.stepped import drive_stepped

FRAMES = 20
COST_LIMIT_MS = (0.3, 2.0)


@dataclass(frozen=True)
class Item:
    """One line of the result."""

    name: str
    status: str
    """pass, fail or unknown."""
    detail: str


class SelfTest:
    """The items, in order; later ones use the episodes of earlier ones."""

    def __init__(self, folder: Path, stage: Path | None) -> None:
        self.folder, self.stage = folder, stage
        self.live: LiveCapture | None = None
        self.stepped: LiveCapture | None = None

    async def run(self, say: Callable[[Item], None]) -> list[Item]:
        """Every item; an item that raises is a fail and the others still run."""
        items: list[Item] = []
        checks: list[tuple[str, Callable[[], Awaitable[tuple[bool | None, str]]]]] = [
            ("versions and adapters", self.adapters),
            ("stage opens", self.open),
            ("live recording pairs exactly", self.record_live),
            ("stepped recording pairs exactly", self.record_stepped),
            ("live and stepped agree on the camera", self.same_camera),
            ("K of the frame is K of the stage (square pixels)", self.intrinsics),
            ("link poses fit forward kinematics (order, units, quaternions)", self.kinematics),
            ("skeleton lies on the robot's pixels", self.projection),
            ("cost in the simulation's callbacks", self.cost),
            ("contacts are reported", self.contacts),
            ("the user's stage is untouched", self.untouched),
            ("a Python outside Kit is found", self.outside),
            ("OpenCV of this Kit", self.opencv),
        ]
        for name, check in checks:
            try:
                good, detail = await check()
                status = "unknown" if good is None else "pass" if good else "fail"
            except Exception as error:
                status, detail = (
                    "fail",
                    f"{type(error).__name__}: {error}" if not isinstance(error, RetakeError) else str(error),
                )
            items.append(Item(name, status, detail))
            say(items[-1])
        return items

    async def adapters(self) -> tuple[bool | None, str]:
        """What was chosen on this version."""
        clock = find_clock()
        return True, f"{kit.versions()}, clock: {clock.name if clock else 'none (stepped mode only)'}"

    async def open(self) -> tuple[bool | None, str]:
        """The demo stage, or the one that is open."""
        if self.stage is not None:
            from retake.isaac.stage_open import open_stage

            await open_stage(self.stage)
        stage = kit.require("omni.usd").get_context().get_stage()
        self._before = stage.GetRootLayer().ExportToString()
        return True, stage.GetRootLayer().identifier

    async def record_live(self) -> tuple[bool | None, str]:
        """Join by reference time."""
        if find_clock() is None:
            return None, "this version has no clock for live recording"
        self.live = await self._record("live")
        counts = self.live.counts
        return True, (
            f"{len(self.live.episode)} frames, pairing error 0 steps, largest lag {counts.lag_steps} steps, "
            f"{counts.early} early, {counts.idle} idle, {counts.repeated} repeated"
        )

    async def record_stepped(self) -> tuple[bool | None, str]:
        """The held state."""
        self.stepped = await self._record("stepped")
        return True, f"{len(self.stepped.episode)} frames"

    async def same_camera(self) -> tuple[bool | None, str]:
        """Two ways to one camera."""
        if self.live is None or self.stepped is None:
            return None, "needs both recordings"
        name = self.live.episode.header.cameras[0].name
        K, T = (np.abs(a[0] - b[0]).max() for a, b in zip(
            self.live.episode.camera_matrices(name), self.stepped.episode.camera_matrices(name), strict=True))  # fmt: skip
        return bool(K < 0.01 and T < 1e-4), f"K differs by {K:.4f} px, pose by {T:.2e}"

    async def intrinsics(self) -> tuple[bool | None, str]:
        """Against UsdGeom.Camera."""
        from retake.usd.camera import camera_prim, read_camera

        episode = self._episode()
        camera = episode.header.cameras[0]
        stage = kit.require("omni.usd").get_context().get_stage()
        truth = read_camera(camera_prim(stage, camera.prim_path), camera.size).K
        error = float(np.abs(episode.camera_matrices(camera.name)[0][0] - truth).max())
        return error < 0.5, f"largest difference {error:.3f} px"

    async def kinematics(self) -> tuple[bool | None, str]:
        """Links against joints."""
        episode, worst = self._episode(), 0.0
        for robot in episode.header.robots:
            poses = episode.link_poses(robot.name)
            truth = robot.forward_kinematics(episode.joint(robot.name, "position"), poses[:, robot.root])
            worst = max(worst, float(np.abs(truth[..., :3, 3] - poses[..., :3, 3]).max()))
        return worst < 1e-3, f"largest error {worst:.2e} m"

    async def projection(self) -> tuple[bool | None, str]:
        """Links against segmentation."""
        episode = self._episode()
        found = [misfit_px(episode.frame(i), episode.header, 0) for i in (0, len(episode) // 2, len(episode) - 1)]
        known = [value for value in found if value is not None]
        if not known:
            return None, "the camera sees no robot"
        limit = SUSPICIOUS_SHARE * float(np.hypot(*episode.header.cameras[0].size))
        return max(known) < limit, f"median distance to the robot's pixels {max(known):.1f} px (limit {limit:.0f} px)"

    async def cost(self) -> tuple[bool | None, str]:
        """Median and 99th percentile."""
        capture = self.live or self.stepped
        if capture is None:
            return None, "needs a recording"
        p50, p99 = capture.status.callback_ms
        return p50 <= COST_LIMIT_MS[0] and p99 <= COST_LIMIT_MS[
            1
        ], f"p50 {p50:.3f} ms, p99 {p99:.3f} ms (limits 0.3, 2)"

    async def contacts(self) -> tuple[bool | None, str]:
        """PhysX reports."""
        episode = self._episode()
        count = sum(len(episode.contacts(i)) for i in range(len(episode)))
        return (True if count else None), f"{count} contacts in {len(episode)} frames"

    async def untouched(self) -> tuple[bool | None, str]:
        """Root layer before and after."""
        stage = kit.require("omni.usd").get_context().get_stage()
        same = stage.GetRootLayer().ExportToString() == self._before
        return same, "root layer unchanged" if same else "the root layer changed"

    async def outside(self) -> tuple[bool | None, str]:
        """For Generate and the worker."""
        return True, str(processes.find_python())

    async def opencv(self) -> tuple[bool | None, str]:
        """Whether videos could be written in Kit (they need not be)."""
        import cv2

        ffmpeg = "FFMPEG: " in cv2.getBuildInformation().replace(" ", "").replace("FFMPEG:", "FFMPEG: ")
        return True, f"OpenCV {cv2.__version__}, video I/O through ffmpeg listed: {ffmpeg}"

    def _episode(self) -> Episode:
        capture = self.live or self.stepped
        if capture is None:
            raise RetakeError("needs a recording, and none succeeded")
        return capture.episode

    async def _record(self, mode: str) -> LiveCapture:
        app, timeline = kit.require("omni.kit.app").get_app(), kit.require("omni.timeline").get_timeline_interface()
        request = CaptureRequest(output=str(self.folder / mode), frames=FRAMES, mode=mode, task="self-test")  # type: ignore[arg-type]
        capture = LiveCapture(request)
        capture.start()
        if capture.stepped:
            await drive_stepped(capture)
        else:
            timeline.play()
        for _ in range(3000):
            if not capture.status.active:
                break
            await app.next_update_async()
        timeline.stop()
        for _ in range(10):
            await app.next_update_async()
        if capture.status.active:
            capture.close("the recording did not end")
        _ = capture.episode  # raises what went wrong
        return capture


def show(item: Item) -> None:
    """One line."""
    mark = {"pass": "PASS", "fail": "FAIL"}.get(item.status, "----")
    sys.stdout.write(f"{mark}  {item.name}: {item.detail}\n")
    sys.stdout.flush()


async def whole(stage: Path | None, out: Path | None = None) -> int:
    """All items; exit code 0 when none failed."""
    with tempfile.TemporaryDirectory(prefix="retake-selftest-") as folder:
        items = await SelfTest(Path(folder), stage).run(show)
    if out is not None:
        out.write_text(json.dumps({"versions": kit.versions(), "items": [asdict(i) for i in items]}, indent=2) + "\n")
    failed = sum(item.status == "fail" for item in items)
    sys.stdout.write(f"{len(items) - failed} of {len(items)} items without a failure\n")
    return 1 if failed else 0


def start(stage: Path | None = None) -> Any:
    """Inside a running Isaac Sim: begin, and print as it goes."""
    return asyncio.ensure_future(whole(stage))


def main(argv: list[str]) -> int:
    """Headless, with a SimulationApp of its own."""
    parser = argparse.ArgumentParser(
        prog="retake kit-selftest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", type=Path, default=processes.repository() / "data/stages/pick_place/scene.usda")
    parser.add_argument("--json", type=Path, help="write the result here, too (to attach to a report)")
    options = parser.parse_args(argv)
    from retake.isaac.standalone import run_in_app

    return run_in_app(lambda: whole(options.stage, options.json))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
