# SPDX-License-Identifier: Apache-2.0
"""Base against tuned: pairs, their statistics, and a stand-in whose objects are known to lie beside the simulator's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.files import sha256_file, write_json
from retake.core.skeleton import make_skeleton
from retake.worker.tune.evaluate import _figures, evaluate, interval, named, sign_flip_p, summarise

FRAMES = 24


class Simulated:
    """Gives back the simulator's pictures, the packet moved by `shift` pixels after its release."""

    version, domain, licence, model, revision = "1", "generated", "Apache-2.0", "stand-in", "1"

    def __init__(self, name: str, shift: int) -> None:
        self.name, self.shift = name, shift

    def generate(self, request: Any, progress: Any = None, check_cancel: Any = None) -> Any:
        episode = open_episode(request.episode)
        packet = next(i.id for i in episode.header.instances if i.owner == "object:packet")
        release = episode.header.settings["release_frame"]
        for k in range(request.frames):
            frame = episode.image("front", "rgb", k).copy()
            if self.shift and k > release:
                mask = episode.image("front", "instances", k) == packet
                patch = frame.copy()
                frame[mask] = cv2.medianBlur(frame, 31)[mask]
                ys, xs = np.nonzero(mask)
                xs_moved = np.clip(xs + self.shift, 0, frame.shape[1] - 1)
                frame[ys, xs_moved] = patch[ys, xs]
            yield frame


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "drop"
    episode = make_scene_episode(folder / "episode", frames=FRAMES, size=(320, 240))
    make_skeleton(episode, "front", folder / "skeleton" / "front")
    write_json(folder / "run.json", {"schema": "retake.run/2", "config": {}, "stages": {}})
    for name in ("kitchen", "garage"):
        frame = folder / "variants" / name / "front" / "frame.png"
        frame.parent.mkdir(parents=True)
        cv2.imwrite(str(frame), cv2.cvtColor(episode.image("front", "rgb", 0), cv2.COLOR_RGB2BGR))
        write_json(frame.parent / "variant.json", {
            "schema": "retake.variant/1", "id": f"{name}/front",
            "world": {"name": name, "environment": "kitchen", "surface": "wood",
            "subject": "packet", "lighting": "day"}, "seed": 0, "prompt": name, "negative_prompt": "", "camera": "front",
            "frame_sha256": sha256_file(frame), "backend": "folder", "backend_version": "1", "licence": "Apache-2.0",
            "source": {"episode_sha256": episode.content_sha256, "frame": 0},
        })  # fmt: skip
    return folder


def test_the_better_model_is_seen_and_the_arm_is_not_blamed(run, tmp_path):
    backends = {"base": Simulated("base", 22), "tuned": Simulated("tuned", 0)}
    found = evaluate(backends, [run], tmp_path, frames=FRAMES)
    rows = {row["name"]: row for row in found["rows"] if row["group"] == "all"}
    assert rows["object_settled_iou"]["pairs"] == 2
    assert rows["object_settled_iou"]["gain"] > 0.2
    assert rows["object_settled_l2"]["gain"] > 0
    assert abs(rows["arm_offset"]["gain"]) < 1.0
    assert found["arm_follows_worse"] == []
    assert (tmp_path / "eval.html").read_text().count("<video") == 4
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    again = evaluate(backends, [run], tmp_path, frames=FRAMES)
    assert again["rows"] == found["rows"]
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}


def test_runs_of_one_name_are_kept_apart(run, tmp_path):
    """Each has pairs, videos and verdicts of its own, and the page says which is which."""
    for name in ("a", "b"):
        shutil.copytree(run, tmp_path / name / "drop")
    shutil.rmtree(tmp_path / "b/drop/variants/garage")
    runs, out = [tmp_path / "a/drop", tmp_path / "b/drop", tmp_path / "a/../a/drop"], tmp_path / "out"
    found = evaluate({"base": Simulated("base", 9), "tuned": Simulated("tuned", 0)}, runs, out, frames=FRAMES)
    assert [p["run"] for p in found["pairs"]] == ["a/drop", "a/drop", "b/drop"], "and a run given twice counts once"
    assert len({p["base"]["video"] for p in found["pairs"]}) == len(list(out.glob("base/**/*.mp4"))) == 3
    assert "b/drop · kitchen" in (out / "eval.html").read_text()


