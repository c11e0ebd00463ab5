# SPDX-License-Identifier: Apache-2.0
"""Isaac Lab demonstrations and episode-recorder sessions -> Episode; files in both layouts are written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_poses, random_robot

from retake.core.cli import main
from retake.core.episode.extra import extra_of, success_of
from retake.core.errors import EpisodeError, InputError
from retake.core.geometry import wxyz_from_rotation
from retake.core.importers.episode_recorder import import_episode_recorder
from retake.core.importers.isaaclab import import_isaaclab
from retake.core.importers.recorded import joints_from_links
from retake.core.urdf import read_urdf
from retake.core.video import write_video

h5py = pytest.importorskip("h5py")

URDF = """<robot name="arm">
<link name="base"/><link name="upper"/><link name="hand"/><link name="left"/><link name="right"/>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 0.3"/><axis xyz="0 1 0"/>
<limit lower="-2" upper="2" effort="50" velocity="2"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="hand"/>
<origin xyz="0.3 0 0" rpy="0.2 0 0"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" effort="50" velocity="2"/></joint>
<joint name="finger_left" type="prismatic"><parent link="hand"/><child link="left"/><origin xyz="0.1 0 0"/><axis xyz="0 1 0"/>
<limit lower="0" upper="0.04" effort="10" velocity="1"/></joint>
<joint name="finger_right" type="prismatic"><parent link="hand"/><child link="right"/><origin xyz="0.1 0 0"/><axis xyz="0 -1 0"/>
<limit lower="0" upper="0.04" effort="10" velocity="1"/></joint>
</robot>"""
T = 7
CASE = Path(__file__).parent / "recordings/isaaclab"


@pytest.fixture
def urdf(tmp_path: Path) -> Path:
    path = tmp_path / "arm.urdf"
    path.write_text(URDF)
    return path


def motion(urdf: Path) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    robot = read_urdf(urdf)
    rng = np.random.default_rng(0)
    q = rng.uniform(0.0, 0.04, (T, 4))
    q[:, :2] = rng.uniform(-1.5, 1.5, (T, 2))
    base = np.broadcast_to(random_poses(rng), (T, 4, 4))
    return robot, q, base, robot.forward_kinematics(q, base)


def rows(poses: np.ndarray) -> np.ndarray:
    return np.concatenate([poses[..., :3, 3], wxyz_from_rotation(poses[..., :3, :3])], -1)


def lab(
    path: Path,
    urdf: Path,
    *,
    env: dict[str, Any] | None = None,
    states: bool = True,
    initial: bool = True,
    success: tuple[bool | None, ...] = (None,),
    xyzw: bool = False,
) -> Path:
    """As Isaac Lab lays it out: obs and actions before each of T - 1 steps, states after them."""
    _, q, base, _ = motion(urdf)
    cube = random_poses(np.random.default_rng(1), T)
    turned = rows(base)[:, [0, 1, 2, 4, 5, 6, 3]] if xyzw else rows(base)
    turned[:, 3:] *= np.where(np.arange(T) % 3 == 1, -1, 1)[:, None]  # q and -q are one turn
    with h5py.File(path, "w") as file:
        if xyzw:
            file.attrs["format_version"] = 1
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Isaac-Lift", "type": 2, **(env or {})})
        for number, done in enumerate(success):
            demo = data.create_group(f"demo_{number}")
            if done is not None:
                demo.attrs["success"] = done
            demo["actions"] = np.arange((T - 1) * 5, dtype=np.float32).reshape(T - 1, 5)
            for group, part in (("initial_state", slice(0, 1)), ("states", slice(1, T))):
                if not states or (group == "initial_state" and not initial):
                    continue
                state = demo.create_group(f"{group}/articulation/robot")
                state["joint_position"], state["joint_velocity"] = q[part, ::-1], q[part, ::-1] * 2
                state["root_pose"], state["root_velocity"] = turned[part], np.zeros((T, 6))[part]
                demo[f"{group}/rigid_object/cube/root_pose"] = rows(cube)[part]
            demo["obs/table_cam"] = np.arange(T - 1, dtype=np.uint8)[:, None, None, None] * np.ones(
                (8, 10, 3), np.uint8
            )
    return path


NAMES = "finger_right,finger_left,elbow,shoulder"


def test_an_isaac_lab_demonstration_becomes_an_episode(tmp_path: Path, urdf: Path) -> None:
    source = lab(tmp_path / "d.hdf5", urdf, env={"sim_args": {"dt": 0.01, "decimation": 2}})
    camera = tmp_path / "cam.json"
    camera.write_text(json.dumps({"K": [[9, 0, 5], [0, 9, 4], [0, 0, 1]], "T_camera_world": np.eye(4).tolist()}))
    arguments = ["--joints", NAMES, "--camera", f"table_cam={camera}"]
    episode = import_isaaclab(source, tmp_path / "e", urdf=urdf, arguments=arguments)
    robot, q, _, links = motion(urdf)
    assert np.array_equal(episode.joint("arm", "position"), q[:-1])
    assert np.array_equal(episode.joint("arm", "velocity"), q[:-1] * 2)
    assert np.abs(episode.link_poses("arm") - links[:-1]).max() < 1e-9
    assert [int(episode.image("table_cam", "rgb", k)[0, 0, 0]) for k in range(T - 1)] == list(range(T - 1))
    assert np.array_equal(extra_of(episode)["action"][1], np.arange((T - 1) * 5, dtype=np.float32).reshape(T - 1, 5))
    assert episode.header.fps == pytest.approx(50)
    assert episode.header.motion_source == "recorded"
    assert [o.name for o in episode.header.objects] == ["cube"]
    assert episode.image("table_cam", "rgb", 3).shape == (8, 10, 3)
    assert robot.dof_names == ("shoulder", "elbow", "finger_left", "finger_right")


def test_a_picture_of_isaac_labs_has_the_state_before_the_step(tmp_path: Path) -> None:
    """obs[k] is from before step k, states[k] from after it; the red of picture k is k."""
    source, camera = CASE / "isaaclab_camera.hdf5", CASE / "table_cam.json"
    joints = ",".join([f"panda_joint{i}" for i in range(1, 8)] + ["panda_finger_joint1", "panda_finger_joint2"])
    arguments = ["--joints", joints, "--fps", "20", "--camera", f"table_cam={camera}"]
    episode = import_isaaclab(source, tmp_path / "e", urdf=CASE / "panda.urdf", arguments=arguments)
    robot = episode.header.robots[0]
    with h5py.File(source) as file:
        seen = file["data/demo_0/obs/joint_pos"][()]
    assert len(episode) == len(seen) == 40
    order = [joints.split(",").index(name) for name in robot.dof_names]
    assert np.array_equal(episode.joint(robot.name, "position"), seen[:, order].astype(np.float64))
    assert [int(episode.image("table_cam", "rgb", k)[0, 0, 0]) for k in range(40)] == list(range(40))
    assert success_of(episode) is True
    assert extra_of(episode)["action"][1].shape == (40, 7)
    assert extra_of(episode)[f"root_velocity/{robot.name}"][1].shape == (40, 6)


def test_what_an_isaac_lab_file_lacks_or_says_is_heeded(tmp_path: Path, urdf: Path) -> None:
    _, q, _, links = motion(urdf)
    plain = ["--joints", NAMES, "--fps", "50"]
    # Isaac Lab 3 stamps its files; older ones are w x y z.
    new = import_isaaclab(lab(tmp_path / "3.hdf5", urdf, xyzw=True), tmp_path / "e3", urdf=urdf, arguments=plain)
    assert np.abs(new.link_poses("arm") - links[:-1]).max() < 1e-9
    with h5py.File(tmp_path / "3.hdf5") as file:
        first, after = (
            file[f"data/demo_0/{g}/articulation/robot/root_pose"][:, 3:] for g in ("initial_state", "states")
        )
    held = np.concatenate([first, after])[: T - 1].astype(np.float32)
    assert np.array_equal(extra_of(new)["root_quaternion/arm"][1], held), "with the signs of the file"
    # Without an initial state the first picture has no state.
    camera = tmp_path / "cam.json"
    camera.write_text(json.dumps({"K": [[9, 0, 5], [0, 9, 4], [0, 0, 1]], "T_camera_world": np.eye(4).tolist()}))
    late = import_isaaclab(
        lab(tmp_path / "l.hdf5", urdf, initial=False), tmp_path / "l", urdf=urdf,
        arguments=[*plain, "--camera", f"table_cam={camera}"],
    )  # fmt: skip
    assert np.array_equal(late.joint("arm", "position"), q[1:-1])
    assert int(late.image("table_cam", "rgb", 0)[0, 0, 0]) == 1
    # Failed demonstrations are named and left out, unless asked for.
    mixed = lab(tmp_path / "m.hdf5", urdf, success=(False, True, False))
    chosen = import_isaaclab(mixed, tmp_path / "m", urdf=urdf, arguments=plain)
    assert chosen.header.settings["imported"]["demo"] == "demo_1"
    with pytest.raises(EpisodeError, match=r"demo_0, demo_2 failed.*--failed.*demo_1 did not fail"):
        import_isaaclab(mixed, tmp_path / "no", urdf=urdf, arguments=[*plain, "--demo", "demo_2"])
    asked = import_isaaclab(mixed, tmp_path / "f", urdf=urdf, arguments=[*plain, "--demo", "demo_2", "--failed"])
    assert success_of(asked) is False
    # Actions that are absolute joint positions become targets.
    commanded = import_isaaclab(
        mixed, tmp_path / "t", urdf=urdf, arguments=[*plain, "--targets", "shoulder,-,elbow"]
    ).joint("arm", "target")
    assert np.array_equal(commanded[:, 0], np.arange(T - 1) * 5.0)
    assert np.array_equal(commanded[:, 1], np.arange(T - 1) * 5.0 + 2)
    assert np.array_equal(commanded[:, 2:], q[:-1, 2:])
    with pytest.raises(InputError, match="unknown joint in --targets 'knee'"):
        import_isaaclab(mixed, tmp_path / "no", urdf=urdf, arguments=[*plain, "--targets", "knee"])


@pytest.mark.parametrize("damage", ["short", "changed", "index"])
def test_damaged_extra_rows_are_refused(tmp_path: Path, urdf: Path, damage: str) -> None:
    episode = import_isaaclab(
        lab(tmp_path / "d.hdf5", urdf), tmp_path / "e", urdf=urdf, arguments=["--joints", NAMES, "--fps", "50"]
    )
    data = (tmp_path / "e/extra.bin").read_bytes()
    if damage == "index":
        (tmp_path / "e/extra.json").write_text("{}")
    else:
        (tmp_path / "e/extra.bin").write_bytes(data[:-4] if damage == "short" else b"\1" + data[1:])
    with pytest.raises(EpisodeError, match=r"extra\.(bin|json)"):
        extra_of(episode)


def test_everything_missing_is_listed_at_once(tmp_path: Path, urdf: Path) -> None:
    source = lab(tmp_path / "d.hdf5", urdf)
    with pytest.raises(EpisodeError) as caught:
        import_isaaclab(source, tmp_path / "e")
    for text in ("names of the 4 joints: --joints", "--urdf", "steps per second: --fps"):
        assert text in str(caught.value)
    with pytest.raises(EpisodeError, match="robot states"):
        import_isaaclab(lab(tmp_path / "n.hdf5", urdf, states=False), tmp_path / "e", urdf=urdf)
    assert not (tmp_path / "e").exists()


def test_wrong_arguments_name_what_is_valid(tmp_path: Path, urdf: Path) -> None:
    source = lab(tmp_path / "d.hdf5", urdf)
    with pytest.raises(EpisodeError, match="it has: demo_0"):
        import_isaaclab(source, tmp_path / "e", urdf=urdf, arguments=["--demo", "demo_9"])
    with pytest.raises(EpisodeError, match="names from shoulder, elbow"):
        import_isaaclab(source, tmp_path / "e", urdf=urdf, arguments=["--fps", "50", "--joints", "a,b,c,d"])
    with pytest.raises(InputError, match="lacks finger_right"):
        import_isaaclab(
            source, tmp_path / "e", urdf=urdf, arguments=["--fps", "50", "--joints", "shoulder,elbow,finger_left,elbow"]
        )
    with pytest.raises(EpisodeError, match="it has: table_cam"):
        import_isaaclab(
            source, tmp_path / "e", urdf=urdf, arguments=["--fps", "50", "--joints", NAMES, "--camera", f"x={urdf}"]
        )
    for fps in ("1e12", "1e400"):
        with pytest.raises(EpisodeError, match="fps must be a positive number up to 10000; found"):
            import_isaaclab(source, tmp_path / "e", urdf=urdf, arguments=["--fps", fps, "--joints", NAMES])
    assert not (tmp_path / "e").exists()
    (tmp_path / "bad.hdf5").write_text("no")
    with pytest.raises(EpisodeError, match="not a readable HDF5"):
        import_isaaclab(tmp_path / "bad.hdf5", tmp_path / "e", urdf=urdf)


def session(path: Path, urdf: Path, *, version: int = 2, times: bool = True) -> Path:
    robot, _, _, links = motion(urdf)
    tracks: list[dict[str, Any]] = [
        {
            "type": "articulation",
            "group": "state/arm",
            "prim_path": "/World/arm",
            "link_paths": [f"/World/arm/{x.name}" for x in reversed(robot.links)],
        },
        {"type": "rigid_body", "group": "state/cube", "prim_path": "/World/Cube"},
        {"type": "camera", "group": "state/cam", "prim_path": "/World/Cam"},
    ]
    if times:
        tracks.append({"type": "sim_time", "group": "meta/time"})
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = version
        file["manifest/tracks"] = json.dumps(tracks)
        group = file.create_group("episodes/episode_00000")
        group["state/arm/positions"] = links[:, ::-1, :3, 3].astype("f4")
        group["state/arm/orientations"] = wxyz_from_rotation(links[:, ::-1, :3, :3]).astype("f4")
        for name in ("cube", "cam"):
            group[f"state/{name}/position"] = np.zeros((T, 3), "f4")
            group[f"state/{name}/orientation"] = np.tile(np.float32([1, 0, 0, 0]), (T, 1))
        group["state/cam/focal_length"], group["state/cam/horizontal_aperture"] = np.full(T, 24.0), np.full(T, 20.0)
        if times:
            group["meta/time/sim_time"] = np.arange(T) / 30
    return path


def test_an_episode_recorder_session_becomes_an_episode(tmp_path: Path, urdf: Path) -> None:
    source = session(tmp_path / "s.hdf5", urdf)
    write_video(tmp_path / "rgb.mp4", [np.full((24, 32, 3), 90, np.uint8)] * T, 30)
    arguments = ["--images", f"/World/Cam={tmp_path / 'rgb.mp4'}", "--task", "stack"]
    episode = import_episode_recorder(source, tmp_path / "e", urdf=urdf, arguments=arguments)
    _, q, _, _ = motion(urdf)
    assert np.abs(episode.joint("arm", "position") - q).max() < 1e-5
    assert episode.header.fps == pytest.approx(30)
    K, T_camera_world = episode.camera_matrices("Cam")
    assert K[0, 0, 0] == pytest.approx(24 / 20 * 32)
    assert np.allclose(T_camera_world[0], np.diag([1.0, -1, -1, 1]))


def test_a_session_that_is_not_enough_says_why(tmp_path: Path, urdf: Path) -> None:
    with pytest.raises(EpisodeError, match="schema 1; expected"):
        import_episode_recorder(session(tmp_path / "a.hdf5", urdf, version=1), tmp_path / "e", urdf=urdf)
    with pytest.raises(EpisodeError, match=r"(?s)--urdf.*--fps"):
        import_episode_recorder(session(tmp_path / "b.hdf5", urdf, times=False), tmp_path / "e")
    with pytest.raises(EpisodeError, match="it has: /World/Cam"):
        import_episode_recorder(
            session(tmp_path / "c.hdf5", urdf), tmp_path / "e", urdf=urdf, arguments=["--images", f"/World/X={urdf}"]
        )


GROUP = "episodes/episode_00000"


def rewritten(source: Path, **changes: Any) -> Path:
    """A session with other contents; `tracks` is a function of the manifest's list, None takes a dataset away."""
    with h5py.File(source, "r+") as file:
        if change := changes.pop("tracks", None):
            found = json.loads(file["manifest/tracks"][()])
            del file["manifest/tracks"]
            file["manifest/tracks"] = json.dumps(change(found))
        for name, values in changes.items():
            del file[f"{GROUP}/{name}"]
            if values is not None:
                file[f"{GROUP}/{name}"] = values
    return source


