# SPDX-License-Identifier: Apache-2.0
"""The declarations in data/robots: short, readable, and right on the robots of the zoo where it is there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from retake.core.ends import declare, load_declarations

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "data" / "robots").glob("*.robot.yaml"))
ZOO = ROOT / ".zoo" / "robots"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.name.split(".")[0])
def test_an_example_is_short_and_says_what_the_robots_description_says(file):
    (declaration,) = load_declarations(file)
    lines = [line for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 10
    name = file.name.removesuffix(".robot.yaml")
    folder = ZOO / name
    if not (folder / "converted.json").is_file():
        pytest.skip(f"the zoo has no {name} here (make zoo)")
    pytest.importorskip("pxr")
    from retake.usd.articulation import find_articulations
    from retake.usd.stage import open_stage

    stage = open_stage(folder / "stage" / json.loads((folder / "converted.json").read_text("utf-8"))["stage"])
    found = find_articulations(stage).robots[0].spec
    (robot,) = declare([found], [declaration])
    ends = [{"link": end.ee_link, "kind": end.kind, "T": end.T_link_ee.tolist()} for end in robot.grippers]
    right, degrees, why = _proof().judge_ends(ends, _proof().zoo.truth_of_ends()[name])
    assert right, why
    assert (degrees or 0.0) < 2
    for end in robot.grippers:
        assert end.note.startswith("declared in")
        for joint, *positions in zip(end.finger_joints, end.open_position, end.closed_position, strict=True):
            limits = robot.dof_joints[robot.dof_index(joint)]
            assert all(limits.lower - 1e-3 <= q <= limits.upper + 1e-3 for q in positions), joint
        q = np.zeros((1, len(robot.dof_names)))
        assert 0 <= float(robot.gripper_openness(q)[0, 0]) <= 1


def test_there_are_examples_of_every_kind():
    ends = [end for file in EXAMPLES for d in load_declarations(file) for end in d.ends or ()]
    assert {0, 1, 3} <= {len(end.joints or ()) for end in ends}
    assert any(end.frame for end in ends)
    assert any(end.translation_m for end in ends)


def _proof():
    spec = importlib.util.spec_from_file_location("prove_robots", ROOT / "scripts" / "prove" / "robots.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
