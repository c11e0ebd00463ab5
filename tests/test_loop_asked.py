# SPDX-License-Identifier: Apache-2.0
"""Looks and settings of a closed loop: what contradicts itself is refused in words, and where distractors may stand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from retake.core.errors import InputError
from retake.core.geometry import axis_angle
from retake.core.variants.roles import SURFACE
from retake.loop.cli import overrides_of, parser
from retake.loop.dressing import _places
from retake.loop.looks import load_looks

CHECKER = {"kind": "checker", "colours": ["#000000", "#ffffff"]}


def test_a_part_has_a_colour_or_a_texture(tmp_path: Path) -> None:
    """Named with both it would have had neither; what a combined look brings gives way."""
    file = tmp_path / "looks.yaml"
    looks = {"red": {"colours": {"surface": "#ff0000"}}, "both": {"combine": ["red"], "textures": {"surface": CHECKER}}}
    file.write_text(yaml.safe_dump({"looks": looks}, sort_keys=False), encoding="utf-8")
    both = load_looks([file])["both"]
    assert (set(both.textures), set(both.colours)) == ({"surface"}, set())
    looks["both"]["colours"] = {"robot": "#00ff00", "surface": "#00ff00"}
    file.write_text(yaml.safe_dump({"looks": looks}, sort_keys=False), encoding="utf-8")
    with pytest.raises(InputError, match="look 'both': surface has a colour and a texture; choose one"):
        load_looks([file])


def test_a_setting_is_a_value_or_holds_others() -> None:
    given = parser().parse_args(["--policy", "hold", "--out", "x", "--set", "randomise=0", "randomise.friction=1"])
    with pytest.raises(InputError, match=r"--set 'randomise.friction=1': randomise was given a value of its own"):
        overrides_of(given)


@pytest.mark.parametrize("turn_deg", [0.0, 90.0, 180.0])
def test_distractors_keep_clear_of_an_object_whose_origin_is_beside_it(turn_deg: float) -> None:
    """Its middle turns with it."""
    T = np.eye(4)
    T[:3, :3] = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(np.radians(turn_deg)))
    there = T[:2, :2] @ [0.4, 0.0]
    across = np.linspace(-0.6, 0.6, 61)
    grid = np.stack(np.meshgrid(across, across, [0.0], indexing="ij"), -1).reshape(-1, 3)
    bin_ = SimpleNamespace(center_m=(0.4, 0.0, 0.0), size_m=(0.2, 0.2, 0.1))
    source: Any = SimpleNamespace(
        instance_ids=np.zeros((61, 61), np.uint16),
        depth_m=np.ones((61, 61), np.float32),
        camera=SimpleNamespace(unproject=lambda uv, depth: grid),
        header=SimpleNamespace(objects=(bin_,)),
        T_world_object=T[None],
    )
    roles: Any = SimpleNamespace(role=np.array([SURFACE]))
    places = _places(roles, source, (), 40, np.random.default_rng(0))
    assert len(places) > 20
    assert min(np.linalg.norm(place - there) for place in places) > 0.13 / 2 + 0.1
