# SPDX-License-Identifier: Apache-2.0
"""`retake doctor` on machines of several kinds: a driver that works, is broken or is not there; Isaac Sim, models and disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from retake.core import doctor
from retake.core.doctor import Finding

VARIABLES = ("ISAAC_PATH", "ISAACSIM_PATH", "RETAKE_MODELS", "OMNI_KIT_ACCEPT_EULA", "RETAKE_WORKER")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and search path."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, folder in (("HOME", "home"), ("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "rt"), ("PATH", "bin")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


def told(area: str) -> Finding:
    (found,) = [f for f in doctor.examine() if f.area == area]
    return found


def driver(machine: Path, script: str) -> None:
    program = machine / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the driver")
@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("echo 'NVIDIA H200, 570.1, 2048, 5120'; echo 'NVIDIA T4, 570.1, 1, 2'", "good",
         "NVIDIA H200, driver 570.1, 2.0 of 5.0 GiB free"),
        ("echo 'no devices' >&2; exit 9", "bad", "no devices"), ("echo 'cannot talk'; exit 1", "bad", "cannot talk"),
        ("exit 0", "bad", "nvidia-smi failed"),
    ],
)  # fmt: skip
def test_what_the_driver_says_of_the_first_gpu(machine: Path, script: str, status: str, text: str) -> None:
    driver(machine, script)
    found = told("GPU")
    assert (found.status, found.text) == (status, text)
    assert (found.step == "repair the NVIDIA driver") == (status == "bad")
    assert told("worker").step.startswith("for the video model: ")


def test_without_a_driver_nothing_is_asked_for_that_needs_one(machine: Path) -> None:
    assert (told("GPU").status, told("GPU").step, told("worker").step) == ("missing", "", "")


@pytest.mark.parametrize(("variable", "other"), [("ISAAC_PATH", "ISAACSIM_PATH"), ("ISAACSIM_PATH", "ISAAC_PATH")])
def test_isaac_sim_is_found_by_either_variable(
    machine: Path, monkeypatch: pytest.MonkeyPatch, variable: str, other: str
) -> None:
    monkeypatch.setenv(other, str(machine / "nowhere"))
    monkeypatch.setenv(variable, str(machine))
    assert told("Isaac Sim").status == "missing"
    (machine / "VERSION").write_text("6.0.1\n")
    found = told("Isaac Sim")
    assert (found.status, found.text) == ("good", f"6.0.1 at {machine}; not running")


def test_models_are_found_in_both_places_by_their_names(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told("models").status == "missing"
    for name in (
        "home/.cache/huggingface/hub/models--nvidia--Cosmos-X",
        "own/models--a--OSCAR-2B",
        "own/models--b--other",
    ):
        (machine / name).mkdir(parents=True)
    (machine / "own" / "oscar.txt").write_text("")
    monkeypatch.setenv("RETAKE_MODELS", str(machine / "own"))
    assert told("models").text == "a/OSCAR-2B, nvidia/Cosmos-X"
    monkeypatch.delenv("RETAKE_MODELS")
    assert told("models").text == "nvidia/Cosmos-X"


@pytest.mark.parametrize(
    ("free", "status", "text"), [(1.9e9, "bad", "2 GB"), (2e9, "good", "2 GB"), (41e9, "good", "41 GB")]
)
def test_two_gigabytes_are_enough_disk(
    machine: Path, monkeypatch: pytest.MonkeyPatch, free: float, status: str, text: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    found = told("disk")
    assert (found.status, bool(found.step)) == (status, status == "bad")
    assert found.text.startswith(f"{text} free in ")


@pytest.mark.parametrize(("said", "accepted"), [("Y", True), ("yes", True), ("1", True), ("no", False), ("", False)])
def test_an_accepted_licence_is_told(machine: Path, monkeypatch: pytest.MonkeyPatch, said: str, accepted: bool) -> None:
    monkeypatch.setenv("OMNI_KIT_ACCEPT_EULA", said)
    assert ("EULA is accepted" in told("licences").text) == accepted


GOOD, IDLE = Finding("a", "good", "fine", "no need"), Finding("b", "missing", "gone")
LATER, FIRST, SECOND = (Finding(n, s, n, f"do {n}") for n, s in (("c", "missing"), ("d", "bad"), ("e", "bad")))


@pytest.mark.parametrize(
    ("findings", "step"),
    [
        ([GOOD, IDLE], "retake run --run runs/demo"),
        ([GOOD, IDLE, LATER], "do c"),
        ([IDLE, LATER, FIRST, SECOND], "do d"),
    ],
)
def test_what_is_needed_comes_first_and_what_has_no_remedy_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: list[Finding], step: str
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    broken = any(f.status == "bad" for f in findings)
    assert doctor.main([]) == (2 if broken else 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"{doctor.MARKS[f.status]} {f.area.ljust(20)}{f.text}" for f in findings), "", f"next: {step}"]
    assert doctor.main(["--json"]) == (2 if broken else 0)
    data = json.loads(capsys.readouterr().out)
    assert data["next"] == step
    assert [f["area"] for f in data["findings"]] == [f.area for f in findings]
