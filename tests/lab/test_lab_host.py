# SPDX-License-Identifier: Apache-2.0
"""retake.lab in the real Isaac Lab 3 (Newton, CPU): `make test-lab`. Skips where it is not installed (`make lab-env`)."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed here; `make lab-env`, then `make test-lab`")
pytest.importorskip("torch")

import lab_support as lab
import torch

from retake.core.episode import open_episode
from retake.core.episode.check import check_episode
from retake.core.episode.extra import extra_of, success_of
from retake.core.errors import InputError, RunError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.isaaclab_env import LabTarget
from retake.core.geometry import inverse, pose_from_wxyz, wxyz_from_xyzw
from retake.lab import cli, replay
from retake.lab.preparation import prepare
from retake.lab.request import RecordRequest
from retake.lab.terms import RetakeRecorderCfg, RetakeRecorderManagerCfg
from retake.lab.wrapper import RetakeWrapper

STEPS = 8
EXAMPLE = str(lab.ROOT / "exts/retake.lab/examples/pick_place_env.py")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two clones, recorded by the term beside an oracle term; clone 1 is read. One forced time-out, then a close."""
    out = tmp_path_factory.mktemp("recorded")
    cfg = lab.config(2)
    term = RetakeRecorderCfg(out=str(out), env_ids=None, scenery=("Tray",), task="pick up the packet")
    cfg.recorders = RetakeRecorderManagerCfg(retake=term)
    cfg.recorders.oracle = lab.OracleCfg()
    env = lab.ManagerBasedRLEnv(cfg)
    import scripted

    policy = scripted.policy(env)
    obs, _ = env.reset()
    terms = env.recorder_manager._terms
    for k in range(STEPS):
        if k == STEPS - 1:
            env.episode_length_buf[1] = env.max_episode_length - 1
        obs, *_ = env.step(policy(env, obs))
    for _ in range(2):
        obs, *_ = env.step(policy(env, obs))
    oracle, recorder = terms["oracle"], terms["retake"].recorder
    names = (list(env.scene["robot"].joint_names), list(env.scene["robot"].body_names))
    K = {name: env.scene[name].data.intrinsic_matrices.torch[1].numpy().copy() for name in ("front", "wrist")}
    origins = env.scene.env_origins.numpy().astype(np.float64)
    del terms, policy
    env.close()
    gc.collect()
    return {"out": out, "rows": oracle.rows, "recorder": recorder, "names": names, "K": K, "origins": origins}


def episode_of(recorded: dict[str, Any], name: str) -> Any:
    return open_episode(recorded["out"] / name / "episode")


def test_states_are_the_environments_own_bit_for_bit(recorded: dict[str, Any]) -> None:
    joints, bodies = recorded["names"]
    for clone in (0, 1):
        episode = episode_of(recorded, f"env{clone:03d}_0000")
        robot = episode.header.robots[0]
        length = STEPS + 1 if clone == 1 else STEPS + 2
        assert len(episode) == length, "clone 1 ended with its time-out, clone 0 with the environment"
        order = [joints.index(n) for n in robot.dof_names]
        rows = [bodies.index(link.name) for link in robot.links]
        column = [o.name for o in episode.header.objects].index("packet")
        for k in range(STEPS):
            row = {key: value[clone].numpy() for key, value in recorded["rows"][k].items()}
            assert np.array_equal(episode.joint("robot", "position")[k], row["q"][order].astype(np.float64))
            assert np.array_equal(episode.joint("robot", "velocity")[k], row["dq"][order].astype(np.float64))
            assert np.array_equal(episode.joint("robot", "effort")[k], row["effort"][order].astype(np.float64))
            assert np.array_equal(episode.joint("robot", "target")[k], row["target"][order].astype(np.float64))
            world = pose_from_wxyz(
                row["links"][rows, :3].astype(np.float64) - recorded["origins"][clone],
                wxyz_from_xyzw(row["links"][rows, 3:].astype(np.float64)),
            )
            assert np.array_equal(episode.link_poses("robot")[k], world)
            back = (episode.object_poses[k, column, :3, 3] + recorded["origins"][clone]).astype(np.float32)
            assert np.array_equal(back, row["packet"][:3])
            extra = extra_of(episode)
            assert np.array_equal(extra["action"][1][k], row["action"])
            assert np.array_equal(extra["root_velocity/packet"][1][k], row["velocity"])
        assert extra["action"][0] == (*(f"arm.{i}" for i in range(7)), "fingers.0", "fingers.1")