def _lacks(index: int, key: str) -> Any:
    return lambda tracks: [{k: v for k, v in t.items() if i != index or k != key} for i, t in enumerate(tracks)]


@pytest.mark.parametrize(("changes", "words"), [
    ({"tracks": lambda tracks: {"a": 1}}, "damaged, or no recording of Isaac Sim's episode recorder"),
    ({"tracks": _lacks(0, "type")}, "it has no type"), ({"tracks": _lacks(0, "link_paths")}, "it has no link_paths"),
    ({"state/cube": None}, "cube"),
    ({"state/arm/positions": np.zeros((3, 5, 3))}, r"positions \(3, 5, 3\) and orientations \(7, 5, 4\)"),
    ({"state/cube/position": np.zeros((2, 3)), "state/cube/orientation": np.eye(4)[[0, 0]]}, "another number of poses of Cube"),
    ({"state/cam/horizontal_aperture": np.zeros(T)}, "division"), ({"state/cam/focal_length": np.ones(2)}, "out of range"),
    ({"meta/time/sim_time": np.arange(3.0)}, "3 times for 7 frames; --fps"),
    ({"meta/time/sim_time": np.zeros(T)}, "time of frame 1 is 0 s, not after"),
    ({"meta/time/sim_time": np.array([0, 1, 2, np.nan, 4, 5, 6])}, "time of frame 3 is nan s"),
    ({"meta/time/sim_time": np.array([0, 1, 2, 9, 10, 11, 12.0]) / 30}, r"clock is uneven: frame 3 is 0\.1000 s .*--fps RATE"),
])  # fmt: skip
def test_a_session_that_is_damaged_says_where(tmp_path: Path, urdf: Path, changes: dict[str, Any], words: str) -> None:
    source = rewritten(session(tmp_path / "s.hdf5", urdf), **changes)
    write_video(tmp_path / "rgb.mp4", [np.full((24, 32, 3), 90, np.uint8)] * T, 30)
    with pytest.raises(EpisodeError, match=words):
        import_episode_recorder(
            source, tmp_path / "e", urdf=urdf, arguments=["--images", f"/World/Cam={tmp_path / 'rgb.mp4'}"]
        )


