# SPDX-License-Identifier: Apache-2.0
"""Laws of the search for end effectors: found whatever the links are called, however big and however turned the robot is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from retake.core.ends import find_ends
from retake.core.ends.search import _jaw_evidence
from retake.core.ends.tree import Tree, words
from retake.core.geometry import axis_angle, inverse, transform
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec

Three, Two = tuple[float, float, float], tuple[float, float]
KINDS = st.sampled_from(["slides", "hinges", "jaw", "hand", "flange"])


def pose(at: tuple[float, float, float], R: np.ndarray | None = None) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = np.eye(3) if R is None else R
    T[:3, 3] = at
    return T


def box(centre: tuple[float, float, float], size: tuple[float, float, float]) -> np.ndarray:
    corners = np.stack(np.meshgrid(*([-0.5, 0.5],) * 3, indexing="ij"), -1).reshape(-1, 3)
    return corners * size + centre


def build(kind: str, scale: float, turns: list[np.ndarray]) -> tuple[RobotSpec, list[np.ndarray]]:
    """An arm of six joints along +Z of its last link, with an end effector that opens along that link's Y.

    `turns`: a rotation of each link's own frame, so that no axis of a link is where a designer would put it.
    """
    links: list[str] = ["a0"]
    shapes = [box((0, 0, 0.03), (0.12, 0.12, 0.06))]
    joints: list[JointSpec] = []

    def add(parent: int, at: Three, axis: Three, kind: str, limits: Two, shape: np.ndarray) -> int:
        links.append(f"a{len(links)}")
        shapes.append(shape)
        child = len(links) - 1
        # Frames of the joint in both links, each link turned by its own rotation.
        P = inverse(pose((0, 0, 0), turns[parent])) @ pose(tuple(scale * x for x in at))
        C = inverse(pose((0, 0, 0), turns[child]))
        joints.append(JointSpec(f"b{child}", kind, parent, child, axis, P, C, *limits))  # type: ignore[arg-type]
        return child

    hand = 0
    for number, axis in enumerate([(0, 0, 1), (0, 1, 0), (0, 1, 0), (0, 0, 1), (0, 1, 0), (0, 0, 1)]):
        hand = add(hand, (0, 0, 0.12), axis, "revolute", (-2.9, 2.9), box((0, 0, 0.06), (0.07, 0.06, 0.12)))
        assert number < 6
    if kind == "slides":
        for side in (1, -1):
            limits = (0.0, 0.04 * scale) if side > 0 else (-0.04 * scale, 0.0)
            add(
                hand,
                (0, 0.01 * side, 0.13),
                (0, 1, 0),
                "prismatic",
                limits,
                box((0, 0.005 * side, 0.03), (0.02, 0.01, 0.06)),
            )
    if kind == "hinges":
        for side in (1, -1):
            limits = (-0.8, 0.0) if side > 0 else (0.0, 0.8)
            add(hand, (0, 0.03 * side, 0.13), (1, 0, 0), "revolute", limits, box((0, 0, 0.04), (0.02, 0.012, 0.08)))
    if kind == "jaw":
        add(hand, (0, 0.02, 0.13), (1, 0, 0), "revolute", (-1.6, 0.1), box((0, 0, 0.04), (0.02, 0.012, 0.08)))
    if kind == "hand":
        for k in range(3):
            at = (0.03 * (k - 1), 0.03, 0.13)
            first = add(hand, at, (1, 0, 0), "revolute", (0.0, 1.5), box((0, 0, 0.02), (0.015, 0.015, 0.04)))
            add(first, (0, 0, 0.04), (1, 0, 0), "revolute", (0.0, 1.5), box((0, 0, 0.015), (0.015, 0.015, 0.03)))
        thumb = add(
            hand, (0, -0.04, 0.1), (0, 0.3, 0.954), "revolute", (0.0, 1.2), box((0, 0, 0.02), (0.015, 0.015, 0.04))
        )
        add(thumb, (0, 0, 0.04), (1, 0, 0), "revolute", (-1.2, 0.0), box((0, 0, 0.015), (0.015, 0.015, 0.03)))
    spec = RobotSpec("a", "/a", tuple(LinkSpec(n, f"/a/{n}") for n in links), tuple(joints))
    clouds = [
        transform(inverse(pose((0, 0, 0), turn)), scale * shape) for turn, shape in zip(turns, shapes, strict=False)
    ]
    return spec, clouds


def found(
    kind: str, scale: float, turns: list[np.ndarray], base: np.ndarray
) -> tuple[GripperSpec, np.ndarray, RobotSpec]:
    """The only end effector, its frame in the unturned hand's axes, and the robot."""
    spec, clouds = build(kind, scale, turns)
    (end,), _ = find_ends(spec, lambda link: clouds[link], base)
    R = turns[spec.link_index(end.ee_link)] @ end.T_link_ee[:3, :3]
    return end, R, spec