def test_links_agree_with_kinematics_and_cameras_with_their_links(recorded: dict[str, Any]) -> None:
    episode = episode_of(recorded, "env001_0000")
    robot = episode.header.robots[0]
    links = episode.link_poses("robot")
    expected = robot.forward_kinematics(episode.joint("robot", "position"), links[:, robot.root])
    assert np.abs(links - expected).max() < 1e-5
    for name in ("front", "wrist"):
        K, T = episode.camera_matrices(name)
        assert np.array_equal(K[0], recorded["K"][name].astype(np.float64))
    # The wrist camera is carried by the hand: one pose in the hand's frame, that of the configuration.
    carried = inverse(T @ links[:, robot.link_index("panda_hand")])
    assert np.abs(carried - carried[0]).max() < 1e-5
    assert np.allclose(carried[0, :3, 3], [0.075, 0, 0], atol=1e-5)
    front = episode.camera_matrices("front")[1]
    assert np.allclose(inverse(front[0])[:3, 3], [1.5, -0.9, 0.95], atol=1e-6)
    failed = [i.name for i in check_episode(episode).items if i.status == "fail"]
    assert failed == [] or failed == ["camera wrist sees the robot"], failed


def test_masks_depth_and_normals_agree_with_our_own_geometry(recorded: dict[str, Any]) -> None:
    episode = episode_of(recorded, "env001_0000")
    for k in (0, len(episode) - 1):
        outline, mask = (
            lab.box_silhouette(episode, "packet", "front", k),
            lab.mask_of(episode, "object:packet", "front", k),
        )
        assert mask.sum() > 50
        assert lab.beyond(mask, outline) == 0
        assert lab.beyond(outline & ~lab.mask_of(episode, "robot:robot", "front", k), mask) == 0
        table = next(i.id for i in episode.header.instances if i.prim_path.endswith("/Table"))
        normals = episode.image("front", "normals", k)
        top = (episode.image("front", "instances", k) == table) & (normals[..., 2] > 32000)
        assert top.sum() > 500
        depth = episode.image("front", "depth", k)
        assert np.abs(depth - lab.plane_depth(episode, "front", k, 0.0))[top].max() < 1e-4
    ids = np.unique(episode.image("front", "instances", 0))
    seen = {i.prim_path.rpartition("/")[2] for i in episode.header.instances if i.id in ids}
    assert {"panda_link1", "panda_hand", "Packet", "Table", "Tray", "Floor"} <= seen


def test_an_episode_ends_where_the_environment_ends_it(recorded: dict[str, Any]) -> None:
    first, second = episode_of(recorded, "env001_0000"), episode_of(recorded, "env001_0001")
    assert success_of(first) is False
    assert len(second) == 2
    assert np.allclose(second.joint("robot", "position")[0], first.joint("robot", "position")[0], atol=0.05)
    moved = np.abs(second.object_poses[0, 0, :2, 3] - first.object_poses[-1, 0, :2, 3]).max()
    shown = lab.box_silhouette(second, "packet", "front", 0)
    assert lab.beyond(lab.mask_of(second, "object:packet", "front", 0), shown) == 0, (
        f"the packet was put {moved} m away"
    )


# One environment at a time: what makes its own comes before `shared`.


