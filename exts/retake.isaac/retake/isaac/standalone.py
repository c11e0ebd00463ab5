# SPDX-License-Identifier: Apache-2.0
"""Headless recording from a script of your own, with SimulationApp:

    ./python.sh -m retake.isaac.standalone config/autorun.yaml          # from the checkout, PYTHONPATH=exts/…

`SimulationApp` must exist before anything of Kit is imported, so this file imports Retake's adapters late.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from retake.core.errors import MissingDependencyError
from retake.isaac.kit import WHERE, optional


def simulation_app(*, headless: bool = True, width: int = 1280, height: int = 720) -> Any:
    """A SimulationApp of this Isaac Sim. Raises MissingDependencyError elsewhere."""
    for name in ("isaacsim", "omni.isaac.kit"):
        module = optional(name)
        if module is not None and hasattr(module, "SimulationApp"):
            return module.SimulationApp({"headless": headless, "width": width, "height": height})
    raise MissingDependencyError(f"SimulationApp cannot be imported here; {WHERE}")


def main(argv: list[str] | None = None) -> int:
    """Run one autorun file and close the application; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python.sh -m retake.isaac.standalone", description=__doc__)
    parser.add_argument("config", type=Path, help="autorun YAML, see config/autorun.yaml")
    parser.add_argument("--window", action="store_true", help="show the application's window")
    options = parser.parse_args(argv)
    app = simulation_app(headless=not options.window)
    code = 1
    try:
        from retake.isaac import autorun, kit, writer

        for extension in ("omni.replicator.core", "omni.physx"):
            kit.enable_extension(extension)
        writer.register()
        app.run_coroutine(_store(autorun.run_file(options.config), codes := []))
        code = codes[0] if codes else 1
    finally:
        # fast_shutdown may end the process inside close(): the exit code must be out before.
        sys.stdout.write(f"retake: exit code {code}\n")
        sys.stdout.flush()
        app.close()
    return code


async def _store(coroutine: Any, codes: list[int]) -> None:
    codes.append(await coroutine)


if __name__ == "__main__":
    sys.exit(main())
