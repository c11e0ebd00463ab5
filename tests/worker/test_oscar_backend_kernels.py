# SPDX-License-Identifier: Apache-2.0
"""What the backend does around a pipeline that a test plays: when it plans anew, which kernels it chooses, how it falls a tier,
what it lets go of, and its cheap pictures. Of retake.worker.backends.oscar."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retake.worker.backends.oscar import LatentPainter, OscarBackend
from retake.worker.oscar.tiers import find_tier

torch.set_num_threads(1)


class Pipe:
    """Notes what is asked of it, in order."""

    model_revision, student = "r", None

    def __init__(self, *approximations: str) -> None:
        self.story: list[Any] = []
        self.tier, self.margin_bytes = find_tier("resident"), -1
        self.approximations = approximations
        self.transformer = SimpleNamespace(dtype=torch.bfloat16)
        self.vae = SimpleNamespace(use_tiling=1)
        self.full = 0
        """So many times there is no room."""

    def set_progress_bar_config(self, **told: Any) -> None:
        self.story.append(told)

    def enable_planned_memory(self, device: str, height: int, width: int, frames: int) -> None:
        self.story.append(("plan", device, height, width, frames, self.margin_bytes))
        self._room()

    def enable_memory_tier(self, name: str, device: str) -> None:
        self.story.append((name, device))
        self.tier = find_tier(name)
        self._room()

    def _room(self) -> None:
        self.full -= 1
        if self.full >= 0:
            raise torch.OutOfMemoryError("no")

    def release_memory(self) -> None:
        self.story.append("released")

    def use_kernels(self, name: str) -> str:
        self.story.append(f"kernels {name}")
        return "why"

    def enable_approximation(self, name: str, **options: Any) -> None:
        self.story.append((name, options))
        self.approximations = (*self.approximations, f"{name}:1")

    def enable_compile(self) -> None:
        self.story.append("compiled")

    def told(self) -> list[Any]:
        told, self.story = self.story, []
        return told


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two cards."""
    state = SimpleNamespace(count=2, given_back=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: state.count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: state.count)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(state, "given_back", state.given_back + 1))
    return state


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which attention was chosen how."""
    made: list[Any] = []
    name = "retake.worker.oscar.backends"
    monkeypatch.setattr(f"{name}.select_backend", lambda model, tokens, device: made.append((tokens, str(device))))
    monkeypatch.setattr(f"{name}.set_backend", lambda model, backend: made.append(backend))
    return made


def backend(*approximations: str, **options: Any) -> Any:
    made = OscarBackend(pipeline=Pipe(*approximations), device="cuda:1", **options)
    assert made.pipeline.told() == [{"disable": True}], "no bars on a service's log"
    return made


@pytest.mark.parametrize(("options", "attention", "compiled"), [
    ({}, [(25200, "cuda:1")], 0), ({"attention": "native"}, ["native"], 0), ({"deterministic": True}, [], 0),
    ({"attention": "native", "deterministic": True}, ["native"], 0), ({"approximate": ["sage"]}, [], 0),
    ({"compile": True}, [(25200, "cuda:1")], 1), ({"approximate": ["sage"], "compile": True}, [], 0),
])  # fmt: skip
def test_attention_is_the_pinned_one_or_the_fastest_at_this_size(cards, chosen, options, attention, compiled):
    made = backend(**options)
    made._use_kernels(480, 640, 80)  # a window of 81 frames: 21 of latents, of 30 times 40 tokens
    assert chosen == attention
    assert made.pipeline.told().count("compiled") == compiled
    chosen.clear()
    made._use_kernels(32, 48, 5)
    assert chosen == [(12, "cuda:1") if isinstance(one, tuple) else one for one in attention]
    assert "compiled" not in made.pipeline.told(), "once"
    assert made._compiled == bool(compiled)


def test_streamed_blocks_are_not_compiled(cards, chosen):
    made = backend(compile=True)
    made.pipeline.tier = find_tier("group-offload")
    made._use_kernels(32, 32, 5)
    assert "compiled" not in made.pipeline.told()
    made.pipeline.tier = find_tier("staged")
    made._use_kernels(32, 32, 5)
    assert "compiled" in made.pipeline.told()


@pytest.mark.parametrize(("there", "told"), [
    ((), ["kernels fused", ("fp8", {}), ("guidance-interval", {"low": 0.5})]), (("fp8",), [("guidance-interval", {"low": 0.5})]),
    (("guidance-interval:0.5-1",), ["kernels fused", ("fp8", {})]), (("fp8", "guidance-interval:0.5-1"), []),
])  # fmt: skip
def test_kernels_come_before_what_rounds_weights_and_each_mode_once(cards, there, told):
    made = backend(*there, kernels="fused", approximate={"fp8": {}, "guidance-interval": {"low": 0.5}})
    made._use_modes()
    assert made.pipeline.told() == told
    assert made.kernels_note == ("why" if "fp8" not in there else "")


def test_memory_is_planned_for_each_size_and_a_wanted_tier_for_all(cards, monkeypatch):
    made, sizes = backend(), []
    monkeypatch.setattr(OscarBackend, "_use_kernels", lambda self, *size: sizes.append(size))
    made.margin_bytes = 7
    for size in ((480, 640, 81), (480, 640, 81), (480, 640, 33), (720, 640, 33), (720, 1280, 33)):
        made._place(*size)
    plans = [(480, 640, 81), (480, 640, 33), (720, 640, 33), (720, 1280, 33)]
    assert made.pipeline.told() == [("plan", "cuda:1", *size, 7) for size in plans]
    assert sizes == plans
    made.use_tier("staged")
    made._place(480, 640, 81)
    made._place(720, 1280, 33)
    assert made.pipeline.told() == [("staged", "cuda:1")]
    assert sizes[4:] == [(480, 640, 81)]
    made.pipeline.tier = find_tier("staged-tiled")  # it fell during a take
    made._place(480, 640, 81)
    assert made.pipeline.told() == [("staged", "cuda:1")]
    assert len(sizes) == 5, "the same place: the same kernels"
    made.use_tier("cpu")
    assert (made.device, made.pipeline.told()) == ("cpu", [("resident", "cpu")])
    made._place(480, 640, 81)
    made._place(480, 640, 81)
    assert made.pipeline.told() == ["kernels auto"]


@pytest.mark.parametrize(("full", "ends"), [(0, "staged"), (1, "staged-tiled"), (2, "group-offload"), (3, None)])
def test_a_card_that_filled_up_costs_a_tier_at_a_time_and_at_the_bottom_the_take(cards, monkeypatch, full, ends):
    monkeypatch.setattr(OscarBackend, "_use_kernels", lambda *_: None)
    made = backend()
    made.use_tier("staged")
    made.pipeline.full = full
    tiers = ["staged", "staged-tiled", "group-offload"][: full + 1]
    if ends is None:
        with pytest.raises(torch.OutOfMemoryError):
            made._place(32, 32, 5)
    else:
        made._place(32, 32, 5)
        assert made.pipeline.tier.name == ends
    story = [step for tier in tiers for step in ("released", (tier, "cuda:1"))][1:]
    assert made.pipeline.told() == story

    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        made._enable(broken)
    assert made.pipeline.told() == []


def test_what_is_deterministic_is_told_to_the_libraries_and_to_the_record(cards, chosen, monkeypatch):
    monkeypatch.setattr("retake.worker.oscar.backends.attention_of", lambda model: "native")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    plain = backend()
    plain._place(32, 32, 5)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
    told = {"device": "cuda:1", "dtype": "bfloat16", "attention": "native", "tiled": True, "compiled": False}
    assert plain._ran() == {**told, "deterministic": False}
    made = backend(deterministic=True, compile=True)
    made._place(32, 32, 5)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    made.object_control, made.pipeline.vae.use_tiling = "drawn", 0
    assert made._ran() == {**told, "tiled": False, "compiled": True, "deterministic": True, "object_control": "drawn"}


def test_a_model_that_is_let_go_leaves_the_card(cards, monkeypatch):
    made, collected = backend(), []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(cards.given_back))
    made.close()
    assert (made.pipeline, collected, cards.given_back) == (None, [0], 1), "first the objects, then their memory"
    cards.count = 0
    OscarBackend(pipeline=Pipe(), device="cpu").close()
    assert (len(collected), cards.given_back) == (2, 1)


def test_a_preview_is_the_ridge_fit_of_the_first_frame():
    """The map from latents to colours by hand; the middle latent frame is shown, in whole colours, eight times as large."""
    rng = np.random.default_rng(3)
    first = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    latents = rng.normal(0, 1, (1, 4, 5, 3, 4)).astype(np.float32)
    latents[0, 0, 2, 0, 0] = 400.0  # far beyond black and white
    latents[0, 0, 2, 2, 3] = -400.0
    target = cv2.resize(first, (4, 3), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    features = [
        np.concatenate([latents[0, :, k].reshape(4, -1).T, np.ones((12, 1))], 1).astype(np.float64) for k in range(5)
    ]
    ridge = features[0].T @ features[0] + 0.05 * 12 * np.eye(5)
    wanted = features[2] @ np.linalg.solve(ridge, features[0].T @ target)
    small = np.clip(wanted, 0, 255).reshape(3, 4, 3).astype(np.uint8)
    assert {0, 255} <= set(small[0, 0].tolist()) | set(small[2, 3].tolist())
    for given in (latents, torch.from_numpy(latents), torch.from_numpy(latents).requires_grad_(True)):
        found = LatentPainter(first).paint(given)
        assert found.dtype == np.uint8
        large = cv2.resize(small, (32, 24), interpolation=cv2.INTER_LINEAR)
        assert np.abs(found.astype(int) - large).max() <= 1