def command(capsys: Any, *words: Any) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command line."""
    gc.collect()
    code = cli.main([str(word) for word in words])
    gc.collect()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_checkpoint_is_recorded_exported_and_replayed(tmp_path: Path, capsys: Any) -> None:
    """The whole way on the command line: a TorchScript policy, an HDF5 of it, its replay by actions and by states."""

    class Nod(torch.nn.Module):
        def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
            return obs["joint_pos"] + 0.02

    model = tmp_path / "policy.pt"
    torch.jit.script(Nod()).save(str(model))
    common = ("--import", EXAMPLE, "--camera", "front:64x48", "--quiet", "--seed", 3)
    code, out, _ = command(
        capsys, "record", *common, "--task", lab.pick_place_env.TASK, "--policy", model, "--steps", 8, "--out",
        tmp_path / "r", "--physics-rate",
    )  # fmt: skip
    assert code == 0, out
    first = open_episode(tmp_path / "r/env000_0000/episode")
    assert "next: retake run --run" in out
    tracks = [first.physics(k) for k in range(len(first))]
    assert [len(t.time_s) for t in tracks] == [1] + [12] * 7
    assert np.allclose(np.diff(np.concatenate([t.time_s for t in tracks])), 1 / 240, atol=1e-9)
    assert all(np.array_equal(t.T_world_object[-1], first.object_poses[k]) for k, t in enumerate(tracks))
    seen = extra_of(first)["action"][1][:-1] - 0.02
    order = [first.header.robots[0].dof_index(n) for n in (*lab.pick_place_env.ARM, *lab.pick_place_env.FINGERS)]
    assert np.allclose(seen[1:], first.joint("robot", "position")[1:-1][:, order], atol=1e-6), "the policy's own words"
    options = ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(3, lab.pick_place_env.TASK))
    export([tmp_path / "r/env000_0000"], tmp_path / "d", options, Selection(include_sim=True, unverified=True))
    demos = tmp_path / "d/dataset.hdf5"
    for name, more in (("actions", ()), ("states", ("--states",))):
        code, out, err = command(capsys, "replay", demos, *common, "--out", tmp_path / name, *more)
        assert code == 0, err
        assert "demo_0: as recorded" in out
        again = open_episode(tmp_path / f"{name}/env000_0000/episode")
        assert len(again) == len(first) == 8
        off = np.abs(again.joint("robot", "position") - first.joint("robot", "position")).max()
        assert off < 1e-6, f"{name}: {off}"
        assert np.abs(again.object_poses - first.object_poses).max() < 1e-6
        # The pictures that the recording had: the same scene, drawn again.
        shown = [e.image("front", "rgb", 7).astype(int) for e in (first, again)]
        assert np.abs(shown[0] - shown[1]).mean() < 0.5


def test_kit_is_started_by_the_wheels_own_launcher(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    """Isaac Sim is not to be had here. What is: the launcher's file in the wheel, which says what it takes and how it ends."""
    words = (
        "record",
        "--kit",
        "--import",
        EXAMPLE,
        "--task",
        lab.pick_place_env.TASK,
        "--out",
        tmp_path / "o",
        "--quiet",
    )
    code, _, err = command(capsys, *words)
    assert code != 0
    assert "--kit starts Isaac Sim, and that is not installed in this environment" in err
    assert not (tmp_path / "o").exists()
    import isaaclab.app.app_launcher as wheel

    started, ended = [], []

    class Runtime:
        def enter_context(self, launched: Any) -> None:
            started.append(launched)

        def __exit__(self, kind: Any, error: Any, _: Any) -> None:
            ended.append(error.code)

    monkeypatch.setattr(wheel, "_RUNTIME", Runtime())
    monkeypatch.setattr(wheel, "launch_simulation", lambda cfg, args: dict(args))
    kit = SimpleNamespace(app=SimpleNamespace(get_app=lambda: SimpleNamespace(is_running=lambda: True)))
    monkeypatch.setitem(sys.modules, "omni", SimpleNamespace(kit=kit))
    monkeypatch.setitem(sys.modules, "omni.kit", kit)
    monkeypatch.setitem(sys.modules, "omni.kit.app", kit.app)
    code, _, err = command(capsys, *words, "--task", "No-Such-v0")
    assert started == [{"headless": True, "enable_cameras": True, "require_kit": True}]
    assert ended == [code] == [2], "the mistake's own exit code"
    assert "unknown task 'No-Such-v0'" in err


def test_mistakes_on_the_command_line_are_one_sentence(tmp_path: Path, capsys: Any) -> None:
    base = ["record", "--import", EXAMPLE, "--out", str(tmp_path / "o"), "--quiet"]
    for more, message in (
        (["--task", "No-Such-v0"], "unknown task 'No-Such-v0'; registered: "),
        ([], "which task?"),
        (
            ["--task", lab.pick_place_env.TASK, "--camera", "side"],
            "unknown camera of the scene 'side'; valid: front, wrist",
        ),
        (["--task", lab.pick_place_env.TASK, "--envs", "4"], "clone 4; the environment has 1"),
        (["--task", lab.pick_place_env.TASK, "--envs", "a"], "expected numbers of clones such as 0,3, or all"),
        (["--task", lab.pick_place_env.TASK, "--channels", "rgb,smell"], "channels are"),
        (["--task", lab.pick_place_env.TASK, "--look", "a=1,2"], "expected NAME=EX,EY,EZ:TX,TY,TZ"),
        (["--import", "no_such_module", "--task", "x"], "no_such_module cannot be imported"),
    ):
        assert cli.main([*base, *more]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "o").exists()
    assert cli.main(["replay", "none.hdf5", "--envs", "all", "--out", str(tmp_path / "o")]) == 2
    assert "a demonstration is replayed in one clone; expected its number" in capsys.readouterr().err
    bare = lab.pick_place_env.PickPlaceEnvCfg()
    bare.scene.front = bare.scene.wrist = None
    with pytest.raises(InputError, match="the environment's scene has no camera; `--look"):
        prepare(bare)
    outside = lab.pick_place_env.PickPlaceEnvCfg()
    outside.scene.front.prim_path = "/World/outside"
    with pytest.raises(InputError, match=r"camera 'front' stands at /World/outside, outside the clones.*NS}/outside"):
        prepare(outside)
    outside.scene.num_envs = 1
    assert "front" in prepare(outside)


