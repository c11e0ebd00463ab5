# SPDX-License-Identifier: Apache-2.0
"""`retake config`: what has a name is told with what it means, and what is not the default is marked."""

from __future__ import annotations

import json

import pytest

from retake.core import config_cli
from retake.core.config import RunConfig, config_path
from retake.core.config_cli import _text, explanations, main, settings
from retake.core.errors import InputError, RunError
from retake.core.files import read_json, write_json
from retake.core.run_store import create_run


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_parts_are_told_unless_some_are_named(capsys):
    assert list(told(capsys)) == ["settings", "worlds", "presets", "backends", "stages"]
    assert list(told(capsys, "stages", "worlds")) == ["stages", "worlds"]
    with pytest.raises(SystemExit) as error:
        main(["colours"])
    assert error.value.code == 2
    assert "unknown 'colours'; valid: settings, worlds, presets, backends, stages" in capsys.readouterr().err


def test_every_setting_has_its_value_its_default_and_an_explanation(capsys):
    found = told(capsys, "settings")["settings"]
    assert found["takes.seed"] == {"value": 42, "default": 42, "text": found["takes.seed"]["text"]}
    assert found["skeleton.size"]["value"] == [640, 480]
    assert all(entry["value"] == entry["default"] for entry in found.values())
    assert [key for key, entry in found.items() if not entry["text"]] == []
    changed = told(capsys, "settings", "--set", "takes.seed=7")["settings"]["takes.seed"]
    assert (changed["value"], changed["default"]) == (7, 42)


def test_settings_are_those_of_a_file_or_of_a_run(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("takes: {seed: 5}\n")
    assert told(capsys, "settings", "--config", str(tmp_path / "mine.yaml"))["settings"]["takes.seed"]["value"] == 5
    run = create_run(tmp_path / "r", {"takes": {"seed": 9}})
    assert told(capsys, "settings", "--run", str(run.path))["settings"]["takes.seed"]["value"] == 9
    write_json(run.path / "run.json", {k: v for k, v in read_json(run.path / "run.json").items() if k != "config"})
    with pytest.raises(RunError, match="remembers no settings yet"):
        main(["settings", "--run", str(run.path)])
    with pytest.raises(InputError, match="takes"):
        main(["--set", "takes.sed=1"])


def test_what_is_not_the_default_is_marked_with_what_that_was():
    entries = {
        "a.long_name": {"value": 7, "default": 42, "text": "of the model"}, "b": {"value": "x", "default": "x", "text": ""},
    }  # fmt: skip
    assert _text("settings", entries).splitlines() == [
        "settings", "* a.long_name  7               (default 42)  of the model", '  b            "x"',
    ]  # fmt: skip
    assert _text("worlds", {"lab": {"text": "steel"}, "kitchen": {"text": ""}}).splitlines() == [
        "worlds", "  lab      steel", "  kitchen",
    ]  # fmt: skip
    assert _text("worlds", {}) == "worlds"


def test_parts_are_printed_with_a_blank_line_between(capsys):
    main(["worlds", "stages", "--set", "takes.seed=7"])
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.startswith("worlds\n  ")
    assert second.startswith("stages\n  Episode ")
    main(["settings", "--set", "takes.seed=7"])
    marked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("*")]
    assert len(marked) == 1
    assert marked[0].split()[1:5] == ["takes.seed", "7", "(default", "42)"]


def test_an_explanation_is_the_comment_on_its_line():
    text = "# a page\ntop: 1  # first\nsection:  # of many\n  inner: [1, 2]   # the # of it\n  bare: 3\n\nlast: x\n"
    assert explanations(text) == {
        "top": "first", "section": "of many", "section.inner": "the # of it", "section.bare": "", "last": "",
    }  # fmt: skip


def test_backends_say_what_they_need_and_which_setting_names_them(capsys):
    found = told(capsys, "backends")["backends"]
    assert found["composite"]["text"] == "video (takes.backend); CPU, no extra"
    assert found["oscar"]["text"] == "video (takes.backend); needs the extra [oscar]"
    assert found["newton"]["text"] == "simulator (capture.simulator); needs the extra [newton]"
    assert found["procedural"]["text"].startswith("first frame (variants.backend); CPU, no extra")


def test_stages_are_the_arrow_and_the_files_of_the_capture_presets(capsys):
    found = told(capsys, "stages")["stages"]
    assert list(found)[:6] == ["Episode", "Skeleton", "Variants", "Takes", "Verdicts", "Dataset"]
    assert found["Verdicts"]["text"].startswith("`retake verify`: ")
    presets = told(capsys, "presets")["presets"]
    assert set(presets) == {path.stem for path in config_path("capture").glob("*.yaml")}
    named = [entry["text"] for name, entry in found.items() if name.endswith((".usd", ".usda"))]
    assert named
    listed = [word for text in named for word in text.partition("presets ")[2].split(", ")]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(presets)
    assert all("frames at" in entry["text"] for entry in presets.values())


def test_a_preset_without_numbers_is_one_window_of_the_model(monkeypatch, tmp_path):
    for name, text in (
        ("bare", "task: lift\n"),
        ("own", "task: push\nframes: 9\nfps: 30\nstage: s.usda\n"),
        ("empty", ""),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(config_cli, "config_path", lambda *parts: tmp_path)
    assert config_cli.presets(RunConfig()) == {
        "bare": {"text": "lift (81 frames at 15/s, stage own)"}, "empty": {"text": " (81 frames at 15/s, stage own)"},
        "own": {"text": "push (9 frames at 30/s, stage s.usda)"},
    }  # fmt: skip
    (tmp_path / "other.yaml").write_text("stage: s.usda\n")
    assert config_cli.stages(RunConfig())["s.usda"] == {
        "text": "USD stage (data/stages) of the capture presets other, own"
    }


def test_settings_know_every_leaf_of_a_run_s_configuration():
    found = settings(RunConfig())
    text = config_path("retake.yaml").read_text("utf-8")
    assert {key for key in explanations(text) if "." in key} <= set(found)
