# SPDX-License-Identifier: Apache-2.0
"""Anybody's videos in a LeRobot dataset are judged against what they are copies of; verdicts go into a copy."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from export_runs import make_run, tree
from hypothesis import given
from hypothesis import strategies as st
from lerobot_plain import PANDA, panda_motion, write_plain
from scenes import make_scene_episode

from retake.core.cli import main
from retake.core.errors import InputError
from retake.core.export import ExportOptions, Selection, VideoOptions, export
from retake.core.export.reader import Dataset
from retake.core.files import read_json
from retake.core.importers import judged as judged_module
from retake.core.importers.judged import simulated_reference
from retake.core.run_store import open_run

pytest.importorskip("pyarrow")
CASES = Path(__file__).parent / "cases/data"
NAMES = [f"{name}.pos" for name in PANDA]
COUNT, SIZE = 24, (96, 64)


def scene(k: int) -> np.ndarray:
    """A textured room in which a bright block moves."""
    rng = np.random.default_rng(0)
    out = cv2.resize(rng.integers(60, 160, (12, 16, 3), dtype=np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    x, y = 10 + 4 * k, 70 - 2 * k
    cv2.rectangle(out, (x, y), (x + 26, y + 36), (240, 220, 40), -1)
    cv2.rectangle(out, (x + 6, y + 6), (x + 18, y + 20), (30, 60, 200), -1)
    return out


def dataset(root: Path, pictures: list[np.ndarray]) -> Path:
    q = panda_motion(COUNT)
    return write_plain(root, q, NAMES, action=q, pictures=pictures, fps=15)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("real") / "d", [scene(k) for k in range(COUNT)])


def verify(copy: Path, out: Path, *more: str) -> int:
    return main(["verify", str(copy), "--out", str(out), "--quiet", *more])


def against(real: Path) -> list[str]:
    return ["--against", str(real), "--robot", str(CASES / "panda.urdf"), "--cameras", str(CASES / "front.json")]


def test_a_faithful_copy_is_unsure_without_masks_and_another_motion_fails(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repainted = dataset(
        tmp_path / "good",
        [np.clip(scene(k) * np.array([0.8, 1.0, 1.1]), 0, 255).astype(np.uint8) for k in range(COUNT)],
    )
    before = tree(repainted)
    assert verify(repainted, tmp_path / "judged", *against(real), "--json", str(tmp_path / "v.json")) == 4
    assert "0 of 1 episodes passed, 0 failed" in capsys.readouterr().out
    assert tree(repainted) == before, "the judged dataset is not touched"
    (row,) = Dataset(tmp_path / "judged").episodes()
    assert (row.provenance["verdict_status"], row.provenance["accepted"]) == ("unsure", False)
    assert any(key.startswith("verdict/") for key in row.provenance)
    assert read_json(tmp_path / "v.json")["verdicts"][0]["cameras"]["front"]["overall"] == "unsure"
    frozen = dataset(tmp_path / "frozen", [scene(0)] * COUNT)
    assert verify(frozen, tmp_path / "judged2", *against(real)) == 3
    assert re.match(r"episode 0 +front +fail +p=0\.\d{3}  recording_motion: ", capsys.readouterr().out)
    (row,) = Dataset(tmp_path / "judged2").episodes()
    assert row.provenance["verdict_status"] == "fail"


def test_what_cannot_be_judged_is_refused_in_words(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*more: str, copy: Path = real) -> str:
        assert verify(copy, tmp_path / "o", *more) == 2
        assert not (tmp_path / "o").exists()
        return capsys.readouterr().err

    assert "against: --against DATASET" in said()
    assert "--against needs the robot" in said("--against", str(real))
    assert "name it with --out" in (main(["verify", str(real)]) and capsys.readouterr().err)
    other = write_plain(
        tmp_path / "other", panda_motion(COUNT) * 0.5, NAMES, fps=15, pictures=[scene(k) for k in range(COUNT)]
    )
    assert "observation.state of" in said(*against(real), copy=other)
    short = dataset(tmp_path / "short", [scene(k) for k in range(COUNT)])
    shutil.copytree(short, tmp_path / "o2")
    assert main(["verify", str(short), "--out", str(tmp_path / "o2"), "--quiet", *against(real)]) == 2
    assert "exists; choose another --out" in capsys.readouterr().err


def test_an_export_is_judged_against_its_simulated_episode_and_keeps_its_records(tmp_path: Path) -> None:
    """A v3.0 dataset: verdict columns beside what was known; videos are linked, not written again."""
    run = make_run(tmp_path / "run", takes=1, frames=6, size=SIZE)
    export([run], tmp_path / "d", ExportOptions(video=VideoOptions.of("h264")), Selection(include_sim=True))
    code = verify(tmp_path / "d", tmp_path / "judged", "--episode", str(run))
    assert code in (3, 4)
    data, before = Dataset(tmp_path / "judged"), Dataset(tmp_path / "d")
    for ours, theirs in zip(data.episodes(), before.episodes(), strict=True):
        assert ours.provenance["uid"] == theirs.provenance["uid"]
        assert ours.provenance["verdict_status"] in ("fail", "unsure")
        assert ours.videos["observation.images.front"].path.samefile(theirs.videos["observation.images.front"].path)
    assert [r["uid"] for r in data.provenance()] == [r["uid"] for r in before.provenance()]


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged run in whose world the packet is a bun: its takes are exact, and no box."""
    episode = tmp_path_factory.mktemp("painted") / "e"
    make_scene_episode(episode, frames=30, size=(200, 152), wrist=True)
    for stage in (
        ["skeleton"], ["variants", "--world", "bun_warehouse"], ["takes", "--backend", "composite"], ["verify"],
    ):  # fmt: skip
        assert main([stage[0], str(episode), *stage[1:]]) in (0, 3, 4), stage
    return episode.with_name("e-run")