@given(KINDS, seeds)
def test_found_whatever_it_is_called_and_however_it_stands(kind, seed):
    """Axes within 2° of the fingers' plane and approach; the same joints, open and closed, for every size and place."""
    rng = np.random.default_rng(seed)
    turns = [np.eye(3)] * 20
    scale = float(rng.uniform(0.7, 1.3))
    base = pose((0, 0, 0), axis_angle(np.array([0.0, 0, 1]), float(rng.uniform(-3, 3))))
    end, R, spec = found(kind, scale, turns, base)
    assert end.ee_link == "a6"
    assert end.kind == {"slides": "gripper", "hinges": "gripper", "jaw": "jaw", "hand": "hand", "flange": "tool"}[kind]
    assert R[2, 2] > np.cos(np.radians(2))
    if kind != "flange":
        assert abs(R[1, 1]) > np.cos(np.radians(2))
    if kind in ("slides", "hinges"):
        np.testing.assert_allclose(end.closed_position, 0, atol=1e-9)
    if kind == "jaw":
        assert (end.closed_position, end.open_position) == ((0.1,), (-1.6,))
    if kind == "hand":
        assert set(end.finger_joints) == {"b7", "b8", "b9", "b10", "b11", "b12", "b14"}
        assert all(abs(c) > abs(o) for c, o in zip(end.closed_position, end.open_position, strict=True))
    assert len(spec.dof_names) >= 6


@given(st.sampled_from(["slides", "hinges"]), seeds)
def test_a_servos_horn_beside_the_fingers_is_none(kind, seed):
    """WidowX and ViperX arms turn a horn without end between their two fingers (interbotix_descriptions, wx250s.urdf.xacro)."""
    rng = np.random.default_rng(seed)
    spec, clouds = build(kind, 1.0, [np.eye(3)] * 20)
    at = pose((0, 0, float(rng.uniform(0.05, 0.12))))
    horn = JointSpec("horn", "revolute", 6, len(spec.links), (1, 0, 0), at, np.eye(4), -np.inf, np.inf)
    order = rng.permutation(len(spec.joints) + 1)
    joints = [[*spec.joints, horn][i] for i in order]
    bare = find_ends(spec, lambda link: clouds[link])[0]
    clouds.append(box((0, 0, 0), tuple(rng.uniform(0.005, 0.03, 3))))
    more = dataclasses.replace(spec, links=(*spec.links, LinkSpec("a9", "/a/a9")), joints=tuple(joints))
    ((end,), _), (was,) = find_ends(more, lambda link: clouds[link]), bare
    assert (end.ee_link, end.kind, set(end.finger_joints)) == (was.ee_link, "gripper", set(was.finger_joints))
    np.testing.assert_allclose(np.abs(np.diag(end.T_link_ee.T @ was.T_link_ee)), 1, atol=1e-6)


@given(st.sampled_from(["slides", "hinges"]), st.booleans())
def test_the_frame_is_the_one_nearest_to_the_links_own_whichever_finger_is_first(kind, swapped):
    """OSCAR's robots are drawn in the link's own frame (the DROID sample's 2F-85): a half turn would exchange its arrows."""
    spec, clouds = build(kind, 1.0, [np.eye(3)] * 20)
    if swapped:
        spec = dataclasses.replace(spec, joints=(*spec.joints[:-2], spec.joints[-1], spec.joints[-2]))
    (end,), _ = find_ends(spec, lambda link: clouds[link])
    np.testing.assert_allclose(end.T_link_ee[:3, :3], np.eye(3), atol=1e-9)


