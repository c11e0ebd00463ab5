# SPDX-License-Identifier: Apache-2.0
"""Where objects count in a training, cell by cell. Of retake.worker.tune.objects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tune_clips import SIZE, make_clip

from retake.core.errors import InputError
from retake.core.export.physics import NEVER
from retake.worker.oscar.fit import plan_fit
from retake.worker.tune.config import ObjectSupervision
from retake.worker.tune.objects import (
    free_fall,
    loss_weight,
    object_cells,
    object_video,
    pool_cells,
    read_truth,
    shuffled,
)

torch.set_num_threads(1)


def test_a_fall_is_from_release_to_settling_or_the_end():
    arrays = {"release_frame": np.array([2, 3, NEVER]), "settled_frame": np.array([4, NEVER, NEVER])}
    assert free_fall(arrays, 6).T.tolist() == [
        [False, False, True, True, True, False], [False, False, False, True, True, True], [False] * 6,
    ]  # fmt: skip


def test_cells_count_by_cover_and_by_fall():
    cells, falling = torch.tensor([[[[0.5]]]]), torch.tensor([[[[0.25]]]])
    found = loss_weight(cells, falling, ObjectSupervision(4.0, 3.0))
    assert found is not None
    assert found.shape == (1, 1, 1, 1, 1)
    assert float(found) == 1 + 4 * (0.5 + 2 * 0.25)
    assert float(loss_weight(cells, falling, ObjectSupervision(4.0, 1.0))) == 3
    assert float(loss_weight(cells, falling, ObjectSupervision(4.0, 0.0))) == 2
    assert loss_weight(cells, falling, ObjectSupervision(0.0, 3.0)) is None


def test_padding_repeats_the_last_frame_of_a_window():
    masks = np.zeros((7, 2, 16, 24), bool)
    masks[:5, 0, :8, :8] = masks[5:, 1, 8:, 16:] = True
    free = np.zeros((7, 2), bool)
    free[6, 1] = True
    truth: Any = SimpleNamespace(masks=masks, free=free)
    cells, falling = object_cells(truth, slice(2, 7), 9, (24, 16))
    first, last = np.zeros((2, 3)), np.zeros((2, 3))
    first[0, 0] = last[1, 2] = 1
    assert np.array_equal(cells[0], first)
    assert cells[1] == pytest.approx((first * 2 + last * 2) / 4)
    assert np.array_equal(cells[2], last), "four times the last frame"
    assert falling[1] == pytest.approx(last / 4)
    assert np.array_equal(falling[2], last)
    assert falling[0].sum() == 0
    whole, _ = object_cells(truth, slice(0, 5), 5, (24, 16))
    assert np.array_equal(whole, pool_cells(masks[:5, 0], (24, 16)))


def test_shuffled_places_keep_every_frame_s_values():
    cells = torch.rand(2, 3, 4, 5)
    found = shuffled(cells, torch.Generator().manual_seed(0))
    assert not torch.equal(found, cells)
    assert torch.equal(found.flatten(-2).sort().values, cells.flatten(-2).sort().values)


@given(st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_pooling_keeps_the_covered_area(k, seed):
    cover = np.random.default_rng(seed).random((1 + 4 * k, 32, 32)) < 0.3
    cells = pool_cells(cover, SIZE)
    assert cells.shape == (1 + k, 4, 4)
    assert cells[0].mean() == pytest.approx(cover[0].mean(), abs=1e-6)
    if k:
        assert cells[1:].mean() == pytest.approx(cover[1:].mean(), abs=1e-6)


@pytest.mark.parametrize("fit", ["squeeze", "crop", "letterbox"])
@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 96), (64, 64)])
def test_cells_lie_where_the_picture_shows_the_object(fit, width, height):
    masks = np.zeros((5, 1, height, width), bool)
    masks[:, 0, height // 4 : height // 2, width // 3 : width // 2] = True
    truth: Any = SimpleNamespace(masks=masks, free=np.ones((5, 1), bool))
    picture = np.repeat(255 * masks[:, 0, :, :, None].astype(np.uint8), 3, axis=-1)
    shown = plan_fit((width, height), (64, 64), fit).apply(picture)[..., 0] / 255
    for found in object_cells(truth, slice(0, 5), 5, (64, 64), fit):
        assert np.abs(found - pool_cells(shown, (64, 64))).max() < 0.15
        assert found.max() > 0.6


def test_object_cells_follow_the_object_and_free_fall():
    clip = make_clip(0, 17)
    truth = read_truth(clip.physics(), 17, SIZE)
    cells, falling = object_cells(truth, slice(0, 17), 17, SIZE)
    assert cells.sum(axis=(1, 2)) == pytest.approx([cells[0].sum()] * 5, rel=0.02)  # the object keeps its size
    assert falling[0].sum() == 0
    assert falling[2].sum() > 0
    assert (falling <= cells + 1e-6).all()
    weight = loss_weight(torch.from_numpy(cells)[None], torch.from_numpy(falling)[None], ObjectSupervision(4.0, 2.0))
    assert float(weight.min()) >= 1
    assert float(weight.max()) == pytest.approx(1 + 8 * float(falling.max()), rel=0.2)


def test_objects_are_drawn_in_colours_of_their_own():
    truth = read_truth(make_clip(0).physics(), 9, SIZE)
    video = object_video(truth, None)
    assert {tuple(c) for c in video.reshape(-1, 3)} == {(0, 0, 0), (255, 0, 255)}
    skeleton = np.full((9, 32, 32, 3), 7, np.uint8)
    assert ((object_video(truth, skeleton) == 7).all(-1) == (video == 0).all(-1)).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"object_movable": np.array([False])}, "no movable object"),
        ({"time_s": np.arange(5)}, "belongs to another sample"),
        ({"object_masks": None}, "no object_masks"),
    ],
)
def test_physics_that_does_not_fit_is_refused(change, says):
    arrays = {**make_clip(0).physics(), **change}
    arrays = {name: value for name, value in arrays.items() if value is not None}
    with pytest.raises(InputError, match=says):
        read_truth(arrays, 9, SIZE)


def test_objects_are_not_drawn_through_one_camera_on_a_canvas_of_several():
    arrays = {**make_clip(0).physics(), "canvas_cameras": np.array(["wrist", "front"])}
    with pytest.raises(InputError, match="wrist, front on one picture"):
        object_video(read_truth(arrays, 9, SIZE), None)
