# SPDX-License-Identifier: Apache-2.0
"""Who holds GPU memory (NVML), and which tier of a backend fits now."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import psutil

from retake.core.wire import GpuDevice, GpuProcess
from retake.worker.settings import GIB, BackendSpec


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
        devices = []
        for index in range(self._nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(Exception):
                devices.append(self._device(index, ours))
        return tuple(devices)

    def _device(self, index: int, ours: frozenset[int]) -> GpuDevice:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
        processes: dict[int, int] = {}
        for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            with contextlib.suppress(Exception):
                for process in ask(handle):
                    processes[process.pid] = max(processes.get(process.pid, 0), process.usedGpuMemory or 0)
        listed = tuple(GpuProcess(pid, _name(pid), used, pid in ours) for pid, used in sorted(processes.items()))
        text = name.decode() if isinstance(name, bytes) else name
        return GpuDevice(index, text, int(memory.total), int(memory.used), int(memory.free), listed)


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"


def pick_tier(spec: BackendSpec, gpus: tuple[GpuDevice, ...], margin_gib: float) -> tuple[str, str]:
    """(tier, "") for the best tier that fits, or ("", why not).

    Memory our own executor holds counts as free: it is reused or given back. A backend without tiers needs no card; a
    machine without any card runs every backend on its CPU (tier "cpu").
    """
    if not spec.tiers:
        return "", ""
    if not gpus:
        return "cpu", ""
    best = max(gpus, key=_available)
    available = _available(best) - int(margin_gib * GIB)
    for name, need in spec.tiers:
        if need <= available:
            return name, ""
    others = ", ".join(
        f"{p.name} (process {p.pid}, {p.used_bytes / GIB:.1f} GiB)" for p in best.processes if not p.ours
    )
    smallest = min(need for _, need in spec.tiers)
    return "", (
        f"waiting for GPU memory: {spec.name} needs {smallest / GIB:.1f} GiB + {margin_gib:.1f} GiB margin, "
        f"{_available(best) / GIB:.1f} of {best.total_bytes / GIB:.1f} GiB are free; held by {others or 'other processes'}"
    )


def _available(gpu: GpuDevice) -> int:
    return gpu.free_bytes + sum(p.used_bytes for p in gpu.processes if p.ours)
