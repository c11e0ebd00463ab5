# SPDX-License-Identifier: Apache-2.0
"""Anybody's videos in a LeRobot dataset are judged against what they are copies of; verdicts go into a copy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from export_runs import make_run, tree
from lerobot_plain import PANDA, panda_motion, write_plain

from retake.core.cli import main
from retake.core.export import ExportOptions, Selection, VideoOptions, export
from retake.core.export.reader import Dataset
from retake.core.files import read_json

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
