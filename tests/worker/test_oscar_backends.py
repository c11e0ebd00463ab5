# SPDX-License-Identifier: Apache-2.0
"""Which attention runs, on a clock that a test turns. Of retake.worker.oscar.backends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from retake.core.errors import InputError
from retake.worker.oscar import backends
from retake.worker.oscar.backends import EXACT_BACKENDS, QUANTISED_BACKENDS

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Kernels by the seconds of a run, after a first one that takes a hundred more; one that has an error fails."""
    from diffusers.models import attention_dispatch

    made = SimpleNamespace(seconds={}, absent=(), now=0.0, runs=[], asked=[])

    def run(query: Any, key: Any, value: Any, backend: str) -> None:
        made.asked.append(query)
        takes = made.seconds[backend]
        if isinstance(takes, Exception):
            raise takes
        made.now += takes + (0 if backend in made.runs else 100)
        made.runs.append(backend)

    monkeypatch.setattr(attention_dispatch, "dispatch_attention_fn", run)
    monkeypatch.setattr(backends, "obstacle", lambda name: "absent" if name in made.absent else "")
    monkeypatch.setattr(backends, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def test_kernels_are_timed_after_a_first_run_and_those_that_fail_left_out(machine):
    machine.seconds = dict(
        zip(EXACT_BACKENDS, (3.0, RuntimeError("x"), 1.5, NotImplementedError(), 9.0, 2.0), strict=True)
    )
    machine.absent = ("flash",)
    machine.seconds["_native_efficient"] = ValueError("size")
    found = backends.time_backends(CPU, 12, 4, 8, torch.bfloat16)
    assert found == {"native": 3.0, "_native_flash": 1.5, "_flash_3": 2.0}
    assert machine.runs == ["native"] * 4 + ["_native_flash"] * 4 + ["_flash_3"] * 4
    assert {(tuple(query.shape), query.dtype) for query in machine.asked} == {((1, 12, 4, 8), torch.bfloat16)}


@pytest.mark.parametrize(("seconds", "best"), [((3.0, 2.0), "_native_cudnn"), ((2.0, 3.0), "native"), ((), "native")])
def test_the_fastest_kernel_is_set(machine, monkeypatch, seconds, best):
    machine.seconds = dict(zip(EXACT_BACKENDS, seconds, strict=False))
    machine.absent = EXACT_BACKENDS[len(seconds) :]
    chosen: list[Any] = []
    monkeypatch.setattr(backends, "set_backend", lambda model, name: chosen.append((model, name)))
    config = {"num_attention_heads": 2, "attention_head_dim": 6}
    model = SimpleNamespace(config=config, dtype=torch.float32)
    assert backends.select_backend(model, 5, CPU) == (best, dict(zip(EXACT_BACKENDS, seconds, strict=False)))
    assert chosen == [(model, best)]
    assert {tuple(query.shape) for query in machine.asked} == ({(1, 5, 2, 6)} if seconds else set())


def test_a_kernel_is_taken_by_name_where_it_is_exact_and_here(machine):
    machine.absent = ("flash",)
    for name in EXACT_BACKENDS:
        if name != "flash":
            backends.check_backend(name)
    for name, words in (
        ("flash", "absent"),
        ("quick", "attention"),
        *((name, "is quantised") for name in QUANTISED_BACKENDS),
    ):
        with pytest.raises(InputError, match=words):
            backends.check_backend(name)


def test_every_attention_of_a_network_is_told_and_no_other_layer():
    from diffusers.models.attention_processor import Attention

    model = nn.ModuleList(
        [Attention(8, heads=2, dim_head=4), nn.Linear(2, 2), nn.Sequential(Attention(8, heads=2, dim_head=4))]
    )
    assert backends.attention_of(model) == "native"
    assert backends.attention_of(nn.Linear(1, 1)) == "native"
    backends.set_backend(model, "_native_efficient")
    assert backends.attention_of(model) == "_native_efficient"
    backends.set_backend(model[2], "_native_flash")
    assert backends.attention_of(model) == "_native_efficient _native_flash"
