# SPDX-License-Identifier: Apache-2.0
"""Devices as torch tells of them, with a torch that a test plays: which one is meant, how much is free, held and given back, how
fast it multiplies. Of retake.worker.memory, retake.worker.oscar.planner and the backends that let go of a card."""

from __future__ import annotations

import builtins
import gc
import io
import sys
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retake.core.errors import InputError
from retake.worker import memory
from retake.worker.backends.oscar import LatentPainter, OscarBackend
from retake.worker.memory import GIB
from retake.worker.oscar import planner

torch.set_num_threads(1)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As many cards as a test wants."""
    state = SimpleNamespace(count=2, started=True, given_back=0, uuids=["aa", "bb", "cc"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: state.count > 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: state.started)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: state.count)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: (index + 1) * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * (1 + (device.index or 0)), 99))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=state.uuids[index]))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(state, "given_back", state.given_back + 1))
    return state


@pytest.mark.parametrize(("count", "name", "found"), [
    (2, None, "cuda"), (2, "", "cuda"), (0, None, "cpu"), (2, "cpu", "cpu"), (2, "cuda:1", "cuda:1"), (1, "cuda", "cuda"),
    (1, "cuda:0", "cuda:0"), (1, "cuda:1", "found 1 CUDA devices"), (0, "cuda", "found 0 CUDA devices"),
    (2, "cuda:2", "found 2 CUDA devices"), (2, "gpu", "unknown device 'gpu'"),
])  # fmt: skip
def test_a_device_is_the_named_one_or_a_card_where_there_is_one(cards, count, name, found):
    cards.count = count
    if found.startswith("c"):
        assert str(memory.usable_device(name)) == found
    else:
        with pytest.raises(InputError, match=found):
            memory.usable_device(name)


@pytest.mark.parametrize(("text", "free"), [
    ("MemTotal:  9 kB\nMemAvailable:   5 kB\nOther: x: 3\n", 5 * 1024), ("MemTotal: 9 kB\n", 8 * GIB),
    ("MemAvailable: many kB\n", 8 * GIB), ("MemAvailable\n", 8 * GIB), (None, 8 * GIB),
])  # fmt: skip
def test_free_memory_is_the_card_s_or_what_the_machine_says(cards, monkeypatch, text, free):
    asked: list[str] = []
    plain = builtins.open

    def opened(path: Any, *more: Any, **named: Any) -> Any:
        if str(path) != "/proc/meminfo":
            return plain(path, *more, **named)
        asked.append(str(path))
        if text is None:
            raise FileNotFoundError(path)
        return io.StringIO(text)

    monkeypatch.setattr(builtins, "open", opened)
    assert memory.free_device_bytes("cuda") == 7
    assert memory.free_device_bytes(torch.device("cuda:1")) == 14
    assert asked == []
    assert memory.free_device_bytes("cpu") == free
    assert asked == ["/proc/meminfo"]


def test_a_process_says_what_it_holds_on_all_cards(cards, monkeypatch):
    assert memory.held_device_bytes() == 3 * GIB
    cards.started = False
    assert memory.held_device_bytes() == 0, "asking makes no context"
    cards.started, cards.count = True, 0
    assert memory.held_device_bytes() == 0
    cards.count = 2
    monkeypatch.setitem(sys.modules, "torch", None)
    assert memory.held_device_bytes() == 0


def test_a_card_is_found_by_its_uuid(cards):
    cards.count = 3
    assert [memory.device_of_card(card) for card in ("", "GPU-AA", "cc", "gpu-bb")] == [
        "cuda",
        "cuda:0",
        "cuda:2",
        "cuda:1",
    ]
    with pytest.raises(InputError, match="GPU-dd is not among the 3 cards"):
        memory.device_of_card("GPU-dd")
    cards.uuids = ["", "", ""]
    assert memory.device_of_card("GPU-dd") == "cuda", "an older torch tells none"
    cards.count, cards.uuids = 1, ["MIG of another name"]
    assert memory.device_of_card("MIG-x") == "cuda"


def test_tiers_go_down_one_by_one_and_end():
    names = ("big", "middle", "small")
    assert [memory.next_lower(names, name) for name in (*names, "other")] == ["middle", "small", None, None]
    needs = {"big": 10, "middle": 6, "small": 2}
    assert [memory.first_fitting(needs, free, 1) for free in (11, 10, 7, 6, 3, 2)] == [
        "big", "middle", "middle", "small", "small", None,
    ]  # fmt: skip
    assert memory.first_fitting(needs, 10) == memory.fitting_or_smallest(needs, 10) == "big"
    assert memory.fitting_or_smallest(needs, 2, 1) == "small"


@pytest.mark.parametrize(("each_s", "rounds"), [(0.01, 5), (0.06, 1)])
def test_a_card_is_measured_until_the_time_is_over_after_a_warm_up(monkeypatch, each_s, rounds):
    story: list[str] = []
    now = [0.0]

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.at = -1.0

        def record(self) -> None:
            self.at = now[0]
            story.append("mark")

        def synchronize(self) -> None:
            story.append("wait")

        def elapsed_time(self, end: Event) -> float:
            assert story[-1] == "wait"
            return 1000 * (end.at - self.at)

    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        assert a.shape == b.shape == (4, 4)
        assert a.dtype == torch.bfloat16
        assert not torch.equal(a, b)
        now[0] += each_s
        story.append("x")

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: story.append("ready"))
    found = planner.measured_matmul_flops(torch.device("cpu"), 4, 0.45)
    assert found == pytest.approx(2 * 4**3 / each_s)
    assert story[:5] == ["x", "x", "x", "ready", "mark"], "the first ones are not counted"
    assert story[5:] == ([*["x"] * 10, "mark", "wait"]) * rounds


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


class Silent:
    """A pipeline that is told whether to draw bars."""

    model_revision, approximations, student = "r", (), None

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def set_progress_bar_config(self, **told: Any) -> None:
        self.told = told


def test_a_model_that_is_let_go_leaves_the_card_and_draws_no_bars(cards, monkeypatch):
    made, pipe = OscarBackend(pipeline=Silent(), device="cuda:1"), None
    assert made.pipeline.told == {"disable": True}
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(cards.given_back))
    made.close()
    assert (made.pipeline, collected, cards.given_back) == (pipe, [0], 1), "first the objects, then their memory"
    cards.count = 0
    OscarBackend(pipeline=Silent(), device="cpu").close()
    assert (len(collected), cards.given_back) == (2, 1)
