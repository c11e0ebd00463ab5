# SPDX-License-Identifier: Apache-2.0
"""What is background in an exported data set: found in the runs it came from, by their episode and not by their name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_runs import write_take
from scenes import make_scene_episode

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.reader import Dataset
from retake.worker.probe.background import backgrounds
from retake.worker.probe.data import pack

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Two runs, and a data set of their takes and pictures."""
    root = tmp_path_factory.mktemp("background")
    runs = [root / f"r{i}" for i in range(2)]
    for seed, run in enumerate(runs):
        make_scene_episode(run / "episode", frames=6, size=(128, 96), seed=seed)
        write_take(run, open_episode(run / "episode"), 0, start=2)
    export(runs, root / "d", ExportOptions("lerobot-v3"), Selection(include_sim=True, language=False))
    return runs, root / "d"


def test_robot_objects_and_containers_are_no_background(made: tuple[list[Path], Path]) -> None:
    runs, data = made
    masks = backgrounds(runs)
    for row in Dataset(data).episodes():
        run = next(run for run in runs if run.name == row.provenance["run"])
        episode = open_episode(run / "episode")
        found = masks(row, "front")
        assert found.shape == (row.length, 96, 128)
        assert found.dtype == np.bool_
        owners = {one.id: one.owner.partition(":")[0] for one in episode.header.instances}
        start = row.provenance["window_start"]
        for t in range(row.length):
            ids = episode.image("front", "instances", start + t)
            acting = np.isin(ids, [k for k, kind in owners.items() if kind in ("robot", "object")])
            assert acting.any()
            assert not found[t][acting].any()
            assert found[t].any()


def test_a_run_that_was_renamed_or_copied_is_known_by_its_episode(
    made: tuple[list[Path], Path], tmp_path: Path
) -> None:
    """Also when an episode folder is named, and when two runs have one name."""
    runs, data = made
    (tmp_path / "a").mkdir()
    runs[0].rename(tmp_path / "a" / "r1")
    try:
        moved = backgrounds([tmp_path / "a" / "r1", runs[1] / "episode"])
        rows = list(Dataset(data).episodes())
        assert all(moved(row, "front").any() for row in rows)
        with pytest.raises(
            InputError, match=r"episode \d is not known: it comes from the run 'r0', and none of the 1 runs"
        ):
            [backgrounds(runs[1:])(row, "front") for row in rows]
    finally:
        (tmp_path / "a" / "r1").rename(runs[0])
    with pytest.raises(InputError, match="nowhere is no run with an episode, nor an episode"):
        backgrounds([tmp_path / "nowhere"])


def test_a_pack_of_runs_knows_its_background(made: tuple[list[Path], Path], tmp_path: Path) -> None:
    runs, data = made
    packed = pack(data, tmp_path / "pack", masks=backgrounds(runs))
    assert packed.facts.masked
    share = packed.masks["front"].mean()
    assert 0.1 < share < 0.999
