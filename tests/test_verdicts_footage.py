# SPDX-License-Identifier: Apache-2.0
"""What a film shows behind all that moves, and how strong its edges are, by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import footage
from retake.core.verdicts.footage import BINS, Footage

FRAMES, HEIGHT, WIDTH = 12, 40, 60


def film(frames: np.ndarray, known: bool = True) -> Footage:
    return Footage(frames, frames[0].astype(np.float32), np.full(frames.shape[1:3], known), 1.0)


def test_scenery_is_the_mean_of_every_third_frame_that_shows_it_three_times() -> None:
    frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    frames[[0, 3, 6, 9]] = np.array([10, 20, 30, 60], np.uint8)[:, None, None, None]
    frames[[1, 2, 4, 5, 7, 8, 10, 11]] = 255
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    labels[9, 20, 10], labels[6, 20, 40], labels[9, 20, 40] = 1, 2, 1
    truth: Any = SimpleNamespace(labels=labels, static_camera=True)
    found = footage.make_footage(frames, truth)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    once, twice = ((np.abs(v - 20) <= 4) & (np.abs(u - x) <= 4) for x in (10, 40))
    assert found.known.tolist() == (~twice).tolist()
    assert found.scenery[..., 1] == pytest.approx(np.where(once, 20, np.where(twice, 15, 30)))
    assert len(found) == FRAMES
    truth.static_camera = False
    moving = footage.make_footage(frames, truth)
    assert not moving.known.any()
    assert not moving.scenery.any()


def test_a_step_of_a_few_levels_has_its_square_as_the_contrast() -> None:
    """Of a ramp of 3 levels per px: 9 per channel; the tensor says along which axis."""
    ramp = np.broadcast_to(20 + 3 * np.arange(WIDTH)[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)
    xx, yy, xy = footage.tensor(ramp)
    inner = np.s_[4:-4, 4:-4]
    assert xx[inner] == pytest.approx(27)
    assert yy[inner] == pytest.approx(0)
    assert xy[inner] == pytest.approx(0)
    slanted = (20 + np.add.outer(2 * np.arange(HEIGHT), np.arange(WIDTH)))[..., None].astype(np.float32)
    xx, yy, xy = footage.tensor(np.repeat(slanted, 3, 2))
    assert (xx[inner], yy[inner], xy[inner]) == tuple(pytest.approx(value, abs=1e-3) for value in (3, 12, 6))
    truth: Any = SimpleNamespace(labels=np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), static_camera=True)
    assert footage.make_footage(np.repeat(ramp[None], FRAMES, 0), truth).contrast == pytest.approx(27, rel=0.1)
    flat = footage.make_footage(np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8), truth)
    assert flat.contrast == pytest.approx(1e-3)


@pytest.mark.parametrize("number", range(BINS))
def test_an_edge_of_the_clips_contrast_answers_by_half_in_its_direction(number: int) -> None:
    angle = number * np.pi / BINS
    J = 5.0 * np.array([np.cos(angle) ** 2, np.sin(angle) ** 2, np.cos(angle) * np.sin(angle)], np.float32)
    found = footage.responses(np.tile(J[:, None, None], (1, 3, 4)), 5.0)
    assert found.shape == (BINS, 3, 4)
    along = np.cos(angle - np.arange(BINS) * np.pi / BINS) ** 2
    assert found[:, 1, 2] == pytest.approx(along / (along + 1), abs=1e-5)
    assert not footage.responses(-np.tile(J[:, None, None], (1, 3, 4)), 5.0).any()


@pytest.mark.parametrize(
    "window", [(slice(0, 40), slice(0, 60)), (slice(5, 9), slice(50, 60)), (slice(30, 40), slice(0, 3))]
)
def test_edges_of_a_window_are_those_of_the_picture(window: tuple[slice, slice]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    one = film(frames)
    still = footage.scenery_tensor(one)
    whole = footage.edges(one, 1, still)
    assert np.allclose(footage.edges(one, 1, still, window), whole[:, window[0], window[1]], atol=1e-5)
    assert footage.edges(replace(one, contrast=2000.0), 0, still).max() < 0.1  # the scenery's own are taken off
    unknown = footage.scenery_tensor(film(frames, known=False))
    assert not unknown.any()
