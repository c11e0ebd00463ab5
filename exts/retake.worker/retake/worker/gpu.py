# SPDX-License-Identifier: Apache-2.0
"""Who holds GPU memory (NVML), and which tier of a backend fits now."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from retake.core.wire import GpuDevice, GpuProcess
from retake.worker.memory import AUTO, GIB, first_fitting
from retake.worker.settings import BackendSpec


class GpuProbe(Protocol):
    """Reads GPU memory; tests give one that says what they want."""

    def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
        """All devices; `ours` are process ids of our own executor."""
        ...


class NvmlProbe:
    """NVML through nvidia-ml-py; no devices where there is no driver."""

    def __init__(self) -> None:
        self._nvml: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        except Exception:  # no package, no driver, no permission: all mean "no card to speak of"
            self._nvml = None

    def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
        """See GpuProbe; a card that stops answering disappears from the list."""
        if self._nvml is None:
            return ()
        nvml, devices = self._nvml, []
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(Exception):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                devices += [self._device(index, part, ours) for part in self._parts(handle)]
        return visible(tuple(devices), os.environ.get("CUDA_VISIBLE_DEVICES"))

    def _parts(self, handle: Any) -> list[Any]:
        """The card itself, or its MIG slices where it is cut into such."""
        nvml, parts = self._nvml, []
        with contextlib.suppress(Exception):  # most cards know no MIG
            if nvml.nvmlDeviceGetMigMode(handle)[0] == 1:
                for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                    with contextlib.suppress(Exception):  # a place without a slice
                        parts.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        return parts or [handle]

    def _device(self, index: int, handle: Any, ours: frozenset[int]) -> GpuDevice:
        nvml = self._nvml
        memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
        processes: dict[int, int] = {}
        for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            with contextlib.suppress(Exception):
                for process in ask(handle):
                    processes[process.pid] = max(processes.get(process.pid, 0), process.usedGpuMemory or 0)
        listed = tuple(GpuProcess(pid, _name(pid), used, pid in ours) for pid, used in sorted(processes.items()))
        uuid = ""
        with contextlib.suppress(Exception):  # an old driver
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        return GpuDevice(index, _text(name), int(memory.total), int(memory.used), int(memory.free), listed, uuid)


def visible(devices: tuple[GpuDevice, ...], wish: str | None) -> tuple[GpuDevice, ...]:
    """The devices that CUDA_VISIBLE_DEVICES leaves, in its order: numbers (in PCI order, which our processes ask CUDA for)
    or the beginnings of UUIDs. As CUDA does, the list ends at the first entry that names nothing."""
    if wish is None:
        return devices
    chosen: list[GpuDevice] = []
    for entry in (part.strip() for part in wish.split(",")):
        found = [
            d for d in devices if (entry.isdigit() and d.index == int(entry)) or (entry and d.uuid.startswith(entry))
        ]
        if not found:
            break
        chosen += [d for d in found if d not in chosen]
    return tuple(chosen)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"


@dataclass(frozen=True)
class Placement:
    """Where and how a job may run now, or why it may not.

    tier: empty for a backend that needs no card; "auto" where NVML shows none: the backend asks torch itself, because no
    NVML (containers without the utility capability, Windows without the package) does not mean no card.
    card: UUID of the card that was looked at, empty for any. reason: why nothing fits now, empty otherwise.
    """

    tier: str = ""
    card: str = ""
    reason: str = ""


def pick_tier(
    spec: BackendSpec, gpus: tuple[GpuDevice, ...], margin_gib: float, held_bytes: int = 0, held_card: str = ""
) -> Placement:
    """The best tier that fits on the card with most room.

    Memory our own executor holds counts as free: it is reused or given back. `held_bytes` is what the executor says of
    itself, on card `held_card` (empty: the only one), for systems where NVML cannot tell whose memory is whose.
    """
    if not spec.tiers:
        return Placement()
    if not gpus:
        return Placement(AUTO)

    def available(gpu: GpuDevice) -> int:
        reported = held_bytes if held_card in ("", gpu.uuid) and (held_card or len(gpus) == 1) else 0
        return gpu.free_bytes + max(reported, sum(p.used_bytes for p in gpu.processes if p.ours))

    best = max(gpus, key=available)
    tier = first_fitting(dict(spec.tiers), available(best), int(margin_gib * GIB))
    if tier is not None:
        return Placement(tier, best.uuid)
    others = ", ".join(
        f"{p.name} (process {p.pid}, {p.used_bytes / GIB:.1f} GiB)" for p in best.processes if not p.ours
    )
    smallest = min(need for _, need in spec.tiers)
    return Placement(reason=(
        f"waiting for GPU memory: {spec.name} needs {smallest / GIB:.1f} GiB + {margin_gib:.1f} GiB margin, "
        f"{available(best) / GIB:.1f} of {best.total_bytes / GIB:.1f} GiB are free; held by {others or 'other processes'}"
    ))  # fmt: skip
