# SPDX-License-Identifier: Apache-2.0
"""Everything that is read of the stages of this repository, and the picture of their robots, against what was read before: a
reading that changes by accident is seen.

`python tests/test_usd_golden.py` writes it anew where a reading was changed on purpose.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

pytest.importorskip("pxr")
import usd_stages
from pxr import Usd

from retake.core.errors import RetakeError
from retake.usd.articulation import find_articulations, read_articulations
from retake.usd.bodies import find_objects, scenery_group
from retake.usd.camera import is_animated, read_animated_camera, read_camera, usable_cameras
from retake.usd.instances import instance_table
from retake.usd.joints import actuated_joints, loose_joints, read_edges
from retake.usd.robot_picture import draw_robots
from retake.usd.shapes import link_box, link_outline, link_points
from retake.usd.si import si_stage
from retake.usd.stage import label_of, notable_prims, open_stage
from retake.usd.units import StageUnits

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden" / "usd" / "stages.json"
SHARE = 1e-5
CELL = 20
"""Pixels of a robot's picture that are one cell in the golden one."""
STAGES: dict[str, Callable[[], Usd.Stage]] = {
    **{path.stem: (lambda path=path: open_stage(path)) for path in sorted((TESTS / "stages").glob("*.usd*"))},
    "pick_place": lambda: open_stage(usd_stages.PICK_PLACE),
    "sixaxis": lambda: open_stage(usd_stages.SIXAXIS),
    "pendulum in centimetres": lambda: usd_stages.pendulum(0.01, 1.0, "Y"),
    "pendulum of grams": lambda: usd_stages.pendulum(1.0, 0.001, reverse=True),
}


def tried(read: Callable[[], Any]) -> Any:
    """What is read, or in which words it is refused."""
    try:
        return read()
    except RetakeError as error:
        return re.sub(r"/\S*/stages/", "", f"{type(error).__name__}: {str(error).splitlines()[0]}")


def reading(stage: Usd.Stage) -> dict[str, Any]:
    units = StageUnits.of(stage)
    robots = tried(lambda: read_articulations(stage))
    found = find_articulations(stage)
    links = [link.prim_path for robot in (() if isinstance(robots, str) else robots) for link in robot.spec.links]
    usable = tried(lambda: usable_cameras(stage))
    cameras, left_out = ((), usable) if isinstance(usable, str) else usable
    edges = enumerate(read_edges(stage, units))
    out: dict[str, Any] = {
        "units": units, "robots": robots, "refused": found.refused, "notes": found.notes,
        "objects": tried(lambda: find_objects(stage)),
        "edges": {f"{k} {e.kind}": [list(e.bodies), e.frames, e.axis, e.drive, e.problem] for k, e in edges},
        "loose": loose_joints(stage), "driven": sorted(actuated_joints(stage)), "left out": left_out,
        "labels": {str(p.GetPath()): [label_of(p), str(scenery_group(p).GetPath())] for p in notable_prims(stage)},
        "boxes": {path: link_box(stage, path, units) for path in links},
        "points": {path: link_points(stage, path, units) for path in links},
        "outlines": {path: link_outline(stage, path, units) for path in links},
        "cameras": {str(p.GetPath()): tried(lambda p=p: read_camera(p, (64, 48))) for p in cameras},
        "moving": {
            str(p.GetPath()): tried(lambda p=p: read_animated_camera(p, (64, 48), 10.0, 4)) for p in cameras if is_animated(p)
        },
    }  # fmt: skip
    if not isinstance(robots, str):
        picture = draw_robots(stage, robots).astype(np.float32)
        cells = (max(picture.shape[1] // CELL, 1), max(picture.shape[0] // CELL, 1))
        out["picture"] = cv2.resize(picture, cells, interpolation=cv2.INTER_AREA)
        objects = out["objects"]
        if not isinstance(objects, str):
            out["instances"] = tried(
                lambda: instance_table(stage, [r.spec for r in robots], [o.spec for o in objects.objects])
            )
    si = tried(lambda: si_stage(stage)) if units.metres_per_unit != 1 or units.kilograms_per_unit != 1 else ""
    if not isinstance(si, str):
        out["in SI units"] = tried(lambda: read_articulations(si))
    return summed_up(out)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_read_as_it_was(name: str) -> None:
    assert not compare(reading(STAGES[name]()), load(GOLDEN)[name], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {name: reading(make()) for name, make in STAGES.items()})
    sys.exit(0)
