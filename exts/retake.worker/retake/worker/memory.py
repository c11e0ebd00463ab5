# SPDX-License-Identifier: Apache-2.0
"""One model of device memory: which way to run fits, what a failed allocation looks like, which device is meant.

Ways to run (tiers) are mappings name -> bytes needed, fastest first, whoever made them: OSCAR's planner, a first-frame
model's files, or the numbers in config/worker.yaml. Torch is imported on use: the service that plans need not have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from retake.core.errors import InputError

GIB = 1 << 30
FRAGMENTATION = 1.10
"""The allocator's overhead, assumed."""
CONTEXT_BYTES = int(0.75 * GIB)
"""CUDA context and library workspaces, assumed."""
MARGIN_BYTES = GIB
"""Left free for the renderer on the same card unless config/worker.yaml says otherwise (`waiting.memory_margin_gib`)."""
AUTO, CPU = "auto", "cpu"
"""Tiers that any backend understands: plan yourself from what torch sees; run on the CPU."""

_EXHAUSTED = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cuda_error_out_of_memory",
    "defaultcpuallocator",  # the host's own memory: pinned copies of weights are large
)
_CUDA_WORDS = ("cuda error", "cuda driver error", "cuda unknown error", "cuda_error_", "cudaerror", "triton error [cuda]",
               "cublas_status", "cudnn_status", "cusolver_status", "cusparse_status", "cufft_", "nccl error",
               "device-side assert", "unspecified launch failure", "illegal memory access",
               "no cuda gpus are available")  # fmt: skip


def first_fitting(needs: Mapping[str, int], free_bytes: int, margin_bytes: int = 0) -> str | None:
    """The first (fastest) tier that needs no more than what is free beside the margin; None where none does."""
    return next((name for name, need in needs.items() if need <= free_bytes - margin_bytes), None)


def fitting_or_smallest(needs: Mapping[str, int], free_bytes: int, margin_bytes: int = 0) -> str:
    """Like `first_fitting`, and the smallest one if none fits: it may still run, and says so if it cannot."""
    return first_fitting(needs, free_bytes, margin_bytes) or list(needs)[-1]


def next_lower(names: Sequence[str], name: str) -> str | None:
    """One tier down; None at the bottom and for a name that is not among `names`."""
    index = names.index(name) + 1 if name in names else len(names)
    return names[index] if index < len(names) else None


def usable_device(name: Any = None) -> Any:
    """The named torch device, or CUDA where there is one, or the CPU. Raises InputError if it is not there."""
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name or found)
    except RuntimeError:
        raise InputError(f"unknown device {str(name)!r}; valid: cpu, cuda, cuda:0, …") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"device {device} is not there; found {torch.cuda.device_count()} CUDA devices")
    return device


def free_device_bytes(device: Any) -> int:
    """Free memory now: the CUDA driver's answer, or the machine's available memory for other devices."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            fields = dict(line.split(":", 1) for line in stream)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 8 * GIB  # nothing to measure with; a common workstation's spare memory


def held_device_bytes() -> int:
    """Bytes that this process's allocator holds on all cards: what NVML cannot tell under WDDM, in WSL and in containers."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.memory_reserved(index)) for index in range(torch.cuda.device_count()))


def device_of_card(card: str) -> str:
    """The torch device of a card's UUID as NVML gives it; "cuda" (the current one) where torch does not tell UUIDs.

    Raises InputError where this process does not see the card (CUDA_VISIBLE_DEVICES).
    """
    import torch

    if not card:
        return "cuda"
    count, wanted = torch.cuda.device_count(), _bare(card)
    seen = [_bare(str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))) for index in range(count)]
    if wanted in seen:
        return f"cuda:{seen.index(wanted)}"
    if count == 1 or not any(seen):  # one visible card (a MIG slice has another UUID in torch), or no UUIDs at all
        return "cuda"
    raise InputError(f"card {card} is not among the {count} cards that this process sees; check CUDA_VISIBLE_DEVICES")


def _bare(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: torch's own class, a library's failed allocation, or Python's."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or "outofmemory" in text or any(words in text for words in _EXHAUSTED)


def is_broken_context(error: BaseException) -> bool:
    """Whether an error poisons the process's CUDA context: any CUDA error that is not a failed allocation.

    Everything after it fails, too, so the process must end.
    """
    text = f"{type(error).__name__} {error}".lower()
    return not is_out_of_memory(error) and ("acceleratorerror" in text or any(words in text for words in _CUDA_WORDS))


def fault_of(error: BaseException) -> Literal["", "memory", "context"]:
    """What an error leaves behind in its process: a card short of memory, a broken CUDA context, or nothing to speak of.

    Looks through what the error was raised from: a backend may put it into words of its own.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(is_broken_context(one) for one in chain):
        return "context"
    return "memory" if any(is_out_of_memory(one) for one in chain) else ""
