# SPDX-License-Identifier: Apache-2.0
"""What backend `cosmos-sim` asks of its pipeline, what it takes back, and what it refuses: the pipeline is a stand-in. Of
retake.worker.backends.cosmos_sim."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retake.core.errors import Cancelled, InputError, TakeError
from retake.core.takes.base import TakeRequest
from retake.worker.backends import cosmos_sim
from retake.worker.backends.cosmos_sim import CHUNK, CosmosSimBackend

CAMERA = (64, 48)
FIRST = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
REQUEST = TakeRequest(Path("e"), "front", Path("s"), Path("v"), "a kitchen", seed=5, frames=5)
torch.set_num_threads(1)


class Pipe:
    """Films frames of one value, in the given number of steps."""

    def __init__(self, **told: Any) -> None:
        self.told = {"value": 0.5, "steps": 0, "frames": None, "error": None, **told}
        self.first_frame: Any = None
        self.calls: list[dict[str, Any]] = []
        self.freed = 0

    def __call__(self, **call: Any) -> Any:
        self.calls.append({**call, "first": self.first_frame})
        if self.told["error"]:
            raise self.told["error"]
        for step in range(self.told["steps"]):
            assert call["callback_on_step_end"](self, step, 0, {"latents": 1}) == {}
        frames = call["num_frames"] if self.told["frames"] is None else self.told["frames"]
        return SimpleNamespace(frames=np.full((1, frames, call["height"], call["width"], 3), self.told["value"]))

    def maybe_free_model_hooks(self) -> None:
        self.freed += 1


class Sim(CosmosSimBackend):
    """On the given pipelines, one per load."""

    def __init__(self, *pipes: Any, **more: Any) -> None:
        self.steps, self.guidance, self.pixels, self.controls = 7, 2.5, 64 * 48, {"edge": 0.8}
        self._device, self._tier, self.tier, self._given = "cpu", "", "resident", False
        self.pipes, self.closed, self.tiers = list(pipes), 0, []
        for name, value in more.items():
            setattr(self, name, value)

    def ready_pipeline(self) -> Any:
        self.tier = self._tier or self.tier
        self.tiers.append(self.tier)
        return self.pipes[min(self.closed, len(self.pipes) - 1)]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An episode of twenty frames whose control pictures are their number."""
    made = SimpleNamespace(first=FIRST, controls=[], length=20)

    def clip(episode: Any, camera: str, indices: Any, control: str, check: Any) -> np.ndarray:
        made.controls.append((camera, list(indices), control))
        check()
        return np.stack([np.full((48, 64, 3), index, np.uint8) for index in indices])

    header = SimpleNamespace(camera=lambda name: SimpleNamespace(size=CAMERA))
    monkeypatch.setattr(cosmos_sim, "open_episode", lambda path: SimpleNamespace(header=header))
    monkeypatch.setattr(cosmos_sim, "window", lambda episode, asked: range(asked.start, asked.start + asked.frames))
    monkeypatch.setattr(cosmos_sim, "quiet", contextlib.nullcontext)  # the real one imports what nothing here needs
    monkeypatch.setattr(cosmos_sim, "read_frame", lambda path: made.first)
    monkeypatch.setattr(cosmos_sim, "control_clip", clip)
    return made


def films(made: Sim, *more: Any, **changes: Any) -> list[np.ndarray]:
    return list(made.generate(replace(REQUEST, **changes), *more))


# -- what is asked --------------------------------------------------------------------------------------------------------


def test_the_pipeline_is_asked_for_the_take_and_nothing_else(scene):
    pipe = Pipe()
    frames = films(made := Sim(pipe), seed=2**63 + 9, start=3)
    [call] = pipe.calls
    assert [np.asarray(picture)[0, 0, 0] for picture in call.pop("controls")] == [3, 4, 5, 6, 7]
    assert call.pop("generator").initial_seed() == 9, "63 bits of the seed"
    first = call.pop("first")
    assert torch.allclose((first.permute(1, 2, 0) + 1) * 127.5, torch.from_numpy(FIRST).float(), atol=1e-3)
    del call["callback_on_step_end"]
    assert call == {
        "controls_conditioning_scale": 0.8, "prompt": "a kitchen", "height": 48, "width": 64, "num_frames": 5,
        "num_frames_per_chunk": 5, "num_ar_conditional_frames": 1, "num_inference_steps": 7, "guidance_scale": 2.5,
        "output_type": "np",
    }  # fmt: skip
    assert scene.controls == [("front", [3, 4, 5, 6, 7], "edge")]
    assert (pipe.first_frame, pipe.freed) == (None, 1), "the next take begins with its own"
    assert np.array_equal(frames[0], FIRST)
    assert {int(value) for frame in frames[1:] for value in np.unique(frame)} == {128}
    assert made.report == {"cosmos_sim": {
        "steps": 7, "guidance": 2.5, "control": "edge", "strength": 0.8, "chunk": CHUNK, "tier": "resident", "chunks": 1,
        "size": [64, 48],
    }}  # fmt: skip
    given = {"steps": 3, "guidance": 1, "control": "edge", "strength": 0, "chunk": 9}
    films(made, settings=given, negative_prompt="blur")
    call = pipe.calls[1]
    assert (call["num_inference_steps"], call["guidance_scale"], call["controls_conditioning_scale"]) == (3, 1, 0)
    assert call["negative_prompt"] == "blur"
    assert made.report["cosmos_sim"].items() >= given.items()