@pytest.fixture(scope="module")
def shared(recorded: dict[str, Any]) -> Iterator[Any]:
    """One environment of two clones for what needs no recorder of its own. Isaac Lab has one environment at a time, so it
    is made after `recorded` closed its own."""
    gc.collect()
    env = lab.make(2, size=(96, 72))
    yield env
    env.close()


def test_pictures_have_their_own_states_in_the_real_host(shared: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    try:
        totals = np.sum([lab.run_schedule(shared, rng, tmp_path / str(i)) for i in range(10)], axis=0)
    finally:
        shared.cfg.decimation, shared.cfg.sim.render_interval = 12, 12
        for name in ("front", "wrist"):
            shared.scene[name].cfg.update_period = 0.0
    assert totals[1] == 0
    assert totals[0] > 20


def test_an_export_is_read_and_set_by_isaac_lab_itself(shared: Any, recorded: dict[str, Any], tmp_path: Path) -> None:
    from isaaclab.utils.datasets import HDF5DatasetFileHandler

    run = recorded["out"] / "env001_0000"
    for version in (3, 2):
        out = tmp_path / str(version)
        options = ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(version))
        export([run], out, options, Selection(include_sim=True, unverified=True))
        handler = HDF5DatasetFileHandler()
        handler.open(str(out / "dataset.hdf5"))
        data = handler.load_episode("demo_0", "cpu")
        assert data is not None
        assert handler.is_legacy_quaternion_format() == (version == 2)
        assert lab.set_states(shared, out / "dataset.hdf5", "demo_0", clone=1) == 0
        actions = data.data["actions"].numpy()
        assert np.array_equal(actions, np.stack([r["action"][1].numpy() for r in recorded["rows"][:STEPS]]))
        handler.close()
        trip = lab.replayed(shared, out / "dataset.hdf5", clone=1)
        assert trip.largest <= replay.TOLERANCE, trip  # it is 0 in the proof
        assert lab.replayed(shared, out / "dataset.hdf5", clone=1, targets=True).largest <= replay.TOLERANCE


def test_what_does_not_fit_is_not_replayed(shared: Any, recorded: dict[str, Any], tmp_path: Path) -> None:
    options = ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(3))
    export([recorded["out"] / "env001_0000"], tmp_path / "d", options, Selection(include_sim=True, unverified=True))
    path = tmp_path / "d/dataset.hdf5"
    for change, message in (
        (lambda demo: None, None),
        (
            lambda demo: demo.update(actions=demo["actions"][:, :4]),
            r"actions of shape \(8, 4\); the environment takes 9",
        ),
        (lambda demo: demo["initial"]["rigid_object"].clear(), "has no rigid_object/packet, which the environment has"),
        (lambda demo: demo["initial"]["articulation"]["robot"].pop("joint_velocity"), "joint_velocity has nothing"),
        (lambda demo: demo.update(states=None), "has no states for --states to set"),
    ):
        (demo,), _, _ = replay.read_demos(path, [], failed=True)
        change(demo)
        if message is None:
            replay.require_fit(demo, shared, path, states=True)
            continue
        with pytest.raises(InputError, match=message):
            replay.require_fit(demo, shared, path, states=True)
    with pytest.raises(InputError, match="expected a manager-based environment"):
        replay.require_fit(demo, object(), path)
    first = RetakeWrapper(shared, RecordRequest(tmp_path / "two"))
    with pytest.raises(RunError, match="is being recorded to by another recorder"):
        RetakeWrapper(shared, RecordRequest(tmp_path / "two"))
    first.finish()
