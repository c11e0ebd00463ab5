# SPDX-License-Identifier: Apache-2.0
"""Where the search draws its lines: what is still a finger, a rotor, a leg, a bare arm, and what the end of one is called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from retake.core.ends import find_ends, search
from retake.core.ends.describe import _face, _palm, _tool_link, describe_tool
from retake.core.ends.tree import Tree
from retake.core.robot import JointSpec, LinkSpec, Mimic, RobotSpec

INF = np.inf
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def at(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = (x, y, z)
    return T


def tree(rows: Sequence[tuple], shapes: dict[str, Sequence[Sequence[float]]] | None = None, root: str = "base") -> Tree:
    """Rows of (link, parent, kind, axis, place, limits, mimic); `shapes`: points of a link in its own frame."""
    names = [root, *(row[0] for row in rows)]
    joints = []
    for link, parent, kind, axis, place, *more in rows:
        low, high = more[0] if more and more[0] is not None else (-1.0, 1.0)
        mimic = Mimic(more[1]) if len(more) > 1 else None
        joints.append(
            JointSpec(f"j_{link}", kind, names.index(parent), names.index(link), axis, at(*place), np.eye(4), low, high,
                      mimic=mimic)
        )  # fmt: skip
    spec = RobotSpec("r", "/r", tuple(LinkSpec(n, f"/r/{n}") for n in names), tuple(joints))
    clouds = shapes or {}
    return Tree(spec, lambda link: np.array(clouds.get(names[link], np.zeros((0, 3))), float).reshape(-1, 3))


def branch(made: Tree, link: str):
    """The branch whose first link has that name."""
    number = [one.name for one in made.spec.links].index(link)
    return next(b for g in made.groups for b in made.branches(g) if made.spec.joints[b.joint].child_link == number)


def hinge(link: str, parent: str, place=(0.0, 0.0, 0.05), axis=X, limits: object = (0.0, 1.5), *mimic: str) -> tuple:
    return (link, parent, "revolute", axis, place, limits, *mimic)


def slide(link: str, parent: str, place=(0.0, 0.0, 0.05), limits: object = (0.0, 0.04)) -> tuple:
    return (link, parent, "prismatic", Y, place, limits)


def row(name: str, parent: str, count: int, limits: object = (0.0, 1.5), step: float = 0.02) -> list[tuple]:
    """Links name1 … nameN behind each other, each on a hinge about X."""
    links = [f"{name}{k}" for k in range(1, count + 1)]
    return [hinge(link, before, (0, 0, step), X, limits) for link, before in zip(links, [parent, *links], strict=False)]


@pytest.mark.parametrize(
    ("rows", "fine"),
    [([hinge("f", "base")], True), ([hinge("f", "base", limits=(-INF, INF))], False),
     ([hinge("f", "base", limits=(0.0, 6.28))], True), ([hinge("f", "base", limits=(0.0, 6.29))], False),
     ([slide("f", "base", limits=(0.0, 0.25))], True),
     ([slide("f", "base", limits=(0.0, 0.26))], False), ([slide("f", "base", limits=(-INF, INF))], True),
     ([hinge("finger", "base", limits=(-INF, INF))], True), (row("f", "base", 8), True), (row("f", "base", 9), False),
     (row("f", "base", 2, (-INF, INF)), True), (row("f", "base", 1, (-INF, INF)), False),
     ([hinge("f", "base"), hinge("g", "f", (0, 0, 0.36), limits=(0, 1))], True),
     ([hinge("f", "base"), hinge("g", "f", (0, 0, 0.361), limits=(0, 1))], False),
     ([hinge("a", "base"), hinge("f", "base", limits=(-INF, INF)), hinge("f2", "f", limits=(-INF, INF), axis=Y)], False)],
)  # fmt: skip
def test_a_finger_is_short_has_few_joints_and_limits_or_bends_in_one_plane(rows, fine):
    made = tree(rows)
    first = next((r[0] for r in rows if r[0].startswith("f")), "f")
    assert search._finger_like(made, branch(made, first)) == fine


def test_a_joint_that_follows_another_has_limits_and_counts_for_nothing():
    made = tree([*row("f", "base", 8), hinge("tip", "f8", (0, 0, 0.02), X, (-INF, INF), "j_f8")])
    assert search._has_limits(made, 8)
    assert search._finger_like(made, branch(made, "f1"))


def rows_of_hinges(count: int) -> list[tuple]:
    return [r for k in range(count) for r in row(f"g{k}_", "f", 2)]


@pytest.mark.parametrize(("count", "palm"), [(2, False), (3, True)])
def test_a_body_with_three_rows_of_hinges_is_a_hand_of_its_own(count, palm):
    made = tree([hinge("f", "base"), *rows_of_hinges(count)])
    assert search._is_palm(made, 1) == palm
    assert search._finger_like(made, branch(made, "f")) != palm


@pytest.mark.parametrize(
    ("lean", "bends"), [(0.0, True), (25.0, True), (26.5, False), (90.0, False)]
)  # fmt: skip
def test_hinges_without_limits_bend_where_they_are_nearly_parallel(lean, bends):
    axis = (float(np.cos(np.radians(lean))), float(np.sin(np.radians(lean))), 0.0)
    made = tree([hinge("a", "base", axis=axis, limits=(-INF, INF)), hinge("b", "a", limits=(-INF, INF))])
    assert search._bends(made, branch(made, "a")) == bends
    forked = tree([hinge("a", "base", limits=(-INF, INF)), *[hinge(n, "a", limits=(-INF, INF)) for n in "bc"]])
    assert search._bends(forked, branch(forked, "a"))
    sliding = tree([hinge("finger", "base", limits=(-INF, INF)), slide("b", "finger")])
    assert not search._bends(sliding, branch(sliding, "finger"))


def test_a_branch_that_shows_nothing_and_reaches_nowhere_is_empty():
    for place, shape, empty in (((0, 0, 0.05), [], True), ((0, 0, 0.05), [(0, 0, 0)], False)):
        made = tree([hinge("f", "base", place)], {"f": shape})
        assert search._empty(made, branch(made, "f")) == empty
    made = tree([hinge("f", "base"), ("far", "f", "fixed", X, (0, 0, 0.002))])
    assert not search._empty(made, branch(made, "f"))
    made = tree([hinge("f", "base"), ("near", "f", "fixed", X, (0, 0, 0.0009))])
    assert search._empty(made, branch(made, "f"))


def rotor(size: float, *, fingers: Sequence[float] = (), limits: object = (-INF, INF), name: str = "r") -> bool:
    rows = [hinge(name, "base", limits=limits), *[hinge(f"f{k}", "base") for k in range(len(fingers))]]
    shapes = {name: [(size, 0, 0)], **{f"f{k}": [(0, 0, long)] for k, long in enumerate(fingers)}}
    made = tree(rows, shapes)
    own = branch(made, name)
    return search._is_rotor(made, own, made.branches(own.group))


@pytest.mark.parametrize(
    ("wanted", "options"),
    [(True, {"size": 0.0099}), (False, {"size": 0.0101}), (False, {"size": 0.004, "limits": (0.0, 1.0)}),
     (False, {"size": 0.004, "name": "finger"}), (True, {"size": 0.029, "fingers": (0.06, 0.08)}),
     (False, {"size": 0.031, "fingers": (0.06, 0.08)}), (False, {"size": 0.029, "fingers": (0.06,)}),
     (True, {"size": 0.0095, "fingers": (0.012, 0.012)})],
)  # fmt: skip
def test_a_horn_turns_without_end_and_reaches_not_half_as_far_as_the_fingers(wanted, options):
    assert rotor(**options) == wanted


def test_a_branch_of_two_joints_is_no_rotor():
    made = tree([hinge("r", "base", limits=(-INF, INF)), hinge("s", "r", (0, 0, 0.001), limits=(-INF, INF))])
    assert not search._is_rotor(made, branch(made, "r"), made.branches(0))


def together(axes: Sequence, places: Sequence, long: float = 0.05) -> bool:
    rows = [hinge(f"f{k}", "base", place, axis) for k, (axis, place) in enumerate(zip(axes, places, strict=True))]
    made = tree(rows, {f"f{k}": [(0, 0, 0), (0, 0, long)] for k in range(len(rows))})
    return search._work_together(made, made.branches(0))


def lean(degrees: float) -> tuple[float, float, float]:
    return (float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees))), 0.0)


def test_fingers_have_parallel_hinges_or_are_three_and_lie_near_each_other():
    near = [(0, 0.03, 0), (0, -0.03, 0), (0.03, 0, 0)]
    assert together([X, X], near[:2])
    assert together([X, lean(31)], near[:2])
    assert not together([X, lean(32.5)], near[:2])
    assert together([X, (-1.0, 0.0, 0.0)], near[:2]), "an axis has no side"
    assert together([X, lean(60), lean(120)], near)
    assert together([X, X], [(0, 0, 0), (0, 0.149, 0)])
    assert not together([X, X], [(0, 0, 0), (0, 0.151, 0)])
    assert together([X, X], [(0, 0, 0), (0, 0.29, 0)], long=0.1)
    assert not together([X, X, X], [(0, 0, 0), (0, 0.02, 0), (0, 0.5, 0)]), "one alone is far away"


def test_a_slide_and_a_hinge_do_not_work_together():
    made = tree([hinge("a", "base", (0, 0.02, 0)), slide("b", "base", (0, -0.02, 0))])
    assert not search._work_together(made, made.branches(0))


def standing(count: int, *, joints: int = 2, long: float = 0.2, height: float = 0.4, name: str = "m") -> set[str]:
    """Names of the first links of legs of a box on `count` rows of hinges that reach down to its feet."""
    rows = []
    for k in range(count):
        parts = [f"{name}{k}_{i}" for i in range(joints)]
        places = [(0.2 * k, 0.1, 0.0), *[(0.0, 0.0, -long / joints)] * (joints - 1)]
        rows += [hinge(a, b, p, X, (-1, 1)) for a, b, p in zip(parts, ["base", *parts], places, strict=False)]
    shapes = {f"{name}{k}_{joints - 1}": [(0, 0, -long / joints)] for k in range(count)}
    made = tree(rows, {"base": [(0, 0, height - long), (0.3, 0.3, 0)], **shapes})
    return {made.spec.links[g].name for g in search._legs(made)}


def test_a_robot_stands_on_pairs_of_legs():
    assert standing(2) == {"m0_0", "m0_1", "m1_0", "m1_1"}
    assert len(standing(4)) == 8
    assert standing(1) == standing(3) == set()
    assert standing(2, joints=1) == set(), "one hinge is no leg"
    assert len(standing(2, joints=3)) == 6
    assert standing(2, long=0.02) == set(), "it hardly hangs"
    assert standing(1, name="leg") == {"leg0_0", "leg0_1"}
    assert standing(2, name="hand") == set()


def test_a_leg_ends_near_the_floor_of_the_robot():
    def legs(above_floor: float) -> bool:
        rows = [hinge("a0", "base", (0.1, 0, 0), X, (-1, 1)), hinge("a1", "a0", (0, 0, -0.5), X, (-1, 1)),
                hinge("b0", "base", (-0.1, 0, 0), X, (-1, 1)), hinge("b1", "b0", (0, 0, -0.5), X, (-1, 1))]  # fmt: skip
        shapes = {"base": [(0, 0, -1), (0, 0, 0)], "a1": [(0, 0, above_floor - 0.5)], "b1": [(0, 0, above_floor - 0.5)]}
        return bool(search._legs(tree(rows, shapes)))

    assert legs(0.064)
    assert not legs(0.066)


def arm(count: int, name: str = "a", parent: str = "base", place=(0.0, 0.0, 0.1)) -> list[tuple]:
    links = [f"{name}{k}" for k in range(1, count + 1)]
    axes = [Z, X, X, Z, X, Z, X]
    return [
        hinge(link, before, place if before == parent else (0, 0, 0.1), axes[k], (-2.0, 2.0))
        for k, (link, before) in enumerate(zip(links, [parent, *links], strict=False))
    ]


def tools(rows: Sequence[tuple], *, legs: Sequence[str] = (), taken: Sequence[str] = (), others: bool = False):
    made = tree(rows)
    number = {link.name: k for k, link in enumerate(made.spec.links)}
    found, notes = search._tools(made, {number[n] for n in legs}, {number[n] for n in taken}, others)
    return [made.spec.links[g].name for g in found], notes


def test_a_bare_arm_beside_others_has_four_joints():
    assert tools(arm(1)) == (["a1"], [])
    assert tools(arm(3), others=True) == ([], [])
    assert tools(arm(4), others=True) == (["a4"], [])
    two = [*arm(4, "a", place=(0.3, 0, 0)), *arm(3, "b", place=(-0.3, 0, 0))]
    assert tools(two) == (["a4"], [])
    assert tools([*two, hinge("b4", "b3")]) == (["a4", "b4"], [])


def test_wheels_heads_and_what_has_a_hand_are_no_tools():
    wheel = hinge("w", "base", limits=(-INF, INF))
    assert tools([wheel]) == (["w"], [])
    assert tools([wheel, hinge("x", "base")], others=False) == ([], [])
    assert tools([*arm(5), hinge("head", "a5")], others=True) == ([], [])
    assert tools([*arm(5), hinge("head_gripper", "a5")], others=True) == (["head_gripper"], [])
    assert tools([*arm(5), hinge("f", "a5")], taken=("a5",), others=True) == ([], [])
    assert tools(arm(5), taken=("a5",)) == ([], [])


def test_on_legs_only_a_wrist_or_a_hand_ends_an_arm():
    rows = [*arm(5), hinge("l", "base", (0.3, 0, 0))]
    found, notes = tools(rows, legs=("l",), others=True)
    assert found == []
    assert notes == ["a5 ends a branch of 5 joints of a robot on legs and is taken for no end effector"]
    assert tools([*rows, hinge("wrist", "a5")], legs=("l",), others=True) == (["wrist"], [])


@pytest.mark.parametrize(
    ("bad", "options"),
    [([*arm(4, "t", place=(0.5, 0, 0)), hinge("t_f", "t4")], {"taken": ("t4",)}), ([*arm(4, "t"), hinge("head", "t4")], {}),
     ([hinge("w", "base", limits=(-INF, INF))], {}), (arm(3, "t", place=(0.5, 0, 0)), {}),
     ([hinge("l", "base"), *arm(4, "t", place=(0.5, 0, 0))], {"legs": ("l",)})],
)  # fmt: skip
def test_what_is_no_tool_hides_none_that_comes_after_it(bad, options):
    good = [*arm(4, "z", place=(-0.5, 0, 0)), hinge("z_wrist", "z4")]
    assert tools([*bad, *good], others=True, **options)[0] == ["z_wrist"]


def test_two_fingers_are_a_hand_and_one_is_none():
    pair = [hinge("f", "base", (0, 0.02, 0.05)), hinge("g", "base", (0, -0.02, 0.05))]
    made = tree(pair)
    assert search._fingers_of(made, 0, set()) == made.branches(0)
    assert search._fingers_of(tree(pair[:1]), 0, set()) == ()
    assert search._fingers_of(made, 0, {1}) == (), "a leg is no finger"
    head = tree([*pair, hinge("camera", "base", (0, 0, 0.05))])
    assert search._fingers_of(head, 0, set()) == (), "what carries a head, too, is no hand"
    empty = tree([*pair, hinge("h", "base", (0, 0, 0.05))], {"f": [(0, 0, 0.03)], "g": [(0, 0, 0.03)]})
    assert [b.joint for b in search._fingers_of(empty, 0, set())] == [0, 1], "what shows nothing is left out"


def test_an_arm_leaves_where_several_branches_of_two_joints_do():
    made = tree(
        [hinge("trunk", "base", axis=Z), *arm(3, "a", "trunk", (0.2, 0, 0)), *arm(3, "b", "trunk", (-0.2, 0, 0))]
    )
    chain = search._own_chain(made, made.group_of[4], set())
    assert [made.spec.joints[i].name for i in chain or ()] == ["j_a3", "j_a2", "j_a1"]
    made = tree([hinge("trunk", "base", axis=Z), *arm(3, "a", "trunk", (0.2, 0, 0)), hinge("b", "trunk")])
    chain = search._own_chain(made, made.group_of[4], set())
    assert [made.spec.joints[i].name for i in chain or ()] == ["j_a3", "j_a2", "j_a1", "j_trunk"]
    assert search._own_chain(made, made.group_of[4], {1}) is None


def test_a_robot_without_an_end_says_so_and_a_broken_one_does_not_raise():
    ends, notes = find_ends(tree([("a", "base", "fixed", X, (0, 0, 1))]).spec)
    assert ends == ()
    assert "no end effector was found" in notes[-1]

    def broken(link: int) -> np.ndarray:
        raise ValueError("damaged mesh")

    ends, notes = find_ends(tree(arm(3)).spec, broken)
    assert ends == ()
    assert notes == ("end effectors were not looked for (ValueError: damaged mesh); declare them",)


# What an end is


def test_the_palm_carries_most_fingers_or_all_of_their_carriers():
    rows = [
        ("p", "base", "fixed", X, (0, 0, 0.1)),
        ("q", "p", "fixed", X, (0, 0, 0.1)),
        ("r", "p", "fixed", X, (0, 0, 0.1)),
    ]
    made = tree([*rows, hinge("f1", "q"), hinge("f2", "q"), hinge("f3", "r")])
    assert made.spec.links[_palm(made, made.branches(0))].name == "q"
    made = tree([*rows, hinge("f1", "base"), hinge("f2", "q"), hinge("f3", "r")])
    assert made.spec.links[_palm(made, made.branches(0))].name == "base"
    made = tree([*rows, ("s", "p", "fixed", X, (0, 0, 0.2)), hinge("f1", "s"), hinge("f2", "q"), hinge("f3", "r")])
    assert made.spec.links[_palm(made, made.branches(0))].name == "p"
    made = tree([*rows, hinge("f1", "q"), hinge("f2", "r")])
    assert made.spec.links[_palm(made, made.branches(0))].name == "q", "of two the first"


@pytest.mark.parametrize(("half", "gripper"), [(0.013, True), (0.011, False)])
def test_three_fingers_of_a_gripper_face_each_other(half, gripper):
    """The two sides are further apart than 1.2 times what fingers of one side are from their middle."""
    places = [(0, half, 0), (0, half, 0.02), (0, -half, 0.01)]
    made = tree([hinge(f"f{k}", "base", place) for k, place in enumerate(places)])
    wide = tree([hinge(f"f{k}", "base", (x, y, z * 2)) for k, (x, y, z) in enumerate(places)])
    sides = np.array([1.0, 1.0, -1.0])
    assert _face(made, made.branches(0), sides)
    assert _face(wide, wide.branches(0), sides) == gripper


def last_link(*rows: tuple, shapes: Sequence[str] = ()) -> str:
    made = tree([hinge("a", "base"), *rows], {name: [(0, 0, 0)] for name in shapes})
    return made.spec.links[_tool_link(made, 1)].name


def test_the_end_of_an_arm_is_its_last_solid_body():
    b, c = ("b", "a", "fixed", X, (0, 0, 0.1)), ("c", "b", "fixed", X, (0, 0, 0.1))
    assert last_link() == "a"
    assert last_link(b) == "a", "nothing of it is seen"
    assert last_link(b, c, shapes="b") == "b"
    assert last_link(b, c, shapes="c") == "c", "through one that is only passed"
    assert last_link(b, ("d", "a", "fixed", X, (0, 0, 0.1)), shapes="bd") == "a", "two are no continuation"
    assert last_link(("tcp_frame", "a", "fixed", X, (0, 0, 0.1)), shapes=["tcp_frame"]) == "a"
    assert last_link(("camera_body", "a", "fixed", X, (0, 0, 0.1)), shapes=["camera_body"]) == "a"
    assert last_link(hinge("b", "a"), shapes="b") == "a"


def tool_axis(axis, limits=(-2.0, 2.0), *, ahead=(0.0, 0.0, 0.1), before=(0.0, 0.0, 0.3)) -> np.ndarray:
    """The approach of an arm of two joints whose last link's tip is `ahead` of its joint, which lies `before` of the first's."""
    made = tree(
        [
            hinge("a", "base", (0, 0, 0.2), Z, (-2, 2)),
            hinge("b", "a", before, axis, limits),
            ("t", "b", "fixed", X, ahead),
        ],
        {"t": [(0, 0, 0)]},
    )
    found = describe_tool(made, made.group_of[2])
    assert (found.kind, found.ee_link, found.finger_joints) == ("tool", "t", ())
    return found.T_link_ee[:3, 2]


def test_a_flange_turns_about_its_approach_and_another_joint_across_it():
    assert tool_axis(Z) == pytest.approx([0, 0, 1])
    assert tool_axis((0.0, 0.0, -1.0)) == pytest.approx([0, 0, 1]), "away from the arm, whichever way it counts"
    assert tool_axis(X) == pytest.approx([0, 0, 1]), "along what reaches ahead"
    slanted = (float(np.sin(0.9)), 0.0, float(np.cos(0.9)))
    assert tool_axis(slanted, (-2.24, 2.24)) == pytest.approx([0, 0, 1]), "it does not turn far enough to be a flange"
    assert tool_axis(slanted, (-2.26, 2.26)) == pytest.approx(slanted, abs=1e-6)
    steep = (float(np.sin(1.06)), 0.0, float(np.cos(1.06)))
    assert tool_axis(steep, (-3.0, 3.0)) == pytest.approx([0, 0, 1]), "across the arm"


def test_a_body_around_its_joint_points_where_the_arm_does():
    assert tool_axis(X, ahead=(0.0, 0.0, 0.0), before=(0.0, 0.3, 0.0)) == pytest.approx([0, 1, 0])
    assert tool_axis(X, ahead=(0.0, 0.02, 0.0), before=(0.0, 0.0, 0.3)) == pytest.approx([0, 1, 0])


@pytest.mark.parametrize(
    ("limits", "closed", "opened"), [((0.0, 0.04), 0.0, 0.04), ((-0.09, 0.0), 0.0, -0.09), ((-0.03, 0.01), 0.01, -0.03)]
)  # fmt: skip
def test_a_sliding_jaw_without_shapes_opens_away_from_its_carrier(limits, closed, opened):
    rows = [*arm(2), ("gripper", "a2", "prismatic", Y, (0.0, 0.0, 0.1), limits)]
    ((end,), _) = find_ends(tree(rows).spec)
    assert (end.kind, end.ee_link, end.finger_joints) == ("jaw", "a2", ("j_gripper",))
    assert (end.closed_position, end.open_position) == ((closed,), (opened,))
    assert end.T_link_ee[:3, 1] @ [0, 1, 0] == pytest.approx(np.sign(opened))
    assert end.T_link_ee[:3, 2] == pytest.approx([0, 0, 1])
