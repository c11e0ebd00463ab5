# SPDX-License-Identifier: Apache-2.0
"""A user's motion file: read as documented, and told by the row where it is not one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from retake.core.errors import InputError
from retake.core.joint_motion import read_motion


def csv(tmp_path, text: str):
    (tmp_path / "m.csv").write_text(text, "utf-8")
    return read_motion(tmp_path / "m.csv")


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "m.npz", **arrays)
    return read_motion(tmp_path / "m.npz")


def test_both_forms_hold_the_same_motion(tmp_path):
    wanted = np.array([[0.1, 0.2], [0.3, -0.4], [0.5, 0.6]])
    table = csv(tmp_path, "\ufeff# by hand\n time_s , a,panda/b\n0,0.1,0.2\n\n  # a pause\n0.5,0.3,-0.4\n1.5,0.5,0.6\n")
    arrays = npz(tmp_path, time_s=[0, 0.5, 1.5], joint_names=["a", "panda/b"], joint_position=wanted)
    for motion in (table, arrays):
        assert motion.names == ("a", "panda/b")
        assert motion.time_s.tolist() == [0.0, 0.5, 1.5]
        assert np.array_equal(motion.position, wanted)
    assert csv(tmp_path, "time,a\n3,1\n").names == ("a",)
    assert npz(tmp_path, time_s=[0.0], joint_names="a", joint_position=[[1.0]]).position.tolist() == [[1.0]]


def test_a_motion_that_begins_before_zero_begins_at_zero_and_a_later_one_waits(tmp_path):
    assert csv(tmp_path, "time_s,a\n-2,1\n-1.5,2\n").time_s.tolist() == [0.0, 0.5]
    assert csv(tmp_path, "time_s,a\n2,1\n3,2\n").time_s.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "the header must begin with time_s, found ''"), ("# only\n", "found ''"), ("a,time_s\n1,2\n", "found 'a'"),
     ("time_s,a\n0,1\n1\n", "row 3 has 1 values, the header names 2"),
     ("time_s,a\n0,1,2\n", "row 2 has 3 values, the header names 2"), ("time_s,a\n0,x\n", "could not convert"),
     ("time_s,a\n", "joint_position (0, 1) for time_s (0,) and 1 joints"), ("time_s\n0\n", "and 0 joints"),
     ("time_s,a\n0,nan\n", "a value is not a finite number"), ("time_s,a\ninf,1\n", "a value is not a finite number"),
     ("time_s,a\n1,1\n1,2\n", "time_s must increase"), ("time_s,a\n1,1\n0.5,2\n", "time_s must increase"),
     ("time_s,b,a,b\n0,1,2,3\n", "joint 'b' has two columns")],
)  # fmt: skip
def test_what_is_no_motion_says_where_it_is_wrong(tmp_path, text, told):
    with pytest.raises(InputError, match=re.escape(told)):
        csv(tmp_path, text)


def test_arrays_that_do_not_fit_each_other_are_told_by_their_shapes(tmp_path):
    names = {"joint_names": ["a"]}
    for arrays, told in (
        (
            {**names, "time_s": [0.0, 1], "joint_position": [[1.0]]},
            "joint_position (1, 1) for time_s (2,) and 1 joints",
        ),
        ({**names, "time_s": [[0.0]], "joint_position": [[1.0]]}, "for time_s (1, 1)"),
        ({**names, "time_s": [0.0], "joint_position": [1.0]}, "joint_position (1,)"),
        ({"time_s": [0.0], "joint_position": [[1.0]]}, "KeyError"),
        ({**names, "time_s": [0.0], "joint_position": np.array([[None]])}, "allow_pickle=False"),
    ):
        with pytest.raises(InputError, match=re.escape(told)):
            npz(tmp_path, **arrays)
    np.save(tmp_path / "one.npy", np.zeros((2, 3)))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InputError, match=re.escape("one array (2, 3) without a name; expected a .csv")):
        read_motion(tmp_path / "one.npz")
    with pytest.raises(InputError, match="does not exist"):
        read_motion(tmp_path / "none.csv")