def test_names_of_runs():
    def names(*runs: str) -> list[str]:
        return list(named([Path(run) for run in runs]))

    assert names() == []
    assert names("/x/a", "/x/b") == ["a", "b"]
    assert names("/x/a/run", "/x/b/run", "/x/b/run/") == ["a/run", "b/run"]
    assert names("/x/a/run", "/y/a/run", "/run") == ["x/a/run", "y/a/run", "run"]


def test_falls_are_compared():
    """The take's own acceleration against gravity, and where a model was shown the objects, what it shows of their glyphs."""
    checks = [
        {"name": name, "value": value}
        for name, value in (("fall_acceleration", 0.2), ("control_leak", 0.01), ("lag", 0))
    ]
    figures = _figures({"checks": checks, "metrics": {}, "probability": 1.0, "overall": "pass"})
    assert figures == {"fall_acceleration": 0.2, "control_leak": 0.01, "lag": 0, "probability": 1.0, "failed": 0.0}
    better = summarise(
        [pair(1, 1) | {arm: {"video": "", "fall_acceleration": v} for arm, v in (("base", 0.5), ("tuned", 0.1))}]
    )
    assert [row["gain"] for row in better["rows"] if (row["name"], row["group"]) == ("fall_acceleration", "all")] == [
        0.4
    ]


def pair(base: float, tuned: float, **more: Any) -> dict[str, Any]:
    return {"run": "r", "variant": "v", "seed": 1, "object": "box", "band": "no drop", "seen": False,
            "base": {"video": "a", "arm_offset": base}, "tuned": {"video": "b", "arm_offset": tuned}, **more}  # fmt: skip


def test_a_worse_arm_is_named():
    found = summarise([pair(1.0 + 0.01 * k, 2.0 + 0.02 * k) for k in range(8)])
    assert found["arm_follows_worse"] == ["arm_offset"]
    assert summarise([pair(1.0 + 0.1 * (-1) ** k, 1.0) for k in range(8)])["arm_follows_worse"] == []


def test_seen_and_new_motions_are_rows_of_their_own():
    found = summarise([pair(1, 2, seen=True), pair(1, 2, seen=False), pair(1, 3, seen=False)])
    assert {row["group"]: row["pairs"] for row in found["rows"] if row["name"] == "arm_offset"} == {
        "all": 3, "box": 3, "no drop": 3, "motions seen in training": 1, "new motions": 2,
    }  # fmt: skip


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_statistics_do_not_depend_on_order_or_scale(values):
    gains = np.array(values)
    assert 0 < sign_flip_p(gains) <= 1
    assert sign_flip_p(gains) == pytest.approx(sign_flip_p(-gains))
    low, high = interval(gains)
    assert (low <= gains.mean() + 1e-9 and high >= gains.mean() - 1e-9) or len(gains) < 4
    if np.ptp(gains) == 0 and gains[0] != 0 and len(gains) >= 6:
        assert sign_flip_p(gains) < 0.05


def test_what_is_missing_is_named(run, tmp_path):
    (tmp_path / "bare").mkdir()
    write_json(tmp_path / "bare" / "run.json", {"schema": "retake.run/2"})
    backends = {"base": Simulated("base", 0), "tuned": Simulated("tuned", 0)}
    with pytest.raises(InputError, match="has no variants"):
        evaluate(backends, [tmp_path / "bare"], tmp_path / "out")
    with pytest.raises(InputError, match="compares"):
        evaluate({"base": backends["base"]}, [run], tmp_path / "out")
