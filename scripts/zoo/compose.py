# SPDX-License-Identifier: Apache-2.0
"""A robot and a tool from two MJCF files as one: the tool's root body hangs on a body of the robot.

Runs in the zoo's environment (MuJoCo attaches); `make zoo` calls it for the robots whose `file` names both.

A linkage that the tool leaves to tendons is given as couplings instead: FOLLOWER=LEADER or FOLLOWER=-LEADER.

usage: compose.py ARM.xml BODY TOOL.xml OUT.xml [COUPLING …]      writes OUT.xml, with both models' meshes beside it
"""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import mujoco

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "exts/retake.newton/retake/newton"))
import converter_host


def compose(arm_file: Path, body: str, tool_file: Path, written: Path, couplings: Sequence[str] = ()) -> None:
    """Write the file. Raises ValueError naming the arm's bodies when `body` is none of them."""
    arm, tool = _read(arm_file), _read(tool_file)
    stated = ET.parse(tool_file).getroot().findall("compiler")
    if not any(c.get("angle") for c in stated):
        tool.compiler.degree = arm.compiler.degree  # a part that is meant to be merged is read as the whole is
    place = arm.body(body)
    if place is None:
        raise ValueError(f"{arm_file} has no body {body!r}; it has {', '.join(b.name for b in arm.bodies)}")
    roots, out = list(tool.worldbody.bodies), written.parent
    if len(roots) != 1:
        raise ValueError(f"{tool_file} has {len(roots)} root bodies; expected one that is attached")
    out.mkdir(parents=True, exist_ok=True)
    for file, spec in ((arm_file, arm), (tool_file, tool)):
        for number, mesh in enumerate([*spec.meshes, *spec.textures]):
            if not mesh.file:
                continue
            folder = spec.texturedir if hasattr(mesh, "cubefiles") else spec.meshdir
            source = file.parent / folder / mesh.file
            kept = f"{file.stem}_{number}{source.suffix}"
            shutil.copyfile(source, out / kept)
            mesh.file = kept
        spec.meshdir, spec.texturedir, spec.modelfiledir = "", "", str(out)
    if couplings:
        for tendon in list(tool.tendons):
            tool.delete(tendon)
    for coupling in couplings:
        follower, leader = coupling.split("=")
        equality = tool.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT)
        equality.name1, equality.name2 = follower, leader.lstrip("-")
        equality.data[1] = -1.0 if leader.startswith("-") else 1.0
    place.add_frame().attach_body(roots[0], "tool_", "")
    arm.modelname = written.stem
    arm.compile()
    written.write_text(arm.to_xml(), encoding="utf-8")


def _read(file: Path) -> mujoco.MjSpec:
    readable, _ = converter_host.mended_mjcf(file)
    try:
        return mujoco.MjSpec.from_file(str(readable))
    finally:
        if readable != file:
            readable.unlink()


if __name__ == "__main__":
    compose(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
