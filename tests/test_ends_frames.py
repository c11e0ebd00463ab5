# SPDX-License-Identifier: Apache-2.0
"""Trees, frames, openings and declarations of end effectors, on robots whose every length is a round number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retake.core.ends import declaration as told
from retake.core.ends.declaration import EndDeclaration, RobotDeclaration, declare
from retake.core.ends.describe import _gripper
from retake.core.ends.frames import (
    ends_of,
    flexion,
    frame,
    leaders,
    nearest_axes,
    own_axes,
    part_opening,
    snapped,
    tip,
    tips,
    unit,
)
from retake.core.ends.tree import Tree
from retake.core.errors import InputError
from retake.core.geometry import axis_angle
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, Mimic, RobotSpec

X, Y, Z = np.eye(3)
EYE = np.eye(4)


def at(x: float, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = (x, y, z)
    return T


def joint(name, kind, parent, child, axis, T=EYE, lower=-1.0, upper=1.0, **more) -> JointSpec:
    return JointSpec(name, kind, parent, child, tuple(map(float, axis)), T, EYE, lower, upper, **more)


def robot(*joints: JointSpec) -> RobotSpec:
    """base 0, arm 1, palm 2 (fixed to the arm), left 3, right 4, tip 5 (after left), tcp_frame 6 (fixed to the palm)."""
    names = ("base", "arm", "palm", "left", "right", "tip", "tcp_frame")
    made = (
        joint("turn", "revolute", 0, 1, Z, at(0, 0, 1)),
        joint("weld", "fixed", 1, 2, X, at(0, 0, 1)),
        joint("open_left", "prismatic", 2, 3, Y, at(0, 0.1, 0), 0.0, 0.2),
        joint("open_right", "prismatic", 2, 4, Y, at(0, -0.1, 0), -0.2, 0.0, mimic=Mimic("open_left", -1.0, 0.0)),
        joint("curl", "revolute", 3, 5, X, at(0, 0, 0.5), 0.5, 1.5),
        joint("place", "fixed", 2, 6, X, at(0, 0, 2)),
    )
    by_name = {j.name: j for j in (*made, *joints)}
    return RobotSpec("r", "/r", tuple(LinkSpec(n, f"/r/{n}") for n in names), tuple(by_name.values()))


POINTS = {0: [[0, 0, 0], [1, 0, 0]], 2: [[0, 0, 0.4]], 3: [[0, 0, 1], [0, 0, 3]], 6: [[9, 9, 9]]}


def tree(*joints: JointSpec, base: np.ndarray | None = None) -> Tree:
    return Tree(robot(*joints), lambda link: np.array(POINTS.get(link, np.zeros((0, 3))), float), base)


def test_links_without_a_movable_joint_between_them_are_one_group():
    own = tree()
    assert own.group_of == (0, 1, 1, 3, 4, 5, 1)
    assert own.groups == (0, 1, 3, 4, 5)
    assert own.links(1) == [1, 2, 6]
    assert own.dof_of == {0: 0, 2: 1, 3: 2, 4: 3}
    assert own.rest.tolist() == [0, 0, 0, 0.5], "zero, or the limit nearest to it"
    (whole,) = own.branches(0)
    assert (whole.joint, whole.group, whole.groups, whole.joints) == (0, 0, (1, 3, 4, 5), (0, 2, 3, 4))
    left, right = own.branches(1)
    assert (left.joint, left.groups, left.joints) == (2, (3, 5), (2, 4))
    assert (right.joint, right.groups, right.joints) == (3, (4,), (3,))
    assert own.branches(5) == ()
    assert [own.parent_joint(g) for g in (0, 1, 3, 5)] == [None, 0, 2, 4]
    assert own.above(5) == [4, 2, 0]
    assert own.above(0) == []


def test_depth_counts_joints_in_a_row_that_follow_none():
    own = tree()
    (whole,), (left, right) = own.branches(0), own.branches(1)
    assert [own.depth(b) for b in (whole, left, right)] == [3, 2, 0]
    follows = tree(joint("curl", "revolute", 3, 5, X, at(0, 0, 0.5), 0.5, 1.5, mimic=Mimic("open_left", 1.0, 0.0)))
    assert [follows.depth(b) for b in (*follows.branches(0), *follows.branches(1))] == [2, 1, 0]


def test_places_of_a_tree_are_the_world_s_at_rest():
    own = tree(base=at(10))
    left, right = own.branches(1)
    assert own.origin(own.spec.joints[4]) == pytest.approx([10, 0.1, 2.5])
    assert own.axis(own.spec.joints[4]) == pytest.approx(X)
    assert own.points(3) == pytest.approx(np.array([[10, 0.1, 3], [10, 0.1, 5]]))
    assert own.points(4).shape == (0, 3)
    assert own.group_points(1) == pytest.approx(np.array([[10, 0, 2.4]])), "without what marks a place"
    assert own.group_points(4).shape == (0, 3)
    assert [own.is_helper(k) for k in (2, 6)] == [False, True]
    assert own.extent(left) == pytest.approx(np.array([[10, 0.1, 3], [10, 0.1, 5], [10, 0.1, 2], [10, 0.1, 2.5]]))
    assert (own.reach(left), own.reach(right)) == pytest.approx((3, 0))
    assert own.names(left) == {"left", "tip", "open", "curl", "open_left"} - {"open_left"}
    assert own.seen
    assert not Tree(robot(), lambda link: np.zeros((0, 3))).seen


def test_fingers_end_where_their_farthest_link_has_its_middle():
    own = tree()
    left, right = own.branches(1)
    link, place = tip(own, left)
    assert (link, place.tolist()) == (3, [0, 0, 2])
    assert tip(own, right)[0] == 4
    assert tips(own, (left, right), own.rest) == pytest.approx(np.array([[0, 0.1, 4], [0, -0.1, 2]]))
    # Turned with the arm the ends stay where they are, as the palm sees them; the right finger follows the left one.
    q = np.array([0.7, 0.05, 0.0, 0.5])
    assert tips(own, (left, right), q) == pytest.approx(np.array([[0, 0.15, 4], [0, -0.15, 2]]))


def test_fingers_are_open_where_they_are_farthest_apart():
    own = tree()
    left, right = own.branches(1)
    both, sides = (2, 3), np.array([1.0, -1.0])
    found = part_opening(own, (left, right), both, Y, sides)
    assert (found.joints, found.opened, found.closed, found.measured) == ((2,), (0.2,), (0.0,), True)
    found = part_opening(own, (left, right), both, -Y, sides)
    assert (found.opened, found.closed) == ((0.0,), (0.2,))
    found = part_opening(own, (left, right), (2, 4), Y, sides)
    assert found.joints == (2,), "a joint that parts them by less than a fiftieth is none of these"
    across = part_opening(own, (left, right), both, X, sides)
    assert (across.joints, across.opened, across.closed, across.measured) == ((2,), (0.2,), (0.0,), False)
    none = part_opening(own, (left, right), (), Y, sides)
    assert (none.joints, none.measured) == ((), False)


def test_the_joints_that_move_others_are_their_leaders():
    own = tree()
    assert leaders(own, (3, 2, 4)) == (2, 4)
    loop = tree(joint("open_left", "prismatic", 2, 3, Y, at(0, 0.1, 0), 0.0, 0.2, mimic=Mimic("open_right", -1.0, 0.0)))
    assert leaders(loop, (2,)) == (3,), "two that follow each other"
    passive = tree(joint("curl", "revolute", 3, 5, X, at(0, 0, 0.5), 0.5, 1.5, driven=False))
    assert leaders(passive, (2, 4)) == (2,)
    assert leaders(passive, (4,)) == (4,), "unless nothing is driven"
    free = tree(
        joint("curl", "revolute", 3, 5, X, EYE, -np.inf, np.inf),
        joint("open_left", "prismatic", 2, 3, Y, EYE, -np.inf, 0.1),
    )
    assert ends_of(free, 4) == (-np.pi, np.pi)
    assert ends_of(free, 2) == (-0.05, 0.1)


def test_a_finger_is_closed_at_the_end_farther_from_straight():
    def curled(lower: float, upper: float):
        own = tree(joint("curl", "revolute", 3, 5, X, at(0, 0, 0.5), lower, upper))
        found = flexion(own, own.branches(1))
        return dict(zip(found.joints, zip(found.opened, found.closed, strict=True), strict=True)).get(4)

    assert curled(0.5, 1.5) == (0.5, 1.5)
    assert curled(-1.5, 0.2) == (0.2, -1.5)
    assert curled(0.3, 0.3) is None, "it has no travel"


@pytest.mark.parametrize("opening", [Y, -Y])
def test_a_frame_s_axes_are_the_link_s_own_renamed(opening):
    R = axis_angle(Z, 0.3)
    assert nearest_axes(R, np.array([0.2, 0.1, 0.9]), opening).tolist() == np.eye(3).tolist()
    turned = nearest_axes(np.eye(3), -Z, X)
    assert turned[:, 2].tolist() == [0, 0, -1]
    assert np.abs(turned[:, 1]).tolist() == [1, 0, 0]
    assert np.linalg.det(turned) == pytest.approx(1)
    along = nearest_axes(np.eye(3), X, None)
    assert along[:, 2].tolist() == [1, 0, 0]
    assert along[:, 1].tolist() == [0, 1, 0], "a quarter of a turn about the link's own y"


def test_directions_give_way_to_each_other_and_snap_to_what_was_meant():
    assert unit(np.array([0, 3.0, 4])) == pytest.approx([0, 0.6, 0.8])
    assert unit(np.zeros(3)).tolist() == [0, 0, 0]
    found = frame(np.array([0, 2.0, 0]), np.array([0, 1.0, 1]))
    assert found == pytest.approx(np.eye(3))
    assert frame(Y, Y)[:, 1] == pytest.approx(Y)
    assert np.linalg.det(frame(Y, Y)) == pytest.approx(1)
    near, far = np.radians([29.5, 30.5])
    axes = [X, -X, Y, -Y]
    for angle, known in ((near, True), (far, False)):
        v, snapped_to = snapped(2 * np.array([np.cos(angle), np.sin(angle), 0]), axes)
        assert snapped_to == known
        assert v == pytest.approx(X if known else [np.cos(angle), np.sin(angle), 0])
    assert snapped(X, []) == (pytest.approx(X), False)
    own = tree()
    assert np.array(own_axes(own, 2, 2)) == pytest.approx(np.array([Y, -Y, X, -X, Y, -Y, Z, -Z]))
    assert len(own_axes(own, 2, None)) == 6


def test_axes_that_cannot_be_told_are_the_link_s_own_and_nearly_whole_ones_whole():
    own = tree()
    for R in (np.full((3, 3), np.nan), 2 * np.eye(3)):
        found = _gripper(own, 2, R, "tool", (), (), (), "x")
        assert found.T_link_ee.tolist() == np.eye(4).tolist()
        assert found.note == "x; no approach could be told, so the link's own axes are drawn"
    near = _gripper(own, 2, axis_angle(Z, 5e-5), "jaw", (2,), (0.2,), (0.0,), "x")
    assert near.T_link_ee.tolist() == np.eye(4).tolist()
    assert (near.name, near.kind, near.finger_joints, near.note) == ("palm", "jaw", ("open_left",), "x")
    assert _gripper(own, 2, axis_angle(Z, 5e-3), "tool", (), (), (), "").T_link_ee[1, 0] == pytest.approx(np.sin(5e-3))


def test_what_was_found_is_a_file_to_edit():
    ends = (
        GripperSpec("palm", "palm", at(0, 0, 0.5), ("open_left",), (0.2,), (0.0,), "jaw", note="one jaw"),
        GripperSpec("tip", "tip", EYE, kind="tool", note="bare"),
    )
    text = told.declaration_text([replace(robot(), grippers=ends), replace(robot(), name="2nd")], "s.usd")
    assert text.splitlines() == [
        "# End effectors of the robots of s.usd, to edit (docs/robots.md). In force with --robot THIS_FILE.", "robots:",
        "  - robot: r  # /r", "    base: base", "    ends:", "      - link: palm  # jaw: one jaw", "        approach: +z",
        "        opening: +y", "        translation_m: [0.0, 0.0, 0.5]", "        joints:",
        "          open_left: {open: 0.2, closed: 0}", "      - link: tip  # tool: bare", "        approach: +z",
        "        opening: +y", "        joints: {}", '  - robot: "2nd"  # /r', "    base: base", "    ends: []",
    ]  # fmt: skip


def end(**more) -> EndDeclaration:
    return EndDeclaration("palm", **more)


def declared(*ends: EndDeclaration, base: str = "", of: RobotSpec | None = None) -> RobotSpec:
    (found,) = declare([of or robot()], [RobotDeclaration("R*", base, ends, "a/x.robot.yaml")])
    return found


def test_what_is_declared_of_an_end_is_what_it_is():
    (found,) = declared(end(name="g", joints=(("open_left", 0.2, 0.0),), translation_m=(0, 0, 0.5))).grippers
    assert (found.name, found.ee_link, found.kind, found.note) == ("g", "palm", "jaw", "declared in x.robot.yaml")
    assert (found.finger_joints, found.open_position, found.closed_position) == (("open_left",), (0.2,), (0.0,))
    assert found.T_link_ee[:3, 3].tolist() == [0, 0, 0.5]
    assert [declared(end(joints=j)).grippers[0].kind for j in ((), (("curl", 1.0, 0.5), ("open_left", 0.1, 0.0)))] == [
        "tool", "gripper",
    ]  # fmt: skip
    (framed,) = declared(end(frame="tcp_frame")).grippers
    assert framed.T_link_ee[:3, 3].tolist() == [0, 0, 2]
    with pytest.raises(InputError, match="frame 'left' moves against link 'palm'"):
        declared(end(frame="left"))
    (axes,) = declared(end(approach=(0, 0, -2), opening=(3, 0, 0))).grippers
    assert axes.T_link_ee[:3, :3].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
    (one,) = declared(end(approach=(0, 1, 0))).grippers
    assert one.T_link_ee[:3, 2].tolist() == [0, 1, 0]
    assert one.T_link_ee[:3, 1].tolist() == [1, 0, 0], "the first of the link's axes across it"
    with pytest.raises(InputError, match="nearly parallel"):
        declared(end(approach=(0, 0, 1), opening=(0, 0.5, 0.5)))
    with pytest.raises(InputError, match="two end effectors are named alike"):
        declared(end(), end())
    kept = declared(of=replace(robot(), grippers=(GripperSpec("a", "palm", EYE),)), base="arm")
    assert kept.grippers == ()
    chained = declared(EndDeclaration("left"), base="arm")
    assert chained.chains == (("left", "palm", "arm"),)
    with pytest.raises(InputError, match=r"a/x\.robot\.yaml: .*base of end effector 'left'"):
        declared(EndDeclaration("left"), base="right")
    with pytest.raises(InputError, match=r"'S'.*r \(/r\)"):
        declare([robot()], [RobotDeclaration("S", source="f")])


@pytest.mark.parametrize(
    ("name", "position", "fine"),
    [("open_left", 0.249, True), ("open_left", 0.251, False), ("open_left", -0.049, True), ("open_left", -0.051, False),
     ("curl", 1.749, True), ("curl", 1.751, False)],
)  # fmt: skip
def test_a_declared_position_may_pass_a_limit_by_a_quarter_of_the_travel(name, position, fine):
    for joints in (
        ((name, position, 0.7 if name == "curl" else 0.1),),
        ((name, 0.7 if name == "curl" else 0.1, position),),
    ):
        if fine:
            declared(end(joints=joints))
        else:
            with pytest.raises(InputError, match=f"is {position:g} .*; its limits are"):
                declared(end(joints=joints))
    with pytest.raises(InputError, match=r"open and closed are both 0\.1"):
        declared(end(joints=(("open_left", 0.1, 0.1),)))


def test_small_words_of_a_declaration():
    path = Path("f")
    assert told.AXES["-y"] == (0, -1, 0)
    assert told.AXES["x"] == told.AXES["+x"] == (1, 0, 0)
    assert told._direction(" -Z ", path, "l", "approach") == (0, 0, -1)
    assert told._direction([1, 2, 3], path, "l", "approach") == (1, 2, 3)
    assert told._three([0, 0, 3.0], path, "l", "translation_m") == (0, 0, 3)
    for value, words in (([0, 0, 3.01], "metres from the link"), ([1, 2], "three finite"), ("1 2", "three finite")):
        with pytest.raises(InputError, match=words):
            told._three(value, path, "l", "translation_m")
    with pytest.raises(InputError, match="has no length"):
        told._direction([0, 0, 0], path, "l", "opening")
    assert told._joints({"a": [1, 0], "b": {"open": 2, "closed": 3}}, path, "l") == (("a", 1, 0), ("b", 2, 3))
    assert told._joints(None, path, "l") == told._joints("none", path, "l") == told._joints({}, path, "l") == ()
    for value in ([1, 2, 3], {"a": [1]}, {"a": {"open": 1}}, {"a": [True, 0]}, {"a": ["x", 0]}, {"a": [np.inf, 0]}):
        with pytest.raises(InputError, match="open"):
            told._joints(value, path, "l")
    assert [told._yaml_name(n) for n in ("a_b-c.1", "1a", "yes", 'a"b', "a b")] == [
        "a_b-c.1", '"1a"', '"yes"', '"a\\"b"', '"a b"',
    ]  # fmt: skip
    assert [told._axis(np.array(v, float)) for v in ((0, 0, 1), (0, -1, 0), (2 / 3, 0.8, 0))] == [
        "+z",
        '"-y"',
        "[0.66667, 0.8, 0.0]",
    ]
    assert [told._kind("tool", n) for n in (0, 1, 2, 3)] == ["tool", "jaw", "gripper", "hand"]
    assert [told._kind("hand", n) for n in (0, 1, 2)] == ["tool", "hand", "hand"]