def test_hands_of_a_robot_whose_trunk_is_called_a_knee():
    """A column with a knee in it that carries neck and wrists is a trunk, not a leg, even where nothing states limits."""
    spec, clouds = build("hand", 1.0, [np.eye(3)] * 20)
    names = ["base", "Knee_Link", "Back_Link", "Shoulder_Link", "Elbow_Link", "Wrist_Z_Link", "Wrist_Y_Link"]
    links = tuple(LinkSpec(n, f"/a/{n}") for n in (*names, *(f"part{k}" for k in range(len(spec.links) - 7))))
    free = [dataclasses.replace(joint, lower=-np.inf, upper=np.inf) for joint in spec.joints]
    joints = (*free[:12], *spec.joints[12:])  # the thumb's hinges lie across each other: without limits it is no row
    (end,), _ = find_ends(dataclasses.replace(spec, links=links, joints=joints), lambda link: clouds[link])
    assert (end.ee_link, end.kind) == ("Wrist_Y_Link", "hand")


def test_words_of_names():
    assert {"left", "gripper", "yaw"} <= words("LeftGripperYaw") & words("left_gripper-yaw") & words(
        "left/gripper/yaw2"
    )
    assert {"foot"} <= words("lfoot") & words("rfoot_2")
    assert not {"ee", "eg", "ip", "ail"} & (words("lee") | words("leg") | words("lip") | words("rail"))


def test_two_hands_held_side_by_side_are_two_hands():
    """Forearms on one stand (the Shadow hands' bimanual set-up): each carries fingers, neither is a finger."""
    one, clouds = build("hand", 1.0, [np.eye(3)] * 20)
    cut = 5  # wrist and palm, without the arm before them
    links, joints, shapes = [LinkSpec("stand", "/s/stand")], [], [box((0, 0, 0.05), (0.3, 0.1, 0.1))]
    for side in (-1, 1):
        first = len(links)
        links += [LinkSpec(f"p{side}{k}", f"/s/p{side}{k}") for k in range(len(one.links) - cut)]
        shapes += clouds[cut:]
        for joint in one.joints[cut - 1 :]:
            parent = 0 if joint.parent_link < cut else joint.parent_link - cut + first
            at = pose((0.15 * side, 0, 0.1)) if parent == 0 else joint.T_parent_joint
            joints.append(
                dataclasses.replace(
                    joint, name=f"{joint.name}{side}", parent_link=parent, child_link=joint.child_link - cut + first,
                    T_parent_joint=at,
                )
            )  # fmt: skip
    ends, _ = find_ends(RobotSpec("s", "/s", tuple(links), tuple(joints)), lambda link: shapes[link])
    assert [(end.ee_link, end.kind) for end in ends] == [("p-11", "hand"), ("p11", "hand")]


def test_the_chain_of_an_end_is_found_by_what_it_is():
    """Arrays cannot be compared by ==: two ends of one name, and one that was read again, must not be asked to."""
    spec, _ = build("slides", 1.0, [np.eye(3)] * 20)
    ends = tuple(GripperSpec("tool", link, np.eye(4)) for link in ("a6", "a6", "a5"))
    chains = (("a6", "a0"), ("a6", "a1"), ("a5", "a0"))
    robot = dataclasses.replace(spec, grippers=ends, chains=chains)
    told = [tuple(robot.links[i].name for i in robot.chain(end)) for end in ends]
    assert told == list(chains)
    assert robot.chain(GripperSpec("tool", "a5", np.eye(4))) == robot.chain(ends[2])


@given(st.sampled_from(["hinges", "jaw"]), seeds)
def test_axes_do_not_depend_on_the_links_own_frames(kind, seed):
    """Turn every link's frame by a rotation of its own: joints say where the fingers' plane is, and the axes stay within 2°."""
    rng = np.random.default_rng(seed)
    turns = []
    for _ in range(20):
        axis = rng.normal(size=3)
        turns.append(axis_angle(axis / np.linalg.norm(axis), float(rng.uniform(-3, 3))))
    _, R, _ = found(kind, 1.0, turns, pose((0, 0, 0), turns[0]))
    assert R[2, 2] > np.cos(np.radians(2))
    assert abs(R[1, 1]) > np.cos(np.radians(2))