def checks_of(document: dict[str, Any]) -> dict[str, tuple[str, float | None]]:
    return {c["name"]: (c["status"], c["value"]) for c in document["checks"] if c["name"] != "fps"}


def test_takes_of_a_run_are_judged_in_their_dataset_as_in_the_run(painted: Path, tmp_path: Path) -> None:
    export(
        [painted], tmp_path / "d", ExportOptions(video=VideoOptions.of("lossless")),
        Selection(unverified=True, include_sim=True),
    )  # fmt: skip
    verify(tmp_path / "d", tmp_path / "judged", "--episode", str(painted), "--json", str(tmp_path / "v.json"))
    data, found = Dataset(tmp_path / "d"), read_json(tmp_path / "v.json")["verdicts"]
    takes = {take.camera: take for take in open_run(painted).takes()}
    assert takes.keys() == {"front", "wrist"}
    judged = next(
        one for row, one in zip(data.episodes(), found, strict=True) if row.provenance["domain"] == "composite"
    )
    for camera, take in takes.items():
        stored = open_run(painted).verdict_of(take)
        assert stored is not None
        assert checks_of(judged["cameras"][camera]) == checks_of(stored.document())


def test_records_say_which_episode_which_window_and_whose_limits(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"r{i}", seed=i, takes=2, frames=6, size=SIZE) for i in range(2)]
    export(runs, tmp_path / "d", ExportOptions(video=VideoOptions.of("h264")))
    rows = list(Dataset(tmp_path / "d").episodes())
    assert len(rows) == 4
    reference, _ = simulated_reference(
        [runs[1], runs[0]], tmp_path / "d"
    )  # in any order, fewer than the dataset's episodes
    for row in rows:
        row = replace(row, provenance=row.provenance | {"window_start": 2})
        shown = reference(row, "front")
        assert shown.episode.content_sha256 == row.provenance["source_episode_id"]
        assert (shown.start, shown.family) == (2, row.provenance["domain"])
    strangers = [replace(row, provenance={}) for row in rows]
    assert reference(strangers[1], "front").start == 0
    with pytest.raises(InputError, match=r"--episode names 2; .* has 4 episodes, and episode 2 says of none of them"):
        simulated_reference([runs[0], make_run(tmp_path / "other", seed=7, frames=6, size=SIZE)], tmp_path / "d")


@given(st.integers(2, 40), st.sampled_from([10.0, 12.5, 14.9254, 15.0, 20.0, 30.0, 59.94]))
def test_pictures_of_another_rate_are_compared_by_their_times(count: int, rate: float) -> None:
    pictures = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    found = judged_module._at_rate(pictures, rate, 15.0, "it")[:, 0, 0, 0].astype(float)
    wanted = np.arange(len(found)) / 15.0
    assert np.abs(found / rate - wanted).max() <= 0.5 / rate + 1e-9 or rate == 15.0
    assert abs(len(found) / 15.0 - count / rate) <= 0.76 / 15.0, "it plays as long"


def test_pictures_too_far_apart_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"it has 8 pictures per second, the episode 15: too far apart .* valid: 9 or more"
    ):
        judged_module._at_rate(np.zeros((4, 2, 2, 3), np.uint8), 8.0, 15.0, "it")
