# SPDX-License-Identifier: Apache-2.0
"""A script that steps its World itself, with Retake recording beside it: one episode per reset.

    PYTHONPATH=exts/retake.core:exts/retake.usd:exts/retake.isaac ~/isaac-sim/python.sh exts/retake.isaac/examples/own_loop.py

Then `retake run --run runs/own_loop/000` makes variants and takes of the first episode. World is that of
isaacsim.core.api (4.5 to 6.x, deprecated there) or omni.isaac.core (4.2); scripts without one pass None and call
`recording.frame()` after each update.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def world() -> Any:
    """The World of this Isaac Sim."""
    from retake.isaac import kit

    module = kit.optional("isaacsim.core.api") or kit.require("omni.isaac.core")
    return module.World()


def main(app: Any, output: Path, episodes: int = 2, steps: int = 330, **settings: Any) -> list[Any]:
    """Record the demo's motion so many times; returns the episodes."""
    from retake.isaac import record
    from retake.isaac.autorun import Trajectory
    from retake.isaac.standalone import run_coroutine

    sys.path.insert(0, str(Path(__file__).parent))
    from pick_place import TASK, TRAJECTORY, open_demo  # type: ignore[import-not-found]

    run_coroutine(app, open_demo())
    mine = world()
    with record(mine, output=output, cameras="/World/Camera", task=TASK, **settings) as recording:
        for _ in range(episodes):
            mine.reset()
            assert recording.capture is not None
            motion = Trajectory.load(TRAJECTORY, recording.capture)
            for _ in range(steps):
                motion.command()
                mine.step(render=True)
    return recording.episodes


if __name__ == "__main__":
    from retake.isaac import leaving, standalone

    application = standalone.simulation_app()
    code = 1
    try:
        print(*main(application, ROOT / "runs/own_loop"), sep="\n")
        code = 0
    finally:
        leaving.leave(application, code)
