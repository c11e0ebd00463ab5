# SPDX-License-Identifier: Apache-2.0
"""One request to a run folder: what is remembered of it, and what a request that fails leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from strategies import random_frame, random_header

from retake.core.config import RunConfig
from retake.core.episode import EpisodeWriter
from retake.core.errors import Cancelled, InputError, RunError
from retake.core.files import read_json
from retake.core.run_store import LOCK, create_run, open_run
from retake.core.session import hold, settings_of


def seeded(seed: int):
    """What a request asks for: another seed of the takes."""
    return lambda base: replace(base, takes=replace(base.takes, seed=seed))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def ask(where: Path, seed: int = 1, *, error: BaseException | None = None, make=None, **options):
    with hold(where, seeded(seed), **options) as (run, config):
        if make is not None:
            make(run)
        if error is not None:
            raise error
        return run, config


def seed_in(where: Path) -> int:
    return settings_of(where).takes.seed


def write_episode(where: Path, rng) -> None:
    header = random_header(rng)
    with EpisodeWriter(where, header) as writer:
        writer.append(random_frame(rng, header, 0))
        writer.finish()


def test_a_new_run_has_the_settings_it_was_asked_for(tmp_path):
    assert settings_of(tmp_path / "r") == RunConfig()
    run, config = ask(tmp_path / "r", 5, create=True)
    assert config.takes.seed == seed_in(tmp_path / "r") == 5
    assert names(run.path) == [LOCK, "run.json"]
    with pytest.raises(RunError, match="is no run folder"):
        ask(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_later_request_is_remembered_where_that_was_asked(tmp_path):
    ask(tmp_path / "r", 5, create=True)
    assert ask(tmp_path / "r", 6)[1].takes.seed == 6
    assert seed_in(tmp_path / "r") == 5
    ask(tmp_path / "r", 7, remember=True)
    assert seed_in(tmp_path / "r") == 7
    before = (tmp_path / "r" / "run.json").stat().st_mtime_ns
    ask(tmp_path / "r", 7, remember=True)
    assert (tmp_path / "r" / "run.json").stat().st_mtime_ns == before, "the same again writes nothing"


def test_force_is_for_this_request_alone(tmp_path):
    assert ask(tmp_path / "r", create=True, remember=True, force=True)[1].check.force
    assert not settings_of(tmp_path / "r").check.force
    assert not ask(tmp_path / "r")[1].check.force


def test_a_wrong_setting_is_refused_before_a_folder_appears(tmp_path):
    def wrong(base):
        raise InputError("no such setting")

    with pytest.raises(InputError), hold(tmp_path / "a" / "r", wrong, create=True):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [InputError("wrong"), RuntimeError("a defect")])
def test_a_first_request_that_fails_leaves_nothing_of_its_own(tmp_path, error):
    with pytest.raises(type(error)):
        ask(tmp_path / "a" / "r", create=True, error=error)
    assert names(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(type(error)):
        ask(tmp_path / "mine", create=True, error=error)
    assert [n for n in names(tmp_path / "mine") if n != LOCK] == []
    with pytest.raises(type(error)):
        ask(tmp_path / "kept", create=True, error=error, make=lambda run: (run.path / "report.html").write_text("x"))
    assert [n for n in names(tmp_path / "kept") if n != LOCK] == ["report.html"]


@pytest.mark.parametrize("error", [Cancelled("stop"), KeyboardInterrupt()])
def test_a_request_that_was_stopped_is_gone_on_with(tmp_path, error):
    with pytest.raises(type(error)):
        ask(tmp_path / "r", 9, create=True, remember=True, error=error)
    assert seed_in(tmp_path / "r") == 9


def test_a_later_request_that_fails_is_forgotten(tmp_path):
    ask(tmp_path / "r", 5, create=True)
    with pytest.raises(InputError):
        ask(tmp_path / "r", 6, remember=True, error=InputError("wrong"))
    assert seed_in(tmp_path / "r") == 5


def test_a_stage_that_was_finished_before_the_failure_keeps_what_it_was_made_with(tmp_path):
    """The episode is there, made as the request asked: only what came after it is forgotten."""

    def config(base):
        return replace(base, capture=replace(base.capture, seed=4), takes=replace(base.takes, seed=6), cameras=("a",))

    def fail(asked, *, captured: bool):
        with hold(tmp_path / "r", asked, remember=True) as (run, _):
            if captured:
                run.finish_stage("capture", inputs="x", episode_sha256="y")
            raise InputError("a later stage")

    ask(tmp_path / "r", 5, create=True)
    with pytest.raises(InputError):
        fail(config, captured=True)
    found = settings_of(tmp_path / "r")
    assert (found.capture.seed, found.cameras, found.takes.seed) == (4, ("a",), 5)
    assert open_run(tmp_path / "r").stage("capture")["inputs"] == "x"
    with pytest.raises(InputError):
        fail(lambda base: replace(base, cameras=("b",)), captured=False)
    assert settings_of(tmp_path / "r").cameras == ("a",), "nothing was made with that"


def test_of_a_first_request_an_unfinished_episode_goes_and_a_finished_one_stays(tmp_path, rng):
    def begun(run):
        run.finish_stage("capture", started="x")
        (run.episode / "cameras").mkdir(parents=True)

    with pytest.raises(InputError):
        ask(tmp_path / "r", create=True, remember=True, error=InputError("wrong"), make=begun)
    assert names(tmp_path) == []

    def made(run):
        write_episode(run.episode, rng)
        run.finish_stage("capture", inputs="x", episode_sha256="y")

    with pytest.raises(InputError):
        ask(tmp_path / "r", 8, create=True, remember=True, error=InputError("wrong"), make=made)
    assert (tmp_path / "r" / "episode" / "complete.json").exists()
    assert seed_in(tmp_path / "r") == RunConfig().takes.seed
    assert read_json(tmp_path / "r" / "run.json")["stages"]["capture"]["inputs"] == "x"


def test_an_episode_of_the_user_s_is_never_removed(tmp_path, rng):
    write_episode(tmp_path / "mine", rng)
    with pytest.raises(InputError):
        ask(tmp_path / "mine", error=InputError("wrong"))
    assert names(tmp_path) == ["mine"]
    run, _ = ask(tmp_path / "mine")
    assert run.path == tmp_path / "mine-run"
    assert run.episode == tmp_path / "mine"


def test_what_a_killed_process_left_is_cleared_before_and_after(tmp_path):
    run = create_run(tmp_path / "r", json.loads(json.dumps(RunConfig().to_json())))
    (run.path / ".episode.tmp").mkdir()

    def orphan(run):
        assert not (run.path / ".episode.tmp").exists()
        (run.path / ".late.tmp").mkdir()

    ask(run.path, make=orphan)
    assert names(run.path) == [LOCK, "run.json"]