@pytest.mark.parametrize(("frames", "chunk", "asked", "chunks"), [
    (1, 93, 1, 1), (2, 93, 5, 1), (5, 93, 5, 1), (6, 93, 9, 1), (9, 93, 9, 1), (93, 93, 93, 1), (94, 93, 93, 2), (90, 93, 93, 1),
    (185, 93, 93, 2), (186, 93, 93, 3), (9, 5, 5, 2), (10, 5, 5, 3), (5, 5, 5, 1), (6, 5, 5, 2), (17, 9, 9, 2), (18, 9, 9, 3),
])  # fmt: skip
def test_a_long_take_is_made_in_chunks_that_share_one_frame(frames, chunk, asked, chunks):
    pipe = Pipe()
    made = Sim(pipe)
    assert len(films(made, frames=frames, settings={"chunk": chunk})) == frames
    assert pipe.calls[0]["num_frames_per_chunk"] == asked
    assert made.report["cosmos_sim"]["chunks"] == chunks
    assert asked + (chunks - 1) * (asked - 1) >= frames > (chunks - 1) * (asked - 1)


def test_progress_counts_the_steps_of_all_chunks_and_no_further():
    said: list[tuple[int, int, str]] = []
    films(Sim(Pipe(steps=7)), lambda *words: said.append(words), frames=9, settings={"steps": 3, "chunk": 5})
    assert said[0] == (0, 1, "control video")
    assert said[1:] == [(min(k, 6), 6, "denoising") for k in range(1, 8)]


@pytest.mark.parametrize("allowed", range(8))
def test_a_take_is_cancelled_between_steps_and_between_frames(allowed):
    left = [allowed]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Cancelled("stopped")

    pipe = Pipe(steps=2)
    found: list[Any] = []
    frames = Sim(pipe).generate(REQUEST, check_cancel=check)
    with pytest.raises(Cancelled):
        found.extend(frames)  # keeps what came before the end
    # one look before the control video, two steps, then one per frame
    assert len(found) == max(0, allowed - 3)
    assert pipe.freed == (allowed >= 1)
    assert pipe.first_frame is None


@pytest.mark.parametrize(("value", "made"), [(1.0, 255), (1.2, 255), (0.5019, 128), (0.4, 102), (0.001, 0)])
def test_values_become_the_nearest_bytes(value, made):
    pipe = Pipe(value=value)
    if made == 0:
        with pytest.raises(TakeError, match="black video"):
            films(Sim(pipe))
        return
    assert (films(Sim(pipe))[1] == made).all()


# -- memory ---------------------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_moves_one_tier_down_for_this_take_and_the_next():
    full = torch.OutOfMemoryError("CUDA out of memory")
    last = Pipe()
    made = Sim(Pipe(error=full), Pipe(error=RuntimeError("CUDA out of memory")), last)
    assert len(films(made)) == 5
    assert (made.tiers, made.closed) == (["resident", "model-offload", "group-offload"], 2)
    films(made)
    assert made.tiers[3:] == ["group-offload"]
    assert len(last.calls) == 2


@pytest.mark.parametrize(("tier", "given"), [("group-offload", False), ("resident", True), ("cpu", False)])
def test_where_there_is_no_smaller_tier_the_take_fails(tier, given):
    made = Sim(Pipe(error=torch.OutOfMemoryError("CUDA out of memory")), tier=tier, _given=given)
    with pytest.raises(TakeError, match="ran out of memory in its smallest tier"):
        films(made)
    assert (made.closed, len(made.tiers)) == (0, 1)


