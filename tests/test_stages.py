# SPDX-License-Identifier: Apache-2.0
"""The Python API and what a failed request leaves: the same folders as the command line's, records back, nothing behind."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import arrow_driver
import pytest

from retake.core import pipeline, stages
from retake.core.episode import Episode
from retake.core.errors import Cancelled, InputError, MissingDependencyError, RunError, VariantError
from retake.core.files import read_json, write_json
from retake.core.run_store import open_run
from retake.core.session import hold
from retake.core.takes import Take

SMALL = {"capture.simulator": "scene", "skeleton.size": [64, 48], "verdicts.enabled": False}
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def scene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipeline.SIMULATORS, "scene", "arrow_driver:simulate")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pipeline.SIMULATORS, "scene", "arrow_driver:simulate")
        from retake.core import run

        result = run(path, variants=2, seeds=[1], settings=SMALL)
    assert isinstance(result.episode, Episode)
    assert [v.id for v in result.variants] == ["bun_warehouse/front", "chips_conveyor/front"]
    assert [t.id for t in result.takes] == ["bun_warehouse-s1/front", "chips_conveyor-s1/front"]
    assert {s.status for s in result.standings.values()} == {"not judged"}
    assert result.passed == ()
    assert result.report.is_file()
    return path


def test_the_command_line_finds_the_same_run_finished(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.json") if p.parent.name != "report"}
    assert arrow_driver.main(["run", "--run", str(finished)]) == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {p.name for p in before if before[p] != after[p]} <= {"run.json"}


def test_every_stage_by_itself(tmp_path: Path, finished: Path) -> None:
    path = str(tmp_path / "r")
    episode = stages.capture(path, settings=SMALL)
    assert stages.check(path).passed
    assert {name: made.path.is_dir() for name, made in stages.skeleton(path).items()} == {"front": True}
    assert [v.id for v in stages.variants(path, ["kitchen"]).variants] == ["kitchen/front"]
    made = stages.takes(path, seeds=[4])
    assert [(type(t), t.id, t.inputs["episode"]) for t in made] == [(Take, "kitchen-s4/front", episode.content_sha256)]
    assert list(stages.verify(path)) == ["kitchen-s4/front"]
    assert stages.report(path) == Path(path) / "report.html"
    with pytest.raises(InputError, match="the call: takes: unknown setting 'sed'"):
        stages.takes(path, settings={"takes.sed": 1})


@pytest.mark.parametrize("wrong", [0, -1, True, "kitchen"])
def test_a_wrong_number_of_worlds_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(InputError, match="expected a number"):
        stages.run(tmp_path / "r", variants=wrong, settings=SMALL)  # type: ignore[arg-type]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("wanted", "presets", "count"), [(1, 1, 0), (3, 3, 0), (5, 3, 2), (["kitchen"], 1, 0), (None, 3, 0)]
)
def test_numbers_take_presets_first(wanted, presets, count) -> None:
    asked = stages._worlds(wanted, None)
    assert len(asked.get("variants.presets", (1, 2, 3))) == presets
    assert asked.get("variants.count", 0) == count


def test_importing_core_stays_free() -> None:
    import subprocess

    code = (
        "import sys, retake.core; assert not {m for m in sys.modules if m.startswith(('retake.core.', 'numpy', 'cv2'))}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import retake.core

    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = retake.core.walk


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(pipeline.SIMULATORS, "newton", "arrow_driver:simulate")
    monkeypatch.setattr(sys, "argv", ["arrow.py", str(tmp_path / "run")])
    runpy.run_path(str(ROOT / "examples" / "arrow.py"))
    assert "bun_warehouse-s42/front: 30 frames" in capsys.readouterr().out


# -- what fails leaves nothing ------------------------------------------------------------------------------------------


class Defect(Exception):
    pass


def explode(*arguments, **options):
    raise explode.error


@pytest.mark.parametrize(
    "error", [Defect("a bug"), MemoryError(), OSError(28, "No space left"), MissingDependencyError("no torch"),
              VariantError("no"), ImportError("gone")],
)  # fmt: skip
def test_a_first_request_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch, error) -> None:
    explode.error = error
    monkeypatch.setattr(pipeline, "capture", explode)
    with pytest.raises(type(error)):
        stages.run(tmp_path / "new", settings=SMALL)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(type(error)):
        stages.run(tmp_path / "mine", settings=SMALL)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "error", [Defect("a bug"), MemoryError(), MissingDependencyError("no torch"), OSError(5, "I/O")]
)
def test_a_later_request_that_fails_is_not_remembered(finished: Path, monkeypatch, error) -> None:
    before = read_json(finished / "run.json")
    explode.error = error
    monkeypatch.setattr(pipeline, "takes", explode)
    with pytest.raises(type(error)):
        stages.takes(finished, backend="oscar", seeds=[9])
    assert read_json(finished / "run.json") == before
    with pytest.raises(type(error)):
        stages.run(finished, take_backend="composite", seeds=[9])
    assert read_json(finished / "run.json") == before


def test_what_was_simulated_before_the_failure_is_kept_and_not_simulated_again(tmp_path: Path, monkeypatch) -> None:
    explode.error = Defect("a bug")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "takes", explode)
        with pytest.raises(Defect):
            stages.run(tmp_path / "r", variants=1, seed=5, settings={**SMALL, "takes.seed": 99})
    config = open_run(tmp_path / "r").manifest()["config"]
    assert (config["capture"]["seed"], config["takes"]["seed"]) == (5, 42)
    stamp = (tmp_path / "r/episode/complete.json").stat().st_mtime_ns
    stages.run(tmp_path / "r", variants=1, settings={"verdicts.enabled": False, "skeleton.size": [64, 48]})
    assert (tmp_path / "r/episode/complete.json").stat().st_mtime_ns == stamp


def test_a_cancelled_request_is_remembered_so_that_the_same_call_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Cancelled), hold(tmp_path / "r", lambda base: base, create=True, remember=True):
        raise Cancelled("stop")
    assert (tmp_path / "r" / "run.json").exists()


def test_an_unknown_run_is_no_reason_to_make_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        stages.takes(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_oscar_without_torch_is_one_sentence_with_the_remedy(finished: Path, monkeypatch, capsys) -> None:
    before = read_json(finished / "run.json")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert arrow_driver.main(["takes", str(finished), "--backend", "oscar"]) == 2
    said = capsys.readouterr().err
    assert "needs 'torch', which cannot be imported here" in said
    assert "[oscar]" in said
    assert said.count("\n") <= 2
    assert "Traceback" not in said
    assert read_json(finished / "run.json") == before
    assert not [p for p in (finished / "takes").iterdir() if "oscar" in p.name]


def test_an_untouched_rerun_opens_and_verifies_the_episode_once(finished: Path, monkeypatch) -> None:
    """Its stages share one reading; a file that changed meanwhile is read again."""
    import os
    import time

    from retake.core.episode import open_episode, reader

    def age() -> None:
        for path in (finished / "episode").iterdir():
            if path.is_file():
                os.utime(path, (time.time() - 60, time.time() - 60))

    age()
    reads, verified = [], []
    real, check = reader._read, reader.Episode.verify
    monkeypatch.setattr(reader, "_read", lambda *a: (reads.append(a), real(*a))[1])
    monkeypatch.setattr(reader.Episode, "verify", lambda self: (verified.append(self), check(self))[1])
    assert arrow_driver.main(["run", "--run", str(finished)]) == 0
    assert (len(reads), len(verified)) == (1, 1)
    held = open_episode(finished / "episode")
    assert open_episode(finished / "episode") is held
    (finished / "episode/complete.json").touch()
    assert open_episode(finished / "episode") is not held
    age()


def test_takes_made_again_over_other_frames_are_not_judged_by_the_old_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "r"
    stages.run(path, variants=["kitchen"], seeds=[1], settings=SMALL)
    run = open_run(path)
    [take] = run.takes()
    verdict = {"schema": "retake.verdict/1", "status": "pass", "probability": 0.9, "video_sha256": take.video_sha256}
    write_json(run.verdict_folder(take.id) / "verdict.json", verdict)
    assert run.standing(take).status == "pass"
    assert arrow_driver.main(["variants", str(path), "--seed", "5"]) == 0
    assert run.standing(run.takes()[0]).status == "outdated"
    assert arrow_driver.main(["takes", str(path)]) == 0
    [again] = run.takes()
    assert again.id == take.id
    assert (run.standing(again).status, run.verdict_of(again)) == ("not judged", None)
    assert arrow_driver.main(["report", str(path)]) == 0
    assert '"status": "not judged", "reason": "its verdict is of another video"' in run.report.read_text("utf-8")
