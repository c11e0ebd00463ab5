# SPDX-License-Identifier: Apache-2.0
"""A shipped data set as the probe reads it: sizes, order, chunks, phases, masks, and whose pack it is."""

from __future__ import annotations

import numpy as np
import pytest
from export_runs import make_run

from retake.core.errors import Cancelled, InputError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.reader import Dataset
from retake.worker.probe.data import open_pack, pack, scaled

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two runs of six frames with two cameras, simulated pictures and one take each."""
    root = tmp_path_factory.mktemp("probe")
    runs = [
        make_run(root / f"r{i}", seed=i, takes=1, frames=6, size=(128, 64), cameras=("wrist", "front"))
        for i in range(2)
    ]
    export(runs, root / "d", ExportOptions("lerobot-v3"), Selection(include_sim=True, language=False))
    return root / "d"


def test_a_pack_holds_what_was_exported(dataset, tmp_path):
    made = pack(dataset, tmp_path / "pack")
    data = Dataset(dataset)
    assert list(made.facts.cameras.items()) == [("front", (112, 56)), ("wrist", (80, 40))]
    assert made.images["front"].shape == (24, 56, 112, 3)
    assert made.facts.lengths == (6, 6, 6, 6)
    for row, start in zip(data.episodes(), made.facts.starts, strict=True):
        found = data.columns(row)
        assert np.array_equal(made.state[start : start + 6], found["observation.state"])
        assert np.array_equal(made.action[start : start + 6], found["action"])
        first = next(iter(data.frames(row, "observation.images.front")))
        assert abs(float(made.images["front"][start].mean()) - float(first.mean())) < 2
    assert made.facts.phases == 5
    assert set(np.unique(made.phase)) <= set(range(5))
    assert made.chunk_rows(np.array([5, 6]), 3).tolist() == [[5, 5, 5], [6, 7, 8]]


def test_a_pack_is_opened_again_and_another_data_set_s_is_refused(dataset, tmp_path):
    first = pack(dataset, tmp_path / "pack")
    again = pack(dataset, tmp_path / "pack")
    assert again.facts == first.facts == open_pack(tmp_path / "pack").facts
    with pytest.raises(InputError, match="pack of another data set"):
        pack(dataset, tmp_path / "pack", masks=lambda row, camera: np.zeros((row.length, 64, 128), bool))


def test_masks_are_made_small_like_the_pictures(dataset, tmp_path):
    def left(row, camera):
        mask = np.zeros((row.length, 64, 128), bool)
        mask[:, :, :64] = True
        return mask

    made = pack(dataset, tmp_path / "pack", masks=left)
    assert made.masks["front"][:, :, :55].all()
    assert not made.masks["front"][:, :, 57:].any()


def test_a_stopped_packing_leaves_nothing(dataset, tmp_path):
    def stop():
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        pack(dataset, tmp_path / "pack", check_cancel=stop)
    assert not list(tmp_path.iterdir())


def test_sides_are_never_too_small():
    assert scaled((640, 480), 112) == (112, 84)
    assert scaled((1000, 20), 112) == (112, 8)
