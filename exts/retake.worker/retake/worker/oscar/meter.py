# SPDX-License-Identifier: Apache-2.0
"""FLOPs and peak memory of a piece of code, computed by running it on tensors that have shapes but no bytes.

The code that is counted is the code that runs: the same modules on PyTorch's meta device. Memory counts every storage
from its creation to its last reference (what an eager run allocates; workspaces and fragmentation come on top).
FLOPs are PyTorch's own count of matrix products, convolutions and attention (two per multiply-add).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Cost:
    """FLOPs, and peak bytes of tensors made on the way (weights and inputs not included)."""

    flops: int
    peak_bytes: int

    def extrapolate(self, other: Cost, steps: int) -> Cost:
        """This cost plus `steps` times the difference `other` - `self` (costs linear in a length)."""
        return Cost(
            self.flops + steps * (other.flops - self.flops),
            self.peak_bytes + steps * max(0, other.peak_bytes - self.peak_bytes),
        )


class Meter(TorchDispatchMode):
    """Follows the bytes of all tensors created while it is active, and adds up PyTorch's FLOP formulas.

    Quicker than FlopCounterMode by an order of magnitude, because it neither tracks modules nor tries to decompose.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self.flops = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {
            id(leaf.untyped_storage()) for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }  # fmt: skip
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=result))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in before and id(storage) not in self._known:
                    self._enter(storage)
        return result

    def _enter(self, storage: Any) -> None:
        key, nbytes = id(storage), storage.nbytes()

        def leave(_: Any) -> None:
            self._known.pop(key, None)
            self.live -= nbytes

        self._known[key] = weakref.ref(storage, leave)
        self.live += nbytes
        self.peak = max(self.peak, self.live)


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations other than matrix products and attention read and write.

    Views move nothing; a broadcast input is read once. What an eager run moves: every operation reads its inputs from
    memory and writes its result there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.by_operation: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        moves = not func.is_view and packet not in flop_registry and packet not in _MOVES_NOTHING
        if moves:
            leaves = [t for t in (*tree_iter((args, kwargs or {})), *tree_iter(result)) if isinstance(t, torch.Tensor)]
            total = sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in leaves)
            self.bytes += total
            name = str(packet).rpartition(".")[2]
            self.by_operation[name] = self.by_operation.get(name, 0) + total
        return result


_aten = torch.ops.aten
_MOVES_NOTHING = (
    _aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided, _aten.detach, _aten.alias, _aten._unsafe_view,
    _aten.linear,
)  # fmt: skip


@torch.no_grad()
def traffic(run: Callable[[], Any]) -> dict[str, int]:
    """Bytes moved by the elementwise work of `run()`, by operation (see `Traffic`)."""
    with Traffic() as counter:
        run()
    return counter.by_operation


@torch.no_grad()
def measure(run: Callable[[], Any]) -> Cost:
    """The Cost of `run()`; its result counts as live until the end."""
    with Meter() as meter:
        result = run()
    del result
    return Cost(meter.flops, meter.peak)
