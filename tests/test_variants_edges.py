# SPDX-License-Identifier: Apache-2.0
"""Edges of pictures and of geometry, on pictures small enough to say by hand what they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.variants.edges import canny, edge_f1, instance_border, soften_edges, structure_f1


def ids_of(seed: int) -> np.ndarray:
    """A few rectangles of other ids anywhere in a small picture, its borders included."""
    rng = np.random.default_rng(seed)
    ids = np.ones((11, 13), np.uint16)
    for number in range(2, 2 + int(rng.integers(0, 3))):
        (top, bottom), (left, right) = sorted(rng.integers(0, 12, 2)), sorted(rng.integers(0, 14, 2))
        ids[top:bottom, left:right] = number
    return ids


@given(st.integers(0, 10_000))
@settings(max_examples=12)
def test_a_border_is_where_a_neighbour_above_below_or_beside_is_another(seed):
    ids = ids_of(seed)
    found = instance_border(ids)
    for row, column in np.ndindex(ids.shape):
        beside = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        inside = [(r, c) for r, c in beside if 0 <= r < ids.shape[0] and 0 <= c < ids.shape[1]]
        assert found[row, column] == any(ids[at] != ids[row, column] for at in inside)


@given(st.integers(0, 10_000))
@settings(max_examples=12)
def test_only_borders_are_softened_and_as_in_the_whole_picture(seed):
    ids = ids_of(seed)
    picture = np.random.default_rng(seed).integers(0, 256, (*ids.shape, 3)).astype(np.uint8)
    border, soft = instance_border(ids), cv2.GaussianBlur(picture, (3, 3), 0.75)
    found = soften_edges(picture.copy(), ids)
    assert np.array_equal(found[border], soft[border])
    assert np.array_equal(found[~border], picture[~border])


def step(height: int, at: int = 10, shape=(16, 20)) -> np.ndarray:
    """Grey 50, and from column `at` on brighter by `height`."""
    picture = np.full((*shape, 3), 50, np.uint8)
    picture[:, at:] += np.uint8(height)
    return picture


@pytest.mark.parametrize(("height", "seen"), [(32, False), (35, True), (120, True)])
def test_a_step_is_an_edge_from_a_third_of_the_threshold_on(height, seen):
    """The 3x3 blur leaves three quarters of a step between the neighbours of a pixel; Sobel's weights add up to four."""
    for picture in (step(height), step(height)[..., 0]):
        found = canny(picture)
        assert found.any() == seen
        if seen:
            assert set(np.nonzero(found)[1]) <= {9, 10}
            assert found.any(1)[2:-2].all()


def line(column: int, rows=slice(2, 12)) -> np.ndarray:
    out = np.zeros((14, 16), bool)
    out[rows, column] = True
    return out


def test_edges_count_when_the_other_picture_has_one_near():
    nothing = np.zeros((14, 16), bool)
    assert edge_f1(line(4), line(5)) == 1
    assert edge_f1(line(4), line(6)) == 0
    assert edge_f1(line(4), line(6), tolerance_px=2) == 1
    assert edge_f1(line(4), line(7), tolerance_px=2) == 0
    assert edge_f1(nothing, nothing) == 1
    assert edge_f1(line(4), nothing) == edge_f1(nothing, line(4)) == 0
    # All ten pixels that should be there are, and as many more that should not: 2 · ½ · 1 / (½ + 1).
    assert edge_f1(line(4) | line(10), line(4)) == pytest.approx(2 / 3)
    # Half of what was found is right, a quarter of what is expected was found: 2 · ½ · ¼ / (½ + ¼).
    assert edge_f1(
        line(4, slice(2, 4)) | line(8, slice(2, 4)), line(4, slice(2, 4)) | line(12, slice(0, 6))
    ) == pytest.approx(1 / 3)


def test_edges_outside_a_mask_do_not_count_but_help_those_within():
    within = np.zeros((14, 16), bool)
    within[:, :8] = True
    assert edge_f1(line(4) | line(12), line(4), within) == 1
    assert edge_f1(line(12), line(14), within) == 1
    assert edge_f1(line(7), line(8), within) == 0, "nothing is expected within"
    assert edge_f1(line(7) | line(3), line(8) | line(3), within) == 1, (
        "the one outside says that the one within is right"
    )


MASK = np.zeros((40, 40), bool)
MASK[:, 10:30] = True


@pytest.mark.parametrize(("at", "kept"), [(13, 1), (14, 0), (20, 0), (26, 0), (28, 1)])
def test_what_is_within_three_pixels_of_the_silhouette_belongs_to_what_is_behind(at, kept):
    """Canny marks the last dark pixel of a step: the mask's columns 10 to 29 less three on each side are 13 to 26."""
    flat, stepped = step(0, shape=(40, 40)), step(200, at, (40, 40))
    assert structure_f1(flat, stepped, MASK) == kept
    assert structure_f1(stepped, flat, MASK) == kept
    assert structure_f1(stepped, stepped, MASK) == 1


@pytest.mark.parametrize(("share", "plus"), [(0.5, 40), (1.0, 60), (1.6, -40)])
def test_light_that_dims_or_brightens_an_edge_keeps_it(share, plus):
    source = step(60, 20, (40, 40))
    lit = np.clip(source * share + plus, 0, 255).astype(np.uint8)
    assert structure_f1(lit, source, MASK) == 1
    assert structure_f1(source, lit, MASK) == 1
    moved = step(60, 23, (40, 40))
    assert structure_f1(moved, source, MASK) == 0
    assert structure_f1(step(60, 21, (40, 40)), source, MASK) == 1, "a pixel aside is the same edge"
    assert structure_f1(moved, source, np.zeros_like(MASK)) == 1, "nothing to compare"
