# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks that visit the device one after the other: weights stay in pinned host memory and go one way only.

Two places on the device take turns: while a block computes from one, the next block's weights are copied into the other on
a stream of their own. Nothing is written back, because inference changes no weight, so a forward moves every block's bytes
once. Parts outside the blocks (embeddings, the text projection, the final layer) stay on the device.

Whole modules visit in the same manner (`visiting`): what comes is a copy, and leaving is forgetting it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_MARK = "_retake_streamer"


@contextmanager
def visiting(modules: Sequence[nn.Module], device: torch.device, pin: bool = True) -> Iterator[None]:
    """Inside, the modules' weights are on `device`; afterwards they are the host's again, and nothing was copied back.

    `pin`: move them to pinned host memory first, where there is enough of it, so that later visits are faster. Changes of
    weights made inside are lost.
    """
    away: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules):
            host = tensor.data
            if host.device == device:
                continue
            if pin and device.type == "cuda":
                host = _pinned(host)
            away.append((tensor, host))
            tensor.data = host.to(device, non_blocking=True)
        yield
    finally:
        for tensor, host in away:
            tensor.data = host


def _pinned(host: Tensor) -> Tensor:
    try:
        return host if host.is_pinned() else host.pin_memory()
    except RuntimeError:  # the system gives no more of it; an ordinary copy is slower, not wrong
        return host


class BlockStreamer:
    """Streams the weights of equal blocks through two places on `device`. See `stream_blocks`."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._blocks, self.device = list(blocks), device
        cuda = device.type == "cuda"
        self._host = [
            {name: (_pinned(p.data.cpu()) if cuda else p.data.cpu()) for name, p in block.named_parameters()}
            for block in self._blocks
        ]
        self._places: list[dict[str, Tensor]] = [
            {name: torch.empty_like(value, device=device) for name, value in self._host[0].items()} for _ in range(2)
        ]
        self._holds: list[int | None] = [None, None]
        self._copies = torch.cuda.Stream(device) if cuda else None
        self._arrived: list[Any] = [None, None]
        self._left: list[Any] = [None, None]
        self._hooks = []
        for index, block in enumerate(self._blocks):
            self._point(index, self._host[index])
            self._hooks.append(block.register_forward_pre_hook(lambda *_, index=index: self._enter(index)))
            self._hooks.append(block.register_forward_hook(lambda *_, index=index: self._leave(index)))

    def remove(self) -> None:
        """Hooks off; every block has its own weights again, in host memory."""
        for hook in self._hooks:
            hook.remove()
        for index in range(len(self._blocks)):
            self._point(index, self._host[index])
        self._places, self._holds = [], [None, None]

    def _point(self, index: int, values: dict[str, Tensor]) -> None:
        for name, parameter in self._blocks[index].named_parameters():
            parameter.data = values[name]

    def _enter(self, index: int) -> None:
        place = index % 2
        if self._holds[place] != index:  # the first block of all, or an order nobody foresaw
            self._copy(index)
        if self._copies is not None:
            torch.cuda.current_stream(self.device).wait_event(self._arrived[place])
        self._point(index, self._places[place])
        following = (index + 1) % len(self._blocks)
        if following % 2 != place:
            self._copy(following)

    def _leave(self, index: int) -> None:
        self._point(index, self._host[index])
        if self._copies is not None:
            self._left[index % 2] = torch.cuda.current_stream(self.device).record_event()

    def _copy(self, index: int) -> None:
        """Start copying a block's weights to its place, once the block that was there has computed."""
        place = index % 2
        if self._holds[place] == index:
            return
        self._holds[place] = index
        if self._copies is None:
            for name, value in self._host[index].items():
                self._places[place][name].copy_(value)
            return
        if self._left[place] is not None:
            self._copies.wait_event(self._left[place])
        with torch.cuda.stream(self._copies):
            for name, value in self._host[index].items():
                self._places[place][name].copy_(value, non_blocking=True)
            self._arrived[place] = self._copies.record_event()


def stream_blocks(transformer: Any, device: torch.device) -> None:
    """Stream the transformer's blocks; everything else of it goes to the device. Does nothing where they are streamed there."""
    if is_streamed(transformer):
        if getattr(transformer, _MARK).device == device:
            return
        unstream_blocks(transformer)
    for name, child in transformer.named_children():
        child.to("cpu" if name == "transformer_blocks" else device)
    setattr(transformer, _MARK, BlockStreamer(transformer.transformer_blocks, device))


def unstream_blocks(transformer: Any) -> None:
    """Undo `stream_blocks`; all weights are in host memory then."""
    if is_streamed(transformer):
        getattr(transformer, _MARK).remove()
        setattr(transformer, _MARK, None)
        transformer.to("cpu")


def is_streamed(module: Any) -> bool:
    """Whether this module's blocks come and go by themselves."""
    return getattr(module, _MARK, None) is not None