@pytest.mark.parametrize(
    ("size", "words"), [("8193x24", "1 to 8192"), ("32x0", "1 to 8192"), ("99999x99999", "1 to 8192")]
)
def test_a_size_that_no_picture_has_is_refused_where_it_is_asked_for(tmp_path: Path, size: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"--size '{size}': .*{words}"):
        import_episode_recorder(tmp_path / "s.hdf5", tmp_path / "e", arguments=["--size", size])


def test_a_damaged_file_of_isaac_lab_says_where(tmp_path: Path, urdf: Path) -> None:
    source = lab(tmp_path / "d.hdf5", urdf, env={"sim_args": {"dt": "fast", "decimation": 2}})
    with pytest.raises(EpisodeError, match=r"d\.hdf5 is damaged, or no recording of Isaac Lab: .*fast"):
        import_isaaclab(source, tmp_path / "e", urdf=urdf, arguments=["--joints", NAMES])


def imported(source: Path, run: Path, *more: object) -> int:
    return main(["import", "episode-recorder", str(source), "--run", str(run), *map(str, more)])


def test_a_refused_import_leaves_folders_as_they_were(
    tmp_path: Path, urdf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, empty = session(tmp_path / "s.hdf5", urdf), tmp_path / "empty"
    empty.mkdir()
    before = sorted(tmp_path.rglob("*"))
    for run in (empty, tmp_path / "new" / "a" / "run"):
        assert imported(source, run) == 2
        assert "--urdf robot.urdf" in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before


def test_an_import_that_was_killed_is_begun_anew_and_a_whole_one_kept(
    tmp_path: Path, urdf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, run = session(tmp_path / "s.hdf5", urdf), tmp_path / "run"
    assert imported(source, run, "--urdf", urdf) == 0
    (run / "episode").rename(run / ".episode.abc.tmp")  # as a kill leaves it
    (run / ".episode.abc.tmp" / "complete.json").unlink()
    assert imported(source, run, "--urdf", urdf) == 0
    assert sorted(p.name for p in run.iterdir()) == [".lock", "episode", "run.json"]
    whole = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert imported(source, run, "--urdf", urdf) == 2
    assert "holds an episode already" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == whole


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_joints_from_links_undoes_forward_kinematics(seed: int, arm_joints: int) -> None:
    rng = np.random.default_rng(seed)
    robot = random_robot(rng, arm_joints=arm_joints)
    start, end = rng.uniform(-1, 1, (2, len(robot.dof_names)))
    q = start + np.linspace(0, 1, 9)[:, None] * (end - start)
    links = robot.forward_kinematics(q, np.broadcast_to(random_poses(rng), (9, 4, 4)))
    assert np.abs(joints_from_links(robot, links) - q).max() < 1e-9
