# SPDX-License-Identifier: Apache-2.0
"""Which card a process uses: CUDA_VISIBLE_DEVICES as torch reads it, the roomiest of several cards, and what a Ray actor asks."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retake.core.wire import GpuDevice
from retake.worker import execute, gpu, ray_run
from retake.worker.backends import spec_to_json
from retake.worker.first_frame import choose
from retake.worker.memory import GIB
from retake.worker.settings import BackendSpec

UUIDS = ("GPU-aa11", "GPU-aa22", "GPU-bb33")


def cards(*free: float, uuids: tuple[str, ...] = UUIDS) -> tuple[GpuDevice, ...]:
    return tuple(
        GpuDevice(index, "Card", 24 * GIB, int((24 - amount) * GIB), int(amount * GIB), (), uuids[index])
        for index, amount in enumerate(free)
    )


entries = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "3", "-1", "+1", "01", "1x", "x1", "", " 2 ", *UUIDS, "GPU-aa", "GPU-b", "GPU-", "GPU-zz"]
    ),
    st.text("0123-+GPU aabx", max_size=6),
)


@given(st.lists(entries, max_size=4))
@settings(max_examples=300, deadline=None)
@example(["-0"])
def test_cuda_visible_devices_means_what_torch_says_it_means(parts):
    wish = ",".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", wish)
        try:
            told = torch.cuda._parse_visible_devices()
        except ValueError:  # a lone sign, which torch's parser does not survive
            return
    if told and isinstance(told[0], str):
        expected = torch.cuda._transform_uuid_to_ordinals(told, list(UUIDS))
    else:
        expected = []
        for number in told:  # CUDA ends the list at a number that is no card
            if number >= len(UUIDS):
                break
            expected.append(number)
    assert [card.index for card in gpu.visible(cards(1, 2, 3), wish)] == expected


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two cards with so much free memory, as NVML (None: there is none) and torch tell it."""
    state = SimpleNamespace(nvml=(3.0, 20.0), torch=(3.0, 20.0), count=2, asked=[])

    class Probe:
        def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
            state.asked.append(ours)
            return () if state.nvml is None else cards(*state.nvml)

    def free(index: Any) -> tuple[int, int]:
        number = torch.device(index).index or 0 if isinstance(index, (str, torch.device)) else index
        return int(state.torch[number] * GIB), 24 * GIB

    monkeypatch.setattr(gpu, "NvmlProbe", Probe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: state.count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: state.count)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=UUIDS[index][4:]))
    return state


def test_the_roomiest_card_is_used_where_nobody_names_one(machine):
    assert gpu.roomiest_device() == "cuda:1"
    machine.nvml = (20.0, 3.0)
    assert gpu.roomiest_device() == "cuda"
    machine.nvml, machine.torch = None, (3.0, 20.0)  # no NVML: torch's own answer
    assert gpu.roomiest_device() == "cuda:1"
    machine.nvml = (1.0, 2.0, 20.0)  # NVML shows a card that torch does not
    assert gpu.roomiest_device() == "cuda:1"
    machine.count = 1
    assert gpu.roomiest_device() == "cuda"
    machine.count = 0
    assert gpu.roomiest_device() == "cpu"


def test_first_frames_are_planned_for_the_card_they_run_on(machine):
    """What was planned on the best card ran on the first one."""
    from first_frame_support import make

    made = make("sdxl", device="")
    assert made.device == "cuda:1"
    assert choose._free_bytes() == 20 * GIB
    machine.count = 0
    assert choose._free_bytes() == 0


SPEC = BackendSpec("model", "take", "m:M", {}, (("resident", 10 * GIB), ("streamed", 2 * GIB)))


@pytest.fixture
def actor(machine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ray_run, "job_from_json", lambda job: job)
    made = ray_run._Actor(1.0)
    made._loaded = SimpleNamespace(instance=object(), closed=0)
    made._loaded.close = lambda: setattr(made._loaded, "closed", made._loaded.closed + 1)
    return made


def test_a_ray_actor_knows_its_own_memory_and_names_its_card(actor, machine, monkeypatch):
    seen: list[Any] = []
    monkeypatch.setattr(execute, "execute", lambda job, spec, loaded, context: seen.append(context) or {})
    assert actor.run({}, spec_to_json(SPEC), "c", 1) == {"result": {}}
    assert machine.asked[-1] == frozenset({os.getpid()})
    assert (seen[0].tier, seen[0].card) == ("resident", "GPU-aa22")
    machine.nvml = (1.0,)
    monkeypatch.setattr(ray_run, "held_device_bytes", lambda: 15 * GIB)  # a container hides whose memory it is
    actor.run({}, spec_to_json(SPEC), "c", 1)
    assert seen[1].tier == "resident"


def test_a_ray_actor_ends_on_a_broken_context_and_frees_the_card_when_memory_runs_out(actor, monkeypatch):
    raised: list[Exception] = []

    class Ended(BaseException):
        pass

    def leave(code: int) -> None:
        raise Ended(code)

    def fail(*_: Any) -> Any:
        raise raised[0]

    monkeypatch.setattr(execute, "execute", fail)
    monkeypatch.setattr(os, "_exit", leave)
    raised[:] = [RuntimeError("CUDA out of memory")]
    assert actor.run({}, spec_to_json(SPEC), "c", 1) == {"error": "RuntimeError: CUDA out of memory", "again": True}
    assert actor._loaded.closed == 1
    raised[:] = [RuntimeError("CUDA error: an illegal memory access was encountered")]
    with pytest.raises(Ended):
        actor.run({}, spec_to_json(SPEC), "c", 1)
