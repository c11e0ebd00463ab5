# SPDX-License-Identifier: Apache-2.0
"""A Triton of this process: a kernel's programs one after the other on torch's tensors, with every address checked. It is as
strict as the compiler where a mistake would show on a card alone: blocks are powers of two, what is stored has the memory's type,
no address that is not masked lies outside its tensor."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

KERNELS = "retake.worker.oscar.triton_kernels"
_program = [0]


class Pointer:
    """An address in a tensor's memory, or one for each element of `at`."""

    def __init__(self, memory: Tensor, at: Any = 0) -> None:
        self.memory, self.at = memory, at
        self.dtype = SimpleNamespace(element_ty=memory.dtype)

    def __add__(self, further: Any) -> Pointer:
        return Pointer(self.memory, self.at + further)


def memory_of(tensor: Tensor) -> Tensor:
    """From a tensor's first element to the end of what it lies in."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    return torch.as_strided(tensor, (max(0, size),), (1,), tensor.storage_offset())


def load(pointer: Pointer, mask: Tensor, other: float) -> Tensor:
    assert len(pointer.at) == len(mask)
    found = torch.full(mask.shape, other, dtype=pointer.memory.dtype)
    found[mask] = pointer.memory[_inside(pointer, mask)]
    return found


def store(pointer: Pointer, value: Tensor, mask: Tensor) -> None:
    assert value.dtype == pointer.memory.dtype
    pointer.memory[_inside(pointer, mask)] = value[mask]


def _inside(pointer: Pointer, mask: Tensor) -> Tensor:
    at = pointer.at[mask]
    assert bool(((at >= 0) & (at < len(pointer.memory))).all()), "an address outside the tensor"
    return at


def arange(begin: int, end: int) -> Tensor:
    assert end > begin
    assert (end - begin) & (end - begin - 1) == 0, "a block is a power of two"
    return torch.arange(begin, end)


class Kernel:
    """`kernel[grid](…)`."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*given: Any) -> None:
            made = [Pointer(memory_of(one)) if isinstance(one, Tensor) else one for one in given]
            for _program[0] in range(grid[0]):
                self.body(*made)

        return launch


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import triton` finds this until the test is over, and nothing that was imported with it stays."""
    triton, language = (ModuleType(name) for name in ("triton", "triton.language"))
    for module in (triton, language):
        module.__spec__ = ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    triton.jit, triton.language = Kernel, language  # type: ignore[attr-defined]
    triton.next_power_of_2 = lambda number: 1 << (number - 1).bit_length()  # type: ignore[attr-defined]
    language.__dict__.update(
        constexpr=object, float32=torch.float32, int64=torch.int64, load=load, store=store, arange=arange,
        program_id=lambda axis: torch.tensor(_program[axis]), where=torch.where, sqrt=torch.sqrt, sum=torch.sum,
    )  # fmt: skip
    import retake.worker.oscar as package

    monkeypatch.setitem(sys.modules, KERNELS, None)
    del sys.modules[KERNELS]
    monkeypatch.setattr(package, "triton_kernels", None, raising=False)
    importlib.import_module(KERNELS)
