# SPDX-License-Identifier: Apache-2.0
"""K randomised episodes of one task × N variants each: Replicator randomises the simulation, Retake the realism.

    ./python.sh exts/retake.isaac/examples/randomised_episodes.py --episodes 5 --output runs/randomised

Every episode has its own object pose, light and camera jitter (seeded, written into the episode's settings) and is
recorded by RetakeWriter; afterwards `retake run --run runs/randomised/<k>` makes the variants and takes of each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


async def record_episode(index: int, seed: int, output: Path) -> None:
    """Randomise, play and record one episode."""
    import numpy as np
    from pxr import Gf, Usd, UsdGeom, UsdLux

    from retake.core.config import RunConfig
    from retake.core.run_store import create_run
    from retake.isaac import autorun, kit
    from retake.isaac.live_capture import LiveCapture
    from retake.isaac.request import CaptureRequest

    sys.path.insert(0, str(Path(__file__).parent))
    from pick_place import TRAJECTORY, open_demo  # type: ignore[import-not-found]

    await open_demo()
    replicator = kit.require("omni.replicator.core")
    stage = kit.require("omni.usd").get_context().get_stage()
    rng = np.random.default_rng([seed, index])
    settings: dict[str, Any] = {"randomised": {"seed": seed, "episode": index}}
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        shift = rng.uniform(-0.01, 0.01, 2)
        packet = UsdGeom.XformCommonAPI(stage.GetPrimAtPath("/World/Packet"))
        matrix = UsdGeom.Xformable(stage.GetPrimAtPath("/World/Packet")).GetLocalTransformation()
        matrix.SetTranslateOnly(matrix.ExtractTranslation() + Gf.Vec3d(*shift.tolist(), 0.0))
        UsdGeom.Xformable(packet.GetPrim()).MakeMatrixXform().Set(matrix)
        camera = UsdGeom.Xformable(stage.GetPrimAtPath("/World/Camera"))
        view = camera.GetLocalTransformation()
        view.SetTranslateOnly(view.ExtractTranslation() + Gf.Vec3d(*rng.uniform(-0.03, 0.03, 3).tolist()))
        camera.MakeMatrixXform().Set(view)
        for prim in stage.Traverse():
            if prim.HasAPI(UsdLux.LightAPI):
                gain = float(rng.uniform(0.6, 1.5))
                UsdLux.LightAPI(prim).GetIntensityAttr().Set(UsdLux.LightAPI(prim).GetIntensityAttr().Get() * gain)
                settings["randomised"][str(prim.GetPath())] = gain
    settings["randomised"]["packet_shift_m"] = shift.tolist()
    with replicator.new_layer():
        table = replicator.get.prims(path_pattern="/World/Table")
        with replicator.trigger.on_custom_event(event_name="retake_randomise"), table:
            replicator.randomizer.color(colors=replicator.distribution.uniform((0.2, 0.2, 0.2), (0.8, 0.7, 0.6)))
    replicator.utils.send_og_event(event_name="retake_randomise")
    create_run(output, RunConfig().to_json())  # `retake run` goes on from here
    request = CaptureRequest(
        output=str(output / "episode"), cameras=("/World/Camera",), task="pick up the packet and drop it into the tray",
        mode="stepped", seed=seed + index,
    )  # fmt: skip
    capture = LiveCapture(request, settings=settings)
    capture.start()
    trajectory = autorun.Trajectory.load(TRAJECTORY, capture)
    capture.limit(trajectory.frames(request.fps))
    await autorun.record(capture, trajectory, 1800.0)
    autorun.say(f"episode {index}: {len(capture.episode)} frames in {output}")


async def main(episodes: int, seed: int, output: Path) -> None:
    """All episodes, one after the other."""
    for index in range(episodes):
        await record_episode(index, seed, output / f"{index:03d}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "runs/randomised")
    options = parser.parse_args()
    from retake.isaac.standalone import simulation_app

    app = simulation_app()
    app.run_coroutine(main(options.episodes, options.seed, options.output))
    app.close()
