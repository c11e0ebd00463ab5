# SPDX-License-Identifier: Apache-2.0
"""Control videos from arrays whose answer is known, and how a take of Cosmos is cut into chunks; pipeline and episode are
stand-ins. Of retake.worker.backends.control_clip and retake.worker.backends.cosmos_sim."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retake.core.errors import Cancelled, InputError, TakeError, VariantError
from retake.core.takes.base import TakeRequest
from retake.core.variants.controls import segment_colours
from retake.worker.backends import control_clip as module
from retake.worker.backends import cosmos_sim
from retake.worker.backends.control_clip import CONTROLS, control_clip
from retake.worker.backends.cosmos_sim import CosmosSimBackend

SIZE = (96, 64)


def clip_of(
    monkeypatch: pytest.MonkeyPatch, control: str, frames: list[dict[str, Any]], check: Any = lambda: None
) -> np.ndarray:
    def source_frame(episode: Any, camera: str, index: int) -> Any:
        assert (episode, camera) == ("an episode", "front")
        return SimpleNamespace(**frames[index - 10])

    monkeypatch.setattr(module, "source_frame", source_frame)
    episode: Any = "an episode"
    return control_clip(episode, "front", range(10, 10 + len(frames)), control, check)


@pytest.mark.parametrize(("height", "sigma"), [(96, 4.0), (240, 10.0), (24, 1.0), (12, 1.0)])
def test_a_blur_grows_with_the_picture(monkeypatch, height, sigma):
    picture = np.zeros((height, 300, 3), np.uint8)
    picture[:, 150:] = 240  # a step: its blur's derivative is the kernel
    (found,) = clip_of(monkeypatch, "blur", [{"rgb": picture}])
    kernel = np.diff(found[height // 2, :, 0].astype(float))
    at = np.arange(len(kernel))
    mean = (kernel * at).sum() / kernel.sum()
    assert mean == pytest.approx(149, abs=0.6)
    assert math.sqrt((kernel * (at - mean) ** 2).sum() / kernel.sum()) == pytest.approx(sigma, rel=0.08, abs=0.1)


def test_edges_are_white_lines_where_colours_change(monkeypatch):
    picture = np.full((40, 60, 3), 60, np.uint8)
    picture[:, 30:] = [60, 200, 60]
    (found,) = clip_of(monkeypatch, "edge", [{"rgb": picture}])
    assert found.shape == (40, 60, 3)
    assert set(np.unique(found)) == {0, 255}
    assert set(np.nonzero(found[5:-5])[1]) <= {29, 30}
    assert (found[5:-5].max((1, 2)) == 255).all()
    (faint,) = clip_of(
        monkeypatch, "edge", [{"rgb": np.repeat(np.arange(60, dtype=np.uint8)[None, :, None], 40, 0).repeat(3, 2)}]
    )
    assert not faint.any(), "shading is no edge"


def test_segments_are_colours_of_their_numbers(monkeypatch):
    ids = np.arange(12, dtype=np.uint16).reshape(3, 4)
    (found,) = clip_of(monkeypatch, "seg", [{"instance_ids": ids}])
    assert np.array_equal(found, segment_colours()[ids])


def test_depth_is_brighter_the_nearer_on_one_scale_for_all_frames(monkeypatch):
    """Inverse depths 0 to 100, of which one in a hundred lies below 1: 1 is darkest, 100 brightest, linear between."""
    inverse = np.arange(1, 101, dtype=np.float32)
    depth = np.concatenate([[1 / 1e-3], 1 / inverse, [0.0]]).astype(np.float32)
    frames = [{"depth_m": depth[None, :51]}, {"depth_m": depth[None, 51:]}]
    found = clip_of(monkeypatch, "depth", frames)
    assert found.shape == (2, 1, 51, 3)
    grey = found[..., 0].ravel().astype(int)
    assert (grey[0], grey[1], grey[100], grey[101]) == (1, 1, 255, 0)
    assert np.abs(grey[1:101] - (1 + 254 * (inverse - 1) / 99)).max() <= 1
    assert (found[..., 0] == found[..., 2]).all()
    same = clip_of(monkeypatch, "depth", [{"depth_m": np.full((2, 2), 3.0, np.float32)}])
    assert len(np.unique(same)) == 1
    assert same.min() >= 1
    with pytest.raises(TakeError, match="no pixel of these frames has a depth"):
        clip_of(monkeypatch, "depth", [{"depth_m": np.zeros((2, 2), np.float32)}])


@pytest.mark.parametrize("control", CONTROLS)
def test_every_frame_is_read_and_a_stop_is_heard_between_them(monkeypatch, control):
    frame = {"rgb": np.zeros((48, 64, 3), np.uint8), "depth_m": np.ones((48, 64), np.float32),
             "instance_ids": np.zeros((48, 64), np.uint16)}  # fmt: skip
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 5:
            raise Cancelled("enough")

    assert len(clip_of(monkeypatch, control, [frame] * 3, check)) == 3
    assert len(asked) == 3
    with pytest.raises(Cancelled):
        clip_of(monkeypatch, control, [frame] * 3, check)

    def blind(*_: Any) -> Any:
        raise VariantError("recorded no depth")

    monkeypatch.setattr(module, "source_frame", blind)
    episode: Any = None
    with pytest.raises(TakeError, match=f"control '{control}' is made from the episode's maps: recorded no depth"):
        control_clip(episode, "front", [0], control)


# -- takes ----------------------------------------------------------------------------------------------------------------


class Pipe:
    """A pipeline that films what a test says."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.first_frame: Any = None
        self.began: list[Any] = []
        self.freed = 0
        self.film: Any = lambda count, height, width: np.full((count, height, width, 3), 0.5)

    def __call__(self, **call: Any) -> Any:
        self.calls.append(call)
        self.began.append(self.first_frame)
        chunks = -(-max(1, call["num_frames"] - 1) // (call["num_frames_per_chunk"] - 1))
        for step in range(call["num_inference_steps"] * chunks):
            call["callback_on_step_end"](self, step, 0, {})
        return SimpleNamespace(frames=[self.film(call["num_frames"], call["height"], call["width"])])

    def maybe_free_model_hooks(self) -> None:
        self.freed += 1


class Guardrail:
    def to(self, *_: Any) -> Any:
        return self

    check_text_safety = check_video_safety = lambda self, given: True


FIRST = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
FIRST[:, :48] = 255


@pytest.fixture
def film(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(backend, pipeline) over an episode of forty frames."""
    camera = SimpleNamespace(size=SIZE)
    monkeypatch.setattr(
        cosmos_sim, "open_episode", lambda path: SimpleNamespace(header=SimpleNamespace(camera=lambda name: camera))
    )
    monkeypatch.setattr(
        cosmos_sim, "window", lambda episode, request: range(request.start, request.start + request.frames)
    )
    monkeypatch.setattr(cosmos_sim, "read_frame", lambda path: FIRST)
    seen: list[Any] = []

    def clip(episode: Any, name: str, indices: range, control: str, check: Any) -> np.ndarray:
        seen.append((name, indices, control))
        return np.full((len(indices), SIZE[1], SIZE[0], 3), 77, np.uint8)

    monkeypatch.setattr(cosmos_sim, "control_clip", clip)
    pipe = Pipe()
    made = CosmosSimBackend(
        pipeline=pipe, safety_checker=Guardrail(), device="cpu", steps=3, guidance=2.0, pixels=SIZE[0] * SIZE[1],
        controls={"edge": 0.75},
    )  # fmt: skip
    return SimpleNamespace(made=made, pipe=pipe, clips=seen)


def request(frames: int = 5, **more: Any) -> TakeRequest:
    given = {"prompt": "a kitchen", "seed": 3, **more}
    return TakeRequest(Path("/e"), "front", Path("/s"), Path("/v"), frames=frames, **given)


@pytest.mark.parametrize(("frames", "settings", "chunk", "chunks"), [
    (1, {}, 1, 1), (2, {}, 5, 1), (5, {}, 5, 1), (6, {}, 9, 1), (93, {}, 93, 1), (94, {}, 93, 2), (185, {}, 93, 2),
    (186, {}, 93, 3),
    (5, {"chunk": 5}, 5, 1), (6, {"chunk": 5}, 5, 2), (9, {"chunk": 5}, 5, 2), (10, {"chunk": 5}, 5, 3),
])  # fmt: skip
def test_a_take_is_cut_into_chunks_that_share_a_frame(film, frames, settings, chunk, chunks):
    told: list[Any] = []
    if chunk == 1:
        film.pipe.__class__ = type("One", (Pipe,), {"__call__": lambda self, **call: self.calls.append(call) or SimpleNamespace(
            frames=[self.film(1, call["height"], call["width"])])})  # fmt: skip
    found = list(film.made.generate(request(frames, start=4, settings=settings), lambda *at: told.append(at)))
    assert len(found) == frames
    (call,) = film.pipe.calls
    assert (call["num_frames"], call["num_frames_per_chunk"], call["num_ar_conditional_frames"]) == (frames, chunk, 1)
    assert film.made.report["cosmos_sim"]["chunks"] == chunks
    assert film.clips == [("front", range(4, 4 + frames), "edge")]
    assert told[0] == (0, 1, "control video")
    if chunk > 1:
        assert told[1:] == [(k + 1, 3 * chunks, "denoising") for k in range(3 * chunks)]
    assert np.array_equal(found[0], FIRST)
    assert all(np.unique(frame).tolist() == [128] for frame in found[1:])


def test_a_take_is_asked_for_as_settings_and_prompts_say(film):
    list(film.made.generate(request()))
    (call,) = film.pipe.calls
    width, height = film.made.canvas(SIZE).size
    assert (call["height"], call["width"], call["num_inference_steps"], call["guidance_scale"]) == (
        height,
        width,
        3,
        2.0,
    )
    assert (call["controls_conditioning_scale"], call["prompt"], call["output_type"]) == (0.75, "a kitchen", "np")
    assert (call["generator"].initial_seed(), call["generator"].device.type) == (3, "cpu")
    assert "negative_prompt" not in call
    assert all(np.asarray(one).shape == (height, width, 3) for one in call["controls"])
    (began,) = film.pipe.began
    assert (began.shape, float(began.min()), float(began.max())) == ((3, height, width), -1, 1)
    assert film.pipe.first_frame is None
    assert film.pipe.freed == 1
    report = film.made.report["cosmos_sim"]
    assert report == {"steps": 3, "guidance": 2.0, "control": "edge", "strength": 0.75, "chunk": 93, "tier": film.made.tier,
                      "chunks": 1, "size": [width, height]}  # fmt: skip
    settings = {"steps": 2, "guidance": 0, "strength": 1, "chunk": 9}
    list(film.made.generate(request(negative_prompt="blur", seed=-1, settings=settings)))
    call = film.pipe.calls[-1]
    assert (call["num_inference_steps"], call["guidance_scale"], call["controls_conditioning_scale"]) == (2, 0, 1)
    assert (call["negative_prompt"], call["generator"].initial_seed()) == ("blur", 2**63 - 1)


@pytest.mark.parametrize(("name", "fine", "wrong"), [
    ("steps", [1, 1000], [0, 1001, 1.5]), ("chunk", [5, 9, 93], [1, 4, 6, 7, 8, 5.0]),
    ("guidance", [0, -1.5, 9], [True, "6", math.inf, math.nan]), ("strength", [0, 1], [False, None, math.inf]),
    ("control", ["edge"], ["depth", "x"]), ("speed", [], [1]),
])  # fmt: skip
def test_settings_are_taken_up_to_their_bounds(film, name, fine, wrong):
    film.pipe.__class__ = type("Quick", (Pipe,), {"__call__": lambda self, **call: SimpleNamespace(
        frames=[self.film(call["num_frames"], call["height"], call["width"])])})  # fmt: skip
    for value in fine:
        assert len(list(film.made.generate(request(settings={name: value})))) == 5
    for value in wrong:
        with pytest.raises(InputError):
            list(film.made.generate(request(settings={name: value})))


def test_what_comes_back_is_looked_at(film, monkeypatch):
    def refused(says: str, kind: type[Exception] = TakeError, **more: Any) -> None:
        with pytest.raises(kind, match=says):
            list(film.made.generate(request(**more)))
        assert film.pipe.first_frame is None

    film.pipe.film = lambda count, height, width: np.full((count - 1, height, width, 3), 0.5)
    refused("returned 4 frames; 5 were asked")
    film.pipe.film = lambda count, height, width: np.zeros((count, height, width, 3))
    refused("black video")
    film.pipe.film = lambda count, height, width: np.full((count, height, width, 3), np.nan)
    refused("returned NaN")

    def odd(*_: Any) -> Any:
        raise ValueError("of another shape")

    film.pipe.film = odd
    refused("cosmos-sim: of another shape")

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    film.pipe.film = full
    refused("smallest tier: full")

    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes differ")

    film.pipe.film = broken
    refused("shapes differ", RuntimeError)
    refused("needs a prompt", InputError, prompt=" \n")
    monkeypatch.setattr(cosmos_sim, "read_frame", lambda path: FIRST[:, :60])
    refused("is 60x64; camera 'front' of /e is 96x64")


@pytest.mark.parametrize(("control", "grades"), [("edge", False), ("seg", False), ("blur", True), ("depth", True)])
def test_lines_and_segments_stay_hard_when_they_are_scaled(film, monkeypatch, control, grades):
    half = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    half[:, 21:] = 255
    monkeypatch.setattr(cosmos_sim, "control_clip", lambda *given: np.repeat(half[None], len(given[2]), 0))
    made = CosmosSimBackend(
        pipeline=film.pipe, safety_checker=Guardrail(), device="cpu", steps=1, pixels=150 * 112, controls={control: 1.0}
    )
    list(made.generate(request()))
    values = np.unique(np.asarray(film.pipe.calls[-1]["controls"][0]))
    assert (len(values) > 2) == grades


def test_a_stop_is_heard_while_frames_are_handed_over(film):
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3 + 2:  # three steps, then frames
            raise Cancelled("enough")

    frames = film.made.generate(request(), check_cancel=check)
    assert np.array_equal(next(frames), FIRST)
    with pytest.raises(Cancelled):
        next(frames)
