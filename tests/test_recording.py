# SPDX-License-Identifier: Apache-2.0
"""`retake open RUN --rerun`: what a recording holds, read back with Rerun itself, and that it is optional."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from export_runs import make_run

from retake.core.cli import main
from retake.core.errors import MissingDependencyError
from retake.core.export import ExportOptions, VideoOptions, export
from retake.core.report import recording


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependencyError, match=r"\.\[rerun\]"):
        recording.record_run(make_run(tmp_path / "run", takes=1, frames=3), tmp_path / "out.rrd")
    assert not (tmp_path / "out.rrd").exists()


def entities(path: Path) -> str:
    """What `rerun rrd print` says of a recording."""
    command = [sys.executable, "-m", "rerun_cli", "rrd", "print", "-v", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.replace("\\", "")


def test_a_run_and_a_dataset_become_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rerun")
    run = make_run(tmp_path / "run", takes=2, frames=4)
    assert main(["open", str(run), "--rerun"]) == 0
    assert f"rerun {tmp_path / 'run.rrd'}" in capsys.readouterr().out
    found = entities(tmp_path / "run.rrd")
    for entity in (
        "/world/cameras/front/rgb", "/world/robots/arm0/bones", "/world/objects/obj0", "/takes/front/v000",
        "/joints/arm0/joint0/position", "/joints/arm0/joint0/target", "/verdicts/v000",
    ):  # fmt: skip
        assert entity in found, entity
    assert main(["open", str(run), "--rerun"]) == 2
    assert "exists; choose another file" in capsys.readouterr().err
    export([run], tmp_path / "d", ExportOptions(video=VideoOptions.of("h264")))
    assert main(["open", str(tmp_path / "d"), "--rerun", str(tmp_path / "d.rrd")]) == 0
    found = entities(tmp_path / "d.rrd")
    assert "/cameras/front" in found
    assert "/observation.state/joint0.pos" in found
