# SPDX-License-Identifier: Apache-2.0
"""The seed experiment in the real simulator: a Panda picks up a packet under PhysX, Retake records it and makes takes.

Inside Isaac Sim: the panel's "Open demo", or Window > Script Editor: run this file. Headless:

    PYTHONPATH=exts/retake.core:exts/retake.usd:exts/retake.isaac ~/isaac-sim/python.sh exts/retake.isaac/examples/pick_place.py

The joint trajectory is the embedded simulator's plan (data/trajectories/pick_place.npz), replayed as drive targets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
STAGE, TRAJECTORY = ROOT / "data/stages/pick_place/scene.usda", ROOT / "data/trajectories/pick_place.npz"
TASK = "pick up the packet and drop it into the tray"


async def open_demo(trajectory: Path = TRAJECTORY) -> None:
    """Open the stage with the objects where the trajectory expects them (authored in the session layer)."""
    import numpy as np
    from pxr import Gf, Usd, UsdGeom

    from retake.isaac import autorun, kit

    await autorun.open_stage(STAGE)
    stage = kit.require("omni.usd").get_context().get_stage()
    with np.load(trajectory, allow_pickle=False) as data, Usd.EditContext(stage, stage.GetSessionLayer()):
        for path, T in zip(data["object_paths"], data["T_world_object"], strict=True):
            prim = UsdGeom.Xformable(stage.GetPrimAtPath(str(path)))
            scale = Gf.Transform(prim.GetLocalTransformation()).GetScale()
            matrix = Gf.Matrix4d().SetScale(scale) * Gf.Matrix4d(*T.T.reshape(-1).tolist())
            prim.MakeMatrixXform().Set(matrix)


async def main(output: Path, options: Mapping[str, Any] | None = None, **changes: Any) -> int:
    """Record and generate; returns the exit code. `options` and `changes`: those of an autorun file that differ."""
    from retake.isaac import autorun
    from retake.isaac.request import CaptureRequest

    await open_demo()
    request = CaptureRequest(output=str(output), cameras=("/World/Camera",), task=TASK, mode="stepped")
    return await autorun.run(replace(request, **changes), {"trajectory": str(TRAJECTORY), **(options or {})})


if __name__ == "__main__":
    if "omni.kit.app" in sys.modules:
        tasks = [asyncio.ensure_future(main(ROOT / "runs/isaac_demo"))]
    else:
        from retake.isaac.standalone import run_in_app

        sys.exit(run_in_app(lambda: main(ROOT / "runs/isaac_demo")))
