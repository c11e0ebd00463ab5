# SPDX-License-Identifier: Apache-2.0
"""Headless recording from a script of your own, with SimulationApp:

    ~/isaac-sim/python.sh -m retake.isaac.standalone config/autorun.yaml       # from the checkout, PYTHONPATH=exts/…

Arguments of Kit may follow (`--/exts/retake.isaac/fps=30`, `--allow-root`). `SimulationApp` must exist before anything of Kit is
imported, so this file imports Retake's adapters late.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from retake.core.errors import MissingDependencyError, RetakeError
from retake.isaac.kit import WHERE, optional
from retake.isaac.leaving import leave, say


def simulation_app(*, headless: bool = True, width: int = 1280, height: int = 720) -> Any:
    """A SimulationApp of this Isaac Sim. Raises MissingDependencyError elsewhere."""
    for name in ("isaacsim", "omni.isaac.kit"):
        module = optional(name)
        if module is not None and hasattr(module, "SimulationApp"):
            return module.SimulationApp({"headless": headless, "width": width, "height": height})
    raise MissingDependencyError(f"SimulationApp cannot be imported here; {WHERE}")


def run_in_app(
    make: Callable[[], Awaitable[int]], *, headless: bool = True, arguments: Sequence[str] | None = None
) -> int:
    """Start a SimulationApp, run a coroutine that returns an exit code, close. Raises MissingDependencyError elsewhere.

    A coroutine that raises is an exit code, too: 2 or what its RetakeError says, 1 with a traceback for anything else.
    `arguments`: what Kit is given of the command line; None = all of it, as SimulationApp does.
    """
    before = sys.argv
    if arguments is not None:
        sys.argv = [*before[:1], *arguments]  # SimulationApp hands every argument on to Kit, ours included
    try:
        app = simulation_app(headless=headless)
    finally:
        sys.argv = before
    code = 1
    try:
        from retake.isaac import autorun, kit, writer
        from retake.isaac.tensors import engine

        kit.enable_extension("omni.replicator.core")
        if engine() == "physx":  # another engine's application has it switched off on purpose
            kit.enable_extension("omni.physx")
        undo = writer.register()
        codes: list[int] = []

        async def whole() -> None:
            codes.append(await autorun.exit_code_of(make()))

        run_coroutine(app, whole())
        undo()
        code = codes[0] if codes else 1
    except RetakeError as error:  # said here: leaving may end the process before anybody else could
        say(f"error: {error}")
        code = error.exit_code
    except Exception:
        say(f"defect: {traceback.format_exc()}")
    finally:
        leave(app, code)
    return code


def run_coroutine(app: Any, work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on Kit's loop, which turns once per update."""
    if hasattr(app, "run_coroutine"):
        app.run_coroutine(work)
        return
    task = asyncio.ensure_future(work)  # 4.x
    while not task.done():
        app.update()
    task.result()


def main(argv: list[str] | None = None) -> int:
    """Run one autorun file and close the application; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python.sh -m retake.isaac.standalone", description=__doc__)
    parser.add_argument("config", type=Path, help="autorun YAML, see config/autorun.yaml")
    parser.add_argument("--window", action="store_true", help="show the application's window")
    options, arguments = options_of(parser, argv)

    async def whole() -> int:
        from retake.isaac import autorun

        return await autorun.run_file(options.config)

    return run_in_app(whole, headless=not options.window, arguments=arguments)


def options_of(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """(our options, Kit's arguments) of a command line: settings (`--/path=value`) and Kit's flags with their values. Ends the
    process with usage and code 2 where the first argument left over is no flag."""
    options, arguments = parser.parse_known_args(argv)
    if arguments and not arguments[0].startswith("-"):
        parser.error(f"unrecognized argument: {arguments[0]}")
    return options, arguments


def exit_code_of_command(main: Callable[[list[str]], int]) -> int:
    """The exit code of a command line; an error that teaches is a line on stderr, no traceback."""
    try:
        return main(sys.argv[1:])
    except RetakeError as error:
        sys.stderr.write(f"retake: error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(exit_code_of_command(main))
