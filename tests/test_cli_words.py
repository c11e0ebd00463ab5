# SPDX-License-Identifier: Apache-2.0
"""What the command line tells: names and values (`retake config`), its version, time left, worlds of the user's own."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core import cli, cli_notes
from retake.core.config import RunConfig, VariantsConfig, config_path
from retake.core.config_cli import explanations
from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.export.found import shown_task
from retake.core.files import read_json, write_json
from retake.core.progress import Bar, Stop, clock
from retake.core.run_store import RunDirectory
from retake.core.variants import load_catalogue
from retake.core.variants.worlds import presets_in

SMALL = ("--set", "skeleton.size=[64, 48]")
MINE = """
environments:
  garage:
    prompt: a small garage with tools on the wall
    container: {kind: plain, colours: ["#7d8790", "#6c757d"]}
subjects:
  toy_car: {prompt: a red toy car, kind: plain, colours: ["#c02020"]}
presets:
  my_kitchen: {environment: kitchen, surface: oak_table, subject: loaf, lighting: overcast}
  my_toys: {environment: kitchen, surface: marble_white, subject: toy_car, lighting: warm_lamps, look: crisp}
"""


def retake(*arguments) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    subject = load_catalogue().value("subject", "loaf")
    text = MINE.replace(
        '{prompt: a red toy car, kind: plain, colours: ["#c02020"]}', json.dumps({**subject, "prompt": "a red toy car"})
    )
    path.write_text(text.replace(text[text.index("environments:") : text.index("subjects:")], ""))
    return path


def test_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    manifest = (config_path().parent / "extension.toml").read_text()
    assert capsys.readouterr().out.removeprefix("retake ").strip() in manifest


def test_config_lists_every_setting_with_its_value_and_meaning(capsys):
    assert retake("config", "settings", "--set", "takes.seed=7", "--json") == 0
    found = json.loads(capsys.readouterr().out)["settings"]
    leaves = {
        f"{section}.{key}" if isinstance(value, dict) and section != "camera" else section
        for section, value in RunConfig().to_json().items()
        for key in (value if isinstance(value, dict) else [section])
    }
    assert set(found) == leaves
    assert (found["takes.seed"]["value"], found["takes.seed"]["default"]) == (7, 42)
    assert {key for key, entry in found.items() if entry["value"] != entry["default"]} == {"takes.seed"}
    assert found["capture.preset"]["text"].startswith("short = one 81-frame window")
    assert retake("config", "settings", "--set", "takes.seed=7") == 0
    marked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("*")]
    assert len(marked) == 1
    assert "default 42" in marked[0]


def test_config_lists_worlds_presets_backends_and_stages(capsys, mine):
    assert retake("config", "--json", "--worlds", mine) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"bun_warehouse", "my_kitchen", "my_toys"} <= set(found["worlds"])
    assert set(found["presets"]) == {path.stem for path in config_path("capture").glob("*.yaml")}
    assert {"newton", "procedural", "composite", "oscar"} <= set(found["backends"])
    assert "[oscar]" in found["backends"]["oscar"]["text"]
    assert {"Episode", "Dataset", "pick_place/scene.usda"} <= set(found["stages"])
    assert retake("config") == 0
    assert all(f"\n{name}\n" in "\n" + capsys.readouterr().out for name in ("settings",))


def test_config_of_a_run_is_what_it_was_made_with(capsys, tmp_path):
    make_scene_episode(tmp_path / "e", frames=30, size=(80, 60))
    assert retake("skeleton", tmp_path / "e", "--set", "takes.seed=11", *SMALL) == 0
    capsys.readouterr()
    assert retake("config", "settings", "--run", tmp_path / "e-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["takes.seed"]["value"] == 11
    assert retake("config", "settings", "--run", tmp_path / "e") == 2


def test_explanations_belong_to_their_key():
    text = "a: 1   # first\nb:\n  a: [x]  # second # third\n  c: {}\n# nothing: 3\n"
    assert explanations(text) == {"a": "first", "b": "", "b.a": "second # third", "b.c": ""}


def test_own_worlds_are_dressed_as_their_file_says(tmp_path, capsys, mine):
    episode = make_scene_episode(tmp_path / "e", frames=30, size=(160, 120))
    assert retake("variants", tmp_path / "e", "--worlds", mine, "--set", "variants.gate=false") == 0
    run = tmp_path / "e-run"
    assert sorted(p.parent.parent.name for p in run.glob("variants/*/*/variant.json")) == ["my_kitchen", "my_toys"]
    record = read_json(run / "variants/my_toys/front/variant.json")
    assert record["recipe"]["subject"]["prompt"] == "a red toy car"
    assert "red toy car" in record["prompt"]
    assert read_json(run / "run.json")["config"]["variants"]["catalogue"] == [str(mine)]
    # What comes after knows the world by its record: takes, and the task of a dataset.
    assert retake("skeleton", run, *SMALL) == 0
    assert retake("takes", run) == 0
    assert len(list(run.glob("takes/*/*/take.json"))) == 2
    header = open_episode(episode.path).header
    if any(o.movable and o.label for o in header.objects):
        assert "a red toy car" in shown_task(header, "toy_car", record["recipe"])
    # A name beside the file: only this one; the catalogue stays known.
    capsys.readouterr()
    assert retake("variants", run, "--worlds", f"my_kitchen,{mine}") == 0
    assert retake("variants", run, "--worlds", "my_toys") == 0
    assert "unknown" not in capsys.readouterr().err


def test_own_worlds_in_processes_of_their_own_look_the_same(tmp_path, mine):
    from retake.core.variants import gated, select_worlds

    episode = make_scene_episode(tmp_path / "e", frames=30, size=(160, 120))
    known = load_catalogue((mine,))
    worlds = select_worlds(presets_in([mine]), catalogue=known)
    options = {"worlds": worlds, "gate": False, "catalogue": known}
    here = gated.make_gated_variants(episode, "front", tmp_path / "a", workers=1, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated, "WORTH_PROCESSES_PX", 1)
        apart = gated.make_gated_variants(episode, "front", tmp_path / "b", workers=2, **options)
    assert [v.frame_sha256 for v in here.variants] == [v.frame_sha256 for v in apart.variants]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("presets: {mine: {environment: kitchen}}", "lacks lighting, subject, surface"),
        ("presets: {mine: {environment: kitchen, ground: x}}", "unknown axis 'ground'"),
        ("worlds: {a: {}}", "unknown section 'worlds'"),
        ("- a", "expected a mapping with sections"),
        ("presets: [a]", "must map names to mappings"),
    ],
)
def test_a_file_of_worlds_that_is_none_is_explained_and_leaves_nothing(tmp_path, capsys, content, message):
    make_scene_episode(tmp_path / "e", frames=30, size=(80, 60))
    bad = tmp_path / "bad.yaml"
    bad.write_text(content)
    assert retake("variants", tmp_path / "e", "--worlds", bad) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "e-run").exists()
    with pytest.raises(InputError):
        presets_in([bad])


def test_a_file_that_is_missing_is_named(tmp_path, capsys):
    make_scene_episode(tmp_path / "e", frames=30, size=(80, 60))
    assert retake("variants", tmp_path / "e", "--worlds", "nowhere.yaml") == 2
    assert "nowhere.yaml does not exist" in capsys.readouterr().err


# -- time ---------------------------------------------------------------------------------------------------------------


class Stream(io.StringIO):
    def __init__(self, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize("tty", [True, False])
def test_a_bar_tells_time_taken_and_time_left(tty):
    now, stream = [100.0], Stream(tty)
    bar = Bar("Takes", stream, lambda: now[0])
    for done in range(0, 101, 10):
        bar(done, 100, "kitchen")
        now[0] += 3
    assert "50/100" in stream.getvalue()
    assert "15 s, about 15 s left" in stream.getvalue()
    last = stream.getvalue().rstrip("\n").split("\r" if tty else "\n")[-1]
    assert "100/100" in last
    assert "30 s" in last
    assert "left" not in last


def test_a_bar_is_24_characters_wide_and_drawn_ten_times_a_second_at_most():
    now, stream = [0.0], Stream(True)
    bar = Bar("Takes", stream, lambda: now[0])
    for at, done in ((0.0, 0), (0.05, 3), (0.1, 1), (0.19, 7), (0.2, 6), (0.21, 8)):
        now[0] = at
        bar(done, 8, "kitchen")
    drawn = [line.split() for line in stream.getvalue().split("\r\x1b[2K")[1:]]
    assert [(line[1].count("█"), line[1].count("·"), line[2]) for line in drawn] == [
        (0, 24, "0/8"), (3, 21, "1/8"), (18, 6, "6/8"), (24, 0, "8/8")
    ]  # fmt: skip
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("kitchen\n")
    assert stream.getvalue().startswith("\r\x1b[2KTakes        ·")


def test_work_that_was_there_already_makes_the_rest_no_faster():
    now, stream = [0.0], Stream(False)
    bar = Bar("Takes", stream, lambda: now[0])
    bar(80, 100)
    now[0] = 10.0
    bar(90, 100)
    assert "about 10 s left" in stream.getvalue()


@given(st.floats(0, 1e6))
def test_clock_names_every_time(seconds):
    text = clock(seconds)
    number, unit = text.split()
    parts = [int(part) for part in number.split(":")]
    size = {"s": 1, "min": 60, "h": 3600}[unit]
    back = parts[0] * size + (parts[1] * size // 60 if len(parts) > 1 else 0)
    assert abs(back - seconds) <= (0.5 if unit != "h" else 60)
    assert len(parts) == 1 or 0 <= parts[1] < 60


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("backends", [(), ("procedural",), ("procedural", "z-image", "z-image"), ("folder",)])
def test_a_backend_that_keeps_no_shapes_is_told_where_they_were_asked_for(capsys, keep, backends):
    made = [SimpleNamespace(id=f"w/{k}", record=SimpleNamespace(backend=name)) for k, name in enumerate(backends)]
    config = RunConfig(variants=VariantsConfig(keep_shapes=keep))
    cli_notes.note_shapes(SimpleNamespace(variants=lambda: made), config)
    told = capsys.readouterr().err
    others = [name for name in backends if name != "procedural"]
    assert bool(told) == (keep and bool(others))
    if told:
        assert f"the {len(others)} of {len(backends)} variants by {others[0]} show objects" in told


# -- takes: seeds that mean nothing, failures with their reason, an episode folder for a run ------------------------------


def test_a_backend_that_reads_no_seed_makes_one_take_and_says_so(tmp_path, capsys):
    make_scene_episode(tmp_path / "e", frames=30, size=(80, 60))
    assert retake("skeleton", tmp_path / "e", *SMALL) == 0
    assert retake("variants", tmp_path / "e", "--worlds", "kitchen") == 0
    capsys.readouterr()
    assert retake("takes", tmp_path / "e", "--seeds", "1,2,3") == 0
    out = capsys.readouterr()
    assert "takes: 1 in" in out.out
    assert "backend 'composite' draws nothing from a seed; one take per variant (seed 1) instead of 3" in out.err
    run = tmp_path / "e-run"
    assert [p.parent.parent.name for p in run.glob("takes/*/*/take.json")] == ["kitchen-s1"]
    assert retake("takes", run, "--seed", "4") == 0
    assert "note" not in capsys.readouterr().err

    # `verify` and `export` take the episode folder for its run, as the other commands do.
    code = retake("verify", tmp_path / "e")
    assert code in (0, 3, 4)
    assert "of 2 takes passed" in capsys.readouterr().out
    for path in run.glob("verdicts/*/*/verdict.json"):
        write_json(
            path, {**read_json(path), "status": "fail", "overall": "fail", "reasons": ["lag: 3 frames, limit 1"]}
        )
    assert retake("export", tmp_path / "e", "--out", tmp_path / "d") == 2
    assert "2 takes were rejected" in capsys.readouterr().err
    cli_notes.note_failed(RunDirectory(run))
    assert "take kitchen-s1/front: fail: lag: 3 frames, limit 1" in capsys.readouterr().err


def stopping(arguments: list[str]) -> int:
    """A command that hears Ctrl-C."""
    Stop()
    return int(signal.getsignal(signal.SIGINT) is signal.default_int_handler)


def test_a_program_that_calls_a_command_has_its_own_ctrl_c_back(monkeypatch) -> None:
    monkeypatch.setitem(cli.ELSEWHERE, "doctor", ("test_cli_words:stopping", "", ""))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert retake("doctor") == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(retake("doctor")))
        thread.start()
        thread.join()
        assert codes == [1], "only the main thread may listen, and a command runs in any"
    finally:
        signal.signal(signal.SIGINT, before)


class Plain:
    """What a host puts in the place of stderr."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_display_that_nobody_can_see_does_not_end_the_work(monkeypatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    closed = io.StringIO()
    closed.close()
    left = os.fdopen(writing, "w")
    streams: list[object] = [left, closed, None, io.TextIOWrapper(io.BytesIO(), "ascii"), Plain()]
    for stream in streams:
        monkeypatch.setattr(sys, "stderr", stream)
        bar = Bar("Prüfung")
        for done in range(3):
            bar(done, 2)
        if isinstance(stream, Plain):
            assert stream.text.count("Prüfung: ") == 3
    with pytest.raises(BrokenPipeError):
        left.close()
