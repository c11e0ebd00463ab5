# SPDX-License-Identifier: Apache-2.0
"""What short options, files and KEY=VALUE make of a run's settings, and how the shell is told of errors."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import pytest

from retake.core import cli
from retake.core.config import RunConfig
from retake.core.errors import InputError


def asked(*words: str, base: RunConfig | None = None) -> RunConfig:
    return cli._config(cli._parser().parse_args(list(words)), base or RunConfig())


def test_short_options_are_settings():
    found = asked(
        "run", "--simulator", "s", "--preset", "long", "--stage", "a/b.usd", "--seed", "7", "--count", "3", "--robot", "r.yaml",
        "--camera", "a, b", "--camera", "c", "--seeds", "4,5", "--motion", "m.csv",
    )  # fmt: skip
    capture = found.capture
    assert (capture.simulator, capture.preset, capture.stage, capture.seed, capture.robot) == (
        "s",
        "long",
        "a/b.usd",
        7,
        "r.yaml",
    )
    assert capture.overrides["motion_file"] == "m.csv"
    assert found.variants.count == 3
    assert found.cameras == ("a", "b", "c")
    assert found.takes.seeds == (4, 5)
    dressed = asked(
        "variants", "r", "--seed", "8", "--backend", "folder", "--rerolls", "0", "--only-commercial", "--count", "0"
    ).variants
    assert (dressed.seed, dressed.backend, dressed.rerolls, dressed.only_commercial, dressed.count) == (
        8,
        "folder",
        0,
        True,
        0,
    )
    filmed = asked("takes", "r", "s", "--seed", "9", "--backend", "oscar").takes
    assert (filmed.seed, filmed.backend, filmed.seeds) == (9, "oscar", ())
    plain = RunConfig()
    assert asked("run") == asked("variants", "r") == asked("takes", "r") == plain


def test_a_later_word_counts_more_than_an_earlier_one(tmp_path):
    (tmp_path / "c.yaml").write_text("takes: {seed: 3, backend: a}\nvariants: {count: 9}\n")
    (tmp_path / "none.yaml").write_text("")
    config = ("--config", str(tmp_path / "c.yaml"))
    found = asked("takes", "r", *config, "--set", "takes.seed=4", "--set", "takes.seed=5")
    assert (found.takes.seed, found.takes.backend, found.variants.count) == (5, "a", 9)
    assert asked("takes", "r", *config, "--set", "takes.seed=4", "--seed", "6").takes.seed == 6
    assert asked("takes", "r", "--config", str(tmp_path / "none.yaml")) == RunConfig()
    before = asked("takes", "r", "--seeds", "1,2")
    assert asked("takes", "r", base=before).takes.seeds == (1, 2)
    assert asked("takes", "r", "--seed", "3", base=before).takes.seeds == (), "one seed was asked"
    assert asked("takes", "r", "--seed", "3", "--seeds", "7", base=before).takes.seeds == (7,)


def test_worlds_are_presets_files_and_words(tmp_path):
    (tmp_path / "w.yaml").write_text(
        "presets:\n  mine: {environment: kitchen_country, surface: plywood, subject: bun, lighting: soft_daylight}\n"
    )
    (tmp_path / "axes.yml").write_text("looks: {odd: {}}\n")
    mine, axes = (str((tmp_path / name).resolve()) for name in ("w.yaml", "axes.yml"))
    assert cli._parse_worlds("a, b,", []) == {"presets": ["a", "b"], "of_presets": True}
    assert cli._parse_worlds("", []) == {"presets": [], "of_presets": False}
    assert cli._parse_worlds(mine, ["old", mine]) == {
        "catalogue": ["old", mine],
        "presets": ["mine"],
        "of_presets": True,
    }
    assert cli._parse_worlds(f"a,{mine}", []) == {"catalogue": [mine], "presets": ["a"], "of_presets": True}
    assert cli._parse_worlds(axes, ["old"]) == {"catalogue": ["old", axes]}
    found = asked("variants", "r", "--prompt", "a wall", "--prompt", " ").variants
    assert (found.prompts, found.presets) == (("a wall",), ())
    found = asked("variants", "r", "--prompt", "a wall", "--worlds", "kitchen").variants
    assert (found.prompts, found.presets, found.of_presets) == (("a wall",), ("kitchen",), True)


def test_lists_of_numbers_and_descriptions_of_robots():
    assert cli._numbers("1, 2,-3") == [1, 2, -3]
    with pytest.raises(argparse.ArgumentTypeError, match="expected whole numbers"):
        cli._numbers("1,x")
    for kind, name in (("urdf", "a.urdf"), ("urdf", "a.XML"), ("mjcf", "a.mjcf"), ("mjcf", "a.xml")):
        assert cli._description(kind)(name) == Path(name)
    for kind, name, words in (
        ("urdf", "a.mjcf", "expected a .urdf or .xml file, found a.mjcf$"), ("urdf", "a.xacro", "expand it first"),
    ):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError, match=words):
            cli._description(kind)(name)


def test_options_that_are_left_out_ask_for_nothing():
    parse = cli._parser().parse_args
    opened, checked, run = parse(["open", "r"]), parse(["check", "r"]), parse(["run"])
    assert (opened.port, opened.no_browser, opened.rerun, opened.run) == (0, False, None, Path("r"))
    assert parse(["open", "r", "--rerun"]).rerun == Path()
    assert parse(["open", "r", "--rerun", "a.rrd"]).rerun == Path("a.rrd")
    assert (checked.json, checked.force) == (False, False)
    assert (run.run, run.set, run.ray, run.stage) == (Path("runs/run"), [], None, None)
    assert parse(["takes", "a", "b"]).run == [Path("a"), Path("b")]
    assert parse(["variants", "r"]).only_commercial is False
    for wrong in ([], ["run", "--stage", "a.usd", "--urdf", "b.urdf"]):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_the_shell_is_told_in_one_line(monkeypatch, capsys):
    def ends(error: BaseException) -> tuple[int, str]:
        def call(options):
            raise error

        monkeypatch.setattr(cli, "_report", call)
        return cli.main(["report", "r"]), capsys.readouterr().err

    assert ends(InputError("so")) == (InputError("so").exit_code, "retake: so\n")
    code, text = ends(OSError(errno.ENOSPC, "no space", "disk"))
    assert (code, text) == (6, "retake: the system refused access (disk): no space; what was finished is kept\n")
    assert ends(OSError(errno.EACCES, "no"))[1] == "retake: the system refused access: no; what was finished is kept\n"
    assert "the same command goes on from here" in ends(KeyboardInterrupt())[1]
    with pytest.raises(OSError, match="odd"):
        ends(OSError(errno.EBADF, "odd"))
    monkeypatch.setattr(cli, "_report", lambda options: True)
    assert cli.main(["report", "r"]) == 1


def test_a_request_forces_nothing_unless_asked(monkeypatch):
    kept = {}
    monkeypatch.setattr(
        cli, "hold", lambda where, configure, **how: kept.update(how, where=where, config=configure(RunConfig()))
    )
    cli._hold_run(cli._parser().parse_args(["skeleton", "r", "--set", "takes.seed=4"]))
    assert (kept["where"], kept["force"], kept["create"], kept["remember"]) == (Path("r"), False, False, False)
    assert kept["config"].takes.seed == 4
    cli._hold_run(cli._parser().parse_args(["skeleton", "r", "--force"]), Path("q"), create=True, remember=True)
    assert (kept["where"], kept["force"], kept["create"], kept["remember"]) == (Path("q"), True, True, True)
    cli._hold_run(cli._parser().parse_args(["report", "r"]))
    assert kept["config"] == RunConfig()
