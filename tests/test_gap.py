# SPDX-License-Identifier: Apache-2.0
"""SAGE's files in and out, its measures, and a fitted joint that does what the real one did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_runs import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core import joint_motion
from retake.core.cli import main
from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.gap.measure import gaps, lag
from retake.core.gap.model import Actuator, fit, read_model, response, through, write_model
from retake.core.importers.sage import JointLog, log_of, read_log, read_motion, write_log, write_motion

URDF = """<robot name="arm"><link name="base"/><link name="upper"/><link name="fore"/>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 0.3"/><axis xyz="0 1 0"/>
<limit lower="-2" upper="2" effort="50" velocity="9"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="fore"/><origin xyz="0.3 0 0"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" effort="50" velocity="9"/></joint></robot>"""
STEP = 0.005
TIME = np.arange(0, 4, STEP)
TRUE = {"shoulder": Actuator(0.08, 0.04, 0.012), "elbow": Actuator(0.15, 0.02, 0.0)}


def told(time: np.ndarray = TIME) -> np.ndarray:
    return np.stack([0.8 * np.sin(2.2 * time) + 0.3 * (time > 2), 0.6 * np.sin(3.1 * time + 1)], -1)


def real_log(noise: float = 0.0, seed: int = 0) -> JointLog:
    """What modelled motors do, measured at uneven times."""
    rng, command = np.random.default_rng(seed), told()
    motors = list(TRUE.values())
    did = np.stack(
        [
            response(u, m.lag_s, m.delay_s, m.friction, start=float(u[0]))
            for u, m in zip(command.T, motors, strict=True)
        ],
        -1,
    )
    keep = np.sort(rng.choice(len(TIME), 500, replace=False))
    keep[0] = 0
    return JointLog(tuple(TRUE), TIME, command, TIME[keep], did[keep] + noise * rng.normal(size=(500, 2)), real=True)


def sim_log() -> JointLog:
    return JointLog(
        tuple(TRUE), TIME, told(), TIME, told(), np.gradient(told(), STEP, axis=0), np.zeros((len(TIME), 2))
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.booleans())
def test_logs_survive_their_files(tmp_path_factory: pytest.TempPathFactory, seed: int, real: bool) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.002, 0.03, 20)) // 1e-6 * 1e-6
    log = JointLog(
        ("a", "b"), times - times[0], rng.normal(size=(20, 2)), times - times[0], rng.normal(size=(20, 2)),
        None if seed % 2 else rng.normal(size=(20, 2)), None, real,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sage") / "log"
    write_log(log, folder)
    back = read_log(folder)
    assert (back.joints, back.real) == (log.joints, real)
    for name in ("control", "position", "velocity"):
        ours, theirs = getattr(log, name), getattr(back, name)
        assert (ours is None and theirs is None) or np.array_equal(ours, theirs)
    assert np.abs(back.state_time_s - log.state_time_s).max() < (1e-6 if real else 1e-12)
    write_motion(log, folder.parent / "motion.txt")
    names, positions = read_motion(folder.parent / "motion.txt")
    assert names == log.joints
    assert np.array_equal(positions, log.control)


def test_the_real_files_of_sage_are_read_as_they_are_written_there(tmp_path: Path) -> None:
    """Microseconds, further columns, paths in the joint list, and events that say when the motion began."""
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "joint_list.txt").write_text("/World/arm/shoulder\n/World/arm/elbow\n")
    rows = [f'Control,{5_000_000 + 20_000 * k},"[{0.01 * k}, {-0.01 * k}]","[]","[]"' for k in range(100)]
    (folder / "control.csv").write_text("\n".join(["type,timestamp,positions,velocities,torques", *rows]))
    more = '"[1, 2]","[3, 4]","[30, 31]","[0.1, 0.2]"'
    rows = [f'StateMotor,{5_000_000 + 20_000 * k},"[{0.01 * k}, {-0.01 * k}]",{more}' for k in range(100)]
    head = "type,timestamp,positions,velocities,torques,temperatures,currents"
    (folder / "state_motor.csv").write_text("\n".join([head, *rows]))
    (folder / "event.csv").write_text("event,timestamp\nMOTION_START,200000\nDISABLE,1000000\n")
    log = read_log(folder)
    assert log.real
    assert log.joints == ("shoulder", "elbow")
    assert log.state_time_s[0] == pytest.approx(0.0, abs=1e-9)
    assert log.position[0].tolist() == [0.1, -0.1]
    assert log.state_time_s[-1] == pytest.approx(0.8)
    assert log.torque is not None
    for name, text, found in (
        ("joint_list.txt", "one\n", "2 positions; joint_list.txt names 1 joints"),
        ("event.csv", "event,timestamp\nX,1\n", "MOTION_START"),
        ("control.csv", "type,timestamp,positions\nControl,1,x\n", "line 2"),
        ("control.csv", "type,timestamp,positions\nCONTROL,1,\"[1, 2]\"\n", "two kinds"),
    ):  # fmt: skip
        kept = (folder / name).read_text()
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=found):
            read_log(folder)
        (folder / name).write_text(kept)
    for name, kind in (("control.csv", "CONTROL"), ("state_motor.csv", "STATE_MOTOR")):
        (folder / name).write_text((folder / name).read_text().replace("StateMotor", kind).replace("Control", kind))
    with pytest.raises(InputError, match="read as seconds"):
        read_log(folder)


