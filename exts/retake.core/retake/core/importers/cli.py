# SPDX-License-Identifier: Apache-2.0
"""`retake import FORMAT SOURCE --run RUN`: recorded episodes enter the arrow as a run folder with an Episode in it."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from retake.core import plugins
from retake.core.config import RunConfig
from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.files import owner_tag
from retake.core.run_reader import MANIFEST
from retake.core.run_store import create_run, missing_folders, remove_traces, tidy

FORMATS = {
    "oscar": ("oscar:import_oscar", "episode_meta.npz + rgb.mp4, and the robot's URDF", ""),
    "lerobot": ("lerobot_cli:import_command", "a LeRobot dataset, real or simulated", "lerobot_cli:parser"),
    "sage": ("sage:import_sage", "a joint log of SAGE (control.csv, state_motor.csv)", "sage:parser"),
    "isaaclab": ("isaaclab:import_isaaclab", "Isaac Lab HDF5 demonstrations", "isaaclab:parser"),
    "episode-recorder": (
        "episode_recorder:import_episode_recorder", "Isaac Sim's episode-recorder files", "episode_recorder:parser",
    ),
}  # fmt: skip
"""Format: its reader in this folder, what it is, and what parses its own arguments ("": it has none)."""


def main(argv: list[str]) -> int:
    """Run the command. Raises InputError and EpisodeError in words."""
    epilog = "\n".join(f"  {name:<18}{text}" for name, (_, text, _) in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="retake import",
        description="A recorded episode becomes a run folder that the rest of the arrow accepts.",
        epilog=f"formats:\n{epilog}\n\n`retake import FORMAT --help` shows the options of one format, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("format", choices=sorted(FORMATS), metavar="FORMAT", help=", ".join(sorted(FORMATS)))
    parser.add_argument("source", type=Path, help="folder or file to import")
    parser.add_argument("--run", type=Path, required=True, help="new run folder")
    parser.add_argument("--urdf", type=Path, help="robot description, where the format has none")
    if asked := _help_asked(argv):
        print(parser.format_help())
        if own := FORMATS[asked][2]:
            shown = _part(own)().format_help().partition("\noptions:\n")[2]
            print(f"options of {asked}:\n{shown}".rstrip())
        return 0
    options, rest = parser.parse_known_args(argv)
    if options.format == "oscar" and rest:
        parser.error(f"unknown arguments {rest}")
    read = _part(FORMATS[options.format][0], "video" if options.format == "oscar" else "export")
    if not options.source.exists():
        raise InputError(f"{options.source} does not exist; expected {FORMATS[options.format][1]}")
    new, bare = missing_folders(options.run), not (options.run / MANIFEST).exists()
    run = create_run(options.run, RunConfig().to_json())
    more = {} if options.format == "oscar" else {"arguments": rest}
    try:
        with run.locked():
            tidy(run)
            # A killed import leaves a temporary that the next one clears, and no half of an episode. Not `atomic_directory`: a
            # reader refuses a folder that is there.
            temporary = run.path / f".episode.{owner_tag()}.tmp"
            try:
                if run.episode.exists():
                    raise InputError(f"{run.path} holds an episode already; choose another --run (nothing was changed)")
                read(options.source, temporary, urdf=options.urdf, **more)
                temporary.rename(run.episode)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                if bare:  # a run without an episode would be simulated by `retake run`
                    (run.path / MANIFEST).unlink(missing_ok=True)
                raise
            episode = open_episode(run.episode)
    except BaseException:
        remove_traces(run.path, new)
        raise
    cameras = [camera.name for camera in episode.header.cameras]
    print(
        f"episode: {episode.path} ({len(episode)} frames, cameras: {', '.join(cameras) or 'none'})\nnext: retake check {run.path}"
    )
    return 0


def _part(name: str, extra: str = "export") -> Any:
    """A reader or a parser of this folder."""
    return plugins.load(f"retake.core.importers.{name}", extra=extra)


def _help_asked(argv: list[str]) -> str:
    """The format whose options are asked for, if any."""
    named = [word for word in argv if word in FORMATS]
    return named[0] if named and {"-h", "--help"} & set(argv) else ""
