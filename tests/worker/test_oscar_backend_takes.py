# SPDX-License-Identifier: Apache-2.0
"""A take through retake.worker.backends.oscar, with a pipeline that a test plays: what it is called with, what is told while it
works, and which frames come out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from worker_support import Place, make_place

from retake.core.errors import Cancelled, InputError, TakeError
from retake.core.skeleton import open_skeleton
from retake.core.takes.base import TakeRequest
from retake.worker.backends import oscar as module
from retake.worker.backends.oscar import PREVIEW_STEPS, OscarBackend
from retake.worker.oscar.few_step import Student


class Pipeline:
    """Films what a test says, in as many evaluations as it is asked for, and one."""

    model_revision, approximations, margin_bytes = "r7", ("steps:2",), 0

    def __init__(self, student: Student | None = None) -> None:
        self.student, self.calls = student, []
        self.cancelled, self.extra, self.kernels = 0, 0, []
        self.vae = SimpleNamespace(use_tiling=False)
        self.transformer = SimpleNamespace(dtype=torch.float32)
        self.film: Any = lambda count, height, width: (
            np.arange(count)[:, None, None, None] * np.ones((1, height, width, 3))
        )

    def __call__(self, first: np.ndarray, control: np.ndarray, **call: Any) -> Any:
        self.calls.append((first, control, call))
        count = call["num_inference_steps"] + (self.student is None) + self.extra
        for step in range(count):
            latents = torch.zeros(1, 16, 2, 4, 4) + step
            call["callback_on_step_end"](self, step, 0, {"latents": latents})
        frames = self.film(len(control), call["height"], call["width"])
        return SimpleNamespace(
            frames=[np.asarray(frames, np.uint8)], tier="staged", report=lambda: {"told": 1}, approximations=["steps:2"]
        )

    def set_progress_bar_config(self, **_: Any) -> None:
        pass

    def use_kernels(self, name: str) -> str:
        self.kernels.append(name)
        return "because"

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("takes"), 7)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> OscarBackend:
    monkeypatch.setattr("retake.worker.oscar.backends.attention_of", lambda transformer: "native")
    return OscarBackend(pipeline=Pipeline(), device="cpu", steps=4, guidance=2.5)


def request(place: Place, frames: int = 5, start: int = 0, **settings: Any) -> TakeRequest:
    run = place.run
    return TakeRequest(
        run / "episode", "front", run / "skeleton" / "front", run / "variants" / "v0" / "front", "a packet", seed=9,
        frames=frames, start=start, settings=settings,
    )  # fmt: skip


@pytest.mark.parametrize(("frames", "start", "shown"), [
    (5, 0, range(5)), (3, 2, range(2, 5)), (0, 0, range(7)), (0, 6, range(6, 7)), (1, 6, range(6, 7)),
])  # fmt: skip
def test_the_model_sees_the_first_frame_and_the_skeleton_of_its_frames(place, made, frames, start, shown):
    skeleton = open_skeleton(place.run / "skeleton/front")
    assert len(list(made.generate(request(place, frames, start)))) == len(shown)
    ((first, control, call),) = made.pipeline.calls
    wanted = cv2.cvtColor(cv2.imread(str(place.run / "variants/v0/front/frame.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(first, wanted)
    assert np.array_equal(control, np.stack([skeleton.frame(k) for k in shown]))
    width, height = skeleton.squeeze.model_size
    del call["callback_on_step_end"]
    assert call == {
        "prompt": "a packet", "negative_prompt": None, "height": height, "width": width, "seed": 9, "output_type": "np",
        "num_inference_steps": 4, "guidance_scale": 2.5, "fit": "squeeze", "num_frames": 81, "exact_first_frame": True,
    }  # fmt: skip


@pytest.mark.parametrize(("frames", "start"), [(8, 0), (7, 1), (1, 7), (0, 7), (3, -1), (-2, 4)])
def test_frames_that_are_not_there_are_refused(place, made, frames, start):
    with pytest.raises(InputError, match="the skeleton has 7"):
        next(made.generate(request(place, frames, start)))
    assert made.pipeline.calls == []


def test_settings_are_handed_on_and_unknown_ones_refused(place, made):
    settings = {"steps": 2, "guidance": 0.0, "fit": "crop", "window": 9, "height": 32, "width": 48, "exact_first_frame": False,
                "preview": False}  # fmt: skip
    list(made.generate(replace(request(place, **settings), negative_prompt="blur")))
    _, _, call = made.pipeline.calls[0]
    told = {name: call[name] for name in ("num_inference_steps", "guidance_scale", "fit", "num_frames", "height", "width",
                                          "exact_first_frame", "negative_prompt")}  # fmt: skip
    assert list(told.values()) == [2, 0.0, "crop", 9, 32, 48, False, "blur"]
    assert "preview" not in call
    with pytest.raises(InputError, match="unknown setting of the oscar backend 'stepz'"):
        next(made.generate(request(place, stepz=1)))


def test_a_student_brings_its_own_steps(place, monkeypatch):
    monkeypatch.setattr("retake.worker.oscar.backends.attention_of", lambda transformer: "native")
    backend, told = OscarBackend(pipeline=Pipeline(Student(2, guidance=1.5)), device="cpu"), []
    list(backend.generate(request(place), lambda *at: told.append(at)))
    _, _, call = backend.pipeline.calls[0]
    assert (call["num_inference_steps"], call["guidance_scale"]) == (2, 1.5)
    assert [at[:2] for at in told] == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("extra", [0, 3])
def test_every_evaluation_is_told_and_more_than_expected_never_overshoot(place, made, extra):
    made.pipeline.extra, told, shown = extra, [], []
    made.preview = shown.append
    list(made.generate(request(place), lambda *at: told.append(at)))
    count = 5 + extra
    assert told[0] == (0, 5, "encoding")
    assert told[1:] == [(k + 1, max(5, k + 1), f"denoising, step {k + 1}") for k in range(count)]
    assert len(shown) == -(-count // PREVIEW_STEPS)
    assert all(picture.shape == (32, 32, 3) and picture.dtype == np.uint8 for picture in shown)
    shown.clear()
    list(made.generate(request(place, preview=False)))
    assert shown == []


@pytest.mark.parametrize(("settings", "undone"), [
    ({}, True), ({"width": 64, "height": 48}, False), ({"fit": "crop"}, False), ({"width": 320}, False),
])  # fmt: skip
def test_frames_come_back_at_the_camera_s_size_where_they_were_squeezed(place, made, settings, undone):
    frames = list(made.generate(request(place, **settings)))
    _, _, call = made.pipeline.calls[0]
    assert {frame.shape for frame in frames} == {(48, 64, 3) if undone else (call["height"], call["width"], 3)}
    assert [int(frame[0, 0, 0]) for frame in frames] == list(range(5))


def test_a_take_says_how_it_was_made(place, made):
    list(made.generate(request(place)))
    assert (made.tier, made.approximations, made.revision) == ("staged", ("steps:2",), "r7")
    assert made.report == {"oscar": {
        "told": 1, "device": "cpu", "dtype": "float32", "attention": "native", "tiled": False, "compiled": False,
        "deterministic": False,
    }}  # fmt: skip
    assert made.kernels_note == "because"
    assert made.pipeline.kernels == ["auto"], "chosen once, not for every take"
    list(made.generate(request(place)))
    assert made.pipeline.kernels == ["auto"]


def test_too_few_frames_and_unreadable_first_ones_are_refused(place, made, tmp_path):
    made.pipeline.film = lambda count, height, width: np.zeros((count - 1, height, width, 3))
    with pytest.raises(TakeError, match="returned 4 frames; 5 were asked"):
        list(made.generate(request(place)))
    with pytest.raises(InputError, match="no readable picture"):
        list(made.generate(replace(request(place), variant=tmp_path)))


@pytest.mark.parametrize("at", [1, 2, 4, 8])
def test_a_stop_is_heard_before_between_and_after_steps(place, made, at):
    """Once before the work, once in each of five evaluations, once for each frame."""
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == at:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        list(made.generate(request(place), check_cancel=check))
    assert made.pipeline.cancelled == (1 if 1 < at <= 6 else 0), "a pipeline that is in the middle is told to end"


def test_a_model_is_named_by_its_folder_or_by_the_environment(monkeypatch, tmp_path):
    loaded: list[Any] = []
    monkeypatch.setattr(module, "load_pipeline", lambda *given: loaded.append(given) or Pipeline())
    monkeypatch.delenv(module.MODEL_VARIABLE, raising=False)
    assert "no OSCAR-2B model is configured" in OscarBackend.obstacle()
    with pytest.raises(InputError, match="no OSCAR-2B model is configured"):
        OscarBackend(device="cpu")
    OscarBackend(str(tmp_path), device="cpu")
    OscarBackend(str(tmp_path), device="cpu", dtype="bfloat16")
    monkeypatch.setenv(module.MODEL_VARIABLE, "/elsewhere")
    backend = OscarBackend(device="cpu", licence="MIT", revision="mine")
    assert loaded == [
        (tmp_path, "cpu", "float32"), (tmp_path, "cpu", "bfloat16"), (Path("/elsewhere"), "cpu", "float32"),
    ]  # fmt: skip
    assert (backend.licence, backend.revision, backend.object_control) == ("MIT", "mine", "none")
    assert OscarBackend.obstacle() == OscarBackend.obstacle("somewhere") == ""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "needs torch" in OscarBackend.obstacle("somewhere")


def test_letting_go_forgets_the_model(made):
    made.close()
    assert made.pipeline is None
