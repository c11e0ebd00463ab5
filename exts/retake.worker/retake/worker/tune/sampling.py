# SPDX-License-Identifier: Apache-2.0
"""Which window of which clip a step sees: a pure function of seed, step and rank, so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retake.core.errors import InputError, unknown_name

from ..oscar.windows import Window, window_length
from .clips import Clip

FLOOR = 0.2  # weight of a window without any event, beside 1 for a window that holds grasp and release


@dataclass(frozen=True)
class Choice:
    """A window of a clip."""

    clip: Clip
    window: Window


def candidate_windows(frames: int, length: int, stride: int = 8) -> tuple[Window, ...]:
    """Windows a clip can be cut into: starts on a grid, the last one ending with the clip; one padded window if short.

    A grid, not every frame: each window is encoded once and kept, because the VAE's latents depend on where it starts.
    """
    length = window_length(length)
    if frames <= length:
        return (Window(0, frames, length),)
    starts = sorted({*range(0, frames - length + 1, stride), frames - length})
    return tuple(Window(start, start + length, length) for start in starts)


def event_weight(window: Window, events: Sequence[int]) -> float:
    """A trapezoid per event: 1 while the event lies in the middle half of the window, falling to FLOOR at its ends."""
    if not events:
        return 1.0
    size = window.stop - window.start
    shares = []
    for event in events:
        inside = min(event - window.start, window.stop - 1 - event) / max(1.0, size / 4)
        shares.append(float(np.clip(inside, 0, 1)))
    return FLOOR + (1 - FLOOR) * float(np.mean(shares))


class Sampler:
    """Draws windows: first a domain by its stated weight, then a clip, then a window biased to its events.

    `weights` maps domain to share; domains left out share by n^(1/3) of their frames when "balance" is asked for, else by
    their number of frames. Raises InputError for domains that no clip has.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        length: int,
        *,
        weights: Mapping[str, float] | None = None,
        balance: bool = False,
        stride: int = 8,
        seed: int = 0,
    ) -> None:
        if not clips:
            raise InputError("there is nothing to learn from: no clip was found")
        present = sorted({clip.domain for clip in clips})
        for name, value in (weights or {}).items():
            if name not in present:
                raise InputError(unknown_name("domain of these clips", name, present))
            if not value >= 0:
                raise InputError(f"the weight of domain {name!r} is {value}; valid: 0 or more")
        frames = {name: sum(c.frames for c in clips if c.domain == name) for name in present}
        share = {name: float(frames[name]) ** (1 / 3 if balance else 1) for name in present}
        if weights:
            share = {name: float(weights.get(name, 0.0)) for name in present}
        total = sum(share.values())
        if not total > 0:
            raise InputError("every domain has weight 0; give at least one a weight above 0")
        self.shares = {name: value / total for name, value in share.items()}
        self.seed, self._choices, self._odds = seed, [], []
        for clip in clips:
            windows = candidate_windows(clip.frames, length, stride)
            bias = np.array([event_weight(window, clip.events) for window in windows])
            odds = self.shares[clip.domain] * clip.frames / frames[clip.domain] * bias / bias.sum()
            self._choices += [Choice(clip, window) for window in windows]
            self._odds += odds.tolist()
        self._cumulative = np.cumsum(self._odds) / np.sum(self._odds)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Every window that can be drawn."""
        return tuple(c for c, odds in zip(self._choices, self._odds, strict=True) if odds > 0)

    def draw(self, step: int, count: int, rank: int = 0, ranks: int = 1) -> list[Choice]:
        """The windows of a step for one of `ranks` processes; together they are the draw of a single process."""
        # Philox counts its blocks of four numbers in the first word, where steps count, too: more than four at once would be
        # those of the steps that follow.
        blocks = [
            np.random.Philox(key=self.seed, counter=[step, block, 0, 0]) for block in range(-(-count * ranks // 4))
        ]
        draws = np.concatenate([np.random.Generator(block).random(4) for block in blocks])
        index = np.searchsorted(self._cumulative, draws[rank * count : (rank + 1) * count], side="right")
        return [self._choices[min(int(i), len(self._choices) - 1)] for i in index]
