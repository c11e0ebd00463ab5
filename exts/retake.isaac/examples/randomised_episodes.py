# SPDX-License-Identifier: Apache-2.0
"""K randomised episodes of one task × N variants each: Replicator randomises the simulation, Retake the realism.

    PYTHONPATH=exts/retake.core:exts/retake.usd:exts/retake.isaac \
        ~/isaac-sim/python.sh exts/retake.isaac/examples/randomised_episodes.py --episodes 5 --output runs/randomised

Every episode has its own object pose, lights, table colour and camera jitter (seeded; all but the colour, which is
Replicator's own, are written into the episode's settings). Each then gets its variants and takes; `--record-only` leaves
that to `retake run --run runs/randomised/<k>`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
OBJECT, CAMERA, TABLE = "/World/Packet", "/World/Camera", "/World/Table"
EVENT = "retake_randomise"


def randomise(stage: Any, seed: int, index: int) -> dict[str, Any]:
    """Move the object and the camera, dim the lights (session layer), ask Replicator for a table colour.

    Returns what was drawn, for the episode's settings. Metres and the light's own unit.
    """
    import numpy as np
    from pxr import Gf, Usd, UsdGeom, UsdLux

    from retake.isaac import kit

    rng = np.random.default_rng([seed, index])
    shift, jitter = rng.uniform(-0.01, 0.01, 2), rng.uniform(-0.03, 0.03, 3)
    drawn: dict[str, Any] = {"seed": seed, "episode": index}
    drawn |= {"object_shift_m": shift.tolist(), "camera_shift_m": jitter.tolist()}
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        for path, by in ((OBJECT, Gf.Vec3d(*shift.tolist(), 0.0)), (CAMERA, Gf.Vec3d(*jitter.tolist()))):
            prim = UsdGeom.Xformable(stage.GetPrimAtPath(path))
            matrix = prim.GetLocalTransformation()
            matrix.SetTranslateOnly(matrix.ExtractTranslation() + by)
            prim.MakeMatrixXform().Set(matrix)
        for prim in stage.Traverse():
            if prim.HasAPI(UsdLux.LightAPI):
                gain = float(rng.uniform(0.6, 1.5))
                intensity = UsdLux.LightAPI(prim).GetIntensityAttr()
                intensity.Set(intensity.Get() * gain)
                drawn[f"light_gain {prim.GetPath()}"] = gain
        rep = kit.require("omni.replicator.core")
        with rep.trigger.on_custom_event(event_name=EVENT), rep.get.prims(path_pattern=TABLE):
            rep.randomizer.color(colors=rep.distribution.uniform((0.2, 0.2, 0.2), (0.8, 0.7, 0.6)))
    rep.utils.send_og_event(event_name=EVENT)
    return drawn


async def record_episode(
    index: int, seed: int, output: Path, options: Mapping[str, Any] | None = None, **changes: Any
) -> int:
    """Randomise, play, record and generate one episode; returns its exit code."""
    from retake.isaac import autorun, kit
    from retake.isaac.request import CaptureRequest

    sys.path.insert(0, str(Path(__file__).parent))
    from pick_place import TASK, TRAJECTORY, open_demo  # type: ignore[import-not-found]

    await open_demo()
    drawn = randomise(kit.require("omni.usd").get_context().get_stage(), seed, index)
    for _ in range(3):  # the event reaches the randomisers with the next updates
        await kit.require("omni.kit.app").get_app().next_update_async()
    request = CaptureRequest(
        output=str(output), cameras=(CAMERA,), task=TASK, mode="stepped", seed=seed + index
    )  # fmt: skip
    autorun.say(f"episode {index}: {drawn}")
    return await autorun.run(
        replace(request, **changes), {"trajectory": str(TRAJECTORY), **(options or {})}, {"randomised": drawn}
    )


async def main(
    episodes: int, seed: int, output: Path, options: Mapping[str, Any] | None = None, **changes: Any
) -> int:  # fmt: skip
    """All episodes, one after the other; stops at the first that fails and returns its exit code."""
    for index in range(episodes):
        if code := await record_episode(index, seed, output / f"{index:03d}", options, **changes):
            return code
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "runs/randomised")
    parser.add_argument("--record-only", action="store_true", help="no variants and takes yet")
    chosen = parser.parse_args()
    from retake.isaac.standalone import run_in_app

    sys.exit(
        run_in_app(
            lambda: main(chosen.episodes, chosen.seed, chosen.output, {"generate": not chosen.record_only}),
        )
    )
