# SPDX-License-Identifier: Apache-2.0
"""Decodes in order, at once or beside the next take. Of retake.worker.oscar.decoding."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from retake.worker.oscar.decoding import DecodeQueue

CPU = torch.device("cpu")


@pytest.mark.parametrize("overlap", [False, True])
def test_every_take_is_decoded_in_order_up_to_the_first_that_fails(overlap):
    seen: list[Any] = []

    def decode(latents: torch.Tensor) -> float:
        seen.append((float(latents), torch.is_grad_enabled(), threading.current_thread().name.partition("_")[0]))
        if float(latents) == bad:
            raise ValueError("no")
        return 10 * float(latents)

    bad = -1.0
    with torch.no_grad():
        queue = DecodeQueue(decode, CPU, overlap)
        for k in range(3):
            queue.submit(torch.tensor(float(k)))
        assert queue.finished() == ([0, 10, 20], None)
        assert queue.finished() == ([], None), "told once"
        bad = 4.0
        for k in (3.0, 4.0, 5.0) if overlap else (3.0,):
            queue.submit(torch.tensor(k))
        if not overlap:
            with pytest.raises(ValueError, match="no"):
                queue.submit(torch.tensor(4.0))
        done, error = queue.finished()
        assert (done, str(error)) == ([30], "no" if overlap else "None")
        queue.close()
    here = threading.current_thread().name.partition("_")[0]
    assert {thread for *_, thread in seen} == {"retake-decode" if overlap else here}
    assert not any(gradients for _, gradients, _ in seen), "grad mode is of a thread"
    assert [value for value, *_ in seen] == [float(k) for k in range(len(seen))]


def test_closing_drops_what_has_not_begun_and_waits_for_what_has():
    begun, go = threading.Event(), threading.Event()
    ended: list[float] = []

    def decode(latents: torch.Tensor) -> None:
        begun.set()
        go.wait(20)
        ended.append(float(latents))

    queue = DecodeQueue(decode, CPU, True)
    for k in range(3):
        queue.submit(torch.tensor(float(k)))
    assert begun.wait(20)
    waited = threading.Thread(target=queue.close)
    waited.start()
    go.set()
    waited.join(20)
    assert not waited.is_alive()
    assert ended == [0.0]
    assert [future.cancelled() for future in queue._pending] == [False, True, True]
    DecodeQueue(decode, CPU, False).close()