def test_measures_are_those_of_known_signals() -> None:
    sim, real = sim_log(), replace(sim_log(), real=True)
    shifted = replace(real, position=told(TIME - 0.06) + 0.05)
    for one in gaps(sim, real):
        assert one.rmse == 0
        assert one.correlation == pytest.approx(1)
        assert one.cosine == pytest.approx(1)
        assert one.lag_s == 0
    assert [one.lag_s for one in gaps(sim, shifted)] == pytest.approx([0.06, 0.06], abs=0.0051)
    assert lag(told()[:, 1], told(TIME + 0.1)[:, 1]) == pytest.approx(-0.1, abs=0.0051)
    offset = replace(real, position=real.position * 1.1)
    assert gaps(sim, offset)[0].mape == pytest.approx(100 * 0.1 / 1.1, rel=1e-6)
    still = replace(real, position=np.zeros_like(real.position))
    assert gaps(sim, still)[0].correlation is None
    with pytest.raises(InputError, match="share no joint"):
        gaps(sim, replace(real, joints=("x", "y")))


def test_a_fitted_joint_does_what_the_real_one_did_and_finds_its_motor() -> None:
    log = real_log(noise=0.001)
    model = fit(log)
    for name, true in TRUE.items():
        found = model[name]
        assert found.rmse < 0.004 < 0.2 * found.rmse_ideal
        assert abs(found.delay_s - true.delay_s) <= 0.02
        assert abs(found.lag_s + found.delay_s - true.lag_s - true.delay_s) < 0.02
        assert abs(found.friction - true.friction) < 0.01
    held_out = real_log(seed=5)
    motion = through(held_out, model)
    measured = np.stack([np.interp(motion.state_time_s, held_out.state_time_s, c) for c in held_out.position.T], -1)
    assert np.sqrt(np.mean((motion.position - measured) ** 2)) < 0.005


def test_friction_holds_and_delay_waits() -> None:
    still = response(np.full(100, 0.009), 0.05, 0.0, 0.01, start=0.0)
    assert np.all(still == 0)
    late = response(np.ones(40), 1e-9, 0.05, 0.0, start=0.0)
    assert np.all(late[:10] == 0)
    assert np.all(late[11:] == 1)


def test_the_command_measures_fits_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(sim_log(), tmp_path / "sim")
    write_log(real_log(), tmp_path / "real")
    assert main(["gap", "measure", str(tmp_path / "sim"), str(tmp_path / "real"), "--out", str(tmp_path / "gap")]) == 0
    assert "shoulder" in capsys.readouterr().out
    assert json.loads((tmp_path / "gap/gap.json").read_text())["joints"][0]["rmse"] > 0.05
    assert "<svg" in (tmp_path / "gap/report.html").read_text("utf-8")
    arguments = ["gap", "replay", str(tmp_path / "real"), "--model", str(tmp_path / "gap/actuators.json"), "--out"]
    assert main([*arguments, str(tmp_path / "motion.csv")]) == 0
    lines = (tmp_path / "motion.csv").read_text().splitlines()
    assert lines[0] == "time_s,shoulder,elbow"
    assert main(["gap", "measure", str(tmp_path / "real"), str(tmp_path / "sim"), "--out", str(tmp_path / "o")]) == 2
    assert "takes SIM, then REAL" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    motion = joint_motion.read_motion(tmp_path / "motion.csv")
    assert motion.names == ("shoulder", "elbow")
    assert np.abs(motion.position[-1] - real_log().position[-1]).max() < 0.02
    write_model(tmp_path / "m.json", TRUE)
    assert read_model(tmp_path / "m.json") == TRUE
    with pytest.raises(InputError, match="is no actuator model"):
        read_model(tmp_path / "gap/gap.json")


def test_an_episode_goes_out_and_a_real_log_comes_in(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", takes=0, frames=8)
    assert main(["gap", "export", str(run), "--out", str(tmp_path / "sim"), "--motion", str(tmp_path / "m.txt")]) == 0
    episode = open_episode(run / "episode")
    log = read_log(tmp_path / "sim")
    (robot,) = episode.header.robots
    assert log.joints == robot.dof_names
    assert np.array_equal(log.control, episode.joint(robot.name, "target"))
    assert np.array_equal(log.position, log_of(episode).position)
    (tmp_path / "arm.urdf").write_text(URDF)
    write_log(real_log(), tmp_path / "real")
    assert (
        main(
            [
                "import",
                "sage",
                str(tmp_path / "real"),
                "--run",
                str(tmp_path / "r"),
                "--urdf",
                str(tmp_path / "arm.urdf"),
                "--fps",
                "20",
            ]
        )
        == 0
    )
    recorded = open_episode(tmp_path / "r/episode")
    assert recorded.header.motion_source == "recorded"
    assert recorded.header.cameras == ()
    told_, did = real_log().at(np.arange(len(recorded)) / 20)
    assert np.abs(recorded.joint("arm", "position") - did).max() < 1e-9
    assert np.abs(recorded.joint("arm", "target") - told_).max() < 1e-9
    assert (
        main(
            [
                "import",
                "sage",
                str(tmp_path / "sim"),
                "--run",
                str(tmp_path / "q"),
                "--urdf",
                str(tmp_path / "arm.urdf"),
            ]
        )
        == 2
    )
    assert not (tmp_path / "q").exists()
