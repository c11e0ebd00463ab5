# SPDX-License-Identifier: Apache-2.0
"""URDF → RobotSpec: kinematics against an independent library, gripper shape, faults."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from strategies import seeds

from retake.core.errors import InputError
from retake.core.urdf import keep_links, read_urdf

DROID = Path(__file__).parents[2] / "shared" / "golden" / "droid"

FINGERS = """
<link name="palm"/><link name="l"/><link name="r"/>
<joint name="wrist" type="fixed"><parent link="a"/><child link="palm"/><origin xyz="0 0 0.1" rpy="0 0 {yaw}"/></joint>
<joint name="fl" type="prismatic"><parent link="palm"/><child link="l"/><origin xyz="{x} {y} {z}"/>
  <axis xyz="{ax}"/><limit lower="0" upper="0.04" velocity="0.2" effort="20"/></joint>
<joint name="fr" type="prismatic"><parent link="palm"/><child link="r"/><origin xyz="{x} {y} {z}"/>
  <axis xyz="{bx}"/><limit lower="0" upper="0.04"/><mimic joint="fl"/></joint>
"""


CHILD = """<link name='b'/><joint name='k' type='{}'><parent link='a'/><child link='b'/>{}</joint>"""


def robot_xml(body: str = "", fingers: str = "") -> str:
    return f"""<?xml version="1.0"?><robot name="my arm"><link name="base"/><link name="a"/>
    <joint name="j0" type="continuous"><parent link="base"/><child link="a"/><axis xyz="0 0 2"/></joint>
    {body}{fingers}</robot>"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "robot.urdf"
    path.write_text(text, "utf-8")
    return path


def random_urdf(rng: np.random.Generator) -> str:
    """A random tree of up to eight links with every joint type."""
    count = int(rng.integers(2, 9))
    parts = [f'<link name="l{i}"/>' for i in range(count)]
    for i in range(1, count):
        kind = rng.choice(["revolute", "continuous", "prismatic", "fixed"])
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        xyz, rpy, axis = (" ".join(map(str, v)) for v in (*rng.normal(size=(2, 3)), axis))
        parts.append(
            f'<joint name="j{i}" type="{kind}"><parent link="l{rng.integers(0, i)}"/><child link="l{i}"/>'
            f'<origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="{axis}"/>'
            f'<limit lower="-1" upper="2" velocity="3" effort="4"/></joint>'
        )
    return f'<robot name="r">{"".join(parts)}</robot>'