@pytest.mark.parametrize(("error", "kind", "words"), [
    (RuntimeError("shapes differ"), RuntimeError, "shapes differ"), (ValueError("too long"), TakeError, "cosmos-sim: too long"),
])  # fmt: skip
def test_other_errors_are_no_lack_of_memory(error, kind, words):
    pipe = Pipe(error=error)
    made = Sim(pipe)
    with pytest.raises(kind, match=words):
        films(made)
    assert (made.closed, pipe.first_frame, pipe.freed) == (0, None, 1)


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "taken", "refused"), [
    ("steps", (1, 2, 1000), (0, -1, 1001, 2.0, "3", None)),
    ("chunk", (5, 9, 93, 97), (1, 3, 4, 6, 7, 8, 94, -3, 5.0, "5")),
    ("guidance", (0, 1, -1.5, 7.0), (True, False, "1", None, float("nan"), float("inf"))),
    ("strength", (0, 1, 0.5), (True, "1", None, float("nan"), float("-inf"))),
    ("control", ("edge",), ("blur", "depth", "", None)),
    ("speed", (), (1,)),
])  # fmt: skip
def test_settings_have_bounds(setting, taken, refused):
    made = Sim(Pipe())
    for value in taken:
        assert made._settings(replace(REQUEST, settings={setting: value}))[setting] == value
    for value in refused:
        with pytest.raises(InputError, match=setting):
            made._settings(replace(REQUEST, settings={setting: value}))
    with pytest.raises(InputError):
        made._settings(replace(REQUEST, settings={"steps": 2, "other": 1, "chunk": 5}))


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"prompt": " \n"}, InputError, "needs a prompt"), ({"prompt": ""}, InputError, "needs a prompt"),
])  # fmt: skip
def test_a_take_needs_a_prompt(change, error, words):
    with pytest.raises(error, match=words):
        films(Sim(Pipe()), **change)


def test_a_first_frame_has_the_camera_s_size(scene):
    scene.first = FIRST[:, :63]
    with pytest.raises(TakeError, match=r"is 63x48; camera 'front' of e is 64x48"):
        films(Sim(Pipe()))
    scene.first = FIRST[:47]
    with pytest.raises(TakeError, match=r"is 64x47; camera 'front'"):
        films(Sim(Pipe()))


@pytest.mark.parametrize("frames", [4, 6])
def test_the_model_returns_as_many_frames_as_were_asked(frames):
    with pytest.raises(TakeError, match=f"returned {frames} frames; 5 were asked"):
        films(Sim(Pipe(frames=frames)))


def test_values_that_are_no_numbers_are_no_picture():
    with pytest.raises(TakeError, match="returned NaN"):
        films(Sim(Pipe(value=np.nan)))


@pytest.mark.parametrize("control", ["edge", "seg", "depth", "blur"])
def test_edges_and_segments_keep_their_values_when_they_are_scaled(control, monkeypatch):
    """The model's canvas is smaller than the camera; a checkerboard stays black and white where blending would make grey."""
    board = np.repeat((np.indices((48, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    monkeypatch.setattr(cosmos_sim, "control_clip", lambda *_: np.stack([board] * 5))
    pipe = Pipe()
    films(Sim(pipe, pixels=32 * 24, multiple=8, controls={control: 1.0}))
    values = set(np.unique(np.asarray(pipe.calls[0]["controls"][0])))
    assert (values <= {0, 255}) == (control in ("edge", "seg"))


@pytest.mark.parametrize(("absent", "checker", "words"), [
    ((), object(), ""), (("cosmos_guardrail",), object(), ""), (("cosmos_guardrail",), None, "requires its guardrail"),
    ((), None, ""), (("torch", "diffusers"), object(), "needs torch, diffusers:"),
    (("transformers",), None, "needs transformers:"),
])  # fmt: skip
def test_what_is_in_the_way_is_said(absent, checker, words, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    found = CosmosSimBackend.obstacle(safety_checker=checker)
    assert words in found
    assert bool(found) == bool(words)


# -- the first frame ------------------------------------------------------------------------------------------------------


def test_only_the_first_chunk_begins_with_the_first_frame(monkeypatch):
    from diffusers import Cosmos2_5_TransferPipeline

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Cosmos2_5_TransferPipeline, "prepare_latents", lambda self, **call: seen.append(call) or "made")
    kind = cosmos_sim.first_frame_pipeline()
    assert issubclass(kind, Cosmos2_5_TransferPipeline)
    assert kind.__name__ == "Cosmos2_5_TransferPipeline"
    pipe = object.__new__(kind)
    video = torch.zeros(1, 3, 5, 4, 4, dtype=torch.bfloat16)
    frame = torch.ones(3, 4, 4)

    def prepared(first: Any, **call: Any) -> Any:
        seen.clear()
        object.__setattr__(pipe, "first_frame", first)
        assert pipe.prepare_latents(**call) == "made"
        return seen[0]

    call = prepared(frame, video=video, num_cond_latent_frames=0, dtype="d")
    assert (call["num_cond_latent_frames"], call["dtype"]) == (1, "d")
    assert bool((call["video"][:, :, 0] == 1).all())
    assert not call["video"][:, :, 1:].any()
    assert not video.any(), "the caller's is left alone"
    assert prepared(frame, video=video)["num_cond_latent_frames"] == 1, "none is the default"
    for first, given, known in ((frame, video, 1), (None, video, 0), (frame, None, 0), (frame, video, 2)):
        call = prepared(first, video=given, num_cond_latent_frames=known)
        assert (call["video"] is given, call["num_cond_latent_frames"]) == (True, known)
