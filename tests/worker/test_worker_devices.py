# SPDX-License-Identifier: Apache-2.0
"""Devices as torch tells of them, with a torch that a test plays: which one is meant, how much is free and held, how fast it
multiplies. Of retake.worker.memory and retake.worker.oscar.planner."""

from __future__ import annotations

import builtins
import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retake.core.errors import InputError
from retake.worker import memory
from retake.worker.memory import GIB
from retake.worker.oscar import planner

torch.set_num_threads(1)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As many cards as a test wants."""
    state = SimpleNamespace(count=2, started=True, uuids=["aa", "bb", "cc"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: state.count > 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: state.started)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: state.count)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: (index + 1) * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * (1 + (device.index or 0)), 99))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=state.uuids[index]))
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
