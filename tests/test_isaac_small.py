# SPDX-License-Identifier: Apache-2.0
"""Small parts of the capture in Isaac Sim: command lines that carry Kit's settings, and rows of physics found by path or name."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from retake.core.errors import StageError
from retake.core.robot import LinkSpec, RobotSpec
from retake.isaac.standalone import options_of
from retake.isaac.tensors import _order

ROBOT = RobotSpec("arm", "/arm", (LinkSpec("base", "/arm/base"),), ())


def test_a_command_line_may_end_in_settings_of_kit_and_in_nothing_else(capsys) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--window", action="store_true")
    for argv, left in (([], []), (["--window", "--/a=1", "x"], ["--/a=1", "x"]), (["--/a=1"], ["--/a=1"])):
        options, arguments = options_of(parser, argv)
        assert (options.window, arguments) == ("--window" in argv, left)
    for argv in (["x"], ["x", "--/a=1"]):
        with pytest.raises(SystemExit) as ended:
            options_of(parser, argv)
        assert ended.value.code == 2
        assert "unrecognized argument: x" in capsys.readouterr().err


def test_rows_are_found_by_path_and_else_by_name() -> None:
    paths, names = ["/arm/a", "/arm/b"], ["a", "b"]
    assert _order(ROBOT, "link", paths, names, ["/arm/b", "/x", "/arm/a"], ["a", "b", "c"]).tolist() == [2, 0]
    found = _order(ROBOT, "link", paths, names, ["/other/a", "/other/b"], ["c", "b", "a"])
    assert np.array_equal(found, [2, 1])
    with pytest.raises(StageError, match=r"physics knows no link b; it has a, c"):
        _order(ROBOT, "link", paths, names, ["/x"], ["a", "c"])
    with pytest.raises(StageError, match="it has none"):
        _order(ROBOT, "link", paths, names, [], [])
    with pytest.raises(
        StageError, match="physics tells links by name, and two are named a, c; rename one of the prims"
    ):
        _order(ROBOT, "link", ["/1", "/2", "/3", "/4", "/5"], ["c", "a", "a", "b", "c"], [], ["a", "b", "c"])
