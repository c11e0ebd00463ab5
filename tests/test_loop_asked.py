# SPDX-License-Identifier: Apache-2.0
"""What of a closed loop's looks and settings contradicts itself is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retake.core.errors import InputError
from retake.loop.cli import overrides_of, parser
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
