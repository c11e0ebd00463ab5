# SPDX-License-Identifier: Apache-2.0
"""Laws of what the pictures of a verdict show of drift: scenery alone votes, and says how far it went."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.stability import drift_votes

SETTINGS = load_settings().stability
WIDTH, HEIGHT = 320, 240
CELL = 32
"""At least a cell of the votes, working px: a cell may be cut by what is left out."""


def picture(seed: int, shift: tuple[int, int]) -> np.ndarray:
    """Texture in every cell, moved, (H, W, 3)."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (HEIGHT // 8 + 8, WIDTH // 8 + 8)).astype(np.float32)
    whole = cv2.resize(coarse, (WIDTH + 64, HEIGHT + 64), interpolation=cv2.INTER_CUBIC)
    x, y = 32 - shift[0], 32 - shift[1]
    cut = np.clip(whole[y : y + HEIGHT, x : x + WIDTH], 0, 255).astype(np.uint8)
    return np.repeat(cut[..., None], 3, axis=2)


def votes(seed: int, shift: tuple[int, int], *movers: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Of two frames, each with its mover (rows, columns)."""
    labels = np.zeros((2, HEIGHT, WIDTH), np.int16)
    for label, mover in zip(labels, movers, strict=True):
        label[mover] = 1
    footage: Any = SimpleNamespace(frames=[picture(seed, (0, 0)), picture(seed, shift)])
    truth: Any = SimpleNamespace(size=(WIDTH, HEIGHT), labels=labels)
    return drift_votes(footage, truth, 1, SETTINGS)


NOTHING = (slice(0, 0), slice(0, 0))


@given(seed=st.integers(0, 2**16), dx=st.integers(-4, 4), dy=st.integers(-4, 4))
def test_scenery_says_how_far_it_went(seed: int, dx: int, dy: int) -> None:
    place, moved = votes(seed, (dx, dy), NOTHING, NOTHING)
    assert len(place) >= 12
    assert np.median(moved, axis=0) == pytest.approx([dx, dy], abs=0.6)
    assert ((place >= 0) & (place <= [WIDTH + CELL, HEIGHT + CELL])).all()


@given(seed=st.integers(0, 2**16), first=st.booleans(), grown=st.integers(60, 200))
def test_what_a_mover_covers_in_either_frame_has_no_vote(seed: int, first: bool, grown: int) -> None:
    """Its margin (shadow and warp) included; everything else keeps it."""
    mover = (slice(0, HEIGHT), slice(0, grown))
    place, _ = votes(seed, (2, 0), *((mover, NOTHING) if first else (NOTHING, mover)))
    assert len(place)
    assert place[:, 0].min() >= grown + SETTINGS.margin_px - CELL
    assert place[:, 0].max() >= WIDTH - 2 * CELL


def test_where_all_is_covered_nobody_votes() -> None:
    place, moved = votes(0, (2, 0), (slice(0, HEIGHT), slice(0, WIDTH)), NOTHING)
    assert place.shape == moved.shape == (0, 2)
