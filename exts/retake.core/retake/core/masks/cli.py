# SPDX-License-Identifier: Apache-2.0
"""`retake masks`: masks and depth for a recorded episode."""

from __future__ import annotations

import argparse
from pathlib import Path

from retake.core.episode import open_episode
from retake.core.masks.make import mask_episode
from retake.core.progress import Bar

_EPILOG = """
example:
  retake import --run runs/real oscar SAMPLE
  retake masks runs/real/episode --urdf robot.urdf --meshes MESH_FOLDER --out masked
  retake verify video.mp4 --episode masked

The robot's meshes are drawn at the recorded states. The camera's pose and one constant time offset are fitted to the
recording's own pictures first (K is kept; the camera must stand still); what was found, and how sure it is, is printed and
kept in the new episode's settings. Meshes: .obj or .stl, found by the names that the URDF gives.
"""


def main(argv: list[str]) -> int:
    """Make a masked copy of an episode; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="retake masks",
        description="Masks and depth for a recorded episode, from its robot's meshes at the recorded states.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("episode", type=Path, metavar="EPISODE", help="a recorded episode (`retake import`)")
    add("--urdf", type=Path, required=True, metavar="FILE", help="the robot, with its meshes")
    add("--meshes", type=Path, metavar="DIR", help="where its meshes are, at any depth (default: where the URDF says)")
    add("--out", type=Path, required=True, metavar="DIR", help="the new episode")
    add("--camera", metavar="NAME", help="which camera (default: the first)")
    add("--no-fit", action="store_true", help="keep the recorded calibration")
    options = parser.parse_args(argv)
    masked = mask_episode(
        open_episode(options.episode), options.out, options.urdf, options.meshes, camera=options.camera,
        fit=not options.no_fit, progress=Bar("masks"),
    )  # fmt: skip
    mask_record = masked.header.settings["masks"]
    found = mask_record["calibration"]
    if isinstance(found, dict):
        print(
            f"calibration: the robot moves by {found['moved_px']:.1f} ± {found['spread_px']:.1f} px in the image, "
            f"pictures show the states of {found['time_offset_frames']:+.2f} ± {found['spread']['time_frames']:.2f} frames; "
            f"agreement {found['agreement_before']:.2f} → {found['agreement']:.2f}"
        )
    else:
        print(f"calibration: {found}")
    if mask_record["links_without_surface"]:
        print(f"without a readable mesh: {', '.join(mask_record['links_without_surface'])}")
    return 0
