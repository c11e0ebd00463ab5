# SPDX-License-Identifier: Apache-2.0
"""Decodes in order, either at once or in the background while the next take denoises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream per device for the process: memory that the allocator keeps belongs to the stream that used it."""
    return torch.cuda.Stream(device)


class DecodeQueue(Generic[Result]):
    """Runs `decode(latents)` for each submitted take; `finished()` waits and returns them in order.

    With `overlap` a single background thread works (the VAE keeps state between frames, so never two), on a CUDA
    stream of its own. The transformer and the VAE share no state, so results are the same either way.
    """

    def __init__(self, decode: Callable[[Tensor], Result], device: torch.device, overlap: bool) -> None:
        self._decode = decode
        self._device = device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="retake-decode") if overlap else None
        self._stream = _stream(device) if overlap and device.type == "cuda" else None
        self._pending: list[Future[Result]] = []

    def submit(self, latents: Tensor) -> None:
        """Decode these latents (1, 16, t, h, w), now or soon. Errors surface here or in `finished`."""
        if self._pool is None:
            done: Future[Result] = Future()
            done.set_result(self._decode(latents))
            self._pending.append(done)
            return
        ready = torch.cuda.current_stream(self._device).record_event() if self._stream is not None else None
        self._pending.append(self._pool.submit(self._in_background, latents, ready))

    def _in_background(self, latents: Tensor, ready: torch.cuda.Event | None) -> Result:
        with torch.no_grad():  # grad mode is per thread
            if self._stream is None:
                return self._decode(latents)
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(ready)  # pyright: ignore[reportArgumentType]
                latents.record_stream(self._stream)
                result = self._decode(latents)
            self._stream.synchronize()
            return result

    def finished(self) -> tuple[list[Result], BaseException | None]:
        """Every decode in order up to the first that failed, and that one's error; the queue is empty afterwards."""
        pending, self._pending = self._pending, []
        done: list[Result] = []
        for future in pending:
            if (error := future.exception()) is not None:
                return done, error
            done.append(future.result())
        return done, None

    def close(self) -> None:
        """Drop what has not started and wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