@given(seeds)
def test_the_search_never_raises(seed):
    """Random trees with random limits and shapes: ends or none, never an exception, and always a valid robot."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 14))
    joints = []
    for child in range(1, size):
        R = axis_angle(np.array([0.0, 1, 0]), float(rng.uniform(-3, 3)))
        limits = sorted(rng.uniform(-2, 2, 2)) if rng.random() < 0.7 else (-np.inf, np.inf)
        kind = str(rng.choice(["revolute", "prismatic", "fixed"]))
        place = tuple(rng.uniform(-0.2, 0.2, 3)) if rng.random() < 0.8 else (0.0, 0.0, 0.0)
        axis = tuple(np.eye(3)[rng.integers(3)])
        joints.append(
            JointSpec(f"j{child}", kind, int(rng.integers(child)), child, axis, pose(place, R), np.eye(4), *limits)
        )  # type: ignore[arg-type]
    spec = RobotSpec("r", "/r", tuple(LinkSpec(f"l{i}", f"/r/l{i}") for i in range(size)), tuple(joints))
    clouds = [rng.uniform(-0.1, 0.1, (int(rng.integers(0, 9)), 3)) for _ in range(size)]
    ends, notes = find_ends(spec, lambda link: clouds[link])
    assert ends or notes
    again = dataclasses.replace(spec, grippers=ends)
    q = rng.uniform(-1, 1, len(spec.dof_names))
    assert np.isfinite(again.gripper_openness(q)).all()


def jaw(*, limits=(-1.6, 0.1), name="b", carrier=None, own=None, above=1, kind="revolute", axis=(1, 0, 0), T=None):
    """Evidence for a jaw at (0, 0.02, 0.1) of a carrier, itself at the end of `above` joints; T is where the robot stands."""
    links = [LinkSpec(n, f"/a/{n}") for n in (*(f"a{k}" for k in range(above + 1)), name)]
    joints = [
        JointSpec(f"j{k}", "revolute", k, k + 1, (0, 0, 1), pose((0, 0, 0.1)), np.eye(4), -2.0, 2.0)
        for k in range(above)
    ]
    joints.append(JointSpec("q", kind, above, above + 1, axis, pose((0, 0.02, 0.1)), np.eye(4), *limits))
    carrier = box((0, 0, 0.05), (0.05, 0.05, 0.1)) if carrier is None else carrier
    own = box((0, 0, 0.04), (0.02, 0.012, 0.08)) if own is None else own
    clouds = [*([box((0, 0, 0.05), (0.05, 0.05, 0.1))] * above), carrier, own]
    spec = RobotSpec("a", "/a", tuple(links), tuple(joints))
    tree = Tree(spec, lambda link: clouds[link], T)
    group = tree.group_of[above]
    return _jaw_evidence(tree, group, tree.branches(group)[0])


BESIDE = np.concatenate([box((0, 0, 0.05), (0.05, 0.05, 0.1)), box((0, -0.02, 0.14), (0.02, 0.012, 0.08))])
"""A carrier with a counterpart of the jaw."""
SHUT, SMALL, COUNTERPART, ACROSS = 1.0, 0.5, 1.5, 0.5


@pytest.mark.parametrize(
    ("wanted", "robot"),
    [
        (SHUT + SMALL + ACROSS, {}),
        (SHUT + SMALL + ACROSS + COUNTERPART, {"carrier": BESIDE}),
        (SMALL + ACROSS + COUNTERPART, {"carrier": BESIDE, "limits": (-1.6, 0.8)}),
        (SMALL + ACROSS + COUNTERPART - 2, {"carrier": BESIDE, "limits": (-1.0, 1.0)}),
        (SMALL + ACROSS + COUNTERPART - 2, {"carrier": BESIDE, "limits": (-1.0, 0.9)}),
        (SHUT + SMALL + ACROSS + 2, {"name": "gripper"}),
        (SHUT + SMALL + ACROSS - 3, {"name": "head"}),
        (SHUT + SMALL + ACROSS - 3, {"name": "foot"}),
        (SHUT + SMALL + ACROSS - 2, {"name": "wrist"}),
        (SHUT + SMALL + ACROSS, {"above": 3}),
        (0, {"above": 0}),
        (SHUT + SMALL + ACROSS + 2, {"above": 0, "name": "jaw"}),
        (SHUT + ACROSS, {"own": box((0, 0, 0.07), (0.05, 0.05, 0.14))}),
        (SHUT + SMALL, {"carrier": box((0, 0.02, 0.05), (0.05, 0.05, 0.1))}),
        (SHUT, {"own": np.zeros((0, 3))}),
        (SHUT, {"carrier": np.zeros((0, 3))}),
        (0, {"limits": (-3.5, 0.1)}),
        (SHUT + SMALL + ACROSS, {"limits": (-3.3, 0.1)}),
        (0, {"limits": (-np.inf, np.inf)}),
        (0, {"axis": (0, 0, 1)}),
        (SHUT + SMALL, {"kind": "prismatic", "axis": (0, 1, 0), "limits": (0.0, 0.2)}),
        (SHUT + SMALL + ACROSS, {"kind": "prismatic", "axis": (0, 0, 1), "limits": (0.0, 0.2)}),
        (0, {"kind": "prismatic", "axis": (0, 1, 0), "limits": (0.0, 0.3)}),
        (0, {"own": box((0, 0, 0.13), (0.02, 0.012, 0.26))}),
    ],
)
def test_each_sign_of_a_jaw_counts_as_much_as_it_says_wherever_the_robot_stands(wanted, robot):
    rng = np.random.default_rng(5)
    for number in range(4):
        T = pose(tuple(number * rng.uniform(-1, 1, 3)), axis_angle(np.array([0.6, 0.0, 0.8]), number * 0.9))
        assert jaw(T=T, **robot) == pytest.approx(wanted), number


@given(st.floats(-3.1, 3.1), st.booleans(), st.floats(0.0, 0.3), st.floats(0.8, 1.6), seeds)
def test_a_turning_jaw_without_a_shape_opens_to_the_side_of_one_that_has_one(
    way: float, backwards: bool, short: float, wide: float, seed: int
) -> None:
    """Its Y axis goes where its joint opens it, whatever side of its travel is the open one and however its links are turned. A
    shape leans the measured approach by some degrees; the other side would be half a turn away."""
    v = np.random.default_rng(seed).normal(size=(2, 3))
    turns = [axis_angle(a / np.linalg.norm(a), np.float64(np.linalg.norm(a))) for a in v]
    arm, jaw = (pose((0.0, 0.0, 0.0), R) for R in turns)
    axis = (float(np.cos(way)), float(np.sin(way)), 0.0)
    hinge = pose((-0.02 * axis[1], 0.02 * axis[0], 0.2))
    limits = (-short, wide) if backwards else (-wide, short)
    joints = (
        JointSpec("turn", "revolute", 0, 1, (0.0, 0.0, 1.0), pose((0.0, 0.0, 0.1)), inverse(arm), -3.0, 3.0),
        JointSpec("jaw", "revolute", 1, 2, axis, inverse(arm) @ hinge, inverse(jaw), *limits),
    )
    spec = RobotSpec("r", "/r", tuple(LinkSpec(n, f"/r/{n}") for n in ("base", "arm", "jaw")), joints)
    clouds = [box((0, 0, 0.05), (0.1, 0.1, 0.1)), box((0, 0, 0.1), (0.03, 0.03, 0.2)) @ turns[0],
              box((0, 0, 0.035), (0.012, 0.012, 0.07)) @ turns[1]]  # fmt: skip
    (shaped,), _ = find_ends(spec, lambda i: clouds[i], np.eye(4))
    (bare,), _ = find_ends(spec, lambda i: clouds[i] if i < 2 else np.zeros((0, 3)), np.eye(4))
    assert bare.open_position == shaped.open_position
    across, along = np.einsum("ij,ij->j", bare.T_link_ee[:3, :3], shaped.T_link_ee[:3, :3])[1:]
    assert min(across, along) > np.cos(np.pi / 4)