@given(seed=seeds)
def test_forward_kinematics_equals_yourdfpy(seed, tmp_path_factory):
    yourdfpy = pytest.importorskip("yourdfpy", reason="the independent URDF library is a test tool")
    rng = np.random.default_rng(seed)
    path = write(tmp_path_factory.mktemp("u"), random_urdf(rng))
    robot = read_urdf(path)
    q = rng.uniform(-1, 1, len(robot.dof_names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        other = yourdfpy.URDF.load(str(path), load_meshes=False, build_scene_graph=True)
        other.update_cfg(dict(zip(robot.dof_names, q, strict=True)))
    poses = robot.forward_kinematics(q, np.eye(4))
    for link, T in zip(robot.links, poses, strict=True):
        assert np.abs(T - other.get_transform(link.name)).max() < 1e-9


@pytest.mark.parity
def test_droid_links_within_a_micrometre():
    if not DROID.exists():
        pytest.skip("the public DROID sample is third-party data and not beside this checkout")
    robot = read_urdf(DROID / "panda_robotiq.urdf")
    (gripper,) = robot.grippers
    chain = robot.chain(gripper)
    with np.load(DROID / "skeleton_reference.npz") as ref, np.load(DROID / "episode_meta.npz") as meta:
        assert [robot.links[i].name for i in chain] == ref["link_names"].tolist()
        q = np.zeros((90, len(robot.dof_names)))
        q[:, :7] = meta["joint_angles"]
        poses = robot.forward_kinematics(q, np.eye(4))[:, list(chain)]
        assert np.abs(poses[..., :3, 3] - ref["link_positions"]).max() < 1e-6
        assert np.abs(poses[:, 0] - ref["ee_link_pose"]).max() < 1e-6
    assert gripper.ee_link == "robotiq_arg2f_base_link"
    assert np.array_equal(gripper.T_link_ee, np.eye(4)), "fingers open along ±Y, +Z approaches"
    assert (gripper.finger_joints, gripper.open_position, gripper.closed_position) == (
        ("finger_joint",),
        (0.0,),
        (0.8,),
    )


@pytest.mark.parametrize(
    ("place", "axes", "approach", "opening"),
    [
        ((0, 0, 0.06), ("0 1 0", "0 -1 0"), (0, 0, 1), (0, 1, 0)),
        ((0, 0, 0.06), ("1 0 0", "-1 0 0"), (0, 0, 1), (1, 0, 0)),
        ((0.06, 0, 0), ("0 0 1", "0 0 -1"), (1, 0, 0), (0, 0, 1)),
        ((0, -0.06, 0), ("1 0 0", "-1 0 0"), (0, -1, 0), (1, 0, 0)),
    ],
)
def test_end_effector_axes_follow_the_fingers(tmp_path, place, axes, approach, opening):
    x, y, z = place
    fingers = FINGERS.format(yaw=0.3, x=x, y=y, z=z, ax=axes[0], bx=axes[1])
    robot = read_urdf(write(tmp_path, robot_xml(fingers=fingers)))
    (gripper,) = robot.grippers
    R = gripper.T_link_ee[:3, :3]
    assert gripper.ee_link == "palm"
    assert np.allclose(R[:, 2], approach)
    assert np.allclose(np.abs(R[:, 1]), opening)
    assert np.isclose(np.linalg.det(R), 1)
    assert (gripper.open_position, gripper.closed_position) == ((0.04,), (0.0,))
    assert gripper.finger_joints == ("fl",), "a mimic joint follows; it is not commanded"
    assert robot.gripper_openness(np.array([0.0, 0.01, 0.01]))[0] == pytest.approx(0.25)


def test_values_and_defaults(tmp_path):
    robot = read_urdf(
        write(tmp_path, robot_xml(fingers=FINGERS.format(yaw=0, x=0, y=0, z=0.1, ax="0 1 0", bx="0 -1 0")))
    )
    assert robot.name == "my_arm"
    first, finger = robot.joints[0], robot.joints[2]
    assert (first.kind, first.axis, first.lower, first.upper) == ("revolute", (0.0, 0.0, 1.0), -np.inf, np.inf)
    assert (finger.velocity_limit, finger.effort_limit, finger.upper) == (0.2, 20.0, 0.04)
    assert robot.joints[3].effort_limit == np.inf
    still = robot_xml(fingers=FINGERS.format(yaw=0, x=0, y=0, z=0.1, ax="0 1 0", bx="0 -1 0")).replace("0.2", "0")
    assert read_urdf(write(tmp_path, still)).joints[2].velocity_limit == np.inf, "0 is what exporters write for none"


def test_keep_links_keeps_kinematics_and_drops_fingers(tmp_path):
    robot = read_urdf(
        write(tmp_path, robot_xml(fingers=FINGERS.format(yaw=0.3, x=0, y=0, z=0.1, ax="0 1 0", bx="0 -1 0")))
    )
    arm = keep_links(robot, ["base", "a", "palm"])
    assert [link.name for link in arm.links] == ["base", "a", "palm"]
    assert arm.grippers[0].finger_joints == ()
    q = np.array([0.7, 0.0, 0.0])
    assert np.allclose(arm.forward_kinematics(q[:1], np.eye(4)), robot.forward_kinematics(q, np.eye(4))[:3])
    assert [link.name for link in keep_links(robot, ["a", "palm"], root="a").links] == ["a", "palm"]
    with pytest.raises(InputError, match="needs its parent"):
        keep_links(robot, ["base", "palm"])


def test_named_end_effector_and_robot_without_fingers(tmp_path):
    path = write(tmp_path, robot_xml())
    (bare,) = read_urdf(path).grippers
    assert (bare.ee_link, bare.kind, bare.finger_joints) == ("a", "tool", ())
    assert read_urdf(path, ee_link="a").grippers[0].ee_link == "a"
    with pytest.raises(InputError, match=r"unknown link.*'tool'.*valid: a, base"):
        read_urdf(path, ee_link="tool")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "well-formed"),
        ("<robot", "well-formed"),
        ("<sdf/>", "starts with <robot>"),
        ("<robot name='r'/>", "no <link>"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><robot name='r'><link name='a'/></robot>", "DOCTYPE"),
        (robot_xml("<link/>"), "no 'name'"),
        (robot_xml("<link name='a'/>"), "two links"),
        (robot_xml("<link name='free'/>"), "exactly one root"),
        (robot_xml("<joint name='k' type='ball'><parent link='a'/><child link='base'/></joint>"), "valid: continuous"),
        (robot_xml("<joint name='k' type='fixed'><parent link='a'/><child link='x'/></joint>"), "child link.*'x'.*valid"),
        (robot_xml("<joint name='k' type='fixed'><child link='a'/></joint>"), "parent link"),
        (robot_xml("<joint name='k' type='fixed'><parent link='a'/><child link='base'/></joint>"), "loop|root link"),
        (robot_xml("<link name='b'/><joint name='j0' type='fixed'><parent link='a'/><child link='b'/></joint>"), "share"),
        (robot_xml(CHILD.format("revolute", "<axis xyz='0 0 0'/>")), "zero axis"),
        (robot_xml(CHILD.format("fixed", "<origin xyz='1 nan 0'/>")), "three finite"),
        (robot_xml(CHILD.format("revolute", "<limit lower='low'/>")), "limit lower"),
    ],
)  # fmt: skip
def test_malformed_files_have_one_clear_error(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_urdf(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_urdf(tmp_path / "none.urdf")
