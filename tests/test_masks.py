# SPDX-License-Identifier: Apache-2.0
"""Masks for recorded episodes: meshes are read, drawn where they are, and a calibration that is off is found again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    RobotState,
    open_episode,
)
from retake.core.errors import InputError
from retake.core.geometry import axis_angle
from retake.core.masks import mask_episode, read_meshes, read_robot
from retake.core.masks.cli import main
from retake.core.masks.meshes import Surface, read_mesh
from retake.core.masks.raster import paint
from retake.core.robot import RobotSpec
from retake.core.urdf import read_urdf
from retake.core.verdicts import judge

SIZE, COUNT = (320, 240), 48
K = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
TRUE = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0.35], [0, 1.0, 0, 1.6], [0, 0, 0, 1]])
LATE = 1.0
"""Frames by which the recording's states run ahead of its pictures."""

URDF = """<robot name="arm">
 <link name="base"><visual><origin xyz="0 0 0.05"/><geometry><box size="0.16 0.16 0.1"/></geometry></visual></link>
 <link name="upper"><visual><origin xyz="0 0 0.17"/><geometry><box size="0.07 0.06 0.34"/></geometry></visual></link>
 <link name="fore"><collision><origin xyz="0 0 0.13"/><geometry><mesh filename="package://x/fore.dae"/></geometry></collision></link>
 <link name="tool"/>
 <joint name="a" type="revolute"><parent link="base"/><child link="upper"/>
<origin xyz="0 0 0.1"/><axis xyz="0 1 0"/>
  <limit lower="-3" upper="3" velocity="9" effort="9"/></joint>
 <joint name="b" type="revolute"><parent link="upper"/><child link="fore"/>
<origin xyz="0 0 0.34"/><axis xyz="0 1 0"/>
  <limit lower="-3" upper="3" velocity="9" effort="9"/></joint>
 <joint name="c" type="fixed"><parent link="fore"/><child link="tool"/><origin xyz="0 0 0.26"/></joint>
</robot>"""
FORE_OBJ = "\n".join(
    [f"v {x} {y} {z}" for x in (-0.03, 0.03) for y in (-0.02, 0.02) for z in (-0.13, 0.13)]
    + [
        f"f {a} {b} {c} {d}"
        for a, b, c, d in ((1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4))
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A URDF whose forearm's mesh lies elsewhere, as .obj instead of .dae."""
    path = tmp_path_factory.mktemp("robot")
    (path / "arm.urdf").write_text(URDF)
    (path / "meshes" / "deep").mkdir(parents=True)
    (path / "meshes" / "deep" / "Fore.obj").write_text(FORE_OBJ)
    return path


def angles(t: np.ndarray) -> np.ndarray:
    """Joint positions (T, 2) at times in frames."""
    return np.stack([0.7 * np.sin(t / 7) + 0.1 * np.sin(t / 2.3), 0.9 * np.cos(t / 6)], -1)


def film(robot: RobotSpec, surfaces: list[Surface], links: list[int], t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frames (T, H, W, 3), masks (T, H, W)) of the robot seen by the true camera over a patterned wall."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.uniform(70, 190, (9, 12, 3)), SIZE, interpolation=cv2.INTER_CUBIC)
    poses = robot.forward_kinematics(angles(t), np.broadcast_to(np.eye(4), (len(t), 4, 4)))
    frames, masks = [], []
    for pose in poses:
        ids, _ = paint(surfaces, pose[links], range(1, len(links) + 1), K, TRUE, SIZE)
        image = np.where(ids[..., None] > 0, np.array([235, 90, 40]) - 50 * (ids[..., None] % 2), wall)
        frames.append(
            np.clip(cv2.GaussianBlur(image, (0, 0), 0.7) + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        )
        masks.append(ids)
    return np.stack(frames), np.stack(masks)


@pytest.fixture(scope="module")
def case(folder: Path) -> tuple[Episode, np.ndarray, np.ndarray]:
    """(a recorded episode with a wrong calibration and clock, its pictures, the true masks)."""
    robot = read_urdf(folder / "arm.urdf", "tool")
    found = read_meshes(folder / "arm.urdf", folder / "meshes")
    links = [i for i, link in enumerate(robot.links) if link.name in found.surfaces]
    t = np.arange(COUNT, dtype=float)
    frames, masks = film(robot, [found.surfaces[robot.links[i].name] for i in links], links, t)
    off = np.eye(4)
    off[:3, :3] = axis_angle(np.array([0.0, 0, 1]), np.float64(0.05)) @ axis_angle(
        np.array([0.0, 1, 0]), np.float64(0.03)
    )
    off[:3, 3] = [0.03, -0.04, 0.02]
    header = EpisodeHeader(
        task="t", fps=15.0, physics_dt_s=1 / 15, robots=(robot,), cameras=(CameraSpec("cam", "", SIZE, True, ("rgb",)),),
        simulator="recorded", motion_source="recorded", joint_channels=(),
    )  # fmt: skip
    q = angles(t + LATE)
    poses = robot.forward_kinematics(q, np.broadcast_to(np.eye(4), (COUNT, 4, 4)))
    with EpisodeWriter(folder / "episode", header) as writer:
        for k, image in enumerate(frames):
            state = RobotState(q[k], poses[k], robot.gripper_openness(q[k]))
            writer.append(Frame(k / 15, (state,), np.zeros((0, 4, 4)), (CameraFrame(K, off @ TRUE, image),)))
        return writer.finish(), frames, masks


STEPS: list[tuple[int, int]] = []


@pytest.fixture(scope="module")
def masked(folder: Path, case: tuple[Episode, np.ndarray, np.ndarray]) -> Episode:
    return mask_episode(
        case[0], folder / "masked", folder / "arm.urdf", folder / "meshes",
        progress=lambda done, total, note: STEPS.append((done, total)) if note == "masks" else None,
    )  # fmt: skip


def test_progress_counts_every_frame(masked: Episode) -> None:
    assert [(k + 1, len(masked)) for k in range(len(masked))] == STEPS


def test_a_wrong_calibration_and_clock_are_found(masked: Episode, case: tuple[Episode, np.ndarray, np.ndarray]) -> None:
    told = masked.header.settings["masks"]["calibration"]
    assert told["time_offset_frames"] == pytest.approx(-LATE, abs=0.3)
    assert told["agreement"] > max(told["agreement_before"] + 0.1, 0.7)
    assert told["spread_px"] < 2
    overlap = []
    for t in range(4, COUNT, 6):
        mine, true = masked.image("cam", "instances", t) > 0, case[2][t] > 0
        overlap.append((mine & true).sum() / (mine | true).sum())
    assert np.median(overlap) > 0.85
    assert [i.owner for i in masked.header.instances] == ["robot:arm"] * 3
    depth = masked.image("cam", "depth", 10)
    assert np.abs(depth[masked.image("cam", "instances", 10) > 0] - 1.6).max() < 0.4
    masked.verify()


def test_takes_are_judged_by_their_change(masked: Episode, case: tuple[Episode, np.ndarray, np.ndarray]) -> None:
    frames = case[1]
    true = judge(np.ascontiguousarray(frames[..., [2, 0, 1]]), masked, "cam")
    assert true.overall != "fail", [c for c in true.checks if c.status == "fail"]
    assert "on the recording itself" in true.check("arm_offset").note
    assert judge(frames[np.clip(np.arange(COUNT) - 2, 0, None)], masked, "cam").overall == "fail"
    moved = np.stack(
        [cv2.warpAffine(f, np.array([[1, 0, 7.0], [0, 1, 0]]), SIZE, borderMode=cv2.BORDER_REPLICATE) for f in frames]
    )
    assert judge(moved, masked, "cam").overall == "fail"


def test_nearer_surfaces_hide_farther_ones_and_pixels_are_exact() -> None:
    corners = np.array([[-0.1, -0.1, 0], [0.1, -0.1, 0], [0.1, 0.1, 0], [-0.1, 0.1, 0]])
    square = Surface(corners, np.array([[0, 1, 2], [0, 2, 3]]))
    poses = np.stack([np.eye(4), np.eye(4)])
    poses[0, :3, 3], poses[1, :3, 3] = [0, 0, 1.0], [0.05, 0, 2.0]
    ids, depth = paint([square, square], poses, [1, 2], K, np.eye(4), SIZE)
    # 0.2 m at 1 m are 60 px around the principal point (160, 120); 0.2 m at 2 m are 30 px around 167.5.
    rows, columns = np.nonzero(ids == 1)
    assert abs(columns.min() - 130) <= 1
    assert abs(columns.max() - 189) <= 1
    assert abs(rows.min() - 90) <= 1
    assert not (ids == 2).any()
    assert depth[120, 160] == pytest.approx(1.0)
    poses[1, :3, 3] = [0.5, 0, 2.0]
    ids, depth = paint([square, square], poses, [1, 2], K, np.eye(4), SIZE)
    assert ids[120, 235] == 2
    assert depth[120, 235] == pytest.approx(2.0)
    assert not paint([square], -poses[:1], [1], K, np.eye(4), SIZE)[0].any()


def test_meshes_are_read_in_every_form(tmp_path: Path) -> None:
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    record = np.zeros(1, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]))
    record["corners"] = triangle
    (tmp_path / "binary.stl").write_bytes(b"\0" * 80 + (1).to_bytes(4, "little") + record.tobytes())
    lines = "".join(f"vertex {x} {y} {z}\n" for x, y, z in triangle)
    (tmp_path / "ascii.stl").write_text(
        f"solid s\nfacet normal 0 0 1\nouter loop\n{lines}endloop\nendfacet\nendsolid s\n"
    )
    (tmp_path / "quad.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/1 2/2 3/3 4/4\nf -4 -3 -2\n")
    for name, count in (("binary.stl", 1), ("ascii.stl", 1), ("quad.obj", 3)):
        vertices, faces = read_mesh(tmp_path / name)
        assert len(faces) == count
        assert np.ptp(vertices, axis=0).tolist() == [1, 1, 0]
    for name, text in (
        ("none.obj", "v 0 0 0\n"),
        ("wrong.obj", "v 0 0 0\nf 1 2 3\n"),
        ("torn.stl", "solid x\nvertex 1"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            read_mesh(tmp_path / name)


def test_what_cannot_be_masked_is_said_in_words(
    folder: Path, case: tuple[Episode, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.urdf"
    bare.write_text(
        '<robot name="arm"><link name="base"><visual><geometry><mesh filename="gone.dae"/></geometry></visual></link></robot>'
    )
    with pytest.raises(InputError, match=r"looked for gone\.dae under .*--meshes DIR"):
        read_meshes(bare)
    other = tmp_path / "other.urdf"
    other.write_text(URDF.replace("0 0 0.34", "0 0 0.44"))
    with pytest.raises(InputError, match=r"another robot: .* mm"):
        mask_episode(case[0], tmp_path / "x", other, folder / "meshes")
    lacking = tmp_path / "lacking.urdf"
    lacking.write_text(URDF.replace('name="b"', 'name="elbow"'))
    with pytest.raises(InputError, match="lacks joints that the episode recorded: b"):
        mask_episode(case[0], tmp_path / "x", lacking, folder / "meshes")
    assert not (tmp_path / "x").exists()


def test_the_command_line_says_what_was_found(
    folder: Path, case: tuple[Episode, np.ndarray, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(case[0].path), "--urdf", str(folder / "arm.urdf"), "--out", str(tmp_path / "out"), "--no-fit"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "calibration: as recorded" in out
    assert "without a readable mesh: fore" in out
    assert len(open_episode(tmp_path / "out")) == COUNT


JAW = """<robot name="j"><link name="base"/>
<link name="l1"/><link name="l2"/><link name="l3"/>
<link name="hand"><visual><origin xyz="0.06 -0.015 0"/><geometry><box size="0.12 0.01 0.03"/></geometry></visual></link>
<link name="jaw"><visual><origin xyz="0.045 0 0"/><geometry><box size="0.09 0.01 0.02"/></geometry></visual></link>
<joint name="a" type="revolute"><parent link="base"/><child link="l1"/>
<origin xyz="0 0 0.1"/><axis xyz="0 0 1"/><limit lower="-2" upper="2"/></joint>
<joint name="b" type="revolute"><parent link="l1"/><child link="l2"/>
<origin xyz="0 0 0.1"/><axis xyz="0 1 0"/><limit lower="-2" upper="2"/></joint>
<joint name="c" type="revolute"><parent link="l2"/><child link="l3"/>
<origin xyz="0 0 0.1"/><axis xyz="0 1 0"/><limit lower="-2" upper="2"/></joint>
<joint name="d" type="revolute"><parent link="l3"/><child link="hand"/>
<origin xyz="0 0 0.05"/><axis xyz="1 0 0"/><limit lower="-2" upper="2"/></joint>
<joint name="gripper" type="revolute"><parent link="hand"/><child link="jaw"/>
<origin xyz="0.02 0.015 0.02"/><axis xyz="0 0 1"/><limit lower="0" upper="1.6"/></joint>
</robot>"""


def test_a_recordings_robot_is_searched_with_its_geometry(tmp_path):
    """One jaw beside its carrier (as on SO-101): without geometry its approach is a guess, 37 degrees off here."""
    file = tmp_path / "jaw.urdf"
    file.write_text(JAW, encoding="utf-8")
    (end,) = read_robot(file).grippers
    assert (end.ee_link, end.kind, end.open_position, end.closed_position) == ("hand", "jaw", (1.6,), (0.0,))
    np.testing.assert_allclose(end.T_link_ee[:3, 2], (1, 0, 0), atol=1e-9)
    assert read_robot(file, "hand").grippers[0].kind == "gripper", "a named link is taken as it is"
    broken = tmp_path / "broken.urdf"
    broken.write_text(JAW.replace('<box size="0.12 0.01 0.03"/>', '<box size="wide"/>'), encoding="utf-8")
    assert read_robot(broken).grippers[0].ee_link == "hand", "geometry that cannot be read is done without"
