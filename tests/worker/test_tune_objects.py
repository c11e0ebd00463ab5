# SPDX-License-Identifier: Apache-2.0
"""Where objects count in a training, cell by cell. Of retake.worker.tune.objects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retake.core.export.physics import NEVER
from retake.worker.tune.config import ObjectSupervision
from retake.worker.tune.objects import free_fall, loss_weight, object_cells, pool_cells, shuffled

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
