# SPDX-License-Identifier: Apache-2.0
"""A model that was tuned to read objects from a control video is given one by whoever makes takes, in the look of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_tune_cli
import tiny_run

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.export.physics import physics_arrays
from retake.core.files import write_json
from retake.core.run_store import RunDirectory
from retake.core.skeleton.objects import OBJECT_RGB
from retake.core.takes import make_take, read_take
from retake.core.takes.base import TakeRequest
from retake.worker.backends.oscar import OscarBackend
from retake.worker.oscar import object_control
from retake.worker.oscar.object_control import control_of_episode, drawn_on, object_control_of
from retake.worker.tune.cli import main
from retake.worker.tune.objects import object_video, read_truth

model, data = test_tune_cli.model, test_tune_cli.data
FRAMES = 5


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> TakeRequest:
    run = RunDirectory(tiny_run.make_run(tmp_path_factory.mktemp("objects")))
    variant = run.variants()[0]
    settings = {"steps": 1, "guidance": 0.0, "window": FRAMES, "height": 32, "width": 48, "preview": False}
    return TakeRequest(
        episode=run.episode, camera="front", skeleton=run.skeleton("front"), variant=variant.folder, prompt="", frames=FRAMES,
        start=2, settings=settings,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["embed", "drawn"])
def tuned(request: Any, tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> Path:
    """A model folder of that object control, as `retake tune save` writes it."""
    folder = tmp_path_factory.mktemp(request.param)
    command = ["run", str(data), "--model", str(model), "--out", str(folder / "out"), "--frames", "9", "--size", "32x32",
               "--object-control", request.param, "--steps", "1", "--lr", "0.01", "--warm-up", "0",
               "--device", "cpu"]  # fmt: skip
    assert main(command) == 0
    assert main(["save", str(folder / "out"), "--model", str(model), "--out", str(folder / "saved")]) == 0
    return folder / "saved"


def test_takes_show_the_model_what_training_showed(tuned: Path, request_: TakeRequest, monkeypatch: Any) -> None:
    control = json.loads((tuned / "tuned.json").read_text())["settings"]["step"]["objects"]["control"]
    assert object_control_of(tuned) == control
    backend = OscarBackend(model=str(tuned), device="cpu")
    given: dict[str, Any] = {}
    call = type(backend.pipeline).__call__

    def watched(pipe: Any, first: Any, skeleton: Any, **options: Any) -> Any:
        given.update(options, skeleton=skeleton)
        return call(pipe, first, skeleton, **options)

    monkeypatch.setattr(type(backend.pipeline), "__call__", watched)
    frames = list(backend.generate(request_))
    assert len(frames) == FRAMES
    assert backend.report["oscar"]["object_control"] == control
    episode = open_episode(request_.episode)
    glyphs = control_of_episode(episode, "front", request_.start, FRAMES)
    magenta = (glyphs == np.array(OBJECT_RGB[0])).all(axis=-1)
    assert magenta.any(axis=(1, 2)).all()
    if control == "embed":
        assert np.array_equal(given["object_video"], glyphs)
        assert not (given["skeleton"] == np.array(OBJECT_RGB[0])).all(axis=-1).any()
    else:
        assert "object_video" not in given
        assert (given["skeleton"] == np.array(OBJECT_RGB[0])).all(axis=-1).any(axis=(1, 2)).all()


def test_a_take_says_how_its_model_was_shown_the_objects(
    tuned: Path, request_: TakeRequest, model: Path, tmp_path: Path
) -> None:
    take = make_take(request_, OscarBackend(model=str(tuned), device="cpu"), tmp_path / "take" / "front")
    assert take.object_control == read_take(tmp_path / "take" / "front").object_control == object_control_of(tuned)
    plain = make_take(request_, OscarBackend(model=str(model), device="cpu"), tmp_path / "plain" / "front")
    assert plain.object_control == ""
    assert "object_control" not in json.loads((tmp_path / "plain" / "front" / "take.json").read_text())


def test_drawn_as_in_training(request_: TakeRequest) -> None:
    episode = open_episode(request_.episode)
    arrays = physics_arrays(episode, "front", 2, FRAMES)
    trained = object_video(read_truth(arrays, FRAMES, episode.header.camera("front").size), None)
    made = control_of_episode(episode, "front", 2, FRAMES)
    assert np.array_equal(made, trained)
    skeleton = np.full_like(made, 9)
    assert ((drawn_on(skeleton, made) == 9).all(axis=-1) == (made == 0).all(axis=-1)).all()


def test_an_episode_without_objects_is_refused(request_: TakeRequest, monkeypatch: Any) -> None:
    bare = {"object_movable": np.zeros(0, bool)}
    monkeypatch.setattr(object_control, "physics_arrays", lambda *_: bare)
    with pytest.raises(InputError, match="has no movable object"):
        control_of_episode(open_episode(request_.episode), "front", 0, FRAMES)


def test_a_model_without_a_word_reads_no_objects(tmp_path: Path, request_: TakeRequest, model: Path) -> None:
    assert object_control_of(tmp_path) == "none"
    backend = OscarBackend(model=str(model), device="cpu")
    list(backend.generate(replace(request_, frames=FRAMES)))
    assert "object_control" not in backend.report["oscar"]
    write_json(tmp_path / "tuned.json", {"settings": {"step": {"objects": {"control": "drawn"}}}})
    assert object_control_of(tmp_path) == "drawn"
