# SPDX-License-Identifier: Apache-2.0
"""The whole arrow on small scenes: artefacts, resuming, kills, cancellation, refusals and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import arrow_driver
import pytest

from retake.core.episode import open_episode
from retake.core.files import read_json, sha256_file
from retake.core.run_store import RunDirectory

HERE = Path(__file__).parent
FULL = os.environ.get("RETAKE_FULL") == "1"


def arrow(*arguments: str | Path) -> int:
    return arrow_driver.main([str(a) for a in arguments])


def artefacts(run: Path) -> dict[str, str]:
    """Hash of every file that belongs to the run's content (host data and the lock do not)."""
    return {
        p.relative_to(run).as_posix(): sha256_file(p)
        for p in sorted(run.rglob("*"))
        if p.is_file() and p.name not in ("host.json", ".lock")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "mein Lauf №1"
    assert arrow("run", "--run", run, *arrow_driver.SMALL) == 0
    return run


def test_the_folder_is_as_documented(finished):
    assert open_episode(finished / "episode").complete
    for name in ("gripper_scenario.mp4", "overlay.mp4", "skeleton.json", "frames/000000.png"):
        assert (finished / "skeleton/front" / name).exists()
    assert (
        len(list(finished.glob("variants/*/*/frame.png"))) == len(list(finished.glob("variants/*/*/variant.json"))) == 3
    )
    takes = [read_json(p) for p in sorted(finished.glob("takes/*/*/take.json"))]
    assert len(takes) == 3
    assert len({t["inputs"]["skeleton"] for t in takes}) == 1
    assert {t["inputs"]["episode"] for t in takes} == {open_episode(finished / "episode").content_sha256}
    for take in takes:
        frame = finished / "variants" / take["variant"] / "frame.png"
        assert take["inputs"]["first_frame"] == sha256_file(frame)
        assert take["video_sha256"] == sha256_file(finished / "takes" / take["id"] / "take.mp4")
        assert take["domain"] == "composite"
    assert not [p for p in finished.rglob(".*") if p.name != ".lock"]
    assert "<script" in (finished / "report.html").read_text("utf-8")


def test_an_untouched_rerun_changes_nothing(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p.parent.name != "report"}
    assert arrow("run", "--run", finished, *arrow_driver.SMALL) == 0
    kept = [p for p, stamp in before.items() if p.exists() and p.stat().st_mtime_ns == stamp]
    changed = {p.name for p in set(before) - set(kept)}
    assert changed <= {"report.html", "run.json", ".lock"}


def test_only_what_depends_on_a_changed_setting_is_made_again(finished, tmp_path):
    import shutil

    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    before = artefacts(run)
    assert arrow("takes", run, "--seed", "7") == 0
    after = artefacts(run)
    assert {k: v for k, v in after.items() if k.startswith(("episode/", "skeleton/", "variants/"))} == {
        k: v for k, v in before.items() if k.startswith(("episode/", "skeleton/", "variants/"))
    }
    assert len(list(run.glob("takes/*/*/take.json"))) == 6
    assert arrow("capture", run, "--seed", "1") == 0
    assert open_episode(run / "episode").content_sha256 != open_episode(finished / "episode").content_sha256


def test_an_episode_stays_where_the_simulator_that_could_read_its_stage_is_not_installed(monkeypatch):
    from retake.core import pipeline, plugins
    from retake.core.config import RunConfig
    from retake.core.errors import MissingDependencyError

    config = RunConfig()
    here = pipeline._capture_inputs(config, None)

    def missing(reference: str, *, extra: str = "") -> object:
        raise MissingDependencyError(f"{reference} [{extra}]")

    monkeypatch.setattr(plugins, "load", missing)
    there = pipeline._capture_inputs(config, None)
    assert here != there
    assert pipeline._same(here, there)
    assert not pipeline._same("another" + here, there)
    assert not pipeline._same(None, there)


def test_two_undisturbed_runs_are_equal(finished, tmp_path):
    assert arrow("run", "--run", tmp_path / finished.name, *arrow_driver.SMALL) == 0
    one, two = artefacts(finished), artefacts(tmp_path / finished.name)
    assert one == two


def test_killed_at_any_moment_and_run_again_gives_the_same_artefacts(finished, tmp_path, nobody_reaps, rng):
    reference = artefacts(finished)
    run = tmp_path / finished.name
    command = [sys.executable, str(HERE / "arrow_driver.py"), "run", "--run", str(run), *arrow_driver.SMALL]
    kills = 30 if FULL else 3
    for _ in range(kills):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(timeout=float(rng.uniform(0.6, 6.0 if FULL else 4.0)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL) if rng.random() < 0.5 else process.kill()
            process.wait()
        else:
            # It finished between two kills: start over, so that later kills hit again.
            assert process.returncode == 0
            assert artefacts(run) == reference
            for name in ("takes", "variants", "skeleton"):
                if rng.random() < 0.5:
                    subprocess.run(["rm", "-rf", str(run / name)], check=True)
    time.sleep(0.5)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert artefacts(run) == reference


@pytest.mark.parametrize("stage", ["skeleton", "variants", "takes", "report"])
def test_each_stage_killed_and_run_again_gives_the_same_artefacts(finished, tmp_path, stage, rng):
    import shutil

    reference, run = artefacts(finished), tmp_path / finished.name
    shutil.copytree(finished, run)
    command = [sys.executable, str(HERE / "arrow_driver.py"), stage, str(run)]
    owned = {"report": ["report", "report.html"]}.get(stage, [stage])
    interrupted, wanted, longest = 0, 10 if FULL else 1, 2.5
    for attempt in range(30):
        if interrupted == wanted:
            break
        if attempt % 3 == 0:
            for name in owned:
                subprocess.run(["rm", "-rf", str(run / name)], check=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=float(rng.uniform(0.1, longest)))
            longest = max(0.2, longest * 0.8)  # it was done before the kill: sooner next time
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            interrupted += 1
    time.sleep(0.5)
    assert interrupted == wanted
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert artefacts(run) == reference


def test_ctrl_c_leaves_a_resumable_run(finished, tmp_path):
    run = tmp_path / finished.name
    command = [sys.executable, str(HERE / "arrow_driver.py"), "run", "--run", str(run), *arrow_driver.SMALL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    for line in process.stdout:
        if b"Variants" in line:
            process.send_signal(signal.SIGINT)
            break
    out = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait(timeout=60) == 130, out
    assert "goes on from here" in out
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert artefacts(run) == artefacts(finished)


def test_stages_one_by_one_give_what_run_gives(finished, tmp_path):
    run = tmp_path / finished.name
    assert arrow("capture", run, *arrow_driver.SMALL) == 0
    for stage in ("check", "skeleton", "variants", "takes", "report"):
        assert arrow(stage, run) == 0
    assert artefacts(run) == artefacts(finished)


def test_an_episode_folder_from_elsewhere_gets_a_run_beside_it(finished, tmp_path):
    import shutil

    shutil.copytree(finished / "episode", tmp_path / "recorded")
    assert arrow("skeleton", tmp_path / "recorded") == 0
    assert (tmp_path / "recorded-run/skeleton/front/skeleton.json").exists()
    assert arrow("variants", tmp_path / "recorded-run", "--preset", "bun_warehouse") == 0
    assert len(list((tmp_path / "recorded-run/variants").glob("*/*/variant.json"))) == 1


def test_a_failing_episode_stops_the_arrow_unless_forced_and_takes_say_so(tmp_path, capsys):
    run = tmp_path / "r"
    strict = [*arrow_driver.SMALL, "--set", "check.penetration_m=-1.0"]
    assert arrow("run", "--run", run, *strict) == 5
    text = capsys.readouterr().err
    assert "penetration" in text
    assert "--force" in text
    assert not (run / "takes").exists()
    assert arrow("run", "--run", run, *strict, "--force") == 0
    takes = [read_json(p) for p in run.glob("takes/*/*/take.json")]
    assert takes
    assert all(t["extra"]["episode_check"] == "failed, forced" for t in takes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--run", "{run}", "--set", "capture.simulator=unreal"], "unknown simulator 'unreal'; valid: .*newton"),
        (["run", "--run", "{run}", "--set", "capture.nope=1"], "unknown setting 'nope'"),
        (["run", "--run", "{run}", "--set", "takes.seed=["], "'\\[' is not a YAML value"),
        (
            ["run", "--run", "{run}", "--set", "check.penetration_m=.inf"],
            "penetration_m needs a finite number; found inf",
        ),
        (["run", "--run", "{run}", "--set", "capture.overrides={day: 2020-01-01}"], "which JSON cannot hold"),
        (["run", "--run", __file__], "is a file; a run is a folder"),
        (["run", "--run", "{run}", "--stage", "none.usda", *arrow_driver.SMALL], "none.usda does not exist"),
        (["skeleton", "{run}"], "no run folder"),
        (["run", "--run", "{run}", *arrow_driver.SMALL, "--camera", "roof"], "no camera 'roof'; it has: .*front"),
        (["run", "--run", "{run}", *arrow_driver.SMALL, "--worlds", "mars"], "'mars'; valid: .*bun_warehouse"),
        (["run", "--run", "{run}", *arrow_driver.SMALL, "--set", "takes.backend=magic"], "'magic'; valid: .*composite"),
    ],
)
def test_wrong_requests_are_explained(tmp_path, capsys, arguments, message):
    import re

    assert arrow(*(a.replace("{run}", str(tmp_path / "r")) for a in arguments)) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_of_the_users_is_refused_untouched(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("keep")
    assert arrow("run", "--run", tmp_path, *arrow_driver.SMALL) == 2
    assert "choose an empty or new folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_full_disk_is_one_sentence_and_loses_nothing(finished, tmp_path, monkeypatch, capsys):
    """A write refused by the system in the middle of the takes: exit code 6, earlier stages intact, then resumed."""
    run = tmp_path / finished.name
    for stage in ("capture", "skeleton", "variants"):
        assert arrow(stage, run, *arrow_driver.SMALL) == 0

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(run / "takes"))

    monkeypatch.setattr("retake.core.takes.fan_out.video_backend", full)
    assert arrow("takes", run) == 6
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    open_episode(run / "episode").verify()
    assert arrow("takes", run) == 0
    assert arrow("report", run) == 0
    assert {k: v for k, v in artefacts(run).items() if k != "run.json"} == {
        k: v for k, v in artefacts(finished).items() if k not in ("run.json", "check.json") or k == "check.json"
    }


def test_help_teaches_without_heavy_imports():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from retake.core.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
         "print([m for m in ('numpy','cv2','torch','newton') if m in sys.modules], file=sys.stderr)"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "retake open runs/demo" in done.stdout
    for word in ("capture", "check", "skeleton", "variants", "takes", "verify", "export", "oscar", "worker"):
        assert word in done.stdout
    assert "torch" not in done.stderr
    assert "newton" not in done.stderr


def test_config_is_remembered_by_the_run(finished):
    manifest = json.loads((finished / "run.json").read_text("utf-8"))
    assert manifest["config"]["capture"]["simulator"] == "scene"
    assert set(manifest["stages"]) >= {"capture", "check"}


def test_a_second_process_is_refused_and_changes_nothing(finished, capsys):
    """Two runs into one folder: the one that came second neither writes nor alters what the first was asked."""
    before = artefacts(finished)
    with RunDirectory(finished).locked():
        for command in (["run", "--run", finished], ["capture", finished], ["takes", finished], ["variants", finished]):
            assert arrow(*command, "--seed", "5") == 2
            assert "another process" in capsys.readouterr().err
    assert artefacts(finished) == before


def test_a_wrong_request_is_not_remembered(finished, tmp_path, capsys):
    manifest = (finished / "run.json").read_bytes()
    assert arrow("takes", finished, "--set", "takes.start=99") == 2
    assert "the episode has frames 0 … 29" in capsys.readouterr().err
    assert arrow("variants", finished, "--set", "takes.start=-1") == 2
    assert arrow("variants", finished, "--preset", "mars") == 2
    assert json.loads((finished / "run.json").read_bytes()) == json.loads(manifest)
    assert arrow("run", "--run", tmp_path / "new", "--set", "capture.simulator=unreal") == 2
    assert not (tmp_path / "new/run.json").exists()


def test_settings_inside_a_mapping_can_be_set_on_an_existing_run(tmp_path):
    run = tmp_path / "r"
    assert arrow("capture", run, *arrow_driver.SMALL) == 0
    assert arrow("capture", run, "--set", "capture.overrides.frames=5") == 0
    assert len(open_episode(run / "episode")) == 5


def test_takes_never_mix_a_variant_with_another_episode_or_frame(finished, tmp_path, capsys):
    """What belongs to a replaced episode is set aside, and variants of another first frame are not used."""
    import shutil

    run = tmp_path / "r"
    shutil.copytree(finished, run)
    assert arrow("takes", run, "--set", "takes.start=3") == 2
    assert "no variants of camera 'front' at frame 3 (3 are there for another" in capsys.readouterr().err
    old = open_episode(run / "episode").content_sha256
    assert arrow("capture", run, "--set", "capture.overrides.frames=45") == 0
    assert arrow("skeleton", run) == 0
    assert arrow("takes", run) == 2
    assert len(list(run.glob(f"superseded/{old[:12]}/takes/*/*/take.mp4"))) == 3
    assert arrow("variants", run, "--preset", "bun_warehouse") == 0
    assert arrow("takes", run) == 0
    records = [read_json(p) for p in run.glob("takes/*/*/take.json")]
    assert [r["inputs"]["episode"] for r in records] == [open_episode(run / "episode").content_sha256]


def test_a_process_killed_while_a_new_episode_took_the_place_of_the_old_one(tmp_path):
    """The folder holds the new episode, run.json still names the old one: the old settings make the old one again."""
    run = tmp_path / "r"
    assert arrow("capture", run, *arrow_driver.SMALL, "--set", "capture.overrides.frames=4") == 0
    wanted, manifest = open_episode(run / "episode").content_sha256, (run / "run.json").read_bytes()
    assert arrow("capture", run, "--set", "capture.overrides.frames=5") == 0
    (run / "run.json").write_bytes(manifest)
    assert arrow("capture", run) == 0
    assert open_episode(run / "episode").content_sha256 == wanted


def test_a_recording_that_is_gone_is_never_replaced_by_a_simulation(finished, tmp_path, capsys):
    import shutil

    shutil.copytree(finished / "episode", tmp_path / "recorded")
    assert arrow("check", tmp_path / "recorded") == 0
    (tmp_path / "recorded").rename(tmp_path / "unplugged")
    assert arrow("run", "--run", tmp_path / "recorded-run", *arrow_driver.SMALL) == 2
    assert "is gone; put it back" in capsys.readouterr().err
    assert not (tmp_path / "recorded").exists()


def test_only_commercial_reaches_the_backend(finished, monkeypatch, capsys):
    monkeypatch.setattr("retake.core.painter.procedural.ProceduralBackend.licence", "CC-BY-NC-4.0")
    assert arrow("variants", finished, "--only-commercial") == 2
    assert "'CC-BY-NC-4.0': it forbids commercial use" in capsys.readouterr().err


def test_force_is_not_remembered(tmp_path):
    run = tmp_path / "r"
    strict = [*arrow_driver.SMALL, "--set", "check.penetration_m=-1.0", "--set", "capture.overrides.frames=3"]
    assert arrow("capture", run, *strict) == 0
    assert arrow("skeleton", run, "--force") == 0
    assert arrow("variants", run, "--force", "--preset", "bun_warehouse") == 0
    assert arrow("takes", run) == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("variants.presets=[mars]", "unknown preset 'mars'"),
        ("variants.prompts=[a bakery at dawn]", "'procedural' paints from recipes"),
        ("variants.backend=crayons", "unknown image backend 'crayons'"),
    ],
)
def test_what_cannot_be_dressed_is_said_before_anything_is_simulated(tmp_path, capsys, setting, message):
    assert arrow_driver.main(["run", "--run", str(tmp_path / "run"), *arrow_driver.SMALL, "--set", setting]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "episode").exists()
