# SPDX-License-Identifier: Apache-2.0
"""What people type and what files hold, and that whatever is refused leaves no trace."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.kit import FakeKit
from isaac_support import motion, request

from retake.core.errors import InputError, StageError
from retake.core.files import user_path
from retake.isaac.autorun import Trajectory
from retake.isaac.live_capture import LiveCapture
from retake.isaac.options import load_autorun
from retake.isaac.products import Products
from retake.isaac.request import check_writable

NAMES, TIMES, POSITIONS = ["a", "b"], [0.0, 1.0], [[0.0, 1.0], [2.0, 3.0]]


def saved(path: Path, **changes: Any) -> Path:
    np.savez(path, **{"joint_names": NAMES, "time_s": TIMES, "joint_position": POSITIONS, **changes})
    return path


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_no_trajectory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "motion.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"motion\.npz: .*joint_names \(J,\)"):
        Trajectory.load(path, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"time_s": [], "joint_position": np.zeros((0, 2))}, {"time_s": [0.0]}, {"time_s": [1.0, 0.0]}, {"time_s": [0.0, 0.0]},
        {"time_s": [0.0, np.nan]}, {"joint_names": ["a"]}, {"joint_position": [0.0, 1.0]},
        {"joint_position": [[0.0, np.inf], [0.0, 0.0]]},
    ],
)  # fmt: skip
def test_a_trajectory_whose_numbers_do_not_fit_is_refused_before_anything_moves(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"motion\.npz: (joint_position|a value is not|time_s must increase)"):
        Trajectory.load(saved(tmp_path / "motion.npz", **changes), None)  # type: ignore[arg-type]
    one = saved(tmp_path / "one.npz", time_s=[2.0], joint_position=[[0.0, 1.0]])
    assert Trajectory.load(one, None).frames(15) == 1  # type: ignore[arg-type]


def test_a_trajectory_may_be_a_table(tmp_path: Path) -> None:
    """As the embedded simulator's motions may."""
    (tmp_path / "motion.csv").write_text("time_s,a,b\n0.5,0,1\n1.5,2,3\n")
    found = Trajectory.load(tmp_path / "motion.csv", None)  # type: ignore[arg-type]
    assert (found.joints, found.frames(10), found.target(0.5).tolist()) == (("a", "b"), 11, [1.0, 2.0])


@pytest.mark.any_application
@pytest.mark.parametrize("before", [0, 70])
def test_a_trajectory_begins_with_its_recording(tmp_path: Path, before: int) -> None:
    """However long the simulation has run."""
    followed: list[float] = []
    with FakeKit("6.x", motion(), "base") as kit:
        kit.play()
        kit.update(before)
        capture = LiveCapture(request(tmp_path / "e"))
        capture.start()
        path = Trajectory(["a"], [0.0, 1.0], [[0.0], [1.0]], capture)
        for _ in range(6):
            followed.append(float(path.target(capture.elapsed_s)[0]))
            kit.update()
        capture.close()
    moving = [t for t in followed if t]
    assert np.allclose(moving, np.arange(1, len(moving) + 1) / 60)
    assert len(moving) > 3


def test_a_path_is_what_its_user_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert user_path("  ~/äpfel und birnen \n") == tmp_path / "äpfel und birnen"
    with pytest.raises(InputError, match="~nobody-of-this-name/x names the home folder"):
        user_path("~nobody-of-this-name/x")
    asked = request(" ~/episode ", robot_file=" ~/arm.yaml").checked()
    assert (asked.output, asked.robot_file) == (str(tmp_path / "episode"), str(tmp_path / "arm.yaml"))
    with pytest.raises(InputError, match="output is empty"):
        request("  ").checked()
    (tmp_path / "arm.robot.yaml").touch()
    (tmp_path / "run.yaml").write_text("robot_file: arm.robot.yaml\n", "utf-8")
    assert load_autorun(tmp_path / "run.yaml")[0].robot_file == str(tmp_path / "arm.robot.yaml")


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "far/away")
    (tmp_path / "there").mkdir()
    check_writable(tmp_path / "there")
    with FakeKit("6.x", motion()), pytest.raises(StageError, match="unknown robot"):
        LiveCapture(request(tmp_path / "runs/one/episode", robots=("/World/Nobody",))).start()
    assert os.listdir(tmp_path) == ["there"]


def test_a_product_that_fails_to_go_takes_no_other_with_it() -> None:
    gone: list[int] = []

    def destroy(number: int) -> None:
        gone.append(number)
        if number < 2:
            raise RuntimeError(f"product {number}")

    products = Products()
    products._made = [SimpleNamespace(destroy=lambda n=n: destroy(n)) for n in range(3)]
    with pytest.raises(RuntimeError, match="product 0"):
        products.close()
    products.close()
    assert gone == [0, 1, 2]
