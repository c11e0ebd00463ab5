# SPDX-License-Identifier: Apache-2.0
"""Who holds GPU memory (NVML), and which tier of a backend fits now."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from retake.core.errors import InputError
from retake.core.wire import GpuDevice, GpuProcess
from retake.worker.memory import AUTO, CPU, GIB, device_of_card, first_fitting
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
        try:
            count = nvml.nvmlDeviceGetCount()
        except Exception:  # the driver was reloaded or lost its card: NVML answers only after a new start
            for call in (nvml.nvmlShutdown, nvml.nvmlInit):
                with contextlib.suppress(Exception):
                    call()
            return ()
        for index in range(count):
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
    """The devices that CUDA shows under this CUDA_VISIBLE_DEVICES, in its order: numbers (in PCI order, which our processes ask
    CUDA for) or the beginnings of UUIDs.

    Read as CUDA and torch read it: the first entry says which of the two all are, digits count up to the first other sign,
    the list ends at the first entry that names nothing or is ambiguous, and an entry given twice leaves no device at all.
    A process sees one MIG slice, the first, and no whole card beside it.
    """
    chosen = list(devices)
    if wish is not None:
        kind = next((start for start in ("GPU-", "MIG-") if wish.startswith(start)), "")
        chosen = []
        for entry in (entries := _entries(wish, kind)):
            found = [d for d in devices if (d.uuid.startswith(str(entry)) if kind else d.index == entry)]
            if not found or (kind and len(found) > 1):
                break
            chosen += found
        if len(set(entries)) < len(entries) or len({id(d) for d in chosen}) < len(chosen):
            return ()
    slices = [d for d in chosen if d.uuid.startswith("MIG-")]
    return tuple(slices[:1] or chosen)


def _entries(wish: str, kind: str) -> list[str] | list[int]:
    """The entries of CUDA_VISIBLE_DEVICES up to the first that is of another sort; `kind`: how UUIDs begin, empty for numbers."""
    parts = [part.strip() for part in wish.split(",")]
    if kind:
        return list(takewhile(lambda part: part.startswith(kind), parts))
    found = (re.match(r"[+-]?[0-9]+", part, re.ASCII) for part in parts)
    return list(
        takewhile(lambda number: number >= 0, (int(one[0]) if one else -1 for one in found))
    )  # "-0" is 0 to CUDA


def roomiest_device() -> str:
    """The torch device of the visible card with most free memory, "cuda" for the first; "cpu" where torch sees none.

    NVML is asked first: torch's own answer makes a context of hundreds of megabytes on every card.
    """
    import torch

    if not torch.cuda.is_available():
        return CPU
    count = torch.cuda.device_count()
    if count < 2:
        return "cuda"
    found = ""
    if cards := NvmlProbe().read():
        with contextlib.suppress(InputError):  # a card that torch does not see
            found = device_of_card(max(cards, key=lambda card: card.free_bytes).uuid)
    if not found:
        with contextlib.suppress(RuntimeError):
            found = f"cuda:{max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0])}"
    return "cuda" if found in ("", "cuda:0") else found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _name(pid: int) -> str:
    with contextlib.suppress(Exception):  # gone, not ours to look at, or psutil is not part of this installation
        import psutil

        return psutil.Process(pid).name()
    return "?"


@dataclass(frozen=True)
class Placement:
    """Where and how a job may run now, or why it may not.

    tier: empty for a backend that needs no card; "auto" where NVML shows none: the backend asks torch itself, because no
    NVML (containers without the utility capability, Windows without the package) does not mean no card.
    card: UUID of the card that was chosen, empty for any. reason: why nothing fits now, empty otherwise.
    """

    tier: str = ""
    card: str = ""
    reason: str = ""


def pick_tier(
    spec: BackendSpec, gpus: tuple[GpuDevice, ...], margin_gib: float, held_bytes: int = 0, held_card: str = ""
) -> Placement:
    """The best tier that fits on any card; among cards where that is the same one, the card that holds the model already, then
    the one with most room. A backend whose option `device` names a card runs there, and one with "cpu" waits for none.

    Memory our own executor holds counts as free: it is reused or given back. `held_bytes` is what the executor says of
    itself, on card `held_card` (empty: the only one), for systems where NVML cannot tell whose memory is whose.
    """
    if not spec.tiers:
        return Placement()
    wish = str(spec.options.get("device") or "")
    if wish.startswith(CPU):
        return Placement(CPU)
    if not gpus:
        return Placement(AUTO)
    kind, _, number = wish.partition(":")
    if kind == "cuda" and number.isdigit():
        gpus = gpus[int(number) : int(number) + 1] or gpus

    def available(gpu: GpuDevice) -> int:
        reported = held_bytes if held_card in ("", gpu.uuid) and (held_card or len(gpus) == 1) else 0
        return gpu.free_bytes + max(reported, sum(p.used_bytes for p in gpu.processes if p.ours))

    names, needs, margin = [name for name, _ in spec.tiers], dict(spec.tiers), int(margin_gib * GIB)

    def order(gpu: GpuDevice) -> tuple[int, bool, int]:
        tier = first_fitting(needs, available(gpu), margin)
        return (len(names) if tier is None else names.index(tier), gpu.uuid != held_card, -available(gpu))

    best = min(gpus, key=order)
    tier = first_fitting(needs, available(best), margin)
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
