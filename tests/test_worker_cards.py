# SPDX-License-Identifier: Apache-2.0
"""What NVML says of a card, and what a job that waits for one is told, number by number. Of retake.worker.gpu."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from retake.core.wire import GpuDevice, GpuProcess
from retake.worker.gpu import NvmlProbe, Placement, pick_tier
from retake.worker.memory import GIB
from retake.worker.settings import BackendSpec

OURS, THEIRS = os.getpid(), 4_194_303


class Nvml:
    """Two cards; the second is of an old driver that tells no UUID and no graphics processes."""

    def __init__(self, *, driver: bool = True) -> None:
        self.driver, self.started = driver, 0

    def nvmlInit(self) -> None:
        self.started += 1
        if not self.driver:
            raise RuntimeError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        return [0, 1]  # not now; from the next start on

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> int:
        return 10 + number

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=24 * GIB, used=(handle + 1) * GIB, free=(23 - handle) * GIB)

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return [b"Bytes", "Text"][handle]

    def nvmlDeviceGetUUID(self, handle: int) -> Any:
        if handle:
            raise RuntimeError("Not Supported")
        return b"GPU-aa"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=THEIRS, usedGpuMemory=5), SimpleNamespace(pid=OURS, usedGpuMemory=9)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:
        if handle:
            raise RuntimeError("Not Supported")
        return [SimpleNamespace(pid=OURS, usedGpuMemory=7), SimpleNamespace(pid=THEIRS, usedGpuMemory=None)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(nvml: Any) -> Any:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return nvml

    return install


def test_a_card_is_told_with_its_memory_and_who_holds_how_much_of_it(library):
    nvml = library(Nvml())
    probe = NvmlProbe()
    assert nvml.started == 1
    name = psutil.Process().name()
    listed = (GpuProcess(OURS, name, 9, True), GpuProcess(THEIRS, "?", 5, False))
    assert probe.read(frozenset({OURS})) == (
        GpuDevice(0, "Bytes", 24 * GIB, GIB, 23 * GIB, listed, "GPU-aa"),
        GpuDevice(1, "Text", 24 * GIB, 2 * GIB, 22 * GIB, listed, ""),
    )
    assert not any(process.ours for card in probe.read() for process in card.processes)


@pytest.mark.parametrize("nvml", [None, Nvml(driver=False)])
def test_without_library_or_driver_there_is_no_card(library, nvml):
    library(nvml)
    assert NvmlProbe().read() == ()


SPEC = BackendSpec("model", "take", "m:M", {}, (("resident", 10 * GIB), ("streamed", int(2.25 * GIB))))


def test_a_job_that_waits_for_memory_is_told_how_much_and_who_holds_it():
    held = (
        GpuProcess(7, "python", int(1.25 * GIB), True), GpuProcess(9, "blender", int(3.5 * GIB), False),
        GpuProcess(11, "kit", 16 * GIB, False),
    )  # fmt: skip
    full = GpuDevice(0, "Card", 24 * GIB, 23 * GIB, int(0.75 * GIB), held, "GPU-a")
    other = GpuDevice(1, "Card", 8 * GIB, 7 * GIB, GIB, (), "GPU-b")
    assert pick_tier(SPEC, (full, other), 1.5) == Placement(reason=(
        "waiting for GPU memory: model needs 2.2 GiB + 1.5 GiB margin, 2.0 of 24.0 GiB are free; "
        "held by blender (process 9, 3.5 GiB), kit (process 11, 16.0 GiB)"
    ))  # fmt: skip
    assert pick_tier(SPEC, (other,), 1.5).reason.endswith("1.0 of 8.0 GiB are free; held by other processes")
    assert pick_tier(SPEC, (full, other), 1.5, int(2.5 * GIB), "GPU-b").reason.startswith(
        "waiting for GPU memory: model needs 2.2 GiB + 1.5 GiB margin, 3.5 of 8.0 GiB are free"
    ), "what the executor says that it holds"
    assert pick_tier(SPEC, (full, other), 1.5, int(2.75 * GIB), "GPU-b") == Placement("streamed", "GPU-b")
