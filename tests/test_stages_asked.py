# SPDX-License-Identifier: Apache-2.0
"""What a user's own code may hand to the Python API: numpy's numbers, every kind of path, and what is refused in words."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import arrow_driver
import numpy as np
import pytest

from retake.core import pipeline, stages
from retake.core.episode import open_episode
from retake.core.errors import InputError, RetakeError, RunError, VariantError
from retake.core.files import read_json
from retake.core.run_store import claim_folder

SMALL = {"capture.simulator": "scene", "skeleton.size": [64, 48], "verdicts.enabled": False}
STAGES = (stages.check, stages.skeleton, stages.variants, stages.takes, stages.verify, stages.report)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(pipeline.SIMULATORS, "scene", "arrow_driver:simulate")
    monkeypatch.chdir(tmp_path)


def never_simulated(*arguments: object, **options: object) -> None:
    raise AssertionError("it was simulated before the call was looked at")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stage": 3}, "stage is 3; expected a path"),
        ({"stage": b"x.usda"}, "stage is b'x.usda'; expected a path"),
        ({"stage": ""}, "stage is ''; expected a path"),
        ({"stage": "."}, "is a folder; expected a USD stage"),
        ({"seed": -1}, "capture.seed needs a number 0 or more; found -1"),
        ({"variants": 2.0}, "variants is 2.0; expected a number of worlds"),
        ({"variants": object}, "expected a number of worlds"),
        ({"variants": {"kitchen": 1}}, "expected a number of worlds"),
        ({"prompts": "a bakery at dawn"}, "prompts is 'a bakery at dawn'; expected a list of texts"),
        ({"prompts": 3}, "prompts is 3; expected a list"),
        ({"cameras": 3}, "cameras is 3; expected a list of camera names, \\[\\] for every camera"),
        ({"seeds": 3}, "seeds is 3; expected a list of whole numbers"),
        ({"seeds": "12"}, "seeds is '12'; expected a list"),
        ({"seeds": [1, 1]}, "expected whole numbers, each once"),
        ({"settings": "takes.frames=3"}, "settings is 'takes.frames=3'; expected a mapping"),
        ({"settings": {3: 3}}, "expected a mapping of names"),
        ({"settings": {"takes.frames": -3}}, "takes.frames needs a number 0 or more; found -3"),
        ({"settings": {"takes.start": -3}}, "takes.start needs a number 0 or more; found -3"),
        ({"settings": {"variants.seed": -3}}, "variants.seed needs a number 0 or more; found -3"),
        ({"settings": {"variants.rerolls": -3}}, "variants.rerolls needs a number 0 or more; found -3"),
        ({"settings": {"skeleton.size": [0, 48]}}, "skeleton.size\\[0\\] needs a number 1 or more; found 0"),
        ({"progress": None}, "progress is None; expected a function, or leave it out"),
        ({"check_cancel": 3}, "check_cancel is 3; expected a function"),
    ],
)
def test_a_wrong_keyword_is_told_before_anything_is_simulated(wrong: dict[str, Any], words: str, monkeypatch) -> None:
    monkeypatch.setattr(arrow_driver, "simulate", never_simulated)
    settings = wrong.get("settings", {})
    asked = {**wrong, "settings": {**SMALL, **settings} if isinstance(settings, dict) else settings}
    with pytest.raises(InputError, match=words):
        stages.run("deep/in/r", **asked)
    assert not Path("deep").exists(), "folders that were made for nothing"


@pytest.mark.parametrize("wrong", [None, 3, b"run", "", ["run"]])
def test_what_is_no_path_is_told(wrong: Any) -> None:
    for stage in (stages.run, stages.capture, *STAGES):
        with pytest.raises(InputError, match=r"path is .*; expected a path: text, or a pathlib\.Path"):
            stage(wrong)
    with pytest.raises(InputError, match="expected a path"):
        stages.export("run", wrong)


def test_export_takes_one_run_or_a_list_of_them() -> None:
    with pytest.raises(InputError, match="runs is 3; expected a list of run folders"):
        stages.export(3, "out")  # type: ignore[arg-type]
    for runs in ("absent", Path("absent"), ["absent"], iter([Path("absent")])):
        with pytest.raises(InputError, match="absent does not exist"):
            stages.export(runs, "out")  # type: ignore[arg-type]


def test_paths_that_lead_nowhere_are_told() -> None:
    Path("file").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    for path, words in (
        ("file/r", "file is a file; choose a folder outside it"),
        ("file/deeper/r", "file is a file; choose a folder outside it"),
        ("dangling", "is a link to nowhere, which does not exist"),
        ("loop", "is a link to loop"),
        ("a\0b", "holds a null character"),
        (os.fsdecode(b"gr\xf6\xdfe"), "is no text"),
    ):
        with pytest.raises(RunError, match=words):
            stages.run(path, settings=SMALL)
    assert sorted(p.name for p in Path().iterdir()) == ["dangling", "file", "loop"]


def test_a_home_folder_is_meant_where_no_shell_says_so(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for path in ("~/runs/one", Path("~/runs/one")):
        with pytest.raises(RunError, match=f"{tmp_path.name}.home.runs.one is no run folder"):
            stages.check(path)
    with pytest.raises(InputError, match=f"{tmp_path.name}.home.mine.usda does not exist"):
        stages.capture("r", stage="~/mine.usda")
    assert arrow_driver.main(["check", "~/runs/one", "--config=~/mine.yaml"]) == 2
    assert str(Path("home/mine.yaml")) in capsys.readouterr().err
    assert not Path("~").exists()


def test_numbers_of_numpy_and_paths_are_settings() -> None:
    asked = {"takes.seed": np.int64(3), "check.penetration_m": np.float32(0.5), "variants.catalogue": [Path("w.yaml")]}
    with stages._hold_run("r", asked, create=True, remember=True) as (_, config):
        assert (config.takes.seed, config.check.penetration_m) == (3, 0.5)
        assert config.variants.catalogue == (str(Path("w.yaml").resolve()),)
    config = read_json(Path("r/run.json"))["config"]
    assert (config["takes"]["seed"], config["check"]["penetration_m"]) == (3, 0.5)
    assert stages._takes(np.arange(2), None)["takes.seeds"] == [0, 1]  # type: ignore[arg-type]
    assert stages._worlds(np.int64(5), None)["variants.count"] == 2  # type: ignore[arg-type]
    assert stages._worlds(np.array(["kitchen"]), None)["variants.presets"] == ["kitchen"]  # type: ignore[arg-type]
    assert stages._worlds(iter(["kitchen"]), None)["variants.presets"] == ["kitchen"]  # type: ignore[arg-type]


def test_what_comes_back_is_shown_in_a_line_and_can_be_handed_on() -> None:
    result = stages.run(Path("r"), variants=["kitchen"], settings={**SMALL, "takes.frames": 2})
    assert "r: 30 frames, 1 variants, 1 takes (1 not judged), 0 missing; " in repr(result)
    assert "30 frames at 15 fps, front>" in repr(result.episode)
    assert len(repr(result)) + len(repr(result.episode)) < 400
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert (other.takes, other.variants, other.standings) == (result.takes, result.variants, result.standings)
        assert np.array_equal(other.episode.frame(3).cameras[0].rgb, result.episode.frame(3).cameras[0].rgb)
    # A run that was moved is opened where it lies now; what was asked of it goes with it.
    Path("r").rename("moved")
    assert [take.video.exists() for take in stages.run("moved/").takes] == [True]


def test_a_seed_below_0_is_told_wherever_worlds_are_drawn() -> None:
    from scenes import make_scene_episode

    from retake.core.variants import make_gated_variants, make_variants, select_worlds

    make_scene_episode(Path("e"), frames=2, size=(64, 48))
    worlds = select_worlds(["kitchen"])
    for make in (make_variants, make_gated_variants):
        with pytest.raises(VariantError, match="seed of worlds is -1; expected a whole number, 0 or more"):
            make(open_episode("e"), "front", "out", worlds=worlds, seed=-1)
    with pytest.raises(VariantError, match="seed of worlds is -1"):
        select_worlds(count=2, seed=-1)


def test_folders_made_on_the_way_go_with_a_request_that_fails() -> None:
    Path("mine").mkdir()
    for path in ("new/deep/r", "mine/deep/r"):
        with pytest.raises(RetakeError):
            stages.capture(path, settings={"capture.simulator": "unreal"})
    assert [p.name for p in Path().rglob("*")] == ["mine"]
    claim_folder("new/deep/r")
    assert Path("new/deep/r").is_dir()


def test_files_keep_their_meaning_after_the_caller_goes_elsewhere(tmp_path: Path, monkeypatch) -> None:
    """A notebook's `%cd`: what was returned still leads to its files, and the run goes on with the files it was given."""
    (tmp_path / "mine.yaml").write_text("presets: {my_bakery: {environment: kitchen}}")
    (tmp_path / "robot.yaml").write_text("{}")
    settings = {
        **SMALL,
        "capture.overrides": {"frames": 4, "motion_file": "m.csv"},
        "capture.robot": "robot.yaml",
        "variants.catalogue": ["mine.yaml"],
    }
    episode = stages.capture("run", settings=settings)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_episode(episode.path) is not None
    remembered = read_json(tmp_path / "run" / "run.json")["config"]
    assert remembered["capture"]["robot"] == str(tmp_path / "robot.yaml")
    assert remembered["capture"]["overrides"]["motion_file"] == str(tmp_path / "m.csv")
    assert remembered["variants"]["catalogue"] == [str(tmp_path / "mine.yaml")]


def test_a_stage_at_an_address_stays_an_address() -> None:
    from dataclasses import replace

    from retake.core.config import RunConfig, whole_paths

    config = RunConfig()
    assert whole_paths(config) == config
    there = replace(config, capture=replace(config.capture, stage="omniverse://host/a.usd", robot="~/r.yaml"))
    assert whole_paths(there).capture.stage == "omniverse://host/a.usd"
    assert whole_paths(there).capture.robot == os.path.join(os.path.realpath(os.path.expanduser("~")), "r.yaml")
